//! The operator's commands against a running server.

use bartizan_testkit::passphrase;
use serde_json::{Value, json};

use crate::server;

#[tokio::test]
async fn a_tier_change_acts_on_the_next_request() {
    let server = crate::launch().default_limits().set("LIMITS__ADDRESS__PER_MINUTE", "60000").start().await;
    let user = server.signup("globex").await.client;
    let mut passed = 0;
    while user.get("/v1/tenant").await.status == 200 {
        passed += 1;
        assert!(passed <= 70, "a free tenant's minute does not end");
    }
    // Who used up the small allowance has room in the large one at once.
    drop(server.operate(&["tenant", "set-tier", "globex", "pro"]).await.success());
    for _ in 0..passed {
        drop(user.get("/v1/tenant").await.expect(200));
    }
    // Who goes down has nothing left but what the time since has brought: one a second.
    let lowered = std::time::Instant::now();
    drop(server.operate(&["tenant", "set-tier", "globex", "free"]).await.success());
    let mut left = 0;
    while user.get("/v1/tenant").await.status == 200 {
        left += 1;
    }
    let brought = lowered.elapsed().as_secs() + 5;
    assert!(left <= brought, "{left} passed after the tier was lowered, {brought} at most had come back");
}

#[tokio::test]
async fn he_sees_and_makes_tenants_and_users() {
    let server = server().await;
    drop(server.signup("globex").await);
    let tenants = server.operate(&["tenant", "ls"]).await.success().json().to_string();
    assert!(tenants.contains("acme") && tenants.contains("globex"), "{tenants}");
    let users = server.operate(&["user", "ls", "globex"]).await.success().json().to_string();
    assert!(users.contains("owner@globex.example") && !users.contains(&server.email), "{users}");
}

#[tokio::test]
async fn a_user_he_disables_is_out_on_the_next_request() {
    let server = server().await;
    let owner = server.owner().await;
    let user = server.user(&owner, "member", "mem@acme.example").await;
    drop(server.operate(&["user", "disable", "acme", "mem@acme.example"]).await.success());
    drop(user.client.get("/v1/whoami").await.problem(401));
}

#[tokio::test]
async fn a_tenant_he_suspends_is_out_on_the_next_request_until_he_lets_it_work_again() {
    let server = server().await;
    let (user, other) = (server.signup("globex").await, server.owner().await);
    drop(server.operate(&["tenant", "suspend", "globex"]).await.success());
    drop(user.client.get("/v1/whoami").await.problem(401));
    let renew = json!({ "refresh_token": user.refresh });
    drop(server.client().post("/v1/token/refresh", renew).await.problem(401));
    drop(other.client.get("/v1/whoami").await.expect(200));
    drop(server.operate(&["tenant", "resume", "globex"]).await.success());
    drop(user.client.get("/v1/whoami").await.problem(401));
    drop(server.client().post("/v1/token/refresh", json!({ "refresh_token": user.refresh })).await.problem(401));
    let again = server.login("globex", "owner@globex.example", &passphrase("globex")).await;
    drop(again.client.get("/v1/whoami").await.expect(200));
}

#[tokio::test]
async fn a_session_he_revokes_is_out_on_the_next_request() {
    let server = server().await;
    let user = server.signup("globex").await;
    let session = user.client.get("/v1/whoami").await.expect(200).text("session");
    let list = server.operate(&["session", "ls", "globex", "owner@globex.example"]).await.success().json().to_string();
    assert!(list.contains(&session), "{list}");
    drop(server.operate(&["session", "revoke", "globex", &session]).await.success());
    drop(user.client.get("/v1/whoami").await.problem(401));
}

#[tokio::test]
async fn a_blocked_network_is_refused_before_anything_else() {
    let server = server().await;
    let owner = server.owner().await.client;
    let added = server.operate(&["block", "add", "127.0.0.0/8", "--reason", "test"]).await.success().json();
    drop(owner.get("/v1/whoami").await.refused(403, "access.address_blocked"));
    drop(server.client().get("/.well-known/jwks.json").await.refused(403, "access.address_blocked"));
    let listed = server.operate(&["block", "ls"]).await.success().json().to_string();
    assert!(listed.contains("127.0.0.0/8"), "{listed}");
    let id = added["id"].as_str().map(str::to_owned).unwrap_or_else(|| panic!("no id in {added}"));
    drop(server.operate(&["block", "rm", &id]).await.success());
    drop(owner.get("/v1/whoami").await.expect(200));
}

#[tokio::test]
async fn he_reads_the_trail_and_his_own_deeds_are_in_it() {
    let server = server().await;
    drop(server.operate(&["tenant", "set-tier", "acme", "enterprise"]).await.success());
    let trail = server.operate(&["audit", "tail"]).await.success().stdout;
    assert!(trail.contains("tenant.tier_changed") && trail.contains("operator"), "{trail}");
    assert!(!trail.contains(&server.email), "{trail}");
}

#[tokio::test]
async fn without_a_server_his_commands_say_what_to_do() {
    let mut server = server().await;
    server.kill9().await;
    let finished = server.operate(&["tenant", "ls"]).await.refused(&["bartizan"]);
    assert_eq!(finished.code, Some(4));
}

#[tokio::test]
async fn the_routes_are_printed_with_who_may_and_why_not() {
    let routes = crate::launch().command(&["routes", "--json"]).await.success().json();
    let rows = routes.as_array().cloned().or_else(|| routes["routes"].as_array().cloned()).expect("rows");
    assert!(rows.len() > 15, "{} rows", rows.len());
    let text = Value::Array(rows).to_string();
    for path in ["/v1/signup", "/v1/login", "/v1/token/refresh", "/v1/whoami", "/v1/users/{id}", "/v1/audit"] {
        assert!(text.contains(path), "no {path}");
    }
}
