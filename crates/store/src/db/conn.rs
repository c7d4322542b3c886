//! One connection inside one border.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Held;
use super::wire::Wire;
use crate::error::StoreError;
use crate::scope::{Border, Scope};
use crate::sql::{Scoped, Statement};
use crate::value::{FromRow, Value};

/// A connection and the border it must respect. What can be asked is what [`Statement`] allows for `S`.
pub struct Conn<S = Scope> {
    scope: S,
    wire: Wire,
    trace: Trace,
}

/// A connection that can only read.
pub struct Reader<S = Scope>(pub(super) Conn<S>);

impl<S> Deref for Reader<S> {
    type Target = Conn<S>;
    fn deref(&self) -> &Conn<S> {
        &self.0
    }
}

impl<S> DerefMut for Reader<S> {
    fn deref_mut(&mut self) -> &mut Conn<S> {
        &mut self.0
    }
}

impl<S: Border> Conn<S> {
    pub(super) fn new(scope: S, wire: Wire, trace: Trace) -> Self {
        Self { scope, wire, trace }
    }

    /// The border.
    pub fn scope(&self) -> &S {
        &self.scope
    }

    /// All rows of the answer. `args` are bound from `$2` on for a scoped statement, from `$1` on for the others.
    pub async fn rows<R: FromRow>(&mut self, sql: impl Statement<S>, args: Vec<Value>) -> Result<Vec<R>, StoreError> {
        let all = self.bind(sql, args);
        self.fetch(sql.sql(), sql.must_be_recorded(), all).await
    }

    /// The first row of the answer, if there is one.
    pub async fn row<R: FromRow>(&mut self, sql: impl Statement<S>, args: Vec<Value>) -> Result<Option<R>, StoreError> {
        // All rows are fetched: a statement with RETURNING must run to its end to have its whole effect.
        Ok(self.rows(sql, args).await?.into_iter().next())
    }

    /// Runs a statement without an answer; returns the number of rows it changed. On a [`Reader`] the database
    /// refuses it.
    pub async fn run(&mut self, sql: impl Statement<S>, args: Vec<Value>) -> Result<u64, StoreError> {
        let all = self.bind(sql, args);
        self.trace.attempt()?;
        let changed = self.wire.execute(sql.sql(), all).await?;
        self.trace.succeed(changed > 0, sql.must_be_recorded());
        Ok(changed)
    }

    /// The façade's own door for the audit row, whose tenant comes from the event and not from the scope. The caller
    /// has checked that the border admits it.
    pub(crate) async fn append<R: FromRow>(&mut self, sql: Scoped, args: Vec<Value>) -> Result<Vec<R>, StoreError> {
        self.fetch(sql.text(), false, args).await
    }

    async fn fetch<R: FromRow>(
        &mut self,
        sql: &'static str,
        must: bool,
        all: Vec<Value>,
    ) -> Result<Vec<R>, StoreError> {
        self.trace.attempt()?;
        let rows = self.wire.fetch(sql, all).await?;
        let rows = rows.iter().map(R::from_row).collect::<Result<Vec<R>, _>>()?;
        let wrote = !rows.is_empty() && !sql.starts_with("SELECT");
        self.trace.succeed(wrote, must);
        Ok(rows)
    }

    fn bind(&self, sql: impl Statement<S>, args: Vec<Value>) -> Vec<Value> {
        let mut all = Vec::with_capacity(args.len() + 1);
        all.extend(sql.first(&self.scope));
        all.extend(args);
        all
    }

    pub(super) fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Makes the change durable.
    pub(super) async fn commit(mut self) -> Result<(), StoreError> {
        self.trace.attempt()?;
        // From here on a drop is no oversight: either it is done, or an error is on its way.
        self.trace.settled = true;
        self.wire.commit().await
    }

    /// Takes everything back.
    pub(super) async fn cancel(mut self) -> Result<(), StoreError> {
        self.trace.settled = true;
        // After an error the drop finds out what state the connection is in.
        if self.trace.failed { Ok(()) } else { self.wire.rollback().await }
    }
}

/// What happened on a connection, so that a forgotten change is noticed.
pub(super) struct Trace {
    /// Something was written.
    wrote: bool,
    /// Something was written that needs an audit row.
    pub(super) unrecorded: bool,
    /// A call failed, or was given up in the middle: nothing more may be done but drop.
    failed: bool,
    /// `commit` or `cancel` was reached.
    settled: bool,
    held: Arc<Held>,
}

impl Trace {
    pub(super) fn new(held: Arc<Held>) -> Self {
        Self { wrote: false, unrecorded: false, failed: false, settled: false, held }
    }

    /// Before a call: from here until [`Trace::succeed`] it counts as failed, so that an error, and a caller who goes
    /// away in the middle, need no further care. After an error the database may have rolled everything back; what is
    /// written then would be kept by itself, without the change it belongs to.
    fn attempt(&mut self) -> Result<(), StoreError> {
        if std::mem::replace(&mut self.failed, true) {
            return Err(StoreError::misuse("a transaction was used after an error: drop it and begin again"));
        }
        Ok(())
    }

    fn succeed(&mut self, wrote: bool, must_be_recorded: bool) {
        self.failed = false;
        self.wrote |= wrote;
        self.unrecorded |= wrote && must_be_recorded;
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        if self.wrote && !self.settled && !self.failed {
            self.held.abandoned.fetch_add(1, Ordering::Relaxed);
        }
    }
}
