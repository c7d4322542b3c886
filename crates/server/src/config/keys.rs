//! Every configuration key, declared once: name, kind with bounds, default, when a change acts, and why.
//!
//! The reader, `config print`, the example file, the reference page and the JSON Schema are all made from this list.
//! There is no key that holds a secret, so no output of the configuration can leak one.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::Reader;
use super::setting::{
    Count, DatabaseUrl, Line, LogFormat, LogLevel, Networks, Origins, RevocationMode, Setting, Size, Span, StateUrl,
    WebOrigin, WhenAway,
};

/// When a changed value acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Apply {
    /// At the next reload (a changed file, or SIGHUP).
    Live,
    /// At the next start.
    Restart,
}

/// A key, as the reference needs to know it.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The dotted path, such as `limits.ban.after`.
    pub path: &'static str,
    /// The default in the syntax of the environment; empty for unset.
    pub default: &'static str,
    /// When a change acts.
    pub apply: Apply,
    /// What it is for.
    pub doc: &'static str,
    /// What a value must be.
    pub must: fn() -> String,
    /// The default in TOML syntax.
    pub default_toml: fn(&str) -> Option<String>,
    /// The JSON Schema of a value.
    pub schema: fn() -> serde_json::Value,
}

/// A table of keys.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// The dotted path, such as `limits.ban`.
    pub path: &'static str,
    /// What the table is about.
    pub doc: &'static str,
    /// Its keys, in order of declaration.
    pub keys: &'static [Key],
}

fn default_toml<T: Setting>(text: &str) -> Option<String> {
    T::read(&super::setting::Raw::Text(text.into())).ok().and_then(|value| value.toml())
}

