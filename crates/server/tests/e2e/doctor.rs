//! What the doctor finds out about the servers that nodes share.

use bartizan_testkit::{Launch, PostgresServer, RedisServer};
use serde_json::Value;

use crate::launch;

/// An installation that names this database, with its password in a file.
pub(crate) async fn installed(database: &PostgresServer) -> Launch {
    let launch = launch();
    let dir = launch.home_dir().dir();
    drop(launch.command(&["init", "--dir", dir.to_str().unwrap()]).await.success());
    launch.database(database).set("SERVER__LISTEN", "127.0.0.1:0").set("OPS__LISTEN", "127.0.0.1:0")
}

/// The findings, each as its outcome, what was found and how to mend it.
pub(crate) async fn findings(launch: &Launch) -> impl Fn(&str) -> (String, String, String) + use<> {
    let config = launch.home_dir().config();
    let done = launch.command(&["doctor", "--json", "--config", config.to_str().unwrap()]).await;
    let lines: Value = done.json();
    move |check| {
        let line = lines.as_array().unwrap().iter().find(|line| line["check"] == check);
        let line = line.unwrap_or_else(|| panic!("no {check} in {lines}"));
        let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        (text("outcome"), text("found"), text("mend"))
    }
}

#[tokio::test]
async fn the_doctor_describes_the_servers_that_nodes_share_and_changes_nothing() {
    let (database, redis) = (PostgresServer::start(), RedisServer::with(&["--appendonly", "yes"]).await);
    let launch = installed(&database).await;
    let found = findings(&launch).await;
    for check in ["database", "database tls", "durability", "database clock", "connections", "permissions"] {
        assert_eq!(found(check).0, "ok", "{:?}", found(check));
    }
    assert!(found("database").1.contains("127.0.0.1"), "{:?}", found("database"));
    let (outcome, said, mend) = found("state");
    assert!(outcome == "warn" && said.contains("per process") && mend.contains("state.url"), "{said}");
    let tables = database.sql("bartizan", "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'");
    assert_eq!(tables, "0", "a look creates nothing");

    let launch = launch.set("STATE__URL", &redis.url());
    let found = findings(&launch).await;
    for check in ["state", "state memory", "persistence", "replicas", "state clock", "state tls"] {
        assert_eq!(found(check).0, "ok", "{:?}", found(check));
    }
}

#[tokio::test]
async fn each_fault_of_a_shared_server_is_named_with_its_mend() {
    let reckless = PostgresServer::start_with(&["fsync=off", "max_connections=12"]);
    let launch = installed(&reckless).await;
    let found = findings(&launch).await;
    let (outcome, said, mend) = found("durability");
    assert!(outcome == "fail" && said.contains("fsync") && mend.contains("ALTER SYSTEM SET fsync = on"), "{said}");
    assert_eq!(found("connections").0, "fail", "{:?}", found("connections"));

    let forgetful = ["--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru", "--save", "", "--appendonly", "no"];
    let forgetful = RedisServer::with(&forgetful).await;
    let launch = launch.set("STATE__URL", &forgetful.url());
    let found = findings(&launch).await;
    let (outcome, said, mend) = found("state memory");
    assert!(outcome == "fail" && said.contains("allkeys-lru") && mend.contains("noeviction"), "{said}");
    let (outcome, _, mend) = found("persistence");
    assert!(outcome == "warn" && mend.contains("appendonly"), "{mend}");

    let nowhere = launch.set("DATABASE__URL", "postgres://bartizan@127.0.0.1:1/bartizan");
    let (outcome, _, mend) = findings(&nowhere).await("database");
    assert!(outcome == "fail" && mend.contains("runs"), "{mend}");
    let nowhere = nowhere.set("STATE__URL", "redis://127.0.0.1:1").set("STATE__CONNECT", "100ms");
    let (outcome, _, mend) = findings(&nowhere).await("state");
    assert!(outcome == "fail" && mend.contains("state.url"), "{mend}");
}
