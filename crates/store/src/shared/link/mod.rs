//! The link to Redis or Valkey: one server, Sentinel, or a cluster, behind one call.
//!
//! A call, [`Link::eval`], is one script and one round trip, and ends within its time-out (50 ms by default) whatever
//! the servers do:
//!
//! 1. The link holds one *wire* to each primary: a connection to a server that has just proved to be a primary of the
//!    right kind and age. A wire that hangs, breaks off or fails too often ends, and calls fail at once, without
//!    touching the network, until a new one is proved. So an outage costs a request at most one time-out.
//! 2. A call that was sent and not answered is never sent again: it may have been applied. What is repeated, within the
//!    same time-out, is only what the server said it did not do: an unknown script, a redirection, a cluster that is down.
//!
//! What a deployment can break:
//!
//! - A proxy or a DNS name that follows failovers, called `redis://`: the link would be right about each server and wrong
//!   about which one counts. Name the sentinels, all of them: a majority of those named must answer.
//! - `down-after-milliseconds` below 3 s: a node that is cut off with the old primary may use it for a moment after
//!   another was promoted (see the `sentinel` file). `min-replicas-to-write 1` on the servers closes that, too.
//! - Certificates without the addresses that sentinels and clusters give out, usually IP addresses.
//!
//! Several keys in one call on a cluster: while their slot is being moved, such a call is refused at once when one of its
//! keys does not exist (`TRYAGAIN`, [`Unavailable::Apart`]). One key a call is never refused for that.
//!
//! The user needs the commands `EVAL EVALSHA INFO PING TIME CONFIG|GET` (the last for [`Link::survey`] only) and those
//! of the scripts; on a cluster also `CLUSTER|SLOTS ASKING`.

mod address;
mod cluster;
mod connector;
mod error;
mod info;
mod routes;
mod script;
mod sentinel;
mod standing;
mod survey;
mod window;
mod wire;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bartizan_core::secret::Secret;
use redis::{ToRedisArgs, Value};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

pub use address::{Address, AddressError, Kind, Server};
use connector::Connector;
use error::Failure;
pub use error::{Refusal, Unavailable};
use routes::Routes;
pub use script::Script;
pub use survey::ServerInfo;

/// A call that waited in vain for the cluster to settle spares those after it the waiting for so long.
const UNSETTLED: Duration = Duration::from_millis(500);
/// Between two attempts of one call while the cluster settles.
const AGAIN: Duration = Duration::from_millis(10);
/// How often one call follows a redirection: a cluster that needs more is not settled.
const HOPS: usize = 8;

/// How a [`Link`] behaves.
#[derive(Clone, Debug)]
pub struct LinkOptions {
    /// How long one call may take, repetitions included. 50 ms by default.
    pub timeout: Duration,
    /// How long making and proving a connection may take. 1 s by default.
    pub connect: Duration,
    /// The user, instead of one in the address.
    pub user: Option<String>,
    /// The password, instead of one in the address.
    pub password: Option<Secret<String>>,
    /// A PEM file with the only certificates to trust; without it those of the system.
    pub ca: Option<PathBuf>,
    /// The password of the sentinels; they know no users' passwords of the servers.
    pub sentinel_password: Option<Secret<String>>,
    /// Connections to each server. One carries tens of thousands of calls a second; more help only with large answers.
    pub pool: usize,
}

impl Default for LinkOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_millis(50),
            connect: Duration::from_secs(1),
            user: None,
            password: None,
            ca: None,
            sentinel_password: None,
            pool: 1,
        }
    }
}

/// Whether calls can be expected to succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Every key has a proved primary.
    Up,
    /// Some or all keys have none.
    Down {
        /// Since when.
        since: Instant,
        /// What was the matter at the last attempt.
        why: Unavailable,
    },
}

