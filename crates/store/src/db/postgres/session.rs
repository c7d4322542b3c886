//! How a connection behaves, whatever the server's or the user's own settings say.

use std::time::Duration;

use sqlx::PgConnection;

use crate::error::{StoreError, StoreErrorKind};

/// The oldest server whose features are used and which still gets security fixes from somebody.
const OLDEST: u32 = 13;

/// How long a change waits for its turn.
const TURN: Duration = Duration::from_secs(5);

/// How long a node may do nothing in the middle of a change.
const IDLE: Duration = Duration::from_secs(5);

/// How much longer than the server works the caller waits.
const GRACE: Duration = Duration::from_secs(2);

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Reading: the server itself refuses to write.
    Read,
    /// Changing.
    Change,
    /// Describing a server to its operator, whatever it is. Reads only.
    Describe,
}

/// How the connections of one pool behave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Session {
    pub(super) access: Access,
    /// How long the server works on one statement.
    pub(super) answer: Duration,
}

impl Session {
    /// How long the caller waits for any one answer.
    pub(super) fn silence(self) -> Duration {
        self.answer + GRACE
    }
}

/// - `lock_timeout`: how long a change waits for its turn.
/// - `statement_timeout`: no single statement of ours needs a second.
/// - `idle_in_transaction_session_timeout`: a node that hangs in the middle of a change loses its turn.
/// - keep-alive: the server forgets nodes that are gone, so that their locks do not stay.
/// - `synchronous_commit`: a promise is made at every commit, so `off` is not followed; stricter values are.
/// - `search_path`: nobody else's function or table gets in the way of ours.
/// - `jit`: costs more than our statements.
///
/// Set by a statement rather than in the greeting, which poolers in between do not pass on.
const ENTER: &str = "SELECT pg_is_in_recovery(), current_setting('server_encoding'), \
    set_config('lock_timeout', $2, false), \
    set_config('statement_timeout', $3, false), \
    set_config('idle_in_transaction_session_timeout', $4, false), \
    set_config('tcp_keepalives_idle', '30', false), \
    set_config('tcp_keepalives_interval', '5', false), \
    set_config('tcp_keepalives_count', '3', false), \
    set_config('tcp_user_timeout', '30s', false), \
    set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' \
        ELSE current_setting('synchronous_commit') END, false), \
    set_config('search_path', 'public, pg_temp', false), \
    set_config('default_transaction_isolation', 'read committed', false), \
    set_config('default_transaction_deferrable', 'off', false), \
    set_config('jit', 'off', false), \
    set_config('default_transaction_read_only', CASE WHEN $1 THEN 'on' ELSE 'off' END, false)";

/// Makes a new connection behave, and refuses a server that cannot serve.
pub(super) async fn enter(conn: &mut PgConnection, session: Session) -> Result<(), StoreError> {
    if let Some(found) = conn.server_version_num().map(|number| number / 10_000).filter(|found| *found < OLDEST) {
        return Err(StoreError::new(StoreErrorKind::Outdated { found, needed: OLDEST }));
    }
    let (standby, encoding): (bool, String) = sqlx::query_as::<_, Greeting>(ENTER)
        .bind(session.access != Access::Change)
        .bind(millis(TURN.min(session.answer)))
        .bind(millis(session.answer))
        .bind(millis(IDLE))
        .fetch_one(conn)
        .await
        .map(|greeting| (greeting.0, greeting.1))
        .map_err(StoreError::postgres)?;
    if encoding != "UTF8" {
        return Err(StoreError::new(StoreErrorKind::Access)
            .sentence("the database does not hold Unicode: create it with `ENCODING 'UTF8'`")
            .detail(encoding));
    }
    // Not to be read either: it may lag behind, and who reads the revocations there takes an old copy for a fresh one.
    if standby && session.access != Access::Describe {
        return Err(StoreError::new(StoreErrorKind::ReadOnly).sentence(crate::error::STANDBY));
    }
    Ok(())
}

fn millis(time: Duration) -> String {
    // Zero would mean no limit.
    format!("{}ms", time.as_millis().max(1))
}

/// The first two columns; the rest only repeat what was set.
struct Greeting(bool, String);

impl<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow> for Greeting {
    fn from_row(row: &'r sqlx::postgres::PgRow) -> Result<Self, sqlx::Error> {
        use sqlx::Row as _;
        Ok(Self(row.try_get(0)?, row.try_get(1)?))
    }
}
