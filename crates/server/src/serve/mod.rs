//! The life of a server: claim, bind, start, serve, reload, drain.

pub mod door;
pub mod patience;
pub mod sniff;
pub mod tls;
pub mod unread;
mod watch;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

use crate::admin::socket::{self, Claim};
use crate::config::{Config, Sources};
use crate::exit::{Exit, Stop};
use crate::log::{self, Level};
use crate::wiring::{self, Engine};
use door::{App, Bounds, Door};
use tls::Tls;
use unread::Unread;
use watch::Watch;

/// Where a running server can be reached.
#[derive(Clone, Debug)]
pub struct Reachable {
    /// Base URL of the API.
    pub api: String,
    /// Base URL of the operators' listener.
    pub ops: String,
}

/// What is bound before the engine starts: a port in use costs nothing then.
struct Bound {
    config: Config,
    claim: Claim,
    public: TcpListener,
    ops: TcpListener,
    tls: Option<Tls>,
    level: Level,
    watch: Option<Watch>,
}

/// Serves until told to stop. `ready` is called once requests are answered.
///
/// # Errors
/// What prevented the start, or ended the serving before it was told to stop.
pub async fn run(
    sources: Sources,
    ready: impl AsyncFnOnce(&Engine, &Reachable) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let bound = bind(&sources).await?;
    let mut signals = Signals::new()?;
    let engine = Arc::new(wiring::start(bound.config.settings()).await?);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let socket = bound.claim.open()?;
    let reachable = reachable(&bound)?;
    let drain = bound.config.keys.server.drain.0;
    let bounds = Bounds::of(&bound.config);
    // The operators' door has no trusted proxies in front and needs few places.
    let few = Bounds { connections: 256, per_address: 256, exempt: Vec::new(), ..bounds.clone() };
    let answering = Arc::clone(&engine);
    let unread = Unread::new(move |code| answering.unread(code));
    let (app, again) = (App::from(engine.application()), unread.clone());
    let public = Door { name: "api", listener: bound.public, tls: bound.tls.clone(), app, unread, bounds };
    let ops = Door {
        name: "ops",
        listener: bound.ops,
        tls: None,
        app: engine.ops_router().into(),
        unread: again,
        bounds: few,
    };
    let mut doors = Doors {
        public: tokio::spawn(public.serve(stopped.clone(), drain)),
        ops: tokio::spawn(ops.serve(stopped.clone(), drain)),
        admin: tokio::spawn(socket.serve(engine.clone(), stopped)),
    };
    tracing::info!(api = reachable.api, ops = reachable.ops, version = env!("CARGO_PKG_VERSION"), "serving");
    let mut reloading =
        Reloading { sources, tls: bound.tls, level: bound.level, watch: bound.watch, engine: engine.clone() };
    let outcome = match ready(&engine, &reachable).await {
        Ok(()) => reloading.until_stopped(bound.config, &mut signals, &mut doors).await,
        Err(error) => Err(error),
    };
    stop.send_replace(true);
    let closed = tokio::select! {
        closed = doors.close(drain) => closed,
        // The store survives being killed, so leaving at once loses nothing that was answered.
        () = signals.stop() => return Err(Stop::new(Exit::Failed, "told twice to stop: requests in flight were cut off")),
    };
    engine.shutdown().await;
    drop(bound.claim);
    tracing::info!("stopped");
    outcome.and(closed)
}

async fn bind(sources: &Sources) -> Result<Bound, Stop> {
    // Each file is watched before it is read.
    let mut watch = Watch::new();
    follow(&mut watch, &sources.file);
    let config = sources.read()?;
    let level = log::start(&config.keys.log);
    raise_descriptors(config.keys.server.max_connections.0);
    let claim = socket::claim(&config.data())?;
    let files = config.tls();
    for file in files.iter().flat_map(|(cert, key)| [cert, key]) {
        follow(&mut watch, file);
    }
    let watch = watch.inspect_err(|error| {
        tracing::warn!(%error, "changed files will not be noticed: send SIGHUP after a change");
    });
    let tls = files.map(|(cert, key)| Tls::load(cert, key)).transpose();
    let tls = tls.map_err(|error| {
        Stop::new(Exit::Configuration, format!("error: TLS cannot be used: {error}")).hint("See `[server.tls]`.")
    })?;
    let server = &config.keys.server;
    if tls.is_none() && !server.listen.ip().is_loopback() && !config.issuer().starts_with("https://") {
        tracing::warn!(
            listen = %server.listen,
            "passwords and tokens would travel unencrypted: configure [server.tls], or put a proxy with TLS in front \
             and set server.public_url to its https address"
        );
    }
    let public = door::bind(server.listen, "server.listen", "--listen").await?;
    let ops = door::bind(config.keys.ops.listen, "ops.listen", "--ops-listen").await?;
    Ok(Bound { config, claim, public, ops, tls, level, watch: watch.ok() })
}

