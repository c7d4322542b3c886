//! The link to a primary that sentinels name.

use std::time::{Duration, Instant};

use bartizan_core::secret::Secret;
use bartizan_store::shared::link::{LinkOptions, LinkState, Unavailable};
use bartizan_testkit::{SentinelSet, until};

use crate::link::{PATIENT, add, link_to, link_with, ready, works_again};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_primary_is_left_for_the_one_the_sentinels_promote() {
    let mut set = SentinelSet::start(1, 3).await;
    let link = ready(&set.url()).await;
    assert_eq!(add(&link, "n").await, Ok(1));
    until("the replica has it", || async { set.servers[1].cli(&["GET", "n"]).await == "1" }).await;
    set.servers[0].kill().await;
    let promoted = set.servers[1].port();
    until("the sentinels agree", || async { set.primary().await == Some(promoted) }).await;
    let agreed = Instant::now();
    works_again(&link, "n").await;
    println!("moved {:?} after the sentinels agreed", agreed.elapsed());
    assert!(agreed.elapsed() < Duration::from_secs(1), "moved {:?} after the sentinels agreed", agreed.elapsed());
    assert!(set.servers[1].cli(&["GET", "n"]).await.parse::<i64>().unwrap() >= 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_primary_that_returns_is_never_used_again() {
    let set = SentinelSet::start(1, 3).await;
    // One sentinel sleeps through it all, and believes afterwards what was true before.
    let link = ready(&set.url()).await;
    assert_eq!(add(&link, "n").await, Ok(1));
    set.servers[0].pause();
    set.sentinels[0].pause();
    let promoted = set.servers[1].port().to_string();
    until("the others agree", || async {
        let said = set.sentinels[1].cli(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster"]).await;
        said.contains(&promoted)
    })
    .await;
    works_again(&link, "n").await;
    set.servers[0].resume();
    set.sentinels[0].resume();
    for n in 0..50 {
        until("a call succeeds", || async { add(&link, &format!("after {n}")).await.is_ok() }).await;
    }
    for n in 0..50 {
        assert_eq!(set.servers[1].cli(&["GET", &format!("after {n}")]).await, "1");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_to_a_primary_that_still_answers_follows_an_ordered_failover() {
    let set = SentinelSet::start(1, 3).await;
    let link = ready(&set.url()).await;
    add(&link, "n").await.unwrap();
    assert_eq!(set.sentinels[0].cli(&["SENTINEL", "FAILOVER", "mymaster"]).await, "OK");
    let promoted = set.servers[1].port();
    until("the sentinels agree", || async { set.primary().await == Some(promoted) }).await;
    until("calls reach the new primary", || async {
        add(&link, "there").await.is_ok() && set.servers[1].cli(&["EXISTS", "there"]).await == "1"
    })
    .await;
    let survey = link.survey().await.unwrap();
    assert_eq!(survey[0].server.port, promoted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_of_sentinels_no_primary_is_trusted_for_long() {
    let mut set = SentinelSet::start(0, 3).await;
    let link = ready(&set.url()).await;
    set.sentinels[0].pause();
    let since = Instant::now();
    until("two seconds of trust have passed", || async { since.elapsed() > Duration::from_secs(3) }).await;
    assert!(add(&link, "n").await.is_ok(), "two of three are a majority");
    set.sentinels[1].kill().await;
    // At first the trust may run out before the one that is left has answered.
    until("the link is down for want of sentinels", || async {
        matches!(link.state(), LinkState::Down { why, .. } if why.to_string().contains("only 1 of 3 sentinels"))
    })
    .await;
    assert!(add(&link, "n").await.is_err());
    set.sentinels[0].resume();
    works_again(&link, "n").await;
}

#[tokio::test]
async fn servers_and_sentinels_have_passwords_of_their_own() {
    let set = SentinelSet::with_passwords(0, 1, "of the servers", "of the sentinels").await;
    let word = |text: &str| Some(Secret::new(text.to_owned()));
    let both = LinkOptions {
        password: word("of the servers"),
        sentinel_password: word("of the sentinels"),
        timeout: PATIENT,
        ..LinkOptions::default()
    };
    let link = link_with(&set.url(), both.clone());
    link.ready(bartizan_testkit::DEADLINE).await.unwrap();
    assert_eq!(add(&link, "n").await, Ok(1));
    let swapped = LinkOptions { password: both.sentinel_password.clone(), ..both.clone() };
    let without = LinkOptions { sentinel_password: None, ..both };
    for options in [swapped, without] {
        let link = link_with(&set.url(), options);
        let answer = link.ready(bartizan_testkit::DEADLINE).await;
        let Err(Unavailable::Refused(said)) = answer else { panic!("{answer:?}") };
        assert!(!said.to_string().contains("of the s"), "{said}");
    }
}

#[tokio::test]
async fn sentinels_that_do_not_know_the_service_are_told_apart_from_silent_ones() {
    let set = SentinelSet::start(0, 1).await;
    let link = link_to(&set.url().replace("/mymaster", "/another"));
    let answer = link.ready(bartizan_testkit::DEADLINE).await;
    assert!(matches!(&answer, Err(Unavailable::Refused(said)) if said.to_string().contains("another")), "{answer:?}");
    let nobody = link_to("redis+sentinel://127.0.0.1:1/mymaster");
    let answer = nobody.ready(Duration::from_millis(300)).await;
    assert!(matches!(&answer, Err(Unavailable::Disconnected(_))), "{answer:?}");
}
