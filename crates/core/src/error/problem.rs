//! `application/problem+json` (RFC 9457): the one shape in which errors leave.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Serialize;

use super::{Code, FieldError, Refusal};
use crate::id::RequestId;

/// The body of every error answer.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Problem {
    /// Names the kind of problem: a URN made from the code, or the registered type where the IETF draft on rate-limit
    /// fields defines one.
    #[serde(rename = "type")]
    pub kind: Cow<'static, str>,
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
            kind: kind(refusal.code),
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

/// The problem types of draft-ietf-httpapi-ratelimit-headers where they fit, else our own URN.
fn kind(code: Code) -> Cow<'static, str> {
    match code {
        Code::QuotaExceeded => "https://iana.org/assignments/http-problem-types#quota-exceeded".into(),
        Code::AbnormalUsage => "https://iana.org/assignments/http-problem-types#abnormal-usage-detected".into(),
        Code::Busy => "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity".into(),
        other => format!("urn:bartizan:error:{}", other.as_str()).into(),
    }
}
