//! Sessions: what ends them, and that the end holds on the very next request.

use bartizan_testkit::{Server, Session};
use serde_json::json;

use crate::server;

/// Both halves of a dead session are refused.
async fn is_dead(server: &Server, session: &Session) {
    let answer = session.client.get("/v1/whoami").await.problem(401);
    assert!(answer.header("www-authenticate").starts_with("Bearer"));
    let body = json!({ "refresh_token": session.refresh });
    drop(server.client().post("/v1/token/refresh", body).await.problem(401));
}

#[tokio::test]
async fn logout_ends_this_session_only() {
    let server = server().await;
    let (here, there) = (server.owner().await, server.owner().await);
    drop(here.client.post("/v1/logout", json!({})).await.expect(204));
    is_dead(&server, &here).await;
    drop(there.client.get("/v1/whoami").await.expect(200));
}

#[tokio::test]
async fn logout_everywhere_ends_all_sessions_of_the_user_and_no_others() {
    let server = server().await;
    let owner = server.owner().await;
    let member = server.user(&owner, "member", "mem@acme.example").await;
    let again = server.owner().await;
    drop(owner.client.post("/v1/logout", json!({ "all": true })).await.expect(204));
    is_dead(&server, &owner).await;
    is_dead(&server, &again).await;
    drop(member.client.get("/v1/whoami").await.expect(200));
    // A login afterwards is not caught by the end of those before.
    drop(server.owner().await.client.get("/v1/whoami").await.expect(200));
}

#[tokio::test]
async fn a_session_is_ended_from_another_one() {
    let server = server().await;
    let (here, there) = (server.owner().await, server.owner().await);
    let id = there.client.get("/v1/whoami").await.expect(200).text("session");
    let list = here.client.get("/v1/sessions").await.expect(200);
    assert!(list.items().iter().any(|session| session["id"] == id.as_str()), "{list:?}");
    drop(here.client.delete(&format!("/v1/sessions/{id}")).await.expect(204));
    is_dead(&server, &there).await;
    drop(here.client.get("/v1/whoami").await.expect(200));
    assert!(here.client.get("/v1/sessions").await.expect(200).items().iter().all(|s| s["id"] != id.as_str()));
}

#[tokio::test]
async fn sessions_of_others_can_neither_be_seen_nor_ended() {
    let server = server().await;
    let owner = server.owner().await;
    let member = server.user(&owner, "member", "mem@acme.example").await;
    let stranger = server.signup("globex").await;
    for other in [&owner, &stranger] {
        let id = other.client.get("/v1/whoami").await.expect(200).text("session");
        assert!(member.client.get("/v1/sessions").await.expect(200).items().iter().all(|s| s["id"] != id.as_str()));
        drop(member.client.delete(&format!("/v1/sessions/{id}")).await.refused(404, "request.not_found"));
        drop(other.client.get("/v1/whoami").await.expect(200));
    }
}

#[tokio::test]
async fn a_disabled_user_is_out_at_once_and_can_be_enabled_again() {
    let server = server().await;
    let owner = server.owner().await;
    let member = server.user(&owner, "member", "mem@acme.example").await;
    let path = format!("/v1/users/{}", member.client.get("/v1/whoami").await.expect(200).text("sub"));
    drop(owner.client.patch(&path, json!({ "status": "disabled" })).await.expect(200));
    is_dead(&server, &member).await;
    let password = bartizan_testkit::passphrase("member");
    let login = json!({ "tenant": server.tenant, "email": "mem@acme.example", "password": password });
    drop(server.client().post("/v1/login", login).await.refused(401, "auth.login_failed"));
    drop(owner.client.patch(&path, json!({ "status": "active" })).await.expect(200));
    drop(server.login(&server.tenant, "mem@acme.example", &password).await);
    is_dead(&server, &member).await;
}

#[tokio::test]
async fn a_deleted_user_is_out_at_once() {
    let server = server().await;
    let owner = server.owner().await;
    let member = server.user(&owner, "member", "mem@acme.example").await;
    let id = member.client.get("/v1/whoami").await.expect(200).text("sub");
    drop(owner.client.delete(&format!("/v1/users/{id}")).await.expect(204));
    is_dead(&server, &member).await;
    // The address is free again, and the new account is another one.
    let new = server.user(&owner, "member", "mem@acme.example").await;
    assert_ne!(new.client.get("/v1/whoami").await.expect(200).text("sub"), id);
}

#[tokio::test]
async fn a_token_with_the_old_role_ends_when_the_role_changes() {
    let server = server().await;
    let owner = server.owner().await;
    let admin = server.user(&owner, "admin", "ada@acme.example").await;
    let id = admin.client.get("/v1/whoami").await.expect(200).text("sub");
    drop(owner.client.patch(&format!("/v1/users/{id}"), json!({ "role": "member" })).await.expect(200));
    drop(admin.client.get("/v1/users").await.problem(401));
    let again = server.login(&server.tenant, "ada@acme.example", &bartizan_testkit::passphrase("admin")).await;
    assert_eq!(again.client.get("/v1/whoami").await.expect(200).text("role"), "member");
    drop(again.client.get("/v1/users").await.refused(403, "access.denied"));
}
