//! The database: opening it, reading it, changing it.

mod conn;
mod migrate;
mod open;
mod tx;
mod upkeep;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bartizan_core::audit::AuditEvent;
use sqlx::SqlitePool;

pub use conn::{Conn, Reader};
pub use tx::{Committed, Tx};
pub use upkeep::Pruned;

use crate::error::{StoreError, StoreErrorKind};
use crate::scope::{PlatformScope, Scope};
use conn::{Trace, Wire};

/// How long an effect on live credentials is kept: the hard maximum of an access token's life (15 minutes) plus one
/// minute of clock skew. After it no token is left that the effect could end.
pub const EFFECT_LIFE: std::time::Duration = std::time::Duration::from_secs(16 * 60);

/// An open database. Cheap to clone; all clones share the connections and the lock.
///
/// SQLite: one writer, to which changes queue in order of arrival, and a few read-only readers beside it. A second
/// server on the same file is refused by a lock file next to it.
#[derive(Clone, Debug)]
pub struct Db {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    engine: Engine,
    path: PathBuf,
    held: Arc<Held>,
}

/// What lives as long as anything that can still touch the file.
#[derive(Debug)]
struct Held {
    /// Transactions dropped after a write, with neither `commit`, `cancel` nor an error.
    abandoned: AtomicU64,
    /// Keeps a second server away.
    _lock: File,
}

/// The databases we speak to. PostgreSQL will be the second variant.
#[derive(Debug)]
enum Engine {
    Sqlite { writer: SqlitePool, readers: SqlitePool },
}

impl Db {
    /// Opens, and creates or migrates as needed, the database at `url`: `sqlite:` and a path, relative to `data_dir`
    /// or absolute, taken literally (spaces, `?`, `%` and any Unicode are just characters). `data_dir` is created
    /// (0700) when missing; the file gets mode 0600.
    ///
    /// # Errors
    /// [`StoreErrorKind::Locked`] when another server runs on it, `Newer`, `Corrupt`, `ReadOnly`, `Full`, `Url`, `Io`;
    /// each with a sentence that says what to do.
    pub async fn open(url: &str, data_dir: &Path) -> Result<Db, StoreError> {
        let place = open::Place::of(url, data_dir)?;
        let lock = place.occupy()?;
        let engine = open::connect(&place.path).await.map_err(|error| place.about(error))?;
        let held = Arc::new(Held { abandoned: AtomicU64::new(0), _lock: lock });
        let inner = Inner { engine, path: place.path, held };
        Ok(Db { inner: Arc::new(inner) })
    }

    /// A read-only connection inside the tenant. Every statement sees the newest committed state.
    pub async fn read(&self, scope: &Scope) -> Result<Reader<Scope>, StoreError> {
        Ok(Reader(Conn::new(scope.clone(), self.reading().await?, self.trace())))
    }

    /// A read-only connection across tenants.
    pub async fn read_platform(&self, scope: &PlatformScope) -> Result<Reader<PlatformScope>, StoreError> {
        Ok(Reader(Conn::new(scope.clone(), self.reading().await?, self.trace())))
    }

    /// Begins a change inside the tenant. Waits for its turn, at most five seconds ([`StoreErrorKind::Busy`]).
    /// From here to `commit`, do nothing slow: all other changes wait.
    pub async fn change(&self, scope: &Scope) -> Result<Tx<Scope>, StoreError> {
        Ok(Tx::new(Conn::new(scope.clone(), self.writing().await?, self.trace())))
    }

    /// Begins a change across tenants.
    pub async fn change_platform(&self, scope: &PlatformScope) -> Result<Tx<PlatformScope>, StoreError> {
        Ok(Tx::new(Conn::new(scope.clone(), self.writing().await?, self.trace())))
    }

    /// Records events that changed nothing here, in one transaction: denials, failed logins, reads of secrets. Their
    /// effects, if they have any, come back to be applied. Call it outside any other transaction.
    pub async fn record_all(&self, events: &[AuditEvent]) -> Result<Committed<()>, StoreError> {
        let mut tx = self.change_platform(&PlatformScope::granted("record events without a change")).await?;
        for event in events {
            tx.record(event).await?;
        }
        tx.settle(()).await
    }

    /// Records one event that changed nothing here.
    pub async fn record_alone(&self, event: AuditEvent) -> Result<Committed<()>, StoreError> {
        self.record_all(std::slice::from_ref(&event)).await
    }

    /// How many transactions were dropped after a write without `commit`, `cancel` or an error on their way: a
    /// mistake in a service, or a request cancelled in the middle. For the metric `tx_abandoned`.
    pub fn abandoned(&self) -> u64 {
        self.inner.held.abandoned.load(Ordering::Relaxed)
    }

    /// The file, with symbolic links resolved.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Reads the whole file and checks its structure. Seconds per gigabyte; for `doctor`.
    ///
    /// # Errors
    /// [`StoreErrorKind::Corrupt`] with the first finding.
    pub async fn check(&self) -> Result<(), StoreError> {
        let Engine::Sqlite { readers, .. } = &self.inner.engine;
        let (finding,): (String,) = sqlx::query_as("PRAGMA quick_check(1)").fetch_one(readers).await?;
        match finding.as_str() {
            "ok" => Ok(()),
            _ => Err(StoreError::new(StoreErrorKind::Corrupt).detail(finding)),
        }
    }

    /// Closes in good order: waits for what runs, then empties the write-ahead log into the file. Afterwards every
    /// call fails with [`StoreErrorKind::Closed`].
    pub async fn close(&self) {
        let Engine::Sqlite { writer, readers } = &self.inner.engine;
        // Readers first: the last connection to close is the one that tidies up, and readers cannot write.
        readers.close().await;
        writer.close().await;
    }

    async fn reading(&self) -> Result<Wire, StoreError> {
        let Engine::Sqlite { readers, .. } = &self.inner.engine;
        Ok(Wire::reading(readers.acquire().await?))
    }

    async fn writing(&self) -> Result<Wire, StoreError> {
        let Engine::Sqlite { writer, .. } = &self.inner.engine;
        Wire::begin(writer.acquire().await?).await
    }

    fn trace(&self) -> Trace {
        Trace::new(Arc::clone(&self.inner.held))
    }
}

#[cfg(test)]
mod tests;
