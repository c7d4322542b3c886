//! The engine: opens what is needed in the right order, wires it, and closes it again.

use std::future::ready;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use axum::middleware::map_response;
use axum::response::Response;
use bartizan_core::audit::EventKind;
use bartizan_core::browser::{CorsPolicy, Credentials, Origin, SecurityHeaders, Transport};
use bartizan_core::error::Code;
use bartizan_core::limit::{KeyMaker, Quota};
use bartizan_core::net::{BlockList, Proxies};
use bartizan_core::password::Cost;
use bartizan_core::principal::Principal;
use bartizan_core::time::Millis;
use bartizan_core::token::MAX_LIFETIME;
use bartizan_keys::{FileKeyring, KeyProvider, read_secret};
use bartizan_store::shared::link::{Address, Link, LinkOptions};
use bartizan_store::shared::{SharedOptions, SharedState};
use bartizan_store::state::{BanPolicy, EmbeddedState, Restored};
use bartizan_store::{Db, DbOptions, PlatformScope, login_failures, meta};
use tokio::task::JoinHandle;

use crate::accounts::Accounts;
use crate::api::{Defaults, Failure, Faults, Info, Table};
use crate::application::Application;
use crate::clock::Clock;
use crate::embed::Door;
use crate::entropy::random;
use crate::following::Following;
use crate::front::{Front, Reloadable};
use crate::ground::{Ground, Inner};
use crate::guard::{Authenticator, Decider, Grant, Guard};
use crate::hashing::HashingPool;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::operator::Operator;
use crate::ops::Ops;
use crate::refusals::Refusals;
use crate::routes::{self, Published, Services, Set};
use crate::sessions::Sessions;
use crate::settings::{self, Https, Settings};
use crate::signing::Signing;
use crate::tenants::Tenants;
use crate::trail::Trail;
use crate::upkeep;
use crate::users::Users;
use crate::vault::Vault;

/// The version in the OpenAPI document and in metrics.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The file of the counters, in the data directory.
pub(crate) const SNAPSHOT: &str = "limits.snapshot";

/// Why the engine does not start, in a sentence that says how to mend it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(String);

impl StartError {
    pub(crate) fn new(sentence: impl std::fmt::Display) -> Self {
        Self(sentence.to_string())
    }
}

impl From<Faults> for StartError {
    fn from(faults: Faults) -> Self {
        Self::new(faults)
    }
}

impl From<Failure> for StartError {
    fn from(failure: Failure) -> Self {
        Self::new(failure)
    }
}

/// A running engine. Dropped without [`Engine::shutdown`] it loses nothing that was answered, only the last second of
/// counters.
#[derive(Debug)]
pub struct Engine {
    pub(crate) ground: Ground,
    application: Application,
    table: Table,
    pub(crate) door: Door,
    operator: Operator,
    limits: Limits,
    authenticator: Authenticator,
    hashing: HashingPool,
    reloadable: Arc<ArcSwap<Reloadable>>,
    trusted: Arc<ArcSwap<Vec<Origin>>>,
    upkeep: JoinHandle<()>,
    refusals: std::sync::Mutex<Option<JoinHandle<()>>>,
    snapshot: std::path::PathBuf,
}

