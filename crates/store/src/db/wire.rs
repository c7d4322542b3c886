//! The connection itself, whichever database is at its other end.

use sqlx::pool::PoolConnection;
use sqlx::sqlite::SqliteArguments;
use sqlx::{Sqlite, SqliteConnection};

use super::postgres::{Line, Postgres};
use super::turn::Turn;
use crate::error::{StoreError, StoreErrorKind};
use crate::value::{Row, Value};

/// One connection, inside a transaction or not.
pub(super) struct Wire {
    /// Empty only while being dropped.
    link: Option<Link>,
    /// Whether a transaction is, or may be, open.
    open: bool,
}

enum Link {
    Sqlite(PoolConnection<Sqlite>),
    Postgres(Line),
}

/// Keeps the change. A limit for statements must not end the wait for a synchronous standby: the server would then
/// report as kept what only the primary has. Within one message each statement has its own limit since PostgreSQL 13.
const COMMIT: &str = "SET LOCAL statement_timeout = 0; COMMIT";

impl Wire {
    pub(super) fn reading_sqlite(line: PoolConnection<Sqlite>) -> Self {
        Self { link: Some(Link::Sqlite(line)), open: false }
    }

    pub(super) fn reading_postgres(line: Line) -> Self {
        Self { link: Some(Link::Postgres(line)), open: false }
    }

    /// Begins as a writer at once: a transaction that reads first and writes later could find its snapshot stale.
    pub(super) async fn begin_sqlite(line: PoolConnection<Sqlite>) -> Result<Self, StoreError> {
        // Open from the start, so that a caller who goes away in the middle of BEGIN leaves no transaction behind.
        let mut wire = Self { link: Some(Link::Sqlite(line)), open: true };
        wire.execute("BEGIN IMMEDIATE", Vec::new()).await?;
        Ok(wire)
    }

    /// Begins, and waits for the turn.
    pub(super) async fn begin_postgres(postgres: &Postgres, turn: &Turn) -> Result<Self, StoreError> {
        let mut wire = Self { link: Some(Link::Postgres(postgres.line(turn).await?)), open: true };
        let Some(Link::Postgres(line)) = &mut wire.link else { return Err(closed()) };
        match line.batch(turn.begin()).await {
            Err(_) if line.died_resting() => {
                line.renew().await?;
                line.batch(turn.begin()).await?;
            }
            begun => begun?,
        }
        Ok(wire)
    }

    pub(super) async fn fetch(&mut self, sql: &'static str, args: Vec<Value>) -> Result<Vec<Row>, StoreError> {
        let open = self.open;
        match self.link()? {
            Link::Sqlite(line) => {
                let line: &mut SqliteConnection = line;
                Ok(bound(sql, args).fetch_all(line).await?.into_iter().map(Row::from).collect())
            }
            Link::Postgres(line) => {
                // Outside a transaction there is only reading, which may be done again.
                let again = (!open).then(|| args.clone());
                let rows = match (line.fetch(sql, args).await, again) {
                    (Err(_), Some(args)) if line.died_resting() => {
                        line.renew().await?;
                        line.fetch(sql, args).await?
                    }
                    (rows, _) => rows?,
                };
                Ok(rows.into_iter().map(Row::from).collect())
            }
        }
    }

    pub(super) async fn execute(&mut self, sql: &'static str, args: Vec<Value>) -> Result<u64, StoreError> {
        match self.link()? {
            Link::Sqlite(line) => {
                let line: &mut SqliteConnection = line;
                Ok(bound(sql, args).execute(line).await?.rows_affected())
            }
            Link::Postgres(line) => line.execute(sql, args).await,
        }
    }

    /// A failed COMMIT leaves `open` set: the drop cleans up.
    pub(super) async fn commit(&mut self) -> Result<(), StoreError> {
        if let Link::Postgres(line) = self.link()? {
            line.batch(COMMIT.to_owned()).await.map_err(StoreError::while_keeping)?;
        } else {
            self.execute("COMMIT", Vec::new()).await?;
        }
        self.open = false;
        Ok(())
    }

    pub(super) async fn rollback(&mut self) -> Result<(), StoreError> {
        self.execute("ROLLBACK", Vec::new()).await?;
        self.open = false;
        Ok(())
    }

    fn link(&mut self) -> Result<&mut Link, StoreError> {
        self.link.as_mut().ok_or_else(closed)
    }
}

fn closed() -> StoreError {
    StoreError::new(StoreErrorKind::Closed)
}

impl Drop for Wire {
    /// Nobody gets the connection before its transaction is gone. After a full disk SQLite has rolled back by itself
    /// and our ROLLBACK fails, as it does after a commit that was not waited for: then the connection is closed, which
    /// ends whatever it still holds, and the pool makes a new one.
    fn drop(&mut self) {
        let Some(link) = self.link.take() else { return };
        let open = self.open;
        match link {
            Link::Sqlite(line) if !open => drop(line),
            Link::Postgres(line) if !open && line.resting() => drop(line),
            link => match (tokio::runtime::Handle::try_current(), link) {
                (Ok(runtime), Link::Sqlite(mut line)) => drop(runtime.spawn(async move {
                    if sqlx::query("ROLLBACK").execute(&mut *line).await.is_err() {
                        line.close_on_drop();
                    }
                })),
                (Ok(runtime), Link::Postgres(line)) => drop(runtime.spawn(line.settle(open))),
                // The program ends: closing the file, or the connection, rolls back.
                (Err(_), Link::Sqlite(mut line)) => line.close_on_drop(),
                (Err(_), Link::Postgres(line)) => line.discard(),
            },
        }
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
