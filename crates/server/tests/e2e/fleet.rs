//! What one node ends has ended on all of them.

use std::time::{Duration, Instant};

use bartizan_testkit::{Client, Fleet, RedisServer, Session, until};
use serde_json::json;
use tokio::task::JoinSet;

use crate::fleet;

/// How old a node's copy may be, by default.
pub(crate) const BOUND: Duration = Duration::from_secs(1);

async fn login(fleet: &Fleet, node: usize) -> Session {
    fleet.on(node).owner().await
}

/// The same credential on another node.
fn on(fleet: &Fleet, node: usize, session: &Session) -> Client {
    fleet.on(node).client().bearer(&session.access)
}

async fn log_out(fleet: &Fleet, node: usize, session: &Session) -> Instant {
    drop(on(fleet, node, session).post("/v1/logout", json!({})).await.expect(204));
    Instant::now()
}

/// Demands that no request which begins at `from` or later is let in, and asks until one was refused.
pub(crate) async fn refused_from(client: &Client, from: Instant) {
    loop {
        let began = Instant::now();
        let status = client.get("/v1/whoami").await.status;
        if status == 401 {
            return;
        }
        assert!(began < from, "let in {:?} after the bound with {status}", began - from);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn finding_01_a_logout_on_one_node_is_a_logout_on_the_other_within_the_bound() {
    let fleet = fleet().start(2).await;
    for round in 0..20 {
        let (here, there) = (round % 2, (round + 1) % 2);
        let session = login(&fleet, here).await;
        drop(on(&fleet, there, &session).get("/v1/whoami").await.expect(200));
        let answered = log_out(&fleet, here, &session).await;
        refused_from(&on(&fleet, there, &session), answered + BOUND).await;
        drop(on(&fleet, here, &session).get("/v1/whoami").await.problem(401));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn finding_01_in_strict_mode_it_is_one_at_once() {
    let fleet = fleet().strict().start(2).await;
    for round in 0..20 {
        let (here, there) = (round % 2, (round + 1) % 2);
        let session = login(&fleet, here).await;
        drop(on(&fleet, there, &session).get("/v1/whoami").await.expect(200));
        log_out(&fleet, here, &session).await;
        drop(on(&fleet, there, &session).get("/v1/whoami").await.problem(401));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn finding_01_killing_the_node_that_answered_undoes_nothing() {
    for strict in [false, true] {
        let plan = if strict { fleet().strict() } else { fleet() };
        let mut fleet = plan.start(2).await;
        let session = login(&fleet, 0).await;
        drop(on(&fleet, 1, &session).get("/v1/whoami").await.expect(200));
        let answered = log_out(&fleet, 0, &session).await;
        fleet.nodes[0].server.kill9().await;
        refused_from(&on(&fleet, 1, &session), if strict { answered } else { answered + BOUND }).await;
        fleet.restart(0).await;
        drop(on(&fleet, 0, &session).get("/v1/whoami").await.problem(401));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_a_strict_answer_waits_out_the_bound_and_nobody_accepts_after_it() {
    let mut fleet = fleet().strict().alone().start(2).await;
    for hung in [true, false] {
        let session = login(&fleet, 0).await;
        drop(on(&fleet, 1, &session).get("/v1/whoami").await.expect(200));
        if hung {
            fleet.redis().pause();
        } else {
            fleet.redis().kill().await;
        }
        let began = Instant::now();
        log_out(&fleet, 0, &session).await;
        assert!(began.elapsed() >= BOUND, "answered after {:?}", began.elapsed());
        drop(on(&fleet, 1, &session).get("/v1/whoami").await.problem(401));
        if hung {
            fleet.redis().resume();
        } else {
            fleet.redis().restart().await;
        }
        for node in &fleet.nodes {
            until("the state is back", || async { node.server.metric("bartizan_state_up").await == Some(1.0) }).await;
        }
    }
    // What came back knows nothing of what was ended; the nodes do.
    let session = login(&fleet, 0).await;
    log_out(&fleet, 0, &session).await;
    drop(on(&fleet, 1, &session).get("/v1/whoami").await.problem(401));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_node_believes_no_number_of_a_redis_that_lost_it() {
    let mut fleet = fleet().strict().alone().start(2).await;
    for round in 0..5 {
        let session = login(&fleet, 0).await;
        drop(on(&fleet, 1, &session).get("/v1/whoami").await.expect(200));
        log_out(&fleet, 0, &session).await;
        if round % 2 == 0 {
            fleet.redis().cli(&["FLUSHALL"]).await;
        } else {
            fleet.redis().restart().await;
        }
        drop(on(&fleet, 1, &session).get("/v1/whoami").await.problem(401));
    }
}

/// Two primaries, each node on one of them, and one that forgets an acknowledged number on a connection that stays: no
/// number is believed that does not come from where the other one raised it.
#[tokio::test(flavor = "multi_thread")]
async fn in_strict_mode_a_logout_is_one_at_once_even_while_nodes_disagree_about_redis() {
    let mut fleet = fleet().strict().alone().start(2).await;
    let other = RedisServer::start().await;
    let before = fleet.redis().port().to_string();
    fleet.redis().cli(&["CONFIG", "SET", "repl-diskless-sync-delay", "0"]).await;
    let copy = async || {
        other.cli(&["REPLICAOF", "127.0.0.1", &before]).await;
        until("the copy is in step", || async { other.info("master_link_status").await == "up" }).await;
        other.cli(&["REPLICAOF", "NO", "ONE"]).await;
    };
    let logout = async |here: usize, there: usize| {
        let session = login(&fleet, here).await;
        drop(on(&fleet, there, &session).get("/v1/whoami").await.expect(200));
        let began = Instant::now();
        let answered = log_out(&fleet, here, &session).await;
        drop(on(&fleet, there, &session).get("/v1/whoami").await.problem(401));
        answered - began < BOUND
    };
    logout(0, 1).await;
    copy().await;
    let door = fleet.nodes[1].state.as_ref().unwrap();
    door.lead_to(other.port());
    let up = async |up: f64| {
        until("the node sees it", || async { fleet.on(1).metric("bartizan_state_up").await == Some(up) }).await;
    };
    door.cut();
    up(0.0).await;
    door.pass();
    up(1.0).await;
    assert!(other.info("connected_clients").await.parse::<u32>().unwrap() > 1);
    for _ in 0..2 {
        // The store of one of them is the one that counts, for some seconds: his answers do not wait.
        let (mut quick, deadline) = (0, Instant::now() + Duration::from_secs(60));
        for round in 0.. {
            let here = round % 2;
            quick += u32::from(logout(here, 1 - here).await);
            if quick >= 3 {
                break;
            }
            assert!(Instant::now() < deadline, "all wait all the time: {quick}");
        }
        // It goes back to what the first one has, under the node's feet.
        copy().await;
    }
    let began = fleet.sql("SELECT count(*) FROM audit WHERE action = 'state.life_began'");
    assert!(began.trim().parse::<u32>().unwrap() >= 2, "{began}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_cut_off_from_the_database_past_the_bound_lets_nobody_in_until_it_is_back() {
    let fleet = fleet().start(2).await;
    for silent in [false, true] {
        let session = login(&fleet, 0).await;
        let there = on(&fleet, 1, &session);
        drop(there.get("/v1/whoami").await.expect(200));
        let cut = Instant::now();
        if silent {
            fleet.nodes[1].database.swallow();
        } else {
            fleet.nodes[1].database.cut();
        }
        // Logged out where the node cannot hear of it.
        log_out(&fleet, 0, &session).await;
        let last = loop {
            let began = Instant::now();
            let answer = there.get("/v1/whoami").await;
            if answer.status == 200 {
                assert!(began < cut + BOUND, "let in {:?} after the cut", began - cut);
                continue;
            }
            break answer;
        };
        let refused = last.problem(503);
        assert!(!refused.header("retry-after").is_empty());
        for _ in 0..5 {
            drop(there.get("/v1/whoami").await.problem(503));
        }
        drop(fleet.on(1).ops().get("/readyz").await.expect(503));
        // The other node is not concerned.
        let fresh = login(&fleet, 0).await;
        drop(on(&fleet, 0, &fresh).get("/v1/whoami").await.expect(200));
        fleet.nodes[1].database.pass();
        let back = on(&fleet, 1, &fresh);
        until("the node is back", || async { back.get("/v1/whoami").await.status == 200 }).await;
        drop(there.get("/v1/whoami").await.problem(401));
        drop(fleet.on(1).ops().get("/readyz").await.expect(200));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_filled_during_a_revocation_does_not_bring_it_back() {
    for strict in [false, true] {
        let plan = if strict { fleet().strict() } else { fleet() };
        let fleet = plan.start(2).await;
        for _ in 0..3 {
            let session = login(&fleet, 0).await;
            let mut asking = JoinSet::new();
            let (stop, stopped) = tokio::sync::watch::channel(false);
            for node in [0, 1, 1, 1] {
                let (client, stopped) = (on(&fleet, node, &session), stopped.clone());
                asking.spawn(async move {
                    let mut let_in = None;
                    while !*stopped.borrow() {
                        let began = Instant::now();
                        if client.get("/v1/whoami").await.status == 200 {
                            let_in = Some(began);
                        }
                    }
                    let_in
                });
            }
            let answered = log_out(&fleet, 0, &session).await;
            // Asked on for as long again as it may take: what comes back late would be seen.
            tokio::time::sleep(BOUND + BOUND / 2).await;
            stop.send_replace(true);
            let from = if strict { answered } else { answered + BOUND };
            for let_in in asking.join_all().await.into_iter().flatten() {
                assert!(let_in < from, "let in {:?} too late", let_in - from);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_held_still_lets_nobody_in_whom_others_ended_meanwhile() {
    let fleet = fleet().start(2).await;
    let session = login(&fleet, 0).await;
    let there = on(&fleet, 1, &session);
    drop(there.get("/v1/whoami").await.expect(200));
    fleet.on(1).pause();
    let answered = log_out(&fleet, 0, &session).await;
    let waiting = tokio::spawn(async move { there.get("/v1/whoami").await });
    tokio::time::sleep_until((answered + BOUND).into()).await;
    fleet.on(1).resume();
    let status = waiting.await.unwrap().status;
    assert!(matches!(status, 401 | 503), "{status}");
}
