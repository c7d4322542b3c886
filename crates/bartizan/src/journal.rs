//! The audit trail for what an application does of its own.

use bartizan_core::action::Action;
use bartizan_core::audit::{AppEvent, AppRecord, EventKind};

use crate::api::Failure;
use crate::ground::Ground;
use crate::guard::Permit;

/// Writes an application's events into the trail of the tenant that a permit is for, beside the built-in ones. A service
/// for handlers (`Service<Journal>`), from [`Engine::journal`](crate::engine::Engine::journal); cheap to clone.
#[derive(Clone, Debug)]
pub struct Journal {
    ground: Ground,
}

impl Journal {
    pub(crate) fn new(ground: Ground) -> Self {
        Self { ground }
    }

    /// Records that whoever holds `permit` did `event`. When this returns, the row is durable, with actor, address and
    /// request as the guard saw them; nobody can name others.
    ///
    /// The application's data lies elsewhere, so the two are not one transaction: record *before* the change is kept, and
    /// do not keep it when this fails. A crash between the two leaves a row too many, never a change without one.
    ///
    /// Cost: one `fsync`, among the other changes.
    ///
    /// # Errors
    /// 503 when the trail cannot be written; a fault when the event does not keep its bounds.
    pub async fn record<A: Action, E: AppEvent>(&self, permit: &Permit<A>, event: &E) -> Result<(), Failure> {
        let record = AppRecord::of(event).map_err(Failure::fault)?;
        self.ground.record(permit.grant(), EventKind::Application(record)).await
    }
}
