//! Real Redis servers: one, a primary with replicas and sentinels, a cluster.
//!
//! Each has a directory and free ports of its own and dies with its owner. Nothing is kept on disk unless an argument
//! asks for it, so a server that was killed comes back empty.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::DEADLINE;

/// Repeats `question` until it is answered with true.
///
/// # Panics
/// After [`DEADLINE`], with `what`.
pub async fn until<F: Future<Output = bool>>(what: &str, mut question: impl FnMut() -> F) {
    let deadline = Instant::now() + DEADLINE;
    while !question().await {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A port that was free a moment ago.
///
/// # Panics
/// When there is none.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("its address").port()
}

/// One server.
#[derive(Debug)]
pub struct RedisServer {
    home: TempDir,
    port: u16,
    args: Vec<String>,
    sentinel: bool,
    /// Arguments of `redis-cli` that get in.
    entry: Vec<String>,
    tls: Option<Certificates>,
    child: Child,
}

impl RedisServer {
    /// An empty server on a free port.
    ///
    /// # Panics
    /// When `redis-server` is missing or does not start.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// The same with arguments, such as `&["--maxmemory", "4mb"]`.
    ///
    /// # Panics
    /// When `redis-server` is missing or does not start.
    pub async fn with(args: &[&str]) -> Self {
        Self::launch(args, &[], None, None).await
    }

    /// A server that demands `password` of the default user.
    ///
    /// # Panics
    /// When `redis-server` is missing or does not start.
    pub async fn with_password(password: &str) -> Self {
        Self::launch(&["--requirepass", password], &["-a", password], None, None).await
    }

    /// A server that speaks nothing but TLS, for the names `localhost` and `127.0.0.1`, with a certificate of an
    /// authority of its own: [`RedisServer::ca`].
    ///
    /// # Panics
    /// When `redis-server` is missing, was built without TLS, or does not start.
    pub async fn with_tls(args: &[&str]) -> Self {
        Self::launch(args, &[], None, Some(&Certificates::make())).await
    }

    /// Starts a server. A sentinel has a `home` with its file.
    async fn launch(args: &[&str], entry: &[&str], home: Option<TempDir>, tls: Option<&Certificates>) -> Self {
        let sentinel = home.is_some();
        let home = home.unwrap_or_else(|| TempDir::new().expect("a temporary directory"));
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let mut entry: Vec<String> = entry.iter().map(|arg| (*arg).to_owned()).collect();
        if let Some(tls) = tls {
            entry.extend(["--tls".to_owned(), "--cacert".to_owned(), tls.path("ca.pem")]);
        }
        // Another process may take the port in between: then the server ends, and another is tried.
        for _ in 0..20 {
            let port = free_port();
            let child = spawn(home.path(), port, &args, sentinel, tls);
            let mut server = Self {
                home: TempDir::new().expect("a directory"),
                port,
                args: args.clone(),
                sentinel,
                entry: entry.clone(),
                tls: tls.cloned(),
                child,
            };
            if server.answers().await {
                server.home = home;
                return server;
            }
        }
        panic!("redis-server does not start");
    }

    /// Waits for its first answer; false when it ended instead.
    async fn answers(&mut self) -> bool {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if self.child.try_wait().expect("a child").is_some() {
                return false;
            }
            if self.cli(&["PING"]).await.contains("PONG") {
                return true;
            }
            assert!(Instant::now() < deadline, "redis-server on port {} does not answer", self.port);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Where it listens.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Its address, without credentials.
    pub fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme(), self.port)
    }

    /// The id of its process, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Where its files are: dumps, logs of writes, certificates.
    pub fn dir(&self) -> &Path {
        self.home.path()
    }

    const fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "rediss" } else { "redis" }
    }

    /// The certificate of the authority that signed its own.
    ///
    /// # Panics
    /// When it has none.
    pub fn ca(&self) -> PathBuf {
        self.tls.as_ref().expect("a server with TLS").path("ca.pem").into()
    }

    /// Ends it at once, as a power cut would.
    ///
    /// # Panics
    /// When it cannot be ended.
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("to be ended");
    }

    /// Starts it again on the same port, after [`RedisServer::kill`] or instead of it.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn restart(&mut self) {
        if self.child.try_wait().expect("a child").is_none() {
            self.kill().await;
        }
        self.child = spawn(self.home.path(), self.port, &self.args, self.sentinel, self.tls.as_ref());
        assert!(self.answers().await, "redis-server does not start again");
    }

    /// Holds it still: it keeps its connections and answers nothing.
    ///
    /// # Panics
    /// When it is not running.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    ///
    /// # Panics
    /// When it is not running.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let id = self.child.id().expect("a running server");
        let id = Pid::from_raw(i32::try_from(id).expect("a process id")).expect("a process id");
        kill_process(id, signal).expect("a signal");
    }

    /// What `redis-cli` prints for a command. An error of the server is printed too.
    ///
    /// # Panics
    /// When `redis-cli` is missing or does not end in time.
    pub async fn cli(&self, command: &[&str]) -> String {
        let mut cli = Command::new("redis-cli");
        cli.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "--no-auth-warning"]);
        cli.args(&self.entry).args(command).stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(DEADLINE, cli.output()).await.expect("an answer").expect("redis-cli");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// A field of `INFO`.
    ///
    /// # Panics
    /// As [`RedisServer::cli`].
    pub async fn info(&self, field: &str) -> String {
        let info = self.cli(&["INFO", "everything"]).await;
        let found = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        found.unwrap_or_default().trim().to_owned()
    }
}

