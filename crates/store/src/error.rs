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
    /// The database is busy; trying again soon makes sense. Nothing was changed.
    Busy,
    /// The database server does not answer, or went away before the change was kept; trying again soon makes sense.
    Unreachable,
    /// The server went away, or was silent for too long, while the change was being kept: it may have been kept or not.
    /// Never to be tried again blindly: look first, or carry an idempotency key.
    Unknown,
    /// The database server refuses this program: password, name of the database, permission, encryption.
    Access,
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
    /// The database server is older than what Bartizan needs.
    Outdated {
        /// The server's major version.
        found: u32,
        /// The oldest that is supported.
        needed: u32,
    },
    /// Another running server holds this database.
    Locked,
    /// The database holds something else than what it was to be used for.
    Occupied,
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
    /// Replaces the kind's own sentence where the cause is known more exactly.
    sentence: Option<&'static str>,
    detail: Option<String>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl StoreError {
    pub(crate) fn new(kind: StoreErrorKind) -> Self {
        Self { kind, sentence: None, detail: None, source: None }
    }

    pub(crate) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub(crate) fn sentence(mut self, sentence: &'static str) -> Self {
        self.sentence = Some(sentence);
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

    /// Whether trying the same again soon may succeed without anybody doing anything, and cannot do it twice:
    /// [`StoreErrorKind::Unknown`] is not among them.
    pub fn transient(&self) -> bool {
        matches!(self.kind, StoreErrorKind::Busy | StoreErrorKind::Unreachable)
    }

    /// The same failure, met while a change was being kept. What the database said no to was not kept; where its
    /// answer was lost nobody knows.
    pub(crate) fn while_keeping(mut self) -> Self {
        if matches!(self.kind, StoreErrorKind::Unreachable | StoreErrorKind::Io) {
            self.kind = StoreErrorKind::Unknown;
            self.sentence = None;
        }
        self
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
        match (self.sentence, self.kind) {
            (Some(sentence), _) => f.write_str(sentence),
            (None, kind) => fmt::Display::fmt(&kind, f),
        }?;
        match &self.detail {
            Some(detail) => write!(f, " ({detail})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for StoreErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreErrorKind::Duplicate(what) => write!(f, "{what} is already taken"),
            StoreErrorKind::Constraint => f.write_str("the change breaks a rule of the schema"),
            StoreErrorKind::Busy => f.write_str("the database is busy: try again soon"),
            StoreErrorKind::Unreachable => f.write_str(
                "the database server does not answer: see that it runs and can be reached from here; nothing was changed",
            ),
            StoreErrorKind::Unknown => f.write_str(
                "the database server went away in the middle: the change may or may not have been kept; look before \
                 trying again",
            ),
            StoreErrorKind::Access => f.write_str("the database server refuses this program"),
            StoreErrorKind::Outdated { found, needed } => write!(
                f,
                "this is PostgreSQL {found}, Bartizan needs {needed} or newer: upgrade the database server"
            ),
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
            StoreErrorKind::Occupied => f.write_str("the database holds something else: name an empty one"),
            StoreErrorKind::Url => {
                f.write_str(
                "the database address cannot be used: write `sqlite:` and the path of a file, or \
                 `postgres://user@host/database`",
            )
            }
            StoreErrorKind::Closed => f.write_str("the database was closed"),
            StoreErrorKind::Misuse => f.write_str("a rule of the store was broken by the program itself"),
            StoreErrorKind::Io => f.write_str("the database could not be read or written"),
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

impl StoreError {
    /// Sorts a failure of PostgreSQL or of the line to it. Its own text is the error's source, never part of the
    /// sentence.
    pub(crate) fn postgres(error: sqlx::Error) -> Self {
        let (kind, sentence) = match &error {
            sqlx::Error::Database(cause) => cause.code().map_or((StoreErrorKind::Io, None), |code| sqlstate(&code)),
            sqlx::Error::Tls(_) => (StoreErrorKind::Access, Some(TLS)),
            // What TLS says of a certificate comes as a failure of the line.
            sqlx::Error::Io(cause) if cause.kind() == io::ErrorKind::InvalidData => (StoreErrorKind::Access, Some(TLS)),
            sqlx::Error::Configuration(_) => (StoreErrorKind::Url, None),
            // A line that broke, or on which something arrived that makes no sense: it is given up.
            sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => {
                (StoreErrorKind::Unreachable, None)
            }
            _ => (StoreErrorKind::Io, None),
        };
        let error = Self { sentence, ..Self::new(kind).source(error) };
        match kind {
            // These are met by an operator who mends: the server's own words help, and hold no secret.
            StoreErrorKind::Access | StoreErrorKind::Url => {
                let said = error.source.as_ref().map(ToString::to_string);
                Self { detail: said, ..error }
            }
            _ => error,
        }
    }
}

const TLS: &str = "no encrypted connection to the database server: switch TLS on there, name the authority of its \
                   certificate with `?sslrootcert=FILE`, and use the host name that the certificate bears; \
                   `?sslmode=disable` gives up encryption and is for a network that nobody else can reach";

/// Sorts PostgreSQL's conditions (postgresql.org/docs/current/errcodes-appendix.html), with a sentence where the
/// operator can do more than the kind says.
fn sqlstate(code: &str) -> (StoreErrorKind, Option<&'static str>) {
    use StoreErrorKind as Kind;
    let class = code.get(..2).unwrap_or_default();
    match (code, class) {
        ("23505", _) => (Kind::Duplicate("a unique value"), None),
        // Rules of the schema; values that a column cannot hold.
        (_, "23" | "22") => (Kind::Constraint, None),
        // read_only_sql_transaction: a reader that tried to write, or a server that only repeats another.
        ("25006", _) => (Kind::ReadOnly, Some(STANDBY)),
        // Serialization failure and deadlock, lock not available, a statement or a transaction that took too long.
        ("25P03" | "25P04" | "55P03" | "57014", _) | (_, "40") => (Kind::Busy, None),
        ("53300", _) => (Kind::Busy, Some(CONNECTIONS)),
        ("53100", _) => (Kind::Full, None),
        (_, "53") => (Kind::Busy, None),
        // Connection exceptions; shutting down, crashed, starting up, idle for too long.
        ("57P01" | "57P02" | "57P03" | "57P05", _) | (_, "08") => (Kind::Unreachable, None),
        ("28P01", _) => (
            Kind::Access,
            Some(
                "the database server refuses the password: write the right one into the file of `database.password_file`",
            ),
        ),
        (_, "28") => (
            Kind::Access,
            Some("the database server refuses the login: see its pg_hba.conf, the name of the user, and TLS"),
        ),
        ("3D000", _) => (
            Kind::Access,
            Some(
                "there is no such database: create it (`CREATE DATABASE … OWNER …`), or correct its name in the address",
            ),
        ),
        ("42501", _) => (
            Kind::Access,
            Some(
                "the database user may not do this: make him the owner of the database and of all that Bartizan created \
                 there",
            ),
        ),
        // data_corrupted, index_corrupted
        ("XX001" | "XX002", _) => (Kind::Corrupt, None),
        _ => (Kind::Io, None),
    }
}

pub(crate) const STANDBY: &str =
    "the database cannot be written: this is a read-only standby; give the address of the primary";

const CONNECTIONS: &str = "the database server has no connection left: try again soon; if it lasts, raise its \
                           max_connections or lower Bartizan's pool";

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
    fn sorts_conditions() {
        for (code, kind) in [
            ("23505", StoreErrorKind::Duplicate("a unique value")),
            ("23503", StoreErrorKind::Constraint),
            ("23514", StoreErrorKind::Constraint),
            ("22021", StoreErrorKind::Constraint),
            ("25006", StoreErrorKind::ReadOnly),
            ("40001", StoreErrorKind::Busy),
            ("40P01", StoreErrorKind::Busy),
            ("55P03", StoreErrorKind::Busy),
            ("57014", StoreErrorKind::Busy),
            ("25P03", StoreErrorKind::Busy),
            ("53300", StoreErrorKind::Busy),
            ("53200", StoreErrorKind::Busy),
            ("53100", StoreErrorKind::Full),
            ("57P01", StoreErrorKind::Unreachable),
            ("57P03", StoreErrorKind::Unreachable),
            ("08006", StoreErrorKind::Unreachable),
            ("28P01", StoreErrorKind::Access),
            ("28000", StoreErrorKind::Access),
            ("3D000", StoreErrorKind::Access),
            ("42501", StoreErrorKind::Access),
            ("XX001", StoreErrorKind::Corrupt),
            ("42P01", StoreErrorKind::Io),
            ("", StoreErrorKind::Io),
        ] {
            assert_eq!(sqlstate(code).0, kind, "{code}");
        }
    }

    #[test]
    fn lost_answer_to_a_commit_is_neither_kept_nor_to_be_tried_again() {
        let lost = StoreError::new(StoreErrorKind::Unreachable).while_keeping();
        assert_eq!((lost.kind(), lost.transient()), (StoreErrorKind::Unknown, false));
        let refused = StoreError::new(StoreErrorKind::Constraint).while_keeping();
        assert_eq!(refused.kind(), StoreErrorKind::Constraint);
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
        assert!(StoreError::new(StoreErrorKind::Unreachable).transient());
    }
}
