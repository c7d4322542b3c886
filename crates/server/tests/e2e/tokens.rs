//! Access and refresh tokens, seen from outside.

use std::collections::HashSet;

use bartizan_testkit::{claims, header, tampered};
use serde_json::json;

use crate::server;

#[tokio::test]
async fn a_login_answers_as_rfc_6749_says() {
    let server = server().await;
    let body = json!({ "tenant": server.tenant, "email": server.email, "password": server.password });
    let answer = server.client().post("/v1/login", body).await.expect(200);
    assert_eq!(answer.text("token_type"), "Bearer");
    assert_eq!(answer.json()["expires_in"], 300);
    assert!(answer.json()["refresh_expires_in"].as_u64().unwrap() > 3600);
    assert!(answer.text("refresh_token").starts_with("btr_"));
    assert!(answer.header("cache-control").contains("no-store"));
}

#[tokio::test]
async fn an_access_token_has_the_stated_header_and_claims() {
    let server = server().await;
    let (one, two) = (server.owner().await.access, server.owner().await.access);
    let head = header(&one);
    assert_eq!(head["typ"], "at+jwt");
    assert_eq!(head["alg"], "EdDSA");
    assert_eq!(head.as_object().unwrap().len(), 3, "{head}");
    let body = claims(&one);
    for claim in ["iss", "sub", "aud", "iat", "exp", "jti", "tid", "sid", "role", "tier"] {
        assert!(!body[claim].is_null(), "no {claim} in {body}");
    }
    assert_eq!(body["exp"].as_i64().unwrap() - body["iat"].as_i64().unwrap(), 300);
    assert_ne!(body["jti"], claims(&two)["jti"]);
    assert!(!body.to_string().contains('@'), "personal data in a token: {body}");
}

#[tokio::test]
async fn a_spoilt_token_is_refused_whatever_was_spoilt() {
    let server = server().await;
    let owner = server.owner().await;
    for (what, token) in tampered(&owner.access) {
        let answer = server.client().bearer(&token).get("/v1/whoami").await;
        assert!(matches!(answer.status, 400 | 401 | 431), "{what}: {}", answer.status);
        if answer.status == 401 {
            assert!(answer.header("www-authenticate").starts_with("Bearer"), "{what}");
            drop(answer.problem(401));
        }
    }
    drop(owner.client.get("/v1/whoami").await.expect(200));
}

#[tokio::test]
async fn only_a_bearer_header_carries_an_access_token() {
    let server = server().await;
    let owner = server.owner().await;
    let (client, token) = (server.client(), &owner.access);
    drop(client.get(&format!("/v1/whoami?access_token={token}")).await.problem(401));
    drop(
        client
            .with("cookie", &format!("access_token={token}; __Host-access={token}"))
            .get("/v1/whoami")
            .await
            .problem(401),
    );
    drop(client.with("x-access-token", token).get("/v1/whoami").await.problem(401));
    for scheme in ["Basic", "Token", "JWT", "BearerX"] {
        drop(client.with("authorization", &format!("{scheme} {token}")).get("/v1/whoami").await.problem(401));
    }
    let twice = format!(
        "GET /v1/whoami HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    let answer = bartizan_testkit::raw(&server.api, twice.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400") || answer.starts_with("HTTP/1.1 401"), "{answer}");
}

#[tokio::test]
async fn the_two_kinds_of_token_do_not_stand_in_for_each_other() {
    let server = server().await;
    let owner = server.owner().await;
    drop(server.client().bearer(&owner.refresh).get("/v1/whoami").await.problem(401));
    let answer = server.client().post("/v1/token/refresh", json!({ "refresh_token": owner.access })).await;
    assert!(matches!(answer.status, 401 | 422), "{}", answer.status);
}

#[tokio::test]
async fn a_token_of_another_installation_is_refused() {
    let (here, there) = (server().await, server().await);
    let foreign = there.owner().await;
    drop(here.client().bearer(&foreign.access).get("/v1/whoami").await.problem(401));
    drop(here.client().post("/v1/token/refresh", json!({ "refresh_token": foreign.refresh })).await.problem(401));
}

#[tokio::test]
async fn a_refresh_rotates_the_refresh_token() {
    let server = server().await;
    let owner = server.owner().await;
    let answer = server.client().post("/v1/token/refresh", json!({ "refresh_token": owner.refresh })).await.expect(200);
    assert_ne!(answer.text("refresh_token"), owner.refresh);
    let renewed = server.client().bearer(&answer.text("access_token"));
    let (old, new) = (claims(&owner.access), claims(&answer.text("access_token")));
    assert_eq!(old["sid"], new["sid"]);
    assert_ne!(old["jti"], new["jti"]);
    drop(renewed.get("/v1/whoami").await.expect(200));
}

#[tokio::test]
async fn a_client_that_lost_the_answer_gets_the_same_successor() {
    let server = server().await;
    let body = json!({ "refresh_token": server.owner().await.refresh });
    let first = server.client().post("/v1/token/refresh", body.clone()).await.expect(200);
    let second = server.client().post("/v1/token/refresh", body).await.expect(200);
    assert_eq!(first.text("refresh_token"), second.text("refresh_token"));
}

