//! The operators' listener.

use crate::server;

#[tokio::test]
async fn it_tells_health_readiness_and_metrics() {
    let server = server().await;
    drop(server.owner().await.client.get("/v1/whoami").await.expect(200));
    drop(server.client().get("/v1/whoami").await.expect(401));
    for path in ["/healthz", "/readyz"] {
        drop(server.ops().get(path).await.expect(200));
    }
    let metrics = server.ops().get("/metrics").await.expect(200);
    let text = String::from_utf8_lossy(&metrics.body).into_owned();
    for name in [
        "bartizan_auth_attempts",
        "bartizan_token_rejections",
        "bartizan_ratelimit_decisions",
        "http_server_request_duration_seconds",
    ] {
        assert!(text.contains(name), "no {name} in\n{text}");
    }
    for secret in [server.tenant.as_str(), server.email.as_str(), "usr_", "ten_", "ses_"] {
        assert!(!text.contains(secret), "{secret} stands in the metrics");
    }
}

#[tokio::test]
async fn the_two_listeners_do_not_serve_each_others_paths() {
    let server = server().await;
    for path in ["/metrics", "/healthz", "/readyz"] {
        drop(server.client().get(path).await.problem(404));
    }
    for path in ["/v1/whoami", "/v1/login", "/openapi.json", "/.well-known/jwks.json"] {
        drop(server.ops().get(path).await.expect(404));
    }
}
