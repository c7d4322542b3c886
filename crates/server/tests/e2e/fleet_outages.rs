//! What becomes of requests while Redis is silent, gone, emptied, full or another one.

use std::time::{Duration, Instant};

use bartizan_testkit::{Client, ClusterSet, Fleet, FleetPlan, Hot, RedisServer, SentinelSet, Server, until};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// How long one question may take here.
const TIMEOUT: Duration = Duration::from_millis(150);

fn fleet() -> FleetPlan {
    crate::fleet().alone().set("STATE__TIMEOUT", "150ms").set("STATE__LEASES", "false")
}

/// Requests one after another until told to stop; each is a status and how long it took.
struct Load {
    stop: watch::Sender<bool>,
    running: Vec<JoinHandle<Vec<(u16, Duration)>>>,
}

impl Load {
    fn of(clients: &[Client]) -> Self {
        let (stop, stopped) = watch::channel(false);
        let one = |client: &Client| {
            let (client, stopped) = (client.clone(), stopped.clone());
            tokio::spawn(async move {
                let mut seen = Vec::new();
                while !*stopped.borrow() {
                    let began = Instant::now();
                    let status = client.get("/v1/whoami").await.status;
                    seen.push((status, began.elapsed()));
                }
                seen
            })
        };
        Self { running: clients.iter().map(one).collect(), stop }
    }

    /// Demands that all were let in, and that no more than a few had to wait.
    async fn unharmed(self, what: &str) {
        self.stop.send_replace(true);
        for one in self.running {
            let mut seen = one.await.unwrap();
            assert!(seen.len() > 10, "{what}: {} requests", seen.len());
            let other: Vec<u16> = seen.iter().map(|seen| seen.0).filter(|status| *status != 200).collect();
            assert!(other.is_empty(), "{what}: {other:?}");
            seen.sort_by_key(|seen| seen.1);
            let (median, last) = (seen[seen.len() / 2].1, seen[seen.len() - 1].1);
            // The usual request waits for nothing; one that meets the outage waits out one time-out, and a busy machine
            // takes its time besides.
            assert!(median < TIMEOUT, "{what}: usually {median:?}");
            assert!(last < TIMEOUT + Duration::from_secs(1), "{what}: {last:?}");
        }
    }
}

async fn up(server: &Server, wanted: bool) {
    let wanted = Some(f64::from(u8::from(wanted)));
    until("the state is up or down as wanted", || async { server.metric("bartizan_state_up").await == wanted }).await;
}

async fn activity(server: &Server, kind: &str) -> f64 {
    server.metric(&format!("bartizan_state_activity{{kind=\"{kind}\"}}")).await.unwrap()
}

