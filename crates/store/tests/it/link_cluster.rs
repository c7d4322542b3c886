//! The link to a cluster.

use std::sync::Arc;
use std::time::Instant;

use bartizan_store::shared::link::{LinkState, Unavailable};
use bartizan_testkit::{ClusterSet, until};

use crate::link::{PATIENT, add, ready, works_again};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_used_whole_and_slots_move_under_load_without_a_failed_call() {
    let mut cluster = ClusterSet::start(2, 0).await;
    let link = ready(&cluster.url()).await;
    let keys: Vec<String> = (0..64).map(|n| format!("{{{n}}}")).collect();
    for key in &keys {
        assert_eq!(add(&link, key).await, Ok(1));
    }
    let grown = cluster.grow().await;
    let (stop, load) = (Arc::new(tokio::sync::Notify::new()), link.clone());
    let stopped = Arc::clone(&stop);
    let loaded = keys.clone();
    let load = tokio::spawn(async move {
        let mut sent = 1_i64;
        let mut stopped = std::pin::pin!(stopped.notified());
        loop {
            sent += 1;
            for key in &loaded {
                assert_eq!(add(&load, key).await, Ok(sent), "{key}");
            }
            if futures_util::FutureExt::now_or_never(stopped.as_mut()).is_some() {
                return sent;
            }
        }
    });
    for key in keys.iter().take(24) {
        let slot: u16 = cluster.nodes[0].cli(&["CLUSTER", "KEYSLOT", key]).await.parse().unwrap();
        let from = usize::from(slot >= 8_192);
        cluster.begin_move(slot, from, grown).await;
        cluster.finish_move(slot, from, grown).await;
    }
    stop.notify_one();
    let sent = load.await.unwrap();
    assert!(sent > 1 && link.counts().failures == 0 && link.counts().redirections > 0, "{:?}", link.counts());
    assert_eq!(add(&link, &keys[0]).await, Ok(sent + 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_primary_of_a_cluster_takes_only_its_keys_away_until_its_replica_takes_over() {
    let mut cluster = ClusterSet::start(3, 1).await;
    let link = ready(&cluster.url()).await;
    // Their slots are 12,182 (third primary) and 5,061 (first).
    assert_eq!((add(&link, "foo").await, add(&link, "bar").await), (Ok(1), Ok(1)));
    until("the replica has it", || async {
        cluster.nodes[5].info("slave_repl_offset").await == cluster.nodes[2].info("master_repl_offset").await
    })
    .await;
    cluster.nodes[2].kill().await;
    until("the loss is noticed", || async { add(&link, "foo").await.is_err() }).await;
    let began = Instant::now();
    assert!(add(&link, "foo").await.is_err());
    assert!(began.elapsed() < PATIENT, "a primary known to be gone costs no time");
    works_again(&link, "foo").await;
    until("the link is whole", || async { link.state() == LinkState::Up }).await;
    assert!(add(&link, "foo").await.unwrap() >= 3, "the replica had the count");
    assert!(add(&link, "bar").await.unwrap() >= 2);
    assert_eq!(cluster.nodes[5].info("role").await, "master");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_primary_of_a_cluster_is_not_used_when_it_returns() {
    let cluster = ClusterSet::start(3, 1).await;
    let link = ready(&cluster.url()).await;
    assert_eq!(add(&link, "foo").await, Ok(1));
    cluster.nodes[2].pause();
    until("the replica has taken over", || async { cluster.nodes[5].info("role").await == "master" }).await;
    works_again(&link, "foo").await;
    cluster.nodes[2].resume();
    for n in 0..50 {
        let key = format!("{{foo}}{n}");
        until("a call succeeds", || async { add(&link, &key).await.is_ok() }).await;
    }
    for n in 0..50 {
        let there = cluster.nodes[5].cli(&["GET", &format!("{{foo}}{n}")]).await;
        assert_eq!(there, "1");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_lost_a_part_costs_one_timeout_and_then_none() {
    let mut cluster = ClusterSet::start(3, 0).await;
    let link = ready(&cluster.url()).await;
    add(&link, "bar").await.unwrap();
    cluster.nodes[2].kill().await;
    // The others stop serving when they notice that the cluster is no longer whole.
    until("the cluster is down", || async { add(&link, "bar").await.is_err() }).await;
    let _ = add(&link, "bar").await;
    let refusals = || async {
        let said = cluster.nodes[0].info("errorstat_CLUSTERDOWN").await;
        said.trim_start_matches("count=").parse::<u64>().unwrap()
    };
    let before = refusals().await;
    for _ in 0..200 {
        let answer = add(&link, "bar").await;
        assert!(matches!(&answer, Err(Unavailable::Disconnected(why)) if why.contains("cluster")), "{answer:?}");
    }
    assert_eq!(refusals().await - before, 200, "each call was refused once and did not wait and try again");
    cluster.nodes[2].restart().await;
    works_again(&link, "bar").await;
    works_again(&link, "foo").await;
}
