//! What an operator should know about the database server.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bartizan_core::time::Millis;
use sqlx::{Connection as _, PgConnection};

use super::session::{Access, Session};
use super::{address, first_connection};
use crate::db::{DbOptions, migrate};
use crate::error::StoreError;
use crate::queries::meta;

/// A database server as it describes itself to this very user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFacts {
    /// Host, port and database.
    pub place: String,
    /// Its version, such as `15.4`.
    pub version: String,
    /// Whether it is on this very machine.
    pub local: bool,
    /// Version and cipher of TLS on this connection; `None` when nothing is encrypted.
    pub encryption: Option<String>,
    /// Whether it only repeats another and cannot be written.
    pub standby: bool,
    /// Settings that are off and without which a loss of power loses or damages what was confirmed.
    pub reckless: Vec<&'static str>,
    /// `synchronous_commit` as the server or the user has it; Bartizan's own connections raise `off` to `on`.
    pub synchronous_commit: String,
    /// The standbys a commit waits for; empty when for none.
    pub synchronous_standbys: String,
    /// Connections that a user who is no superuser can have, all programs together.
    pub connections: u32,
    /// Whether the user may create tables, which the first start and each newer version need.
    pub may_create: bool,
    /// Tables of Bartizan on which the user lacks a right.
    pub denied: Vec<String>,
    /// Whether another database was moved into this one in part only: no server starts on it.
    pub half_moved: bool,
    /// The latest moment the database has seen; `None` while it is new.
    pub seen: Option<Millis>,
    /// Its clock minus ours in milliseconds, give or take half the round trip.
    pub clock_difference_ms: i64,
    /// The time a small statement takes there and back.
    pub round_trip: Duration,
}

/// The answer of [`FACTS`].
type Facts = (String, Option<String>, bool, String, String, String, String, i64, bool);

const FACTS: &str = "SELECT current_setting('server_version'), \
    (SELECT version || ' ' || cipher FROM pg_catalog.pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl), \
    pg_is_in_recovery(), current_setting('fsync'), current_setting('full_page_writes'), \
    (SELECT reset_val FROM pg_catalog.pg_settings WHERE name = 'synchronous_commit'), \
    current_setting('synchronous_standby_names'), \
    current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint, \
    has_schema_privilege('public', 'CREATE')";

/// Tables of ours on which a right is missing.
const DENIED: &str = "SELECT c.relname::text FROM pg_catalog.pg_class c \
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' \
    AND NOT (has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT') \
        AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE')) ORDER BY 1";

/// Connects, asks and leaves; creates and changes nothing. For `doctor`.
///
/// # Errors
/// As for opening the database, but a standby is described rather than refused.
pub(in crate::db) async fn survey(url: &str, options: &DbOptions) -> Result<ServerFacts, StoreError> {
    let connect = address::read(url, options.password.as_ref())?;
    let place = address::place(&connect);
    let session = Session { access: Access::Describe, answer: options.answer };
    let describing = async {
        let mut conn = first_connection(&connect, session, options.acquire).await?;
        let facts = describe(&mut conn, place.clone(), address::is_local(&connect)).await?;
        let _ = conn.close().await;
        Ok(facts)
    };
    describing.await.map_err(|error: StoreError| error.detail_if_none(|| place.clone()))
}

async fn describe(conn: &mut PgConnection, place: String, local: bool) -> Result<ServerFacts, StoreError> {
    let facts: Facts = sqlx::query_as(FACTS).fetch_one(&mut *conn).await.map_err(StoreError::postgres)?;
    let (version, encryption, standby, fsync, pages, synchronous_commit, synchronous_standbys, connections, may_create) =
        facts;
    let denied: Vec<(String,)> = sqlx::query_as(DENIED).fetch_all(&mut *conn).await.map_err(StoreError::postgres)?;
    let denied: Vec<String> = denied.into_iter().map(|(table,)| table).collect();
    let asked = Instant::now();
    let clock = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
    let (theirs,): (i64,) = sqlx::query_as(clock).fetch_one(&mut *conn).await.map_err(StoreError::postgres)?;
    let round_trip = asked.elapsed();
    let ours = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(round_trip / 2);
    let reckless = [("fsync", fsync), ("full_page_writes", pages)];
    let half_moved: Option<(bool,)> =
        known(conn, &denied, migrate::TRANSFER, "SELECT EXISTS (SELECT 1 FROM transfer WHERE finished_at IS NULL)")
            .await?;
    let seen = format!("SELECT value FROM meta WHERE name = '{}'", meta::LAST_SEEN);
    let seen: Option<(String,)> = known(conn, &denied, "meta", &seen).await?;
    Ok(ServerFacts {
        place,
        version: version.split(' ').next().unwrap_or_default().to_owned(),
        local,
        encryption,
        standby,
        reckless: reckless.into_iter().filter(|(_, value)| value == "off").map(|(name, _)| name).collect(),
        synchronous_commit,
        synchronous_standbys,
        connections: u32::try_from(connections).unwrap_or_default(),
        may_create,
        denied,
        half_moved: half_moved.is_some_and(|(half,)| half),
        seen: seen.and_then(|(text,)| text.parse().ok()).map(Millis),
        clock_difference_ms: theirs.saturating_sub(i64::try_from(ours.as_millis()).unwrap_or(i64::MAX)),
        round_trip,
    })
}

/// The first row of a statement of ours on a table, when there is such a table and it may be read.
async fn known<T>(conn: &mut PgConnection, denied: &[String], table: &str, sql: &str) -> Result<Option<T>, StoreError>
where
    T: for<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow> + Send + Unpin,
{
    let (there,): (bool,) = sqlx::query_as("SELECT to_regclass('public.' || $1) IS NOT NULL")
        .bind(table)
        .fetch_one(&mut *conn)
        .await
        .map_err(StoreError::postgres)?;
    if !there || denied.iter().any(|name| name == table) {
        return Ok(None);
    }
    sqlx::query_as(sqlx::AssertSqlSafe(sql.to_owned())).fetch_optional(conn).await.map_err(StoreError::postgres)
}
