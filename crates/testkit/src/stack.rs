//! What a node's truth and its hot state are kept in, for the tests of a whole run: in the program itself, in PostgreSQL and
//! Redis, or in PostgreSQL and a Redis Cluster. The same tests run on each.
//!
//! Servers take seconds to start, so `examples/stack.rs` starts them once and tells the tests where they are; each
//! [`Home`](crate::Home) then has a database and a prefix of keys of its own there. A test that is run without it, by
//! hand, starts servers for itself.

use tempfile::TempDir;

use crate::fleet::secret;
use crate::guard::Guard;
use crate::postgres::psql;
use crate::{ClusterSet, Hot, PostgresServer, RedisServer};

/// The variable that names the kind: see [`StackKind::of_this_run`].
const KIND: &str = "BARTIZAN_TEST_STACK";
const POSTGRES_PORT: &str = "BARTIZAN_TEST_POSTGRES_PORT";
const POSTGRES_PASSWORD: &str = "BARTIZAN_TEST_POSTGRES_PASSWORD";
const STATE_URL: &str = "BARTIZAN_TEST_STATE_URL";

/// What the tests run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StackKind {
    /// SQLite and the program's own memory.
    Embedded,
    /// PostgreSQL and one Redis.
    Redis,
    /// PostgreSQL and a Redis Cluster: three primaries, each with a replica.
    RedisCluster,
}

impl StackKind {
    /// The kind of this name: `embedded`, `redis` or `redis-cluster`.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "embedded" => Some(Self::Embedded),
            "redis" => Some(Self::Redis),
            "redis-cluster" => Some(Self::RedisCluster),
            _ => None,
        }
    }

    /// What `BARTIZAN_TEST_STACK` says, or else [`StackKind::Embedded`].
    ///
    /// # Panics
    /// When it says something else: tests that silently run on another stack prove nothing about this one.
    pub fn of_this_run() -> Self {
        let Some(name) = std::env::var_os(KIND) else { return Self::Embedded };
        let kind = name.to_str().and_then(Self::parse);
        kind.unwrap_or_else(|| panic!("{KIND} is embedded, redis or redis-cluster, not {name:?}"))
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Redis => "redis",
            Self::RedisCluster => "redis-cluster",
        }
    }
}

/// Running servers. They end with this, and with the process, however it ends.
pub struct Stack {
    /// The first to go.
    _guard: Guard,
    kind: StackKind,
    postgres: PostgresServer,
    hot: Hot,
}

impl std::fmt::Debug for Stack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stack").field("kind", &self.kind).field("hot", &self.hot).finish_non_exhaustive()
    }
}

impl Stack {
    /// Starts them; nothing of [`StackKind::Embedded`] can be started.
    ///
    /// # Panics
    /// When one does not start.
    pub async fn start(kind: StackKind) -> Option<Self> {
        let hot = match kind {
            StackKind::Embedded => return None,
            StackKind::Redis => Hot::One(Box::new(RedisServer::start().await)),
            StackKind::RedisCluster => {
                let cluster = ClusterSet::start(3, 1).await;
                for node in &cluster.nodes {
                    // No test here is about a failover, and a busy machine shall not cause one.
                    node.cli(&["CONFIG", "SET", "cluster-node-timeout", "30000"]).await;
                }
                Hot::Cluster(cluster)
            }
        };
        // Two tests for each core, each with up to three nodes of a few connections. Many databases are created: that
        // shall not cause a checkpoint each time.
        let tests = std::thread::available_parallelism().map_or(1, usize::from);
        let connections = format!("max_connections={}", (50 + 48 * tests).min(1000));
        let postgres = PostgresServer::start_with(&[&connections, "max_wal_size=2GB", "checkpoint_timeout=30min"]);
        Some(Self { _guard: guard(&hot), kind, postgres, hot })
    }

