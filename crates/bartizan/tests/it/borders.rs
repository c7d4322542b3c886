//! Two tenants on one engine: neither can see, touch or even notice the other.

use http::Method;
use serde_json::{Value, json};

use crate::house::{House, all, passphrase};

/// An id of the right kind that no row has.
fn never(prefix: &str) -> String {
    format!("{prefix}_0190a0a0a0a07000800000000000dead")
}

#[tokio::test]
async fn on_every_route_a_foreign_id_is_answered_like_one_that_never_was() {
    let house = House::new().await;
    let (acme, globex) = (house.tenant("acme").await, house.tenant("globex").await);
    let theirs = house.user("globex", &globex, "member", "mem").await;
    let mut tried = 0;
    for row in house.engine().table().rows() {
        let Some(parameter) = row.parameters().next() else { continue };
        let (foreign, prefix) = if row.path.contains("sessions") { (&theirs.id, "ses") } else { (&theirs.user, "usr") };
        let method = Method::from_bytes(row.method.as_str().as_bytes()).unwrap();
        let bodies: &[&str] = if method == Method::PATCH {
            &[r#"{"name":"Mine"}"#, r#"{"role":"owner"}"#, r#"{"status":"disabled"}"#, "{}"]
        } else {
            &[""]
        };
        for body in bodies {
            let ask = async |id: &str| {
                let path = row.path.replace(&format!("{{{parameter}}}"), id);
                let media = (!body.is_empty()).then_some("application/json");
                acme.caller
                    .send(method.clone(), &path, media, body.as_bytes().to_vec())
                    .await
                    .refused(404, "request.not_found")
            };
            assert_eq!(ask(foreign).await.shape(), ask(&never(prefix)).await.shape(), "{} {body}", row.name());
            tried += 1;
        }
    }
    assert!(tried >= 7, "only {tried} were tried");
    // Nothing happened to them, and nothing stands in their trail.
    assert_eq!(theirs.caller.get("/v1/me").await.expect(200).text("/name"), "mem");
    let trail = all(&globex.caller, "/v1/audit").await;
    assert!(trail.iter().all(|row| !row.to_string().contains(&acme.user)), "{trail:#?}");
}

#[tokio::test]
async fn lists_show_ones_own_tenant_and_a_foreign_cursor_leads_nowhere_else() {
    let house = House::new().await;
    let (acme, globex) = (house.tenant("acme").await, house.tenant("globex").await);
    for n in 0..3 {
        drop(house.user("acme", &acme, "member", &format!("a{n}")).await);
        drop(house.user("globex", &globex, "member", &format!("g{n}")).await);
    }
    for path in ["/v1/users", "/v1/sessions", "/v1/audit"] {
        let (mine, other) = (all(&acme.caller, path).await, all(&globex.caller, path).await);
        let ids = |rows: &[Value]| rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
        assert!(!mine.is_empty() && ids(&mine).iter().all(|id| !ids(&other).contains(id)), "{path}");
        let text = Value::from(mine.clone()).to_string();
        for foreign in [&globex.user, &globex.id] {
            assert!(!text.contains(foreign.as_str()), "{path} shows {foreign}");
        }
        // Wherever another tenant's cursor points to, only one's own rows lie behind it.
        let first = globex.caller.get(&format!("{path}?limit=1")).await.expect(200).json();
        if let Some(cursor) = first["next"].as_str() {
            let page = acme.caller.get(&format!("{path}?after={cursor}")).await.expect(200).json();
            let known = all(&acme.caller, path).await;
            assert!(ids(page["items"].as_array().unwrap()).iter().all(|id| ids(&known).contains(id)), "{path}");
        }
    }
}

#[tokio::test]
async fn one_address_in_two_tenants_is_two_accounts() {
    let house = House::new().await;
    let (acme, globex) = (house.tenant("acme").await, house.tenant("globex").await);
    assert_ne!(acme.user, globex.user);
    let swapped = house.caller().try_login("acme", "owner@same.example", &passphrase("globex")).await;
    drop(swapped.refused(401, "auth.login_failed"));
    let body = json!({ "current": passphrase("acme"), "new": passphrase("new") });
    drop(acme.caller.post("/v1/me/password", &body).await.expect(204));
    drop(house.login("globex", "owner@same.example", &passphrase("globex")).await);
    // The device of one account is a stranger to the other: equal secrets are of no use across the border.
    let borrowed = house.caller().device(&acme.device);
    drop(borrowed.try_login("globex", "owner@same.example", &passphrase("globex")).await.expect(200));
}

/// The operator may do what an owner may not: a tenant whose only owner is the attacker needs him gone.
#[tokio::test]
async fn the_operator_may_disable_the_last_owner() {
    let house = House::new().await;
    let owner = house.tenant("acme").await;
    drop(house.operator().disable_user("acme", &owner.user).await.unwrap());
    drop(owner.caller.get("/v1/whoami").await.refused(401, "auth.credential_revoked"));
}

#[tokio::test]
async fn tokens_of_another_tenant_are_not_looked_into() {
    let house = House::new().await;
    let (acme, globex) = (house.tenant("acme").await, house.tenant("globex").await);
    for token in [&globex.access, &globex.refresh, &format!("btr_{}", "0".repeat(43))] {
        let answer = acme.caller.form("/oauth/introspect", &format!("token={token}")).await.expect(200);
        assert_eq!(answer.json(), json!({ "active": false }));
    }
    for token in [&acme.access, &acme.refresh] {
        let answer = acme.caller.form("/oauth/introspect", &format!("token={token}")).await.expect(200).json();
        assert_eq!((&answer["active"], &answer["sub"]), (&json!(true), &json!(acme.user)));
    }
}

#[tokio::test]
async fn nobody_reaches_above_his_rank_and_the_try_is_written_down() {
    let house = House::new().await;
    let owner = house.tenant("acme").await;
    let admin = house.user("acme", &owner, "admin", "ada").await;
    let other = house.user("acme", &owner, "admin", "abe").await;
    let path = format!("/v1/users/{}", owner.user);
    let new = json!({ "email": "n@same.example", "name": "N", "role": "owner", "password": passphrase("n") });
    let own = format!("/v1/users/{}", admin.user);
    let tries: [(Method, &str, Value); 6] = [
        (Method::POST, "/v1/users", new),
        (Method::PATCH, &path, json!({ "name": "Taken" })),
        (Method::PATCH, &path, json!({ "role": "member" })),
        (Method::PATCH, &path, json!({ "status": "disabled" })),
        (Method::DELETE, &path, Value::Null),
        (Method::PATCH, &own, json!({ "role": "owner" })),
    ];
    for (number, (method, path, body)) in tries.into_iter().enumerate() {
        let (media, body) =
            if body.is_null() { (None, Vec::new()) } else { (Some("application/json"), body.to_string().into()) };
        drop(admin.caller.send(method, path, media, body).await.refused(403, "access.rank_too_low"));
        let rows = all(&owner.caller, "/v1/audit?action=access.denied").await;
        assert_eq!(rows.len(), number + 1);
        assert_eq!(rows[number]["actor"]["id"], admin.user.as_str());
        assert_eq!(rows[number]["details"]["code"], "access.rank_too_low");
    }
    assert_eq!(owner.caller.get("/v1/me").await.expect(200).text("/name"), "Owner of acme");
    // Of his own height he may.
    drop(admin.caller.patch(&format!("/v1/users/{}", other.user), &json!({ "role": "member" })).await.expect(200));
}

#[tokio::test]
async fn the_last_active_owner_can_be_neither_deleted_demoted_nor_disabled() {
    let house = House::new().await;
    let owner = house.tenant("acme").await;
    let second = house.user("acme", &owner, "owner", "two").await;
    let (first, other) = (format!("/v1/users/{}", owner.user), format!("/v1/users/{}", second.user));
    // A disabled owner does not count.
    drop(owner.caller.patch(&other, &json!({ "status": "disabled" })).await.expect(200));
    drop(owner.caller.delete(&first).await.refused(409, "access.last_owner"));
    drop(owner.caller.patch(&first, &json!({ "role": "admin" })).await.refused(409, "access.last_owner"));
    drop(owner.caller.patch(&first, &json!({ "status": "disabled" })).await.refused(409, "access.last_owner"));
    // A name may be changed, and nothing half-done is kept of a refused change.
    let both = json!({ "name": "Half", "role": "member" });
    drop(owner.caller.patch(&first, &both).await.refused(409, "access.last_owner"));
    assert_eq!(owner.caller.get("/v1/me").await.expect(200).text("/name"), "Owner of acme");
    drop(owner.caller.patch(&other, &json!({ "status": "active" })).await.expect(200));
    drop(owner.caller.delete(&first).await.expect(204));
}
