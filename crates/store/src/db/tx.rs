//! A change, its rows in the audit trail and its effects: all of them, or none.

use std::ops::{Deref, DerefMut};

use bartizan_core::audit::{AuditEvent, Effect};
use bartizan_core::time::Millis;

use super::conn::Conn;
use crate::error::StoreError;
use crate::queries::audit;
use crate::queries::effects::{self, NewEffect};
use crate::scope::{Border, Scope};

/// A change in the making. Dropped, it never was.
///
/// The way to keep it is [`Tx::commit`], which demands the event that says what was done. After any error the
/// transaction refuses further calls: drop it and begin again.
#[must_use = "a change that is not committed is rolled back"]
pub struct Tx<S: Border = Scope> {
    conn: Conn<S>,
    seq: i64,
    /// Written last, see [`Tx::settle`].
    effects: Vec<NewEffect>,
}

/// A durable change. The effects are in the database, but not yet in memory: apply them before answering.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "apply the effects, then answer with the value"]
pub struct Committed<T> {
    /// What the service answers with.
    pub value: T,
    /// The number of the last audit row written; 0 when none was.
    pub seq: i64,
    /// What ends or changes from now on, each until when it must be remembered. In order.
    pub effects: Vec<(Effect, Millis)>,
    /// The number of the last effect written; `None` when there was none. A node that has applied all up to it has
    /// applied these. Numbers rise in the order of commits.
    pub effect_seq: Option<i64>,
}

impl<S: Border> Tx<S> {
    pub(super) fn new(conn: Conn<S>) -> Self {
        Self { conn, seq: 0, effects: Vec::new() }
    }

    /// Writes the audit row of `event` and its effects; returns the row's number. For a transaction with several
    /// events; the last goes to [`Tx::commit`].
    ///
    /// # Errors
    /// [`StoreErrorKind::Misuse`](crate::StoreErrorKind::Misuse) when the event is of another tenant than the scope.
    pub async fn record(&mut self, event: &AuditEvent) -> Result<i64, StoreError> {
        if !self.conn.scope().admits(event.tenant) {
            return Err(StoreError::misuse("an event of another tenant than the transaction's"));
        }
        self.seq = audit::append(&mut self.conn, event).await?;
        self.effects.extend(effects::of(event));
        Ok(self.seq)
    }

    /// Keeps the change: it, the row of `event` and the effects become durable together before this returns.
    /// `value` comes back inside, so that forgetting to commit shows.
    ///
    /// Cost: one `fsync`.
    pub async fn commit<T>(mut self, event: AuditEvent, value: T) -> Result<Committed<T>, StoreError> {
        self.record(&event).await?;
        self.settle(value).await
    }

    /// Keeps bookkeeping that needs no row in the trail (`last seen`, counters of failures, pruning).
    ///
    /// # Errors
    /// [`StoreErrorKind::Misuse`](crate::StoreErrorKind::Misuse), and everything is rolled back, when anything ran
    /// that is not marked quiet.
    pub async fn commit_quietly<T>(self, value: T) -> Result<T, StoreError> {
        if self.conn.trace().unrecorded || self.seq != 0 {
            self.conn.cancel().await?;
            return Err(StoreError::misuse("a change that belongs in the trail was about to be kept quietly"));
        }
        Ok(self.settle(value).await?.value)
    }

    /// Takes everything back on purpose, as when a rule refuses after the first write.
    pub async fn cancel(self) -> Result<(), StoreError> {
        self.conn.cancel().await
    }

    /// Effects are written last: on PostgreSQL whoever writes them keeps all others who do from numbering theirs until
    /// his commit, so nothing may come in between, least of all a wait for somebody else.
    pub(super) async fn settle<T>(self, value: T) -> Result<Committed<T>, StoreError> {
        let Tx { mut conn, seq, effects } = self;
        let effect_seq = effects::append(&mut conn, &effects).await?;
        conn.commit().await?;
        let effects = effects.into_iter().map(|new| (new.effect, new.until)).collect();
        Ok(Committed { value, seq, effects, effect_seq })
    }
}

impl<S: Border> Deref for Tx<S> {
    type Target = Conn<S>;
    fn deref(&self) -> &Conn<S> {
        &self.conn
    }
}

impl<S: Border> DerefMut for Tx<S> {
    fn deref_mut(&mut self) -> &mut Conn<S> {
        &mut self.conn
    }
}
