//! Moving a whole database from the file of one machine into a database server for many nodes.
//!
//! What holds, and why:
//!
//! 1. The source is only read, under the lock that keeps its server away.
//! 2. Rows are copied in the order of their keys, each batch in one statement that is kept whole or not at all. What the
//!    target holds is therefore always the beginning of what the source holds, and a run that was cut short, however,
//!    goes on behind the last key that is there. Nothing is lost or doubled, and nothing needs to be noted on the way.
//! 3. Until everything was compared, the table `transfer` says that it is unfinished, and no server starts on the target:
//!    see [`super::migrate`]. It is made in an empty database only.
//! 4. At the end both sides are read again from their first row to their last, and counts and digests must be equal.
//!
//! A source that was written to between two runs is refused: each start of a server leaves a row in its trail.

mod table;

use std::path::Path;

use bartizan_core::time::Millis;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Postgres, SqliteConnection};

use self::table::Table;
use super::migrate::{self, Unfinished};
use super::turn::MIGRATION;
use super::{DbOptions, postgres, sqlite};
use crate::error::{StoreError, StoreErrorKind};

/// Every table, those that others refer to first. A test compares it with the schema.
const TABLES: &[&str] = &[
    "tenants",
    "users",
    "blind_index",
    "data_keys",
    "sessions",
    "refresh_tokens",
    "signing_keys",
    "audit",
    "audit_heads",
    "effects",
    "idempotency",
    "blocks",
    "login_failures",
    "meta",
];

/// Tables whose rows the database numbers; no number is ever used twice.
const NUMBERED: &[&str] = &["audit", "effects"];

/// What a transfer does at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Rows are written.
    Copying,
    /// Both sides are read and compared.
    Comparing,
}

/// How far a transfer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What it does.
    pub stage: Stage,
    /// With which table.
    pub table: &'static str,
    /// Rows of this table that are done with, at this stage.
    pub done: u64,
    /// Rows of this table.
    pub rows: u64,
    /// The same for all tables and both stages: steps done.
    pub steps: u64,
    /// Steps in all.
    pub all: u64,
}

/// A table that is the same on both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Its name.
    pub table: &'static str,
    /// How many rows it has.
    pub rows: u64,
    /// SHA-256 of all of them in the order of their keys, in hexadecimal.
    pub digest: String,
}

/// How a transfer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transferred {
    /// Everything is there, and was compared.
    Now(Vec<Moved>),
    /// An earlier run had finished at this moment; nothing was done.
    Before(Millis),
}

/// Copies the SQLite database at `source`, as for [`super::Db::open`], into the empty PostgreSQL database at `target`, or goes on
/// with a copy that was cut short. Of `options` only the password and `acquire` are looked at.
///
/// Cost: each row is read twice and written once, 500 at a time.
///
/// # Errors
/// `Locked` while the source's server runs; `Occupied` when the target holds anything else, another installation, or an
/// earlier state of this one; `Corrupt` when the source is damaged or the sides differ in the end; and as for opening.
pub async fn transfer(
    source: &str,
    data_dir: &Path,
    target: &str,
    options: &DbOptions,
    mut progress: impl FnMut(Progress),
) -> Result<Transferred, StoreError> {
    if !postgres::address::is_postgres(target) {
        return Err(StoreError::new(StoreErrorKind::Url).detail("the target is `postgres://…`"));
    }
    let (mut from, fingerprint, _lock) = open_source(source, data_dir).await?;
    let (mut to, place) = postgres::single(target, options).await?;
    let about = |error: StoreError| error.detail_if_none(|| place.clone());
    if let Some(finished) = prepare(&mut to, &fingerprint).await.map_err(about)? {
        return Ok(Transferred::Before(finished));
    }
    let mut plan = Vec::new();
    for table in TABLES {
        let table = Table::describe(&mut to, table).await?;
        let rows = count(&mut from, table.name).await?;
        plan.push((table, rows));
    }
    let all = plan.iter().map(|(_, rows)| rows * 2).sum();
    let mut steps = 0;
    for (table, rows) in &plan {
        let mut tell = |done| progress(told(Stage::Copying, (table.name, done, *rows), steps, all));
        table.copy(&mut from, &mut to, &mut tell).await.map_err(|error| error.detail_if_none(|| table.name.into()))?;
        steps += rows;
    }
    let mut moved = Vec::new();
    for (table, rows) in &plan {
        let mut tell = |done| progress(told(Stage::Comparing, (table.name, done, *rows), steps, all));
        moved.push(table.compare(&mut from, &mut to, &mut tell).await?);
        steps += rows;
    }
    finish(&mut from, &mut to).await?;
    // Only courtesies: both end with the program anyway.
    let _ = from.close().await;
    let _ = to.close().await;
    Ok(Transferred::Now(moved))
}

