//! Refresh tokens, hashed. Each session has one live token; spending it is a compare-and-set that one caller wins.

use bartizan_core::id::{SessionId, TenantId, UserId};
use bartizan_core::principal::{Role, Tier};
use bartizan_core::time::Millis;

use crate::db::{Conn, Tx};
use crate::error::StoreError;
use crate::scope::PlatformScope;
use crate::sql::statements;
use crate::value::{args, rows};
use crate::words::{RefreshState, TenantStatus, UserStatus};

rows! {
    /// A refresh token with everything the decision about it needs: one query, one state of affairs.
    PresentedToken {
        /// The tenant it belongs to.
        tenant_id: TenantId,
        /// Its session.
        session_id: SessionId,
        /// Which of the session's tokens it is.
        generation: u32,
        /// Live, or already exchanged.
        state: RefreshState,
        /// When it was exchanged.
        spent_at: Option<Millis>,
        /// The token it was exchanged for, sealed; forgotten soon after the retry window.
        successor_sealed: Option<Vec<u8>>,
        /// Digest of the client that exchanged it.
        spender_hash: Option<Vec<u8>>,
        /// When it expires.
        expires_at: Millis,
        /// The session's user.
        user_id: UserId,
        /// When the login was.
        session_created_at: Millis,
        /// The generation of the session's live token.
        session_generation: u32,
        /// When the session ends if not refreshed.
        idle_expires_at: Millis,
        /// When the session ends in any case.
        absolute_expires_at: Millis,
        /// When the session was ended.
        ended_at: Option<Millis>,
        /// Digest of the known device's secret.
        device_hash: Option<Vec<u8>>,
        /// The user's role.
        role: Role,
        /// Whether the user may log in.
        user_status: UserStatus,
        /// The user's epoch, for the next access token.
        user_epoch: u64,
        /// The tenant's tier.
        tier: Tier,
        /// Whether the tenant may work.
        tenant_status: TenantStatus,
        /// The tenant's epoch, for the next access token.
        tenant_epoch: u64,
    }
}

statements! {
    scoped INSERT = "INSERT INTO refresh_tokens (tenant_id, session_id, generation, hash, state, expires_at) \
        VALUES ($1, $2, $3, $4, 'live', $5)";
    platform("a refresh token does not say whose it is")
        BY_HASH = "SELECT r.tenant_id, r.session_id, r.generation, r.state, r.spent_at, r.successor_sealed, \
        r.spender_hash, r.expires_at, s.user_id, s.created_at, s.generation, s.idle_expires_at, \
        s.absolute_expires_at, s.ended_at, s.device_hash, u.role, u.status, u.epoch, t.tier, t.status, t.epoch \
        FROM refresh_tokens r \
        JOIN sessions s ON s.tenant_id = r.tenant_id AND s.id = r.session_id \
        JOIN users u ON u.tenant_id = s.tenant_id AND u.id = s.user_id \
        JOIN tenants t ON t.tenant_id = r.tenant_id \
        WHERE r.hash = $1";
    // The session must be live and at this generation, in the same statement that spends: one row changes, once.
    scoped SPEND = "UPDATE refresh_tokens SET state = 'spent', spent_at = $5, successor_sealed = $6, \
        spender_hash = $7 WHERE tenant_id = $1 AND session_id = $2 AND generation = $3 AND hash = $4 \
        AND state = 'live' AND expires_at > $5 AND EXISTS (SELECT 1 FROM sessions s WHERE s.tenant_id = $1 \
        AND s.id = $2 AND s.generation = $3 AND s.ended_at IS NULL AND s.absolute_expires_at > $5)";
    scoped ADVANCE = "UPDATE sessions SET generation = $3 + 1, last_seen_at = $4, idle_expires_at = $5 \
        WHERE tenant_id = $1 AND id = $2 AND generation = $3";
    platform("old hashes of every tenant's ended sessions") @quiet PRUNE_ENDED = "DELETE FROM refresh_tokens WHERE \
        (tenant_id, session_id, generation) IN (SELECT r.tenant_id, r.session_id, r.generation FROM sessions s \
        JOIN refresh_tokens r ON r.tenant_id = s.tenant_id AND r.session_id = s.id WHERE s.ended_at <= $1 LIMIT $2)";
    platform("successors are secrets with a short use, in every tenant") @quiet FORGET = "UPDATE refresh_tokens \
        SET successor_sealed = NULL WHERE (tenant_id, session_id, generation) IN (SELECT tenant_id, session_id, \
        generation FROM refresh_tokens WHERE successor_sealed IS NOT NULL AND spent_at <= $1 LIMIT $2)";
}

/// The exchange of a live token for its successor.
#[derive(Clone, Debug)]
pub struct Spend<'a> {
    /// The session.
    pub session: SessionId,
    /// The generation presented.
    pub generation: u32,
    /// The digest presented.
    pub hash: [u8; 32],
    /// Now.
    pub now: Millis,
    /// The successor itself, sealed: a retry within the window gets the same one.
    pub successor_sealed: &'a [u8],
    /// The successor's digest.
    pub successor_hash: [u8; 32],
    /// Digest of the client that spends.
    pub spender_hash: [u8; 32],
    /// When the successor expires: not after the session's absolute end.
    pub expires_at: Millis,
}

/// Who won a race for one token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Race {
    /// This caller: the successor is stored, the session moved on.
    Won,
    /// Somebody else, or the session ended meanwhile: nothing was written. Look again by the hash.
    Lost,
}

/// Stores a session's first token (generation 0).
pub async fn insert(
    tx: &mut Tx,
    session: SessionId,
    generation: u32,
    hash: [u8; 32],
    expires_at: Millis,
) -> Result<(), StoreError> {
    let args = args![session, generation, hash, expires_at];
    tx.run(INSERT, args).await.map(drop).map_err(|error| error.naming("refresh token"))
}

/// The token of this digest, in whatever state, with its session, user and tenant.
pub async fn by_hash(conn: &mut Conn<PlatformScope>, hash: [u8; 32]) -> Result<Option<PresentedToken>, StoreError> {
    conn.row(BY_HASH, args![hash]).await
}

/// Exchanges a live token: compare-and-set on state and generation, then the successor and the session's next
/// generation, in the caller's transaction.
pub async fn spend(tx: &mut Tx, spend: &Spend<'_>) -> Result<Race, StoreError> {
    let Spend { session, generation, hash, now, .. } = *spend;
    let args = args![session, generation, hash, now, spend.successor_sealed, spend.spender_hash];
    if tx.run(SPEND, args).await? == 0 {
        return Ok(Race::Lost);
    }
    if tx.run(ADVANCE, args![session, generation, now, spend.expires_at]).await? == 0 {
        // SPEND has just seen the session at this generation, in this transaction.
        return Err(StoreError::misuse("a session moved while its token was being spent"));
    }
    insert(tx, session, generation.saturating_add(1), spend.successor_hash, spend.expires_at).await?;
    Ok(Race::Won)
}

/// Removes the tokens of sessions ended before `before`.
pub(crate) async fn prune_ended(tx: &mut Tx<PlatformScope>, before: Millis, limit: u32) -> Result<u64, StoreError> {
    tx.run(PRUNE_ENDED, args![before, limit]).await
}

/// Forgets the sealed successors of tokens spent before `before`; that they were spent stays known.
pub(crate) async fn forget_successors(
    tx: &mut Tx<PlatformScope>,
    before: Millis,
    limit: u32,
) -> Result<u64, StoreError> {
    tx.run(FORGET, args![before, limit]).await
}