fn spawn(home: &Path, port: u16, args: &[String], sentinel: bool, tls: Option<&Certificates>) -> Child {
    let mut command = Command::new("redis-server");
    if sentinel {
        // A sentinel writes what it learns into its configuration, so it has one.
        command.arg(home.join("sentinel.conf"));
    }
    command.args(["--dir", &home.to_string_lossy(), "--bind", "127.0.0.1"]);
    let port = port.to_string();
    match tls {
        None => command.args(["--port", &port, "--tls-port", "0"]),
        Some(tls) => command
            .args(["--port", "0", "--tls-port", &port, "--tls-auth-clients", "no"])
            .args(["--tls-ca-cert-file", &tls.path("ca.pem")])
            .args(["--tls-cert-file", &tls.path("cert.pem")])
            .args(["--tls-key-file", &tls.path("key.pem")]),
    };
    if sentinel {
        command.arg("--sentinel");
    } else {
        command.args(["--save", "", "--appendonly", "no", "--enable-debug-command", "yes"]);
    }
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    command.spawn().expect("redis-server")
}

/// `ca.pem`, `cert.pem` and `key.pem` in a directory: a server's certificate for `localhost` and `127.0.0.1`, and that of
/// the authority that signed it.
#[derive(Clone, Debug)]
struct Certificates(Arc<TempDir>);

impl Certificates {
    fn make() -> Self {
        let home = TempDir::new().expect("a temporary directory");
        let ca_key = rcgen::KeyPair::generate().expect("a key");
        let mut ca = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        ca.distinguished_name.push(rcgen::DnType::CommonName, "an authority for one test");
        let ca_cert = ca.self_signed(&ca_key).expect("a certificate");
        let issuer = rcgen::Issuer::new(ca, ca_key);
        let key = rcgen::KeyPair::generate().expect("a key");
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let cert =
            rcgen::CertificateParams::new(names).expect("parameters").signed_by(&key, &issuer).expect("a certificate");
        for (name, text) in [("ca.pem", ca_cert.pem()), ("cert.pem", cert.pem()), ("key.pem", key.serialize_pem())] {
            std::fs::write(home.path().join(name), text).expect("to write a certificate");
        }
        Self(Arc::new(home))
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().expect("a path in UTF-8").to_owned()
    }
}

/// The service that [`SentinelSet`] watches.
pub const SERVICE: &str = "mymaster";

/// A primary, its replicas and the sentinels that watch them: a server that is silent for 500 ms is down, and a
/// failover that takes more than 2 s is tried again.
#[derive(Debug)]
pub struct SentinelSet {
    /// The first is the primary at start.
    pub servers: Vec<RedisServer>,
    /// The sentinels; a majority of them agrees.
    pub sentinels: Vec<RedisServer>,
}