fn told(stage: Stage, (table, done, rows): (&'static str, u64, u64), steps: u64, all: u64) -> Progress {
    Progress { stage, table, done, rows, steps: steps + done, all }
}

fn corrupt(detail: impl Into<String>) -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt).detail(detail)
}

fn occupied(sentence: &'static str) -> StoreError {
    StoreError::new(StoreErrorKind::Occupied).sentence(sentence)
}

/// Opens the source for reading, at one moment of its life, and tells its life's first and last row in the trail.
async fn open_source(url: &str, data_dir: &Path) -> Result<(SqliteConnection, String, std::fs::File), StoreError> {
    // Looked for before anything else, because to open a database is to create it.
    let path = data_dir.join(url.strip_prefix("sqlite:").unwrap_or_default());
    if !path.is_file() {
        return Err(StoreError::new(StoreErrorKind::Io)
            .sentence("there is no SQLite database to move: name the configuration of the server that has one")
            .detail(path.display().to_string()));
    }
    let place = sqlite::Place::of(url, data_dir)?;
    let lock = place.occupy()?;
    let options = SqliteConnectOptions::new()
        .filename(&place.path)
        .read_only(true)
        .pragma("trusted_schema", "OFF")
        .pragma("cell_size_check", "ON");
    let opening = async {
        let mut conn = SqliteConnection::connect_with(&options).await?;
        migrate::is_current(&mut conn).await?;
        sqlx::raw_sql("BEGIN").execute(&mut conn).await?;
        const LIFE: &str = "SELECT (SELECT id FROM audit ORDER BY seq LIMIT 1), \
            (SELECT seq FROM sqlite_sequence WHERE name = 'audit')";
        let life: (Option<String>, Option<i64>) = sqlx::query_as(LIFE).fetch_one(&mut conn).await?;
        let (Some(first), Some(last)) = life else {
            return Err(StoreError::new(StoreErrorKind::Io)
                .sentence("no server ever ran on this database: there is nothing to move"));
        };
        Ok((conn, format!("{first} {last}")))
    };
    let (conn, fingerprint) = opening.await.map_err(|error| place.about(error))?;
    Ok((conn, fingerprint, lock))
}

/// Makes the target ready, alone: empty and of this program's schema, or with the beginning of this very source. The
/// moment at which it was finished, if it was.
async fn prepare(to: &mut PgConnection, fingerprint: &str) -> Result<Option<Millis>, StoreError> {
    let alone: (bool,) = fetch_one(to, "SELECT pg_try_advisory_lock($1)", MIGRATION).await?;
    if !alone.0 {
        return Err(StoreError::new(StoreErrorKind::Busy)
            .sentence("a server, or another migration, is starting on the target database: stop it and try again"));
    }
    is_ours(to).await?;
    migrate::postgres(to, Unfinished::GoesOn).await?;
    let noted: (bool,) =
        fetch_one(to, "SELECT to_regclass($1) IS NOT NULL", format!("public.{}", migrate::TRANSFER)).await?;
    if !noted.0 {
        for table in TABLES {
            let sql = format!("SELECT EXISTS (SELECT 1 FROM {table})");
            let (any,): (bool,) =
                sqlx::query_as(AssertSqlSafe(sql)).fetch_one(&mut *to).await.map_err(StoreError::postgres)?;
            if any {
                return Err(occupied(
                    "a server already runs, or ran, on the target database: create an empty database for this one",
                )
                .detail(*table));
            }
        }
        // Also the first row, in one message and so in one transaction: either both are there or neither.
        let create = format!(
            "CREATE TABLE {table} (source TEXT COLLATE \"C\" NOT NULL PRIMARY KEY, started_at BIGINT NOT NULL, finished_at \
             BIGINT); INSERT INTO {table} (source, started_at) VALUES ('{fingerprint}', {now})",
            table = migrate::TRANSFER,
            now = migrate::now(),
        );
        is_plain(fingerprint)?;
        sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut *to).await.map_err(StoreError::postgres)?;
        return Ok(None);
    }
    let sql = "SELECT source, finished_at FROM transfer";
    let (source, finished): (String, Option<i64>) =
        sqlx::query_as(sql).fetch_one(&mut *to).await.map_err(StoreError::postgres)?;
    match (source == fingerprint, source.split(' ').next() == fingerprint.split(' ').next()) {
        (true, _) => Ok(finished.map(Millis)),
        (false, true) => Err(occupied(
            "the old server ran again after its database began to be moved here, so what is here is out of date: create an \
             empty database and move it there; if servers already run on this one, leave the old one off",
        )),
        (false, false) => {
            Err(occupied("the target database holds another installation: create an empty one for this one"))
        }
    }
}

