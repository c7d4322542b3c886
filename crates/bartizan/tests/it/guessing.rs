//! Guessing passwords: who is slowed down, who is not, and what the answers give away.

use std::time::Duration;

use bartizan::settings::{Rate, Settings};
use bartizan_store::words::TenantStatus;
use serde_json::{Value, json};

use crate::house::{Answer, House, OPEN, passphrase};

const EMAIL: &str = "owner@same.example";

/// One figure for each of the four counters.
fn limits(settings: &mut Settings, here: Rate, account: Rate, network: Rate, tenant: Rate) {
    let limits = &mut settings.limits;
    (limits.login_account_network, limits.login_account) = (here, account);
    (limits.login_network, limits.login_tenant) = (network, tenant);
}

fn so_many(count: u32, seconds: u64) -> Rate {
    Rate { count, period: Duration::from_secs(seconds), burst: count }
}

fn wait(answer: &Answer) -> Duration {
    Duration::from_secs(answer.headers["retry-after"].to_str().unwrap().parse().unwrap())
}

#[tokio::test]
async fn an_outsider_with_many_addresses_empties_the_account_and_the_owner_does_not_notice() {
    let house = House::with(|settings| limits(settings, so_many(5, 300), so_many(8, 3600), OPEN, OPEN)).await;
    let owner = house.tenant("acme").await;
    let guess = async |n: usize, email: &str| {
        house.caller().from(&format!("198.51.{n}.1")).try_login("acme", email, "not the right one").await
    };
    for n in 0..8 {
        drop(guess(n, EMAIL).await.refused(401, "auth.login_failed"));
    }
    // Neither another address nor another spelling of the name is a fresh allowance.
    for (n, email) in [EMAIL, "OWNER@same.example", "Owner@SAME.example", "owner@Same.Example"].into_iter().enumerate()
    {
        drop(guess(100 + n, email).await.refused(429, "limit.quota_exceeded"));
    }
    // The owner's session and refresh token work, and so does his device, from wherever it is.
    drop(owner.caller.get("/v1/me").await.expect(200));
    drop(house.caller().refresh(&owner.refresh).await.expect(200));
    let device = house.caller().from("203.0.113.77").device(&owner.device);
    drop(device.try_login("acme", EMAIL, &passphrase("acme")).await.expect(200));
    // From an unknown device the right password gets no further than a wrong one.
    let unknown = house.caller().from("203.0.113.78").try_login("acme", EMAIL, &passphrase("acme")).await;
    drop(unknown.refused(429, "limit.quota_exceeded"));
    // A stolen device is no way to guess for ever either.
    for _ in 0..5 {
        drop(device.try_login("acme", EMAIL, "not the right one").await.expect(401));
    }
    drop(device.try_login("acme", EMAIL, &passphrase("acme")).await.refused(429, "limit.quota_exceeded"));
}

#[tokio::test]
async fn each_of_the_four_counters_stops_what_only_it_can_see() {
    let few = so_many(3, 3600);
    for (which, name) in ["here", "account", "network", "tenant"].into_iter().enumerate() {
        let house = House::with(|settings| {
            let rate = |n: usize| if n == which { few } else { OPEN };
            limits(settings, rate(0), rate(1), rate(2), rate(3));
        })
        .await;
        drop(house.tenant("acme").await);
        drop(house.tenant("globex").await);
        let mut statuses = Vec::new();
        for n in 0..5 {
            let (ip, slug, email) = match name {
                "here" => ("198.51.100.1".to_owned(), "acme", "x@same.example".to_owned()),
                "account" => (format!("198.51.{n}.1"), "acme", "x@same.example".to_owned()),
                "network" => ("198.51.100.1".to_owned(), ["acme", "globex"][n % 2], format!("x{n}@same.example")),
                _ => (format!("198.51.{n}.1"), "acme", format!("x{n}@same.example")),
            };
            statuses.push(house.caller().from(&ip).try_login(slug, &email, "wrong").await.status.as_u16());
        }
        assert_eq!(statuses, [401, 401, 401, 429, 429], "{name}");
    }
}

#[tokio::test]
async fn unknown_and_known_users_run_into_the_same_limit_with_the_same_answers() {
    let house = House::with(|settings| limits(settings, so_many(3, 60), so_many(4, 3600), OPEN, OPEN)).await;
    drop(house.tenant("acme").await);
    let mut seen: Vec<Vec<(u16, Vec<String>, String)>> = Vec::new();
    for (slug, email) in [("acme", EMAIL), ("acme", "nobody@same.example"), ("no-such", EMAIL)] {
        let mut answers = Vec::new();
        for n in 0..7 {
            let ip = format!("198.51.{}.1", n / 3);
            let caller = house.caller().from(&ip).device("__Host-bartizan-device=AAAA");
            answers.push(caller.try_login(slug, email, "wrong").await.shape());
        }
        seen.push(answers);
    }
    assert_eq!(seen[0].iter().map(|shape| shape.0).collect::<Vec<_>>(), [401, 401, 401, 401, 429, 429, 429]);
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0], seen[2]);
}

