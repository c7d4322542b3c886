//! One running server in a directory of its own.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;

use crate::fleet::secret;
use crate::program::{Finished, clean, run};
use crate::stack::Share;
use crate::{Client, DEADLINE, PostgresServer, StackKind};

/// A directory that goes when the last owner does. The server's part of it has a space and non-ASCII letters in its
/// name, so that every test also proves that paths may have them.
///
/// Where the tests run on servers ([`StackKind::of_this_run`]), it also stands for a database and a prefix of keys there.
#[derive(Clone, Debug)]
pub struct Home(Arc<Place>);

#[derive(Debug)]
struct Place {
    dir: TempDir,
    shared: OnceCell<Arc<Share>>,
}

impl Home {
    /// A new, empty directory.
    ///
    /// # Panics
    /// When none can be made.
    pub fn new() -> Self {
        Self::with(OnceCell::new())
    }

    /// A new, empty directory for what this one holds now: the database stays where it is.
    ///
    /// # Panics
    /// When none can be made.
    #[must_use]
    pub fn moved(&self) -> Self {
        Self::with(self.0.shared.get().map_or_else(OnceCell::new, |share| OnceCell::new_with(Some(Arc::clone(share)))))
    }

    fn with(shared: OnceCell<Arc<Share>>) -> Self {
        let dir = tempfile::Builder::new().prefix("btz").tempdir().expect("a temporary directory");
        Self(Arc::new(Place { dir, shared }))
    }

    /// The variables that name what is shared, where the tests run on servers.
    async fn shared(&self) -> Vec<(String, String)> {
        let kind = StackKind::of_this_run();
        if kind == StackKind::Embedded {
            return Vec::new();
        }
        let share = self.0.shared.get_or_init(|| async { Arc::new(Share::take(kind).await) });
        share.await.variables()
    }

    /// Runs SQL in the database it stands for where the tests run on servers; what `psql` prints.
    ///
    /// # Panics
    /// When no server has used it yet, or a statement fails.
    pub fn sql(&self, sql: &str) -> String {
        let share = self.0.shared.get().expect("a database on a server");
        share.sql_inside(sql).unwrap_or_else(|said| panic!("{sql}: {said}"))
    }

    /// The outer directory: the working directory of the program, empty but for `dir`.
    pub fn outer(&self) -> &Path {
        self.0.dir.path()
    }

    /// What is given as `--dir`.
    pub fn dir(&self) -> PathBuf {
        self.outer().join("Türme 1")
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.dir().join("bartizan.toml")
    }
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

/// A password that passes the default policy, different for each `seed`.
pub fn passphrase(seed: &str) -> String {
    format!("gravel-{seed}-lantern-72-orbit")
}

/// How a server is to be started.
#[derive(Clone, Debug)]
pub struct Launch {
    binary: PathBuf,
    home: Home,
    env: Vec<(String, String)>,
    args: Vec<String>,
    largest_file: Option<u32>,
}

/// Settings under which a test is quick and no limit is in its way, unless it asks for them.
const OPEN: &[(&str, &str)] = &[
    ("LIMITS__ADDRESS__PER_MINUTE", "60000"),
    ("LIMITS__ADDRESS__BURST", "10000"),
    ("LIMITS__TIERS__FREE__PER_MINUTE", "60000"),
    ("LIMITS__TIERS__FREE__BURST", "10000"),
    ("LIMITS__TIERS__PRO__PER_MINUTE", "60000"),
    ("LIMITS__TIERS__PRO__BURST", "10000"),
    ("LIMITS__TIERS__ENTERPRISE__PER_MINUTE", "60000"),
    ("LIMITS__TIERS__ENTERPRISE__BURST", "10000"),
    ("LIMITS__BAN__AFTER", "100000"),
    ("LIMITS__LOGIN__PER_ACCOUNT_AND_NETWORK", "10000"),
    ("LIMITS__LOGIN__PER_ACCOUNT", "10000"),
    ("LIMITS__LOGIN__PER_NETWORK", "10000"),
    ("LIMITS__LOGIN__PER_TENANT", "10000"),
];

/// The least Argon2id that the configuration accepts: what is tested is not how slow it is.
const CHEAP: &[(&str, &str)] = &[("PASSWORD__MEMORY", "19 MiB"), ("PASSWORD__PASSES", "1"), ("PASSWORD__LANES", "1")];

/// What a restart on another port must not change: tokens name their issuer.
const STABLE: &[(&str, &str)] = &[("SERVER__PUBLIC_URL", "http://127.0.0.1:8080")];

impl Launch {
    /// Will start `binary` (in the server crate's tests: `env!("CARGO_BIN_EXE_bartizan")`) in a new directory, with
    /// cheap password hashing and limits out of the way.
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        let launch =
            Self { binary: binary.into(), home: Home::new(), env: Vec::new(), args: Vec::new(), largest_file: None };
        OPEN.iter().chain(CHEAP).chain(STABLE).fold(launch, |launch, (key, value)| launch.set(key, value))
    }

