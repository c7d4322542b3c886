//! The primary of the database is lost and its standby takes over: what was answered is there, once.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bartizan_testkit::{Answer, Client, Fleet, PostgresServer, Proxy, Session, until};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::{JoinSet, block_in_place};

use crate::fleet;
use crate::fleet::BOUND;
use crate::fleet_once::{persist, refresh, user};

/// Gives the fleet's database a standby for which every commit waits, and the link through which it follows.
async fn with_standby(fleet: &Fleet) -> (PostgresServer, Proxy) {
    let link = Proxy::start(fleet.postgres.port()).await;
    let standby = block_in_place(|| {
        let standby = fleet.postgres.standby(link.port());
        fleet.postgres.wait_for_standby();
        standby
    });
    (standby, link)
}

fn clients(fleet: &Fleet, session: &Session) -> Vec<Client> {
    fleet.nodes.iter().map(|node| node.server.client().bearer(&session.access)).collect()
}

/// A refusal after which a client may ask again, or the answer.
fn unless_away(answer: Answer) -> Option<Answer> {
    if answer.status != 503 {
        return Some(answer);
    }
    let refused = answer.problem(503);
    assert!(!refused.header("retry-after").is_empty(), "503 without Retry-After: {}", refused.json());
    None
}

/// How soon an acknowledged end holds on every node.
fn bound(strict: bool) -> Duration {
    if strict { Duration::ZERO } else { BOUND }
}

async fn start(strict: bool) -> Fleet {
    if strict { fleet().strict() } else { fleet() }.start(2).await
}

