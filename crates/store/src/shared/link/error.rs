//! Why a call has no answer, and what an operator can do about it.

use redis::{ErrorKind, RedisError};
use thiserror::Error;

use super::address::{Server, parse_server};

/// Why a call was not answered. What the call would have changed may or may not have been changed, unless it is
/// [`Unavailable::Open`], [`Unavailable::ReadOnly`], [`Unavailable::OutOfMemory`], [`Unavailable::Loading`],
/// [`Unavailable::Apart`] or [`Unavailable::Refused`]: then it was not. No text holds a password.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unavailable {
    /// The server hangs or fails too often; the call was not even sent.
    #[error("Redis does not answer; calls are not sent until it does")]
    Open,
    /// No answer within the time-out.
    #[error("Redis did not answer within the time-out")]
    Timeout,
    /// No connection, or it broke before the answer came.
    #[error("no connection to Redis: {0}")]
    Disconnected(String),
    /// The server is a replica, or may not take writes now.
    #[error("Redis takes no writes: it is a replica, or lacks the replicas it must have")]
    ReadOnly,
    /// `maxmemory` is reached and nothing may be evicted.
    #[error("Redis is full (maxmemory)")]
    OutOfMemory,
    /// The server is loading its data, or busy with somebody's long script.
    #[error("Redis is loading its data or busy")]
    Loading,
    /// The call names several keys of a slot that is just being moved: ask for them one by one.
    #[error("the keys of this call are being moved between servers of the cluster")]
    Apart,
    /// The server will not serve us however often we ask: credentials, permissions, version, certificate, kind.
    #[error("{0}")]
    Refused(Refusal),
    /// The script itself failed: a fault of ours.
    #[error("a script failed in Redis: {0}")]
    Script(String),
}

/// What no repetition helps against, and what does.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{what}: {mend}")]
pub struct Refusal {
    what: String,
    mend: &'static str,
}

impl Refusal {
    /// What is wrong, in words that a person understands, and what to change, as an instruction.
    pub(super) fn new(what: impl Into<String>, mend: &'static str) -> Self {
        Self { what: what.into(), mend }
    }
}

impl From<Refusal> for Unavailable {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Unavailable {
    /// What is wrong, and what an operator can do about it when it is so at the start.
    pub fn explain(&self) -> (String, &'static str) {
        match self {
            Self::Refused(Refusal { what, mend }) => (what.clone(), mend),
            Self::OutOfMemory => (self.to_string(), "raise its maxmemory, or give Bartizan a server of its own"),
            Self::ReadOnly => (self.to_string(), "name the primary, or better the sentinels, in state.url"),
            Self::Loading => (self.to_string(), "wait until it has read its file, and see who runs slow scripts there"),
            Self::Script(_) => (self.to_string(), "see that nothing else uses the keys of state.prefix"),
            Self::Apart => (self.to_string(), "wait until the slots have moved"),
            Self::Open | Self::Timeout | Self::Disconnected(_) => {
                (self.to_string(), "see that it runs, and that host and port in state.url are right")
            }
        }
    }
}

/// Whose door is knocked at: each has credentials of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// A server that holds data.
    Data,
    /// A sentinel.
    Sentinel,
}

impl Door {
    const fn give_password(self) -> &'static str {
        match self {
            Self::Data => "write it into a file and name that in state.password_file",
            Self::Sentinel => "write it into a file and name that in state.sentinel_password_file",
        }
    }

    const fn correct_password(self) -> &'static str {
        match self {
            Self::Data => "correct state.user and the file of state.password_file",
            Self::Sentinel => "correct the file of state.sentinel_password_file",
        }
    }
}

/// What one exchange with one server can come to, besides an answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The script is not known there (restart, failover, `SCRIPT FLUSH`).
    NoScript,
    /// The slot belongs to another server.
    Moved(Server),
    /// This key has already moved to another server, its slot not yet.
    Ask(Server),
    /// The cluster cannot say for a moment; nothing was changed.
    Later(&'static str),
    /// Final.
    Gone(Unavailable),
}

impl From<Unavailable> for Failure {
    fn from(why: Unavailable) -> Self {
        Self::Gone(why)
    }
}

impl From<Failure> for Unavailable {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NoScript => Self::Script("NOSCRIPT for a whole script".into()),
            Failure::Moved(server) => Self::Disconnected(format!("the key lives on {server} now")),
            Failure::Ask(server) => Self::Disconnected(format!("the key is moving to {server}")),
            Failure::Later(why) => Self::Disconnected(why.into()),
            Failure::Gone(why) => why,
        }
    }
}

/// Reads the driver's error by its code, never by its sentence. `from` is the server that said it.
pub(super) fn failure(error: &RedisError, from: &Server, door: Door) -> Failure {
    let said = || match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{from}: {code} {detail}"),
        _ => format!("{from}: {error}"),
    };
    Failure::Gone(match error.code() {
        Some("NOSCRIPT") => return Failure::NoScript,
        Some("MOVED") => {
            return redirect(error, from).map_or(Failure::Later("a redirection without a host"), Failure::Moved);
        }
        Some("ASK") => {
            return redirect(error, from).map_or(Failure::Later("a redirection without a host"), Failure::Ask);
        }
        Some("TRYAGAIN") => Unavailable::Apart,
        Some("CLUSTERDOWN") => return Failure::Later("the cluster is down for this key"),
        Some("OOM") => Unavailable::OutOfMemory,
        Some("READONLY" | "MASTERDOWN" | "NOREPLICAS") => Unavailable::ReadOnly,
        Some("LOADING" | "BUSY") => Unavailable::Loading,
        Some("NOAUTH") => Refusal::new(format!("{from} demands a password"), door.give_password()).into(),
        Some("WRONGPASS") => wrong_password(from, door),
        Some("NOPERM") => Refusal::new(said(), "give the user the rights that docs/operate/cluster.md lists").into(),
        Some("NOPROTO") => Refusal::new(said(), UPGRADE).into(),
        Some("MISCONF") => {
            Refusal::new(said(), "see its log: it cannot write its file, and takes no writes then").into()
        }
        Some("DENIED") => Refusal::new(said(), "set a password there, or bind it to the address that is used").into(),
        Some(_) => Unavailable::Script(said()),
        None => match error.kind() {
            ErrorKind::AuthenticationFailed => wrong_password(from, door),
            ErrorKind::InvalidClientConfig | ErrorKind::RESP3NotSupported => Refusal::new(said(), UPGRADE).into(),
            _ => Unavailable::Disconnected(said()),
        },
    })
}

/// What helps against a server that is too old.
pub(super) const UPGRADE: &str = "upgrade it to Redis 7.0 or Valkey 7.2 at least";

fn wrong_password(from: &Server, door: Door) -> Unavailable {
    Refusal::new(format!("{from} refuses the user or password that is configured"), door.correct_password()).into()
}

/// The server named by `MOVED` and `ASK`. An empty host means the one that said it.
fn redirect(error: &RedisError, from: &Server) -> Option<Server> {
    let (place, _) = error.redirect_node()?;
    // An IPv6 address stands there without brackets, so the port is after the last colon.
    let (host, port) = place.rsplit_once(':')?;
    let host = if host.is_empty() { from.host.as_str() } else { host.trim_start_matches('[').trim_end_matches(']') };
    let server = Server { host: host.to_owned(), port: port.parse().ok()? };
    parse_server(&server.to_string(), 0).ok()
}