/// What a link has counted since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounts {
    /// Calls of [`Link::eval`].
    pub calls: u64,
    /// Calls that returned an error, those refused by an open breaker included.
    pub failures: u64,
    /// Calls, pings included, that were not answered in time.
    pub timeouts: u64,
    /// Connections made and proved after all there had to be once were.
    pub reconnects: u64,
    /// Scripts sent whole because the server did not know them.
    pub scripts_loaded: u64,
    /// Times that a server was given up because it hung or failed too often.
    pub breaker_opened: u64,
    /// Redirections followed (cluster).
    pub redirections: u64,
}

#[derive(Debug, Default)]
struct Counts {
    calls: AtomicU64,
    failures: AtomicU64,
    timeouts: AtomicU64,
    reconnects: AtomicU64,
    loaded: AtomicU64,
    opened: AtomicU64,
    redirections: AtomicU64,
}

/// What the calls and the task that keeps the link share.
struct Core {
    address: Address,
    options: LinkOptions,
    connector: Result<Connector, Unavailable>,
    routes: ArcSwap<Routes>,
    /// Changes after `routes` did.
    changed: watch::Sender<u64>,
    counts: Counts,
    /// Something happened that the keeping task should look at.
    nudge: Notify,
    /// Servers that a cluster redirected to and that no route leads to yet.
    wanted: Mutex<Vec<Server>>,
    /// When a call last waited in vain for a cluster to settle. Locked only where something is amiss.
    gave_up: Mutex<Option<Instant>>,
    state: watch::Sender<LinkState>,
    /// Whether it was ever up.
    settled: AtomicBool,
}

impl Core {
    fn connector(&self) -> Result<&Connector, Unavailable> {
        self.connector.as_ref().map_err(Clone::clone)
    }

    /// Makes `routes` those of the next call.
    fn publish(&self, routes: Routes) {
        let before = self.routes.load_full();
        let new = routes.new_since(&before);
        if self.settled.load(Ordering::Relaxed) {
            self.counts.reconnects.fetch_add(new, Ordering::Relaxed);
        } else if routes.missing().is_none() {
            self.settled.store(true, Ordering::Relaxed);
        }
        let missing = routes.missing().cloned();
        self.routes.store(Arc::new(routes));
        self.changed.send_modify(|generation| *generation = generation.wrapping_add(1));
        self.state.send_if_modified(|state| {
            let next = match (&*state, missing) {
                (LinkState::Down { since, .. }, Some(why)) => LinkState::Down { since: *since, why },
                (LinkState::Up, Some(why)) => LinkState::Down { since: Instant::now(), why },
                (_, None) => LinkState::Up,
            };
            let differs = next != *state;
            tell(&self.address, state, &next);
            *state = next;
            differs
        });
    }

    fn want(&self, server: &Server) {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if !wanted.contains(server) {
            wanted.push(server.clone());
        }
        drop(wanted);
        self.nudge.notify_one();
    }
}

/// Why a link that was closed is down.
const SHUT_DOWN: &str = "shut down";

/// Logs a change that an operator should know of, not each attempt.
fn tell(address: &Address, before: &LinkState, now: &LinkState) {
    match (before, now) {
        (LinkState::Down { .. }, LinkState::Up) => tracing::info!(%address, "redis is reachable"),
        (LinkState::Down { why: then, .. }, LinkState::Down { why, .. })
            if std::mem::discriminant(then) == std::mem::discriminant(why) =>
        {
            tracing::debug!(%address, %why, "redis is still not reachable");
        }
        // Closed by ourselves, at the end.
        (_, LinkState::Down { why: Unavailable::Disconnected(why), .. }) if why == SHUT_DOWN => {}
        (_, LinkState::Down { why, .. }) => tracing::warn!(%address, %why, "redis is not reachable"),
        (LinkState::Up, LinkState::Up) => {}
    }
}

/// A link that keeps itself connected. Cloning is cheap; the last clone dropped ends it.
#[derive(Clone)]
pub struct Link(Arc<Handle>);