macro_rules! keys {
    ($(
        $(#[doc = $table_doc:literal])*
        $member:ident: $table:ident = $path:literal {
            $($(#[doc = $doc:literal])* $field:ident: $kind:ty = $default:literal, $apply:ident;)+
        }
    )+) => {
        $(
            $(#[doc = $table_doc])*
            #[derive(Clone, Debug, PartialEq)]
            pub struct $table { $($(#[doc = $doc])* pub $field: $kind,)+ }
        )+

        /// The whole configuration, read and within its bounds.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Keys { $($(#[doc = $table_doc])* pub $member: $table,)+ }

        /// Every table, in the order in which a reader meets them.
        pub const TABLES: &[Table] = &[$(Table {
            path: $path,
            doc: concat!($($table_doc, "\n",)*),
            keys: &[$(Key {
                path: concat!($path, ".", stringify!($field)),
                default: $default,
                apply: Apply::$apply,
                doc: concat!($($doc, "\n",)*),
                must: <$kind as Setting>::must,
                default_toml: default_toml::<$kind>,
                schema: <$kind as Setting>::schema,
            },)+],
        },)+];

        impl Keys {
            /// Reads every key, so that every fault is found; `None` when there was one.
            pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
                $($(let $field: Option<$kind> = reader.take(concat!($path, ".", stringify!($field)), $default);)+
                let $member = (|| Some($table { $($field: $field?,)+ }))();)+
                Some(Self { $($member: $member?,)+ })
            }

            /// These values, with those of `new` where a change acts without a restart.
            #[must_use]
            pub fn with_live_of(&self, new: &Self) -> Self {
                Self { $($member: $table {
                    $($field: if Apply::$apply == Apply::Live { &new.$member.$field } else { &self.$member.$field }.clone(),)+
                },)+ }
            }

            /// Every key with its value in TOML syntax; `None` when unset.
            pub fn values(&self) -> Vec<(&'static str, Option<String>)> {
                vec![$($((concat!($path, ".", stringify!($field)), self.$member.$field.toml()),)+)+]
            }
        }
    };
}

/// A rate of requests a minute.
pub type PerMinute = Count<1, 10_000_000>;
/// A burst of requests.
pub type Burst = Count<1, 10_000_000>;
/// A number of failed logins.
pub type Failures = Count<1, 1_000_000>;

keys! {
    /// What this node writes.
    data: Data = "data" {
        /// Directory of the database and the administration socket. Created with mode 0700.
        dir: PathBuf = "data", Restart;
    }
    /// Where the secrets are. They are files, never values of this configuration.
    secrets: Secrets = "secrets" {
        /// Directory of the secrets: mode 0700, files 0600. Copy it to give a second node the same keys.
        dir: PathBuf = "secrets", Restart;
        /// The file of the root key, in place of `root.key` in `dir`: a Docker secret, or a systemd credential. Such a
        /// file may also be readable by its group when it belongs to root.
        root_key_file: Option<PathBuf> = "", Restart;
        /// The file of the password pepper, in place of `password-pepper.key` in `dir`.
        password_pepper_file: Option<PathBuf> = "", Restart;
    }
    /// The public listener.
    server: Server = "server" {
        /// Where the API listens. On loopback until you decide otherwise: put TLS in front or configure `[server.tls]`.
        listen: SocketAddr = "127.0.0.1:8080", Restart;
        /// The base URL by which clients reach the API: the `iss` of tokens, and with `https` the reason to send HSTS.
        /// Left out, it is made from `listen`; set it before users have tokens, since a change ends all of them.
        public_url: Option<WebOrigin> = "", Restart;
        /// Time for the first byte, and again for the head of each request, to arrive. Closes idle connections too.
        header_timeout: Span<100, 300_000> = "15s", Restart;
        /// A client that takes nothing of an answer for so long is let go.
        write_timeout: Span<1_000, 600_000> = "30s", Restart;
        /// Largest head of a request, HTTP/1 and HTTP/2 alike.
        max_header: Size<4096, 1_048_576> = "32 KiB", Restart;
        /// Largest body of a request, unless a route allows less.
        max_body: Size<1024, 1_073_741_824> = "1 MiB", Restart;
        /// Time for the whole request to arrive and be answered.
        request_timeout: Span<1_000, 3_600_000> = "30s", Restart;
        /// Most connections at once; further ones wait in the kernel's queue. Each needs a file descriptor.
        max_connections: Count<1, 1_000_000> = "4096", Restart;
        /// Most connections from one address, so that no single client can take them all. Trusted proxies are exempt.
        connections_per_address: Count<1, 1_000_000> = "512", Restart;
        /// Time that requests in flight get to finish when the server is told to stop.
        drain: Span<0, 600_000> = "20s", Restart;
    }
    /// TLS on the public listener: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1. Both files are read again when they change;
    /// if they cannot be read or do not fit together, the old pair stays in force and the log says why.
    tls: Tls = "server.tls" {
        /// Certificate chain in PEM, the server's own first.
        cert: Option<PathBuf> = "", Restart;
        /// Private key in PEM, not readable by others.
        key: Option<PathBuf> = "", Restart;
        /// Time for the handshake.
        handshake_timeout: Span<100, 60_000> = "10s", Restart;
    }
    /// The operators' listener: `/healthz`, `/readyz`, `/metrics`. It asks for no credential.
    ops: Ops = "ops" {
        /// Where it listens. Anything but loopback is refused unless `danger_public` is set.
        listen: SocketAddr = "127.0.0.1:9090", Restart;
        /// Allows a `listen` that other machines can reach: everybody who can is shown the metrics.
        danger_public: bool = "false", Restart;
    }
    /// The database: the one truth.
    database: Database = "database" {
        /// `sqlite:` and a path, a relative one taken from `data.dir`; or `postgres://USER@HOST/DATABASE` when several
        /// nodes share it. Parameters: `sslmode` (left out: verified TLS, or none to this very machine) and `sslrootcert`.
        url: DatabaseUrl = "sqlite:bartizan.db", Restart;
        /// The file of the database user's password: 0600, and never part of the address.
        password_file: Option<PathBuf> = "", Restart;
        /// Connections of this node to a database server, half to read, half to change. The server must allow for all
        /// nodes together.
        pool: Count<2, 1_000> = "16", Restart;
        /// How long a request waits for a connection before it is answered 503.
        acquire: Span<100, 60_000> = "5s", Restart;
    }
    /// The hot state: limits, bans, revocations.
    state: StateStore = "state" {
        /// `embedded` keeps it in this process and, where a promise is made, in the database. Several nodes share one:
        /// `redis://HOST`, `redis+sentinel://HOST,HOST,HOST/NAME` or `redis+cluster://HOST,HOST,HOST` (Redis 7.0 or
        /// Valkey 7.2 at least), `rediss` in place of `redis` for TLS.
        url: StateUrl = "embedded", Restart;
        /// The user there. Left out: the default user.
        user: Option<Line> = "", Restart;
        /// The file of his password: 0600, and never part of the address.
        password_file: Option<PathBuf> = "", Restart;
        /// The file of the sentinels' password.
        sentinel_password_file: Option<PathBuf> = "", Restart;
        /// The only authority to trust for `rediss`, in PEM. Left out: those of the system.
        ca_file: Option<PathBuf> = "", Restart;
        /// How long one question may take. An outage costs a request this once, then nothing.
        timeout: Span<5, 5_000> = "50ms", Restart;
        /// How long a connection may take.
        connect: Span<50, 60_000> = "1s", Restart;
        /// Connections to each server. One carries tens of thousands of questions a second.
        pool: Count<1, 64> = "1", Restart;
        /// Before every key, so that others may use the same server.
        prefix: Line = "bz:", Restart;
        /// How many nodes there are at least: while the state is away before it could count them, each takes this share
        /// of the limits.
        nodes: Count<1, 10_000> = "1", Restart;
        /// Who decides while it is away: `local` (each node by itself, at the limit divided by the nodes), `refuse`
        /// (nobody is admitted), `open` (everybody is; counted and logged as such).
        when_away: WhenAway = "local", Restart;
        /// Whether keys with more than 200 requests a second on a node are paid for in advance, which spares the round
        /// trip. Limits hold exactly either way.
        leases: bool = "true", Restart;
    }
    /// How what one node ends reaches the others. Only with a database server: a file belongs to one process.
    revocation: Revocation = "revocation" {
        /// `replicated`: in force everywhere within `bound`, and no request asks anybody. `strict`: on the next request;
        /// each one with a credential asks the shared state.
        mode: RevocationMode = "replicated", Restart;
        /// How old a node's copy may be. Past it the database is read before anybody is believed, and when that fails
        /// the answer is 503.
        bound: Span<500, 60_000> = "1s", Restart;
    }
    /// Rate limits. A denied request costs nothing.
    limits: Limits = "limits" {
        /// Most limited keys held in memory (about 26 bytes each). When full, new keys are refused rather than a
        /// limited one freed.
        max_keys: Count<1_000, 100_000_000> = "1000000", Restart;
    }
    /// Tenants of tier `free`.
    free: Free = "limits.tiers.free" {
        /// Requests a minute for each user.
        per_minute: PerMinute = "60", Live;
        /// How many of them may come at once. Left out: as many as `per_minute`.
        burst: Option<Burst> = "", Live;
        /// Requests a minute for the tenant as a whole. Left out: 10 × `per_minute`.
        tenant_per_minute: Option<PerMinute> = "", Live;
        /// How many of them may come at once. Left out: as many as `tenant_per_minute`.
        tenant_burst: Option<Burst> = "", Live;
    }
    /// Tenants of tier `pro`.
    pro: Pro = "limits.tiers.pro" {
        /// Requests a minute for each user.
        per_minute: PerMinute = "300", Live;
        /// How many of them may come at once. Left out: as many as `per_minute`.
        burst: Option<Burst> = "", Live;
        /// Requests a minute for the tenant as a whole. Left out: 20 × `per_minute`.
        tenant_per_minute: Option<PerMinute> = "", Live;
        /// How many of them may come at once. Left out: as many as `tenant_per_minute`.
        tenant_burst: Option<Burst> = "", Live;
    }
    /// Tenants of tier `enterprise`.
    enterprise: Enterprise = "limits.tiers.enterprise" {
        /// Requests a minute for each user.
        per_minute: PerMinute = "1000", Live;
        /// How many of them may come at once. Left out: as many as `per_minute`.
        burst: Option<Burst> = "", Live;
        /// Requests a minute for the tenant as a whole. Left out: 60 × `per_minute`.
        tenant_per_minute: Option<PerMinute> = "", Live;
        /// How many of them may come at once. Left out: as many as `tenant_per_minute`.
        tenant_burst: Option<Burst> = "", Live;
    }
    /// Per client address (IPv4 /32, IPv6 /64), before anybody is authenticated.
    address: Address = "limits.address" {
        /// Requests a minute.
        per_minute: PerMinute = "600", Live;
        /// How many of them may come at once. Left out: half of `per_minute`.
        burst: Option<Burst> = "", Live;
    }
    /// Per wider IPv6 network (/48), beside the address: an attacker usually holds a whole one.
    network: Network = "limits.network" {
        /// Requests a minute. Left out: 10 × that of `limits.address`.
        per_minute: Option<PerMinute> = "", Live;
        /// How many of them may come at once. Left out: half of `per_minute`.
        burst: Option<Burst> = "", Live;
    }
    /// Temporary bans of addresses that keep being refused.
    ban: Ban = "limits.ban" {
        /// How many refusals in a row lead to a ban.
        after: Count<1, 1_000_000> = "100", Live;
        /// The length of the first ban; each further one is twice as long, up to an hour.
        first: Span<1_000, 3_600_000> = "1m", Live;
    }
    /// Failed logins. Only failures count, so an outsider's failures never touch a session that exists.
    login: Login = "limits.login" {
        /// Per account and network, in 5 minutes.
        per_account_and_network: Failures = "5", Live;
        /// Per account from anywhere, in an hour.
        per_account: Failures = "50", Live;
        /// Per network, in 5 minutes; an IPv6 /48 may have ten times as many. A network may sign up as often.
        per_network: Failures = "50", Live;
        /// Per tenant, in 5 minutes.
        per_tenant: Failures = "500", Live;
    }
    /// Access and refresh tokens.
    tokens: Tokens = "tokens" {
        /// `aud`: who the access tokens are for. A change ends all access tokens.
        audience: Line = "bartizan", Restart;
        /// Life of an access token; short, since it says what was true when it was issued.
        access: Span<30_000, 900_000> = "5m", Restart;
        /// A refresh token that is not used for so long ends.
        refresh_idle: Span<300_000, 31_536_000_000> = "14d", Restart;
        /// A session ends after so long, used or not.
        refresh_absolute: Span<300_000, 31_536_000_000> = "90d", Restart;
        /// Within this time a refresh repeated by the same client, whose answer was lost, gets the same successor.
        refresh_retry: Span<0, 60_000> = "10s", Restart;
        /// Most verified tokens remembered.
        cache: Count<1_000, 10_000_000> = "100000", Restart;
    }
    /// Passwords and their hashing (Argon2id). Stored hashes with weaker figures are replaced at the next login.
    password: Password = "password" {
        /// Fewest characters. NIST SP 800-63B asks for 15 where the password is the only factor, and never less than 8.
        min_length: Count<8, 64> = "15", Restart;
        /// Memory of one hash.
        memory: Size<19_922_944, 1_073_741_824> = "64 MiB", Restart;
        /// Passes over the memory.
        passes: Count<1, 20> = "3", Restart;
        /// Lanes.
        lanes: Count<1, 16> = "1", Restart;
        /// How many hashes are computed at once; each takes `memory`.
        workers: Count<1, 64> = "2", Restart;
        /// How many may wait; beyond, the answer is 503 with Retry-After.
        queue: Count<1, 10_000> = "64", Restart;
    }
    /// Proxies in front.
    proxies: Proxies = "proxies" {
        /// Networks whose `X-Forwarded-For` is believed, read from right to left. From anybody else it is ignored.
        trusted: Networks = "", Live;
    }
    /// Cross-origin access by browsers.
    cors: Cors = "cors" {
        /// Exact origins that may call the API from a browser.
        origins: Origins = "", Live;
        /// Whether they may send cookies along.
        credentials: bool = "false", Live;
    }
    /// The log, on standard error. It never holds passwords or tokens.
    log: Log = "log" {
        /// `text`, `json`, or `auto`: text on a terminal and JSON elsewhere.
        format: LogFormat = "auto", Restart;
        /// `error`, `warn`, `info` or `debug`.
        level: LogLevel = "info", Live;
    }
}

/// Every key of every table.
pub fn all() -> impl Iterator<Item = &'static Key> {
    TABLES.iter().flat_map(|table| table.keys)
}