impl Engine {
    /// Opens secrets, database and state, and loads every revocation in force: when this returns, what was revoked is
    /// refused.
    ///
    /// # Errors
    /// Anything missing, damaged, readable by others, of a newer version, or in use by another server.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        Self::start_at(settings, Clock::system()).await
    }

    /// As [`Engine::start`], with a clock of the caller's: for tests.
    pub async fn start_at(settings: Settings, clock: Clock) -> Result<Self, StartError> {
        check_tokens(&settings.tokens)?;
        let keyring: Arc<dyn KeyProvider> = Arc::new(FileKeyring::open(&settings.secrets).map_err(StartError::new)?);
        let db = open_database(&settings).await?;
        check_time(&db, &clock).await?;
        let first_root = check_root_key(&db, keyring.as_ref()).await?;
        let node = node_name(&settings)?;
        let signing = Signing::load(&db, keyring.as_ref(), &settings.tokens, &node, clock.now()).await?;
        let metrics = Arc::new(Metrics::new(VERSION));
        let state = open_state(&settings, keyring.as_ref(), &first_root)?;
        let snapshot = settings.data.join(SNAPSHOT);
        let hashing = hashing_pool(&settings.password, keyring.as_ref())?;
        let vault = Vault::new(Arc::clone(&keyring));
        let reloadable = Arc::new(ArcSwap::from_pointee(reloadable(&settings)?));
        let trusted = Arc::new(ArcSwap::from_pointee(trusted(&settings)?));
        let transport = transport(settings.https);
        let defaults = Defaults { body: settings.request.body, info: info() };
        let shared = open_shared(&settings, keyring.as_ref(), (&first_root, &node), clock.now()).await?;
        let following = load_effects(&db, &state, &settings, clock.now()).await?;
        let ground = Ground::new(Inner {
            clock,
            db,
            state,
            shared,
            following,
            vault,
            settings: ArcSwap::from_pointee(settings),
            metrics: Arc::clone(&metrics),
            node,
        });
        restore(&ground, &snapshot).await?;

        let limits = Limits::new(ground.clone()).map_err(StartError::new)?;
        let authenticator = Authenticator::new(ground.clone(), signing.clone());
        let (refusals, writer) = Refusals::start(ground.clone());
        let blocked = Arc::new(ArcSwap::from_pointee(BlockList::default()));
        upkeep::load_blocks(&ground, &blocked).await?;

        let sessions = Sessions::new(ground.clone(), signing.clone(), authenticator.clone());
        let accounts = Accounts::new(ground.clone(), hashing.clone(), limits.clone(), sessions.clone());
        let users = Users::new(ground.clone(), accounts.clone());
        let operator = Operator::new(ground.clone(), accounts.clone(), users.clone(), Arc::clone(&blocked));
        let published = Published::new(&signing.jwks()?).map_err(StartError::new)?;
        let services = Services::new(Set {
            accounts,
            sessions,
            users,
            tenants: Tenants::new(ground.clone()),
            trail: Trail::new(ground.clone()),
            published: published.clone(),
        });

        let decider = Decider {
            ground: ground.clone(),
            limits: limits.clone(),
            authenticator: authenticator.clone(),
            blocks: Arc::clone(&blocked),
            metrics: Arc::clone(&metrics),
            trusted: Arc::clone(&trusted),
            transport,
        };
        let guard = Guard::new(ground.clone(), decider, refusals);
        let front = Front::new(
            ground.clock.clone(),
            SecurityHeaders::new(transport),
            Arc::clone(&reloadable),
            Arc::clone(&metrics),
        )?;
        let door = Door { guard, front, metrics, defaults, services };
        let (application, table) = door.own()?;
        let keys = upkeep::Keys { signing, keyring, authenticator: authenticator.clone(), published };
        let upkeep = upkeep::start(ground.clone(), blocked, keys, snapshot.clone());
        ground.record(&Grant::system("start", &ground.node), EventKind::ServerStarted).await?;
        Ok(Self {
            ground,
            application,
            table,
            door,
            operator,
            limits,
            authenticator,
            hashing,
            reloadable,
            trusted,
            upkeep,
            refusals: std::sync::Mutex::new(Some(writer)),
            snapshot,
        })
    }

    /// The public application with its whole stack. The listener must put a [`crate::Peer`] into every request.
    pub fn router(&self) -> axum::Router {
        self.application.router()
    }

    /// The same, for a listener that calls it itself.
    pub fn application(&self) -> Application {
        self.application.clone()
    }

    /// `/healthz`, `/readyz` and `/metrics`: for the operators' listener, never for the public one.
    pub fn ops_router(&self) -> axum::Router {
        let ops = Ops {
            ground: self.ground.clone(),
            authenticator: self.authenticator.clone(),
            hashing: self.hashing.clone(),
        };
        let front = self.door.front.clone();
        ops.router().layer(map_response(move |response: Response| ready(front.marked(response))))
    }

    /// The answer to bytes that are no request ([`Code::Malformed`]) or have too large a head ([`Code::HeadTooLarge`]): for
    /// listeners, whose HTTP implementation would otherwise answer them bare. Counted as a refusal.
    pub fn unread(&self, code: Code) -> http::Response<Vec<u8>> {
        self.door.front.unread(code)
    }

    /// The table of routes.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The operator's hand, for the local admin socket.
    pub fn operator(&self) -> Operator {
        self.operator.clone()
    }

    /// The principal of an access token that is genuine, within its time and not revoked: what the guard asks, for a
    /// door of the application's own. No input or output; about a microsecond for a token seen before.
    ///
    /// # Errors
    /// The code to answer with; `server.storage_unavailable` when what other nodes ended could not be read for longer than
    /// the bound.
    pub fn authenticate(&self, token: &str) -> Result<Principal, Code> {
        if !self.ground.is_fresh() {
            return Err(Code::StorageUnavailable);
        }
        self.authenticator.check(token, self.ground.now()).map_err(|rejected| rejected.code)
    }

    /// Takes over what can change while the server runs: limits, proxies, CORS, deadline, life of tokens, password rules.
    ///
    /// # Errors
    /// Nothing is taken over when one part is not acceptable.
    pub async fn reload(&self, settings: Settings) -> Result<(), StartError> {
        let (next, origins) = (reloadable(&settings)?, trusted(&settings)?);
        self.limits.reload(&settings.limits).map_err(StartError::new)?;
        self.reloadable.store(Arc::new(next));
        self.trusted.store(Arc::new(origins));
        self.ground.settings.store(Arc::new(settings));
        self.ground.record(&Grant::system("reload", &self.ground.node), EventKind::ConfigReloaded).await?;
        Ok(())
    }

    /// Ends in good order, after the listeners have drained: counters and audit rows are on disk when this returns.
    pub async fn shutdown(&self) {
        self.upkeep.abort();
        if let Some(shared) = &self.ground.shared {
            shared.shutdown(self.ground.now(), Instant::now()).await;
        }
        upkeep::keep_counters(&self.ground, &self.snapshot).await;
        if let Err(cause) = upkeep::note_time(&self.ground).await {
            tracing::warn!(%cause, "the time could not be noted");
        }
        if let Err(cause) =
            self.ground.record(&Grant::system("stop", &self.ground.node), EventKind::ServerStopped).await
        {
            tracing::warn!(%cause, "the stop could not be recorded");
        }
        let writer = self.refusals.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(writer) = writer {
            // The routers still hold senders; what is queued is written within this time or counted as lost.
            let _ = tokio::time::timeout(Duration::from_millis(500), writer).await;
        }
        self.ground.db.close().await;
    }
}