impl SentinelSet {
    /// Starts them and waits until each sentinel knows everybody.
    ///
    /// # Panics
    /// When they do not come to know each other.
    pub async fn start(replicas: usize, sentinels: usize) -> Self {
        Self::build(replicas, sentinels, None, None).await
    }

    /// The same, where all speak nothing but TLS, among each other too.
    ///
    /// # Panics
    /// When they do not come to know each other.
    pub async fn with_tls(replicas: usize, sentinels: usize) -> Self {
        Self::build(replicas, sentinels, None, Some(&Certificates::make())).await
    }

    /// The same with a password that the servers demand and another that the sentinels do.
    ///
    /// # Panics
    /// When they do not come to know each other.
    pub async fn with_passwords(replicas: usize, sentinels: usize, servers_word: &str, sentinels_word: &str) -> Self {
        Self::build(replicas, sentinels, Some((servers_word, sentinels_word)), None).await
    }

    async fn build(replicas: usize, sentinels: usize, words: Option<(&str, &str)>, tls: Option<&Certificates>) -> Self {
        let entry = words.map_or(Vec::new(), |(word, _)| vec!["-a", word]);
        let mut args = vec!["--repl-diskless-sync-delay", "0", "--tls-replication", yes(tls)];
        if let Some((word, _)) = words {
            args.extend(["--requirepass", word, "--masterauth", word]);
        }
        let primary = RedisServer::launch(&args, &entry, None, tls).await;
        let port = primary.port().to_string();
        let mut servers = vec![primary];
        args.extend(["--replicaof", "127.0.0.1", &port]);
        for _ in 0..replicas {
            servers.push(RedisServer::launch(&args, &entry, None, tls).await);
        }
        for replica in servers.iter().skip(1) {
            until("a replica follows", || async { replica.info("master_link_status").await == "up" }).await;
        }
        let mut set = Self { servers, sentinels: Vec::new() };
        for _ in 0..sentinels {
            set.sentinels.push(Self::sentinel(&port, (sentinels / 2 + 1).to_string(), words, tls).await);
        }
        for sentinel in &set.sentinels {
            until("the sentinels know everybody", || set.knows_everybody(sentinel)).await;
        }
        set
    }

    /// One sentinel that watches the primary on `port`.
    async fn sentinel(
        port: &str,
        quorum: String,
        words: Option<(&str, &str)>,
        tls: Option<&Certificates>,
    ) -> RedisServer {
        let home = TempDir::new().expect("a directory");
        std::fs::write(home.path().join("sentinel.conf"), "").expect("to write a configuration");
        let (mut args, entry) =
            words.map_or((Vec::new(), Vec::new()), |(_, word)| (vec!["--requirepass", word], vec!["-a", word]));
        // Towards the servers and the other sentinels as well.
        args.extend(["--tls-replication", yes(tls)]);
        let sentinel = RedisServer::launch(&args, &entry, Some(home), tls).await;
        sentinel.cli(&["SENTINEL", "MONITOR", SERVICE, "127.0.0.1", port, &quorum]).await;
        if let Some((word, _)) = words {
            sentinel.cli(&["SENTINEL", "SET", SERVICE, "auth-pass", word]).await;
        }
        for (key, value) in [("down-after-milliseconds", "500"), ("failover-timeout", "2000")] {
            sentinel.cli(&["SENTINEL", "SET", SERVICE, key, value]).await;
        }
        sentinel
    }

    async fn knows_everybody(&self, sentinel: &RedisServer) -> bool {
        let known = sentinel.info("master0").await;
        known.contains("status=ok")
            && known.contains(&format!("slaves={}", self.servers.len() - 1))
            && known.contains(&format!("sentinels={}", self.sentinels.len()))
    }

    /// The address of the service.
    pub fn url(&self) -> String {
        let hosts: Vec<String> = self.sentinels.iter().map(|one| format!("127.0.0.1:{}", one.port())).collect();
        format!("{}+sentinel://{}/{SERVICE}", self.servers[0].scheme(), hosts.join(","))
    }

