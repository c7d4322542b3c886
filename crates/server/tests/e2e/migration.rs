//! From one machine to many: everything comes along, whatever happens on the way.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Stdio;

use bartizan_core::audit::{Actor, AuditEvent, EventKind, Origin};
use bartizan_core::id::EventId;
use bartizan_core::time::Millis;
use bartizan_store::Db;
use bartizan_testkit::{Finished, Home, PostgresServer, passphrase};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::launch;

/// The address without its password, which is in a file instead.
fn address(server: &PostgresServer) -> String {
    server.url().replace(&format!(":{}@", server.password()), "@")
}

fn password_file(home: &Home, server: &PostgresServer) -> PathBuf {
    let path = home.outer().join("database password");
    fs::write(&path, format!("{}\n", server.password())).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

/// The arguments of the command.
fn arguments(home: &Home, to: &str, password: &std::path::Path) -> Vec<String> {
    let config = home.config().display().to_string();
    let password = password.display().to_string();
    ["migrate", "embedded-to-cluster", "--json", "--config", &config, "--to", to, "--password-file", &password]
        .map(str::to_owned)
        .to_vec()
}

async fn run(home: &Home, arguments: &[&str]) -> Finished {
    launch().home(home).command(arguments).await
}

#[tokio::test]
async fn a_whole_installation_moves_to_a_database_server_and_nobody_notices() {
    let start = launch();
    let mut server = start.clone().start().await;
    let home = server.home().clone();
    let owner = server.owner().await;
    let member = server.user(&owner, "member", "mem@acme.example").await;
    let gone = server.owner().await;
    drop(gone.client.post("/v1/logout", json!({})).await.expect(204));
    let spent = server.client().post("/v1/token/refresh", json!({ "refresh_token": member.refresh })).await.expect(200);
    let trail = owner.client.get("/v1/audit").await.expect(200).items().len();

    let database = PostgresServer::start();
    let (to, password) = (address(&database), password_file(&home, &database));
    let arguments = arguments(&home, &to, &password);
    let migrate: Vec<&str> = arguments.iter().map(String::as_str).collect();

    let early = run(&home, &migrate).await.refused(&["another running server", "stop the old server"]);
    assert_eq!(early.code, Some(5));
    server.sigterm();
    assert_eq!(server.ended().await, Some(0));

    let file = home.dir().join("data/bartizan.db");
    let before = fs::read(&file).unwrap();
    let done = run(&home, &migrate).await.success();
    assert_eq!(fs::read(&file).unwrap(), before, "the source is only read");
    let told = done.json();
    assert_eq!(told["outcome"], "moved");
    for table in told["tables"].as_array().unwrap() {
        let name = table["name"].as_str().unwrap();
        let rows = database.sql("bartizan", &format!("SELECT count(*) FROM {name}"));
        assert_eq!(table["rows"].to_string(), rows, "{name}");
    }
    assert!(done.stderr.contains("database.password_file = ") && done.stderr.contains("secrets"), "{}", done.stderr);
    assert_eq!(run(&home, &migrate).await.success().json()["outcome"], "moved before");

    let next = start.set("DATABASE__URL", &to).set("DATABASE__PASSWORD_FILE", &password.display().to_string());
    let mut next = next.home(&home).start().await;
    next.password = server.password.clone();
    // Who was in is in, who was out is out, and the refresh token of before works once.
    drop(next.client().bearer(&owner.access).get("/v1/whoami").await.expect(200));
    drop(next.client().bearer(&gone.access).get("/v1/whoami").await.problem(401));
    let client = next.client();
    let refresh = |token: &str| client.post("/v1/token/refresh", json!({ "refresh_token": token }));
    drop(refresh(&gone.refresh).await.problem(401));
    let renewed = refresh(&owner.refresh).await.expect(200);
    drop(next.client().bearer(&renewed.text("access_token")).get("/v1/whoami").await.expect(200));
    drop(refresh(&spent.text("refresh_token")).await.expect(200));
    drop(next.login(&next.tenant, "mem@acme.example", &passphrase("member")).await);
    let owner = next.owner().await;
    assert!(owner.client.get("/v1/audit").await.expect(200).items().len() > trail, "the trail goes on");
    // What is revoked on the new database is numbered behind what was revoked on the old one.
    drop(owner.client.post("/v1/logout", json!({})).await.expect(204));
    let seqs = database.sql("bartizan", "SELECT count(*) = count(DISTINCT seq) AND max(seq) > 1 FROM effects");
    assert_eq!(seqs, "t");
    drop(next);

    // A database that is in use takes nobody else in.
    let mut strange = launch().start().await;
    strange.sigterm();
    let _ = strange.ended().await;
    let password = password_file(strange.home(), &database);
    let arguments = self::arguments(strange.home(), &to, &password);
    let migrate: Vec<&str> = arguments.iter().map(String::as_str).collect();
    drop(run(strange.home(), &migrate).await.refused(&["another installation"]));
}

#[tokio::test]
async fn a_move_killed_in_the_middle_goes_on_and_nothing_is_lost_or_doubled() {
    let start = launch();
    let mut server = start.clone().start().await;
    let home = server.home().clone();
    server.sigterm();
    assert_eq!(server.ended().await, Some(0));
    let origin = Origin { ip: None, request: None, node: "n1".into() };
    let event = |n: u64| AuditEvent {
        id: EventId::new(Millis(1_700_000_000_000), u128::from(n).to_be_bytes()[6..].try_into().unwrap()),
        at: Millis(1_700_000_000_000),
        tenant: None,
        actor: Actor::Operator,
        origin: origin.clone(),
        kind: EventKind::ConfigReloaded,
    };
    let db = Db::open("sqlite:bartizan.db", &home.dir().join("data")).await.unwrap();
    let _ = db.record_all(&(1..=24_000).map(event).collect::<Vec<_>>()).await.unwrap();
    db.close().await;
    drop(db);

    let database = PostgresServer::start();
    let (to, password) = (address(&database), password_file(&home, &database));
    let arguments = arguments(&home, &to, &password);
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_bartizan"))
        .args(&arguments)
        .current_dir(home.outer())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        if line.starts_with("copying audit: ") {
            break;
        }
    }
    child.kill().await.unwrap();
    let there = || database.sql("bartizan", "SELECT count(*) FROM audit").parse::<u64>().unwrap();
    let unfinished = || database.sql("bartizan", "SELECT finished_at IS NULL FROM transfer");
    assert_eq!(unfinished(), "t");
    assert!((1..24_000).contains(&there()), "{}", there());

    // Nobody serves half an installation.
    let half = [("DATABASE__URL", to.clone()), ("DATABASE__PASSWORD_FILE", password.display().to_string())];
    let half = half.iter().fold(start.clone(), |start, (key, value)| start.set(key, value)).home(&home);
    let config = home.config().display().to_string();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--config", &config];
    drop(half.command(&serve).await.refused(&["not all of it is here"]));

    let migrate: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = run(&home, &migrate).await.success();
    assert_eq!(unfinished(), "f");
    assert!(there() > 24_000);
    let audit =
        done.json()["tables"].as_array().unwrap().iter().find(|t| t["name"] == "audit").unwrap()["rows"].clone();
    assert_eq!(audit.to_string(), there().to_string());
}
