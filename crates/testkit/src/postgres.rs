//! A PostgreSQL server of one's own, which a test may kill, stop and freeze.
//!
//! Data directories are copied from one that `initdb` made the first time on this machine, so a start takes well under a
//! second. The server keeps its promises (`fsync` is on) and demands a password; it ends with the test, even when the
//! test is killed.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::DEADLINE;
use crate::guard::Guard;

/// The user of the database, its superuser.
const USER: &str = "bartizan";
/// The name under which a standby follows.
const STANDBY: &str = "standby";
/// Never to be seen in a log or an error.
const PASSWORD_FILE: &str = "password";

/// A running, or just killed, server. Ends when dropped.
pub struct PostgresServer {
    dir: TempDir,
    binaries: PathBuf,
    owner: Option<Owner>,
    password: String,
    port: u16,
    extra: Vec<String>,
    postmaster: Option<Child>,
    guard: Option<Guard>,
}

/// The user the server runs as: it refuses to be root.
#[derive(Clone, Copy)]
struct Owner {
    uid: u32,
    gid: u32,
}

impl PostgresServer {
    /// Starts a server with a database `bartizan`, on a free port of 127.0.0.1 and a socket in its directory.
    ///
    /// # Panics
    /// When PostgreSQL is not installed (Debian: `apt-get install postgresql`), or does not start.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with settings, each `name=value`.
    ///
    /// # Panics
    /// As [`PostgresServer::start`].
    pub fn start_with(settings: &[&str]) -> Self {
        let binaries = binaries();
        let owner = owner();
        let template = template(&binaries, owner);
        let dir = tempfile::Builder::new().prefix("btzpg").tempdir().expect("a temporary directory");
        give(dir.path(), owner);
        let copied = as_owner(Command::new("cp"), owner)
            .arg("-a")
            .arg(template.join("data"))
            .arg(dir.path().join("data"))
            .status()
            .expect("cp");
        assert!(copied.success(), "the data directory could not be copied");
        let password = fs::read_to_string(template.join(PASSWORD_FILE)).expect("the password of the template");
        let extra = settings.iter().map(|setting| (*setting).to_owned()).collect();
        Self { dir, binaries, owner, password, port: 0, extra, postmaster: None, guard: None }.begin()
    }

    /// A standby of this server, as an operator makes one: a copy that follows it through `link`, which is the port of a
    /// proxy that leads here. Nobody waits for it yet: see [`PostgresServer::wait_for_standby`].
    ///
    /// # Panics
    /// When it cannot be made, or does not start.
    pub fn standby(&self, link: u16) -> Self {
        let dir = tempfile::Builder::new().prefix("btzpg").tempdir().expect("a temporary directory");
        give(dir.path(), self.owner);
        let from = format!("host=127.0.0.1 port={link} user={USER} application_name={STANDBY}");
        let copied = as_owner(Command::new(self.binaries.join("pg_basebackup")), self.owner)
            .args(["-d", &from, "--checkpoint=fast", "--wal-method=stream", "--write-recovery-conf", "-D"])
            .arg(dir.path().join("data"))
            .env("PGPASSWORD", &self.password)
            .stdin(Stdio::null())
            .output()
            .expect("pg_basebackup");
        assert!(copied.status.success(), "pg_basebackup: {}", String::from_utf8_lossy(&copied.stderr));
        let (binaries, password, extra) = (self.binaries.clone(), self.password.clone(), self.extra.clone());
        Self { dir, binaries, owner: self.owner, password, port: 0, extra, postmaster: None, guard: None }.begin()
    }

