//! What ends a credential ends it on the very next request, and still after a crash.

use std::time::{Duration, Instant};

use bartizan_core::principal::Tier;
use bartizan_store::words::TenantStatus;
use http::Method;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::house::{House, Paused, Session, all, passphrase};

/// What can end a credential of `victim`.
#[derive(Clone, Copy, Debug)]
enum End {
    Logout,
    LogoutEverywhere,
    SessionDeleted,
    UserDisabled,
    UserDeleted,
    RoleChanged,
    PasswordChanged,
    TenantSuspended,
    AccessTokenRevoked,
    RefreshTokenRevoked,
    DisabledByOperator,
    EndedByOperator,
}

const ENDS: &[End] = &[
    End::Logout,
    End::LogoutEverywhere,
    End::SessionDeleted,
    End::UserDisabled,
    End::UserDeleted,
    End::RoleChanged,
    End::PasswordChanged,
    End::TenantSuspended,
    End::AccessTokenRevoked,
    End::RefreshTokenRevoked,
    End::DisabledByOperator,
    End::EndedByOperator,
];

async fn bring_about(end: End, house: &House, owner: &Session, victim: &Session, other: &Session) {
    let path = format!("/v1/users/{}", victim.user);
    let _ = match end {
        End::Logout => victim.caller.post("/v1/logout", &json!({})).await.expect(204),
        End::LogoutEverywhere => other.caller.post("/v1/logout", &json!({ "all": true })).await.expect(204),
        End::SessionDeleted => other.caller.delete(&format!("/v1/sessions/{}", victim.id)).await.expect(204),
        End::UserDisabled => owner.caller.patch(&path, &json!({ "status": "disabled" })).await.expect(200),
        End::UserDeleted => owner.caller.delete(&path).await.expect(204),
        End::RoleChanged => owner.caller.patch(&path, &json!({ "role": "auditor" })).await.expect(200),
        End::PasswordChanged => {
            let body = json!({ "current": passphrase("vic"), "new": passphrase("new") });
            other.caller.post("/v1/me/password", &body).await.expect(204)
        }
        End::TenantSuspended => {
            drop(house.operator().set_status("acme", TenantStatus::Suspended).await.unwrap());
            return;
        }
        End::AccessTokenRevoked => {
            house.caller().form("/oauth/revoke", &format!("token={}", victim.access)).await.expect(200)
        }
        End::RefreshTokenRevoked => {
            house.caller().form("/oauth/revoke", &format!("token={}", victim.refresh)).await.expect(200)
        }
        End::DisabledByOperator => {
            drop(house.operator().disable_user("acme", &victim.user).await.unwrap());
            return;
        }
        End::EndedByOperator => {
            house.operator().revoke_session("acme", &victim.id).await.unwrap();
            return;
        }
    };
}

async fn is_dead(end: End, house: &House, victim: &Session) {
    for path in ["/v1/whoami", "/v1/me", "/v1/sessions"] {
        let answer = victim.caller.get(path).await;
        assert_eq!(answer.text("/code"), "auth.credential_revoked", "{end:?} {path}");
    }
    let refreshed = house.caller().refresh(&victim.refresh).await;
    match end {
        // The role is another one, the session goes on; of an access token nothing else hangs.
        End::RoleChanged | End::AccessTokenRevoked => {
            assert!(matches!(refreshed.status.as_u16(), 200), "{end:?} {}", refreshed.status);
            let access = refreshed.text("/access_token");
            let who = house.caller().bearer(&access).get("/v1/whoami").await.expect(200);
            let role = if matches!(end, End::RoleChanged) { "auditor" } else { "member" };
            assert_eq!(who.text("/role"), role);
        }
        _ => drop(refreshed.refused(401, "auth.refresh_invalid")),
    }
}

