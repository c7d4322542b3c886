//! What the rooms below say, in the words of an answer.

use std::time::Duration;

use bartizan_core::error::{Code, Refusal};
use bartizan_keys::{KeyError, Transience};
use bartizan_store::{StoreError, StoreErrorKind};

use crate::api::Failure;
use crate::hashing::HashingError;
use crate::vault::VaultError;

impl From<StoreError> for Failure {
    /// What is taken is the caller's to change; a store that cannot write is told as 503, because nothing was changed
    /// and trying again is right; our own mistakes are faults.
    fn from(error: StoreError) -> Self {
        match error.kind() {
            StoreErrorKind::Duplicate("slug") => Code::SlugTaken.into(),
            StoreErrorKind::Duplicate("email") => Code::EmailTaken.into(),
            StoreErrorKind::Duplicate("idempotency key") => Code::IdempotencyConflict.into(),
            StoreErrorKind::Duplicate(_) => Code::Conflict.into(),
            StoreErrorKind::Unknown => {
                tracing::error!(cause = %error, "the store did not answer a commit");
                Refusal::new(Code::OutcomeUnknown).retry_after(Duration::from_secs(2)).into()
            }
            StoreErrorKind::Busy | StoreErrorKind::Unreachable => {
                tracing::warn!(cause = %error, "the store refused for now");
                Refusal::new(Code::StorageUnavailable).retry_after(Duration::from_secs(1)).into()
            }
            StoreErrorKind::Access
            | StoreErrorKind::Full
            | StoreErrorKind::ReadOnly
            | StoreErrorKind::Io
            | StoreErrorKind::Closed => {
                tracing::error!(cause = %error, "the store refused");
                Refusal::new(Code::StorageUnavailable).retry_after(Duration::from_secs(5)).into()
            }
            _ => Failure::fault(error),
        }
    }
}

impl From<HashingError> for Failure {
    fn from(error: HashingError) -> Self {
        match error {
            HashingError::Busy { retry_after } => Refusal::new(Code::Busy).retry_after(retry_after).into(),
            _ => Failure::fault(error),
        }
    }
}

impl From<VaultError> for Failure {
    /// A key provider that is away for a moment is told as 503; never is anything kept or shown in the clear instead.
    fn from(error: VaultError) -> Self {
        match error.transience() {
            Transience::Transient => {
                tracing::error!(cause = %error, "the key provider is away");
                Refusal::new(Code::StorageUnavailable).retry_after(Duration::from_secs(5)).into()
            }
            Transience::Permanent => Failure::fault(error),
        }
    }
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        VaultError::from(error).into()
    }
}
