//! What a handler says when there is no answer.

use std::error::Error;
use std::fmt;

use axum::response::Response;
use bartizan_core::error::{Code, FieldError, Refusal};
use bartizan_core::id::RequestId;

use crate::answer;

/// Why a handler gives no answer: something the caller can change, or something we broke.
///
/// An application's error type joins in with `impl From<MyError> for Failure`.
#[derive(Debug)]
pub enum Failure {
    /// The caller can change something; he is told.
    Refusal(Refusal),
    /// Ours: the caller gets `server.internal` and the request id, the chain of causes goes to the log, once.
    Fault(Box<dyn Error + Send + Sync>),
}

impl Failure {
    /// Ours, with its cause.
    pub fn fault(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Failure::Fault(cause.into())
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Failure::Refusal(refusal)
    }
}

impl From<Code> for Failure {
    fn from(code: Code) -> Self {
        Failure::Refusal(code.into())
    }
}

impl From<FieldError> for Failure {
    fn from(error: FieldError) -> Self {
        Failure::Refusal(Refusal::new(Code::InputInvalid).error(error))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Refusal(refusal) => refusal.fmt(f),
            Failure::Fault(cause) => cause.fmt(f),
        }
    }
}

/// The edge: where a failure becomes an answer, and a fault is logged.
pub(super) fn answer(failure: Failure, id: RequestId, route: &str) -> Response {
    match failure {
        Failure::Refusal(refusal) => answer::refuse(refusal, id),
        Failure::Fault(cause) => {
            tracing::error!(request = %id, route, cause = %Chain(cause.as_ref()), "fault");
            answer::refuse(Code::Internal.into(), id)
        }
    }
}

/// An error and its sources on one line.
struct Chain<'a>(&'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut next = self.0.source();
        while let Some(source) = next {
            write!(f, ": {source}")?;
            next = source.source();
        }
        Ok(())
    }
}
