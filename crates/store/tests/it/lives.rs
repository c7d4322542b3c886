//! One life of a real Redis is told from another: in each answer, on the same connection.

use std::time::Instant;

use bartizan_core::limit::{Key, Quota};
use bartizan_core::store_life::StoreLife;
use bartizan_store::shared::{Group, Sequence, SharedOptions, SharedState, Want};
use bartizan_store::state::Ask;
use bartizan_testkit::{RedisServer, until};

use crate::shared::{NOW, PATIENT, node_with, options};

/// What a request is told, and what a read alone under a lease.
async fn told(state: &SharedState) -> Option<Sequence> {
    let quota = Quota::new(1_000_000, std::time::Duration::from_secs(1), 1_000_000).unwrap();
    let mut asks = [Ask::new(Key(1), "user", quota)];
    let mut groups = [Group { who: Key(1), asks: &mut asks }];
    state.admit(&mut groups, 1, Want::DecisionAndSequence, NOW, Instant::now()).await.unwrap().sequence
}

async fn life(state: &SharedState) -> StoreLife {
    told(state).await.unwrap().life
}

async fn follows(replica: &RedisServer, primary: &RedisServer) {
    primary.cli(&["CONFIG", "SET", "repl-diskless-sync-delay", "0"]).await;
    replica.cli(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]).await;
    until("the replica is in step", || async { replica.info("master_link_status").await == "up" }).await;
}

#[tokio::test]
async fn another_primary_a_restart_a_demotion_and_lost_data_are_each_another_life() {
    let (mut one, other) = (RedisServer::start().await, RedisServer::start().await);
    let state = node_with(&one.url(), PATIENT, options(1)).await;
    let elsewhere = node_with(&other.url(), PATIENT, options(2)).await;
    assert_eq!(told(&state).await, None);
    state.raise_sequence(4).await.unwrap();
    // The first replica that comes to a primary begins a new history of it, for Redis and so for us.
    follows(&other, &one).await;
    let first = state.raise_sequence(5).await.unwrap();
    assert_eq!((told(&state).await, state.raise_sequence(3).await.unwrap()), (Some(first), first));
    let mut lives = vec![first.life];

    // A replica has the number and the birth, and is another store all the same once it is promoted.
    until("the replica has it", || async { other.cli(&["GET", "bz:sequence"]).await.ends_with(" 5") }).await;
    other.cli(&["REPLICAOF", "NO", "ONE"]).await;
    until("it leads", || async { told(&elsewhere).await.is_some() }).await;
    let copy = told(&elsewhere).await.unwrap();
    assert_eq!((copy.number, copy.life.birth), (5, first.life.birth));
    lives.push(copy.life);
    assert_eq!(told(&state).await, Some(first), "the old one goes on");

    // The old primary acknowledges one more, is made a replica, loses it, and leads again, on the same connection.
    let wires = one.info("total_connections_received").await;
    state.raise_sequence(6).await.unwrap();
    follows(&one, &other).await;
    one.cli(&["REPLICAOF", "NO", "ONE"]).await;
    until("it leads again", || async { told(&state).await.is_some() }).await;
    let again = told(&state).await.unwrap();
    println!("connections before {wires}, after {}", one.info("total_connections_received").await);
    assert_eq!((again.number, again.life.birth), (5, first.life.birth), "the data went back");
    lives.push(again.life);

    one.cli(&["FLUSHALL"]).await;
    assert_eq!(told(&state).await, None);
    lives.push(state.raise_sequence(1).await.unwrap().life);
    one.cli(&["SAVE"]).await;
    one.restart().await;
    until("the link is back", || async { state.raise_sequence(1).await.is_ok() }).await;
    lives.push(life(&state).await);

    for (n, life) in lives.iter().enumerate() {
        assert!(!lives[..n].contains(life), "{lives:?}");
    }
    assert_eq!(life(&state).await, *lives.last().unwrap());
}

#[tokio::test]
async fn a_read_under_a_lease_tells_the_same_life() {
    let server = RedisServer::start().await;
    let state = node_with(&server.url(), PATIENT, SharedOptions { leases: true, ..options(1) }).await;
    let raised = state.raise_sequence(7).await.unwrap();
    for _ in 0..1000 {
        assert_eq!(told(&state).await, Some(raised));
    }
    assert!(state.counts().leased > 0);
}
