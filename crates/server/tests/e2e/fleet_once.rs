//! Once, however many nodes are asked, and whatever becomes of the database meanwhile.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bartizan_testkit::{Answer, Client, Fleet, passphrase};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::fleet;

pub(crate) fn user(email: &str) -> Value {
    json!({ "email": email, "name": "I", "role": "member", "password": passphrase("i") })
}

pub(crate) fn refresh(token: &str) -> Value {
    json!({ "refresh_token": token })
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_refreshes_over_four_nodes_have_one_successor() {
    let fleet = fleet().start(4).await;
    let session = fleet.on(0).owner().await;
    let mut running = JoinSet::new();
    for nth in 0..64 {
        let (client, body) = (fleet.on(nth % 4).client(), refresh(&session.refresh));
        running.spawn(async move { client.post("/v1/token/refresh", body).await });
    }
    let mut successors = HashSet::new();
    for answer in running.join_all().await {
        if answer.status == 200 {
            successors.insert(answer.text("refresh_token"));
        } else {
            assert!(matches!(answer.status, 401 | 503), "{}", answer.status);
        }
    }
    assert_eq!(successors.len(), 1);
    assert_eq!(fleet.sql("SELECT count(*) FROM refresh_tokens"), "2", "the first one and its successor");
}

/// A few hundred over HTTP; ten thousand of them race in the library's tests, where a login costs less.
#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_that_races_a_logout_leaves_nothing_alive() {
    let fleet = Arc::new(fleet().strict().start(2).await);
    let mut lanes = JoinSet::new();
    for lane in 0..8 {
        let fleet = Arc::clone(&fleet);
        // Changes of one tenant happen one after another.
        let tenant = format!("lane{lane}");
        lanes.spawn(async move {
            drop(fleet.on(0).signup(&tenant).await);
            for round in 0..40 {
                race_once(&fleet, &tenant, round).await;
            }
        });
    }
    lanes.join_all().await;
    let usable = "SELECT count(*) FROM refresh_tokens r JOIN sessions s ON s.tenant_id = r.tenant_id \
        AND s.id = r.session_id WHERE r.state = 'live' AND s.ended_at IS NULL";
    assert_eq!(fleet.sql(usable), "8", "one of each sign-up");
}

