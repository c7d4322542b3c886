//! Single facts about the installation, such as the node's name. Bookkeeping: keep with `commit_quietly`. Never a
//! secret.

use crate::db::{Conn, Tx};
use crate::error::StoreError;
use crate::scope::Border;
use crate::sql::statements;
use crate::value::args;

/// The fact that holds the latest moment this database has seen, in milliseconds since 1970.
pub const LAST_SEEN: &str = "clock.last_seen";

statements! {
    global FIND = "SELECT value FROM meta WHERE name = $1";
    global @quiet UPSERT = "INSERT INTO meta (name, value) VALUES ($1, $2) \
        ON CONFLICT (name) DO UPDATE SET value = excluded.value";
}

/// The fact of this name.
pub async fn find<S: Border>(conn: &mut Conn<S>, name: &str) -> Result<Option<String>, StoreError> {
    Ok(conn.row::<(String,)>(FIND, args![name]).await?.map(|(value,)| value))
}

/// Stores a fact, replacing the old one.
pub async fn set<S: Border>(tx: &mut Tx<S>, name: &str, value: &str) -> Result<(), StoreError> {
    tx.run(UPSERT, args![name, value]).await.map(drop)
}