struct Handle {
    core: Arc<Core>,
    keeper: AbortHandle,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.keeper.abort();
        self.core.publish(Routes::none(Unavailable::Disconnected(SHUT_DOWN.into())));
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("address", &self.0.core.address).field("state", &self.state()).finish()
    }
}

impl Link {
    /// Starts to connect, in a task of its own, and returns at once. Must be called within a Tokio runtime.
    pub fn start(address: Address, options: LinkOptions) -> Self {
        let connector = Connector::new(&address, &options);
        let why = Unavailable::Disconnected("not connected yet".into());
        let core = Arc::new(Core {
            connector,
            routes: ArcSwap::from_pointee(Routes::none(why.clone())),
            changed: watch::Sender::new(0),
            counts: Counts::default(),
            nudge: Notify::new(),
            wanted: Mutex::default(),
            gave_up: Mutex::default(),
            state: watch::Sender::new(LinkState::Down { since: Instant::now(), why }),
            settled: AtomicBool::new(false),
            address,
            options,
        });
        let keeper = match core.address.kind() {
            Kind::Single | Kind::Sentinel => tokio::spawn(standing::keep(Arc::clone(&core))),
            Kind::Cluster => tokio::spawn(cluster::keep(Arc::clone(&core))),
        };
        Self(Arc::new(Handle { core, keeper: keeper.abort_handle() }))
    }

    /// Waits for the first connection: the check at start.
    ///
    /// # Errors
    /// What is the matter, after `within`; at once when waiting cannot help ([`Unavailable::Refused`]).
    pub async fn ready(&self, within: Duration) -> Result<(), Unavailable> {
        let mut state = self.0.core.state.subscribe();
        let settled =
            |state: &LinkState| matches!(state, LinkState::Up | LinkState::Down { why: Unavailable::Refused(_), .. });
        let _ = tokio::time::timeout(within, state.wait_for(settled)).await;
        match self.state() {
            LinkState::Up => Ok(()),
            LinkState::Down { why, .. } => Err(why),
        }
    }

    /// Runs `script` once on the server that holds `keys`, all of which are in one slot on a cluster. One round trip;
    /// two when the server does not know the script yet.
    ///
    /// # Errors
    /// [`Unavailable`], within the time-out. The script may have been applied nevertheless: see there.
    pub async fn eval<K: AsRef<[u8]>, A: ToRedisArgs>(
        &self,
        script: &Script,
        keys: &[K],
        args: &[A],
    ) -> Result<Value, Unavailable> {
        let counts = &self.0.core.counts;
        counts.calls.fetch_add(1, Ordering::Relaxed);
        let answer = self.0.core.eval(script, keys, args).await;
        if answer.is_err() {
            counts.failures.fetch_add(1, Ordering::Relaxed);
        }
        answer
    }

    /// Whether keys are spread over several primaries, so that a call may only name keys of one slot.
    pub fn is_cluster(&self) -> bool {
        self.0.core.address.kind() == Kind::Cluster
    }

    /// Whether calls can be expected to succeed. No round trip.
    pub fn state(&self) -> LinkState {
        self.0.core.state.borrow().clone()
    }

    /// What was counted so far.
    pub fn counts(&self) -> LinkCounts {
        let counts = &self.0.core.counts;
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LinkCounts {
            calls: of(&counts.calls),
            failures: of(&counts.failures),
            timeouts: of(&counts.timeouts),
            reconnects: of(&counts.reconnects),
            scripts_loaded: of(&counts.loaded),
            breaker_opened: of(&counts.opened),
            redirections: of(&counts.redirections),
        }
    }

    /// Asks each primary about itself: for the operator, not for requests. A few round trips per server.
    ///
    /// # Errors
    /// When there is no connection, or a server does not answer.
    pub async fn survey(&self) -> Result<Vec<ServerInfo>, Unavailable> {
        survey::survey(&self.0.core).await
    }

