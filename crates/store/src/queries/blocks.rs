//! The block list: networks refused before anything else is looked at.

use bartizan_core::id::BlockId;
use bartizan_core::time::Millis;

use crate::db::{Conn, Tx};
use crate::error::StoreError;
use crate::scope::Border;
use crate::sql::statements;
use crate::value::{args, rows};

rows! {
    /// An entry of the block list.
    BlockRow {
        /// Its id.
        id: BlockId,
        /// The network, in CIDR notation.
        network: String,
        /// Why, in the operator's words.
        reason: String,
        /// Since when.
        created_at: Millis,
        /// Until when; `None` for ever.
        expires_at: Option<Millis>,
    }
}

statements! {
    global INSERT = "INSERT INTO blocks (id, network, reason, created_at, expires_at) VALUES ($1, $2, $3, $4, $5)";
    global ALL = "SELECT id, network, reason, created_at, expires_at FROM blocks \
        WHERE expires_at IS NULL OR expires_at > $1 ORDER BY id";
    global DELETE = "DELETE FROM blocks WHERE id = $1";
    global @quiet PRUNE = "DELETE FROM blocks WHERE expires_at <= $1";
}

/// Adds an entry.
pub async fn insert<S: Border>(tx: &mut Tx<S>, block: &BlockRow) -> Result<(), StoreError> {
    let args = args![block.id, block.network.as_str(), block.reason.as_str(), block.created_at, block.expires_at];
    tx.run(INSERT, args).await.map(drop).map_err(|error| error.naming("block"))
}

/// The entries in force at `now`.
pub async fn all<S: Border>(conn: &mut Conn<S>, now: Millis) -> Result<Vec<BlockRow>, StoreError> {
    conn.rows(ALL, args![now]).await
}

/// Removes an entry; `false` when there is none.
pub async fn delete<S: Border>(tx: &mut Tx<S>, id: BlockId) -> Result<bool, StoreError> {
    Ok(tx.run(DELETE, args![id]).await? == 1)
}

/// Removes entries that are over.
pub(crate) async fn prune<S: Border>(tx: &mut Tx<S>, now: Millis) -> Result<u64, StoreError> {
    tx.run(PRUNE, args![now]).await
}