#[tokio::test]
async fn every_ending_holds_on_the_next_request_and_after_a_crash() {
    for end in ENDS.iter().copied() {
        let mut house = House::new().await;
        let owner = house.tenant("acme").await;
        let victim = house.user("acme", &owner, "member", "vic").await;
        let other = house.login("acme", "vic@same.example", &passphrase("vic")).await;
        let stranger = house.tenant("globex").await;
        for session in [&victim, &other, &owner] {
            // Remembered as verified: what is remembered must not outlive the end.
            drop(session.caller.get("/v1/whoami").await.expect(200));
        }
        bring_about(end, &house, &owner, &victim, &other).await;
        house.crash_and_start().await;
        is_dead(end, &house, &victim).await;
        drop(stranger.caller.get("/v1/whoami").await.expect(200));
        let spared = match end {
            End::TenantSuspended => None,
            End::LogoutEverywhere
            | End::UserDisabled
            | End::UserDeleted
            | End::RoleChanged
            | End::DisabledByOperator => Some(&owner),
            _ => Some(&other),
        };
        if let Some(spared) = spared {
            drop(spared.caller.get("/v1/whoami").await.expect(200));
        }
    }
}

#[tokio::test]
async fn every_ending_holds_at_once_without_a_restart() {
    for end in ENDS.iter().copied() {
        let house = House::new().await;
        let owner = house.tenant("acme").await;
        let victim = house.user("acme", &owner, "member", "vic").await;
        let other = house.login("acme", "vic@same.example", &passphrase("vic")).await;
        drop(victim.caller.get("/v1/whoami").await.expect(200));
        bring_about(end, &house, &owner, &victim, &other).await;
        is_dead(end, &house, &victim).await;
    }
}

#[tokio::test]
async fn an_ending_still_holds_when_the_token_would_have_expired_by_itself() {
    let mut house = House::new().await;
    let owner = house.tenant("acme").await;
    let victim = house.login("acme", "owner@same.example", &passphrase("acme")).await;
    drop(owner.caller.delete(&format!("/v1/sessions/{}", victim.id)).await.expect(204));
    for step in [60, 239, 1, 1, 700, 100_000] {
        house.clock.advance(Duration::from_secs(step));
        drop(victim.caller.get("/v1/whoami").await.expect(401));
        drop(house.caller().refresh(&victim.refresh).await.expect(401));
    }
    house.crash_and_start().await;
    drop(victim.caller.get("/v1/whoami").await.expect(401));
}

#[tokio::test]
async fn a_new_tier_acts_on_the_next_request_of_an_old_token_up_and_down_and_after_a_crash() {
    use bartizan::settings::{Rate, TierLimits};
    let mut house = House::with(|settings| {
        for (tier, burst) in [(Tier::Free, 10), (Tier::Pro, 1000), (Tier::Enterprise, 5000)] {
            let user = Rate { count: 1, period: Duration::from_secs(3600), burst };
            settings.limits.tiers.insert(tier, TierLimits { user, tenant: crate::house::OPEN });
        }
    })
    .await;
    let owner = house.tenant("acme").await;
    let policy = async |owner: &Session, status: u16| {
        owner.caller.get("/v1/whoami").await.expect(status).headers["ratelimit-policy"].to_str().unwrap().to_owned()
    };
    assert!(policy(&owner, 200).await.contains("burst=10,"));
    drop(house.operator().set_tier("acme", Tier::Enterprise).await.unwrap());
    assert!(policy(&owner, 200).await.contains("burst=5000,"));
    assert_eq!(owner.caller.get("/v1/whoami").await.expect(200).text("/tier"), "enterprise");
    house.crash_and_start().await;
    for _ in 0..20 {
        assert_eq!(owner.caller.get("/v1/whoami").await.expect(200).text("/tier"), "enterprise");
    }
    // More than the smaller burst was used before: the way down acts at once too.
    drop(house.operator().set_tier("acme", Tier::Free).await.unwrap());
    assert!(policy(&owner, 429).await.contains("burst=10,"));
    house.stop().await;
    house.start().await.unwrap();
    assert!(policy(&owner, 429).await.contains("burst=10,"));
}

