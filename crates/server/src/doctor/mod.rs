//! `bartizan doctor`: looks at everything a start depends on, and says how to mend what is wrong. Changes nothing,
//! unless it is told to accept the clock.

mod database;
mod fetch;
mod grade;
mod state;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use bartizan::clock::Clock;
use bartizan::noted_time::Acceptance;
use bartizan_core::time::Millis;
use serde::Serialize;
use serde_json::json;
use tokio::net::TcpListener;

use crate::admin::{Command, client};
use crate::cli::show::{self, Form};
use crate::config::{Config, Sources};
use crate::exit::{Exit, Stop};
use crate::serve::tls::Tls;
use crate::wiring;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Ok,
    Warn,
    Fail,
}

/// One line of the report.
#[derive(Clone, Debug, Serialize)]
struct Line {
    check: &'static str,
    outcome: Outcome,
    found: String,
    mend: Option<String>,
}

fn fine(check: &'static str, found: impl Into<String>) -> Line {
    Line { check, outcome: Outcome::Ok, found: found.into(), mend: None }
}

fn warn(check: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Line {
    Line { check, outcome: Outcome::Warn, found: found.into(), mend: Some(mend.into()) }
}

fn fail(check: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Line {
    Line { check, outcome: Outcome::Fail, found: found.into(), mend: Some(mend.into()) }
}

/// Examines the installation and prints the report; fails when a check does.
pub async fn examine(sources: &Sources, form: Form) -> Result<(), Stop> {
    let config = match sources.read() {
        Ok(config) => config,
        Err(faults) => {
            let found = format!("{} faults in {}", faults.list().len(), sources.file.display());
            report(&[fail("configuration", found, "bartizan config check shows each")], form)?;
            return Err(faults.into());
        }
    };
    let running = client::ask(&config.data(), &Command::TenantLs {}).await.is_ok();
    let mut lines = vec![fine("configuration", sources.file.display().to_string()), secrets(&config)];
    lines.push(data(&config.data()));
    lines.push(disk(&config.data()));
    let settings = config.settings();
    let (found, seen) = database::examine(&settings).await;
    lines.extend(found);
    lines.extend(state::examine(&settings).await);
    lines.push(clock(seen, Clock::system().now()));
    lines.push(port(config.keys.server.listen, "server.listen", running).await);
    lines.push(port(config.keys.ops.listen, "ops.listen", running).await);
    lines.push(descriptors(config.keys.server.max_connections.0));
    lines.push(transport(&config));
    report(&lines, form)?;
    let failed = lines.iter().filter(|line| line.outcome == Outcome::Fail).count();
    match failed {
        0 => Ok(()),
        1 => Err(Stop::new(Exit::Failed, "1 check failed")),
        _ => Err(Stop::new(Exit::Failed, format!("{failed} checks failed"))),
    }
}

/// Takes this clock for right where an earlier one was ahead; says what that brought about.
pub async fn accept_clock(sources: &Sources, form: Form) -> Result<(), Stop> {
    let accepted = wiring::accept_clock(&sources.read()?.settings()).await?;
    let (ahead, ended, distrusted) = match accepted {
        Acceptance::Yes { ahead, ended, distrusted } => (ahead.as_secs(), ended, distrusted),
        Acceptance::Unneeded => (0, 0, 0),
    };
    if form == Form::Json {
        let told = json!({ "ahead_seconds": ahead, "ended_sessions": ended, "distrusted_keys": distrusted });
        return show::value(&told, form);
    }
    show::out(&match accepted {
        Acceptance::Unneeded => "nothing to accept: a start is not refused for this clock\n".to_owned(),
        Acceptance::Yes { .. } => format!(
            "accepted: the time noted was {ahead} s ahead; {ended} sessions ended, {distrusted} signing keys distrusted\n"
        ),
    })
}

fn report(lines: &[Line], form: Form) -> Result<(), Stop> {
    if form == Form::Json {
        return show::value(&json!(lines), form);
    }
    for line in lines {
        let outcome = match line.outcome {
            Outcome::Ok => "ok  ",
            Outcome::Warn => "warn",
            Outcome::Fail => "FAIL",
        };
        show::out(&format!("{outcome}  {:14}  {}\n", line.check, line.found))?;
        if let Some(mend) = &line.mend {
            show::out(&format!("                      mend: {mend}\n"))?;
        }
    }
    Ok(())
}

fn secrets(config: &Config) -> Line {
    let dir = config.secrets();
    // The directory does not matter when every secret comes from elsewhere.
    let elsewhere = config.secret_source().overrides.len() == bartizan_keys::SecretKind::ALL.len();
    match if elsewhere { Ok(None) } else { open_paths(&dir) } {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mend = "bartizan init creates them; for a second node, copy the directory of the first";
            fail("secrets", format!("{} does not exist", dir.display()), mend)
        }
        Err(error) => {
            fail("secrets", format!("{}: {error}", dir.display()), "run this as the user that runs the server")
        }
        Ok(Some(open)) => fail("secrets", format!("{} is open to other users", open), format!("chmod go= '{open}'")),
        Ok(None) => match wiring::check_secrets(&config.settings().secrets) {
            Ok(()) => fine("secrets", dir.display().to_string()),
            Err(found) => fail(
                "secrets",
                found,
                "put the right file back from the backup; a root key or pepper made anew opens nothing that exists",
            ),
        },
    }
}

/// The first of `dir` and its files that others can enter or read.
fn open_paths(dir: &Path) -> io::Result<Option<String>> {
    let open = |path: &Path| Ok::<_, io::Error>(fs::metadata(path)?.permissions().mode() & 0o077 != 0);
    if open(dir)? {
        return Ok(Some(dir.display().to_string()));
    }
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if open(&path)? {
            return Ok(Some(path.display().to_string()));
        }
    }
    Ok(None)
}

