//! Requests that were let in before something changed, and act after it: what counts is what is true inside the
//! transaction. Each test stops a request at every one of its waits in turn and lets the other one overtake it there.

use bartizan_store::words::TenantStatus;
use serde_json::{Value, json};

use crate::house::{Answer, Caller, House, Session, all, in_every_order, passphrase};

/// A request that owns what it needs, to be stopped on its way.
async fn post(caller: Caller, path: &'static str, body: Value) -> Answer {
    caller.post(path, &body).await
}

/// A house whose hashes take long enough that a request always waits for its own.
async fn slow() -> House {
    House::with(|settings| settings.password.memory_kib = 2 * 1024).await
}

/// What takes an admin's power away, by the owner or the operator.
const ENDS: &[&str] = &["session", "disabled", "demoted", "deleted", "token", "suspended"];

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_changed_under_a_credential_after_its_end_was_answered() {
    let house = slow().await;
    for end in ENDS.iter().copied() {
        let slug = format!("acme-{end}");
        drop(house.tenant(&slug).await);
        let overtaken = in_every_order(
            async |serial| {
                let name = format!("admin{serial}");
                // Anew each time: the end of the tenant is the owner's too.
                let owner = house.login(&slug, "owner@same.example", &passphrase(&slug)).await;
                let admin = house.user(&slug, &owner, "admin", &name).await;
                let backdoor =
                    json!({ "email": format!("door{serial}@same.example"), "name": "Door", "role": "admin" });
                let request = post(admin.caller.clone(), "/v1/users", backdoor);
                ((owner, admin), request)
            },
            async |(owner, admin): &(Session, Session)| {
                let path = format!("/v1/users/{}", admin.user);
                let answer = match end {
                    "session" => return house.operator().revoke_session(&slug, &admin.id).await.unwrap(),
                    "disabled" => owner.caller.patch(&path, &json!({ "status": "disabled" })).await,
                    "demoted" => owner.caller.patch(&path, &json!({ "role": "member" })).await,
                    "deleted" => owner.caller.delete(&path).await,
                    "token" => house.caller().form("/oauth/revoke", &format!("token={}", admin.access)).await,
                    _ => return drop(house.operator().set_status(&slug, TenantStatus::Suspended).await.unwrap()),
                };
                assert!(answer.status.is_success(), "{end}");
            },
            async |(_, admin), answer: Answer, ()| {
                if end == "suspended" {
                    drop(house.operator().set_status(&slug, TenantStatus::Active).await.unwrap());
                }
                assert!(matches!(answer.status.as_u16(), 201 | 401), "{end} {}", answer.status);
                // In the trail, nothing of the admin's stands below his end.
                let trail = house.operator().audit_tail(None, 50).await.unwrap();
                let trail: Vec<Value> = trail.iter().map(|row| serde_json::to_value(row).unwrap()).collect();
                let place = |wanted: &dyn Fn(&Value) -> bool| trail.iter().rposition(wanted);
                let change = place(&|row| row["action"] == "user.created" && row["actor"] == admin.user.as_str());
                let over = place(&|row| {
                    let action = row["action"].as_str().unwrap();
                    [
                        "session.revoked",
                        "user.disabled",
                        "user.role_changed",
                        "user.deleted",
                        "token.revoked",
                        "tenant.suspended",
                    ]
                    .contains(&action)
                })
                .unwrap();
                assert_eq!(change.is_some(), answer.status == 201, "{end}");
                assert!(change.is_none_or(|change| change < over), "{end}: done after the end: {trail:#?}");
            },
        )
        .await;
        assert!(overtaken > 0, "{end}: never overtaken");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_with_the_old_password_leaves_no_session_beside_a_change_of_password() {
    let house = slow().await;
    let owner = house.tenant("acme").await;
    let overtaken = in_every_order(
        async |serial| {
            let name = format!("vic{serial}");
            let victim = house.user("acme", &owner, "member", &name).await;
            let body =
                json!({ "tenant": "acme", "email": format!("{name}@same.example"), "password": passphrase(&name) });
            ((victim, name), post(house.caller(), "/v1/login", body))
        },
        async |(victim, name): &(Session, String)| {
            let body = json!({ "current": passphrase(name), "new": passphrase("new") });
            drop(victim.caller.post("/v1/me/password", &body).await.expect(204));
        },
        async |(victim, name), login: Answer, ()| {
            if login.status == 200 {
                let thief = house.caller().bearer(&login.text("/access_token"));
                drop(thief.get("/v1/whoami").await.refused(401, "auth.credential_revoked"));
                drop(house.caller().refresh(&login.text("/refresh_token")).await.expect(401));
            } else {
                drop(login.refused(401, "auth.login_failed"));
            }
            assert_eq!(all(&victim.caller, "/v1/sessions").await.len(), 1);
            drop(house.login("acme", &format!("{name}@same.example"), &passphrase("new")).await);
        },
    )
    .await;
    assert!(overtaken > 0, "never overtaken");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_changes_from_one_password_only_one_is_made() {
    let house = slow().await;
    let owner = house.tenant("acme").await;
    let overtaken = in_every_order(
        async |serial| {
            let name = format!("vic{serial}");
            let thief = house.user("acme", &owner, "member", &name).await;
            let victim = house.login("acme", &format!("{name}@same.example"), &passphrase(&name)).await;
            let body = json!({ "current": passphrase(&name), "new": passphrase("thief") });
            ((victim, name), post(thief.caller, "/v1/me/password", body))
        },
        async |(victim, name): &(Session, String)| {
            let body = json!({ "current": passphrase(name), "new": passphrase("victim") });
            victim.caller.post("/v1/me/password", &body).await
        },
        async |(_, name), thief: Answer, victim: Answer| {
            let made = [thief.status, victim.status].map(|status| status == 204);
            assert_ne!(made[0], made[1], "{thief:?} {victim:?}");
            let email = format!("{name}@same.example");
            for (seed, right) in [("thief", made[0]), ("victim", made[1])] {
                let login = house.caller().try_login("acme", &email, &passphrase(seed)).await;
                assert_eq!(login.status == 200, right, "{seed}");
            }
        },
    )
    .await;
    assert!(overtaken > 0, "never overtaken");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_owners_who_demote_each_other_leave_one() {
    let house = slow().await;
    for change in [json!({ "role": "member" }), json!({ "status": "disabled" }), Value::Null] {
        let take = async |caller: Caller, user: String| {
            let path = format!("/v1/users/{user}");
            if change.is_null() { caller.delete(&path).await } else { caller.patch(&path, &change).await }
        };
        in_every_order(
            async |serial| {
                let kind = change.as_object().and_then(|change| change.keys().next().cloned());
                let slug = format!("acme-{}-{serial}", kind.unwrap_or_default().replace("", "x"));
                let one = house.tenant(&slug).await;
                let two = house.user(&slug, &one, "owner", "two").await;
                let request = take(one.caller.clone(), two.user.clone());
                ((one, two), request)
            },
            async |(one, two): &(Session, Session)| take(two.caller.clone(), one.user.clone()).await,
            async |(one, two), first: Answer, second: Answer| {
                let made = [first.status, second.status].map(|status| status.is_success());
                assert_ne!(made[0], made[1], "{first:?} {second:?}");
                let left = if made[0] { one } else { two };
                assert_eq!(left.caller.get("/v1/whoami").await.expect(200).text("/role"), "owner");
                let path = format!("/v1/users/{}", left.user);
                drop(left.caller.delete(&path).await.refused(409, "access.last_owner"));
            },
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_up_sent_twice_at_once_makes_one_tenant_and_gets_one_answer() {
    let house = slow().await;
    let sign_up = async |serial: usize| {
        let body = json!({
            "tenant": format!("acme-{serial}"), "name": "Ann", "email": "ann@same.example", "password": passphrase("ann")
        });
        post(house.caller().once("key-1"), "/v1/signup", body).await
    };
    let overtaken = in_every_order(
        async |serial| (serial, sign_up(serial)),
        async |serial: &usize| sign_up(*serial).await,
        async |_, first: Answer, second: Answer| {
            assert_eq!(first.expect(201).body, second.expect(201).body);
        },
    )
    .await;
    assert!(overtaken > 0, "never overtaken");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mutation_sent_twice_at_once_under_one_key_has_one_effect_and_one_answer() {
    let house = slow().await;
    let owner = house.tenant("acme").await;
    let create = async |serial: usize| {
        let body = json!({ "email": format!("u{serial}@same.example"), "name": "U", "role": "member" });
        post(owner.caller.clone().once(&format!("key-{serial}")), "/v1/users", body).await
    };
    let overtaken = in_every_order(
        async |serial| (serial, create(serial)),
        async |serial: &usize| create(*serial).await,
        async |serial, first: Answer, second: Answer| {
            // The password is made for each try; the answer is the one that was kept.
            assert_eq!(first.expect(201).body, second.expect(201).body);
            assert_eq!(all(&owner.caller, "/v1/users").await.len(), 1 + serial);
        },
    )
    .await;
    assert!(overtaken > 0, "never overtaken");
}
