//! Refusals into the audit trail: written in batches, outside any transaction, never in the way of an answer.

use bartizan_core::audit::{AuditEvent, EventKind};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::ground::Ground;
use crate::guard::Grant;

/// Most refusals waiting to be written; beyond, they are counted and dropped.
const WAITING: usize = 4_096;
/// Most refusals in one transaction.
const BATCH: usize = 256;

/// Takes refusals. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Refusals {
    ground: Ground,
    queue: mpsc::Sender<AuditEvent>,
}

impl Refusals {
    /// Starts the writer; it ends, having written everything, when the last clone is gone.
    pub(crate) fn start(ground: Ground) -> (Self, JoinHandle<()>) {
        let (queue, waiting) = mpsc::channel(WAITING);
        let writer = tokio::spawn(write(ground.clone(), waiting));
        (Self { ground, queue }, writer)
    }

    /// Notes a refusal. Never waits: with a full queue it is counted instead.
    pub(crate) fn note(&self, grant: &Grant, kind: EventKind) {
        let noted = self.ground.event(grant, kind).ok().and_then(|event| self.queue.try_send(event).ok());
        if noted.is_none() {
            self.ground.metrics.audit_dropped.inc();
        }
    }
}

async fn write(ground: Ground, mut waiting: mpsc::Receiver<AuditEvent>) {
    let mut batch = Vec::with_capacity(BATCH);
    while waiting.recv_many(&mut batch, BATCH).await > 0 {
        match ground.db.record_all(&batch).await {
            Ok(committed) => {
                // Refusals end nothing: there is nothing to announce.
                ground.apply(committed);
                // One was counted there.
                ground.metrics.audit_events.inc_by(batch.len().saturating_sub(1) as u64);
            }
            Err(cause) => {
                tracing::error!(%cause, rows = batch.len(), "refusals could not be written to the audit trail");
                ground.metrics.audit_dropped.inc_by(batch.len() as u64);
            }
        }
        batch.clear();
    }
}