/// Raises the soft limit of open files to the hard one, and says so when even that may not be enough.
///
/// The soft limit is low for the sake of programs that use `select(2)`, which this one does not.
fn raise_descriptors(connections: u64) {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
    let needed = connections.saturating_add(256);
    if let Some(limit) = getrlimit(Resource::Nofile).current.filter(|limit| *limit < needed) {
        tracing::warn!(
            limit,
            needed,
            "too few files may be open for server.max_connections: raise the limit (LimitNOFILE= in systemd, ulimit -Hn)"
        );
    }
}

/// Watches one more file, unless watching has failed already.
fn follow(watch: &mut notify::Result<Watch>, file: &std::path::Path) {
    if let Ok(ready) = watch
        && let Err(error) = ready.add(file)
    {
        *watch = Err(error);
    }
}

fn reachable(bound: &Bound) -> Result<Reachable, Stop> {
    let local = |listener: &TcpListener| {
        let address = listener.local_addr().map_err(|error| Stop::new(Exit::Failed, error.to_string()))?;
        // "Everywhere" is not an address one can connect to.
        let host = match address {
            SocketAddr::V4(v4) if v4.ip().is_unspecified() => "127.0.0.1".into(),
            SocketAddr::V6(v6) if v6.ip().is_unspecified() => "[::1]".into(),
            SocketAddr::V4(v4) => v4.ip().to_string(),
            SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
        };
        Ok::<_, Stop>(format!("{host}:{}", address.port()))
    };
    let scheme = if bound.tls.is_some() { "https" } else { "http" };
    Ok(Reachable {
        api: format!("{scheme}://{}", local(&bound.public)?),
        ops: format!("http://{}", local(&bound.ops)?),
    })
}

/// The signals a server understands.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> Result<Self, Stop> {
        let listen =
            |kind| signal(kind).map_err(|error| Stop::new(Exit::Failed, format!("cannot hear signals: {error}")));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn stop(&mut self) {
        stop_asked(&mut self.terminate, &mut self.interrupt).await;
    }
}

async fn stop_asked(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// The tasks behind the listening sockets.
struct Doors {
    public: JoinHandle<usize>,
    ops: JoinHandle<usize>,
    admin: JoinHandle<()>,
}

impl Doors {
    /// Returns when a door ends although nobody told it to: only a panic in it does that.
    async fn broken(&mut self) -> Stop {
        let name = tokio::select! {
            _ = &mut self.public => "public",
            _ = &mut self.ops => "operators'",
            _ = &mut self.admin => "administration",
        };
        Stop::new(Exit::Failed, format!("the {name} listener ended unexpectedly; the log says why"))
    }

    async fn close(&mut self, drain: Duration) -> Result<(), Stop> {
        // A door that was awaited in `broken` must not be polled again; its handle then says it is finished.
        let mut cut = 0usize;
        for door in [&mut self.public, &mut self.ops] {
            if !door.is_finished() {
                cut = cut.saturating_add(door.await.unwrap_or_default());
            }
        }
        if cut > 0 {
            tracing::warn!(
                connections = cut,
                seconds = drain.as_secs(),
                "requests took longer than server.drain and were cut off"
            );
        }
        Ok(())
    }
}

/// What can change while serving.
struct Reloading {
    sources: Sources,
    tls: Option<Tls>,
    level: Level,
    watch: Option<Watch>,
    engine: Arc<Engine>,
}

impl Reloading {
    /// Reloads what changes until a signal says stop, or a door breaks.
    async fn until_stopped(
        &mut self,
        mut config: Config,
        signals: &mut Signals,
        doors: &mut Doors,
    ) -> Result<(), Stop> {
        loop {
            let changed = async {
                match &mut self.watch {
                    Some(watch) => watch.changed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop_asked(&mut signals.terminate, &mut signals.interrupt) => {
                    tracing::info!("told to stop: accepting nobody new, letting requests in flight finish");
                    return Ok(());
                }
                broken = doors.broken() => return Err(broken),
                _ = signals.hangup.recv() => self.reload(&mut config).await,
                () = changed => self.reload(&mut config).await,
            }
        }
    }

    /// Takes over what is new; anything wrong leaves everything as it was, and is logged.
    async fn reload(&self, config: &mut Config) {
        if let Some(tls) = &self.tls {
            match tls.reload() {
                Ok(()) => tracing::info!("certificate and key were read again"),
                Err(error) => tracing::error!(%error, "the old certificate stays in force"),
            }
        }
        let new = match self.sources.read() {
            Ok(new) => new,
            Err(faults) => {
                for fault in faults.list() {
                    tracing::error!(
                        place = faults.place(fault),
                        "the old configuration stays in force: {}",
                        fault.message
                    );
                }
                return;
            }
        };
        let waiting = new.needs_restart(config);
        if !waiting.is_empty() {
            tracing::warn!(keys = waiting.join(", "), "these keys were changed, but act only after a restart");
        }
        // The values that wait for a restart stay what they are, for the engine as for the next comparison.
        let next = config.with_live_of(&new);
        match self.engine.reload(next.settings()).await {
            Ok(()) => {
                self.level.set(next.keys.log.level);
                tracing::info!("configuration reloaded");
                *config = next;
            }
            Err(error) => tracing::error!(%error, "the old configuration stays in force"),
        }
    }
}

#[cfg(test)]
mod tests;
