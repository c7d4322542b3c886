//! What an operator should know about the servers.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use redis::Value;

use super::Core;
use super::address::Server;
use super::error::Unavailable;
use super::info::Info;
use super::wire::Wire;

/// One primary as it describes itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerInfo {
    /// Where it is.
    pub server: Server,
    /// Name and version, such as `Redis 7.2.4` or `Valkey 8.1.0`.
    pub version: String,
    /// `master` or `slave`, as the server calls it.
    pub role: String,
    /// Bytes it may use; 0 means no limit but the machine's.
    pub maxmemory: u64,
    /// What it does when they are used up. Anything but `noeviction` forgets limits that are in force: see
    /// [`ServerInfo::evicts`].
    pub maxmemory_policy: String,
    /// Bytes it uses.
    pub used_memory: u64,
    /// Whether each write goes to an append-only file.
    pub append_only: bool,
    /// Whether it takes snapshots; `None` when the user may not ask (`CONFIG GET save`).
    pub snapshots: Option<bool>,
    /// Whether the last snapshot or rewrite of the file failed.
    pub persistence_failed: bool,
    /// Replicas connected to it.
    pub replicas: u64,
    /// Its clock minus ours in milliseconds, give or take half the round trip.
    pub clock_difference_ms: i64,
    /// The time a small command takes there and back.
    pub round_trip: Duration,
    /// Whether the connection is encrypted.
    pub tls: bool,
}

impl ServerInfo {
    /// Whether the server may drop keys that are still needed, so that a limited client becomes unlimited.
    pub fn evicts(&self) -> bool {
        self.maxmemory_policy != "noeviction"
    }
}

/// Asks all primaries at once.
pub(super) async fn survey(core: &Arc<Core>) -> Result<Vec<ServerInfo>, Unavailable> {
    let routes = core.routes.load_full();
    if routes.wires().is_empty() {
        return Err(routes.why(0));
    }
    let tls = core.connector()?.is_tls();
    let mut all = futures_util::future::try_join_all(routes.wires().iter().map(|wire| describe(wire, tls))).await?;
    all.sort_by(|a, b| a.server.cmp(&b.server));
    Ok(all)
}

async fn describe(wire: &Wire, tls: bool) -> Result<ServerInfo, Unavailable> {
    let info = Info::parse(&wire.inquire(&redis::cmd("INFO")).await?);
    let asked = Instant::now();
    let time = wire.inquire(&redis::cmd("TIME")).await?;
    let round_trip = asked.elapsed();
    let ours = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(round_trip / 2);
    let (seconds, micros): (i64, i64) = redis::from_redis_value(time)
        .map_err(|_| Unavailable::Disconnected(format!("{}: not a time", wire.server())))?;
    let theirs = seconds.saturating_mul(1_000).saturating_add(micros / 1_000);
    let mut save = redis::cmd("CONFIG");
    save.arg("GET").arg("save");
    let snapshots = wire.inquire(&save).await.ok().and_then(|answer| match answer {
        Value::Array(pair) => match pair.get(1) {
            Some(Value::BulkString(rule)) => Some(!rule.is_empty()),
            _ => None,
        },
        _ => None,
    });
    let failed = |field: &str| info.text(field) == "err";
    Ok(ServerInfo {
        server: wire.server().clone(),
        version: info.version(),
        role: info.text("role").to_owned(),
        maxmemory: info.number("maxmemory"),
        maxmemory_policy: info.text("maxmemory_policy").to_owned(),
        used_memory: info.number("used_memory"),
        append_only: info.number("aof_enabled") == 1,
        snapshots,
        persistence_failed: failed("rdb_last_bgsave_status") || failed("aof_last_write_status"),
        replicas: info.number("connected_slaves"),
        clock_difference_ms: theirs.saturating_sub(i64::try_from(ours.as_millis()).unwrap_or(i64::MAX)),
        round_trip,
        tls,
    })
}