    /// The variables that tell tests to use these servers.
    pub fn variables(&self) -> [(&'static str, String); 4] {
        let Lent { port, password, state } = self.lent();
        [
            (KIND, self.kind.name().to_owned()),
            (POSTGRES_PORT, port.to_string()),
            (POSTGRES_PASSWORD, password),
            (STATE_URL, state),
        ]
    }

    fn lent(&self) -> Lent {
        let state = match &self.hot {
            Hot::One(redis) => redis.url(),
            Hot::Sentinel(set) => set.url(),
            Hot::Cluster(set) => set.url(),
            Hot::Lent(url) => url.clone(),
        };
        Lent { port: self.postgres.port(), password: self.postgres.password().to_owned(), state }
    }
}

/// Ends the Redis servers when this process is killed. PostgreSQL has its own.
fn guard(hot: &Hot) -> Guard {
    let servers: Vec<&RedisServer> = match hot {
        Hot::One(redis) => vec![redis],
        Hot::Sentinel(set) => set.servers.iter().chain(&set.sentinels).collect(),
        Hot::Cluster(set) => set.nodes.iter().collect(),
        Hot::Lent(_) => Vec::new(),
    };
    let ids = servers.iter().filter_map(|server| server.id()).map(|id| id.to_string());
    let dirs = servers.iter().map(|server| server.dir().display().to_string());
    Guard::start(
        "ids=$1; shift; kill -9 $ids; rm -rf \"$@\"",
        [ids.collect::<Vec<_>>().join(" ")].into_iter().chain(dirs),
    )
}

/// Where servers are.
struct Lent {
    port: u16,
    password: String,
    state: String,
}

impl Lent {
    /// Those of this run, if it has some.
    fn of_this_run() -> Option<Self> {
        let port = std::env::var(POSTGRES_PORT).ok()?.parse().ok()?;
        Some(Self { port, password: std::env::var(POSTGRES_PASSWORD).ok()?, state: std::env::var(STATE_URL).ok()? })
    }
}

/// The cluster that the tests of this run share, if they do.
pub(crate) fn lent_cluster() -> Option<String> {
    Some(Lent::of_this_run()?.state).filter(|_| StackKind::of_this_run() == StackKind::RedisCluster)
}

/// What one home has of them: a database and a prefix of keys. The database goes with it.
pub(crate) struct Share {
    servers: Lent,
    /// Servers of its own, if the run has none.
    own: Option<Stack>,
    /// Holds the password; its name is nobody else's, so the database and the prefix are called like it.
    dir: TempDir,
}

impl std::fmt::Debug for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Share").field("own", &self.own).field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Share {
    /// Makes them.
    pub(crate) async fn take(kind: StackKind) -> Self {
        let mut own = None;
        let servers = match Lent::of_this_run() {
            Some(lent) => lent,
            None => own.insert(Stack::start(kind).await.expect("a kind with servers")).lent(),
        };
        let dir = tempfile::Builder::new().prefix("btzdb").tempdir().expect("a temporary directory");
        secret(&dir.path().join("password"), &servers.password);
        let share = Self { servers, own, dir };
        let created = share.sql(&format!("CREATE DATABASE \"{}\"", share.name()));
        assert_eq!(created.as_deref(), Ok(""), "a database of its own");
        share
    }

    fn name(&self) -> &str {
        self.dir.path().file_name().and_then(|name| name.to_str()).expect("a name in UTF-8")
    }

    /// Runs SQL as the superuser, outside of the database that this is.
    fn sql(&self, sql: &str) -> Result<String, String> {
        psql(self.servers.port, &self.servers.password, "bartizan", sql)
    }

    /// Runs SQL in the database.
    pub(crate) fn sql_inside(&self, sql: &str) -> Result<String, String> {
        psql(self.servers.port, &self.servers.password, self.name(), sql)
    }

    /// The settings of a node that uses it.
    pub(crate) fn variables(&self) -> Vec<(String, String)> {
        let database = format!("postgres://bartizan@127.0.0.1:{}/{}", self.servers.port, self.name());
        let password = self.dir.path().join("password");
        [
            ("DATABASE__URL", database.as_str()),
            ("DATABASE__PASSWORD_FILE", password.to_str().expect("a path in UTF-8")),
            ("DATABASE__POOL", "4"),
            ("STATE__URL", &self.servers.state),
            ("STATE__PREFIX", &format!("{}:", self.name())),
            // On a busy machine a time-out of 50 ms is an outage, in which other promises hold.
            ("STATE__TIMEOUT", "2s"),
            // Tests count exactly.
            ("STATE__LEASES", "false"),
        ]
        .map(|(key, value)| (format!("BARTIZAN__{key}"), value.to_owned()))
        .to_vec()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.own.is_none() {
            // Otherwise thousands of files gather until the run ends. A server that is just being ended may be connected.
            let _ = self.sql(&format!("DROP DATABASE IF EXISTS \"{}\" WITH (FORCE)", self.name()));
        }
    }
}