/// Logs in and out, asking again as long as nobody can answer; what was ended. From when it was promised nobody is let in on
/// `another` node.
async fn come_and_go(
    node: Client,
    another: Client,
    strict: bool,
    login: serde_json::Value,
    stopped: watch::Receiver<bool>,
) -> Vec<(String, String)> {
    let mut ended = Vec::new();
    while !*stopped.borrow() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let Some(answer) = unless_away(node.post("/v1/login", login.clone()).await) else { continue };
        let session = answer.expect(200);
        let (access, refresh) = (session.text("access_token"), session.text("refresh_token"));
        let (mine, there) = (node.bearer(&access), another.bearer(&access));
        let acknowledged = loop {
            if let Some(answer) = unless_away(mine.post("/v1/logout", json!({})).await) {
                // 401 when an answer that got lost had said 204.
                assert!(matches!(answer.status, 204 | 401), "{}", answer.status);
                break (answer.status == 204).then(Instant::now);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        while let Some(acknowledged) = acknowledged {
            let began = Instant::now();
            match unless_away(there.get("/v1/whoami").await) {
                Some(answer) if answer.status == 200 => {
                    assert!(began < acknowledged + bound(strict), "let in {:?} after the 204", began - acknowledged);
                }
                Some(refused) => {
                    drop(refused.problem(401));
                    break;
                }
                None => {}
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        ended.push((access, refresh));
    }
    ended
}

async fn refused_everywhere(fleet: &Fleet, ended: &[(String, String)]) {
    for node in &fleet.nodes {
        let client = node.server.client();
        for (access, token) in ended {
            drop(client.bearer(access).get("/v1/whoami").await.problem(401));
            drop(client.post("/v1/token/refresh", refresh(token)).await.problem(401));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_takes_over_under_load_has_all_that_was_answered_once() {
    taken_over_under_load(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_strict_mode_it_has_it_too_and_what_was_ended_stays_ended_at_once() {
    taken_over_under_load(true).await;
}

async fn taken_over_under_load(strict: bool) {
    let mut fleet = start(strict).await;
    let (standby, _link) = with_standby(&fleet).await;
    let session = fleet.on(0).owner().await;
    let everywhere = clients(&fleet, &session);
    let login = json!({ "tenant": fleet.on(0).tenant, "email": fleet.on(0).email, "password": fleet.on(0).password });
    let (stop, stopped) = watch::channel(false);
    let made = Arc::new(AtomicUsize::new(0));
    let (mut making, mut going) = (JoinSet::new(), JoinSet::new());
    for worker in 0..4 {
        let (node, another) = (fleet.on(worker % 2).client(), fleet.on((worker + 1) % 2).client());
        going.spawn(come_and_go(node, another, strict, login.clone(), stopped.clone()));
        let (clients, made, stopped) = (everywhere.clone(), Arc::clone(&made), stopped.clone());
        making.spawn(async move {
            let mut ids = Vec::new();
            while !*stopped.borrow() {
                ids.push(persist(&clients, worker * 10_000 + ids.len()).await.text("id"));
                made.fetch_add(1, Ordering::SeqCst);
            }
            ids
        });
    }
    let made_more = async |more: usize| {
        let wanted = made.load(Ordering::SeqCst) + more;
        until("users were made", || async { made.load(Ordering::SeqCst) >= wanted }).await;
    };
    made_more(10).await;
    block_in_place(|| fleet.postgres.kill());
    // The address moves before the standby may be written: nobody is let in on what a standby says.
    let lost = fleet.lead_to(standby);
    for client in &everywhere {
        until("the node notices", || async { unless_away(client.get("/v1/whoami").await).is_none() }).await;
        for _ in 0..20 {
            assert!(unless_away(client.get("/v1/whoami").await).is_none(), "let in on the word of a standby");
        }
    }
    block_in_place(|| fleet.postgres.promote());
    // By themselves.
    made_more(10).await;
    for node in &fleet.nodes {
        drop(node.server.ops().get("/readyz").await.expect(200));
    }
    stop.send_replace(true);
    let ids: Vec<String> = making.join_all().await.into_iter().flatten().collect();
    let ended: Vec<(String, String)> = going.join_all().await.into_iter().flatten().collect();
    assert!(ended.len() > 4, "{} sessions ended", ended.len());
    tokio::time::sleep(bound(strict)).await;
    refused_everywhere(&fleet, &ended).await;
    // Also by a node that knows no more than the new primary.
    fleet.restart(0).await;
    refused_everywhere(&fleet, &ended).await;
    let count = ids.len();
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), count);
    assert_eq!(fleet.sql("SELECT count(*) FROM audit WHERE action = 'user.created'"), count.to_string());
    let mut there: Vec<String> = fleet.sql("SELECT id FROM users ORDER BY id").lines().map(str::to_owned).collect();
    there.retain(|id| ids.iter().any(|made| made.replace('-', "").ends_with(&id.replace('-', ""))));
    assert_eq!(there.len(), count, "{there:?}");
    // The owner and those that were answered, for every one was asked for until it was.
    assert_eq!(fleet.sql("SELECT count(*) FROM users"), (count + 1).to_string());
    drop(lost);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_standby_lacks_was_answered_to_nobody() {
    lacking(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_strict_mode_nobody_was_answered_what_the_standby_lacks_either() {
    lacking(true).await;
}

async fn lacking(strict: bool) {
    let mut fleet = start(strict).await;
    let (standby, link) = with_standby(&fleet).await;
    let session = fleet.on(0).owner().await;
    let leaving = fleet.on(1).owner().await;
    let everywhere = clients(&fleet, &session);
    link.swallow();
    let create = |client: &Client| {
        let client = client.with("idempotency-key", "held");
        async move { client.post("/v1/users", user("held@acme.example")).await }
    };
    let (created, left) = tokio::join!(create(&everywhere[0]), leaving.client.post("/v1/logout", json!({})));
    for answer in [created, left] {
        assert!(unless_away(answer).is_none(), "answered although the standby has not heard of it");
    }
    block_in_place(|| fleet.postgres.kill());
    let lost = fleet.lead_to(standby);
    block_in_place(|| fleet.postgres.promote());
    let again = clients(&fleet, &leaving);
    for client in &everywhere {
        until("the node is back", || async { unless_away(client.get("/v1/whoami").await).is_some() }).await;
    }
    for client in &everywhere {
        assert_eq!(create(client).await.expect(201).text("email"), "held@acme.example");
    }
    assert_eq!(fleet.sql("SELECT count(*) FROM audit WHERE action = 'user.created'"), "1");
    let answer = again[1].post("/v1/logout", json!({})).await;
    assert!(matches!(answer.status, 204 | 401), "{}", answer.status);
    tokio::time::sleep(bound(strict)).await;
    refused_everywhere(&fleet, &[(leaving.access, leaving.refresh)]).await;
    drop(lost);
}
