//! Requests that come together share a call, and are decided as if each had made its own.

use std::time::{Duration, Instant};

use bartizan_core::limit::{Key, Quota};
use bartizan_store::shared::{Decided, Group, Ruled, SharedOptions, SharedState, Want};
use bartizan_store::state::{Admission, Ask, BanPolicy};
use bartizan_testkit::{ClusterSet, RedisServer, until};
use futures_util::future::join_all;
use tokio::task::JoinSet;

use crate::shared::{NOW, PATIENT, node_with, options};

fn only(units: u32) -> Quota {
    Quota::new(units, Duration::from_secs(86_400 * 300), units).unwrap()
}

/// A user of a tenant asks.
async fn ask(state: &SharedState, user: u128, users: u32, tenants: u32, want: Want) -> Ruled {
    let mut asks = [Ask::new(Key(user), "user", only(users)), Ask::new(Key(1), "tenant", only(tenants))];
    state.admit(&mut [Group { who: Key(user), asks: &mut asks }], 1, want, NOW, Instant::now()).await.unwrap()
}

fn admitted(ruled: &[Ruled]) -> usize {
    ruled.iter().filter(|ruled| ruled.admission == Admission::Admitted).count()
}

#[tokio::test]
async fn many_at_once_take_few_calls_and_exactly_what_the_limits_hold() {
    let server = RedisServer::start().await;
    let state = node_with(&server.url(), PATIENT, options(1)).await;
    let raised = state.raise_sequence(9).await.unwrap();
    let before = state.counts().round_trips;
    // Twenty users who may ask thirty times each, of a tenant that may ask five hundred times.
    let all = (0..1000u128).map(|n| {
        let want = if n % 3 == 0 { Want::DecisionAndSequence } else { Want::Decision };
        ask(&state, 10 + n % 20, 30, 500, want)
    });
    let ruled = join_all(all).await;
    let calls = state.counts().round_trips - before;
    assert_eq!(admitted(&ruled), 500);
    assert!((1000 / 64..200).contains(&calls), "{calls} calls for 1000 requests");
    for (n, ruled) in ruled.iter().enumerate().filter(|(_, ruled)| ruled.decided == Decided::Store) {
        assert_eq!(ruled.sequence, (n % 3 == 0).then_some(raised), "who asked for it is told it, nobody else");
    }
}

#[tokio::test]
async fn a_ban_that_begins_with_one_holds_for_the_next_in_the_same_call() {
    let server = RedisServer::start().await;
    let policy = BanPolicy::new(3, Duration::from_secs(60)).unwrap();
    let state = node_with(&server.url(), PATIENT, SharedOptions { bans: policy, ..options(1) }).await;
    let ruled = join_all((0..50).map(|_| ask(&state, 7, 2, 1000, Want::Decision))).await;
    let began = ruled.iter().filter(|ruled| matches!(ruled.admission, Admission::BanBegan { .. })).count();
    let limited = ruled.iter().filter(|ruled| matches!(ruled.admission, Admission::Limited { .. })).count();
    assert_eq!((admitted(&ruled), limited, began), (2, 2, 1), "{ruled:?}");
    assert!(state.counts().round_trips < 20);
    // A refusal takes nothing from the tenant.
    assert_eq!(admitted(&join_all((0..1000).map(|n| ask(&state, 100 + n, 1, 1000, Want::Decision))).await), 998);
}

#[tokio::test]
async fn who_gives_up_while_he_waits_costs_the_others_nothing() {
    let server = RedisServer::start().await;
    let state = node_with(&server.url(), PATIENT, options(1)).await;
    let mut kept = Vec::new();
    for n in 0..400u128 {
        let state = state.clone();
        let one = tokio::spawn(async move { ask(&state, 10 + n, 1, 1000, Want::Decision).await });
        if n % 2 == 0 { one.abort() } else { kept.push(one) }
    }
    let ruled: Vec<_> = join_all(kept).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(admitted(&ruled), 200);
    assert!(ruled.iter().all(|ruled| ruled.decided == Decided::Store), "{:?}", state.counts());
    assert_eq!(state.counts().failures, 0);
}

#[tokio::test]
async fn where_answers_take_long_nobody_waits_in_line_for_two_calls() {
    let server = RedisServer::start().await;
    let state = node_with(&server.url(), PATIENT, options(1)).await;
    let before = state.counts().round_trips;
    server.pause();
    let mut all = JoinSet::new();
    for n in 0..1000u128 {
        let state = state.clone();
        all.spawn(async move { ask(&state, 10 + n, 1, 1000, Want::Decision).await });
    }
    // None of them has an answer, and all full batches are on their way.
    until("they are on their way", || async { state.counts().round_trips - before >= 1000 / 64 }).await;
    server.resume();
    assert_eq!(admitted(&all.join_all().await), 1000);
}

#[tokio::test]
async fn on_a_cluster_each_key_goes_its_own_way_and_the_limits_hold() {
    let cluster = ClusterSet::start(3, 0).await;
    let state = node_with(&cluster.url(), PATIENT, options(1)).await;
    let raised = state.raise_sequence(9).await.unwrap();
    let ruled = join_all((0..200u128).map(|n| ask(&state, 10 + n % 50, 3, 1000, Want::DecisionAndSequence))).await;
    assert_eq!(admitted(&ruled), 150);
    assert!(ruled.iter().all(|ruled| ruled.decided == Decided::Node || ruled.sequence == Some(raised)));
}
