//! The database: opening it, reading it, changing it.

mod conn;
mod migrate;
mod options;
mod postgres;
mod sqlite;
mod transfer;
mod turn;
mod tx;
mod upkeep;
mod wire;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bartizan_core::audit::AuditEvent;
use bartizan_core::id::TenantId;

pub use conn::{Conn, Reader};
pub use options::DbOptions;
pub use postgres::ServerFacts;
pub use transfer::{Moved, Progress, Stage, Transferred, transfer};
pub use tx::{Committed, Tx};
pub use upkeep::{InForce, Pruned};

use crate::error::StoreError;
use crate::scope::{PlatformScope, Scope};
use conn::Trace;
use turn::Turn;
use wire::Wire;

/// How long an effect on live credentials is kept: the hard maximum of an access token's life (15 minutes), the ten by
/// which the clocks of two nodes may differ (five minutes each way: the one that ended it is behind, the one that issued
/// it and is asked is ahead), and one more. After it no token is left that the effect could end.
pub const EFFECT_LIFE: std::time::Duration = std::time::Duration::from_secs(26 * 60);

/// An open database. Cheap to clone; all clones share the connections.
///
/// SQLite: one writer, to which changes queue in order of arrival, and a few read-only readers beside it. A second
/// server on the same file is refused by a lock file next to it. PostgreSQL: as many nodes as there are connections
/// for; changes of one tenant take turns wherever they come from, those of different tenants run side by side.
#[derive(Clone, Debug)]
pub struct Db {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    engine: Engine,
    held: Arc<Held>,
}

/// What lives as long as anything that can still touch the database.
#[derive(Debug)]
struct Held {
    /// Transactions dropped after a write, with neither `commit`, `cancel` nor an error.
    abandoned: AtomicU64,
    /// Keeps a second server away from a file.
    _lock: Option<File>,
}

/// The databases we speak to: these two, and one text of SQL for both.
#[derive(Debug)]
enum Engine {
    Sqlite(sqlite::Sqlite),
    Postgres(postgres::Postgres),
}

impl Db {
    /// Opens, and creates or migrates as needed, the database at `url`, with the default [`DbOptions`].
    ///
    /// `sqlite:` and a path, relative to `data_dir` or absolute, taken literally (spaces, `?`, `%` and any Unicode are
    /// just characters). `data_dir` is created (0700) when missing; the file gets mode 0600.
    ///
    /// `postgres://user@host:port/database`, with `?sslmode=…&sslrootcert=…`. Without `sslmode` a server on this machine
    /// is spoken to in the clear, any other only with its certificate verified.
    ///
    /// # Errors
    /// [`Locked`](crate::StoreErrorKind::Locked) when another server runs on the file, `Newer`, `Corrupt`, `ReadOnly`, `Full`, `Url`,
    /// `Unreachable`, `Access`, `Outdated`, `Io`; each with a sentence that says what to do and shows no password.
    pub async fn open(url: &str, data_dir: &Path) -> Result<Db, StoreError> {
        Self::open_with(url, data_dir, &DbOptions::default()).await
    }

    /// The same with a password from elsewhere than the address, and other limits. SQLite needs none of it.
    ///
    /// # Errors
    /// As for [`Db::open`].
    pub async fn open_with(url: &str, data_dir: &Path, options: &DbOptions) -> Result<Db, StoreError> {
        let (engine, lock) = if postgres::address::is_postgres(url) {
            (Engine::Postgres(postgres::Postgres::open(url, options).await?), None)
        } else {
            let place = sqlite::Place::of(url, data_dir)?;
            let lock = place.occupy()?;
            let engine = sqlite::connect(&place.path).await.map_err(|error| place.about(error))?;
            (Engine::Sqlite(engine), Some(lock))
        };
        let held = Arc::new(Held { abandoned: AtomicU64::new(0), _lock: lock });
        Ok(Db { inner: Arc::new(Inner { engine, held }) })
    }

    /// Asks a PostgreSQL server what an operator should know before a start; creates and changes nothing.
    ///
    /// # Errors
    /// As for [`Db::open`], but a standby is described rather than refused.
    pub async fn survey(url: &str, options: &DbOptions) -> Result<ServerFacts, StoreError> {
        postgres::survey(url, options).await
    }

    /// A read-only connection inside the tenant. Every statement sees the newest committed state.
    pub async fn read(&self, scope: &Scope) -> Result<Reader<Scope>, StoreError> {
        Ok(Reader(Conn::new(scope.clone(), self.reading().await?, self.trace())))
    }

    /// A read-only connection across tenants.
    pub async fn read_platform(&self, scope: &PlatformScope) -> Result<Reader<PlatformScope>, StoreError> {
        Ok(Reader(Conn::new(scope.clone(), self.reading().await?, self.trace())))
    }

