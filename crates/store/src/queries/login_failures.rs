//! Counters of failed logins, so that a restart is no pardon. Bookkeeping: keep with `commit_quietly`.

use bartizan_core::time::Millis;

use crate::db::{Conn, Tx};
use crate::error::StoreError;
use crate::scope::Border;
use crate::sql::statements;
use crate::value::{args, rows};

rows! {
    /// One counter.
    FailureRow {
        /// Digest of what is counted: account and network, account, network, or tenant.
        key: Vec<u8>,
        /// The theoretical arrival time of GCRA: the counter is empty when it lies in the past. In milliseconds.
        tat: i64,
        /// When it last changed.
        updated_at: Millis,
    }
}

statements! {
    // A counter is written after memory has decided; a later decision carries the later time.
    global @quiet UPSERT = "INSERT INTO login_failures (key, tat, updated_at) VALUES ($1, $2, $3) \
        ON CONFLICT (key) DO UPDATE SET tat = excluded.tat, updated_at = excluded.updated_at \
        WHERE login_failures.updated_at <= excluded.updated_at";
    global ALL = "SELECT key, tat, updated_at FROM login_failures WHERE tat > $1 ORDER BY tat";
    global @quiet PRUNE = "DELETE FROM login_failures WHERE key IN \
        (SELECT key FROM login_failures WHERE tat <= $1 LIMIT $2)";
}

/// Stores the counters as they now stand.
pub async fn save<S: Border>(tx: &mut Tx<S>, counters: &[FailureRow]) -> Result<(), StoreError> {
    // Always in one order: two changes that count the same things cannot wait for each other.
    let mut counters: Vec<&FailureRow> = counters.iter().collect();
    counters.sort_by(|one, other| one.key.cmp(&other.key));
    for counter in counters {
        tx.run(UPSERT, args![counter.key.as_slice(), counter.tat, counter.updated_at]).await?;
    }
    Ok(())
}

/// The counters that are not empty at `now`.
pub async fn all<S: Border>(conn: &mut Conn<S>, now: Millis) -> Result<Vec<FailureRow>, StoreError> {
    conn.rows(ALL, args![now]).await
}

/// Removes counters that are empty at `now`.
pub(crate) async fn prune<S: Border>(tx: &mut Tx<S>, now: Millis, limit: u32) -> Result<u64, StoreError> {
    tx.run(PRUNE, args![now, limit]).await
}
