//! What the engine needs to know, already parsed and checked. Where it comes from (file, environment, flags) is the
//! server's business; a test or an embedding application fills these structs directly.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bartizan_core::principal::Tier;
use bartizan_keys::SecretSource;

/// Everything the engine can be told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Directory of the database and of what the node writes.
    pub data: PathBuf,
    /// Where the secrets are (a directory 0700, files 0600, or files given one by one).
    pub secrets: SecretSource,
    /// `sqlite:…`, a relative path taken from `data`; or `postgres://user@host/database`.
    pub database: String,
    /// How a database server is reached; SQLite needs none of it.
    pub database_server: DatabaseServer,
    /// Where limits are counted and how revocations reach this node.
    pub state: State,
    /// Request limits.
    pub limits: Limits,
    /// Access and refresh tokens.
    pub tokens: Tokens,
    /// Passwords.
    pub password: Password,
    /// Proxies whose forwarding headers are believed.
    pub proxies: Vec<ipnet::IpNet>,
    /// Cross-origin access.
    pub cors: Cors,
    /// Bounds of a request.
    pub request: Request,
    /// Whether the public listener speaks TLS: decides HSTS.
    pub https: Https,
}

/// How a database server is reached.
#[derive(Clone, Debug)]
pub struct DatabaseServer {
    /// Connections of this node, at least 2.
    pub pool: u32,
    /// How long a request waits for a connection.
    pub acquire: Duration,
    /// The file that holds the password.
    pub password_file: Option<PathBuf>,
}

/// Where limits are counted and how revocations reach this node.
#[derive(Clone, Debug)]
pub struct State {
    /// `embedded`, or the address of Redis or Valkey: `redis://…`, `redis+sentinel://…`, `redis+cluster://…`, each also
    /// with `rediss`.
    pub url: String,
    /// The user there.
    pub user: Option<String>,
    /// The file that holds his password.
    pub password_file: Option<PathBuf>,
    /// The file that holds the sentinels' password.
    pub sentinel_password_file: Option<PathBuf>,
    /// The authority of the servers' certificates, in PEM.
    pub ca_file: Option<PathBuf>,
    /// How long one question may take.
    pub timeout: Duration,
    /// How long a connection may take.
    pub connect: Duration,
    /// Connections to each server.
    pub pool: usize,
    /// Before every key.
    pub prefix: String,
    /// How many nodes to reckon with at least.
    pub nodes: u32,
    /// Who decides while it is away.
    pub when_away: Policy,
    /// Whether hot keys are paid for in advance.
    pub leases: bool,
    /// When a revocation acts on the other nodes.
    pub revocation: Revocation,
    /// How old a node's copy of the revocations may be.
    pub revocation_bound: Duration,
}

pub use bartizan_store::shared::Policy;

/// Whether `address` is that of a Redis or Valkey, of Sentinels, or of a cluster, and carries no password.
pub fn is_shared_state(address: &str) -> bool {
    bartizan_store::shared::link::Address::parse(address).is_ok_and(|address| !address.carries_password())
}

/// When a revocation acts on the other nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Revocation {
    /// Within the bound; no request asks anybody.
    #[default]
    Replicated,
    /// On the next request; each one with a credential asks the shared state.
    Strict,
}

impl Default for DatabaseServer {
    fn default() -> Self {
        Self { pool: 16, acquire: Duration::from_secs(5), password_file: None }
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            url: State::EMBEDDED.into(),
            user: None,
            password_file: None,
            sentinel_password_file: None,
            ca_file: None,
            timeout: Duration::from_millis(50),
            connect: Duration::from_secs(1),
            pool: 1,
            prefix: "bz:".into(),
            nodes: 1,
            when_away: Policy::Local,
            leases: true,
            revocation: Revocation::Replicated,
            revocation_bound: Duration::from_secs(1),
        }
    }
}

impl State {
    /// The address that stands for this process.
    pub const EMBEDDED: &'static str = "embedded";
}

/// Whether browsers reach this server over TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Https {
    /// TLS ends here or at a proxy in front: HSTS is sent.
    On,
    /// Plain HTTP, as on a developer's machine: HSTS would be wrong.
    Off,
}

/// A rate: so many in a period, with a burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Requests a period in the long run; at least 1.
    pub count: u32,
    /// The period.
    pub period: Duration,
    /// How many may come at once; at least 1.
    pub burst: u32,
}

impl Rate {
    /// `count` a minute.
    pub const fn per_minute(count: u32, burst: u32) -> Self {
        Self { count, period: Duration::from_secs(60), burst }
    }
}

