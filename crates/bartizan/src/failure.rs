//! What the rooms below say, in the words of an answer.

use std::time::Duration;

use bartizan_core::error::{Code, Refusal};
use bartizan_store::{StoreError, StoreErrorKind};

use crate::api::Failure;

impl From<StoreError> for Failure {
    /// What is taken is the caller's to change; a store that cannot write is told as 503, because nothing was changed
    /// and trying again is right; our own mistakes are faults.
    fn from(error: StoreError) -> Self {
        match error.kind() {
            StoreErrorKind::Duplicate("slug") => Code::SlugTaken.into(),
            StoreErrorKind::Duplicate("email") => Code::EmailTaken.into(),
            StoreErrorKind::Duplicate("idempotency key") => Code::IdempotencyConflict.into(),
            StoreErrorKind::Duplicate(_) => Code::Conflict.into(),
            StoreErrorKind::Busy | StoreErrorKind::Full | StoreErrorKind::ReadOnly | StoreErrorKind::Io
            | StoreErrorKind::Closed => {
                tracing::error!(cause = %error, "the store refused");
                Refusal::new(Code::StorageUnavailable).retry_after(Duration::from_secs(5)).into()
            }
            _ => Failure::fault(error),
        }
    }
}
