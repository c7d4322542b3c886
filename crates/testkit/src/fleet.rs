//! Several nodes of the real program on one PostgreSQL and one Redis (alone, with Sentinels, or as a cluster).
//!
//! Each node reaches the database through a [`Proxy`] of its own, and a single Redis through another, so that one node can
//! be cut off while the others are not. All nodes share their secrets, as an operator's copy of the directory would do.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::stack::lent_cluster;
use crate::{ClusterSet, Home, Launch, PostgresServer, Proxy, RedisServer, SentinelSet, Server, StackKind, until};

/// What the nodes share their hot state in.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one for a whole fleet")]
pub enum Hot {
    /// One server, each node behind a proxy.
    One(Box<RedisServer>),
    /// A primary with replicas and sentinels.
    Sentinel(SentinelSet),
    /// A cluster.
    Cluster(ClusterSet),
    /// The address of a cluster that other tests use too: see [`crate::Stack`].
    Lent(String),
}

/// How a fleet is to be started.
#[derive(Debug)]
pub struct FleetPlan {
    launch: Launch,
    hot: Option<Hot>,
    alone: bool,
    each: Vec<(usize, String, String)>,
    clocks: Vec<(usize, i64)>,
}

impl FleetPlan {
    /// Nodes started from `launch`, which must not have a home of its own.
    pub const fn new(launch: Launch) -> Self {
        Self { launch, hot: None, alone: false, each: Vec::new(), clocks: Vec::new() }
    }

    /// Sets a configuration key of every node, as [`Launch::set`].
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.launch = self.launch.set(key, value);
        self
    }

    /// Sets a configuration key of one node.
    #[must_use]
    pub fn set_of(mut self, node: usize, key: &str, value: &str) -> Self {
        self.each.push((node, key.to_owned(), value.to_owned()));
        self
    }

    /// Sets the clock of one node so many seconds ahead, or behind when negative: see [`Launch::clock_off_by`].
    #[must_use]
    pub fn clock_of(mut self, node: usize, seconds: i64) -> Self {
        self.clocks.push((node, seconds));
        self
    }

    /// Revocations act on the next request everywhere.
    #[must_use]
    pub fn strict(self) -> Self {
        self.set("REVOCATION__MODE", "strict")
    }

    /// Shares this.
    #[must_use]
    pub fn hot(mut self, hot: Hot) -> Self {
        self.hot = Some(hot);
        self
    }

    /// Shares one Redis of its own, behind proxies, also where the tests run on a cluster: for those that harm it or look
    /// into it.
    #[must_use]
    pub const fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// Starts the servers and `nodes` nodes on an empty database, one after another, and waits until they know each other.
    ///
    /// # Panics
    /// When something does not start.
    pub async fn start(self, nodes: usize) -> Fleet {
        let mut fleet = self.prepare().await;
        for _ in 0..nodes {
            fleet.join().await;
        }
        fleet.know_each_other().await;
        fleet
    }

    /// The same, but all nodes at the same moment.
    ///
    /// # Panics
    /// When something does not start.
    pub async fn start_at_once(self, nodes: usize) -> Fleet {
        let mut fleet = self.prepare().await;
        let (mut starting, mut doors) = (Vec::new(), Vec::new());
        for nth in 0..nodes {
            let (launch, database, state) = fleet.node(nth).await;
            starting.push(tokio::spawn(launch.start()));
            doors.push((database, state));
        }
        for (start, (database, state)) in starting.into_iter().zip(doors) {
            let server = start.await.expect("a node that starts");
            fleet.nodes.push(Node { server, database, state });
        }
        let password = fleet.nodes.iter().find_map(|node| node.server.password.clone());
        fleet.nodes.iter_mut().for_each(|node| node.server.password.clone_from(&password));
        fleet.know_each_other().await;
        fleet
    }

    async fn prepare(self) -> Fleet {
        let hot = match self.hot {
            Some(hot) => hot,
            None if self.alone || StackKind::of_this_run() != StackKind::RedisCluster => {
                Hot::One(Box::new(RedisServer::start().await))
            }
            None => match lent_cluster() {
                Some(url) => Hot::Lent(url),
                None => Hot::Cluster(ClusterSet::start(3, 1).await),
            },
        };
        let home = tempfile::Builder::new().prefix("btzfleet").tempdir().expect("a directory");
        // The installation that nobody runs: its secrets are everybody's.
        let dir = home.path().join("shared");
        let made = self.launch.command(&["init", "--dir", dir.to_str().expect("a path in UTF-8")]).await;
        drop(made.success());
        let postgres = PostgresServer::start();
        secret(&home.path().join("database-password"), postgres.password());
        Fleet { nodes: Vec::new(), postgres, hot, launch: self.launch, each: self.each, clocks: self.clocks, home }
    }
}