#[tokio::test]
async fn every_reason_of_a_failed_login_gives_one_answer_at_one_price() {
    let house = House::new().await;
    let owner = house.tenant("acme").await;
    let disabled = house.user("acme", &owner, "member", "dis").await;
    let patch = json!({ "status": "disabled" });
    drop(owner.caller.patch(&format!("/v1/users/{}", disabled.user), &patch).await.expect(200));
    drop(house.tenant("globex").await);
    drop(house.operator().set_status("globex", TenantStatus::Suspended).await.unwrap());
    let cases = [
        ("acme", EMAIL, passphrase("wrong")),
        ("acme", "nobody@same.example", passphrase("acme")),
        ("no-such", EMAIL, passphrase("acme")),
        ("acme", "dis@same.example", passphrase("dis")),
        ("acme", "dis@same.example", passphrase("wrong")),
        ("globex", EMAIL, passphrase("globex")),
        ("globex", EMAIL, passphrase("wrong")),
    ];
    let mut seen = Vec::new();
    for (slug, email, password) in &cases {
        for caller in [house.caller(), house.caller().device(&owner.device)] {
            seen.push(caller.try_login(slug, email, password).await.refused(401, "auth.login_failed").shape());
        }
    }
    assert!(seen.windows(2).all(|two| two[0] == two[1]), "{seen:#?}");
    // What a login writes is the same too: one row, wherever a tenant is known, that names whoever exists.
    let rows: Vec<Value> = crate::house::all(&owner.caller, "/v1/audit?action=login.failed").await;
    assert_eq!(rows.len(), 8);
    assert!(rows.iter().all(|row| row["details"] == json!({ "reason": "credentials" })));
    let (owner, disabled) = (json!([owner.user]), json!([disabled.user]));
    let named: Vec<&Value> = rows.iter().map(|row| &row["targets"]).collect();
    let nobody = json!([]);
    assert_eq!(named, [&owner, &owner, &nobody, &nobody, &disabled, &disabled, &disabled, &disabled]);
}

/// While the only place for a hash is taken, everybody who needs one is told so: a reason that were known without one
/// would show itself here.
#[tokio::test(flavor = "multi_thread")]
async fn every_reason_of_a_failed_login_is_found_by_way_of_a_hash() {
    let mut house = House::with(|settings| (settings.password.workers, settings.password.queue) = (1, 0)).await;
    let owner = house.tenant("acme").await;
    let disabled = house.user("acme", &owner, "member", "dis").await;
    let patch = json!({ "status": "disabled" });
    drop(owner.caller.patch(&format!("/v1/users/{}", disabled.user), &patch).await.expect(200));
    drop(house.tenant("globex").await);
    drop(house.operator().set_status("globex", TenantStatus::Suspended).await.unwrap());
    house.stop().await;
    (house.settings.password.memory_kib, house.settings.password.passes) = (64 * 1024, 16);
    house.start().await.unwrap();
    let cases = [
        ("acme", EMAIL),
        ("acme", "nobody@same.example"),
        ("acme", "dis@same.example"),
        ("globex", EMAIL),
        ("no-such", EMAIL),
    ];
    let (mut shapes, mut tries) = (Vec::new(), 0);
    while shapes.len() < cases.len() {
        tries += 1;
        assert!(tries < 20, "the hash that was to be in the way was always over too soon");
        let stranger = house.caller();
        let hashing = tokio::spawn(async move { stranger.try_login("elsewhere", "x@same.example", "wrong").await });
        let metrics = async || {
            let request = http::Request::get("/metrics").body(axum::body::Body::empty()).unwrap();
            let answer = tower::ServiceExt::oneshot(house.engine().ops_router(), request).await.unwrap();
            String::from_utf8(axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap().to_vec()).unwrap()
        };
        while !metrics().await.contains("password_hashing{state=\"running\"} 1") && !hashing.is_finished() {}
        shapes.clear();
        for (slug, email) in cases {
            let answer = house.caller().try_login(slug, email, &passphrase("dis")).await;
            if !hashing.is_finished() {
                let mut shape = answer.refused(503, "server.busy").shape();
                // Who asked a moment later is told to wait as long.
                shape.1.clear();
                shapes.push(shape);
            }
        }
        drop(hashing.await.unwrap().expect(401));
    }
    assert!(shapes.windows(2).all(|two| two[0] == two[1]), "{shapes:#?}");
}

#[tokio::test]
async fn a_success_is_not_charged_and_does_not_pardon_failures() {
    let house = House::with(|settings| limits(settings, so_many(3, 3600), OPEN, OPEN, OPEN)).await;
    drop(house.tenant("acme").await);
    for _ in 0..10 {
        drop(house.login("acme", EMAIL, &passphrase("acme")).await);
    }
    let login = async |password: &str| house.caller().try_login("acme", EMAIL, password).await.status.as_u16();
    let mut statuses = Vec::new();
    for password in ["wrong", &passphrase("acme"), "wrong", &passphrase("acme"), "wrong", &passphrase("acme")] {
        statuses.push(login(password).await);
    }
    assert_eq!(statuses, [401, 200, 401, 200, 401, 429]);
}

