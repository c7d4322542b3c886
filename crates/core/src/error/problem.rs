//! `application/problem+json` (RFC 9457): the one shape in which errors leave.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Serialize;

use super::{FieldError, Refusal};
use crate::id::RequestId;

/// The body of every error answer.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Problem {
    /// A relative reference to the section of `docs/errors.md` that explains the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// The same for every occurrence of the code.
    pub title: &'static str,
    /// The HTTP status, again, for clients that lost it.
    pub status: u16,
    /// The stable code.
    pub code: &'static str,
    /// A sentence about this occurrence.
    pub detail: Cow<'static, str>,
    /// The request id: what to tell the operator.
    pub instance: String,
    /// What is wrong with which part of the input.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// The rate-limit policies that said no.
    #[serde(rename = "violated-policies", skip_serializing_if = "Vec::is_empty")]
    pub violated_policies: Vec<Cow<'static, str>>,
}

impl Problem {
    /// Puts a refusal into words for the request `id`.
    pub fn of(refusal: Refusal, id: RequestId) -> Self {
        Self {
            kind: format!("/errors#{}", refusal.code.as_str().replace('.', "-")),
            title: refusal.code.title(),
            status: refusal.code.status(),
            code: refusal.code.as_str(),
            detail: refusal.detail,
            instance: id.to_string(),
            errors: refusal.errors,
            violated_policies: refusal.violated_policies,
        }
    }
}
