//! PostgreSQL: one database for several nodes.

pub(super) mod address;
mod pool;
mod session;
mod survey;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection};
use tokio::sync::Semaphore;
use tokio::time::timeout;

pub(super) use pool::{Line, Pool};
use session::{Access, Session, enter};
pub use survey::ServerFacts;
pub(super) use survey::survey;

use super::DbOptions;
use super::migrate::{self, Unfinished};
use super::turn::Turn;
use crate::error::{StoreError, StoreErrorKind};
use crate::value::{FromRow as _, Row};

/// Two pools, because they wait for different things: a crowd of changes that wait for their turn at one tenant leaves
/// the reading of everybody, and the following of revocations, alone.
#[derive(Debug)]
pub(super) struct Postgres {
    pub(super) changes: Pool,
    pub(super) readers: Pool,
    pub(super) place: String,
    /// Each lets half of the changing connections through.
    gates: Vec<Arc<Semaphore>>,
    patience: Duration,
}

/// Tenants share this many gates: enough that two busy ones seldom share one.
const GATES: u32 = 64;

/// Sorts a failure of the very first connection: what is missing then was named wrongly.
fn first(error: sqlx::Error) -> StoreError {
    match &error {
        sqlx::Error::Io(cause) if matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
            StoreError::new(StoreErrorKind::Access)
                .sentence(
                    "a file named in the address (socket, authority, certificate or key) is missing or not readable",
                )
                .source(error)
        }
        _ => StoreError::postgres(error),
    }
}

/// One connection that may change things and has no limit of time, and where it leads. For moving a whole database.
pub(super) async fn single(url: &str, options: &DbOptions) -> Result<(PgConnection, String), StoreError> {
    let connect = address::read(url, options.password.as_ref())?;
    let place = address::place(&connect);
    let conn = first_connection(&connect, Session { access: Access::Change, answer: PATIENT }, options.acquire).await;
    Ok((conn.map_err(|error| error.detail_if_none(|| place.clone()))?, place))
}

/// How long the server may work on one statement when nobody waits for an answer.
const PATIENT: Duration = Duration::from_secs(3600);

async fn first_connection(
    connect: &PgConnectOptions,
    session: Session,
    patience: Duration,
) -> Result<PgConnection, StoreError> {
    let connecting = async {
        let mut conn = PgConnection::connect_with(connect).await.map_err(first)?;
        enter(&mut conn, session).await?;
        Ok(conn)
    };
    timeout(patience, connecting).await.unwrap_or_else(|_| Err(StoreError::new(StoreErrorKind::Unreachable)))
}

/// Refuses, at the start, a server that may lose what it confirmed.
async fn refuse_reckless(conn: &mut PgConnection) -> Result<(), StoreError> {
    const ASK: &str = "SELECT current_setting('fsync'), current_setting('full_page_writes')";
    let (fsync, pages): (String, String) = sqlx::query_as(ASK).fetch_one(conn).await.map_err(StoreError::postgres)?;
    let found = reckless("fsync", &fsync).or_else(|| reckless("full_page_writes", &pages));
    found.map_or(Ok(()), Err)
}

/// What is wrong with a setting, if it gives up a promise.
fn reckless(name: &str, value: &str) -> Option<StoreError> {
    let sentence = match (name, value) {
        ("fsync", "off") => {
            "fsync is off at the database server, so it loses what it confirmed when the power fails: \
             ALTER SYSTEM SET fsync = on; SELECT pg_reload_conf();"
        }
        ("full_page_writes", "off") => {
            "full_page_writes is off at the database server, so a loss of power damages what it confirmed: \
             ALTER SYSTEM SET full_page_writes = on; SELECT pg_reload_conf();"
        }
        _ => return None,
    };
    Some(StoreError::new(StoreErrorKind::Corrupt).sentence(sentence))
}

impl Postgres {
    /// Connects, migrates, and opens the pools.
    pub(super) async fn open(url: &str, options: &DbOptions) -> Result<Self, StoreError> {
        let connect = address::read(url, options.password.as_ref())?;
        let place = address::place(&connect);
        let about = |error: StoreError| error.detail_if_none(|| place.clone());
        let session = |access| Session { access, answer: options.answer };
        let mut conn = first_connection(&connect, session(Access::Change), options.acquire).await.map_err(about)?;
        refuse_reckless(&mut conn).await.map_err(about)?;
        migrate::postgres(&mut conn, Unfinished::Refused).await.map_err(about)?;
        // Only a courtesy to the server.
        let _ = timeout(options.acquire, conn.close()).await;
        let readers = options.pool / 2;
        let changes = options.pool.saturating_sub(readers).max(1);
        let crowd = usize::try_from(changes / 2).unwrap_or(1).max(1);
        let pool = |access, size: u32| Pool::new(connect.clone(), session(access), size.max(1), options.acquire);
        Ok(Self {
            changes: pool(Access::Change, changes),
            readers: pool(Access::Read, readers),
            place,
            gates: (0..GATES).map(|_| Arc::new(Semaphore::new(crowd))).collect(),
            patience: options.acquire,
        })
    }

    /// A connection to change something in this turn. Those who wait for the turn of one tenant hold at most half of
    /// the connections: a tenant in a hurry, or one whose turn is held by a node that hangs, does not stop the others.
    pub(super) async fn line(&self, turn: &Turn) -> Result<Line, StoreError> {
        let gate = turn.crowd().and_then(|crowd| self.gates.get(usize::try_from(crowd % GATES).unwrap_or(0)));
        let pass = match gate {
            None => None,
            Some(gate) => match timeout(self.patience, Arc::clone(gate).acquire_owned()).await {
                Ok(Ok(pass)) => Some(pass),
                Ok(Err(_)) => return Err(StoreError::new(StoreErrorKind::Closed)),
                Err(_) => {
                    return Err(StoreError::new(StoreErrorKind::Busy).detail("too many changes of one tenant at once"));
                }
            },
        };
        let mut line = self.changes.line().await?;
        line.pass = pass;
        Ok(line)
    }

    /// Refuses a server that may lose what it confirmed.
    pub(super) async fn check(&self) -> Result<(), StoreError> {
        let facts = self.facts().await?;
        facts.iter().find_map(|(name, value)| reckless(name, value)).map_or(Ok(()), Err)
    }

    /// The settings that matter, the encryption of this very connection, and where it leads.
    pub(super) async fn facts(&self) -> Result<Vec<(String, String)>, StoreError> {
        const FACTS: &str = "SELECT name, setting FROM pg_catalog.pg_settings WHERE name IN ('server_version', 'fsync', \
            'full_page_writes', 'synchronous_commit', 'synchronous_standby_names', 'max_connections', 'data_checksums') \
            UNION ALL SELECT 'encryption', coalesce((SELECT version || ' ' || cipher FROM pg_catalog.pg_stat_ssl \
                WHERE pid = pg_backend_pid() AND ssl), 'none') \
            UNION ALL SELECT 'standby', CASE WHEN pg_is_in_recovery() THEN 'on' ELSE 'off' END \
            ORDER BY 1";
        let rows = self.readers.line().await?.fetch(FACTS, Vec::new()).await?;
        rows.into_iter().map(|row| <(String, String)>::from_row(&Row::from(row))).collect()
    }
}
