//! Limits of several nodes while Redis is away, and when it is back.

use std::time::{Duration, Instant};

use bartizan_core::limit::Key;
use bartizan_store::shared::link::LinkState;
use bartizan_store::shared::{Away, Decided, Policy, SharedOptions, Want};
use bartizan_store::state::Admission;
use bartizan_testkit::{ClusterSet, RedisServer, SentinelSet, until};

use crate::shared::{DAY, NOW, PATIENT, ask, node_with, nodes, only, options, ruled, storm};

/// For servers that hang: only then, on a busy machine too, is it run into.
const QUICK: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_store_hangs_all_nodes_together_stay_within_the_limit_and_afterwards_it_knows() {
    let server = RedisServer::start().await;
    let nodes = nodes(&server.url(), QUICK, 4, options).await;
    let limit = only(100);
    // Each has seen the key: 40 are used.
    let mut used = 0;
    for node in nodes.iter().cycle().take(40) {
        used += u64::from(ask(node, 1, limit).await == Admission::Admitted);
    }
    assert_eq!(used, 40);
    server.pause();
    let began = Instant::now();
    let first = ask(&nodes[0], 7, limit).await;
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(first, Admission::Admitted);
    until("every link has noticed", || async {
        nodes.iter().all(|node| matches!(node.link().state(), LinkState::Down { .. }))
    })
    .await;
    let began = Instant::now();
    used += storm(&nodes, 250, 1, limit).await;
    let spent = began.elapsed();
    assert!(spent < Duration::from_secs(10), "{spent:?}");
    assert!((90..=100).contains(&used), "{used}");
    // A key nobody has seen: a share each.
    assert_eq!(storm(&nodes, 50, 2, limit).await, 100);
    // More nodes than units: one unit each.
    assert_eq!(storm(&nodes, 50, 3, only(1)).await, 4);
    assert!(nodes.iter().all(|node| node.counts().decided_locally > 0 && node.counts().keys_owed > 0));

    server.resume();
    for node in &nodes {
        until("the link is up", || async { node.link().state() == LinkState::Up }).await;
        node.tend(NOW, Instant::now()).await;
        assert_eq!(node.counts().keys_owed, 0);
    }
    assert_eq!(storm(&nodes, 50, 2, limit).await, 0);
    used += storm(&nodes, 50, 1, limit).await;
    assert!(used <= 100, "{used}");
}

#[tokio::test]
async fn what_a_key_owes_is_charged_before_it_is_asked_about_again() {
    let mut server = RedisServer::start().await;
    let state = node_with(&server.url(), PATIENT, options(1)).await;
    assert_eq!(ask(&state, 1, only(10)).await, Admission::Admitted);
    server.kill().await;
    for _ in 0..9 {
        assert_eq!(ask(&state, 1, only(10)).await, Admission::Admitted);
    }
    assert!(matches!(ask(&state, 1, only(10)).await, Admission::Limited { .. }));
    // It comes back empty: what was counted in it is lost, what was counted here is not.
    server.restart().await;
    until("the link is up", || async { state.link().state() == LinkState::Up }).await;
    assert_eq!(ask(&state, 1, only(10)).await, Admission::Admitted);
    assert!(matches!(ask(&state, 1, only(10)).await, Admission::Limited { .. }));
    assert_eq!(state.counts().replayed, 9);
}

#[tokio::test]
async fn a_full_or_read_only_store_is_decided_locally_and_recovered_from() {
    let server = RedisServer::start().await;
    let state = node_with(&server.url(), PATIENT, options(1)).await;
    let cases = [
        (["CONFIG", "SET", "maxmemory", "1"], ["CONFIG", "SET", "maxmemory", "0"]),
        (["CONFIG", "SET", "min-replicas-to-write", "3"], ["CONFIG", "SET", "min-replicas-to-write", "0"]),
    ];
    for (key, (harm, mend)) in cases.iter().enumerate() {
        let key = key as u128 + 1;
        assert_eq!(server.cli(harm).await, "OK");
        for _ in 0..5 {
            let ruled = ruled(&state, key, only(5), Want::Decision).await.unwrap();
            assert_eq!((ruled.admission, ruled.decided), (Admission::Admitted, Decided::Local), "{harm:?}");
        }
        assert!(matches!(ask(&state, key, only(5)).await, Admission::Limited { .. }));
        assert_eq!(server.cli(mend).await, "OK");
        until("the store decides again, and knows", || async {
            let ruled = ruled(&state, key, only(5), Want::Decision).await.unwrap();
            assert!(matches!(ruled.admission, Admission::Limited { .. }));
            ruled.decided == Decided::Store
        })
        .await;
    }
}

