//! Sessions: what a login begins. An ended session is kept until its absolute end, so that its refresh tokens are
//! still known when they come back.

use bartizan_core::id::{SessionId, UserId};
use bartizan_core::time::Millis;

use crate::db::{Conn, Tx};
use crate::error::StoreError;
use crate::scope::PlatformScope;
use crate::sql::statements;
use crate::value::{args, rows};

rows! {
    /// A session.
    SessionRow {
        /// Its id.
        id: SessionId,
        /// Whose it is.
        user_id: UserId,
        /// When the login was.
        created_at: Millis,
        /// When it was last used, to the precision the caller chose.
        last_seen_at: Millis,
        /// When it ends if not refreshed.
        idle_expires_at: Millis,
        /// When it ends in any case.
        absolute_expires_at: Millis,
        /// When it was ended.
        ended_at: Option<Millis>,
        /// The generation of its live refresh token.
        generation: u32,
        /// Digest of the known device's secret, when there is one.
        device_hash: Option<Vec<u8>>,
        /// What the client said of itself, sealed.
        client_sealed: Vec<u8>,
    }
}

macro_rules! columns {
    () => {
        "id, user_id, created_at, last_seen_at, idle_expires_at, absolute_expires_at, ended_at, generation, \
         device_hash, client_sealed"
    };
}

statements! {
    scoped INSERT = "INSERT INTO sessions (tenant_id, id, user_id, created_at, last_seen_at, idle_expires_at, \
        absolute_expires_at, generation, device_hash, client_sealed) VALUES ($1, $2, $3, $4, $4, $5, $6, 0, $7, $8)";
    scoped BY_ID = concat!("SELECT ", columns!(), " FROM sessions WHERE tenant_id = $1 AND id = $2");
    scoped LIVE_OF_USER = concat!("SELECT ", columns!(), " FROM sessions WHERE tenant_id = $1 AND user_id = $2 \
        AND ended_at IS NULL AND idle_expires_at > $3 AND absolute_expires_at > $3 AND id > $4 ORDER BY id LIMIT $5");
    scoped KNOWS_DEVICE = "SELECT id FROM sessions WHERE tenant_id = $1 AND user_id = $2 AND device_hash = $3 LIMIT 1";
    scoped @quiet TOUCH = "UPDATE sessions SET last_seen_at = $3 WHERE tenant_id = $1 AND id = $2 \
        AND ended_at IS NULL AND last_seen_at < $3";
    scoped END = "UPDATE sessions SET ended_at = $3 WHERE tenant_id = $1 AND id = $2 AND ended_at IS NULL";
    scoped END_ALL = "UPDATE sessions SET ended_at = $4 WHERE tenant_id = $1 AND user_id = $2 AND id <> $3 \
        AND ended_at IS NULL RETURNING id";
    scoped END_OF_TENANT = "UPDATE sessions SET ended_at = $2 WHERE tenant_id = $1 AND ended_at IS NULL";
    platform("a session from the future is of no clock any more") END_OF_FUTURE = "UPDATE sessions SET ended_at = $1 \
        WHERE ended_at IS NULL AND (created_at > $1 OR last_seen_at > $1)";
    platform("time ends sessions of every tenant") @quiet PRUNE = "DELETE FROM sessions WHERE (tenant_id, id) IN \
        (SELECT tenant_id, id FROM sessions WHERE absolute_expires_at <= $1 LIMIT $2)";
}

/// A session about to begin.
#[derive(Clone, Debug)]
pub struct NewSession<'a> {
    /// Its id.
    pub id: SessionId,
    /// Whose it is.
    pub user_id: UserId,
    /// Now.
    pub created_at: Millis,
    /// When it ends if not refreshed.
    pub idle_expires_at: Millis,
    /// When it ends in any case.
    pub absolute_expires_at: Millis,
    /// Digest of the known device's secret, when there is one.
    pub device_hash: Option<&'a [u8]>,
    /// What the client said of itself, sealed.
    pub client_sealed: &'a [u8],
}

/// Begins a session, at generation 0.
pub async fn insert(tx: &mut Tx, session: &NewSession<'_>) -> Result<(), StoreError> {
    let args = args![
        session.id,
        session.user_id,
        session.created_at,
        session.idle_expires_at,
        session.absolute_expires_at,
        session.device_hash,
        session.client_sealed,
    ];
    tx.run(INSERT, args).await.map(drop).map_err(|error| error.naming("session id"))
}

/// The session of this id, ended or not.
pub async fn by_id(conn: &mut Conn, id: SessionId) -> Result<Option<SessionRow>, StoreError> {
    conn.row(BY_ID, args![id]).await
}

/// The user's sessions that are live at `now`, oldest first, after the given one.
pub async fn live_of_user(
    conn: &mut Conn,
    user: UserId,
    now: Millis,
    after: Option<SessionId>,
    limit: u32,
) -> Result<Vec<SessionRow>, StoreError> {
    let after = after.map_or_else(String::new, |id| id.to_string());
    conn.rows(LIVE_OF_USER, args![user, now, after, limit]).await
}

/// Whether the user has logged in with this device before; sessions past their absolute end are forgotten.
pub async fn knows_device(conn: &mut Conn, user: UserId, device_hash: [u8; 32]) -> Result<bool, StoreError> {
    Ok(conn.row::<(SessionId,)>(KNOWS_DEVICE, args![user, device_hash]).await?.is_some())
}

/// Notes that the session is in use. Quiet: keep it with `commit_quietly`. The caller sees to it that this happens
/// at most once in a while.
pub async fn touch(tx: &mut Tx, id: SessionId, now: Millis) -> Result<bool, StoreError> {
    Ok(tx.run(TOUCH, args![id, now]).await? == 1)
}

/// Ends the session; `false` when there is none or it had ended.
pub async fn end(tx: &mut Tx, id: SessionId, now: Millis) -> Result<bool, StoreError> {
    Ok(tx.run(END, args![id, now]).await? == 1)
}

/// Ends all sessions of the user but `keep`; returns which.
pub async fn end_all(
    tx: &mut Tx,
    user: UserId,
    keep: Option<SessionId>,
    now: Millis,
) -> Result<Vec<SessionId>, StoreError> {
    let keep = keep.map_or_else(String::new, |id| id.to_string());
    let ended = tx.rows::<(SessionId,)>(END_ALL, args![user, keep, now]).await?;
    Ok(ended.into_iter().map(|(id,)| id).collect())
}

/// Ends every session of the tenant; says how many.
pub async fn end_of_tenant(tx: &mut Tx, now: Millis) -> Result<u64, StoreError> {
    tx.run(END_OF_TENANT, args![now]).await
}

/// Ends every session that was begun or renewed after `now`, by a clock that was ahead; says how many.
pub async fn end_of_future(tx: &mut Tx<PlatformScope>, now: Millis) -> Result<u64, StoreError> {
    tx.run(END_OF_FUTURE, args![now]).await
}

/// Removes sessions past their absolute end, with their refresh tokens.
pub(crate) async fn prune(tx: &mut Tx<PlatformScope>, now: Millis, limit: u32) -> Result<u64, StoreError> {
    tx.run(PRUNE, args![now, limit]).await
}
