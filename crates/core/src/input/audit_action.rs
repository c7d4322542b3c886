//! Which events of the audit trail are asked for.

use std::borrow::Cow;

use schemars::{Schema, json_schema};

use super::InputFault;
use super::text::{print_as_text, read_by_parsing};
use crate::audit::{EventKind, is_application_name};

/// The name of one kind of event: out of [`EventKind::ACTIONS`], or an application's own, `app.…`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AuditActionFilter(Cow<'static, str>);

const UNKNOWN: InputFault = InputFault::new("action.unknown", "Must be the name of an audited action.");

impl AuditActionFilter {
    /// Reads a name.
    pub fn parse(text: &str) -> Result<Self, InputFault> {
        match EventKind::ACTIONS.iter().find(|action| **action == text) {
            Some(action) => Ok(Self(Cow::Borrowed(action))),
            // Which of them there are the application knows.
            None if is_application_name(text) => Ok(Self(Cow::Owned(text.to_owned()))),
            None => Err(UNKNOWN),
        }
    }

    fn schema() -> Schema {
        json_schema!({ "anyOf": [
            { "type": "string", "enum": EventKind::ACTIONS },
            { "type": "string", "pattern": r"^app(\.[a-z0-9_]+)+$", "maxLength": 64 },
        ] })
    }
}

read_by_parsing!(AuditActionFilter, "the name of an audited action");
print_as_text!(AuditActionFilter);
