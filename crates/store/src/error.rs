//! Why the store could not do it, in a sentence that says what to do.

use std::error::Error;
use std::fmt;
use std::io;

/// The causes a caller can tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// Something unique is already taken; the name says what.
    Duplicate(&'static str),
    /// The row refers to one that does not exist, or breaks another rule of the schema.
    Constraint,
    /// The database is busy; trying again soon makes sense.
    Busy,
    /// The disk is full.
    Full,
    /// The file or its directory cannot be written.
    ReadOnly,
    /// The file is damaged or is not a database of Bartizan.
    Corrupt,
    /// The database was written by a newer program.
    Newer {
        /// The database's schema version.
        found: i64,
        /// The newest version this program knows.
        known: i64,
    },
    /// Another running server holds this database.
    Locked,
    /// The address of the database cannot be used.
    Url,
    /// The database was closed.
    Closed,
    /// An event of another tenant, or a change that must be recorded kept without its row: our own mistake, refused.
    Misuse,
    /// The operating system or the database said no for another reason.
    Io,
}

/// A failure of the store. Its text is for the operator: it names the cause and the way to mend it, never a value.
#[derive(Debug)]
pub struct StoreError {
    kind: StoreErrorKind,
    detail: Option<String>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl StoreError {
    pub(crate) fn new(kind: StoreErrorKind) -> Self {
        Self { kind, detail: None, source: None }
    }

    pub(crate) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub(crate) fn detail_if_none(mut self, detail: impl FnOnce() -> String) -> Self {
        self.detail.get_or_insert_with(detail);
        self
    }

    pub(crate) fn source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    pub(crate) fn misuse(what: &'static str) -> Self {
        Self::new(StoreErrorKind::Misuse).detail(what)
    }

    /// Names what was taken: the database only knows the index.
    pub(crate) fn naming(mut self, what: &'static str) -> Self {
        if matches!(self.kind, StoreErrorKind::Duplicate(_)) {
            self.kind = StoreErrorKind::Duplicate(what);
        }
        self
    }

    /// The cause.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// Whether trying the same again soon may succeed without anybody doing anything.
    pub fn transient(&self) -> bool {
        matches!(self.kind, StoreErrorKind::Busy)
    }

    /// Whether the thing named `what` was already taken.
    pub fn is_duplicate_of(&self, what: &str) -> bool {
        matches!(self.kind, StoreErrorKind::Duplicate(taken) if taken == what)
    }

    /// Sorts a failure of the operating system on `path`.
    pub(crate) fn io(error: io::Error, path: &std::path::Path) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => StoreErrorKind::ReadOnly,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreErrorKind::Full,
            _ => StoreErrorKind::Io,
        };
        Self::new(kind).detail(path.display().to_string()).source(error)
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            StoreErrorKind::Duplicate(what) => write!(f, "{what} is already taken"),
            StoreErrorKind::Constraint => f.write_str("the change breaks a rule of the schema"),
            StoreErrorKind::Busy => f.write_str("the database is busy: try again soon"),
            StoreErrorKind::Full => {
                f.write_str("the disk is full: free space where the database lies; nothing already confirmed is lost")
            }
            StoreErrorKind::ReadOnly => f.write_str(
                "the database cannot be written: give the server's user write permission on the file and its directory",
            ),
            StoreErrorKind::Corrupt => {
                f.write_str("the database is damaged or not one of Bartizan's: restore the latest backup")
            }
            StoreErrorKind::Newer { found, known } => write!(
                f,
                "this database is of schema version {found}, this program knows {known}: install the newer program or \
                 restore the backup"
            ),
            StoreErrorKind::Locked => f.write_str(
                "another running server holds this database: stop it, or give this one another data directory",
            ),
            StoreErrorKind::Url => {
                f.write_str("the database address cannot be used: write `sqlite:` and the path of a file")
            }
            StoreErrorKind::Closed => f.write_str("the database was closed"),
            StoreErrorKind::Misuse => f.write_str("a rule of the store was broken by the program itself"),
            StoreErrorKind::Io => f.write_str("the database could not be read or written"),
        }?;
        match &self.detail {
            Some(detail) => write!(f, " ({detail})"),
            None => Ok(()),
        }
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let kind = match &error {
            sqlx::Error::PoolTimedOut => StoreErrorKind::Busy,
            sqlx::Error::PoolClosed => StoreErrorKind::Closed,
            sqlx::Error::Database(cause) => {
                cause.code().and_then(|code| code.parse().ok()).map_or(StoreErrorKind::Io, sqlite_kind)
            }
            _ => StoreErrorKind::Io,
        };
        Self::new(kind).source(error)
    }
}

/// Sorts SQLite's extended result codes (sqlite.org/rescode.html); the low byte is the primary code.
fn sqlite_kind(code: i32) -> StoreErrorKind {
    match (code, code & 0xff) {
        // CONSTRAINT_PRIMARYKEY, CONSTRAINT_UNIQUE, CONSTRAINT_ROWID
        (1555 | 2067 | 2579, _) => StoreErrorKind::Duplicate("a unique value"),
        // BUSY, LOCKED
        (_, 5 | 6) => StoreErrorKind::Busy,
        // PERM, READONLY, AUTH
        (_, 3 | 8 | 23) => StoreErrorKind::ReadOnly,
        // CORRUPT, NOTADB, FORMAT
        (_, 11 | 24 | 26) => StoreErrorKind::Corrupt,
        (_, 13) => StoreErrorKind::Full,
        (_, 19) => StoreErrorKind::Constraint,
        _ => StoreErrorKind::Io,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorts_result_codes() {
        for (code, kind) in [
            (2067, StoreErrorKind::Duplicate("a unique value")),
            (1555, StoreErrorKind::Duplicate("a unique value")),
            (787, StoreErrorKind::Constraint),
            (5, StoreErrorKind::Busy),
            (517, StoreErrorKind::Busy),
            (8, StoreErrorKind::ReadOnly),
            (1544, StoreErrorKind::ReadOnly),
            (13, StoreErrorKind::Full),
            (11, StoreErrorKind::Corrupt),
            (267, StoreErrorKind::Corrupt),
            (26, StoreErrorKind::Corrupt),
            (778, StoreErrorKind::Io),
        ] {
            assert_eq!(sqlite_kind(code), kind, "{code}");
        }
    }

    #[test]
    fn says_what_to_do() {
        let newer = StoreError::new(StoreErrorKind::Newer { found: 7, known: 1 });
        assert_eq!(
            newer.to_string(),
            "this database is of schema version 7, this program knows 1: install the newer program or restore the backup"
        );
        assert!(!newer.transient());
        assert!(StoreError::new(StoreErrorKind::Busy).transient());
    }
}
