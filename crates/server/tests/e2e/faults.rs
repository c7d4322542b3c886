//! What goes wrong around a server: it says so, and nothing acknowledged is lost.

use std::path::Path;
use std::process::Command;

use bartizan_testkit::{Finished, Launch, StackKind, passphrase};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{launch, server};

async fn dev(launch: &Launch, listen: &str) -> Finished {
    let dir = launch.home_dir().dir();
    launch.command(&["dev", "--listen", listen, "--ops-listen", "127.0.0.1:0", "--dir", dir.to_str().unwrap()]).await
}

async fn serve(launch: &Launch) -> Finished {
    let config = launch.home_dir().config();
    launch.command(&["serve", "--config", config.to_str().unwrap()]).await
}

/// A stopped server's directory, ready to be spoilt.
async fn stopped() -> Launch {
    let mut server = server().await;
    server.sigterm();
    assert_eq!(server.ended().await, Some(0), "{}", server.log());
    launch().home(server.home())
}

fn database(launch: &Launch) -> std::path::PathBuf {
    let data = launch.home_dir().dir().join("data");
    crate::secrets::files(&data)
        .into_iter()
        .find(|file| file.extension().is_some_and(|e| e == "db"))
        .expect("a database")
}

#[tokio::test]
async fn each_way_of_ending_a_session_is_durable_before_the_answer() {
    for way in ["logout", "all", "delete", "password", "disable", "revoke"] {
        let server = server().await;
        let owner = server.owner().await;
        let user = server.user(&owner, "member", "mem@acme.example").await;
        let who = user.client.get("/v1/whoami").await.expect(200);
        match way {
            "logout" => drop(user.client.post("/v1/logout", json!({})).await.expect(204)),
            "all" => drop(user.client.post("/v1/logout", json!({ "all": true })).await.expect(204)),
            "delete" => {
                let other = server.login(&server.tenant, "mem@acme.example", &passphrase("member")).await;
                drop(other.client.delete(&format!("/v1/sessions/{}", who.text("session"))).await.expect(204));
            }
            "password" => {
                let other = server.login(&server.tenant, "mem@acme.example", &passphrase("member")).await;
                let change = json!({ "current": passphrase("member"), "new": passphrase("other") });
                drop(other.client.post("/v1/me/password", change).await.expect(204));
            }
            "disable" => {
                let path = format!("/v1/users/{}", who.text("sub"));
                drop(owner.client.patch(&path, json!({ "status": "disabled" })).await.expect(200));
            }
            _ => drop(user.client.form("/oauth/revoke", &format!("token={}", user.access)).await.expect(200)),
        }
        let server = server.restart().await;
        drop(server.client().bearer(&user.access).get("/v1/whoami").await.problem(401));
        if way != "revoke" {
            let refresh = json!({ "refresh_token": user.refresh });
            drop(server.client().post("/v1/token/refresh", refresh).await.problem(401));
        }
        drop(server.client().bearer(&owner.access).get("/v1/whoami").await.expect(200));
    }
}

#[tokio::test]
async fn what_was_acknowledged_before_kill_minus_nine_is_there_after() {
    let mut server = server().await;
    let owner = server.owner().await;
    for round in 0..3 {
        let client = server.client().bearer(&owner.access);
        let mut running = tokio::task::JoinSet::new();
        for n in 0..6 {
            let client = client.clone();
            running.spawn(async move {
                let name = format!("Tenant {round} {n}");
                let body = json!({ "email": format!("r{round}n{n}@acme.example"), "name": name, "role": "member", "password": passphrase("r") });
                client.post("/v1/users", body).await.expect(201).text("id")
            });
        }
        // The first acknowledgement is the signal: the others are cut off wherever they are.
        let first = running.join_next().await.unwrap().unwrap();
        running.abort_all();
        server = server.restart().await;
        let client = server.client().bearer(&owner.access);
        drop(client.get(&format!("/v1/users/{first}")).await.expect(200));
        let made = client.get("/v1/audit?action=user.created&limit=100").await.expect(200).items().len();
        let users = client.get("/v1/users?limit=100").await.expect(200).items().len();
        // The owner came with the tenant; every other user has his row, and no row lacks its user.
        assert_eq!(users, made + 1, "users and audit rows disagree");
    }
}

#[tokio::test]
async fn sigterm_lets_a_request_in_flight_finish() {
    let mut server = server().await;
    let body = json!({ "tenant": server.tenant, "email": server.email, "password": server.password }).to_string();
    let mut socket = TcpStream::connect(server.api.trim_start_matches("http://")).await.unwrap();
    let head = format!(
        "POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    // "100 Continue" means that a handler waits for the body: the request is in flight.
    let mut interim = [0; 25];
    socket.read_exact(&mut interim).await.unwrap();
    assert!(interim.starts_with(b"HTTP/1.1 100"), "{}", String::from_utf8_lossy(&interim));
    server.sigterm();
    socket.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("access_token"), "{answer}");
    assert_eq!(server.ended().await, Some(0));
    assert!(TcpStream::connect(server.api.trim_start_matches("http://")).await.is_err());
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let finished = dev(&launch(), &address.to_string()).await;
    drop(finished.refused(&["in use", &address.port().to_string()]));
}

#[tokio::test]
async fn an_unknown_key_is_named_with_its_place_and_stops_the_start() {
    let launch = stopped().await;
    let config = launch.home_dir().config();
    let mut text = std::fs::read_to_string(&config).unwrap();
    text.push_str("\n[limit]\nper_minuets = 3\n");
    std::fs::write(&config, text).unwrap();
    let finished = serve(&launch).await.refused(&["bartizan.toml", "limit"]);
    assert_eq!(finished.code, Some(3));
    let checked = launch.command(&["config", "check", "--config", config.to_str().unwrap()]).await;
    assert_eq!(checked.code, Some(3), "{checked:?}");
}