#[tokio::test]
async fn a_lost_store_refuses_or_opens_only_when_that_was_chosen() {
    let mut server = RedisServer::start().await;
    let closed =
        node_with(&server.url(), PATIENT, SharedOptions { on_store_error: Policy::Refuse, ..options(1) }).await;
    let open = node_with(&server.url(), PATIENT, SharedOptions { on_store_error: Policy::Open, ..options(2) }).await;
    server.kill().await;
    for _ in 0..5 {
        let refused = ruled(&closed, 1, only(1), Want::Decision).await;
        assert_eq!(refused, Err(Away { retry_after: Duration::from_secs(1) }));
        assert_eq!(ask(&open, 1, only(1)).await, Admission::Admitted);
    }
    assert_eq!((closed.counts().refused_away, open.counts().admitted_open), (5, 5));
    assert!(open.raise_sequence(4).await.is_err());
    assert!(open.ban(Key(1), DAY, NOW, Instant::now()).await.is_err());
    // The ban holds here all the same.
    assert!(matches!(ask(&open, 1, only(1)).await, Admission::Banned { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_admits_at_most_a_burst_more() {
    let mut set = SentinelSet::start(1, 3).await;
    let nodes = nodes(&set.url(), QUICK, 2, options).await;
    let mut admitted = storm(&nodes, 40, 1, only(100)).await;
    // Each has seen all of it.
    for node in &nodes {
        admitted += u64::from(ask(node, 1, only(100)).await == Admission::Admitted);
    }
    assert_eq!(admitted, 82);
    set.servers[0].kill().await;
    // Decided locally meanwhile, from what was seen.
    let alone = storm(&nodes, 100, 1, only(100)).await;
    assert!((16..=18).contains(&alone), "{alone}");
    admitted += alone;
    for node in &nodes {
        until("the new primary decides", || async {
            ruled(node, 2, only(1_000_000), Want::Decision).await.unwrap().decided == Decided::Store
        })
        .await;
        node.tend(NOW, Instant::now()).await;
        assert_eq!(node.counts().keys_owed, 0);
    }
    admitted += storm(&nodes, 200, 1, only(100)).await;
    assert!((100..=200).contains(&admitted), "{admitted}");
    assert_eq!(storm(&nodes, 100, 1, only(100)).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_primary_of_a_cluster_is_survived_by_every_request() {
    let mut cluster = ClusterSet::start(3, 1).await;
    let nodes = nodes(&cluster.url(), QUICK, 2, options).await;
    let mut admitted = 0;
    for key in 1..=12 {
        admitted += storm(&nodes, 10, key, only(40)).await;
    }
    assert_eq!(admitted, 12 * 20);
    cluster.nodes[0].kill().await;
    for key in 1..=12 {
        // A third of the keys is decided locally, the others by their primaries: nobody is refused for the outage.
        let more = storm(&nodes, 5, key, only(40)).await;
        assert_eq!(more, 10, "{key}");
    }
    assert!(nodes.iter().all(|node| node.counts().decided_locally > 0));
    for node in &nodes {
        until("every key has a primary again", || async { node.link().state() == LinkState::Up }).await;
        until("nothing is owed any more", || async {
            node.tend(NOW, Instant::now()).await;
            node.counts().keys_owed == 0
        })
        .await;
    }
    for key in 1..=12 {
        let rest = storm(&nodes, 50, key, only(40)).await;
        // Ten are left, or as many more as the dead primary had not yet passed on: at most a burst.
        assert!((10..=40).contains(&rest), "{rest}");
    }
}

#[tokio::test]
async fn a_flood_of_keys_in_an_outage_neither_grows_the_memory_nor_frees_a_limited_key() {
    let mut server = RedisServer::start().await;
    let state = node_with(&server.url(), PATIENT, SharedOptions { max_keys: 8192, ..options(1) }).await;
    assert_eq!(ask(&state, 1, only(1)).await, Admission::Admitted);
    server.kill().await;
    assert!(matches!(ask(&state, 1, only(1)).await, Admission::Limited { .. }));
    for key in 2..30_000 {
        ask(&state, key, only(3)).await;
    }
    let counts = state.counts();
    assert!(counts.keys_known <= 1024 && counts.keys_owed <= 1024 && counts.replay_lost > 0, "{counts:?}");
    for _ in 0..3 {
        assert!(matches!(ask(&state, 1, only(1)).await, Admission::Limited { .. }));
    }
}
