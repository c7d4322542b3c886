//! Starting on what was left behind: a clock set back, another installation's key, a damaged file.

use std::path::PathBuf;
use std::time::Duration;

use bartizan::clock::Clock;
use bartizan::noted_time::{self, Acceptance};
use bartizan::settings::Rate;
use bartizan_core::time::Millis;
use bartizan_keys::{FileKeyring, KeyProvider as _, SecretSource};

use crate::house::{BUILT, House, passphrase};

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn with_the_clock_an_hour_back_it_works_and_what_was_revoked_stays_revoked() {
    let mut house = House::new().await;
    let owner = house.tenant("acme").await;
    let ended = house.login("acme", "owner@same.example", &passphrase("acme")).await;
    drop(owner.caller.delete(&format!("/v1/sessions/{}", ended.id)).await.expect(204));
    drop(house.caller().form("/oauth/revoke", &format!("token={}", owner.access)).await.expect(200));
    house.stop().await;
    house.clock = Clock::manual(BUILT - HOUR);
    house.start().await.unwrap();
    drop(house.login("acme", "owner@same.example", &passphrase("acme")).await);
    // A token from the future is not believed; when its time comes round again, it is still revoked.
    for token in [&ended.access, &owner.access] {
        drop(house.caller().bearer(token).get("/v1/whoami").await.expect(401));
    }
    house.clock.advance(HOUR);
    for token in [&ended.access, &owner.access] {
        let answer = house.caller().bearer(token).get("/v1/whoami").await;
        drop(answer.refused(401, "auth.credential_revoked"));
    }
    drop(house.caller().refresh(&ended.refresh).await.refused(401, "auth.refresh_invalid"));
    drop(house.caller().refresh(&owner.refresh).await.expect(200));
}

#[tokio::test]
async fn with_the_clock_two_days_back_it_refuses_and_says_what_to_do() {
    let mut house = House::new().await;
    drop(house.tenant("acme").await);
    house.stop().await;
    house.clock = Clock::manual(BUILT - 48 * HOUR);
    let refused = house.start().await.unwrap_err().to_string();
    for word in ["clock", "NTP", "start again", &BUILT.to_string(), &Millis((BUILT - 48 * HOUR).0).to_string()] {
        assert!(refused.contains(word), "no {word:?} in: {refused}");
    }
    house.clock = Clock::manual(BUILT + HOUR);
    house.start().await.unwrap();
    drop(house.login("acme", "owner@same.example", &passphrase("acme")).await);
}

/// A clock that was once ahead must not keep the right one out until its time comes; and what it made the engine forget
/// must not bring a revoked token to life.
#[tokio::test]
async fn a_clock_that_was_ahead_can_be_taken_back_and_brings_no_token_to_life() {
    const AHEAD: Duration = Duration::from_secs(3 * 86_400);
    let mut house = House::new().await;
    let owner = house.tenant("acme").await;
    let other = house.login("acme", "owner@same.example", &passphrase("acme")).await;
    let ended = house.login("acme", "owner@same.example", &passphrase("acme")).await;
    drop(house.caller().form("/oauth/revoke", &format!("token={}", owner.access)).await.expect(200));
    drop(owner.caller.get("/v1/whoami").await.refused(401, "auth.credential_revoked"));
    drop(house.caller().form("/oauth/revoke", &format!("token={}", ended.refresh)).await.expect(200));
    house.stop().await;

    // Three days ahead for a while: somebody logs in, and every marker that is over by this clock is forgotten.
    house.clock = Clock::manual(BUILT + AHEAD);
    house.start().await.unwrap();
    let future = house.login("acme", "owner@same.example", &passphrase("acme")).await;
    house.stop().await;

    let right = Clock::manual(BUILT + Duration::from_secs(60));
    house.clock = right.clone();
    let refused = house.start().await.unwrap_err().to_string();
    assert!(refused.contains("bartizan doctor --accept-clock"), "{refused}");
    let accepted = noted_time::accept(&house.settings, &right).await.unwrap();
    let Acceptance::Yes { ahead, ended: sessions, distrusted } = accepted else { panic!("{accepted:?}") };
    assert!(ahead > AHEAD - HOUR && distrusted > 0, "{accepted:?}");
    assert_eq!(sessions, 1, "the one from the future");
    assert_eq!(noted_time::accept(&house.settings, &right).await.unwrap(), Acceptance::Unneeded);

    house.start().await.unwrap();
    let dead =
        async |house: &House, token: &str| drop(house.caller().bearer(token).get("/v1/whoami").await.expect(401));
    for session in [&owner, &ended, &other, &future] {
        dead(&house, &session.access).await;
    }
    for session in [&ended, &future] {
        drop(house.caller().refresh(&session.refresh).await.refused(401, "auth.refresh_invalid"));
    }
    let again = house.caller().refresh(&other.refresh).await.expect(200).text("/access_token");
    drop(house.caller().bearer(&again).get("/v1/me").await.expect(200));
    let row =
        house.rows::<(String, String)>("SELECT actor_type, details FROM audit WHERE action = 'clock.accepted'").await;
    assert_eq!((row.len(), row[0].0.as_str()), (1, "operator"), "{row:?}");

    // When the future comes round, its token is still nobody's.
    house.stop().await;
    house.clock = Clock::manual(BUILT + AHEAD);
    house.start().await.unwrap();
    dead(&house, &future.access).await;
}

