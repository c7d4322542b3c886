//! Which events of the audit trail are asked for.

use schemars::{Schema, json_schema};

use super::InputFault;
use super::text::{print_as_text, read_by_parsing};
use crate::audit::EventKind;

/// The name of one kind of event, out of [`EventKind::ACTIONS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AuditActionFilter(&'static str);

const UNKNOWN: InputFault = InputFault::new("action.unknown", "Must be the name of an audited action.");

impl AuditActionFilter {
    /// Reads a name.
    pub fn parse(text: &str) -> Result<Self, InputFault> {
        EventKind::ACTIONS.iter().find(|action| **action == text).map(|action| Self(action)).ok_or(UNKNOWN)
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "enum": EventKind::ACTIONS })
    }
}

read_by_parsing!(AuditActionFilter, "the name of an audited action");
print_as_text!(AuditActionFilter);