#[tokio::test]
async fn failures_survive_a_crash() {
    let few = so_many(3, 3600);
    for which in 0..4 {
        let mut house = House::with(|settings| {
            let rate = |n: usize| if n == which { few } else { OPEN };
            limits(settings, rate(0), rate(1), rate(2), rate(3));
        })
        .await;
        drop(house.tenant("acme").await);
        for _ in 0..3 {
            drop(house.caller().try_login("acme", EMAIL, "wrong").await.expect(401));
        }
        // As if the counters' own file had been lost: what the database holds is enough.
        house.crash().await;
        let _ = std::fs::remove_file(house.settings.data.join("limits.snapshot"));
        house.start().await.unwrap();
        drop(house.caller().try_login("acme", EMAIL, &passphrase("acme")).await.expect(429));
    }
}

#[tokio::test]
async fn retry_after_is_honest_to_the_millisecond() {
    let house = House::with(|settings| limits(settings, so_many(2, 120), OPEN, OPEN, OPEN)).await;
    drop(house.tenant("acme").await);
    let login = async || house.caller().try_login("acme", EMAIL, &passphrase("acme")).await;
    for _ in 0..2 {
        drop(house.caller().try_login("acme", EMAIL, "wrong").await.expect(401));
    }
    let told = wait(&login().await.expect(429));
    assert_eq!(told, Duration::from_secs(60));
    house.clock.advance(told - Duration::from_millis(1));
    assert_eq!(wait(&login().await.expect(429)), Duration::from_secs(1));
    house.clock.advance(Duration::from_millis(1));
    drop(login().await.expect(200));
}

#[tokio::test]
async fn a_full_hashing_queue_costs_nobody_an_attempt() {
    let house = House::with(|settings| {
        limits(settings, so_many(2, 3600), OPEN, OPEN, OPEN);
        (settings.password.workers, settings.password.queue) = (1, 0);
        settings.password.memory_kib = 4 * 1024;
    })
    .await;
    let owner = house.tenant("acme").await;
    let mut racing = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let (caller, password) = (house.caller(), passphrase("acme"));
        racing.spawn(async move { caller.try_login("acme", EMAIL, &password).await });
        let caller = owner.caller.clone();
        let body = json!({ "current": passphrase("acme"), "new": passphrase("acme") });
        racing.spawn(async move { caller.post("/v1/me/password", &body).await });
    }
    let mut busy = 0;
    for answer in racing.join_all().await {
        if answer.status == 503 {
            busy += 1;
            assert!(wait(&answer) >= Duration::from_secs(1));
        }
    }
    assert!(busy > 0, "the queue was never full");
    // Neither counter holds anything now, so both failures that are allowed are still there.
    let session = house.login("acme", EMAIL, &passphrase("acme")).await;
    drop(session);
    for _ in 0..2 {
        drop(house.caller().try_login("acme", EMAIL, "wrong").await.expect(401));
    }
}

#[tokio::test]
async fn a_flood_of_logins_from_one_network_fills_its_share_and_nobody_elses() {
    let house = House::with(|settings| {
        (settings.password.workers, settings.password.queue) = (1, 15);
        settings.password.memory_kib = 4 * 1024;
    })
    .await;
    drop(house.tenant("acme").await);
    let (mut flood, mut others) = (tokio::task::JoinSet::new(), tokio::task::JoinSet::new());
    for _ in 0..40 {
        let caller = house.caller().from("198.51.100.1");
        flood.spawn(async move { caller.try_login("acme", EMAIL, "wrong").await });
    }
    for n in 0..10 {
        let caller = house.caller().from(&format!("203.0.113.{n}"));
        others.spawn(async move { caller.try_login("acme", EMAIL, &passphrase("acme")).await });
    }
    for answer in others.join_all().await {
        drop(answer.expect(200));
    }
    let busy: Vec<_> = flood.join_all().await.into_iter().filter(|answer| answer.status == 503).collect();
    assert!(!busy.is_empty(), "the share was never full");
    assert!(busy.iter().all(|answer| wait(answer) >= Duration::from_secs(1)));
}

#[tokio::test]
async fn a_record_of_old_parameters_is_renewed_at_the_next_login() {
    let mut house = House::new().await;
    drop(house.tenant("acme").await);
    let hash = async |house: &House| house.rows::<(String,)>("SELECT password_hash FROM users").await[0].0.clone();
    let old = hash(&house).await;
    assert!(old.contains("m=8,t=1,p=1"), "{old}");
    house.stop().await;
    (house.settings.password.memory_kib, house.settings.password.passes) = (16, 2);
    house.start().await.unwrap();
    // A wrong password renews nothing.
    drop(house.caller().try_login("acme", EMAIL, "wrong").await.expect(401));
    assert_eq!(hash(&house).await, old);
    drop(house.login("acme", EMAIL, &passphrase("acme")).await);
    let new = hash(&house).await;
    assert!(new.contains("m=16,t=2,p=1"), "{new}");
    drop(house.login("acme", EMAIL, &passphrase("acme")).await);
    assert_eq!(hash(&house).await, new, "once is enough");
}