async fn race_once(fleet: &Fleet, tenant: &str, round: usize) {
    let (here, there) = (fleet.on(round % 2), fleet.on((round + 1) % 2));
    let session = here.login(tenant, &format!("owner@{tenant}.example"), &passphrase(tenant)).await;
    let (refreshing, ending) = (here.client(), there.client().bearer(&session.access));
    let (refreshed, ended) = tokio::join!(
        refreshing.post("/v1/token/refresh", refresh(&session.refresh)),
        ending.post("/v1/logout", json!({})),
    );
    drop(ended.expect(204));
    let mut access = vec![session.access.clone()];
    let mut tokens = vec![session.refresh.clone()];
    if refreshed.status == 200 {
        access.push(refreshed.text("access_token"));
        tokens.push(refreshed.text("refresh_token"));
    } else {
        drop(refreshed.problem(401));
    }
    for node in [here, there] {
        for token in &access {
            drop(node.client().bearer(token).get("/v1/whoami").await.problem(401));
        }
        for token in &tokens {
            drop(node.client().post("/v1/token/refresh", refresh(token)).await.problem(401));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_idempotency_key_on_four_nodes_at_once_is_one_effect() {
    let fleet = fleet().start(4).await;
    let session = fleet.on(0).owner().await;
    for round in 0..5 {
        let email = format!("once{round}@acme.example");
        let mut running = JoinSet::new();
        for nth in 0..8 {
            let client = fleet.on(nth % 4).client().bearer(&session.access);
            let (client, body) = (client.with("idempotency-key", &format!("key-{round}")), user(&email));
            running.spawn(async move { client.post("/v1/users", body).await });
        }
        let ids: HashSet<String> =
            running.join_all().await.into_iter().map(|answer| answer.expect(201).text("id")).collect();
        assert_eq!(ids.len(), 1);
    }
    assert_eq!(fleet.sql("SELECT count(*) FROM audit WHERE action = 'user.created'"), "5");
}

/// Makes one user, asking again on another node as long as the answer is one a client may ask again after.
pub(crate) async fn persist(clients: &[Client], nth: usize) -> Answer {
    let deadline = Instant::now() + bartizan_testkit::DEADLINE;
    for attempt in nth.. {
        let client = clients[attempt % clients.len()].with("idempotency-key", &format!("persist-{nth}"));
        let answer = client.post("/v1/users", user(&format!("p{nth}@acme.example"))).await;
        if answer.status == 201 {
            return answer;
        }
        let refused = answer.problem(503);
        assert!(!refused.header("retry-after").is_empty(), "503 without Retry-After: {}", refused.json());
        assert!(Instant::now() < deadline, "{}", refused.json());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    unreachable!("the attempts do not end")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_killed_under_load_loses_nothing_and_doubles_nothing() {
    let mut fleet = fleet().start(2).await;
    let session = fleet.on(0).owner().await;
    let clients: Vec<Client> = fleet.nodes.iter().map(|node| node.server.client().bearer(&session.access)).collect();
    let mut running = JoinSet::new();
    for worker in 0..4 {
        let clients = clients.clone();
        running.spawn(async move {
            let mut ids = Vec::new();
            for nth in 0..10 {
                ids.push(persist(&clients, worker * 100 + nth).await.text("id"));
            }
            ids
        });
    }
    let reading = {
        let client = clients[1].clone();
        tokio::spawn(async move {
            for _ in 0..200 {
                let answer = client.get("/v1/whoami").await;
                if answer.status != 200 {
                    assert!(!answer.problem(503).header("retry-after").is_empty());
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
    };
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        tokio::task::block_in_place(|| {
            fleet.postgres.kill();
            fleet.postgres.restart();
        });
    }
    let ids: Vec<String> = running.join_all().await.into_iter().flatten().collect();
    reading.await.unwrap();
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 40);
    assert_eq!(fleet.sql("SELECT count(*) FROM audit WHERE action = 'user.created'"), "40");
    // The owner and forty more.
    assert_eq!(fleet.sql("SELECT count(*) FROM users"), "41");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_with_too_few_connections_loses_nothing_and_doubles_nothing() {
    let mut fleet = fleet().set("DATABASE__ACQUIRE", "1s").start(2).await;
    let session = fleet.on(0).owner().await;
    let clients: Vec<Client> = fleet.nodes.iter().map(|node| node.server.client().bearer(&session.access)).collect();
    // Two pools of eight want sixteen.
    tokio::task::block_in_place(|| {
        fleet.sql("ALTER SYSTEM SET max_connections = 10");
        fleet.postgres.restart();
    });
    let mut running = JoinSet::new();
    for worker in 0..12 {
        let clients = clients.clone();
        running.spawn(async move {
            for nth in 0..3 {
                drop(persist(&clients, worker * 100 + nth).await);
            }
        });
    }
    running.join_all().await;
    tokio::task::block_in_place(|| {
        fleet.nodes.clear();
        fleet.postgres.restart();
    });
    assert_eq!(fleet.sql("SELECT count(*) FROM audit WHERE action = 'user.created'"), "36");
    assert_eq!(fleet.sql("SELECT count(*) FROM users"), "37");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_answers_nothing_is_a_503_in_time() {
    let fleet = fleet().start(1).await;
    let session = fleet.on(0).owner().await;
    fleet.postgres.pause();
    let began = Instant::now();
    let answer = session.client.post("/v1/users", user("slow@acme.example")).await;
    fleet.postgres.resume();
    assert!(!answer.problem(503).header("retry-after").is_empty());
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    bartizan_testkit::until("it is back", || async { session.client.get("/v1/whoami").await.status == 200 }).await;
}
