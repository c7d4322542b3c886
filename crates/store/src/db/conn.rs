//! One connection inside one border.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sqlx::pool::PoolConnection;
use sqlx::sqlite::SqliteArguments;
use sqlx::{Sqlite, SqliteConnection};

use super::Held;
use crate::error::{StoreError, StoreErrorKind};
use crate::scope::{Border, Scope};
use crate::sql::{Scoped, Statement};
use crate::value::{FromRow, Row, Value};

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

/// The connection itself. PostgreSQL will be a second kind of `line`.
pub(super) struct Wire {
    /// Empty only while being dropped.
    line: Option<PoolConnection<Sqlite>>,
    /// Whether a transaction is, or may be, open.
    open: bool,
}

impl Wire {
    pub(super) fn reading(line: PoolConnection<Sqlite>) -> Self {
        Self { line: Some(line), open: false }
    }

    /// Begins as a writer at once: a transaction that reads first and writes later could find its snapshot stale.
    pub(super) async fn begin(line: PoolConnection<Sqlite>) -> Result<Self, StoreError> {
        // Open from the start, so that a caller who goes away in the middle of BEGIN leaves no transaction behind.
        let mut wire = Self { line: Some(line), open: true };
        wire.execute("BEGIN IMMEDIATE", Vec::new()).await?;
        Ok(wire)
    }

    async fn fetch(&mut self, sql: &'static str, args: Vec<Value>) -> Result<Vec<Row>, StoreError> {
        let rows = bound(sql, args).fetch_all(self.line()?).await?;
        Ok(rows.into_iter().map(Row).collect())
    }

    async fn execute(&mut self, sql: &'static str, args: Vec<Value>) -> Result<u64, StoreError> {
        Ok(bound(sql, args).execute(self.line()?).await?.rows_affected())
    }

    /// A failed COMMIT leaves `open` set: the drop cleans up.
    async fn commit(&mut self) -> Result<(), StoreError> {
        self.execute("COMMIT", Vec::new()).await?;
        self.open = false;
        Ok(())
    }

    async fn rollback(&mut self) -> Result<(), StoreError> {
        self.execute("ROLLBACK", Vec::new()).await?;
        self.open = false;
        Ok(())
    }

    fn line(&mut self) -> Result<&mut SqliteConnection, StoreError> {
        self.line.as_deref_mut().ok_or_else(|| StoreError::new(StoreErrorKind::Closed))
    }
}

impl Drop for Wire {
    /// Nobody gets the connection before its transaction is gone. After a full disk SQLite has rolled back by itself
    /// and our ROLLBACK fails, as it does after a commit that was not waited for: then the connection is closed, which
    /// ends whatever it still holds, and the pool makes a new one.
    fn drop(&mut self) {
        let Some(mut line) = self.line.take().filter(|_| self.open) else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            // The program ends: closing the file rolls back.
            line.close_on_drop();
            return;
        };
        runtime.spawn(async move {
            if sqlx::query("ROLLBACK").execute(&mut *line).await.is_err() {
                line.close_on_drop();
            }
        });
    }
}

fn bound(sql: &'static str, args: Vec<Value>) -> sqlx::query::Query<'static, Sqlite, SqliteArguments> {
    args.into_iter().fold(sqlx::query::<Sqlite>(sql), |query, value| match value {
        Value::Null => query.bind(None::<i64>),
        Value::Int(number) => query.bind(number),
        Value::Text(text) => query.bind(text),
        Value::Blob(bytes) => query.bind(bytes),
    })
}