#[tokio::test]
async fn many_refreshes_at_once_have_one_successor() {
    let server = server().await;
    let body = json!({ "refresh_token": server.owner().await.refresh });
    let client = server.client();
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let (client, body) = (client.clone(), body.clone());
        running.spawn(async move { client.post("/v1/token/refresh", body).await });
    }
    let mut successors = HashSet::new();
    for answer in running.join_all().await {
        if answer.status == 200 {
            successors.insert(answer.text("refresh_token"));
        } else {
            assert!(matches!(answer.status, 401 | 503), "{}", answer.status);
        }
    }
    assert_eq!(successors.len(), 1);
}

#[tokio::test]
async fn a_stolen_refresh_token_ends_the_whole_family() {
    let server = server().await;
    let client = server.client();
    let stolen = server.owner().await.refresh;
    let second = client.post("/v1/token/refresh", json!({ "refresh_token": stolen })).await.expect(200);
    let third = json!({ "refresh_token": second.text("refresh_token") });
    let third = client.post("/v1/token/refresh", third).await.expect(200);
    let live = client.bearer(&third.text("access_token"));
    drop(live.get("/v1/whoami").await.expect(200));
    // The lineage has moved on twice: whoever comes with the first one now is not a client that lost an answer.
    drop(
        client.post("/v1/token/refresh", json!({ "refresh_token": stolen })).await.refused(401, "auth.refresh_invalid"),
    );
    drop(live.get("/v1/whoami").await.problem(401));
    let last = json!({ "refresh_token": third.text("refresh_token") });
    drop(client.post("/v1/token/refresh", last).await.refused(401, "auth.refresh_invalid"));
}

#[tokio::test]
async fn the_key_set_is_public_and_has_no_private_part() {
    let server = server().await;
    let answer = server.client().get("/.well-known/jwks.json").await.expect(200);
    let keys = answer.json()["keys"].as_array().unwrap().clone();
    let kid = header(&server.owner().await.access)["kid"].clone();
    assert!(keys.iter().any(|key| key["kid"] == kid), "{kid} not in {keys:?}");
    for key in keys {
        assert_eq!((key["kty"].as_str(), key["crv"].as_str()), (Some("OKP"), Some("Ed25519")));
        assert_eq!(key["alg"], "EdDSA");
        assert_eq!(key["use"], "sig");
        assert!(key["d"].is_null(), "a private key is published");
    }
    assert!(answer.header("cache-control").contains("max-age"), "{:?}", answer.headers);
}

#[tokio::test]
async fn introspection_tells_live_from_dead_and_nothing_about_other_tenants() {
    let server = server().await;
    let (owner, other, stranger) = (server.owner().await, server.owner().await, server.signup("globex").await);
    let ask = async |token: &str| owner.client.form("/oauth/introspect", &format!("token={token}")).await.expect(200);
    let live = ask(&other.access).await;
    assert_eq!(live.json()["active"], true);
    for name in ["sub", "iat", "exp", "jti"] {
        assert_eq!(live.json()[name], claims(&other.access)[name], "{name}");
    }
    drop(other.client.post("/v1/logout", json!({})).await.expect(204));
    for dead in [&other.access, &other.refresh, &stranger.access, &stranger.refresh, "nonsense"] {
        assert_eq!(ask(dead).await.json(), json!({ "active": false }));
    }
    drop(server.client().form("/oauth/introspect", &format!("token={}", owner.access)).await.problem(401));
}

#[tokio::test]
async fn revocation_ends_a_token_and_answers_the_same_for_an_unknown_one() {
    let server = server().await;
    let (one, two, keeper) = (server.owner().await, server.owner().await, server.owner().await);
    let revoke = async |token: &str| keeper.client.form("/oauth/revoke", &format!("token={token}")).await.expect(200);
    drop(revoke(&one.access).await);
    drop(one.client.get("/v1/whoami").await.problem(401));
    drop(revoke(&two.refresh).await);
    drop(two.client.get("/v1/whoami").await.problem(401));
    drop(server.client().post("/v1/token/refresh", json!({ "refresh_token": two.refresh })).await.problem(401));
    drop(revoke("btr_unknown").await);
    drop(revoke("nonsense").await);
    drop(keeper.client.get("/v1/whoami").await.expect(200));
    let twice = keeper.client.form("/oauth/revoke", &format!("token={0}&token={0}", one.access)).await;
    assert!(matches!(twice.status, 400 | 422), "{}", twice.status);
}

#[tokio::test]
async fn a_stranger_cannot_revoke_what_belongs_to_another_tenant() {
    let server = server().await;
    let (owner, stranger) = (server.owner().await, server.signup("globex").await);
    let session = owner.client.get("/v1/whoami").await.expect(200).text("session");
    drop(stranger.client.delete(&format!("/v1/sessions/{session}")).await.problem(404));
    drop(owner.client.get("/v1/whoami").await.expect(200));
}
