//! Data keys of the tenants, wrapped by a key that is never here.

use bartizan_core::time::Millis;

use crate::db::{Conn, Tx};
use crate::error::StoreError;
use crate::sql::statements;
use crate::value::{args, rows};

rows! {
    /// A wrapped data key.
    DataKeyRow {
        /// Its number in the tenant, which stands at the head of every ciphertext.
        id: u32,
        /// What it is for, such as `field`.
        purpose: String,
        /// The key that wraps it.
        kek: String,
        /// When it was created.
        created_at: Millis,
        /// The wrapped key.
        wrapped: Vec<u8>,
    }
}

statements! {
    scoped INSERT = "INSERT INTO data_keys (tenant_id, id, purpose, kek, created_at, wrapped) \
        VALUES ($1, $2, $3, $4, $5, $6)";
    scoped ALL = "SELECT id, purpose, kek, created_at, wrapped FROM data_keys WHERE tenant_id = $1 ORDER BY id";
    scoped REWRAP = "UPDATE data_keys SET kek = $3, wrapped = $4 WHERE tenant_id = $1 AND id = $2 AND kek = $5";
}

/// Adds a key. Fails with `Duplicate("data key")` when the number is taken.
pub async fn insert(tx: &mut Tx, key: &DataKeyRow) -> Result<(), StoreError> {
    let args = args![key.id, key.purpose.as_str(), key.kek.as_str(), key.created_at, key.wrapped.as_slice()];
    tx.run(INSERT, args).await.map(drop).map_err(|error| error.naming("data key"))
}

/// The tenant's keys, oldest first.
pub async fn all(conn: &mut Conn) -> Result<Vec<DataKeyRow>, StoreError> {
    conn.rows(ALL, args![]).await
}

/// Replaces the wrapping of a key, if it is still wrapped by `from`; returns whether it was.
pub async fn rewrap(tx: &mut Tx, id: u32, from: &str, to: &str, wrapped: &[u8]) -> Result<bool, StoreError> {
    Ok(tx.run(REWRAP, args![id, to, wrapped, from]).await? == 1)
}
