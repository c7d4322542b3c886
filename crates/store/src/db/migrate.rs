//! Bringing the schema to the version this program knows, one transaction a step.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use sqlx::{Connection as _, PgConnection, SqliteConnection, SqlitePool};

use super::turn::MIGRATION;
use crate::error::{StoreError, StoreErrorKind};

/// One step. Once released it is never edited: its checksum is in every database.
struct Migration {
    version: i64,
    name: &'static str,
    sql: &'static str,
}

const SQLITE: &[Migration] = &[Migration {
    version: 1,
    name: "ground_floor",
    sql: include_str!("../../migrations/sqlite/0001_ground_floor.sql"),
}];

const POSTGRES: &[Migration] = &[Migration {
    version: 1,
    name: "ground_floor",
    sql: include_str!("../../migrations/postgres/0001_ground_floor.sql"),
}];

/// A step that was taken: its version and the checksum of its text.
type Applied = (i64, String);

/// The steps that are missing, or why this database is not to be touched.
fn missing(steps: &'static [Migration], applied: &[Applied]) -> Result<Vec<&'static Migration>, StoreError> {
    let known = steps.last().map_or(0, |last| last.version);
    if let Some((found, _)) = applied.iter().find(|(version, _)| *version > known) {
        return Err(StoreError::new(StoreErrorKind::Newer { found: *found, known }));
    }
    let mut missing = Vec::new();
    for step in steps {
        match applied.iter().find(|(version, _)| *version == step.version) {
            Some((_, stored)) if *stored == checksum(step.sql) => {}
            Some(_) => {
                return Err(StoreError::new(StoreErrorKind::Corrupt)
                    .detail(format!("schema version {} was made by another program than this one", step.version)));
            }
            None => missing.push(step),
        }
    }
    Ok(missing)
}

fn foreign() -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt).detail("this is the database of another program")
}

/// The table that says whether another database was moved into this one; see [`super::transfer`].
pub(super) const TRANSFER: &str = "transfer";

const HALF: &str = "another database is being moved into this one and not all of it is here: run `bartizan migrate \
                    embedded-to-cluster` again, it goes on where it stopped";

/// What becomes of a database into which another was moved in part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfinished {
    /// No server may start on it.
    Refused,
    /// It is the move that asks.
    GoesOn,
}

/// Refuses a file that is not of exactly the schema this program knows; changes nothing.
///
/// # Errors
/// `Newer`, `Corrupt`.
pub(super) async fn is_current(conn: &mut SqliteConnection) -> Result<(), StoreError> {
    let sql = "SELECT version, checksum FROM schema_version ORDER BY version DESC";
    let applied: Vec<Applied> = sqlx::query_as(sql).fetch_all(conn).await.map_err(|error| match error {
        sqlx::Error::Database(_) => foreign(),
        _ => error.into(),
    })?;
    match missing(SQLITE, &applied)?.first() {
        None => Ok(()),
        Some(_) => Err(StoreError::new(StoreErrorKind::Corrupt)
            .sentence("this database is of an older version: start this version's server on it once, then stop it")),
    }
}

/// Applies what is missing. A crash in the middle leaves the last whole step.
///
/// # Errors
/// `Newer`, `Corrupt` (not a database, a foreign one, or a step applied that is not ours), `Full`, `ReadOnly`, `Io`.
pub(super) async fn sqlite(pool: &SqlitePool) -> Result<(), StoreError> {
    let mut conn = pool.acquire().await?;
    let applied = applied(&mut conn).await?;
    for migration in missing(SQLITE, &applied)? {
        apply(&mut conn, migration).await?;
    }
    Ok(())
}