/// Creates the secrets that are missing, each in a file of mode 0600. Those that exist stay as they are, so this can stand
/// before every start.
///
/// # Errors
/// A directory that cannot be made, or one that others can read.
pub fn create_secrets(settings: &Settings) -> Result<(), StartError> {
    FileKeyring::create(&settings.secrets).map(drop).map_err(StartError::new)
}

impl Drop for Engine {
    /// The upkeep would hold the database open, and its lock, for ever.
    fn drop(&mut self) {
        self.upkeep.abort();
    }
}

/// The table of the built-in routes, without starting anything.
pub fn table() -> Result<Table, StartError> {
    let defaults = Defaults { body: 1024 * 1024, info: info() };
    Ok(routes::routes().describe(&defaults).map_err(StartError::new)?.0)
}

/// The OpenAPI document of the built-in routes, without starting anything.
pub fn openapi() -> Result<serde_json::Value, StartError> {
    let defaults = Defaults { body: 1024 * 1024, info: info() };
    Ok(routes::routes().describe(&defaults).map_err(StartError::new)?.1)
}

fn info() -> Info {
    Info { title: "Bartizan".into(), version: VERSION.into(), license: "MIT OR Apache-2.0".into() }
}

/// Refuses tokens that no verifier would accept.
fn check_tokens(tokens: &settings::Tokens) -> Result<(), StartError> {
    if tokens.access > MAX_LIFETIME || tokens.access < Duration::from_secs(1) {
        return Err(StartError::new("an access token lives between one second and 15 minutes: change tokens.access"));
    }
    Ok(())
}

