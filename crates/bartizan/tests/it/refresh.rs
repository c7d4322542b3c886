//! Refresh tokens: raced, repeated, stolen, too late.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use bartizan_core::time::Millis;
use tokio::task::JoinSet;

use crate::house::{House, counted, passphrase};

const LIVE: &str = "SELECT COUNT(*) FROM refresh_tokens WHERE state = 'live'";
const USABLE: &str = "SELECT COUNT(*) FROM refresh_tokens r JOIN sessions s ON s.tenant_id = r.tenant_id AND \
    s.id = r.session_id WHERE r.state = 'live' AND s.ended_at IS NULL";

#[tokio::test(flavor = "multi_thread")]
async fn of_sixty_four_refreshes_at_once_one_wins_and_all_get_its_token() {
    let house = House::new().await;
    let session = house.tenant("acme").await;
    let mut racing = JoinSet::new();
    for _ in 0..64 {
        let (caller, token) = (house.caller(), session.refresh.clone());
        racing.spawn(async move { caller.refresh(&token).await.expect(200) });
    }
    let answers = racing.join_all().await;
    let refresh: HashSet<String> = answers.iter().map(|answer| answer.text("/refresh_token")).collect();
    assert_eq!(refresh.len(), 1);
    assert_eq!(house.number(LIVE).await, 1);
    assert_eq!(house.number("SELECT COUNT(*) FROM refresh_tokens").await, 2);
    assert_eq!(house.number("SELECT generation FROM sessions").await, 1);
    // Whoever got it may go on, and each access token is good.
    for answer in &answers {
        drop(house.caller().bearer(&answer.text("/access_token")).get("/v1/whoami").await.expect(200));
    }
    drop(house.caller().refresh(&answers[0].text("/refresh_token")).await.expect(200));
}

/// Each round: a login, then a refresh and the end of its session at once. What each of them answered, is then tried.
#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_that_races_the_end_of_its_session_leaves_nothing_alive() {
    let house = House::new().await;
    let owner = house.tenant("acme").await;
    let (began, mut rounds, mut refreshed) = (Instant::now(), 0, 0);
    while rounds < 10_000 && began.elapsed() < Duration::from_secs(15) {
        let mut racing = JoinSet::new();
        for lane in 0..16 {
            let (house, owner) = (house.caller(), owner.clone());
            racing.spawn(async move {
                let login = house.try_login("acme", "owner@same.example", &passphrase("acme")).await.expect(200);
                let (access, refresh) = (login.text("/access_token"), login.text("/refresh_token"));
                let mine = house.clone().bearer(&access);
                let end = async {
                    match lane % 3 {
                        0 => mine.post("/v1/logout", &serde_json::json!({})).await.expect(204),
                        1 => house.form("/oauth/revoke", &format!("token={refresh}")).await.expect(200),
                        _ => {
                            let id = mine.get("/v1/whoami").await.expect(200).text("/session");
                            owner.caller.delete(&format!("/v1/sessions/{id}")).await.expect(204)
                        }
                    }
                };
                let (ended, renewed) = tokio::join!(end, house.refresh(&refresh));
                drop(ended);
                drop(mine.get("/v1/whoami").await.expect(401));
                drop(house.refresh(&refresh).await.refused(401, "auth.refresh_invalid"));
                if renewed.status != 200 {
                    drop(renewed.refused(401, "auth.refresh_invalid"));
                    return 0;
                }
                drop(house.clone().bearer(&renewed.text("/access_token")).get("/v1/whoami").await.expect(401));
                drop(house.refresh(&renewed.text("/refresh_token")).await.refused(401, "auth.refresh_invalid"));
                1
            });
        }
        rounds += 16;
        refreshed += racing.join_all().await.into_iter().sum::<usize>();
    }
    // Only the owner's own session is left.
    assert_eq!(house.number(USABLE).await, 1);
    drop(owner.caller.get("/v1/whoami").await.expect(200));
    let figure = format!("{rounds} rounds, the refresh was first in {refreshed}");
    assert!(rounds >= 160, "{figure}");
    std::io::Write::write_all(&mut std::io::stderr(), format!("{figure}\n").as_bytes()).unwrap();
}