    /// From here on nothing is committed that the standby has not on its disk.
    ///
    /// # Panics
    /// When there is no standby that follows.
    pub fn wait_for_standby(&self) {
        self.sql(USER, &format!("ALTER SYSTEM SET synchronous_standby_names = '{STANDBY}'"));
        self.sql(USER, "SELECT pg_reload_conf()");
        let deadline = Instant::now() + DEADLINE;
        while self.sql(USER, "SELECT sync_state FROM pg_stat_replication WHERE state = 'streaming'") != "sync" {
            assert!(Instant::now() < deadline, "no standby follows:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Makes the standby a primary; returns when it can be written.
    ///
    /// # Panics
    /// When it cannot be promoted.
    pub fn promote(&self) {
        assert_eq!(self.sql(USER, "SELECT pg_promote()"), "t", "{}", self.log());
    }

    fn begin(mut self) -> Self {
        self.guard = Some(self.guard());
        // Between asking for a free port and using it somebody else may take it.
        for attempt in 0..5 {
            self.port = free_port();
            if self.launch(attempt == 4) {
                break;
            }
        }
        self
    }

    /// The address of the database `bartizan`, with its password.
    pub fn url(&self) -> String {
        self.url_of(USER)
    }

    /// The address of another database of this server.
    pub fn url_of(&self, database: &str) -> String {
        format!("postgres://{USER}:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    /// The password of the database's user.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// The TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The directory of the socket, which is named after the port.
    pub fn socket_dir(&self) -> &Path {
        self.dir.path()
    }

    /// The data directory, such as for adding a line to `pg_hba.conf`.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// What the server said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Creates an empty database; returns its address.
    ///
    /// # Panics
    /// When it cannot be created.
    pub fn create_database(&self, name: &str) -> String {
        self.sql(USER, &format!("CREATE DATABASE \"{name}\""));
        self.url_of(name)
    }

    /// Runs SQL as the superuser in a database; returns what `psql` prints, without decoration.
    ///
    /// # Panics
    /// When a statement fails.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        psql(self.port, &self.password, database, sql).unwrap_or_else(|said| panic!("{sql}: {said}"))
    }

    /// Kills the server and all its processes at once, as a loss of power would.
    pub fn kill(&mut self) {
        let Some(mut postmaster) = self.postmaster.take() else { return };
        // Stopped first, so that it makes no more children while they are counted.
        signal(&[pid(postmaster.id())], Signal::STOP);
        let all = family(postmaster.id());
        signal(&all, Signal::KILL);
        let _ = postmaster.wait();
        let deadline = Instant::now() + DEADLINE;
        while all.iter().any(|pid| runs(*pid)) {
            assert!(Instant::now() < deadline, "a killed process stays");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Stops the server in good order, cutting connections.
    ///
    /// # Panics
    /// When it does not stop.
    pub fn stop(&mut self) {
        let Some(mut postmaster) = self.postmaster.take() else { return };
        // A "fast shutdown".
        signal(&[pid(postmaster.id())], Signal::INT);
        let _ = postmaster.wait();
    }

    /// Starts it again on the same port, after [`PostgresServer::kill`] or [`PostgresServer::stop`], or of itself.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart(&mut self) {
        self.stop();
        assert!(self.launch(true), "the server did not start again:\n{}", self.log());
    }

    /// Freezes all its processes: connections stay open, nobody answers.
    pub fn pause(&self) {
        if let Some(postmaster) = &self.postmaster {
            signal(&[pid(postmaster.id())], Signal::STOP);
            signal(&family(postmaster.id()), Signal::STOP);
        }
    }

    /// Lets them go on.
    pub fn resume(&self) {
        if let Some(postmaster) = &self.postmaster {
            signal(&family(postmaster.id()), Signal::CONT);
        }
    }

    /// Starts the server and waits until it answers; `false` when it ended at once.
    fn launch(&mut self, last: bool) -> bool {
        let log = File::options().create(true).append(true).open(self.dir.path().join("log")).expect("the log");
        let mut command = as_owner(Command::new(self.binaries.join("postgres")), self.owner);
        command.arg("-D").arg(self.data_dir()).args(["-p", &self.port.to_string()]);
        let socket = format!("unix_socket_directories={}", self.dir.path().display());
        let settings = ["listen_addresses=127.0.0.1", "shared_buffers=16MB", "max_connections=50", "fsync=on"];
        for setting in settings.into_iter().chain([socket.as_str()]).chain(self.extra.iter().map(String::as_str)) {
            command.args(["-c", setting]);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("the log")).stderr(log);
        // Not in the test's group, so that only this object signals it.
        let mut postmaster = command.process_group(0).spawn().expect("postgres starts");
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = postmaster.try_wait().expect("the state of postgres") {
                assert!(!last, "postgres ended with {status}:\n{}", self.log());
                return false;
            }
            // The eighth line of the file says how far it has come.
            let file = fs::read_to_string(self.data_dir().join("postmaster.pid")).unwrap_or_default();
            let ours = file.lines().next() == Some(postmaster.id().to_string().as_str());
            if ours && file.lines().nth(7).is_some_and(|state| matches!(state.trim(), "ready" | "standby")) {
                self.postmaster = Some(postmaster);
                return true;
            }
            assert!(Instant::now() < deadline, "postgres does not get ready:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends the server and removes its directory when this process is killed.
    fn guard(&self) -> Guard {
        let script = "server=$(head -n 1 \"$1/data/postmaster.pid\") && \
                      kill -9 \"$server\" $(ps -o pid= --ppid \"$server\"); rm -rf \"$1\"";
        Guard::start(script, [self.dir.path()])
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(self.dir.path());
    }
}

/// Runs SQL as the superuser of the server on `port`: what `psql` prints, or why it failed.
pub(crate) fn psql(port: u16, password: &str, database: &str, sql: &str) -> Result<String, String> {
    let output = Command::new(binaries().join("psql"))
        .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", USER, "-d", database])
        .args(["-p", &port.to_string(), "-c", sql])
        .env("PGPASSWORD", password)
        .stdin(Stdio::null())
        .output()
        .expect("psql");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Where the server's programs are.
fn binaries() -> PathBuf {
    let named = Command::new("pg_config").arg("--bindir").output().ok().filter(|output| output.status.success());
    let named = named.map(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = debian.map(|version| version.path().join("bin")).collect();
    // The newest first; the one that is named before all.
    found.sort_by_key(|path| {
        let version = path.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().parse::<u32>());
        std::cmp::Reverse(version.and_then(Result::ok))
    });
    named
        .into_iter()
        .chain(found)
        .find(|path| path.join("postgres").is_file() && path.join("initdb").is_file())
        .expect("PostgreSQL's server is needed for this test: tools/setup installs it (Debian: postgresql)")
}

/// Who runs the server: this user, or `postgres` when this is root.
fn owner() -> Option<Owner> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    let line = users.lines().find(|line| line.starts_with("postgres:")).expect("a user `postgres`: this is root");
    let mut numbers = line.split(':').skip(2).map(|number| number.parse().expect("a number"));
    Some(Owner { uid: numbers.next().expect("a uid"), gid: numbers.next().expect("a gid") })
}

fn as_owner(mut command: Command, owner: Option<Owner>) -> Command {
    if let Some(Owner { uid, gid }) = owner {
        command.uid(uid).gid(gid);
    }
    command.current_dir("/").env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("LC_ALL", "C");
    command
}

fn give(path: &Path, owner: Option<Owner>) {
    if let Some(Owner { uid, gid }) = owner {
        chown(path, Some(uid), Some(gid)).expect("chown");
    }
}

/// A data directory made once for this machine, version and user, and the password that belongs to it.
fn template(binaries: &Path, owner: Option<Owner>) -> PathBuf {
    let version = Command::new(binaries.join("postgres")).arg("--version").output().expect("postgres --version");
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    // "postgres (PostgreSQL) 15.18 (Debian …)"
    let version = version.split_whitespace().nth(2).expect("a version");
    let user = rustix::process::geteuid().as_raw();
    let cache = std::env::temp_dir().join(format!("bartizan-testkit-{user}"));
    fs::create_dir_all(&cache).expect("the cache");
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o755)).expect("the cache's mode");
    let made = cache.join(format!("postgres-{version}-2"));
    let lock = File::create(cache.join(format!("postgres-{version}.lock"))).expect("the lock of the cache");
    // Tests run side by side: the first makes it, the others wait.
    lock.lock().expect("the lock of the cache");
    if made.is_dir() {
        return made;
    }
    let dir = tempfile::Builder::new().prefix("making").tempdir_in(&cache).expect("a temporary directory");
    let mut random = [0u8; 16];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut random)).expect("random bytes");
    let password: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    fs::write(dir.path().join(PASSWORD_FILE), &password).expect("the password");
    for path in [dir.path(), &dir.path().join(PASSWORD_FILE)] {
        give(path, owner);
    }
    let output = as_owner(Command::new(binaries.join("initdb")), owner)
        .arg("-D")
        .arg(dir.path().join("data"))
        .arg("--pwfile")
        .arg(dir.path().join(PASSWORD_FILE))
        .args(["-U", USER, "-E", "UTF8", "--auth=scram-sha-256", "--no-locale", "--wal-segsize=1"])
        .output()
        .expect("initdb");
    assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
    keep_two_databases(binaries, owner, &dir.path().join("data"));
    fs::rename(dir.keep(), &made).expect("the template takes its place");
    made
}

/// Leaves only what tests need, the database `bartizan` and the one new databases are copied from: each start copies
/// them all. Done without a server.
fn keep_two_databases(binaries: &Path, owner: Option<Owner>, data: &Path) {
    let mut single = as_owner(Command::new(binaries.join("postgres")), owner)
        .args(["--single", "-D"])
        .arg(data)
        .arg("template1")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("postgres --single");
    let script = format!(
        "ALTER DATABASE postgres RENAME TO {USER}\nALTER DATABASE template0 IS_TEMPLATE false\nDROP DATABASE template0\n"
    );
    let said = single.stdin.take().map(|mut stdin| stdin.write_all(script.as_bytes()));
    assert!(matches!(said, Some(Ok(()))), "postgres --single does not listen");
    assert!(single.wait().expect("postgres --single").success(), "the databases could not be arranged");
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its number").port()
}

fn pid(number: u32) -> Pid {
    i32::try_from(number).ok().and_then(Pid::from_raw).expect("the id of a process")
}

/// A process and its children, which each have a group of their own.
fn family(parent: u32) -> Vec<Pid> {
    let mut all = vec![pid(parent)];
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        // After the name in parentheses: state, parent.
        let of = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)).map(str::to_owned);
        let id = entry.file_name().to_string_lossy().parse::<u32>();
        if let (Some(of), Ok(id)) = (of, id)
            && of == parent.to_string()
        {
            all.push(pid(id));
        }
    }
    all
}

/// Whether the process is there and more than a corpse that nobody has collected yet.
fn runs(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

fn signal(all: &[Pid], what: Signal) {
    for pid in all {
        // One may have ended by itself.
        let _ = kill_process(*pid, what);
    }
}