/// Refuses a clock that is further back than revocations are kept: the list of them could have holes.
async fn check_time(db: &Db, clock: &Clock) -> Result<(), StartError> {
    let scope = PlatformScope::granted("start-up: the time belongs to everybody");
    let mut reader = db.read_platform(&scope).await.map_err(StartError::new)?;
    let seen = meta::find(&mut reader, upkeep::LAST_SEEN).await.map_err(StartError::new)?;
    let Some(seen) = seen.and_then(|text| text.parse().ok()).map(Millis) else { return Ok(()) };
    let back = seen.since(clock.now());
    if back > upkeep::KEPT {
        return Err(StartError::new(format!(
            "the system clock shows {}, but this database has already seen {seen}: set the clock (NTP) and start again; \
             with a clock so far back, revoked tokens could be accepted. If this clock is right and an earlier one was \
             ahead: bartizan doctor --accept-clock",
            clock.now()
        )));
    }
    if back > Duration::from_secs(5) {
        tracing::warn!(behind = ?back, "the system clock is behind the time this database has seen: mend it (NTP?)");
    }
    Ok(())
}

/// The name under which the database remembers the root key it was sealed under.
pub(crate) const ROOT_KEY: &str = "keys.root";

/// Notices at once when the keyring belongs to another database; tells the root key this database began with.
pub(crate) async fn check_root_key(db: &Db, keyring: &dyn KeyProvider) -> Result<String, StartError> {
    let scope = PlatformScope::granted("start-up: the root key is everybody's");
    let known = {
        let mut reader = db.read_platform(&scope).await.map_err(StartError::new)?;
        meta::find(&mut reader, ROOT_KEY).await.map_err(StartError::new)?
    };
    let known = match known {
        Some(known) => known,
        None => {
            let mut tx = db.change_platform(&scope).await.map_err(StartError::new)?;
            // Another node may have been faster, with another key.
            let own = keyring.kek_id().to_owned();
            match meta::find(&mut tx, ROOT_KEY).await.map_err(StartError::new)? {
                Some(known) => {
                    tx.cancel().await.map_err(StartError::new)?;
                    known
                }
                None => {
                    meta::set(&mut tx, ROOT_KEY, &own).await.map_err(StartError::new)?;
                    tx.commit_quietly(own).await.map_err(StartError::new)?
                }
            }
        }
    };
    match keyring.require(&known) {
        Ok(()) => Ok(known),
        Err(cause) => Err(StartError::new(format!(
            "{cause}: this database was sealed under root key {known}, the keyring holds {}. Put the right root.key back \
             into the secrets directory; a second node needs the same secrets as the first. Without it the sealed data \
             cannot be read",
            keyring.kek_id()
        ))),
    }
}

/// The hot state. Its keys come from the root key the database began with, so that counters outlive a change of it.
fn open_state(settings: &Settings, keyring: &dyn KeyProvider, first_root: &str) -> Result<EmbeddedState, StartError> {
    let limits = &settings.limits;
    let bans = BanPolicy::new(limits.ban_after, limits.ban_for).map_err(StartError::new)?;
    Ok(EmbeddedState::new(limits.max_keys, bans, limit_keys(keyring, first_root)?))
}