/// The same for PostgreSQL, where all that is missing is one transaction. Nodes that start at once take turns; those
/// behind the first find nothing left to do.
///
/// A database into which another is being moved belongs to the move until it is finished.
pub(super) async fn postgres(conn: &mut PgConnection, unfinished: Unfinished) -> Result<(), StoreError> {
    // A large table may take its time; the turn is waited for as long as another node needs.
    let begin = format!(
        "BEGIN; SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '120s'; \
         SET LOCAL idle_in_transaction_session_timeout = '60s'; SELECT pg_advisory_xact_lock({MIGRATION})"
    );
    let mut tx = conn.begin_with(sqlx::AssertSqlSafe(begin)).await.map_err(StoreError::postgres)?;
    let tables: Vec<(String,)> =
        sqlx::query_as("SELECT tablename::text FROM pg_catalog.pg_tables WHERE schemaname = 'public'")
            .fetch_all(&mut *tx)
            .await
            .map_err(StoreError::postgres)?;
    if tables.is_empty() {
        let create = "CREATE TABLE schema_version (version BIGINT NOT NULL PRIMARY KEY, name TEXT NOT NULL, \
                      checksum TEXT NOT NULL, applied_at BIGINT NOT NULL)";
        sqlx::raw_sql(create).execute(&mut *tx).await.map_err(StoreError::postgres)?;
    } else if !tables.iter().any(|(name,)| name == "schema_version") {
        return Err(foreign());
    }
    if unfinished == Unfinished::Refused && tables.iter().any(|(name,)| name == TRANSFER) {
        let (open,): (bool,) = sqlx::query_as("SELECT EXISTS (SELECT 1 FROM transfer WHERE finished_at IS NULL)")
            .fetch_one(&mut *tx)
            .await
            .map_err(StoreError::postgres)?;
        if open {
            return Err(StoreError::new(StoreErrorKind::Occupied).sentence(HALF));
        }
    }
    let applied: Vec<Applied> = sqlx::query_as("SELECT version, checksum FROM schema_version ORDER BY version DESC")
        .fetch_all(&mut *tx)
        .await
        .map_err(|error| match &error {
            // undefined_column, or a type that is not ours: a table of the same name, made by somebody else.
            sqlx::Error::Database(cause) if cause.code().as_deref() == Some("42703") => foreign(),
            sqlx::Error::ColumnDecode { .. } => foreign(),
            _ => StoreError::postgres(error),
        })?;
    let missing = missing(POSTGRES, &applied)?;
    for migration in &missing {
        sqlx::raw_sql(migration.sql).execute(&mut *tx).await.map_err(StoreError::postgres)?;
        sqlx::query(NOTE)
            .bind(migration.version)
            .bind(migration.name)
            .bind(checksum(migration.sql))
            .bind(now())
            .execute(&mut *tx)
            .await
            .map_err(StoreError::postgres)?;
    }
    tx.commit().await.map_err(|error| StoreError::postgres(error).while_keeping())?;
    for migration in missing {
        tracing::info!(version = migration.version, name = migration.name, "database schema migrated");
    }
    Ok(())
}

const NOTE: &str = "INSERT INTO schema_version (version, name, checksum, applied_at) VALUES ($1, $2, $3, $4)";

pub(super) fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    i64::try_from(now).unwrap_or(i64::MAX)
}

/// The versions in the database with their checksums, newest first; creates the table that holds them.
async fn applied(conn: &mut SqliteConnection) -> Result<Vec<Applied>, StoreError> {
    let tables: Vec<(String,)> =
        sqlx::query_as("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
            .fetch_all(&mut *conn)
            .await?;
    if tables.is_empty() {
        sqlx::raw_sql(
            "CREATE TABLE schema_version (version INTEGER NOT NULL PRIMARY KEY, name TEXT NOT NULL, \
             checksum TEXT NOT NULL, applied_at INTEGER NOT NULL) STRICT",
        )
        .execute(&mut *conn)
        .await?;
        return Ok(Vec::new());
    }
    if !tables.iter().any(|(name,)| name == "schema_version") {
        return Err(foreign());
    }
    Ok(sqlx::query_as("SELECT version, checksum FROM schema_version ORDER BY version DESC").fetch_all(conn).await?)
}

async fn apply(conn: &mut SqliteConnection, migration: &Migration) -> Result<(), StoreError> {
    let mut tx = conn.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::raw_sql(migration.sql).execute(&mut *tx).await?;
    sqlx::query(NOTE)
        .bind(migration.version)
        .bind(migration.name)
        .bind(checksum(migration.sql))
        .bind(now())
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    tracing::info!(version = migration.version, name = migration.name, "database schema migrated");
    Ok(())
}

/// SHA-256 of the text, in hexadecimal.
fn checksum(sql: &str) -> String {
    use std::fmt::Write as _;
    digest(&SHA256, sql.as_bytes()).as_ref().iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_dense_and_the_databases_keep_step() {
        for steps in [SQLITE, POSTGRES] {
            let versions: Vec<i64> = steps.iter().map(|migration| migration.version).collect();
            assert_eq!(versions, (1..=1).collect::<Vec<_>>());
        }
    }
}
