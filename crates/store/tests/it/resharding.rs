//! Slots of a cluster that are on their way from one primary to another.

use std::time::{Duration, Instant};

use bartizan_core::limit::Key;
use bartizan_store::shared::link::{Address, Link, LinkOptions, Script, Unavailable};
use bartizan_store::shared::{Decided, SharedOptions, SharedState, Want};
use bartizan_store::state::{Admission, BanPolicy};
use bartizan_testkit::ClusterSet;
use redis::Value;

use crate::shared::{NOW, PATIENT, nodes, only, options, ruled, storm};

/// Writes the first key, if it may touch both.
static BOTH: Script =
    Script::new("both", "#!lua\nredis.call('GET', KEYS[2])\nreturn redis.call('INCRBY', KEYS[1], ARGV[1])");

async fn slot(cluster: &ClusterSet, key: &str) -> (u16, usize) {
    let slot: u16 = cluster.nodes[0].cli(&["CLUSTER", "KEYSLOT", key]).await.parse().unwrap();
    (slot, usize::from(slot) * cluster.nodes.len() / 16_384)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_keys_of_a_slot_on_its_way_are_refused_at_once_and_one_never() {
    let cluster = ClusterSet::start(2, 0).await;
    let options = LinkOptions { timeout: bartizan_testkit::DEADLINE, ..LinkOptions::default() };
    let link = Link::start(Address::parse(&cluster.url()).unwrap(), options);
    link.ready(PATIENT).await.unwrap();
    let both = async || link.eval(&BOTH, &["{x}here", "{x}nowhere"], &[1]).await;
    assert_eq!(both().await, Ok(Value::Int(1)));
    let (slot, from) = slot(&cluster, "{x}").await;
    let to = 1 - from;
    cluster.begin_move(slot, from, to).await;
    assert_eq!(both().await, Err(Unavailable::Apart));
    let one = async |sum| assert_eq!(link.eval(&BOTH, &["{x}here", "{x}here"], &[1]).await, Ok(Value::Int(sum)));
    one(2).await;
    cluster.carry_keys(slot, from, to).await;
    assert_eq!(both().await, Err(Unavailable::Apart));
    one(3).await;
    cluster.close_move(slot, from, to).await;
    assert_eq!(both().await, Ok(Value::Int(4)));
    assert_eq!((link.counts().failures, link.counts().timeouts), (2, 0));
}

/// A user's bucket and his ban record share a slot, and usually there is no record: the store decides all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_whose_slot_is_on_its_way_is_decided_by_the_store_as_always() {
    let cluster = ClusterSet::start(3, 0).await;
    let policy = BanPolicy::new(1_000_000, Duration::from_secs(60)).unwrap();
    let nodes = nodes(&cluster.url(), PATIENT, 2, |n| SharedOptions { bans: policy, ..options(n) }).await;
    let by_store = async |key| {
        let ruled = ruled(&nodes[0], key, only(10), Want::DecisionAndSequence).await.unwrap();
        assert_eq!(ruled.decided, Decided::Store);
        ruled.admission
    };
    nodes[1].raise_sequence(3).await.unwrap();
    for key in 1..=7 {
        assert_eq!(by_store(key).await, Admission::Admitted);
    }
    let mut admitted = 6;
    // The sequence and what the nodes know of each other are on their way as well.
    let used = cluster.used_slots().await;
    assert!(used.len() >= 5, "{used:?}");
    for (slot, from) in &used {
        cluster.begin_move(*slot, *from, (from + 1) % 3).await;
    }
    for key in 1..=6 {
        assert_eq!(by_store(key).await, Admission::Admitted);
        admitted += 1 + storm(&nodes, 2, key, only(10)).await;
    }
    for (slot, from) in &used {
        cluster.carry_keys(*slot, *from, (from + 1) % 3).await;
    }
    for key in 1..=6 {
        assert_eq!(by_store(key).await, Admission::Admitted);
        admitted += 1 + storm(&nodes, 20, key, only(10)).await;
    }
    assert_eq!(admitted, 60);
    // Whoever is banned while his slot is on its way is banned there.
    nodes[1].ban(Key(7), Duration::from_secs(60), NOW, Instant::now()).await.unwrap();
    assert!(matches!(by_store(7).await, Admission::Banned { .. }));
    for (slot, from) in &used {
        cluster.close_move(*slot, *from, (from + 1) % 3).await;
        assert!(cluster.keys_in(*slot, *from).await.is_empty());
    }
    for key in 1..=6 {
        assert_eq!(storm(&nodes, 20, key, only(10)).await, 0, "{key}");
    }
    let counts: Vec<_> = nodes.iter().map(SharedState::counts).collect();
    assert!(counts.iter().all(|counts| counts.decided_locally == 0), "{counts:?}");
}