/// What names limits and bans on every node.
pub(crate) fn limit_keys(keyring: &dyn KeyProvider, first_root: &str) -> Result<KeyMaker, StartError> {
    let secret = keyring.derive(first_root, "limit-keys").map_err(StartError::new)?;
    Ok(KeyMaker::new(&secret))
}

/// Brings back what must outlive a restart: revocations and failed logins from the database, counters from their file.
async fn restore(ground: &Ground, snapshot: &std::path::Path) -> Result<(), StartError> {
    let now = ground.now();
    match ground.state.load(snapshot, now) {
        Ok(Restored::SetAside { flaw, moved_to }) => {
            tracing::warn!(%flaw, moved_to = %moved_to.display(), "the kept counters cannot be used: limits begin anew");
        }
        Ok(_) => {}
        Err(cause) => return Err(StartError::new(format!("{} cannot be read: {cause}", snapshot.display()))),
    }
    let limits = ground.settings.load().limits.clone();
    let longest = [limits.login_account, limits.login_account_network, limits.login_network, limits.login_tenant]
        .into_iter()
        .filter_map(|rate| Quota::new(rate.count, rate.period, rate.burst).ok())
        .max_by_key(Quota::drains_in);
    let mut reader = ground.read_platform("start-up: failed logins of every tenant").await?;
    for row in login_failures::all(&mut reader, now).await.map_err(StartError::new)? {
        if let (Some((key, tat)), Some(quota)) = (row.counter(), &longest) {
            // Without room it is held in a shared bucket: never freed.
            let _ = ground.state.restore(key, quota, tat, now);
        }
    }
    Ok(())
}

/// Opens the database, with the password from its file.
pub(crate) async fn open_database(settings: &Settings) -> Result<Db, StartError> {
    let server = &settings.database_server;
    let password = server.password_file.as_deref().map(read_secret).transpose().map_err(StartError::new)?;
    let options = DbOptions { pool: server.pool, acquire: server.acquire, password, ..DbOptions::default() };
    Db::open_with(&settings.database, &settings.data, &options).await.map_err(StartError::new)
}

/// How long the start waits for the shared state.
const SHARED_START: Duration = Duration::from_secs(10);

/// Connects to the shared state, when one is configured. It must answer at the start; afterwards it may come and go.
async fn open_shared(
    settings: &Settings,
    keyring: &dyn KeyProvider,
    (first_root, node): (&str, &str),
    now: Millis,
) -> Result<Option<SharedState>, StartError> {
    let state = &settings.state;
    if state.url == settings::State::EMBEDDED {
        if state.revocation == settings::Revocation::Strict {
            return Err(StartError::new("strict revocation needs a shared state: set state.url to a redis:// address"));
        }
        return Ok(None);
    }
    let link = connect(state, state.timeout).await?;
    match link.survey().await {
        Ok(servers) => {
            for server in servers.iter().filter(|server| server.evicts()) {
                tracing::warn!(
                    server = %server.server, policy = %server.maxmemory_policy,
                    "Redis may evict limits, bans and the revocation sequence: CONFIG SET maxmemory-policy noeviction"
                );
            }
        }
        Err(cause) => tracing::warn!(%cause, "the shared state does not tell its settings"),
    }
    let limits = &settings.limits;
    let bans = BanPolicy::new(limits.ban_after, limits.ban_for).map_err(StartError::new)?;
    let options = SharedOptions {
        least_nodes: state.nodes,
        on_store_error: state.when_away,
        leases: state.leases,
        max_keys: limits.max_keys,
        prefix: state.prefix.clone(),
        ..SharedOptions::new(node, bans)
    };
    let shared = SharedState::new(link, limit_keys(keyring, first_root)?, options).map_err(StartError::new)?;
    shared.tend(now, Instant::now()).await;
    Ok(Some(shared))
}