/// What goes into a statement as text must need no quoting: ids and numbers do not.
fn is_plain(text: &str) -> Result<(), StoreError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | ' ');
    if text.chars().all(plain) { Ok(()) } else { Err(corrupt("an id that is none")) }
}

/// Refuses a database in which anybody else has made anything.
async fn is_ours(to: &mut PgConnection) -> Result<(), StoreError> {
    // Tables, views, sequences and types of rows; not what belongs to an extension, nor to one of our own tables.
    const OTHERS: &str = "SELECT n.nspname || '.' || c.relname FROM pg_catalog.pg_class c \
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
        WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND c.relkind IN ('r', 'p', 'v', 'm', 'f') \
        AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e') \
        AND NOT (n.nspname = 'public' AND c.relname = ANY ($1)) LIMIT 1";
    let known: Vec<String> =
        TABLES.iter().copied().chain(["schema_version", migrate::TRANSFER]).map(str::to_owned).collect();
    let other: Option<(String,)> =
        sqlx::query_as(OTHERS).bind(known).fetch_optional(to).await.map_err(StoreError::postgres)?;
    match other {
        None => Ok(()),
        Some((name,)) => Err(occupied("the target database holds something else: create an empty one").detail(name)),
    }
}

async fn fetch_one<'q, T, A>(to: &mut PgConnection, sql: &'static str, argument: A) -> Result<T, StoreError>
where
    T: for<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow> + Send + Unpin,
    A: sqlx::Encode<'q, Postgres> + sqlx::Type<Postgres> + Send + 'q,
{
    sqlx::query_as(sql).bind(argument).fetch_one(to).await.map_err(StoreError::postgres)
}

async fn count(from: &mut SqliteConnection, table: &str) -> Result<u64, StoreError> {
    let (rows,): (i64,) =
        sqlx::query_as(AssertSqlSafe(format!("SELECT count(*) FROM {table}"))).fetch_one(from).await?;
    Ok(u64::try_from(rows).unwrap_or_default())
}

/// Sets the numbering to go on behind the highest number ever used, and notes the end.
async fn finish(from: &mut SqliteConnection, to: &mut PgConnection) -> Result<(), StoreError> {
    let mut tx = to.begin().await.map_err(StoreError::postgres)?;
    for table in NUMBERED {
        // Rows that are gone count too: followers remember numbers.
        let highest: Option<(i64,)> = sqlx::query_as("SELECT seq FROM sqlite_sequence WHERE name = $1")
            .bind(*table)
            .fetch_optional(&mut *from)
            .await?;
        let Some((highest,)) = highest.filter(|(highest,)| *highest > 0) else { continue };
        sqlx::query("SELECT setval(pg_get_serial_sequence('public.' || $1, 'seq'), $2)")
            .bind(*table)
            .bind(highest)
            .execute(&mut *tx)
            .await
            .map_err(StoreError::postgres)?;
    }
    sqlx::query("UPDATE transfer SET finished_at = $1")
        .bind(migrate::now())
        .execute(&mut *tx)
        .await
        .map_err(StoreError::postgres)?;
    tx.commit().await.map_err(|error| StoreError::postgres(error).while_keeping())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_of_the_schema_is_moved_after_those_it_refers_to() {
        let schema = include_str!("../../migrations/sqlite/0001_ground_floor.sql");
        let tables: Vec<&str> =
            schema.split("CREATE TABLE ").skip(1).filter_map(|text| text.split_whitespace().next()).collect();
        assert_eq!(tables, TABLES, "the schema's own order is one that works");
        let numbered: Vec<&str> = schema
            .split("CREATE TABLE ")
            .filter(|text| text.contains("AUTOINCREMENT"))
            .filter_map(|text| text.split_whitespace().next())
            .collect();
        assert_eq!(numbered, NUMBERED);
    }

    #[test]
    fn what_would_need_quoting_is_refused() {
        assert!(is_plain("evt_01h x-9 12").is_ok());
        assert!(is_plain("a'; DROP TABLE audit --").is_err());
    }
}