/// Writes a file as the program demands it of a secret.
pub(crate) fn secret(path: &Path, text: &str) {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).expect("a new file");
    file.write_all(text.as_bytes()).expect("to write");
}

/// One node and its doors to what is shared.
#[derive(Debug)]
pub struct Node {
    /// The program.
    pub server: Server,
    /// Between it and PostgreSQL.
    pub database: Proxy,
    /// Between it and a single Redis.
    pub state: Option<Proxy>,
}

/// Running nodes. The servers end with it.
pub struct Fleet {
    /// The nodes, in the order of their start.
    pub nodes: Vec<Node>,
    /// The truth.
    pub postgres: PostgresServer,
    /// The hot state.
    pub hot: Hot,
    launch: Launch,
    each: Vec<(usize, String, String)>,
    clocks: Vec<(usize, i64)>,
    home: TempDir,
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fleet").field("nodes", &self.nodes).field("hot", &self.hot).finish_non_exhaustive()
    }
}

impl Fleet {
    /// The program of a node.
    ///
    /// # Panics
    /// When there are fewer nodes.
    pub fn on(&self, node: usize) -> &Server {
        &self.nodes[node].server
    }

    /// The single Redis: see [`FleetPlan::alone`].
    ///
    /// # Panics
    /// When there is another kind.
    pub fn redis(&mut self) -> &mut RedisServer {
        match &mut self.hot {
            Hot::One(redis) => redis,
            Hot::Sentinel(_) | Hot::Cluster(_) | Hot::Lent(_) => panic!("not a single Redis"),
        }
    }

    /// Runs SQL in the nodes' database; returns what `psql` prints.
    ///
    /// # Panics
    /// When a statement fails.
    pub fn sql(&self, sql: &str) -> String {
        self.postgres.sql("bartizan", sql)
    }

    /// Starts one more node.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn join(&mut self) {
        let (launch, database, state) = self.node(self.nodes.len()).await;
        let mut server = launch.start().await;
        server.password =
            server.password.take().or_else(|| self.nodes.first().and_then(|one| one.server.password.clone()));
        self.nodes.push(Node { server, database, state });
    }

    /// How a node is started, and its doors.
    async fn node(&self, nth: usize) -> (Launch, Proxy, Option<Proxy>) {
        let database = Proxy::start(self.postgres.port()).await;
        let mut state = None;
        let hot = match &self.hot {
            Hot::One(redis) => {
                let proxy = state.insert(Proxy::start(redis.port()).await);
                format!("redis://127.0.0.1:{}", proxy.port())
            }
            Hot::Sentinel(set) => set.url(),
            Hot::Cluster(set) => set.url(),
            Hot::Lent(url) => url.clone(),
        };
        let text = |path: PathBuf| path.to_str().expect("a path in UTF-8").to_owned();
        let url = format!("postgres://bartizan@127.0.0.1:{}/bartizan", database.port());
        let mut launch = self
            .launch
            .clone()
            .home(&Home::new())
            .set("SECRETS__DIR", &text(self.home.path().join("shared").join("secrets")))
            .set("DATABASE__URL", &url)
            .set("DATABASE__PASSWORD_FILE", &text(self.home.path().join("database-password")))
            .set("DATABASE__POOL", "8")
            .set("STATE__URL", &hot);
        if matches!(self.hot, Hot::Lent(_)) {
            let name = self.home.path().file_name().and_then(|name| name.to_str()).expect("a name in UTF-8");
            launch = launch.set("STATE__PREFIX", &format!("{name}:"));
        }
        for (_, key, value) in self.each.iter().filter(|(node, ..)| *node == nth) {
            launch = launch.set(key, value);
        }
        for (_, seconds) in self.clocks.iter().filter(|(node, _)| *node == nth) {
            launch = launch.clock_off_by(*seconds);
        }
        (launch, database, state)
    }

    /// Waits until every node counts as many as there are.
    ///
    /// # Panics
    /// After the deadline.
    pub async fn know_each_other(&self) {
        let all = self.nodes.len() as f64;
        for node in &self.nodes {
            until("the nodes know each other", || async {
                node.server.metric("bartizan_state_nodes").await == Some(all)
            })
            .await;
        }
    }

    /// Leads every node's new connections to `postgres`, as an address that follows the primary would. Returns the server
    /// that was the truth before.
    pub fn lead_to(&mut self, postgres: PostgresServer) -> PostgresServer {
        for node in &self.nodes {
            node.database.lead_to(postgres.port());
        }
        std::mem::replace(&mut self.postgres, postgres)
    }

    /// Ends a node at once and starts it again, on another port.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn restart(&mut self, node: usize) {
        let Node { server, database, state } = self.nodes.remove(node);
        let server = server.restart().await;
        self.nodes.insert(node, Node { server, database, state });
    }
}
