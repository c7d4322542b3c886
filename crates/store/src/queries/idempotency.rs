//! Answers remembered for `Idempotency-Key`, in the transaction of the change they answer.

use bartizan_core::id::UserId;
use bartizan_core::time::Millis;

use crate::db::{Conn, Tx};
use crate::error::{StoreError, StoreErrorKind};
use crate::scope::PlatformScope;
use crate::sql::statements;
use crate::value::{args, rows};

rows! {
    /// A remembered answer.
    IdempotencyRow {
        /// The user whose request it was; part of what the key's digest is made from.
        scope_user: Option<UserId>,
        /// Digest of the key.
        key_hash: [u8; 32],
        /// Digest of the request: the same key with another request is refused.
        request_digest: [u8; 32],
        /// The status of the answer.
        status: u16,
        /// The answer, sealed.
        response_sealed: Vec<u8>,
        /// When it was given.
        created: Millis,
        /// Until when it is remembered.
        expires: Millis,
    }
}

statements! {
    // An entry past its time is no obstacle, even when it was not pruned yet.
    scoped INSERT = "INSERT INTO idempotency (tenant_id, key_hash, user_id, request_digest, status, response_sealed, \
        created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (tenant_id, key_hash) DO UPDATE \
        SET user_id = excluded.user_id, request_digest = excluded.request_digest, status = excluded.status, \
        response_sealed = excluded.response_sealed, created_at = excluded.created_at, \
        expires_at = excluded.expires_at WHERE idempotency.expires_at <= excluded.created_at";
    scoped FIND = "SELECT user_id, key_hash, request_digest, status, response_sealed, created_at, expires_at \
        FROM idempotency WHERE tenant_id = $1 AND key_hash = $2 AND expires_at > $3";
    platform("time ends what was remembered for every tenant") @quiet PRUNE = "DELETE FROM idempotency WHERE \
        (tenant_id, key_hash) IN (SELECT tenant_id, key_hash FROM idempotency WHERE expires_at <= $1 LIMIT $2)";
}

impl Tx {
    /// Remembers the answer of this change for its key.
    ///
    /// # Errors
    /// `Duplicate("idempotency key")` when another request with the key got here first: drop this transaction and
    /// answer from [`find`].
    pub async fn remember(&mut self, row: &IdempotencyRow) -> Result<(), StoreError> {
        let args = args![
            row.key_hash,
            row.scope_user,
            row.request_digest,
            row.status,
            row.response_sealed.as_slice(),
            row.created,
            row.expires,
        ];
        match self.run(INSERT, args).await? {
            0 => Err(StoreError::new(StoreErrorKind::Duplicate("idempotency key"))),
            _ => Ok(()),
        }
    }
}

/// The answer remembered for the key, if its time is not over.
pub async fn find(conn: &mut Conn, key_hash: [u8; 32], now: Millis) -> Result<Option<IdempotencyRow>, StoreError> {
    conn.row(FIND, args![key_hash, now]).await
}

/// Removes what is past its time.
pub(crate) async fn prune(tx: &mut Tx<PlatformScope>, now: Millis, limit: u32) -> Result<u64, StoreError> {
    tx.run(PRUNE, args![now, limit]).await
}
