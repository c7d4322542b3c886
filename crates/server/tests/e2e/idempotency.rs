//! A mutation sent twice under one key is done once.

use bartizan_testkit::passphrase;
use serde_json::json;

use crate::server;

fn user(email: &str) -> serde_json::Value {
    json!({ "email": email, "name": "I", "role": "member", "password": passphrase("i") })
}

#[tokio::test]
async fn a_repetition_gets_the_first_answer() {
    let server = server().await;
    let owner = server.owner().await.client.with("idempotency-key", "key-1");
    let first = owner.post("/v1/users", user("a@acme.example")).await.expect(201);
    let second = owner.post("/v1/users", user("a@acme.example")).await.expect(201);
    assert_eq!(first.text("id"), second.text("id"));
    assert_ne!(first.header("x-request-id"), second.header("x-request-id"));
}

#[tokio::test]
async fn a_key_belongs_to_one_request() {
    let server = server().await;
    let owner = server.owner().await.client.with("idempotency-key", "key-1");
    drop(owner.post("/v1/users", user("a@acme.example")).await.expect(201));
    drop(owner.post("/v1/users", user("b@acme.example")).await.refused(409, "request.idempotency_conflict"));
    drop(owner.patch("/v1/tenant", json!({ "name": "Other" })).await.refused(409, "request.idempotency_conflict"));
}

#[tokio::test]
async fn keys_of_different_users_are_different_keys() {
    let server = server().await;
    let owner = server.owner().await;
    let (admin, stranger) = (server.user(&owner, "admin", "ada@acme.example").await, server.signup("globex").await);
    let mut ids = Vec::new();
    for (n, session) in [&owner, &admin, &stranger].into_iter().enumerate() {
        let client = session.client.with("idempotency-key", "key-1");
        ids.push(client.post("/v1/users", user(&format!("i{n}@x.example"))).await.expect(201).text("id"));
    }
    ids.dedup();
    assert_eq!(ids.len(), 3);
}

#[tokio::test]
async fn many_at_once_are_done_once() {
    let server = server().await;
    let owner = server.owner().await.client;
    let keyed = owner.with("idempotency-key", "key-1");
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let keyed = keyed.clone();
        running.spawn(async move { keyed.post("/v1/users", user("a@acme.example")).await.status });
    }
    for status in running.join_all().await {
        assert!(matches!(status, 201 | 409 | 503), "{status}");
    }
    assert_eq!(owner.get("/v1/users").await.expect(200).items().len(), 2);
    drop(keyed.post("/v1/users", user("a@acme.example")).await.expect(201));
}

#[tokio::test]
async fn it_holds_over_kill_minus_nine() {
    let server = server().await;
    let session = server.owner().await;
    let keyed = session.client.with("idempotency-key", "key-1");
    let first = keyed.post("/v1/users", user("a@acme.example")).await.expect(201).text("id");
    let server = server.restart().await;
    let again = server.client().bearer(&session.access).with("idempotency-key", "key-1");
    assert_eq!(again.post("/v1/users", user("a@acme.example")).await.expect(201).text("id"), first);
}

#[tokio::test]
async fn a_key_has_a_bounded_length() {
    let server = server().await;
    let owner = server.owner().await.client;
    for key in ["", &"k".repeat(300)] {
        let answer = owner.with("idempotency-key", key).post("/v1/users", user("a@acme.example")).await;
        assert!(matches!(answer.status, 400 | 422), "{}", answer.status);
    }
}