    /// Sets a configuration key, such as `PASSWORD__MIN_LENGTH`, through the environment.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        let name = format!("BARTIZAN__{key}");
        self.env.retain(|(known, _)| *known != name);
        self.env.push((name, value.to_owned()));
        self
    }

    /// Sets the clock of the program, and of nothing else, so many seconds off: ahead, or behind when negative. Only what
    /// it takes for the time of day: the monotonic clock, which time-outs and sleeps go by, is left alone.
    ///
    /// # Panics
    /// When `libfaketime` is not installed (Debian: `apt-get install faketime`).
    #[must_use]
    pub fn clock_off_by(mut self, seconds: i64) -> Self {
        let variables = [
            ("LD_PRELOAD", false_time()),
            ("FAKETIME", format!("{seconds:+}")),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            // Times of files are not what this is about.
            ("NO_FAKE_STAT", "1".to_owned()),
        ];
        self.env.retain(|(known, _)| variables.iter().all(|(name, _)| known != name));
        self.env.extend(variables.map(|(name, value)| (name.to_owned(), value)));
        self
    }

    /// Keeps the truth in this server; its password goes into a file beside the program's directory.
    ///
    /// # Panics
    /// When the file cannot be written.
    #[must_use]
    pub fn database(self, server: &PostgresServer) -> Self {
        let password = self.home.outer().join("database-password");
        secret(&password, server.password());
        self.set("DATABASE__URL", &format!("postgres://bartizan@127.0.0.1:{}/bartizan", server.port()))
            .set("DATABASE__PASSWORD_FILE", password.to_str().expect("a path in UTF-8"))
    }

    /// Takes the limits as the program has them by default.
    #[must_use]
    pub fn default_limits(mut self) -> Self {
        self.env.retain(|(name, _)| !name.starts_with("BARTIZAN__LIMITS__"));
        self
    }

    /// Adds an argument to `bartizan dev`.
    #[must_use]
    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    /// Lets no file grow beyond so many KiB, as if the disk were full then.
    #[must_use]
    pub const fn largest_file(mut self, kib: u32) -> Self {
        self.largest_file = Some(kib);
        self
    }

    /// Uses the directory of an earlier server.
    #[must_use]
    pub fn home(mut self, home: &Home) -> Self {
        self.home = home.clone();
        self
    }

    /// The directory it will run in.
    pub const fn home_dir(&self) -> &Home {
        &self.home
    }

    /// Runs another command of the same program in the same directory and environment, to its end.
    pub async fn command(&self, args: &[&str]) -> Finished {
        run(&self.binary, args, &self.variables().await, self.home.outer()).await
    }

    fn names_its_database(&self) -> bool {
        self.env.iter().any(|(name, _)| name == "BARTIZAN__DATABASE__URL")
    }

    /// Its environment: what is shared, unless the test says itself what is.
    async fn variables(&self) -> Vec<(String, String)> {
        let mut all = if self.names_its_database() { Vec::new() } else { self.home.shared().await };
        all.extend(self.env.iter().cloned());
        all
    }

    /// Starts `bartizan dev` on ports of its own and waits until it is ready.
    ///
    /// # Panics
    /// When it does not become ready; the message holds what it said.
    pub async fn start(self) -> Server {
        let mut command = self.largest_file.map_or_else(|| clean(&self.binary), |kib| small_disk(&self.binary, kib));
        command.current_dir(self.home.outer()).envs(self.variables().await);
        command.args(["dev", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--json", "--dir"]);
        command.arg(self.home.dir()).args(&self.args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program could not be started");
        let stderr = collect(child.stderr.take());
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let first = tokio::time::timeout(DEADLINE, lines.next_line()).await;
        let hello: Value = match first {
            Ok(Ok(Some(line))) => serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e} in first line {line:?}")),
            // Its last words may still be on their way; the end of the process is the end of them.
            _ => {
                drop(child.start_kill());
                drop(child.wait().await);
                panic!("the server did not start: {}", stderr.ended().await);
            }
        };
        // Nobody else reads the rest, and a full pipe would stop the server.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let text = |name: &str| hello[name].as_str().unwrap_or_else(|| panic!("no {name} in {hello}")).to_owned();
        let (api, ops, tenant, email) = (text("api"), text("ops"), text("tenant"), text("email"));
        let password = hello["password"].as_str().map(str::to_owned);
        let pid = child.id();
        let server = Server { api, ops, tenant, email, password, launch: self, child, pid, stderr };
        server.ready().await;
        server
    }
}

/// The library that tells a program another time.
fn false_time() -> String {
    let name = "faketime/libfaketimeMT.so.1";
    let places = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    let others = ["/usr/lib", "/usr/lib64", "/usr/local/lib"].map(PathBuf::from);
    let found = others.into_iter().chain(places).map(|place| place.join(name)).find(|path| path.is_file());
    let found = found.expect("libfaketime is needed for this test: tools/setup installs it (Debian: faketime)");
    found.to_str().expect("a path in UTF-8").to_owned()
}

/// The program under a shell that bounds the size of files: writing beyond fails with EFBIG instead of a signal.
fn small_disk(binary: &Path, kib: u32) -> Command {
    let mut command = clean(Path::new("sh"));
    // POSIX counts in blocks of 512 bytes.
    command
        .args(["-c", "trap '' XFSZ; ulimit -f \"$1\"; shift; exec \"$@\"", "sh", &(kib * 2).to_string()])
        .arg(binary);
    command
}

/// A running server. It is killed when this is dropped; its log is shown when a test fails.
#[derive(Debug)]
pub struct Server {
    /// Base address of the API.
    pub api: String,
    /// Base address of the ops listener.
    pub ops: String,
    /// The demo tenant.
    pub tenant: String,
    /// The owner's e-mail.
    pub email: String,
    /// The owner's password: known when this start created the tenant, or was told by the start before.
    pub password: Option<String>,
    launch: Launch,
    child: Child,
    pid: Option<u32>,
    stderr: Log,
}

/// A login's fruits.
#[derive(Clone, Debug)]
pub struct Session {
    /// A client that carries the access token.
    pub client: Client,
    /// The access token.
    pub access: String,
    /// The refresh token.
    pub refresh: String,
}

impl Server {
    /// A client of the API, without a credential.
    pub fn client(&self) -> Client {
        Client::new(&self.api)
    }

    /// A client of the ops listener.
    pub fn ops(&self) -> Client {
        Client::new(&self.ops)
    }

    /// The directory it runs in.
    pub const fn home(&self) -> &Home {
        &self.launch.home
    }

    /// What the server has written to its log so far.
    pub fn log(&self) -> String {
        self.stderr.text()
    }

    /// Logs the demo owner in.
    ///
    /// # Panics
    /// When that does not work.
    pub async fn owner(&self) -> Session {
        let password = self.password.clone().expect("the owner's password");
        self.login(&self.tenant, &self.email, &password).await
    }

    /// Logs somebody in.
    ///
    /// # Panics
    /// When that does not work.
    pub async fn login(&self, tenant: &str, email: &str, password: &str) -> Session {
        let body = json!({ "tenant": tenant, "email": email, "password": password });
        let answer = self.client().post("/v1/login", body).await.expect(200);
        let (access, refresh) = (answer.text("access_token"), answer.text("refresh_token"));
        Session { client: self.client().bearer(&access), access, refresh }
    }

    /// Makes a new tenant and logs its owner in.
    ///
    /// # Panics
    /// When that does not work.
    pub async fn signup(&self, tenant: &str) -> Session {
        let (email, password) = (format!("owner@{tenant}.example"), passphrase(tenant));
        let body = json!({ "tenant": tenant, "name": "Olive Owner", "email": email, "password": password });
        drop(self.client().post("/v1/signup", body).await.expect(201));
        self.login(tenant, &email, &password).await
    }

    /// Makes a user of the demo tenant with this role, through the owner, and logs him in.
    ///
    /// # Panics
    /// When that does not work.
    pub async fn user(&self, owner: &Session, role: &str, email: &str) -> Session {
        let password = passphrase(role);
        let body = json!({ "email": email, "name": "Uma User", "role": role, "password": password });
        drop(owner.client.post("/v1/users", body).await.expect(201));
        self.login(&self.tenant, email, &password).await
    }

    /// Runs an operator's command (`tenant set-tier …`) against this server, with `--json`.
    pub async fn operate(&self, args: &[&str]) -> Finished {
        let config = self.home().config();
        let mut all = args.to_vec();
        all.extend(["--json", "--config", config.to_str().expect("a path in UTF-8")]);
        self.launch.command(&all).await
    }

    /// Ends the process at once, as a power cut would, and waits until it is gone.
    ///
    /// # Panics
    /// When it cannot be killed.
    pub async fn kill9(&mut self) {
        self.child.kill().await.expect("kill");
    }

    /// Asks the process to end in good order; see [`Self::ended`].
    ///
    /// # Panics
    /// When it has ended already.
    pub fn sigterm(&self) {
        self.signal(Signal::TERM);
    }

    /// Asks the process to read its configuration again.
    ///
    /// # Panics
    /// When it has ended already.
    pub fn sighup(&self) {
        self.signal(Signal::HUP);
    }

    /// Holds the process still: it keeps its connections and does nothing.
    ///
    /// # Panics
    /// When it has ended already.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    ///
    /// # Panics
    /// When it has ended already.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// A number among the metrics, by name and labels as they are printed: `bartizan_state_up`,
    /// `bartizan_state_activity{kind="failures"}`. `None` when there is none.
    pub async fn metric(&self, series: &str) -> Option<f64> {
        let text = self.ops().try_get("/metrics").await.ok()?;
        let text = String::from_utf8_lossy(&text.body).into_owned();
        text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.trim().parse().ok())
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        kill_process(pid.expect("a running process"), signal).expect("a signal");
    }

    /// Waits for the end of the process: its exit code.
    ///
    /// # Panics
    /// When it does not end within the deadline.
    pub async fn ended(&mut self) -> Option<i32> {
        tokio::time::timeout(DEADLINE, self.child.wait()).await.expect("it runs on").expect("wait").code()
    }

    /// Kills it and starts another one in the same directory.
    pub async fn restart(mut self) -> Self {
        self.kill9().await;
        let mut next = self.launch.clone().start().await;
        next.password = next.password.take().or_else(|| self.password.take());
        next
    }

    /// Gives the next one another clock: see [`Launch::clock_off_by`].
    pub fn set_clock(&mut self, seconds: i64) {
        self.launch = self.launch.clone().clock_off_by(seconds);
    }

    /// Resident memory in KiB.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn resident_kib(&self) -> u64 {
        let pid = self.child.id().expect("a running process");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").trim().parse().expect("a number")
    }

    /// Asks until the server says it is ready.
    async fn ready(&self) {
        let probe = self.ops();
        let ask = async {
            while !matches!(probe.try_get("/readyz").await, Ok(answer) if answer.status == 200) {
                tokio::task::yield_now().await;
            }
        };
        if tokio::time::timeout(DEADLINE, ask).await.is_err() {
            panic!("not ready: {}", self.log());
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // What the library of the false time shares with nobody: a process that is killed leaves it behind.
        if let Some(pid) = self.pid.filter(|_| self.launch.env.iter().any(|(name, _)| name == "FAKETIME")) {
            for name in [format!("faketime_shm_{pid}"), format!("sem.faketime_sem_{pid}")] {
                drop(std::fs::remove_file(Path::new("/dev/shm").join(name)));
            }
        }
        // The process goes with `child`. A failed test wants to know what the server thought of it.
        if std::thread::panicking() {
            eprintln!("--- log of the server ---\n{}", self.log());
        }
    }
}

/// What a process writes, gathered while it runs.
#[derive(Debug)]
struct Log {
    lines: Arc<Mutex<String>>,
    reader: Option<tokio::task::JoinHandle<()>>,
}

impl Log {
    fn text(&self) -> String {
        self.lines.lock().expect("a lock").clone()
    }

    /// All of it, after the process ended.
    async fn ended(mut self) -> String {
        if let Some(reader) = self.reader.take() {
            drop(tokio::time::timeout(DEADLINE, reader).await);
        }
        self.text()
    }
}

fn collect(pipe: Option<impl AsyncRead + Unpin + Send + 'static>) -> Log {
    let lines = Arc::new(Mutex::new(String::new()));
    let sink = Arc::clone(&lines);
    let mut source = BufReader::new(pipe.expect("a pipe")).lines();
    let reader = tokio::spawn(async move {
        while let Ok(Some(line)) = source.next_line().await {
            let mut text = sink.lock().expect("a lock");
            text.push_str(&line);
            text.push('\n');
        }
    });
    Log { lines, reader: Some(reader) }
}