#[tokio::test]
async fn a_corrupt_configuration_is_named_with_its_place() {
    let launch = stopped().await;
    std::fs::write(launch.home_dir().config(), "[server\nlisten = ").unwrap();
    assert_eq!(serve(&launch).await.refused(&["bartizan.toml"]).code, Some(3));
}

#[tokio::test]
async fn an_unknown_variable_is_named() {
    let launch = launch().set("LIMITS__TIERS__FREE__PER_MINUTES", "3");
    drop(dev(&launch, "127.0.0.1:0").await.refused(&["BARTIZAN__LIMITS__TIERS__FREE__PER_MINUTES"]));
}

/// Runs Python's sqlite3 on a file: the tests need Python anyway, and no crate more.
fn sql(file: &Path, statement: &str) {
    let script = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.executescript(sys.argv[2]); c.commit()";
    let status = Command::new("python3").arg("-c").arg(script).arg(file).arg(statement).status().expect("python3");
    assert!(status.success());
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_left_alone() {
    let launch = stopped().await;
    let newer = "UPDATE schema_version SET version = 9999 WHERE version = (SELECT max(version) FROM schema_version)";
    if StackKind::of_this_run() == StackKind::Embedded {
        let file = database(&launch);
        sql(&file, newer);
        let before = std::fs::read(&file).unwrap();
        drop(serve(&launch).await.refused(&["newer"]));
        assert_eq!(std::fs::read(&file).unwrap(), before);
    } else {
        launch.home_dir().sql(newer);
        // Each row of the schema's own tables is as it was, and no event was written.
        let held = "SELECT (SELECT max(xmin::text::bigint) FROM schema_version), (SELECT count(*) FROM audit), \
                    (SELECT max(xmin::text::bigint) FROM pg_class), (SELECT max(xmin::text::bigint) FROM pg_attribute)";
        let written = || launch.home_dir().sql(held);
        let before = written();
        drop(serve(&launch).await.refused(&["newer"]));
        assert_eq!(written(), before);
    }
}

#[tokio::test]
async fn a_corrupt_database_is_told_and_left_alone() {
    let launch = stopped().await;
    let file = database(&launch);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[..4096].fill(0xa5);
    std::fs::write(&file, &bytes).unwrap();
    drop(serve(&launch).await.refused(&["database"]));
    assert_eq!(std::fs::read(&file).unwrap(), bytes);
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_told() {
    // A file where the directory should be: refused for everybody, the superuser included.
    let launch = launch();
    std::fs::write(launch.home_dir().dir(), "in the way").unwrap();
    drop(dev(&launch, "127.0.0.1:0").await.refused(&["Türme 1"]));
    assert_eq!(std::fs::read_to_string(launch.home_dir().dir()).unwrap(), "in the way");
}

#[tokio::test]
async fn two_servers_do_not_share_one_directory() {
    let server = server().await;
    drop(dev(&launch().home(server.home()), "127.0.0.1:0").await.refused(&["already"]));
    drop(server.owner().await);
}

#[tokio::test]
async fn a_full_disk_refuses_changes_and_loses_nothing() {
    let first = server().await;
    let owner = first.owner().await;
    let home = first.home().clone();
    let mut first = first;
    first.sigterm();
    assert_eq!(first.ended().await, Some(0));
    let password = first.password.clone();
    let full = launch().home(&home).largest_file(1024).start().await;
    let client = full.client().bearer(&owner.access);
    let mut kept = String::from("nothing");
    let mut refused = None;
    for n in 0..5_000 {
        let name = format!("Acme {n}");
        let answer = client.patch("/v1/tenant", json!({ "name": name })).await;
        if answer.status != 200 {
            refused = Some(answer);
            break;
        }
        kept = name;
    }
    let refused = refused.expect("the disk never filled up");
    assert!(matches!(refused.status, 503 | 507), "{}", refused.status);
    drop(refused.problem(503));
    drop(client.get("/v1/whoami").await.expect(200));
    drop(full);
    let mut after = launch().home(&home).start().await;
    after.password = password;
    let client = after.client().bearer(&owner.access);
    assert_eq!(client.get("/v1/tenant").await.expect(200).text("name"), kept);
    drop(client.patch("/v1/tenant", json!({ "name": "Room again" })).await.expect(200));
}

#[tokio::test]
async fn sighup_takes_over_what_can_be_taken_over() {
    let launch = launch().default_limits();
    let (dir, config) = (launch.home_dir().dir(), launch.home_dir().config());
    drop(launch.command(&["init", "--dir", dir.to_str().unwrap()]).await.success());
    let limits = |n: u32| {
        let tier = format!("[limits.tiers.free]\nper_minute = {n}\nburst = {n}\n");
        let address = "[limits.address]\nper_minute = 1000000\nburst = 1000000\n";
        std::fs::write(&config, format!("{tier}{address}")).unwrap();
    };
    limits(100_000);
    let server = launch.start().await;
    let user = server.signup("globex").await.client;
    let policy = async || user.get("/v1/whoami").await.expect(200).header("ratelimit-policy").to_owned();
    let before = policy().await;
    assert!(before.contains("q=100000"), "{before}");
    limits(90_000);
    server.sighup();
    let mut looks = 0;
    while policy().await == before {
        looks += 1;
        assert!(looks < 50_000, "still {before}\n{}", server.log());
    }
    let now = policy().await;
    assert!(now.contains("q=90000"), "{now}");
    // A faulty file changes nothing, and the log says where the fault is.
    limits(0);
    server.sighup();
    while !server.log().contains("per_minute") {
        assert_eq!(policy().await, now);
    }
    assert_eq!(policy().await, now);
}
