//! The shared state: Redis or Valkey, alone, watched by sentinels, or a cluster.

use std::time::Duration;

use bartizan::settings::{Settings, State};
use bartizan_keys::read_secret;
use bartizan_store::shared::link::{Address, Link, LinkOptions, ServerInfo};

use super::{Line, database, fail, fine, warn};

/// How long the first connection may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The findings.
pub(super) async fn examine(settings: &Settings) -> Vec<Line> {
    let state = &settings.state;
    if state.url == State::EMBEDDED {
        return vec![if settings.database.starts_with("sqlite:") {
            fine("state", "in this process, which is the only one")
        } else {
            warn(
                "state",
                "in this process: limits are per process, so each node admits the whole of every limit",
                "with more than one node set state.url to redis://, redis+sentinel:// or redis+cluster://",
            )
        }];
    }
    match ask(state).await {
        Ok(servers) => servers.iter().flat_map(|server| judge(server, state)).collect(),
        Err((found, mend)) => vec![fail("state", found, mend)],
    }
}

/// Each server as it describes itself, or what is wrong and how to mend it.
async fn ask(state: &State) -> Result<Vec<ServerInfo>, (String, &'static str)> {
    let address =
        Address::parse(&state.url).map_err(|cause| (cause.to_string(), "write state.url as docs/config.md shows"))?;
    let unreadable = "write the password into that file, mode 0600, or name another";
    let secret = |path: &Option<std::path::PathBuf>| {
        path.as_deref().map(read_secret).transpose().map_err(|fault| (fault.to_string(), unreadable))
    };
    let options = LinkOptions {
        // To look at is not to serve: a slow answer is a finding, not a failure.
        timeout: state.timeout.max(Duration::from_secs(1)),
        connect: state.connect,
        user: state.user.clone(),
        password: secret(&state.password_file)?,
        ca: state.ca_file.clone(),
        sentinel_password: secret(&state.sentinel_password_file)?,
        pool: 1,
    };
    let link = Link::start(address, options);
    let servers = match link.ready(PATIENCE).await {
        Ok(()) => link.survey().await,
        Err(cause) => Err(cause),
    };
    link.shutdown().await;
    servers.map_err(|cause| cause.explain())
}

fn judge(info: &ServerInfo, state: &State) -> Vec<Line> {
    let at = &info.server;
    let found = format!("{}, {}, at {at}, {} µs away", info.version, info.role, info.round_trip.as_micros());
    vec![
        match info {
            info if info.role != "master" => {
                fail("state", found, "name the primary, or better the sentinels, in state.url")
            }
            info if info.round_trip > state.timeout / 2 => warn(
                "state",
                found,
                "move nodes and Redis closer, or raise state.timeout: slow answers count as outages",
            ),
            _ => fine("state", found),
        },
        memory(info),
        persistence(info),
        replicas(info, state),
        database::clock("state clock", info.clock_difference_ms),
        match info.tls {
            true => fine("state tls", format!("{at}: encrypted")),
            false if is_here(&at.to_string()) => fine("state tls", "none, and none needed: it is on this machine"),
            false => {
                let mend = "give the server a certificate (tls-port) and write rediss in state.url";
                warn("state tls", format!("{at}: none, whoever is in between can lift limits"), mend)
            }
        },
    ]
}

fn is_here(server: &str) -> bool {
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host).trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn memory(info: &ServerInfo) -> Line {
    let found = match info.maxmemory {
        0 => format!("{}: no maxmemory, {}", info.server, info.maxmemory_policy),
        most => format!("{}: {} of {} MiB, {}", info.server, info.used_memory >> 20, most >> 20, info.maxmemory_policy),
    };
    let keep = "CONFIG SET maxmemory-policy noeviction, and the same in redis.conf: what is evicted is a limit lifted";
    match info.maxmemory {
        most if info.evicts() && most > 0 => fail("state memory", found, keep),
        _ if info.evicts() => warn("state memory", found, keep),
        most if most > 0 && info.used_memory > most / 10 * 9 => {
            warn("state memory", found, "raise maxmemory: when it is used up, each node decides by itself")
        }
        _ => fine("state memory", found),
    }
}

fn persistence(info: &ServerInfo) -> Line {
    let at = &info.server;
    match (info.persistence_failed, info.append_only, info.snapshots) {
        (true, ..) => warn(
            "persistence",
            format!("{at}: the last write to disk failed"),
            "see its log, usually a full disk; by default it then takes no writes",
        ),
        (_, true, _) => fine("persistence", format!("{at}: each write goes to a file")),
        (_, false, Some(false)) => warn(
            "persistence",
            format!("{at}: none, after a restart every limit begins anew"),
            "CONFIG SET appendonly yes, and the same in redis.conf; revocations are safe either way",
        ),
        (_, false, Some(true)) => fine("persistence", format!("{at}: snapshots")),
        (_, false, None) => fine("persistence", format!("{at}: no file of writes; snapshots may not be asked about")),
    }
}

fn replicas(info: &ServerInfo, state: &State) -> Line {
    let found = format!("{}: {}", info.server, info.replicas);
    let watched = ["+sentinel:", "+cluster:"].iter().any(|kind| state.url.contains(kind));
    if watched && info.replicas == 0 {
        return warn("replicas", found, "start a replica of it: without one nobody can take its place");
    }
    fine("replicas", found)
}
