//! Where the database lies, who holds it, and how it is connected.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use super::migrate;
use crate::error::{StoreError, StoreErrorKind};

/// How long a change waits for its turn, and a reader for a free connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// The file of the database: absolute, existing, links resolved.
pub(super) struct Place {
    pub(super) path: PathBuf,
}

impl Place {
    /// Finds the file, creating it (0600) and the data directory (0700) when missing.
    pub(super) fn of(url: &str, data_dir: &Path) -> Result<Self, StoreError> {
        let wrong = |why: &str| Err(StoreError::new(StoreErrorKind::Url).detail(why));
        let Some(name) = url.strip_prefix("sqlite:") else {
            return wrong("neither `sqlite:` nor `postgres:`");
        };
        if name.is_empty() || name == ":memory:" {
            return wrong("a database in memory would not survive a restart");
        }
        if name.starts_with("//") {
            return wrong("no `//` after `sqlite:`: a path that begins with one slash is absolute, any other relative");
        }
        if name.contains('\0') {
            return wrong("the path contains a NUL");
        }
        let data_dir = std::path::absolute(data_dir).map_err(|error| StoreError::io(error, data_dir))?;
        create_dir(&data_dir)?;
        let path = data_dir.join(name);
        create_file(&path)?;
        sync_parent(&path)?;
        // Resolved, so that two names of one file meet at the same lock.
        let path = fs::canonicalize(&path).map_err(|error| StoreError::io(error, &path))?;
        if path.to_str().is_none() {
            return wrong("the path is not valid Unicode");
        }
        Ok(Self { path })
    }

    /// Takes the lock that keeps a second server away. The kernel frees it when the process ends, however it ends.
    pub(super) fn occupy(&self) -> Result<File, StoreError> {
        let mut name = self.path.clone().into_os_string();
        name.push(".lock");
        let path = PathBuf::from(name);
        let mut lock = private(OpenOptions::new().read(true).write(true).create(true).truncate(false))
            .open(&path)
            .map_err(|error| StoreError::io(error, &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Only a courtesy to the reader of the message.
                let _ = (&mut lock).take(20).read_to_string(&mut holder);
                let holder = holder.trim();
                let who = if holder.is_empty() { "process unknown".into() } else { format!("process {holder}") };
                return Err(StoreError::new(StoreErrorKind::Locked).detail(format!("{}, {who}", path.display())));
            }
            Err(TryLockError::Error(error)) => return Err(StoreError::io(error, &path)),
        }
        let write = |lock: &mut File| {
            lock.set_len(0)?;
            lock.rewind()?;
            writeln!(lock, "{}", std::process::id())
        };
        write(&mut lock).map_err(|error| StoreError::io(error, &path))?;
        Ok(lock)
    }

    /// Adds the path to an error that has nothing more telling.
    pub(super) fn about(&self, error: StoreError) -> StoreError {
        error.detail_if_none(|| self.path.display().to_string())
    }
}

fn create_dir(path: &Path) -> Result<(), StoreError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|error| StoreError::io(error, path))
}

fn create_file(path: &Path) -> Result<(), StoreError> {
    let opened = private(OpenOptions::new().read(true).write(true).create(true).truncate(false)).open(path);
    let file = opened.map_err(|error| StoreError::io(error, path))?;
    let kind = file.metadata().map_err(|error| StoreError::io(error, path))?;
    if kind.is_file() {
        return Ok(());
    }
    Err(StoreError::new(StoreErrorKind::Io).detail(format!("{} is not a regular file", path.display())))
}

/// Makes the file's name durable: SQLite syncs what is in the file, but the directory entry is ours.
#[cfg_attr(not(unix), allow(unused_variables))]
fn sync_parent(path: &Path) -> Result<(), StoreError> {
    #[cfg(unix)]
    if let Some(parent) = path.parent() {
        File::open(parent).and_then(|dir| dir.sync_all()).map_err(|error| StoreError::io(error, parent))?;
    }
    Ok(())
}

/// Files of ours are for the server's user alone. SQLite gives its side files the mode of the database.
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

/// SQLite: one writer, to which changes queue in order of arrival, and a few read-only readers beside it.
#[derive(Debug)]
pub(super) struct Sqlite {
    pub(super) writer: SqlitePool,
    pub(super) readers: SqlitePool,
    pub(super) path: PathBuf,
}

impl Sqlite {
    pub(super) async fn check(&self) -> Result<(), StoreError> {
        let (finding,): (String,) = sqlx::query_as("PRAGMA quick_check(1)").fetch_one(&self.readers).await?;
        match finding.as_str() {
            "ok" => Ok(()),
            _ => Err(StoreError::new(StoreErrorKind::Corrupt).detail(finding)),
        }
    }

    pub(super) async fn facts(&self) -> Result<Vec<(String, String)>, StoreError> {
        let (version,): (String,) = sqlx::query_as("SELECT sqlite_version()").fetch_one(&self.readers).await?;
        Ok(vec![("version".into(), format!("SQLite {version}"))])
    }
}

/// Opens the writer, migrates, then opens the readers.
pub(super) async fn connect(path: &Path) -> Result<Sqlite, StoreError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(PATIENCE)
        .foreign_keys(true)
        // A schema planted in the file must not call functions with side effects.
        .pragma("trusted_schema", "OFF")
        .pragma("cell_size_check", "ON")
        .statement_cache_capacity(256)
        .row_buffer_size(512);
    let writer = options
        .clone()
        .journal_mode(SqliteJournalMode::Wal)
        // A promise is made at every commit: it must survive the loss of power.
        .synchronous(SqliteSynchronous::Full)
        // Deleted keys and personal data are overwritten where that costs no extra writing.
        .pragma("secure_delete", "FAST")
        // After a burst the log shrinks again.
        .pragma("journal_size_limit", "67108864");
    let pool = |max: u32| {
        SqlitePoolOptions::new()
            .max_connections(max)
            .acquire_timeout(PATIENCE)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
    };
    let writer = pool(1).connect_with(writer).await?;
    let (mode,): (String,) = sqlx::query_as("PRAGMA journal_mode").fetch_one(&writer).await?;
    if mode != "wal" {
        return Err(StoreError::new(StoreErrorKind::Io)
            .detail("this file system has no shared memory for the write-ahead log: use a local disk"));
    }
    migrate::sqlite(&writer).await?;
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let readers = u32::try_from(cores.clamp(2, 8)).unwrap_or(2);
    let readers = pool(readers).connect_with(options.read_only(true)).await?;
    Ok(Sqlite { writer, readers, path: path.to_owned() })
}
