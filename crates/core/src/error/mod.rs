//! What is said when the answer is no.
//!
//! A [`Refusal`] is something the caller can change; it is told plainly, with a stable code and a hint. What we broke
//! ourselves is a *fault*: the caller gets [`Code::Internal`] and the request id, the cause goes to the log, once.

mod codes;
mod problem;

pub use codes::Code;
pub use problem::Problem;

use std::borrow::Cow;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

/// One thing wrong with one part of the input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FieldError {
    /// Where: a JSON Pointer (RFC 6901) into the body, or `query:name`, `path:name`, `header:name`.
    #[schemars(length(max = 1024))]
    pub pointer: String,
    /// Stable code of the rule, such as `string.too_long`.
    pub code: Cow<'static, str>,
    /// A plain sentence. It never contains the value.
    pub message: Cow<'static, str>,
}

impl FieldError {
    /// Names the rule `code` as broken at `pointer`.
    pub fn new(
        pointer: impl Into<String>,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { pointer: pointer.into(), code: code.into(), message: message.into() }
    }
}

/// A refusal: what was refused and what the caller can do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {detail}", code = code.as_str())]
pub struct Refusal {
    /// The stable code; it fixes status and title.
    pub code: Code,
    /// A sentence for this occurrence. It never contains a secret or a raw input value.
    pub detail: Cow<'static, str>,
    /// The faults of the input, all of them, in order of appearance.
    pub errors: Vec<FieldError>,
    /// How long to wait before asking again; becomes `Retry-After`, rounded up to whole seconds.
    pub retry_after: Option<Duration>,
    /// The names of the rate-limit policies that said no.
    pub violated_policies: Vec<Cow<'static, str>>,
}

impl Refusal {
    /// Refuses with the code's own hint as the sentence.
    pub fn new(code: Code) -> Self {
        Self {
            code,
            detail: Cow::Borrowed(code.hint()),
            errors: Vec::new(),
            retry_after: None,
            violated_policies: Vec::new(),
        }
    }

    /// Replaces the sentence.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = detail.into();
        self
    }

    /// Adds one fault of the input.
    #[must_use]
    pub fn error(mut self, error: FieldError) -> Self {
        self.errors.push(error);
        self
    }

    /// Says when asking again makes sense.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }
}

impl From<Code> for Refusal {
    fn from(code: Code) -> Self {
        Refusal::new(code)
    }
}
