//! Counters of failed logins, so that a restart is no pardon. Bookkeeping: keep with `commit_quietly`.

use bartizan_core::limit::{Key, Tat};
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
        /// When the counter will be empty, as [`Tat::to_bits`] packs it: later sorts higher.
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

impl FailureRow {
    /// The counter of `key`, which will be empty at `tat`.
    pub fn new(key: Key, tat: Tat, updated_at: Millis) -> Self {
        Self { key: key.0.to_be_bytes().to_vec(), tat: packed(Some(tat)), updated_at }
    }

    /// Whose counter it is, and when it will be empty.
    pub fn counter(&self) -> Option<(Key, Tat)> {
        let key = <[u8; 16]>::try_from(self.key.as_slice()).ok().map(u128::from_be_bytes)?;
        Some((Key(key), Tat::from_bits(u64::from_ne_bytes(self.tat.to_ne_bytes()))?))
    }
}

fn packed(tat: Option<Tat>) -> i64 {
    i64::from_ne_bytes(tat.map_or(0, Tat::to_bits).to_ne_bytes())
}

/// What a counter that is empty at `now` holds at most.
fn empty(now: Millis) -> i64 {
    packed(Tat::from_bits(u64::MAX).and_then(|tat| tat.at_most(now)))
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
    conn.rows(ALL, args![empty(now)]).await
}

/// Removes counters that are empty at `now`.
pub(crate) async fn prune<S: Border>(tx: &mut Tx<S>, now: Millis, limit: u32) -> Result<u64, StoreError> {
    tx.run(PRUNE, args![empty(now), limit]).await
}
