//! Headers for browsers, on every answer there is.

use bartizan_testkit::{Answer, passphrase, raw};
use http::Method;
use serde_json::json;

use crate::{launch, server};

/// What must be on whatever leaves the API.
pub(crate) fn complete(what: &str, answer: &Answer) {
    let expect = |name: &str, value: &str| assert_eq!(answer.header(name), value, "{what}: {:?}", answer.headers);
    expect("x-content-type-options", "nosniff");
    expect("referrer-policy", "no-referrer");
    expect("cross-origin-resource-policy", "same-origin");
    expect("x-frame-options", "DENY");
    let csp = answer.header("content-security-policy");
    assert!(csp.contains("default-src 'none'") && csp.contains("frame-ancestors 'none'"), "{what}: {csp:?}");
    assert!(!csp.contains("unsafe"), "{what}: {csp}");
    assert!(!answer.header("cache-control").is_empty(), "{what}");
    // What only a document could use is on everything but data.
    for name in ["permissions-policy", "cross-origin-opener-policy", "cross-origin-embedder-policy"] {
        assert_eq!(answer.header(name).is_empty(), answer.status < 300, "{what}: {name}");
    }
    assert!(answer.header("x-request-id").starts_with("req_"), "{what}");
    for unwanted in ["server", "x-powered-by", "x-xss-protection", "expect-ct", "feature-policy", "pragma", "via"] {
        assert!(answer.headers.get(unwanted).is_none(), "{what}: {unwanted}");
    }
    if !answer.body.is_empty() {
        assert!(!answer.header("content-type").is_empty(), "{what}");
    }
}

#[tokio::test]
async fn every_kind_of_answer_carries_them() {
    let server =
        launch().set("LIMITS__TIERS__FREE__PER_MINUTE", "1").set("LIMITS__TIERS__FREE__BURST", "2").start().await;
    let (client, user) = (server.client(), server.signup("globex").await.client);
    let login = json!({ "tenant": "acme", "email": "a@acme.example", "password": passphrase("x") }).to_string();
    let json = Some("application/json");
    let cases = [
        (200, user.get("/v1/whoami").await),
        (404, user.get("/v1/users/usr_0190a0a0a0a07000800000000000dead").await),
        (429, user.get("/v1/whoami").await),
        (200, client.get("/.well-known/jwks.json").await),
        (200, client.get("/openapi.json").await),
        (401, client.get("/v1/whoami").await),
        (401, client.send(Method::POST, "/v1/login", json, login).await),
        (404, client.get("/nothing").await),
        (405, client.delete("/v1/login").await),
        (415, client.send(Method::POST, "/v1/login", Some("text/plain"), "x").await),
        (400, client.send(Method::POST, "/v1/login", json, "{").await),
        (422, client.send(Method::POST, "/v1/login", json, "{}").await),
    ];
    let ops = server.ops();
    let cases = cases.into_iter().chain([
        (200, ops.get("/healthz").await),
        (200, ops.get("/readyz").await),
        (200, ops.get("/metrics").await),
        (404, ops.get("/nothing").await),
        (405, ops.delete("/healthz").await),
    ]);
    for (status, answer) in cases {
        assert_eq!(answer.status, status, "{answer:?}");
        complete(&status.to_string(), &answer);
    }
}

#[tokio::test]
async fn what_is_no_request_is_answered_with_them_too() {
    let server = server().await;
    let large = format!("GET / HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", "a".repeat(40_000));
    let cases = [
        (400, "request.malformed", "noise\r\n\r\n"),
        (400, "request.malformed", "GET / HTTP/9.9\r\nHost: x\r\n\r\n"),
        (400, "request.malformed", "GET / HTTP/1.1\r\nHost: x\r\nX Y: z\r\n\r\n"),
        (400, "request.header_invalid", "GET / HTTP/1.1\r\nConnection: close\r\n\r\n"),
        (431, "request.head_too_large", &large),
    ];
    for (status, code, bytes) in cases {
        // Alone, and behind a request that is one.
        for before in ["", "GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n"] {
            let text = raw(&server.api, format!("{before}{bytes}").as_bytes()).await;
            let (_, last) = text.rsplit_once("HTTP/1.1 ").unwrap_or_else(|| panic!("{code}: {text:?}"));
            let (head, body) = last.split_once("\r\n\r\n").unwrap();
            let (line, fields) = head.split_once("\r\n").unwrap();
            assert!(line.starts_with(&status.to_string()), "{code}: {text}");
            let fields = fields.lines().filter_map(|field| field.split_once(": "));
            let headers = fields.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
            let answer = Answer { status, headers, body: body.to_owned().into() };
            complete(code, &answer);
            assert_eq!(answer.header("content-length"), body.len().to_string());
            assert_eq!((answer.header("connection"), answer.header("date").len()), ("close", 29));
            drop(answer.refused(status, code));
        }
    }
    let counted = server.metric(r#"bartizan_requests_refused_total{code="request.malformed"}"#).await;
    assert_eq!(counted, Some(6.0));
}

#[tokio::test]
async fn private_answers_are_not_stored_anywhere() {
    let server = server().await;
    let owner = server.owner().await.client;
    for path in ["/v1/whoami", "/v1/me", "/v1/users", "/v1/sessions", "/v1/tenant", "/v1/audit"] {
        assert!(owner.get(path).await.expect(200).header("cache-control").contains("no-store"), "{path}");
    }
}

#[tokio::test]
async fn plain_http_promises_no_tls() {
    let server = server().await;
    assert_eq!(server.client().get("/v1/whoami").await.header("strict-transport-security"), "");
}

#[tokio::test]
async fn the_request_id_is_the_servers_own_and_stands_in_the_problem() {
    let server = server().await;
    let forged = "req_00000000000000000000000000000000";
    let answer = server.client().with("x-request-id", forged).get("/v1/whoami").await.problem(401);
    assert_ne!(answer.header("x-request-id"), forged);
    assert_eq!(answer.text("instance"), answer.header("x-request-id"));
    let next = server.client().get("/v1/whoami").await;
    assert_ne!(next.header("x-request-id"), answer.header("x-request-id"));
}
