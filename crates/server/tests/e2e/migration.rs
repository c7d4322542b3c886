//! From one machine to many: everything comes along, whatever happens on the way.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use bartizan_core::audit::{Actor, AuditEvent, EventKind, Origin};
use bartizan_core::id::EventId;
use bartizan_core::time::Millis;
use bartizan_store::Db;
use bartizan_testkit::{
    Answer, Finished, Home, Launch, PostgresServer, RedisServer, Server, old_redis, passphrase, until,
};
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

/// Runs the command until its progress begins a line with `at`, and kills it there.
async fn killed(home: &Home, arguments: &[String], at: &str) {
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_bartizan"))
        .args(arguments)
        .current_dir(home.outer())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    while lines.next_line().await.unwrap().is_some_and(|line| !line.starts_with(at)) {}
    child.kill().await.unwrap();
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
    killed(&home, &arguments, "copying audit: ").await;
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

/// A server in whose eyes clients are whoever a proxy says, with two requests at once and two a minute for each, and a ban
/// of half a minute after five refusals.
fn strict() -> Launch {
    launch()
        .set("PROXIES__TRUSTED", "127.0.0.1/32")
        .set("LIMITS__ADDRESS__PER_MINUTE", "2")
        .set("LIMITS__ADDRESS__BURST", "2")
        .set("LIMITS__BAN__AFTER", "5")
        .set("LIMITS__BAN__FIRST", "30s")
}

async fn ask(server: &Server, from: &str) -> Answer {
    server.client().with("x-forwarded-for", from).get("/v1/whoami").await
}

fn wait(answer: &Answer) -> Duration {
    Duration::from_secs(answer.header("retry-after").parse().unwrap())
}

/// Everything a Redis holds of limits and bans.
async fn held(redis: &RedisServer) -> Vec<String> {
    const ALL: &str = "local all = {} for _, name in ipairs(redis.call('KEYS', 'bz:{*')) do \
        all[#all + 1] = name .. ' ' .. redis.call('GET', name) end return all";
    let mut all: Vec<String> = redis.cli(&["EVAL", ALL, "0"]).await.lines().map(str::to_owned).collect();
    all.sort();
    all
}

#[tokio::test]
async fn who_is_limited_or_banned_stays_so_when_the_installation_moves() {
    let (database, redis) = (PostgresServer::start(), RedisServer::start().await);
    let (limited, banned, seen) = ("203.0.113.1", "203.0.113.2", "2001:db8:1:2::1");
    // Its clock is five minutes behind that of Redis.
    let start = strict().clock_off_by(-300);
    let mut server = start.clone().start().await;
    let home = server.home().clone();
    for from in [limited, limited, banned, banned, seen] {
        drop(ask(&server, from).await.expect(401));
    }
    while ask(&server, banned).await.problem(429).text("code") != "limit.abnormal_usage" {}
    let wait_of_ban = Instant::now() + wait(&ask(&server, banned).await.refused(429, "limit.abnormal_usage"));
    let wait_of_limit = Instant::now() + wait(&ask(&server, limited).await.refused(429, "limit.quota_exceeded"));
    server.sigterm();
    assert_eq!(server.ended().await, Some(0));

    let (to, password) = (address(&database), password_file(&home, &database));
    let mut arguments = arguments(&home, &to, &password);
    arguments.extend(["--state".to_owned(), redis.url()]);
    let migrate: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = start.clone().home(&home).command(&migrate).await.success();
    let limits = done.json()["limits"].clone();
    // Two IPv4 addresses, an IPv6 one and its wider network.
    assert_eq!((&limits["counters"], &limits["bans"], &limits["snapshot"]), (&json!(4), &json!(2), &json!("read")));
    assert_eq!(limits["written"], 6);
    assert_eq!(done.json()["set"]["state.url"], redis.url());
    assert!(done.stderr.contains("comparing limits: ") && done.stderr.contains("state.prefix"), "{}", done.stderr);

    // As when it is repeated because nobody knows whether it was done.
    let before = held(&redis).await;
    assert_eq!(before.len(), 6, "{before:?}");
    let again = start.home(&home).command(&migrate).await.success().json();
    assert_eq!((&again["outcome"], &again["limits"]["written"]), (&json!("moved before"), &json!(0)));
    assert_eq!(held(&redis).await, before);

    let next = strict().set("DATABASE__URL", &to).set("DATABASE__PASSWORD_FILE", &password.display().to_string());
    let next = next.set("STATE__URL", &redis.url()).set("STATE__TIMEOUT", "2s").home(&home).start().await;
    // With the very first request of each.
    let told = ask(&next, limited).await.refused(429, "limit.quota_exceeded");
    let close = |one: Instant, other: Instant| {
        one.saturating_duration_since(other).max(other.saturating_duration_since(one)) < Duration::from_secs(3)
    };
    assert!(close(Instant::now() + wait(&told), wait_of_limit), "{:?}", wait(&told));
    let told = ask(&next, banned).await.refused(429, "limit.abnormal_usage");
    assert!(close(Instant::now() + wait(&told), wait_of_ban), "{:?}", wait(&told));
    drop(ask(&next, seen).await.expect(401));
    drop(ask(&next, seen).await.expect(429));
    for from in ["203.0.113.3", "2001:db8:1:3::1"] {
        let statuses = [ask(&next, from).await.status, ask(&next, from).await.status, ask(&next, from).await.status];
        assert_eq!(statuses, [401, 401, 429], "a stranger has his whole burst");
    }
    // When their time comes they are admitted, each at his first try.
    until("the time of both has come", || async {
        Instant::now() > wait_of_limit.max(wait_of_ban) + Duration::from_secs(2)
    })
    .await;
    drop(ask(&next, limited).await.expect(401));
    drop(ask(&next, banned).await.expect(401));
}

#[tokio::test]
async fn failed_logins_of_a_killed_server_count_on_the_nodes_it_moves_to() {
    let (database, redis) = (PostgresServer::start(), RedisServer::start().await);
    let start = launch().set("LIMITS__LOGIN__PER_ACCOUNT_AND_NETWORK", "3");
    let mut server = start.clone().start().await;
    let home = server.home().clone();
    let guess = async |server: &Server| {
        let body = json!({ "tenant": server.tenant, "email": server.email, "password": passphrase("wrong") });
        server.client().post("/v1/login", body).await.status
    };
    assert_eq!([guess(&server).await, guess(&server).await, guess(&server).await], [401; 3]);
    server.kill9().await;
    // The database has them, to the last one; the file may be a second old, or not there yet.
    let snapshot = home.dir().join("data/limits.snapshot");
    drop(fs::remove_file(&snapshot));

    let (to, password) = (address(&database), password_file(&home, &database));
    let plain = arguments(&home, &to, &password);
    let plain: Vec<&str> = plain.iter().map(String::as_str).collect();
    let done = run(&home, &plain).await.success();
    assert_eq!(done.json()["limits"], json!(null));
    assert!(done.stderr.contains("begin anew, unless this command is run again with --state"), "{}", done.stderr);

    let url = redis.url();
    let migrate = [&plain[..], &["--state", &url]].concat();
    let done = run(&home, &migrate).await.success();
    assert_eq!(done.json()["limits"]["snapshot"], "missing");
    assert!(done.json()["limits"]["counters"].as_u64().unwrap() >= 1, "{}", done.stdout);
    // A file that cannot be used stops nothing, is told, and stays where it is.
    fs::write(&snapshot, b"BZLIM").unwrap();
    let done = run(&home, &migrate).await.success();
    assert_eq!(done.json()["limits"]["snapshot"], "unusable");
    assert!(done.stderr.contains("cannot be taken along, it is damaged"), "{}", done.stderr);
    assert_eq!(fs::read(&snapshot).unwrap(), b"BZLIM");

    let next = start.set("DATABASE__URL", &to).set("DATABASE__PASSWORD_FILE", &password.display().to_string());
    let next = next.set("STATE__URL", &url).set("STATE__TIMEOUT", "2s").home(&home).start().await;
    assert_eq!(guess(&next).await, 429);
}

#[tokio::test]
async fn a_shared_state_that_cannot_be_used_is_told_before_anything_is_moved() {
    let database = PostgresServer::start();
    let mut server = launch().start().await;
    let home = server.home().clone();
    server.sigterm();
    assert_eq!(server.ended().await, Some(0));
    let (to, password) = (address(&database), password_file(&home, &database));
    let plain = arguments(&home, &to, &password);
    let plain: Vec<&str> = plain.iter().map(String::as_str).collect();
    let locked = RedisServer::with_password("of its own").await;
    let word = home.outer().join("redis password");
    fs::write(&word, "another\n").unwrap();
    fs::set_permissions(&word, fs::Permissions::from_mode(0o600)).unwrap();
    let word = word.to_str().unwrap();
    let old = format!("redis://127.0.0.1:{}", old_redis("6.2.14").await);
    let cases: [(&[&str], &str, i32); 7] = [
        (&["--state", "embedded"], "--state must be \"redis://host\"", 2),
        (&["--state", "redis://:word@host"], "--state-password-file", 2),
        (&["--state-password-file", word], "--state <url>", 2),
        (&["--state", "redis://127.0.0.1:1"], "see that it runs, and that host and port", 1),
        (&["--state", &locked.url()], "write it into a file and name that in state.password_file", 1),
        (&["--state", &locked.url(), "--state-password-file", word], "correct state.user and the file", 1),
        (&["--state", &old], "7.0", 1),
    ];
    for (more, said, code) in cases {
        let told = run(&home, &[&plain[..], more].concat()).await.refused(&[said]);
        assert_eq!(told.code, Some(code), "{}", told.stderr);
    }
    let tables = "SELECT count(*) FROM pg_catalog.pg_tables WHERE schemaname = 'public'";
    assert_eq!(database.sql("bartizan", tables), "0");

    // One that may forget is warned of and used.
    let forgetful = RedisServer::with(&["--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru"]).await;
    let done = run(&home, &[&plain[..], &["--state", &forgetful.url()]].concat()).await.success();
    assert!(done.stderr.contains("CONFIG SET maxmemory-policy noeviction"), "{}", done.stderr);
}

#[tokio::test]
async fn a_move_of_counters_that_failed_or_was_killed_goes_on() {
    let (database, redis) = (PostgresServer::start(), RedisServer::start().await);
    let slow = strict().set("LIMITS__ADDRESS__PER_MINUTE", "1").set("LIMITS__ADDRESS__BURST", "4");
    let mut server = slow.start().await;
    let home = server.home().clone();
    // More than one load of them, and none is over within four minutes: each client has a counter.
    let clients = 600;
    for n in (0..4).flat_map(|_| 0..clients) {
        drop(ask(&server, &format!("10.0.{}.{}", n / 250, n % 250)).await.expect(401));
    }
    server.sigterm();
    assert_eq!(server.ended().await, Some(0));
    let (to, password) = (address(&database), password_file(&home, &database));
    let mut arguments = arguments(&home, &to, &password);
    arguments.extend(["--state".to_owned(), redis.url()]);
    let migrate: Vec<&str> = arguments.iter().map(String::as_str).collect();

    assert_eq!(redis.cli(&["CONFIG", "SET", "maxmemory", "1"]).await, "OK");
    let told =
        run(&home, &migrate).await.refused(&["counters were not", "full (maxmemory)", "goes on where it stopped"]);
    assert_eq!((told.code, held(&redis).await.len()), (Some(1), 0));
    assert_eq!(database.sql("bartizan", "SELECT finished_at IS NOT NULL FROM transfer"), "t");
    assert_eq!(redis.cli(&["CONFIG", "SET", "maxmemory", "0"]).await, "OK");

    killed(&home, &arguments, "copying limits: ").await;
    let there = held(&redis).await;
    let done = run(&home, &migrate).await.success().json();
    assert_eq!((&done["outcome"], &done["limits"]["counters"]), (&json!("moved before"), &json!(clients)));
    assert!(done["limits"]["written"].as_u64().unwrap() <= (clients - there.len()) as u64, "{done}");
    let all = held(&redis).await;
    assert!(all.len() == clients && there.iter().all(|entry| all.contains(entry)), "{}", all.len());
}