    /// Begins a change inside the tenant. Waits for its turn, at most five seconds ([`Busy`](crate::StoreErrorKind::Busy)).
    /// From here to `commit`, do nothing slow: all other changes of the tenant, on SQLite all other changes, wait; and
    /// PostgreSQL ends a change that does nothing for five seconds.
    pub async fn change(&self, scope: &Scope) -> Result<Tx<Scope>, StoreError> {
        let wire = self.writing(&Turn::Tenants(vec![scope.tenant()])).await?;
        Ok(Tx::new(Conn::new(scope.clone(), wire, self.trace())))
    }

    /// Begins a change across tenants, while nobody else changes anything.
    pub async fn change_platform(&self, scope: &PlatformScope) -> Result<Tx<PlatformScope>, StoreError> {
        self.change_in_turn(scope, &Turn::Platform).await
    }

    /// Begins a change that touches, beside tables that belong to nobody, only what these tenants own: the others need
    /// not wait. For what may be written side by side, such as counters of failures with the event that tells of one;
    /// what is read first and decided upon needs [`Db::change_platform`].
    pub async fn change_of(
        &self,
        scope: &PlatformScope,
        tenants: &[TenantId],
    ) -> Result<Tx<PlatformScope>, StoreError> {
        self.change_in_turn(scope, &Turn::Tenants(tenants.to_vec())).await
    }

    async fn change_in_turn(&self, scope: &PlatformScope, turn: &Turn) -> Result<Tx<PlatformScope>, StoreError> {
        Ok(Tx::new(Conn::new(scope.clone(), self.writing(turn).await?, self.trace())))
    }

    /// Records events that changed nothing here, in one transaction: denials, failed logins, reads of secrets. Their
    /// effects, if they have any, come back to be applied. Call it outside any other transaction.
    pub async fn record_all(&self, events: &[AuditEvent]) -> Result<Committed<()>, StoreError> {
        // Only the numbering of these tenants is touched: the others need not wait.
        let turn = Turn::Tenants(events.iter().filter_map(|event| event.tenant).collect());
        let mut tx = self.change_in_turn(&PlatformScope::granted("record events without a change"), &turn).await?;
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

    /// The file of SQLite, with symbolic links resolved; `None` for PostgreSQL.
    pub fn path(&self) -> Option<&Path> {
        match &self.inner.engine {
            Engine::Sqlite(sqlite) => Some(&sqlite.path),
            Engine::Postgres(_) => None,
        }
    }

    /// Where the database is, for people to read; never with a user's name or a password.
    pub fn place(&self) -> String {
        match &self.inner.engine {
            Engine::Sqlite(sqlite) => format!("SQLite, {}", sqlite.path.display()),
            Engine::Postgres(postgres) => postgres.place.clone(),
        }
    }

    /// SQLite: reads the whole file and checks its structure; seconds per gigabyte. PostgreSQL: asks whether the server
    /// keeps what it promised through a loss of power. For `doctor`.
    ///
    /// # Errors
    /// [`Corrupt`](crate::StoreErrorKind::Corrupt) with the first finding.
    pub async fn check(&self) -> Result<(), StoreError> {
        match &self.inner.engine {
            Engine::Sqlite(sqlite) => sqlite.check().await,
            Engine::Postgres(postgres) => postgres.check().await,
        }
    }

    /// What the database says of itself, for `doctor`: version, encryption, durability, limits; by name.
    pub async fn facts(&self) -> Result<Vec<(String, String)>, StoreError> {
        match &self.inner.engine {
            Engine::Sqlite(sqlite) => sqlite.facts().await,
            Engine::Postgres(postgres) => postgres.facts().await,
        }
    }

    /// Closes in good order: waits for what runs, then empties the write-ahead log into the file. Afterwards every
    /// call fails with [`Closed`](crate::StoreErrorKind::Closed).
    pub async fn close(&self) {
        match &self.inner.engine {
            Engine::Sqlite(sqlite) => {
                // Readers first: the last connection to close is the one that tidies up, and readers cannot write.
                sqlite.readers.close().await;
                sqlite.writer.close().await;
            }
            Engine::Postgres(postgres) => {
                postgres.changes.close().await;
                postgres.readers.close().await;
            }
        }
    }

    async fn reading(&self) -> Result<Wire, StoreError> {
        match &self.inner.engine {
            Engine::Sqlite(sqlite) => Ok(Wire::reading_sqlite(sqlite.readers.acquire().await?)),
            Engine::Postgres(postgres) => Ok(Wire::reading_postgres(postgres.readers.line().await?)),
        }
    }

    async fn writing(&self, turn: &Turn) -> Result<Wire, StoreError> {
        match &self.inner.engine {
            Engine::Sqlite(sqlite) => Wire::begin_sqlite(sqlite.writer.acquire().await?).await,
            Engine::Postgres(postgres) => Wire::begin_postgres(postgres, turn).await,
        }
    }

    fn trace(&self) -> Trace {
        Trace::new(Arc::clone(&self.inner.held))
    }
}

#[cfg(test)]
mod tests;
