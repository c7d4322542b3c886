//! One limit, however many nodes.

use std::time::{Duration, Instant};

use bartizan_testkit::{Client, Fleet, FleetPlan, Session, passphrase, until};
use tokio::task::JoinSet;

use crate::fleet;

/// So slow that nothing comes back during a test; the tenant as a whole is not what these tests are about.
fn tight(burst: u32) -> FleetPlan {
    slow(burst, 1)
}

fn slow(burst: u32, per_minute: u32) -> FleetPlan {
    fleet()
        .set("LIMITS__TIERS__FREE__BURST", &burst.to_string())
        .set("LIMITS__TIERS__FREE__PER_MINUTE", &per_minute.to_string())
        .set("LIMITS__TIERS__FREE__TENANT_PER_MINUTE", "60000")
        .set("LIMITS__TIERS__FREE__TENANT_BURST", "60000")
}

/// A user on every node.
async fn everywhere(fleet: &Fleet, tenant: &str) -> (Session, Vec<Client>) {
    let session = fleet.on(0).signup(tenant).await;
    let clients = fleet.nodes.iter().map(|node| node.server.client().bearer(&session.access)).collect();
    (session, clients)
}

/// Asks `count` times at once, in turn on each node; the statuses.
async fn at_once(clients: &[Client], count: usize) -> Vec<u16> {
    let mut running = JoinSet::new();
    for client in clients.iter().cycle().take(count) {
        let client = client.clone();
        running.spawn(async move { client.get("/v1/whoami").await.status });
    }
    running.join_all().await
}

fn passed(statuses: &[u16]) -> usize {
    assert!(statuses.iter().all(|status| matches!(status, 200 | 429)), "{statuses:?}");
    statuses.iter().filter(|status| **status == 200).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn finding_02_four_nodes_admit_one_burst() {
    let fleet = tight(50).set("STATE__LEASES", "false").start(4).await;
    for tenant in ["globex", "initech"] {
        let (_, clients) = everywhere(&fleet, tenant).await;
        let began = Instant::now();
        let admitted = passed(&at_once(&clients, 400).await);
        let back = usize::try_from(began.elapsed().as_secs() / 60).unwrap();
        assert!((50..=50 + back).contains(&admitted), "{admitted} admitted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_admit_no_more() {
    // As much a second as makes a key hot, from a burst that is worth leasing.
    let fleet = slow(2_000, 6_000).start(2).await;
    let (_, clients) = everywhere(&fleet, "globex").await;
    let began = Instant::now();
    let mut admitted = 0;
    for _ in 0..20 {
        admitted += passed(&at_once(&clients, 200).await);
    }
    let most = 2_000 + usize::try_from(began.elapsed().as_millis() / 10).unwrap() + 1;
    assert!(admitted <= most, "{admitted} admitted, {most} allowed");
    assert!(admitted >= 1_000, "{admitted} admitted of {most}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_back_comes_back_once_for_all_nodes() {
    // One in 50 ms.
    let mut fleet = slow(20, 1_200).set("STATE__LEASES", "false").alone().start(2).await;
    let (_, clients) = everywhere(&fleet, "globex").await;
    let before = clock(&mut fleet).await;
    let until_when = Instant::now() + Duration::from_secs(2);
    let mut admitted = 0;
    while Instant::now() < until_when {
        admitted += passed(&at_once(&clients, 20).await);
    }
    let elapsed = clock(&mut fleet).await - before;
    let most = 20 + usize::try_from(elapsed / 50_000).unwrap() + 1;
    assert!((20..=most).contains(&admitted), "{admitted} admitted in {elapsed} µs");
    assert!(admitted * 10 >= most * 8, "{admitted} admitted of {most}");
}

/// The store's clock, in microseconds.
async fn clock(fleet: &mut Fleet) -> u64 {
    let said = fleet.redis().cli(&["TIME"]).await;
    let (seconds, micros) = said.split_once('\n').unwrap();
    seconds.trim().parse::<u64>().unwrap() * 1_000_000 + micros.trim().parse::<u64>().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_keeps_asking_after_a_refusal_costs_the_store_nothing() {
    let fleet = tight(3).alone().start(2).await;
    let (_, clients) = everywhere(&fleet, "globex").await;
    for client in clients.iter().chain(&clients) {
        drop(client.get("/v1/whoami").await);
    }
    for (client, node) in clients.iter().zip(&fleet.nodes) {
        drop(client.get("/v1/whoami").await.expect(429));
        let calls = async || node.server.metric("bartizan_state_activity{kind=\"denials_cached\"}").await.unwrap();
        let proxy = node.state.as_ref().unwrap();
        let (cached, exchanged) = (calls().await, proxy.exchanges());
        for _ in 0..200 {
            drop(client.get("/v1/whoami").await.expect(429));
        }
        assert!(calls().await - cached >= 200.0);
        // The node tends its link now and then; 200 refusals are none of it.
        assert!(proxy.exchanges() - exchanged < 20, "{}", proxy.exchanges() - exchanged);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admitted_request_is_one_round_trip() {
    for strict in [false, true] {
        let plan = fleet().alone().set("STATE__LEASES", "false");
        let fleet = if strict { plan.strict() } else { plan }.start(1).await;
        let (_, clients) = everywhere(&fleet, "globex").await;
        drop(clients[0].get("/v1/whoami").await.expect(200));
        let proxy = fleet.nodes[0].state.as_ref().unwrap();
        let before = proxy.exchanges();
        for _ in 0..100 {
            drop(clients[0].get("/v1/whoami").await.expect(200));
        }
        let exchanged = proxy.exchanges() - before;
        assert!((100..120).contains(&exchanged), "{exchanged} round trips for 100 requests");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn finding_16_a_change_of_tier_on_one_node_acts_on_the_other() {
    let fleet = tight(3).start(2).await;
    let (_, clients) = everywhere(&fleet, "globex").await;
    assert_eq!(passed(&at_once(&clients, 8).await), 3);
    drop(clients[1].get("/v1/whoami").await.expect(429));
    drop(fleet.on(0).operate(&["tenant", "set-tier", "globex", "pro"]).await.success());
    let changed = Instant::now();
    until("the new tier acts", || async {
        let began = Instant::now();
        let status = clients[1].get("/v1/whoami").await.status;
        assert!(status == 200 || began < changed + Duration::from_secs(1), "{status} after the bound");
        status == 200
    })
    .await;
    drop(clients[0].get("/v1/whoami").await.expect(200));
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_logins_are_counted_for_all_nodes() {
    let fleet = fleet().set("LIMITS__LOGIN__PER_ACCOUNT_AND_NETWORK", "5").start(2).await;
    drop(fleet.on(0).signup("globex").await);
    let mut statuses = Vec::new();
    for attempt in 0..8 {
        let body = serde_json::json!({
            "tenant": "globex", "email": "owner@globex.example", "password": passphrase("wrong")
        });
        statuses.push(fleet.on(attempt % 2).client().post("/v1/login", body).await.status);
    }
    assert_eq!(statuses, [401, 401, 401, 401, 401, 429, 429, 429]);
}