async fn clients(fleet: &Fleet) -> Vec<Client> {
    let session = fleet.on(0).owner().await;
    fleet.nodes.iter().map(|node| node.server.client().bearer(&session.access)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn finding_04_a_redis_that_is_silent_or_gone_fails_no_request() {
    let mut fleet = fleet().start(2).await;
    let clients = clients(&fleet).await;
    for silent in [true, false] {
        let before = activity(fleet.on(0), "decided_locally").await;
        let load = Load::of(&clients);
        if silent {
            fleet.redis().pause();
        } else {
            fleet.redis().kill().await;
        }
        for node in &fleet.nodes {
            up(&node.server, false).await;
        }
        assert!(activity(fleet.on(0), "decided_locally").await > before);
        assert!(activity(fleet.on(0), "failures").await > 0.0);
        let ready = fleet.on(0).ops().get("/readyz").await.expect(200);
        assert_eq!(ready.text("state"), "down");
        if silent {
            fleet.redis().resume();
        } else {
            fleet.redis().restart().await;
        }
        for node in &fleet.nodes {
            up(&node.server, true).await;
        }
        load.unharmed(if silent { "silent" } else { "gone" }).await;
        let calls = activity(fleet.on(0), "round_trips").await;
        drop(clients[0].get("/v1/whoami").await.expect(200));
        assert!(activity(fleet.on(0), "round_trips").await > calls, "the store is asked again");
    }
}

/// Asks so often, one request after another for each client; how long each took, the shortest first.
async fn times(clients: &[Client], count: usize) -> Vec<Duration> {
    let mut running = JoinSet::new();
    for client in clients {
        let client = client.clone();
        running.spawn(async move {
            let mut times = Vec::new();
            for _ in 0..count {
                let began = Instant::now();
                drop(client.get("/v1/whoami").await.expect(200));
                times.push(began.elapsed());
            }
            times
        });
    }
    let mut all: Vec<Duration> = running.join_all().await.into_iter().flatten().collect();
    all.sort_unstable();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn finding_04_with_the_default_time_out_a_hung_redis_costs_it_once() {
    let mut fleet = crate::impatient_fleet().alone().set("STATE__LEASES", "false").start(2).await;
    // Two at a time for each node.
    let mut clients = clients(&fleet).await;
    clients.extend(clients.clone());
    drop(times(&clients, 100).await);
    let timed_out =
        async |fleet: &Fleet| activity(fleet.on(0), "timeouts").await + activity(fleet.on(1), "timeouts").await;
    fleet.redis().pause();
    let met = timed_out(&fleet).await;
    let after = times(&clients, 100).await;
    let waited = timed_out(&fleet).await - met;
    // Those who meet it wait out 50 ms, and nobody else waits for anything: not one would be below 50 ms. A busy machine
    // takes its time besides.
    assert!(waited < 40.0, "{waited} of {} requests waited", after.len());
    assert!(after[after.len() / 4] < Duration::from_millis(50), "{after:?}");
    assert!(after[after.len() - 1] < Duration::from_secs(2), "{after:?}");
    for node in &fleet.nodes {
        up(&node.server, false).await;
    }
    // Nothing is refused that has nothing to do with Redis.
    let session = fleet.on(0).owner().await;
    drop(fleet.on(1).user(&session, "member", "new@acme.example").await);
    drop(session.client.post("/v1/logout", serde_json::json!({})).await.expect(204));
    fleet.redis().resume();
    for node in &fleet.nodes {
        up(&node.server, true).await;
    }
    drop(times(&clients, 20).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn finding_04_emptying_redis_or_its_scripts_fails_no_request() {
    let mut fleet = fleet().strict().start(2).await;
    let clients = clients(&fleet).await;
    let load = Load::of(&clients);
    for _ in 0..3 {
        for command in [&["SCRIPT", "FLUSH"][..], &["FLUSHALL"]] {
            let before = activity(fleet.on(0), "round_trips").await;
            assert_eq!(fleet.redis().cli(command).await, "OK");
            until("requests went on", || async { activity(fleet.on(0), "round_trips").await > before + 20.0 }).await;
        }
    }
    load.unharmed("emptied").await;
    assert!(activity(fleet.on(0), "scripts_loaded").await >= 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn finding_04_a_full_redis_fails_no_request() {
    let hot = Hot::One(Box::new(RedisServer::with(&["--maxmemory-policy", "noeviction"]).await));
    let mut fleet = fleet().hot(hot).start(2).await;
    let clients = clients(&fleet).await;
    let load = Load::of(&clients);
    let before = activity(fleet.on(0), "decided_locally").await;
    assert_eq!(fleet.redis().cli(&["CONFIG", "SET", "maxmemory", "1"]).await, "OK");
    until("the node decides", || async { activity(fleet.on(0), "decided_locally").await > before + 20.0 }).await;
    assert_eq!(fleet.redis().cli(&["CONFIG", "SET", "maxmemory", "0"]).await, "OK");
    let calls = activity(fleet.on(0), "round_trips").await;
    until("the store decides again", || async { activity(fleet.on(0), "round_trips").await > calls + 20.0 }).await;
    load.unharmed("full").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn finding_02_two_nodes_without_redis_stay_within_the_limit_together() {
    let mut fleet = fleet()
        .set("LIMITS__TIERS__FREE__BURST", "40")
        .set("LIMITS__TIERS__FREE__PER_MINUTE", "1")
        .set("LIMITS__TIERS__FREE__TENANT_PER_MINUTE", "60000")
        .set("LIMITS__TIERS__FREE__TENANT_BURST", "60000")
        .start(2)
        .await;
    let session = fleet.on(0).signup("globex").await;
    let clients: Vec<Client> = fleet.nodes.iter().map(|node| node.server.client().bearer(&session.access)).collect();
    fleet.redis().kill().await;
    let began = Instant::now();
    let mut running = JoinSet::new();
    for nth in 0..200 {
        let client = clients[nth % 2].clone();
        running.spawn(async move { client.get("/v1/whoami").await.status });
    }
    let mut statuses = running.join_all().await;
    statuses.sort_unstable();
    assert!(statuses.iter().all(|status| matches!(status, 200 | 429)), "{statuses:?}");
    let admitted = statuses.iter().filter(|status| **status == 200).count();
    let back = usize::try_from(began.elapsed().as_secs() / 60).unwrap();
    assert!((30..=40 + back).contains(&admitted), "{admitted} admitted");
    // What was admitted meanwhile is charged afterwards, although the store came back empty: each node brings its share
    // before it decides about the same user again. Until the other one has, its share is free.
    fleet.redis().restart().await;
    for node in &fleet.nodes {
        up(&node.server, true).await;
    }
    let mut more = 0;
    loop {
        let statuses = [clients[0].get("/v1/whoami").await.status, clients[1].get("/v1/whoami").await.status];
        if statuses == [429, 429] {
            break;
        }
        more += statuses.iter().filter(|status| **status == 200).count();
        assert!(more <= 20, "{more} admitted after {admitted}");
    }
    assert!(more <= 2, "{more} admitted after {admitted}: the shares were not charged");
}

#[tokio::test(flavor = "multi_thread")]
async fn finding_04_a_new_primary_by_sentinel_fails_no_request_and_forgets_no_logout() {
    let hot = Hot::Sentinel(SentinelSet::start(1, 3).await);
    let mut fleet = fleet().hot(hot).strict().start(2).await;
    let clients = clients(&fleet).await;
    let load = Load::of(&clients);
    let session = fleet.on(0).owner().await;
    drop(fleet.on(1).client().bearer(&session.access).get("/v1/whoami").await.expect(200));
    drop(session.client.post("/v1/logout", serde_json::json!({})).await.expect(204));
    let Hot::Sentinel(set) = &mut fleet.hot else { unreachable!() };
    let old = set.servers[0].port();
    set.servers[0].kill().await;
    for node in &fleet.nodes {
        drop(node.server.client().bearer(&session.access).get("/v1/whoami").await.problem(401));
    }
    let Hot::Sentinel(set) = &fleet.hot else { unreachable!() };
    until("there is a new primary", || async { set.primary().await.is_some_and(|port| port != old) }).await;
    for node in &fleet.nodes {
        up(&node.server, true).await;
        drop(node.server.client().bearer(&session.access).get("/v1/whoami").await.problem(401));
    }
    let again = fleet.on(1).owner().await;
    drop(again.client.post("/v1/logout", serde_json::json!({})).await.expect(204));
    drop(fleet.on(0).client().bearer(&again.access).get("/v1/whoami").await.problem(401));
    load.unharmed("failover").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_was_held_still_and_returns_is_believed_by_nobody() {
    let hot = Hot::Sentinel(SentinelSet::start(1, 3).await);
    let fleet = fleet().hot(hot).strict().start(2).await;
    let clients = clients(&fleet).await;
    let load = Load::of(&clients);
    let Hot::Sentinel(set) = &fleet.hot else { unreachable!() };
    let old = set.servers[0].port();
    set.servers[0].pause();
    until("there is a new primary", || async { set.primary().await.is_some_and(|port| port != old) }).await;
    set.servers[0].resume();
    for round in 0..10 {
        let (here, there) = (round % 2, (round + 1) % 2);
        let session = fleet.on(here).owner().await;
        let elsewhere = fleet.on(there).client().bearer(&session.access);
        drop(elsewhere.get("/v1/whoami").await.expect(200));
        drop(session.client.post("/v1/logout", serde_json::json!({})).await.expect(204));
        drop(elsewhere.get("/v1/whoami").await.problem(401));
    }
    until("the old primary follows the new one", || async { set.servers[0].info("role").await == "slave" }).await;
    for node in &fleet.nodes {
        up(&node.server, true).await;
    }
    load.unharmed("split brain").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn finding_04_a_primary_of_a_cluster_killed_fails_no_request() {
    let hot = Hot::Cluster(ClusterSet::start(3, 1).await);
    let mut fleet = fleet().hot(hot).strict().start(2).await;
    let clients = clients(&fleet).await;
    let load = Load::of(&clients);
    let Hot::Cluster(set) = &mut fleet.hot else { unreachable!() };
    set.nodes[0].kill().await;
    let session = fleet.on(0).owner().await;
    drop(fleet.on(1).client().bearer(&session.access).get("/v1/whoami").await.expect(200));
    drop(session.client.post("/v1/logout", serde_json::json!({})).await.expect(204));
    drop(fleet.on(1).client().bearer(&session.access).get("/v1/whoami").await.problem(401));
    let Hot::Cluster(set) = &fleet.hot else { unreachable!() };
    until("the replica took over", || async {
        set.nodes[1].cli(&["CLUSTER", "INFO"]).await.contains("cluster_state:ok")
            && set.nodes[3].info("role").await == "master"
    })
    .await;
    for node in &fleet.nodes {
        up(&node.server, true).await;
    }
    load.unharmed("cluster").await;
}
