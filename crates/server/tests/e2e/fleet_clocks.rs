//! Nodes whose clocks are five minutes off, each way: limits do not care, tokens do as it is written, and what has ended
//! stays ended. The clocks are those of whole programs, set by a library that is loaded before them.

use std::time::{Duration, Instant};

use bartizan_testkit::{Client, DEADLINE, Fleet, FleetPlan, Session, passphrase};
use serde_json::json;
use tokio::task::JoinSet;

use crate::fleet;
use crate::fleet::{BOUND, refused_from};
use crate::fleet_once::refresh;

/// The node that is five minutes ahead, the one that is five behind, and one that is right.
const AHEAD: usize = 0;
const BEHIND: usize = 1;
const RIGHT: usize = 2;
const ALL: [usize; 3] = [AHEAD, BEHIND, RIGHT];

/// Tokens as long as they may be, so that one of each node is still good where it is later.
fn apart() -> FleetPlan {
    fleet().clock_of(AHEAD, 300).clock_of(BEHIND, -300).set("TOKENS__ACCESS", "15m")
}

fn on(fleet: &Fleet, node: usize, session: &Session) -> Client {
    fleet.on(node).client().bearer(&session.access)
}

/// What the clock of the node that issued a token just now shows beyond this one's, in seconds.
fn off(session: &Session) -> i64 {
    let issued = bartizan_testkit::claims(&session.access)["iat"].as_i64().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    issued - i64::try_from(now.as_secs()).unwrap()
}

/// Asks 300 times at once, in turn on each node, with a token that is good on all: one of the node that is behind. How
/// often that was let in, and how many units came back meanwhile, when one comes back in so many seconds.
async fn admitted_at_once(fleet: &Fleet, session: &Session, one_in: u64) -> (usize, usize) {
    let began = Instant::now();
    let mut running = JoinSet::new();
    for nth in 0..300 {
        let client = on(fleet, ALL[nth % 3], session);
        running.spawn(async move { client.get("/v1/whoami").await.status });
    }
    let statuses = running.join_all().await;
    assert!(statuses.iter().all(|status| matches!(status, 200 | 429)), "{statuses:?}");
    let admitted = statuses.iter().filter(|status| **status == 200).count();
    (admitted, usize::try_from(began.elapsed().as_secs() / one_in).unwrap())
}