#[tokio::test]
async fn a_lost_answer_is_given_again_to_the_same_client_for_ten_seconds() {
    let house = House::new().await;
    let session = house.tenant("acme").await;
    let client = house.caller().with("user-agent", "phone").from("198.51.100.7");
    let first = client.refresh(&session.refresh).await.expect(200).text("/refresh_token");
    // The same /24 is the same network.
    let moved = client.clone().from("198.51.100.250");
    house.clock.advance(Duration::from_secs(10));
    assert_eq!(moved.refresh(&session.refresh).await.expect(200).text("/refresh_token"), first);
    assert_eq!(house.number(LIVE).await, 1);
    drop(client.refresh(&first).await.expect(200));
}

#[tokio::test]
async fn a_spent_token_that_comes_back_ends_the_session_and_is_written_down() {
    // What is done to a session whose token was just exchanged by the phone at 198.51.100.7.
    let cases = ["too late", "another agent", "another network", "no agent", "successor used"];
    for case in cases {
        let house = House::new().await;
        let (owner, session) =
            (house.tenant("acme").await, house.login("acme", "owner@same.example", &passphrase("acme")).await);
        let client = house.caller().with("user-agent", "phone").from("198.51.100.7");
        let next = client.refresh(&session.refresh).await.expect(200);
        let mut newest = next.text("/refresh_token");
        let thief = match case {
            "too late" => {
                house.clock.advance(Duration::from_millis(10_001));
                client.clone()
            }
            "another agent" => client.clone().with("user-agent", "laptop"),
            "another network" => client.clone().from("203.0.113.7"),
            "no agent" => house.caller().from("198.51.100.7"),
            _ => {
                newest = client.refresh(&newest).await.expect(200).text("/refresh_token");
                client.clone()
            }
        };
        drop(thief.refresh(&session.refresh).await.refused(401, "auth.refresh_invalid"));
        for access in [&session.access, &next.text("/access_token")] {
            let answer = house.caller().bearer(access).get("/v1/whoami").await;
            drop(answer.refused(401, "auth.credential_revoked"));
        }
        drop(client.refresh(&newest).await.refused(401, "auth.refresh_invalid"));
        assert_eq!(counted(&owner.caller, "token.refresh_reused").await, 1, "{case}");
        assert_eq!(house.number(USABLE).await, 1, "{case}: only the other session lives");
        // It comes back once more: the session ended before, so there is nothing new to tell.
        drop(thief.refresh(&session.refresh).await.expect(401));
        assert_eq!(counted(&owner.caller, "token.refresh_reused").await, 1, "{case}");
    }
}

#[tokio::test]
async fn a_session_ends_when_it_is_idle_too_long_and_that_is_no_theft() {
    let house = House::with(|settings| settings.tokens.refresh_idle = Duration::from_secs(3600)).await;
    let session = house.tenant("acme").await;
    house.clock.advance(Duration::from_millis(3_599_999));
    let next = house.caller().refresh(&session.refresh).await.expect(200).text("/refresh_token");
    house.clock.advance(Duration::from_secs(3600));
    drop(house.caller().refresh(&next).await.refused(401, "auth.refresh_invalid"));
    let owner = house.login("acme", "owner@same.example", &passphrase("acme")).await;
    assert_eq!(counted(&owner.caller, "token.refresh_reused").await, 0);
    assert_eq!(crate::house::all(&owner.caller, "/v1/sessions").await.len(), 1);
}

#[tokio::test]
async fn a_session_ends_at_its_absolute_end_however_often_it_is_used() {
    let end = Duration::from_millis(20_500);
    let house = House::with(|settings| settings.tokens.refresh_absolute = end).await;
    let mut token = house.tenant("acme").await.refresh;
    let mut access = String::new();
    while house.clock.now() < Millis(crate::house::BUILT.0 + 19_500) {
        let answer = house.caller().refresh(&token).await.expect(200);
        (token, access) = (answer.text("/refresh_token"), answer.text("/access_token"));
        let left = (crate::house::BUILT + end).since(house.clock.now()).as_secs();
        assert!(answer.json()["expires_in"].as_u64().unwrap() <= left);
        assert!(answer.json()["refresh_expires_in"].as_u64().unwrap() <= left);
        house.clock.advance(Duration::from_millis(500));
    }
    drop(house.caller().bearer(&access).get("/v1/whoami").await.expect(200));
    // In the last second, and after it, there is an answer and it is no fault of ours.
    for _ in 0..4 {
        house.clock.advance(Duration::from_millis(500));
        let answer = house.caller().refresh(&token).await;
        drop(answer.refused(401, "auth.refresh_invalid"));
    }
    drop(house.caller().bearer(&access).get("/v1/whoami").await.expect(401));
}
