//! `Idempotency-Key`: the same request under one key happens once and is answered alike.

use serde_json::json;

use crate::house::{House, all, counted, passphrase};

#[tokio::test]
async fn every_kind_of_mutation_is_answered_again_and_done_once() {
    let mut house = House::new().await;
    let owner = house.tenant("acme").await;
    let keyed = |name: &str| owner.caller.clone().once(name);
    let new = json!({ "email": "u@same.example", "name": "U", "role": "member" });
    let user = keyed("create").post("/v1/users", &new).await.expect(201);
    let path = format!("/v1/users/{}", user.text("/id"));
    let changed = keyed("change").patch(&path, &json!({ "role": "admin" })).await.expect(200);
    let tenant = keyed("tenant").patch("/v1/tenant", &json!({ "name": "Acme" })).await.expect(200);
    let password = json!({ "current": passphrase("acme"), "new": passphrase("new") });
    drop(keyed("password").post("/v1/me/password", &password).await.expect(204));
    drop(keyed("delete").delete(&path).await.expect(204));
    let trail = all(&owner.caller, "/v1/audit").await.len();

    for round in 0..2 {
        if round == 1 {
            house.crash_and_start().await;
        }
        // In another order, and although what they did is no longer so.
        drop(keyed("delete").delete(&path).await.expect(204));
        assert_eq!(keyed("change").patch(&path, &json!({ "role": "admin" })).await.expect(200).body, changed.body);
        assert_eq!(keyed("create").post("/v1/users", &new).await.expect(201).body, user.body);
        assert_eq!(keyed("tenant").patch("/v1/tenant", &json!({ "name": "Acme" })).await.expect(200).body, tenant.body);
        // The current password is another one by now: the repetition is answered, not tried.
        drop(keyed("password").post("/v1/me/password", &password).await.expect(204));
    }
    // Reading the trail, and the start, are all that was added to it.
    let rows = all(&owner.caller, "/v1/audit").await;
    let added: Vec<_> = rows[trail..].iter().map(|row| row["action"].as_str().unwrap()).collect();
    assert!(added.iter().all(|action| *action == "audit.read"), "{added:?}");
    assert_eq!(counted(&owner.caller, "login.failed").await, 0);
}

#[tokio::test]
async fn a_key_stands_for_one_body_one_path_and_one_user() {
    let house = House::new().await;
    let owner = house.tenant("acme").await;
    let admin = house.user("acme", &owner, "admin", "ada").await;
    let new = |name: &str| json!({ "email": format!("{name}@same.example"), "name": name, "role": "member" });
    let keyed = owner.caller.clone().once("key-1");
    let first = keyed.post("/v1/users", &new("a")).await.expect(201).text("/id");
    let conflict = "request.idempotency_conflict";
    drop(keyed.post("/v1/users", &new("b")).await.refused(409, conflict));
    drop(keyed.patch(&format!("/v1/users/{first}"), &new("a")).await.expect(422));
    drop(keyed.patch(&format!("/v1/users/{first}"), &json!({ "name": "A" })).await.refused(409, conflict));
    drop(keyed.delete(&format!("/v1/users/{first}")).await.refused(409, conflict));
    // Another user's key is another key, whoever he is.
    assert_ne!(admin.caller.clone().once("key-1").post("/v1/users", &new("c")).await.expect(201).text("/id"), first);
    let globex = house.tenant("globex").await;
    assert_ne!(globex.caller.clone().once("key-1").post("/v1/users", &new("a")).await.expect(201).text("/id"), first);
    // A refusal is not remembered: mended, the same request is tried again.
    let late = owner.caller.clone().once("key-2");
    drop(late.post("/v1/users", &new("a")).await.refused(409, "user.email_taken"));
    drop(owner.caller.delete(&format!("/v1/users/{first}")).await.expect(204));
    drop(late.post("/v1/users", &new("a")).await.expect(201));
}

#[tokio::test]
async fn a_sign_up_can_be_repeated_and_tells_a_stranger_nothing() {
    let mut house = House::new().await;
    let body = |email: &str| json!({ "tenant": "acme", "name": "Ann", "email": email, "password": passphrase("ann") });
    let keyed = house.caller().once("key-1");
    let first = keyed.post("/v1/signup", &body("ann@same.example")).await.expect(201);
    for _ in 0..2 {
        assert_eq!(keyed.post("/v1/signup", &body("ann@same.example")).await.expect(201).body, first.body);
        drop(keyed.post("/v1/signup", &body("eve@same.example")).await.refused(409, "request.idempotency_conflict"));
        drop(
            house
                .caller()
                .once("key-2")
                .post("/v1/signup", &body("ann@same.example"))
                .await
                .refused(409, "tenant.slug_taken"),
        );
        drop(house.caller().post("/v1/signup", &body("ann@same.example")).await.refused(409, "tenant.slug_taken"));
        house.crash_and_start().await;
    }
    assert_eq!(house.number("SELECT COUNT(*) FROM tenants").await, 1);
}

#[tokio::test]
async fn an_answer_is_remembered_for_a_day() {
    use std::time::Duration;
    let house = House::new().await;
    let owner = house.tenant("acme").await;
    let new = json!({ "email": "u@same.example", "name": "U", "role": "member" });
    let first = owner.caller.clone().once("key-1").post("/v1/users", &new).await.expect(201);
    house.clock.advance(Duration::from_secs(24 * 3600 - 1));
    let again = house.login("acme", "owner@same.example", &passphrase("acme")).await.caller.once("key-1");
    assert_eq!(again.post("/v1/users", &new).await.expect(201).body, first.body);
    house.clock.advance(Duration::from_secs(1));
    drop(again.post("/v1/users", &new).await.refused(409, "user.email_taken"));
}