#[tokio::test]
async fn use_under_a_tier_counts_in_the_next_even_where_a_counter_of_before_is_left() {
    use bartizan::settings::{Rate, TierLimits};
    let house = House::with(|settings| {
        for (tier, burst) in [(Tier::Free, 10), (Tier::Pro, 1000), (Tier::Enterprise, 5000)] {
            let user = Rate { count: 1, period: Duration::from_secs(3600), burst };
            settings.limits.tiers.insert(tier, TierLimits { user, tenant: crate::house::OPEN });
        }
    })
    .await;
    let owner = house.tenant("acme").await;
    for (free, enterprise) in [(3, 4), (1, 20)] {
        for _ in 0..free {
            drop(owner.caller.get("/v1/whoami").await.expect(200));
        }
        drop(house.operator().set_tier("acme", Tier::Enterprise).await.unwrap());
        for _ in 0..enterprise {
            drop(owner.caller.get("/v1/whoami").await.expect(200));
        }
        drop(house.operator().set_tier("acme", Tier::Free).await.unwrap());
    }
    // Three, four beside them, one, and twenty more than the whole burst.
    drop(owner.caller.get("/v1/whoami").await.expect(429));
}

#[tokio::test]
async fn a_suspended_tenant_comes_back_without_any_of_its_old_credentials() {
    let house = House::new().await;
    let owner = house.tenant("acme").await;
    drop(house.operator().set_status("acme", TenantStatus::Suspended).await.unwrap());
    drop(
        house
            .caller()
            .try_login("acme", "owner@same.example", &passphrase("acme"))
            .await
            .refused(401, "auth.login_failed"),
    );
    drop(house.operator().set_status("acme", TenantStatus::Active).await.unwrap());
    drop(owner.caller.get("/v1/whoami").await.expect(401));
    drop(house.caller().refresh(&owner.refresh).await.refused(401, "auth.refresh_invalid"));
    let again = house.login("acme", "owner@same.example", &passphrase("acme")).await;
    drop(again.caller.get("/v1/me").await.expect(200));
}

/// A client that hangs up, or a deadline, drops the request at any of its waits. Whatever was made durable by then must
/// be in force: a session that ended on disk must not live on in memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_given_up_at_any_moment_leaves_memory_and_disk_agreeing() {
    let house = House::new().await;
    let owner = house.tenant("acme").await;
    let (mut given_up_and_kept, mut polls, mut sweeps) = (0, 0, 0);
    while sweeps < 5 || given_up_and_kept == 0 {
        assert!(sweeps < 100, "no request was given up while it was being kept");
        polls += 1;
        let victim = house.login("acme", "owner@same.example", &passphrase("acme")).await;
        let path = format!("/v1/sessions/{}", victim.id);
        let (router, request) = owner.caller.unsent(Method::DELETE, &path, &Value::Null);
        let paused = Paused::after(polls, router.oneshot(request)).await;
        let done = paused.is_done();
        drop(paused);
        // The one writer serves in order: after this the fate of the change is decided.
        drop(owner.caller.patch("/v1/tenant", &json!({ "name": "Marker" })).await.expect(200));
        let listed = all(&owner.caller, "/v1/sessions").await;
        if listed.iter().all(|session| session["id"] != victim.id.as_str()) {
            given_up_and_kept += usize::from(!done);
            let deadline = Instant::now() + Duration::from_secs(5);
            // What was begun is brought to its end by the engine, without anybody waiting for it.
            while victim.caller.get("/v1/whoami").await.status != 401 {
                assert!(Instant::now() < deadline, "ended on disk, alive in memory, after {polls} polls");
                tokio::task::yield_now().await;
            }
        }
        if done {
            (polls, sweeps) = (0, sweeps + 1);
        }
    }
}