/// Request limits. Every figure is a default that [docs/defaults.md] explains.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Per user, by tier of the tenant.
    pub tiers: BTreeMap<Tier, TierLimits>,
    /// Per client address (v4 /32, v6 /64), before authentication.
    pub address: Rate,
    /// Per wider v6 network (/48), in parallel to `address`.
    pub network: Rate,
    /// How many denials in a row lead to a temporary ban; the ban doubles each time.
    pub ban_after: u32,
    /// The first ban's length.
    pub ban_for: Duration,
    /// Most keys held in memory; beyond, new keys are refused rather than a limited one freed.
    pub max_keys: usize,
    /// Failed logins per (account, network).
    pub login_account_network: Rate,
    /// Failed logins per account, from anywhere.
    pub login_account: Rate,
    /// Failed logins per network.
    pub login_network: Rate,
    /// Failed logins per tenant.
    pub login_tenant: Rate,
}

/// The limits of one tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TierLimits {
    /// For each user.
    pub user: Rate,
    /// For the tenant as a whole.
    pub tenant: Rate,
}

/// Access and refresh tokens.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// `iss`: the base URL of this installation.
    pub issuer: String,
    /// `aud`: who the access tokens are for.
    pub audience: String,
    /// Life of an access token, at most 15 minutes.
    pub access: Duration,
    /// A refresh token not used for so long ends.
    pub refresh_idle: Duration,
    /// A session ends after so long, used or not.
    pub refresh_absolute: Duration,
    /// Within this time a repeated refresh by the same client gets the same successor.
    pub refresh_retry: Duration,
    /// Most verified tokens remembered.
    pub cache: usize,
}

/// Passwords and their hashing.
#[derive(Clone, Debug)]
pub struct Password {
    /// Fewest characters; 15 by default, never below 8.
    pub min_length: usize,
    /// Argon2id memory in KiB.
    pub memory_kib: u32,
    /// Argon2id passes.
    pub passes: u32,
    /// Argon2id lanes.
    pub lanes: u32,
    /// How many hashes are computed at once.
    pub workers: usize,
    /// How many may wait; beyond, 503 with Retry-After.
    pub queue: usize,
}

/// Cross-origin access: an allow-list, empty by default.
#[derive(Clone, Debug, Default)]
pub struct Cors {
    /// Exact origins, such as `https://app.example.com`.
    pub origins: Vec<String>,
    /// Whether cookies may come along.
    pub credentials: Credentials,
}

/// Whether a cross-origin request may carry cookies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Credentials {
    /// No `Access-Control-Allow-Credentials`.
    #[default]
    Omit,
    /// With it; needs exact origins.
    Include,
}

/// Bounds of a request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Largest body in bytes, unless a route says less.
    pub body: usize,
    /// Time for head and body to arrive and the answer to be made.
    pub deadline: Duration,
}

impl Settings {
    /// The defaults, for data and secrets below `dir`.
    pub fn embedded(dir: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        let tier = |user, tenant| TierLimits { user, tenant };
        Self {
            data: dir.join("data"),
            secrets: SecretSource::dir(dir.join("secrets")),
            database: "sqlite:bartizan.db".into(),
            database_server: DatabaseServer::default(),
            state: State::default(),
            limits: Limits {
                tiers: BTreeMap::from([
                    (Tier::Free, tier(Rate::per_minute(60, 60), Rate::per_minute(600, 600))),
                    (Tier::Pro, tier(Rate::per_minute(300, 300), Rate::per_minute(6_000, 6_000))),
                    (Tier::Enterprise, tier(Rate::per_minute(1_000, 1_000), Rate::per_minute(60_000, 60_000))),
                ]),
                address: Rate::per_minute(600, 300),
                network: Rate::per_minute(6_000, 3_000),
                ban_after: 100,
                ban_for: Duration::from_secs(60),
                max_keys: 1_000_000,
                login_account_network: Rate { count: 5, period: Duration::from_secs(300), burst: 5 },
                login_account: Rate { count: 50, period: Duration::from_secs(3600), burst: 50 },
                login_network: Rate { count: 50, period: Duration::from_secs(300), burst: 50 },
                login_tenant: Rate { count: 500, period: Duration::from_secs(300), burst: 500 },
            },
            tokens: Tokens {
                issuer: "http://127.0.0.1:8080".into(),
                audience: "bartizan".into(),
                access: Duration::from_secs(300),
                refresh_idle: Duration::from_secs(14 * 86_400),
                refresh_absolute: Duration::from_secs(90 * 86_400),
                refresh_retry: Duration::from_secs(10),
                cache: 100_000,
            },
            password: Password { min_length: 15, memory_kib: 64 * 1024, passes: 3, lanes: 1, workers: 2, queue: 64 },
            proxies: Vec::new(),
            cors: Cors::default(),
            request: Request { body: 1024 * 1024, deadline: Duration::from_secs(30) },
            https: Https::Off,
        }
    }
}
