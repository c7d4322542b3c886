//! How often: per user, tenant and address, before and after authentication, and for those who guess.

use std::time::Instant;

use bartizan_testkit::{Answer, DEADLINE, Launch, passphrase};
use serde_json::json;

use crate::launch;

/// Limits so slow that nothing comes back during a test.
fn tight(tier: &str, burst: u32) -> Launch {
    let (key, burst) = (|name: &str| format!("LIMITS__TIERS__{tier}__{name}"), burst.to_string());
    let user = [("PER_MINUTE", "1"), ("BURST", burst.as_str())];
    // The tenant as a whole is not what these tests are about.
    let tenant = [("TENANT_PER_MINUTE", "60000"), ("TENANT_BURST", "60000")];
    user.into_iter().chain(tenant).fold(launch(), |launch, (name, value)| launch.set(&key(name), value))
}

fn seconds(answer: &Answer) -> u64 {
    answer.header("retry-after").parse().unwrap_or_else(|_| panic!("no Retry-After: {:?}", answer.headers))
}

#[tokio::test]
async fn a_user_gets_exactly_his_burst() {
    let server = tight("FREE", 5).start().await;
    let user = server.signup("globex").await.client;
    let mut statuses = Vec::new();
    for _ in 0..8 {
        statuses.push(user.get("/v1/whoami").await.status);
    }
    assert_eq!(statuses, [200, 200, 200, 200, 200, 429, 429, 429]);
}

#[tokio::test]
async fn no_more_than_the_burst_passes_when_all_come_at_once() {
    let server = tight("FREE", 20).start().await;
    let user = server.signup("globex").await.client;
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let user = user.clone();
        running.spawn(async move { user.get("/v1/whoami").await.status });
    }
    let passed = running.join_all().await.into_iter().filter(|status| *status == 200).count();
    assert_eq!(passed, 20);
}

