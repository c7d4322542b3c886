//! A server as a process: start, announcement, administration, reload, stop.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use bartizan::clock::Clock;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{bartizan, last_seen, note_last_seen, run, text};

/// Long enough for a loaded machine; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running `bartizan`, ended with the test.
struct Server {
    child: Child,
    out: Receiver<String>,
    log: Receiver<String>,
    heard: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(source: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(source).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

impl Server {
    fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = bartizan(arguments);
        command.envs(environment.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (out, log) = (lines(child.stdout.take().unwrap()), lines(child.stderr.take().unwrap()));
        Self { child, out, log, heard: String::new() }
    }

    fn dev(dir: &Path) -> (Self, Value) {
        let server = Self::start(
            &["dev", "--dir", text(dir), "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--json"],
            &[],
        );
        let line =
            server.out.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no announcement: {}", server.everything()));
        (server, serde_json::from_str(&line).unwrap())
    }

    fn everything(&self) -> String {
        self.log.try_iter().collect::<Vec<_>>().join("\n")
    }

    /// Waits for a line of the log that holds `part`.
    fn hear(&mut self, part: &str) -> String {
        loop {
            let line = self.log.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no `{part}` in: {}", self.heard));
            self.heard.push_str(&line);
            self.heard.push('\n');
            if line.contains(part) {
                return line;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Exit code, and all that was logged.
    fn end(mut self) -> (Option<i32>, String) {
        let status = self.child.wait().unwrap();
        let rest: Vec<_> = self.log.iter().collect();
        (status.code(), format!("{}{}", self.heard, rest.join("\n")))
    }
}

fn fetch(base: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(base.strip_prefix("http://").unwrap()).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn dev_announces_itself_once_with_a_password_and_reuses_everything_later() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("neu & größer");
    let (server, hello) = Server::dev(&dir);
    let keys: Vec<_> = hello.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["api", "email", "ops", "password", "tenant"]);
    assert_eq!((&hello["tenant"], &hello["email"]), (&"acme".into(), &"owner@acme.example".into()));
    let password = hello["password"].as_str().unwrap().to_owned();
    assert!(password.len() >= 15);
    assert!(!fetch(hello["api"].as_str().unwrap(), "/v1/whoami").starts_with("HTTP/1.1 5"));
    assert!(fetch(hello["ops"].as_str().unwrap(), "/healthz").starts_with("HTTP/1.1 200"));
    server.signal(Signal::TERM);
    let (exit, log) = server.end();
    assert_eq!(exit, Some(0), "{log}");
    assert!(log.contains("told to stop") && !log.contains(&password), "{log}");
    assert!(!dir.join("data/admin.sock").exists());

    let (server, hello) = Server::dev(&dir);
    assert_eq!(hello["password"], Value::Null);
    server.signal(Signal::INT);
    assert_eq!(server.end().0, Some(0));
}

#[test]
fn dev_makes_the_tenant_that_an_interrupted_first_start_did_not() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("d");
    // As after a crash between creating the installation and creating the tenant.
    run(&["init", "--dir", text(&dir)]);
    let (server, hello) = Server::dev(&dir);
    assert!(hello["password"].is_string(), "{hello}");
    server.signal(Signal::TERM);
    server.end();
    // As after a crash between creating the tenant and announcing its password.
    fs::write(dir.join("data/demo-password"), "waiting-to-be-told").unwrap();
    let (server, hello) = Server::dev(&dir);
    assert_eq!(hello["password"], "waiting-to-be-told");
    drop(server);
    assert_eq!(Server::dev(&dir).1["password"], Value::Null);
}

#[test]
fn dev_starts_again_after_being_killed() {
    let temp = tempfile::tempdir().unwrap();
    let (server, _) = Server::dev(temp.path());
    server.signal(Signal::KILL);
    server.end();
    assert!(temp.path().join("data/admin.sock").exists());
    let (_server, hello) = Server::dev(temp.path());
    assert_eq!(hello["password"], Value::Null);
}

#[test]
fn a_running_server_is_administered_through_its_socket() {
    let temp = tempfile::tempdir().unwrap();
    let (_server, _) = Server::dev(temp.path());
    let config = temp.path().join("bartizan.toml");
    let ask = |arguments: &[&str]| run(&[arguments, &["--config", text(&config), "--json"]].concat());
    let (exit, out, errors) = ask(&["tenant", "ls"]);
    assert_eq!(exit, 0, "{errors}");
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()[0]["slug"], "acme");
    let (exit, out, errors) = ask(&["tenant", "add", "other", "--name", "Ada", "--email", "ada@other.example"]);
    assert_eq!(exit, 0, "{errors}");
    assert!(serde_json::from_str::<Value>(&out).unwrap()["password"].is_string(), "{out}");
    let (exit, out, errors) = ask(&["tenant", "add", "other", "--name", "Ada", "--email", "ada@other.example"]);
    assert_eq!((exit, out.as_str()), (1, ""));
    assert!(errors.contains("tenant.slug_taken"), "{errors}");
}

#[test]
fn a_second_server_on_the_same_data_or_port_is_refused_with_5() {
    let temp = tempfile::tempdir().unwrap();
    let (_server, _) = Server::dev(temp.path());
    let config = temp.path().join("bartizan.toml");
    let (exit, out, errors) = run(&["serve", "--config", text(&config), "--listen", "127.0.0.1:0"]);
    assert_eq!((exit, out.as_str()), (5, ""));
    assert!(errors.contains("another server already uses"), "{errors}");

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let other = temp.path().join("other");
    run(&["init", "--dir", text(&other)]);
    let (exit, _, errors) = run(&["serve", "--config", text(&other.join("bartizan.toml")), "--listen", &address]);
    assert_eq!(exit, 5);
    assert!(errors.contains("is in use: choose another with --listen or `server.listen`"), "{errors}");
}

#[test]
fn a_changed_file_and_sighup_reload_what_can_be_and_name_what_cannot() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("d");
    run(&["init", "--dir", text(&dir)]);
    let config = dir.join("bartizan.toml");
    let listen = "[server]\nlisten = \"127.0.0.1:0\"\n[ops]\nlisten = \"127.0.0.1:0\"\n";
    fs::write(&config, listen).unwrap();
    let mut server = Server::start(&["serve", "--config", text(&config)], &[("BARTIZAN__LOG__FORMAT", "text")]);
    server.hear("serving");
    fs::write(&config, format!("{listen}[tokens]\naccess = \"10m\"\n[limits.ban]\nafter = 7\n")).unwrap();
    assert!(server.hear("only after a restart").contains("tokens.access"));
    server.hear("configuration reloaded");
    fs::write(&config, "[server]\nlisten = \"nowhere\"\n").unwrap();
    assert!(server.hear("the old configuration stays in force").contains("server.listen"));
    fs::write(&config, listen).unwrap();
    server.hear("configuration reloaded");
    server.signal(Signal::HUP);
    server.hear("configuration reloaded");
    server.signal(Signal::TERM);
    assert_eq!(server.end().0, Some(0));
}

#[test]
fn a_clock_set_back_is_said_at_the_start_and_not_forgotten_by_it() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("d");
    run(&["init", "--dir", text(&dir)]);
    let ahead = Clock::system().now() + Duration::from_secs(7200);
    note_last_seen(&dir, ahead);
    let config = dir.join("bartizan.toml");
    let arguments = ["serve", "--config", text(&config), "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"];
    let mut server = Server::start(&arguments, &[]);
    let line: Value = serde_json::from_str(&server.hear("the system clock is behind")).unwrap();
    assert_eq!(line["level"], "WARN");
    server.hear("serving");
    server.signal(Signal::TERM);
    assert_eq!(server.end().0, Some(0));
    // Steps back that are each small enough do not add up.
    assert_eq!(last_seen(&dir), Some(ahead));

    note_last_seen(&dir, Clock::system().now() + Duration::from_secs(30 * 3600));
    let (exit, out, errors) = run(&arguments);
    assert_eq!((exit, out.as_str()), (1, ""));
    assert!(errors.contains("set the clock (NTP) and start again"), "{errors}");

    // And when it was the earlier clock that was wrong:
    let doctor = ["doctor", "--config", text(&config), "--accept-clock"];
    let (exit, out, errors) = run(&doctor);
    assert_eq!((exit, errors.as_str()), (0, ""));
    assert!(out.starts_with("accepted: the time noted was 10"), "{out}");
    let mut server = Server::start(&arguments, &[]);
    server.hear("serving");
    let (exit, out, errors) = run(&doctor);
    assert_eq!((exit, out.as_str()), (1, ""), "not while a server runs: {errors}");
    server.signal(Signal::TERM);
    assert_eq!(server.end().0, Some(0));
    assert_eq!(run(&doctor).1, "nothing to accept: a start is not refused for this clock\n");
}