async fn not_yet_valid(fleet: &Fleet, node: usize, session: &Session) {
    let series = "bartizan_token_rejections_total{reason=\"not_yet_valid\"}";
    let before = fleet.on(node).metric(series).await.unwrap_or_default();
    drop(on(fleet, node, session).get("/v1/whoami").await.refused(401, "auth.credential_invalid"));
    assert_eq!(fleet.on(node).metric(series).await, Some(before + 1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_ten_minutes_apart_leave_limits_as_they_are() {
    let fleet = apart()
        .set("STATE__LEASES", "false")
        .set("LIMITS__TIERS__FREE__BURST", "40")
        .set("LIMITS__TIERS__FREE__PER_MINUTE", "6")
        .set("LIMITS__LOGIN__PER_ACCOUNT_AND_NETWORK", "5")
        .start(3)
        .await;
    let session = fleet.on(BEHIND).signup("globex").await;
    let (admitted, back) = admitted_at_once(&fleet, &session, 10).await;
    assert!((40..=40 + back).contains(&admitted), "{admitted} admitted, {back} came back");
    for node in ALL {
        let refused = on(&fleet, node, &session).get("/v1/whoami").await.problem(429);
        let wait: u64 = refused.header("retry-after").parse().unwrap();
        assert!((1..=10).contains(&wait), "node {node} tells {wait} s");
    }

    let mut statuses = Vec::new();
    for attempt in 0..8 {
        let body = json!({ "tenant": "globex", "email": "owner@globex.example", "password": passphrase("wrong") });
        statuses.push(fleet.on(ALL[attempt % 3]).client().post("/v1/login", body).await.status);
    }
    assert_eq!(statuses, [401, 401, 401, 401, 401, 429, 429, 429]);
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_ten_minutes_apart_leave_leases_as_they_are() {
    let fleet =
        apart().set("LIMITS__TIERS__FREE__BURST", "600").set("LIMITS__TIERS__FREE__PER_MINUTE", "600").start(3).await;
    let session = fleet.on(BEHIND).signup("globex").await;
    let (mut admitted, mut back) = (0, 1);
    let began = Instant::now();
    for _ in 0..5 {
        admitted += admitted_at_once(&fleet, &session, 1).await.0;
        back = 1 + usize::try_from(began.elapsed().as_millis() / 100).unwrap();
    }
    // At most a quarter of the burst lies unused on the nodes.
    assert!((450..=600 + back).contains(&admitted), "{admitted} admitted, {back} came back");
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_ten_minutes_apart_leave_bans_as_they_are() {
    let fleet = apart()
        .set("LIMITS__TIERS__FREE__BURST", "1")
        .set("LIMITS__TIERS__FREE__PER_MINUTE", "60")
        .set("LIMITS__BAN__AFTER", "5")
        .set("LIMITS__BAN__FIRST", "8s")
        .start(3)
        .await;
    let session = fleet.on(BEHIND).signup("globex").await;
    let banned = async |node: usize| {
        let answer = on(&fleet, node, &session).get("/v1/whoami").await;
        let wait = answer.header("retry-after").parse::<u64>().unwrap_or_default();
        (answer.status == 429 && answer.text("code") == "limit.abnormal_usage").then_some(wait)
    };
    // Not asked faster than need be: each refusal brings the next, longer ban nearer.
    let pause = async || tokio::time::sleep(Duration::from_millis(250)).await;
    let began = Instant::now();
    while banned(AHEAD).await.is_none() {
        assert!(began.elapsed() < DEADLINE, "no ban");
        pause().await;
    }
    // Each of the others hears of it with its first question.
    let began = Instant::now();
    for node in [RIGHT, BEHIND, AHEAD] {
        let wait = banned(node).await.unwrap_or_else(|| panic!("node {node} has not heard of the ban"));
        assert!((1..=8).contains(&wait), "node {node} tells {wait} s");
    }
    for node in ALL {
        while let Some(wait) = banned(node).await {
            assert!(began.elapsed() < Duration::from_secs(30), "a ban of 8 s lasts {:?}", began.elapsed());
            tokio::time::sleep(Duration::from_secs(wait)).await;
        }
    }
    assert!(began.elapsed() > Duration::from_secs(5), "a ban of 8 s was over after {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_good_as_far_as_the_clocks_agree_and_no_further() {
    // And a fourth, within the leeway.
    let fleet = apart().clock_of(3, 3).set_of(RIGHT, "TOKENS__ACCESS", "5m").start(4).await;
    let mut sessions = Vec::new();
    for (node, wanted) in [(AHEAD, 300), (BEHIND, -300), (RIGHT, 0), (3, 3)] {
        let session = fleet.on(node).owner().await;
        let apart = off(&session);
        assert!((wanted - 30..=wanted + 1).contains(&apart), "the clock of node {node} is {apart} s off");
        drop(on(&fleet, node, &session).get("/v1/whoami").await.expect(200));
        sessions.push(session);
    }
    let [ahead, behind, right, near] = &sessions[..] else { unreachable!() };
    for node in [BEHIND, RIGHT, 3] {
        not_yet_valid(&fleet, node, ahead).await;
    }
    for node in [AHEAD, RIGHT, 3] {
        drop(on(&fleet, node, behind).get("/v1/whoami").await.expect(200));
    }
    // Three seconds are forgiven.
    drop(on(&fleet, RIGHT, near).get("/v1/whoami").await.expect(200));
    not_yet_valid(&fleet, BEHIND, right).await;
    // Five minutes old, by a clock that is five minutes ahead: it ended there the moment it began.
    drop(on(&fleet, AHEAD, right).get("/v1/whoami").await.refused(401, "auth.credential_expired"));

    // A refresh token knows no node. Asked for again where it is earlier, a lost answer is given again; where it is later
    // by more than the ten seconds for which it is kept, it is a copy, and the session ends.
    let renewed = fleet.on(AHEAD).client().post("/v1/token/refresh", refresh(&behind.refresh)).await.expect(200);
    let again = fleet.on(BEHIND).client().post("/v1/token/refresh", refresh(&behind.refresh)).await.expect(200);
    assert_eq!(renewed.text("refresh_token"), again.text("refresh_token"));
    let next = refresh(&again.text("refresh_token"));
    let renewed = fleet.on(BEHIND).client().post("/v1/token/refresh", next.clone()).await.expect(200);
    drop(fleet.on(AHEAD).client().post("/v1/token/refresh", next).await.refused(401, "auth.refresh_invalid"));
    let ended = Instant::now();
    for node in [AHEAD, BEHIND, RIGHT] {
        refused_from(&fleet.on(node).client().bearer(&renewed.text("access_token")), ended + BOUND).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ended_by_one_clock_has_ended_by_all_for_as_long_as_a_token_lives() {
    let mut fleet = apart().start(3).await;
    for here in ALL {
        let session = fleet.on(BEHIND).owner().await;
        for node in ALL {
            drop(on(&fleet, node, &session).get("/v1/whoami").await.expect(200));
        }
        drop(on(&fleet, here, &session).post("/v1/logout", json!({})).await.expect(204));
        let answered = Instant::now();
        for node in ALL {
            refused_from(&on(&fleet, node, &session), answered + BOUND).await;
        }
    }
    // The longest that a token may outlive its end: issued where it is later, ended where it is earlier.
    let owner = fleet.on(BEHIND).owner().await;
    let long = fleet.on(AHEAD).owner().await;
    let id = on(&fleet, AHEAD, &long).get("/v1/whoami").await.expect(200).text("session");
    drop(on(&fleet, BEHIND, &owner).delete(&format!("/v1/sessions/{id}")).await.expect(204));
    let answered = Instant::now();
    refused_from(&on(&fleet, AHEAD, &long), answered + BOUND).await;
    // Twelve minutes later, and started anew, it knows as much; the token would be good for three more.
    let other = fleet.on(AHEAD).owner().await;
    fleet.nodes[AHEAD].server.set_clock(300 + 12 * 60);
    fleet.restart(AHEAD).await;
    drop(on(&fleet, AHEAD, &other).get("/v1/whoami").await.expect(200));
    drop(on(&fleet, AHEAD, &long).get("/v1/whoami").await.refused(401, "auth.credential_revoked"));
}