#[tokio::test]
async fn under_another_root_key_it_refuses_and_says_which_one_is_missing() {
    let mut house = House::new().await;
    let owner = house.tenant("acme").await;
    house.stop().await;
    let (mine, kept) = (house.path().join("secrets/root.key"), house.path().join("kept.key"));
    std::fs::copy(&mine, &kept).unwrap();
    let elsewhere = house.path().join("elsewhere");
    FileKeyring::create(&SecretSource::dir(&elsewhere)).unwrap();
    std::fs::copy(elsewhere.join("root.key"), &mine).unwrap();
    let refused = house.start().await.unwrap_err().to_string();
    for word in ["root key", "root.key", "secrets directory"] {
        assert!(refused.contains(word), "no {word:?} in: {refused}");
    }
    // Nothing was lost by the try.
    std::fs::copy(&kept, &mine).unwrap();
    house.start().await.unwrap();
    assert_eq!(owner.caller.get("/v1/me").await.expect(200).text("/email"), "owner@same.example");
}

#[tokio::test]
async fn counters_and_failed_logins_outlive_a_change_of_the_root_key() {
    let few = Rate { count: 2, period: HOUR, burst: 2 };
    let mut house = House::with(|settings| {
        (settings.limits.login_account_network, settings.limits.address) =
            (few, Rate { count: 8, period: HOUR, burst: 8 });
    })
    .await;
    drop(house.tenant("acme").await);
    let neighbour = house.caller().from("203.0.113.9");
    for _ in 0..2 {
        drop(neighbour.try_login("acme", "owner@same.example", "wrong").await.expect(401));
    }
    while house.caller().get("/v1/whoami").await.status != 429 {}
    house.stop().await;
    let id = FileKeyring::open(&house.settings.secrets).unwrap().kek_id().to_owned();
    let secrets = house.path().join("secrets");
    std::fs::rename(secrets.join("root.key"), secrets.join(format!("root.{id}.key"))).unwrap();
    FileKeyring::create(&house.settings.secrets).unwrap();
    house.start().await.unwrap();
    assert_ne!(FileKeyring::open(&house.settings.secrets).unwrap().kek_id(), id);
    drop(house.caller().get("/v1/whoami").await.expect(429));
    drop(neighbour.try_login("acme", "owner@same.example", &passphrase("acme")).await.expect(429));
}

#[tokio::test]
async fn damaged_counters_are_set_aside_and_failed_logins_are_still_known() {
    let few = Rate { count: 2, period: HOUR, burst: 2 };
    let mut house = House::with(|settings| settings.limits.login_account_network = few).await;
    drop(house.tenant("acme").await);
    for _ in 0..2 {
        drop(house.caller().try_login("acme", "owner@same.example", "wrong").await.expect(401));
    }
    let path = house.settings.data.join("limits.snapshot");
    for damage in ["cut", "flipped", "empty", "noise"] {
        house.stop().await;
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        match damage {
            "cut" => bytes.truncate(middle),
            "flipped" => bytes[middle] ^= 1,
            "empty" => bytes.clear(),
            _ => bytes = vec![0x5a; 4096],
        }
        std::fs::write(&path, &bytes).unwrap();
        house.start().await.unwrap();
        let aside: Vec<PathBuf> = std::fs::read_dir(&house.settings.data)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|found| std::fs::read(found).is_ok_and(|kept| kept == bytes))
            .collect();
        assert!(aside.iter().any(|found| *found != path), "{damage}: not kept for the operator");
        drop(house.caller().try_login("acme", "owner@same.example", &passphrase("acme")).await.expect(429));
    }
}

#[tokio::test]
async fn counters_outlive_a_stop_in_good_order_and_a_key_at_its_limit_stays_there() {
    let few = Rate { count: 3, period: HOUR, burst: 3 };
    let mut house = House::with(|settings| settings.limits.address = few).await;
    let ask = async |house: &House, ip: &str| house.caller().from(ip).get("/v1/whoami").await.status.as_u16();
    for _ in 0..3 {
        assert_eq!(ask(&house, "198.51.100.1").await, 401);
    }
    assert_eq!(ask(&house, "198.51.100.1").await, 429);
    house.stop().await;
    house.start().await.unwrap();
    assert_eq!(ask(&house, "198.51.100.1").await, 429);
    assert_eq!(ask(&house, "198.51.100.2").await, 401);
    house.clock.advance(Duration::from_secs(1200));
    assert_eq!(ask(&house, "198.51.100.1").await, 401);
    assert_eq!(ask(&house, "198.51.100.1").await, 429);
}

#[tokio::test]
async fn a_second_engine_on_the_same_directory_is_refused_while_the_first_runs() {
    let house = House::new().await;
    let settings = house.settings.clone();
    let refused = bartizan::engine::Engine::start_at(settings, house.clock.clone()).await.unwrap_err().to_string();
    assert!(refused.contains("another"), "{refused}");
}