    /// The port that most sentinels name as the primary's, when they agree.
    ///
    /// # Panics
    /// When `redis-cli` is missing.
    pub async fn primary(&self) -> Option<u16> {
        let mut named = Vec::new();
        for sentinel in &self.sentinels {
            let said = sentinel.cli(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE]).await;
            named.push(said.lines().nth(1)?.parse::<u16>().ok()?);
        }
        let first = *named.first()?;
        named.iter().all(|port| *port == first).then_some(first)
    }
}

/// The value of a setting that goes with TLS.
const fn yes(tls: Option<&Certificates>) -> &'static str {
    if tls.is_some() { "yes" } else { "no" }
}

/// A cluster: its nodes notice a dead one after one second.
#[derive(Debug)]
pub struct ClusterSet {
    /// First the primaries, each with an equal share of the slots, then their replicas.
    pub nodes: Vec<RedisServer>,
    primaries: usize,
    tls: Option<Certificates>,
}

impl ClusterSet {
    /// Starts a cluster and waits until each node finds it whole.
    ///
    /// # Panics
    /// When it does not become whole.
    pub async fn start(primaries: usize, replicas_each: usize) -> Self {
        Self::build(primaries, replicas_each, None).await
    }

    /// The same, where all speak nothing but TLS, among each other too.
    ///
    /// # Panics
    /// When it does not become whole.
    pub async fn with_tls(primaries: usize, replicas_each: usize) -> Self {
        Self::build(primaries, replicas_each, Some(Certificates::make())).await
    }

    async fn build(primaries: usize, replicas_each: usize, tls: Option<Certificates>) -> Self {
        let mut nodes = Vec::new();
        for _ in 0..primaries * (1 + replicas_each) {
            nodes.push(Self::node(tls.as_ref()).await);
        }
        let set = Self { nodes, primaries, tls };
        let share = 16_384 / primaries;
        for (nth, node) in set.nodes.iter().enumerate() {
            node.cli(&["CLUSTER", "SET-CONFIG-EPOCH", &(nth + 1).to_string()]).await;
            if nth < primaries {
                let last = if nth + 1 == primaries { 16_383 } else { (nth + 1) * share - 1 };
                let said = node.cli(&["CLUSTER", "ADDSLOTSRANGE", &(nth * share).to_string(), &last.to_string()]).await;
                assert_eq!(said, "OK");
            }
        }
        for node in set.nodes.iter().skip(1) {
            set.introduce(node).await;
        }
        for node in &set.nodes {
            until("all nodes know each other", || set.is_whole(node)).await;
        }
        for nth in primaries..set.nodes.len() {
            let primary = set.id(nth % primaries).await;
            assert_eq!(set.nodes[nth].cli(&["CLUSTER", "REPLICATE", &primary]).await, "OK");
        }
        for node in set.nodes.iter().skip(primaries) {
            until("a replica follows", || async { node.info("master_link_status").await == "up" }).await;
        }
        for primary in 0..primaries {
            let wanted = replicas_each.to_string();
            until("a primary has its replicas", || async {
                set.nodes[primary].info("connected_slaves").await == wanted
            })
            .await;
        }
        set
    }

    async fn node(tls: Option<&Certificates>) -> RedisServer {
        let bus = free_port().to_string();
        let args = ["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-node-timeout", "1000"];
        let more = ["--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0"];
        let encrypted = ["--tls-cluster", yes(tls), "--tls-replication", yes(tls)];
        RedisServer::launch(&[&args[..], &more[..], &encrypted[..]].concat(), &[], None, tls).await
    }

    async fn introduce(&self, node: &RedisServer) {
        let bus = node.args[3].clone();
        let said = self.nodes[0].cli(&["CLUSTER", "MEET", "127.0.0.1", &node.port().to_string(), &bus]).await;
        assert_eq!(said, "OK");
    }

    async fn is_whole(&self, node: &RedisServer) -> bool {
        let info = node.cli(&["CLUSTER", "INFO"]).await;
        info.contains("cluster_state:ok") && info.contains(&format!("cluster_known_nodes:{}", self.nodes.len()))
    }

