//! Bringing the schema to the version this program knows, one transaction a step.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use sqlx::{Connection as _, SqliteConnection, SqlitePool};

use crate::error::{StoreError, StoreErrorKind};

/// One step. Once released it is never edited: its checksum is in every database.
struct Migration {
    version: i64,
    name: &'static str,
    sql: &'static str,
}

const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "ground_floor",
    sql: include_str!("../../migrations/sqlite/0001_ground_floor.sql"),
}];

/// The newest schema version this program knows.
pub(super) const KNOWN: i64 = 1;

/// Applies what is missing. A crash in the middle leaves the last whole step.
///
/// # Errors
/// `Newer`, `Corrupt` (not a database, a foreign one, or a step applied that is not ours), `Full`, `ReadOnly`, `Io`.
pub(super) async fn run(pool: &SqlitePool) -> Result<(), StoreError> {
    let mut conn = pool.acquire().await?;
    let applied = applied(&mut conn).await?;
    if let Some((found, _)) = applied.iter().find(|(version, _)| *version > KNOWN) {
        return Err(StoreError::new(StoreErrorKind::Newer { found: *found, known: KNOWN }));
    }
    for migration in MIGRATIONS {
        let checksum = checksum(migration.sql);
        match applied.iter().find(|(version, _)| *version == migration.version) {
            Some((_, stored)) if *stored == checksum => {}
            Some(_) => {
                return Err(StoreError::new(StoreErrorKind::Corrupt).detail(format!(
                    "schema version {} was made by another program than this one",
                    migration.version
                )));
            }
            None => apply(&mut conn, migration, &checksum).await?,
        }
    }
    Ok(())
}

/// The versions in the database with their checksums, newest first; creates the table that holds them.
async fn applied(conn: &mut SqliteConnection) -> Result<Vec<(i64, String)>, StoreError> {
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
        return Err(StoreError::new(StoreErrorKind::Corrupt).detail("this is the database of another program"));
    }
    Ok(sqlx::query_as("SELECT version, checksum FROM schema_version ORDER BY version DESC").fetch_all(conn).await?)
}

async fn apply(conn: &mut SqliteConnection, migration: &Migration, checksum: &str) -> Result<(), StoreError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let mut tx = conn.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::raw_sql(migration.sql).execute(&mut *tx).await?;
    sqlx::query("INSERT INTO schema_version (version, name, checksum, applied_at) VALUES ($1, $2, $3, $4)")
        .bind(migration.version)
        .bind(migration.name)
        .bind(checksum)
        .bind(i64::try_from(now).unwrap_or(i64::MAX))
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
    fn known_is_the_last_of_a_dense_list() {
        let versions: Vec<i64> = MIGRATIONS.iter().map(|migration| migration.version).collect();
        assert_eq!(versions, (1..=KNOWN).collect::<Vec<_>>());
    }
}