/// Connects to the shared state. It must answer now, so that a wrong address or password is told at once.
pub(crate) async fn connect(state: &settings::State, timeout: Duration) -> Result<Link, StartError> {
    let address = Address::parse(&state.url).map_err(|cause| StartError::new(format!("state.url: {cause}")))?;
    let secret =
        |path: &Option<std::path::PathBuf>| path.as_deref().map(read_secret).transpose().map_err(StartError::new);
    let options = LinkOptions {
        timeout,
        connect: state.connect,
        user: state.user.clone(),
        password: secret(&state.password_file)?,
        ca: state.ca_file.clone(),
        sentinel_password: secret(&state.sentinel_password_file)?,
        pool: state.pool,
    };
    let link = Link::start(address, options);
    link.ready(SHARED_START).await.map_err(|cause| {
        let (found, mend) = cause.explain();
        StartError::new(format!("the shared state (state.url) cannot be used: {found}. To mend it, {mend}"))
    })?;
    Ok(link)
}

/// Puts every effect in force. Where other nodes can end something too, says from where to read on.
async fn load_effects(
    db: &Db,
    state: &EmbeddedState,
    settings: &Settings,
    now: Millis,
) -> Result<Option<Following>, StartError> {
    let began = Instant::now();
    let loaded = db.load_effects(now).await.map_err(StartError::new)?;
    for (effect, until) in &loaded.effects {
        state.apply(*effect, *until);
    }
    let strict = settings.state.revocation == settings::Revocation::Strict;
    // A file is locked by its one process.
    Ok(db.path().is_none().then(|| Following::new(settings.state.revocation_bound, strict, &loaded, began)))
}

fn hashing_pool(password: &settings::Password, keyring: &dyn KeyProvider) -> Result<HashingPool, StartError> {
    let cost = Cost::new(password.memory_kib, password.passes, password.lanes).map_err(StartError::new)?;
    HashingPool::new(cost, keyring.peppers(), password.workers, password.queue).map_err(StartError::new)
}

fn reloadable(settings: &Settings) -> Result<Reloadable, StartError> {
    let credentials = match settings.cors.credentials {
        settings::Credentials::Omit => Credentials::Omit,
        settings::Credentials::Include => Credentials::Include,
    };
    let cors = CorsPolicy::new(&settings.cors.origins, credentials)
        .map_err(|faults| StartError::new(format!("cors: {}", faults.join("; "))))?;
    Ok(Reloadable {
        proxies: Proxies::new(settings.proxies.iter().copied()),
        cors,
        deadline: settings.request.deadline,
    })
}

/// The origins whose pages may change something with a cookie: our own, and listed ones that may send cookies.
fn trusted(settings: &Settings) -> Result<Vec<Origin>, StartError> {
    let mut origins = Vec::new();
    if let Ok(own) = Origin::parse(&settings.tokens.issuer) {
        origins.push(own);
    }
    if settings.cors.credentials == settings::Credentials::Include {
        for origin in &settings.cors.origins {
            origins.push(Origin::parse(origin).map_err(StartError::new)?);
        }
    }
    Ok(origins)
}

fn transport(https: Https) -> Transport {
    match https {
        Https::On => Transport::Https,
        Https::Off => Transport::Plain,
    }
}

/// The node's name, made once and kept beside the database.
fn node_name(settings: &Settings) -> Result<String, StartError> {
    let path = settings.data.join("node");
    match std::fs::read_to_string(&path) {
        Ok(name) if !name.trim().is_empty() && name.len() <= 64 => return Ok(name.trim().to_owned()),
        Ok(_) => {}
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {}
        Err(cause) => return Err(StartError::new(format!("{} cannot be read: {cause}", path.display()))),
    }
    let name = format!("node-{}", hex::encode(random::<6>()?));
    // Who keeps his data in a file of this directory has made it by now; with a database server nobody has.
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&settings.data)
        .and_then(|()| std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path))
        .and_then(|mut file| file.write_all(format!("{name}\n").as_bytes()))
        .map_err(|cause| StartError::new(format!("{} cannot be written: {cause}", path.display())))?;
    Ok(name)
}