    /// Adds a primary without slots and returns its place in `nodes`.
    ///
    /// # Panics
    /// When it is not made welcome.
    pub async fn grow(&mut self) -> usize {
        let node = Self::node(self.tls.as_ref()).await;
        self.introduce(&node).await;
        self.nodes.push(node);
        for node in &self.nodes {
            until("all nodes know the new one", || self.is_whole(node)).await;
        }
        self.nodes.len() - 1
    }

    /// The id of a node.
    ///
    /// # Panics
    /// When `redis-cli` is missing.
    pub async fn id(&self, node: usize) -> String {
        self.nodes[node].cli(&["CLUSTER", "MYID"]).await
    }

    /// Moves `slot` with its keys from one node to another, as an operator's tool would: while it is on its way, keys
    /// are on either side.
    ///
    /// # Panics
    /// When a node refuses.
    pub async fn move_slot(&self, slot: u16, from: usize, to: usize) {
        self.begin_move(slot, from, to).await;
        self.finish_move(slot, from, to).await;
    }

    /// Opens `slot` for moving and moves nothing yet.
    ///
    /// # Panics
    /// When a node refuses.
    pub async fn begin_move(&self, slot: u16, from: usize, to: usize) {
        let (slot, source, target) = (slot.to_string(), self.id(from).await, self.id(to).await);
        let opened = self.nodes[to].cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source]).await;
        assert_eq!(opened, "OK");
        let opened = self.nodes[from].cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target]).await;
        assert_eq!(opened, "OK");
    }

    /// Moves the keys of a slot that was opened, and closes it.
    ///
    /// # Panics
    /// When a node refuses.
    pub async fn finish_move(&self, slot: u16, from: usize, to: usize) {
        self.carry_keys(slot, from, to).await;
        self.close_move(slot, from, to).await;
    }

    /// Moves the keys of a slot that was opened, and leaves it open.
    ///
    /// # Panics
    /// When a node refuses.
    pub async fn carry_keys(&self, slot: u16, from: usize, to: usize) {
        let port = self.nodes[to].port().to_string();
        loop {
            let keys = self.keys_in(slot, from).await;
            if keys.is_empty() {
                break;
            }
            let mut migrate = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            migrate.extend(keys.iter().map(String::as_str));
            let moved = self.nodes[from].cli(&migrate).await;
            assert!(moved == "OK" || moved == "NOKEY", "{moved}");
        }
    }

    /// Closes a slot whose keys were moved: it belongs to `to`.
    ///
    /// # Panics
    /// When a node refuses.
    pub async fn close_move(&self, slot: u16, from: usize, to: usize) {
        let (slot, target) = (slot.to_string(), self.id(to).await);
        for node in [to, from] {
            assert_eq!(self.nodes[node].cli(&["CLUSTER", "SETSLOT", &slot, "NODE", &target]).await, "OK");
        }
    }

    /// A hundred at most of the keys that a node has in a slot.
    ///
    /// # Panics
    /// When `redis-cli` is missing.
    pub async fn keys_in(&self, slot: u16, node: usize) -> Vec<String> {
        let keys = self.nodes[node].cli(&["CLUSTER", "GETKEYSINSLOT", &slot.to_string(), "100"]).await;
        keys.lines().filter(|key| !key.is_empty()).map(str::to_owned).collect()
    }

    /// The slots in which one of the primaries of the start has keys, and which it is.
    ///
    /// # Panics
    /// When `redis-cli` is missing.
    pub async fn used_slots(&self) -> BTreeMap<u16, usize> {
        let mut used = BTreeMap::new();
        for (nth, node) in self.nodes.iter().enumerate().take(self.primaries) {
            for key in node.cli(&["KEYS", "*"]).await.lines().filter(|key| !key.is_empty()) {
                let slot = node.cli(&["CLUSTER", "KEYSLOT", key]).await;
                used.insert(slot.parse().expect("a slot"), nth);
            }
        }
        used
    }

    /// The address of the cluster: its primaries at start.
    pub fn url(&self) -> String {
        let hosts: Vec<String> =
            self.nodes.iter().take(self.primaries).map(|node| format!("127.0.0.1:{}", node.port())).collect();
        format!("{}+cluster://{}", self.nodes[0].scheme(), hosts.join(","))
    }
}