fn data(dir: &Path) -> Line {
    if !dir.exists() {
        return warn("data", format!("{} does not exist yet", dir.display()), "nothing: the first start creates it");
    }
    let probe = dir.join(format!(".doctor-{}", std::process::id()));
    match fs::write(&probe, b"probe").and_then(|()| fs::remove_file(&probe)) {
        Ok(()) => fine("data", format!("{} is writable", dir.display())),
        Err(error) => {
            let mend = "it must be writable by the user that runs the server, on a file system that is not read-only";
            fail("data", format!("{}: {error}", dir.display()), mend)
        }
    }
}

fn disk(dir: &Path) -> Line {
    let existing = dir.ancestors().find(|path| path.exists()).unwrap_or(dir);
    match rustix::fs::statvfs(existing) {
        Err(error) => warn("disk", error.to_string(), "see whether the file system is mounted"),
        Ok(space) => {
            let free = space.f_bavail.saturating_mul(space.f_frsize) >> 20;
            let found = format!("{free} MiB free");
            match free {
                0..256 => fail("disk", found, "make room: when the disk is full, nothing can be changed or logged in"),
                256..1024 => warn("disk", found, "make room soon"),
                _ => fine("disk", found),
            }
        }
    }
}

/// Small steps back are what time synchronisation does.
const TOLERATED: Duration = Duration::from_secs(60);

fn clock(seen: Option<Millis>, now: Millis) -> Line {
    match seen.map(|seen| seen.since(now)) {
        Some(back) if back > TOLERATED => fail(
            "clock",
            format!("{} s behind the time at which the server last ran", back.as_secs()),
            "set the clock right (timedatectl, chronyc): until then expired tokens may be accepted again",
        ),
        Some(_) => fine("clock", "not behind the last run"),
        None => fine("clock", "no last run to compare with, or the server runs and watches it"),
    }
}

async fn port(address: std::net::SocketAddr, key: &'static str, running: bool) -> Line {
    match TcpListener::bind(address).await {
        Ok(_) => fine(key, format!("{address} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && running => fine(key, format!("{address} is served")),
        Err(error) => fail(key, format!("{address}: {error}"), format!("stop what uses it, or change {key}")),
    }
}

fn descriptors(connections: u64) -> Line {
    let needed = connections.saturating_add(256);
    // The server raises the soft limit to the hard one by itself.
    match rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum {
        Some(limit) if limit < needed => warn(
            "descriptors",
            format!("{limit} files may be open, {needed} may be needed"),
            "raise it (LimitNOFILE= in systemd, ulimit -Hn), or lower server.max_connections",
        ),
        limit => {
            fine("descriptors", limit.map_or_else(|| "unlimited".into(), |limit| format!("{limit} files may be open")))
        }
    }
}

fn transport(config: &Config) -> Line {
    let listen = config.keys.server.listen;
    match config.tls() {
        Some((cert, key)) => match Tls::load(cert, key) {
            Ok(_) => fine("transport", "TLS with the configured certificate"),
            Err(error) => fail("transport", error.to_string(), "see [server.tls]"),
        },
        None if listen.ip().is_loopback() => fine("transport", "plain HTTP on loopback"),
        None if config.issuer().starts_with("https://") => fine("transport", "plain HTTP behind a proxy with TLS"),
        None => warn(
            "transport",
            format!("plain HTTP on {listen}: passwords and tokens travel unencrypted"),
            "configure [server.tls], or a proxy with TLS and an https server.public_url",
        ),
    }
}

/// Grades a page's security headers; fails below B.
pub async fn grade(url: &str, authorities: Option<&Path>, form: Form) -> Result<(), Stop> {
    let failed = |error: fetch::FetchError| {
        let hint = error.hint();
        Stop::new(Exit::Failed, format!("{url} cannot be graded: {error}")).hint(hint)
    };
    let trust = fetch::Trust::load(authorities).map_err(failed)?;
    let visit = fetch::visit(url, &trust).await.map_err(failed)?;
    let graded = grade::grade(&visit);
    match form {
        Form::Json => show::value(
            &json!({"url": url, "grade": graded.letter, "score": graded.score, "tests": graded.tests}),
            form,
        )?,
        Form::Text => {
            for test in &graded.tests {
                show::out(&format!("{:+4}  {:29}  {}\n", test.points, test.name, test.found))?;
            }
            show::out(&format!("\ngrade {}, score {}\n", graded.letter, graded.score))?;
        }
    }
    if graded.score < 70 {
        return Err(Stop::new(Exit::Failed, "the grade is below B"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_secret_is_named() {
        let temp = tempfile::tempdir().unwrap();
        fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(open_paths(temp.path()).unwrap(), None);
        let file = temp.path().join("root.key");
        fs::write(&file, "x").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(open_paths(temp.path()).unwrap(), Some(file.display().to_string()));
    }

    #[tokio::test]
    async fn a_port_in_use_fails_unless_our_own_server_has_it() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        assert_eq!(port(address, "server.listen", false).await.outcome, Outcome::Fail);
        assert_eq!(port(address, "server.listen", true).await.outcome, Outcome::Ok);
    }
}