#[tokio::test]
async fn every_answer_says_what_is_left_and_a_refusal_when_to_come_back() {
    let server = tight("FREE", 2).start().await;
    let user = server.signup("globex").await.client;
    let fine = user.get("/v1/whoami").await.expect(200);
    drop(user.get("/v1/whoami").await.expect(200));
    let over = user.get("/v1/whoami").await.refused(429, "limit.quota_exceeded");
    for answer in [&fine, &over] {
        // Structured fields (RFC 9651): "name";q=…;w=… and "name";r=…;t=…
        let (policy, state) = (answer.header("ratelimit-policy"), answer.header("ratelimit"));
        assert!(policy.starts_with('"') && policy.contains("\";q=") && policy.contains(";w="), "{policy:?}");
        assert!(state.starts_with('"') && state.contains("\";r="), "{state:?}");
    }
    assert!(over.header("ratelimit").contains(";r=0"), "{}", over.header("ratelimit"));
    assert!((1..=120).contains(&seconds(&over)), "{}", seconds(&over));
    assert!(!over.json()["violated-policies"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn the_limit_of_one_user_leaves_others_alone() {
    let server = tight("FREE", 3).start().await;
    let (one, two) = (server.signup("globex").await.client, server.signup("initech").await.client);
    for _ in 0..4 {
        drop(one.get("/v1/whoami").await);
    }
    drop(one.get("/v1/whoami").await.expect(429));
    drop(two.get("/v1/whoami").await.expect(200));
}

#[tokio::test]
async fn a_new_session_does_not_bring_a_new_allowance() {
    let server = tight("FREE", 3).start().await;
    let first = server.signup("globex").await.client;
    for _ in 0..3 {
        drop(first.get("/v1/whoami").await.expect(200));
    }
    let again = server.login("globex", "owner@globex.example", &passphrase("globex")).await.client;
    drop(again.get("/v1/whoami").await.expect(429));
}

#[tokio::test]
async fn counters_survive_a_restart_in_good_order() {
    let server = tight("FREE", 3).start().await;
    let user = server.signup("globex").await;
    for _ in 0..3 {
        drop(user.client.get("/v1/whoami").await.expect(200));
    }
    let mut server = server;
    server.sigterm();
    assert_eq!(server.ended().await, Some(0));
    let server = server.restart().await;
    drop(server.client().bearer(&user.access).get("/v1/whoami").await.expect(429));
}

#[tokio::test]
async fn an_address_is_limited_before_anybody_is_known() {
    let server = launch().set("LIMITS__ADDRESS__PER_MINUTE", "1").set("LIMITS__ADDRESS__BURST", "4").start().await;
    let mut statuses = Vec::new();
    for n in 0..6 {
        // A forged forwarding header from a peer that is no configured proxy changes nothing.
        let client =
            server.client().with("x-forwarded-for", &format!("203.0.113.{n}")).with("forwarded", "for=198.51.100.7");
        statuses.push(client.get("/v1/whoami").await.status);
    }
    assert_eq!(statuses, [401, 401, 401, 401, 429, 429]);
}

#[tokio::test]
async fn a_configured_proxy_is_believed_and_read_from_the_right() {
    let server = launch()
        .set("PROXIES__TRUSTED", "127.0.0.1/32")
        .set("LIMITS__ADDRESS__PER_MINUTE", "1")
        .set("LIMITS__ADDRESS__BURST", "2")
        .start()
        .await;
    let ask = async |chain: &str| server.client().with("x-forwarded-for", chain).get("/v1/whoami").await.status;
    // The client may write what it likes to the left of what the proxy saw.
    assert_eq!(ask("203.0.113.1").await, 401);
    assert_eq!(ask("10.0.0.1, 203.0.113.1").await, 401);
    assert_eq!(ask("192.0.2.9, 203.0.113.1").await, 429);
    assert_eq!(ask("203.0.113.2").await, 401);
    // One /64 is one subject.
    assert_eq!(ask("2001:db8:1:1::1").await, 401);
    assert_eq!(ask("2001:db8:1:1:ffff::2").await, 401);
    assert_eq!(ask("2001:db8:1:1:aaaa::3").await, 429);
}

#[tokio::test]
async fn who_keeps_knocking_is_banned_for_a_while() {
    let server = tight("FREE", 1).set("LIMITS__BAN__AFTER", "5").start().await;
    let user = server.signup("globex").await.client;
    let is_ban = |code: &String| code == "limit.abnormal_usage" || code == "access.address_blocked";
    let (mut codes, began) = (Vec::new(), Instant::now());
    // Where nodes share the limits, refusals that a node decides by itself are told to the others once a second.
    while codes.len() < 20 || !codes.iter().any(is_ban) && began.elapsed() < DEADLINE {
        let answer = user.get("/v1/whoami").await;
        if answer.status != 200 {
            codes.push(answer.text("code"));
        }
    }
    assert!(codes.iter().any(is_ban), "{} refusals and no ban", codes.len());
}

#[tokio::test]
async fn guessing_a_password_is_slowed_down_and_the_owner_keeps_his_session() {
    let server = launch().set("LIMITS__LOGIN__PER_ACCOUNT_AND_NETWORK", "5").start().await;
    let owner = server.owner().await;
    let mut last = None;
    for n in 0..60 {
        let body = json!({ "tenant": server.tenant, "email": server.email, "password": passphrase(&n.to_string()) });
        let answer = server.client().post("/v1/login", body).await;
        if answer.status == 429 {
            last = Some(answer);
            break;
        }
        drop(answer.refused(401, "auth.login_failed"));
    }
    let refused = last.expect("60 guesses in a row were let through").problem(429);
    assert!(seconds(&refused) >= 1);
    // The right password gets no further than the guesses did, so the answer does not tell it from them.
    drop(owner.client.get("/v1/whoami").await.expect(200));
    drop(server.client().post("/v1/token/refresh", json!({ "refresh_token": owner.refresh })).await.expect(200));
}

#[tokio::test]
async fn failures_of_login_are_remembered_over_kill_minus_nine() {
    let server = launch().set("LIMITS__LOGIN__PER_ACCOUNT_AND_NETWORK", "5").start().await;
    let body = |server: &bartizan_testkit::Server, n: usize| json!({ "tenant": server.tenant, "email": server.email, "password": passphrase(&n.to_string()) });
    let mut n = 0;
    while server.client().post("/v1/login", body(&server, n)).await.status != 429 {
        n += 1;
        assert!(n < 60, "never refused");
    }
    let server = server.restart().await;
    drop(server.client().post("/v1/login", body(&server, 99)).await.problem(429));
}

#[tokio::test]
async fn successful_logins_are_not_charged_as_failures() {
    let server = launch().set("LIMITS__LOGIN__PER_ACCOUNT_AND_NETWORK", "5").start().await;
    for _ in 0..12 {
        drop(server.owner().await);
    }
}

#[tokio::test]
async fn a_network_signs_up_so_often_and_a_wide_one_ten_times_as_often() {
    let server = launch().set("PROXIES__TRUSTED", "127.0.0.1/32").set("LIMITS__LOGIN__PER_NETWORK", "1").start().await;
    let sign_up = async |from: &str, tenant: String| {
        let body = json!({ "tenant": tenant, "name": "N N", "email": "n@n.example", "password": passphrase("n") });
        server.client().with("x-forwarded-for", from).post("/v1/signup", body).await.status
    };
    assert_eq!(sign_up("203.0.113.1", "one".into()).await, 201);
    assert_eq!(sign_up("203.0.113.1", "two".into()).await, 429);
    assert_eq!(sign_up("203.0.113.2", "two".into()).await, 201);
    for n in 0..10 {
        assert_eq!(sign_up(&format!("2001:db8:0:{n}::1"), format!("six-{n}")).await, 201);
    }
    assert_eq!(sign_up("2001:db8:0:ff::1", "six-ff".into()).await, 429);
    assert_eq!(sign_up("2001:db8:1::1", "six-ff".into()).await, 201);
}

#[tokio::test]
async fn whoever_holds_a_wide_network_does_not_guess_from_each_of_its_parts() {
    let server = launch().set("PROXIES__TRUSTED", "127.0.0.1/32").set("LIMITS__LOGIN__PER_NETWORK", "1").start().await;
    let guess = async |from: &str| {
        let body = json!({ "tenant": "acme", "email": "n@n.example", "password": passphrase("wrong") });
        server.client().with("x-forwarded-for", from).post("/v1/login", body).await.status
    };
    for n in 0..10 {
        assert_eq!(guess(&format!("2001:db8:0:{n}::1")).await, 401);
    }
    assert_eq!(guess("2001:db8:0:ff::1").await, 429);
    assert_eq!(guess("2001:db8:1::1").await, 401);
}
