//! Requests that a browser sends for another site: CSRF and CORS.

use bartizan_testkit::{Client, passphrase};
use http::Method;
use serde_json::json;

use crate::{launch, server};

const FRIEND: &str = "https://app.example.com";

async fn preflight(client: &Client, origin: &str) -> bartizan_testkit::Answer {
    client
        .with("origin", origin)
        .with("access-control-request-method", "POST")
        .with("access-control-request-headers", "authorization,content-type")
        .send(Method::OPTIONS, "/v1/users", None, "")
        .await
}

#[tokio::test]
async fn by_default_no_other_origin_may_read_anything() {
    let server = server().await;
    for origin in [FRIEND, "null", "http://127.0.0.1:3000", &server.api] {
        let answer = server.client().with("origin", origin).get("/.well-known/jwks.json").await;
        assert!(answer.headers.get("access-control-allow-origin").is_none(), "{origin}");
        assert!(
            preflight(&server.client(), origin).await.headers.get("access-control-allow-origin").is_none(),
            "{origin}"
        );
    }
}

#[tokio::test]
async fn only_the_exact_origin_on_the_list_may() {
    let server = launch().set("CORS__ORIGINS", FRIEND).start().await;
    let owner = server.owner().await.client;
    let answer = owner.with("origin", FRIEND).get("/v1/whoami").await.expect(200);
    assert_eq!(answer.header("access-control-allow-origin"), FRIEND);
    assert!(answer.header("vary").to_lowercase().contains("origin"));
    let asked = preflight(&server.client(), FRIEND).await;
    assert!(matches!(asked.status, 200 | 204), "{}", asked.status);
    assert_eq!(asked.header("access-control-allow-origin"), FRIEND);
    assert!(asked.header("access-control-allow-methods").contains("POST"));
    for origin in [
        "http://app.example.com",
        "https://app.example.com:444",
        "https://app.example.com.evil.example",
        "https://evilapp.example.com",
        "https://APP.example.com",
        "https://app.example.com/",
        "https://sub.app.example.com",
        "null",
        "",
    ] {
        let answer = owner.with("origin", origin).get("/v1/whoami").await;
        assert!(answer.headers.get("access-control-allow-origin").is_none(), "{origin}");
        assert!(
            preflight(&server.client(), origin).await.headers.get("access-control-allow-origin").is_none(),
            "{origin}"
        );
    }
    // Errors are readable for the friend too, or his application could not tell why.
    let refused = server.client().with("origin", FRIEND).get("/v1/whoami").await.expect(401);
    assert_eq!(refused.header("access-control-allow-origin"), FRIEND);
}

#[tokio::test]
async fn a_dangerous_list_of_origins_stops_the_start() {
    for origins in ["*", "null", "https://a.example/path", "https://*.example", "https://A.example"] {
        let launch = launch().set("CORS__ORIGINS", origins).set("CORS__CREDENTIALS", "true");
        let dir = launch.home_dir().dir();
        let args = ["dev", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--dir", dir.to_str().unwrap()];
        drop(launch.command(&args).await.refused(&["origin"]));
    }
}

#[tokio::test]
async fn a_bearer_token_does_not_come_by_itself_so_cross_site_is_fine_with_it() {
    let server = server().await;
    let owner = server.owner().await.client;
    let cross = owner.with("sec-fetch-site", "cross-site").with("origin", "https://evil.example");
    drop(cross.post("/v1/logout", json!({})).await.expect(204));
}

#[tokio::test]
async fn a_cookie_from_another_site_opens_nothing() {
    let server = server().await;
    let owner = server.owner().await;
    for name in ["__Host-session", "__Host-bartizan", "session"] {
        let cookie = server.client().with("cookie", &format!("{name}={}", owner.access));
        for site in ["cross-site", "same-site"] {
            let answer = cookie.with("sec-fetch-site", site).post("/v1/logout", json!({})).await;
            assert!(matches!(answer.status, 401 | 403), "{}", answer.status);
        }
        let answer = cookie.with("origin", "https://evil.example").post("/v1/logout", json!({ "all": true })).await;
        assert!(matches!(answer.status, 401 | 403), "{}", answer.status);
    }
    drop(owner.client.get("/v1/whoami").await.expect(200));
}

#[tokio::test]
async fn a_form_of_another_site_cannot_log_somebody_in() {
    let server = server().await;
    let body = format!("tenant=acme&email=a%40acme.example&password={}", passphrase("x"));
    let client = server.client().with("origin", "https://evil.example").with("sec-fetch-site", "cross-site");
    let answer = client.form("/v1/login", &body).await;
    assert!(matches!(answer.status, 403 | 415), "{}", answer.status);
    let text = json!({ "tenant": "acme", "email": "a@acme.example", "password": passphrase("x") }).to_string();
    let answer = client.send(Method::POST, "/v1/login", Some("text/plain"), text).await;
    assert!(matches!(answer.status, 403 | 415), "{}", answer.status);
}