    /// Ends all connections; calls fail from now on.
    pub async fn shutdown(&self) {
        self.0.keeper.abort();
        let why = Unavailable::Disconnected(SHUT_DOWN.into());
        for wire in self.0.core.routes.load_full().wires() {
            wire.end(why.clone());
        }
        self.0.core.publish(Routes::none(why));
    }
}

impl Core {
    async fn eval<K: AsRef<[u8]>, A: ToRedisArgs>(
        &self,
        script: &Script,
        keys: &[K],
        args: &[A],
    ) -> Result<Value, Unavailable> {
        let deadline = tokio::time::Instant::now() + self.options.timeout;
        let slot = keys.first().map_or(0, |key| routes::slot(key.as_ref()));
        let mut command = request("EVALSHA", script.digest(), keys, args);
        let mut whole = false;
        let mut hop = Hop::Slot;
        for _ in 0..HOPS {
            let routes = self.routes.load_full();
            let wire = match &hop {
                Hop::Slot => routes.of(slot),
                Hop::Moved(server) | Hop::Ask(server) => routes.to(server),
            };
            let Some(wire) = wire else {
                let (Hop::Moved(server) | Hop::Ask(server)) = &hop else { return Err(routes.why(slot)) };
                self.reach(server, deadline).await?;
                continue;
            };
            match wire.call(&command, matches!(hop, Hop::Ask(_)), deadline).await {
                Ok(value) => return Ok(value),
                Err(Failure::NoScript) if !whole => {
                    self.counts.loaded.fetch_add(1, Ordering::Relaxed);
                    command = request("EVAL", script.text(), keys, args);
                    whole = true;
                }
                Err(Failure::Moved(server)) if self.address.kind() == Kind::Cluster => {
                    self.counts.redirections.fetch_add(1, Ordering::Relaxed);
                    hop = Hop::Moved(server);
                }
                Err(Failure::Ask(server)) if self.address.kind() == Kind::Cluster => {
                    self.counts.redirections.fetch_add(1, Ordering::Relaxed);
                    hop = Hop::Ask(server);
                }
                Err(Failure::Later(why)) => {
                    let again = tokio::time::Instant::now() + AGAIN;
                    if again >= deadline || self.is_unsettled() {
                        return Err(self.unsettled(why.into()));
                    }
                    tokio::time::sleep_until(again).await;
                    hop = Hop::Slot;
                }
                Err(failure) => return Err(failure.into()),
            }
        }
        Err(self.unsettled("the cluster redirects in circles".into()))
    }

    /// Whether a call has waited in vain lately.
    fn is_unsettled(&self) -> bool {
        self.gave_up.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|at| at.elapsed() < UNSETTLED)
    }

    fn unsettled(&self, why: String) -> Unavailable {
        *self.gave_up.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        Unavailable::Disconnected(why)
    }

    /// Waits until a route leads to `server`, at most until `deadline`.
    async fn reach(&self, server: &Server, deadline: tokio::time::Instant) -> Result<(), Unavailable> {
        let mut changed = self.changed.subscribe();
        self.want(server);
        let reached = async {
            while self.routes.load().to(server).is_none() {
                if changed.changed().await.is_err() {
                    return;
                }
            }
        };
        let deadline = if self.is_unsettled() { tokio::time::Instant::now() } else { deadline };
        let late = |_| self.unsettled(format!("redirected to {server}, which is not connected yet"));
        tokio::time::timeout_at(deadline, reached).await.map_err(late)
    }
}

/// Where a call goes next.
enum Hop {
    /// To whom its slot belongs as far as we know.
    Slot,
    /// To whom it belongs, as we were told.
    Moved(Server),
    /// To whom it is moving: for this call only.
    Ask(Server),
}

fn request<K: AsRef<[u8]>, A: ToRedisArgs>(verb: &str, script: &str, keys: &[K], args: &[A]) -> redis::Cmd {
    let mut command = redis::cmd(verb);
    command.arg(script).arg(keys.len());
    for key in keys {
        command.arg(key.as_ref());
    }
    for arg in args {
        command.arg(arg);
    }
    command
}
