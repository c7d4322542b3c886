//! Requests through the mounted router.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::body::{Body as RawBody, Bytes};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::app::{App, REQUEST, RoleGate, api, defaults};
use crate::front::Visitor;

const USER: &str = "/v1/users/usr_00000000000000000000000000000001";
const JSON: (&str, &str) = ("content-type", "application/json");
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const OWNER: (&str, &str) = ("authorization", "owner");
const MEMBER: (&str, &str) = ("authorization", "member");

struct Server {
    router: axum::Router,
    gate: RoleGate,
    app: App,
}

fn server() -> Server {
    let (gate, app) = (RoleGate::default(), App::new());
    let mounted = api().finish(gate.clone(), defaults()).unwrap_or_else(|faults| panic!("{faults}"));
    Server { router: mounted.router.with_state(app.clone()), gate, app }
}

struct Answer {
    status: u16,
    headers: http::HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
    fn code(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["instance"], REQUEST.to_string());
        problem["code"].as_str().unwrap().to_owned()
    }
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Server {
    async fn send(&self, method: &str, uri: &str, headers: &[(&str, &str)], body: impl Into<RawBody>) -> Answer {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(body.into()).unwrap();
        request.extensions_mut().insert(Visitor { request: REQUEST, ip: None });
        let response: Response<RawBody> = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body: body.collect().await.unwrap().to_bytes() }
    }
}

/// An endless body that notes whether anybody began to read it.
struct Endless(Arc<AtomicBool>);

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = std::convert::Infallible;
    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        self.0.store(true, Ordering::Relaxed);
        Poll::Ready(Some(Ok(http_body::Frame::data(Bytes::from_static(&[b' '; 32])))))
    }
}

#[tokio::test]
async fn permission_is_decided_before_the_first_byte_of_the_body() {
    let server = server();
    for (headers, status) in [(vec![JSON], 401), (vec![JSON, MEMBER], 403), (vec![OWNER], 415)] {
        let touched = Arc::new(AtomicBool::new(false));
        let body = RawBody::new(Endless(Arc::clone(&touched)));
        assert_eq!(server.send("POST", "/v1/users", &headers, body).await.status, status);
        assert!(!touched.load(Ordering::Relaxed), "{status}");
    }
    let big = "x".repeat(65);
    assert_eq!(server.send("POST", "/v1/users", &[JSON], big.clone()).await.status, 401);
    assert_eq!(server.send("POST", "/v1/users", &[JSON, OWNER], big).await.status, 413);
    assert_eq!(server.app.created(), 0);
}

#[tokio::test]
async fn a_body_is_read_to_its_limit_and_not_further() {
    let server = server();
    let touched = Arc::new(AtomicBool::new(false));
    let endless = RawBody::new(Endless(Arc::clone(&touched)));
    let answer = server.send("POST", "/v1/users", &[JSON, OWNER], endless).await;
    assert_eq!((answer.status, answer.code()), (413, "request.body_too_large".into()));
    assert!(touched.load(Ordering::Relaxed));
    // A length that is a lie, or no number, is refused unread.
    for length in ["65", "99999999999999999999999", "-1", "x"] {
        let answer = server.send("POST", "/v1/users", &[JSON, OWNER, ("content-length", length)], "{}").await;
        assert_eq!(answer.status, 413, "{length}");
    }
    // The limit stands for a route without a body argument too.
    let answer = server.send("DELETE", USER, &[OWNER], "x".repeat(1025)).await;
    assert_eq!(answer.status, 413);
    let exactly = format!("{{\"name\":\"{}\"}}", "n".repeat(53));
    assert_eq!(exactly.len(), 64);
    assert_eq!(server.send("POST", "/v1/users", &[JSON, OWNER], exactly).await.status, 201);
}

#[tokio::test]
async fn another_media_type_is_refused() {
    let server = server();
    for media in
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/json; charset=utf-16"]
    {
        let answer = server.send("POST", "/v1/users", &[("content-type", media), OWNER], "{}").await;
        assert_eq!((answer.status, answer.code()), (415, "request.media_type".into()), "{media}");
    }
    assert_eq!(server.send("POST", "/oauth/revoke", &[JSON], "token=a").await.status, 415);
    assert_eq!(server.send("POST", "/v1/users", &[OWNER], r#"{"name":"a"}"#).await.status, 415);
}

#[tokio::test]
async fn arguments_stand_in_any_order_and_errors_of_handlers_keep_their_code() {
    let server = server();
    let answer = server.send("POST", "/v1/users", &[JSON, OWNER], r#"{"name":"Ada"}"#).await;
    assert_eq!((answer.status, answer.header("content-type")), (201, "application/json"));
    assert_eq!(answer.json(), json!({ "id": "usr_00000000000000000000000000000001", "name": "Ada" }));
    assert_eq!(server.app.created(), 1);
    let answer = server.send("POST", "/v1/users", &[JSON, OWNER], r#"{"name":"taken"}"#).await;
    assert_eq!((answer.status, answer.code()), (409, "user.email_taken".into()));
    let answer = server.send("POST", "/v1/users", &[JSON, OWNER], r#"{"name":"a","rank":9}"#).await;
    assert_eq!(answer.status, 422);
    assert_eq!(server.send("POST", "/v1/users", &[JSON, OWNER], "").await.status, 400);
    assert_eq!(server.app.created(), 1);
}

#[tokio::test]
async fn a_fault_tells_the_request_id_and_nothing_else() {
    let server = server();
    let answer = server.send("DELETE", &format!("/v1/users/usr_{:032x}", 500), &[OWNER], "").await;
    assert_eq!((answer.status, answer.code()), (500, "server.internal".into()));
    assert!(!String::from_utf8(answer.body.to_vec()).unwrap().contains("disk"));
    assert_eq!(answer.header("ratelimit"), "\"user\";r=9");
}

#[tokio::test]
async fn an_id_that_does_not_parse_looks_like_one_that_names_nothing() {
    let server = server();
    let unknown = server.send("DELETE", &format!("/v1/users/usr_{:032x}", 404), &[OWNER], "").await;
    assert_eq!(unknown.status, 404);
    for id in
        ["ses_00000000000000000000000000000001", "1", "USR_00000000000000000000000000000001", "..%2f", "%00", "a%2Fb"]
    {
        let answer = server.send("DELETE", &format!("/v1/users/{id}"), &[OWNER], "").await;
        assert_eq!((answer.status, answer.body), (404, unknown.body.clone()), "{id}");
    }
    let answer = server.send("DELETE", "/v1/users/%ff", &[OWNER], "").await;
    assert_eq!((answer.status, answer.code()), (400, "request.encoding_invalid".into()));
}

#[tokio::test]
async fn paths_are_decoded_once_and_matched_as_they_are_written() {
    let server = server();
    let answer = server.send("PUT", "/v1/seats/blue%2Froom%2527/12", &[], "").await;
    assert_eq!(answer.json(), json!("blue/room%27 12"));
    assert_eq!(server.send("PUT", "/v1/seats/blue/012", &[], "").await.status, 404);
    for other in ["/v1/users/", "/v1//users", "/v1/us%65rs", "/V1/users", "//v1/users", "/v1/users/../users"] {
        let answer = server.send("GET", other, &[OWNER], "").await;
        assert_eq!((answer.status, answer.code()), (404, "request.not_found".into()), "{other}");
    }
    assert_eq!(server.gate.strays.load(Ordering::Relaxed), 6);
}

#[tokio::test]
async fn an_undeclared_method_is_405_with_the_declared_ones_in_allow() {
    let server = server();
    for method in ["TRACE", "PUT", "PATCH", "CONNECT", "BREW"] {
        let answer = server.send(method, USER, &[OWNER], "").await;
        assert_eq!((answer.status, answer.code()), (405, "request.method_not_allowed".into()), "{method}");
        assert_eq!(answer.header("allow"), "DELETE, GET, HEAD, OPTIONS");
        assert_eq!(answer.header("ratelimit"), "\"user\";r=9");
    }
    let answer = server.send("OPTIONS", "/v1/users", &[], "").await;
    assert_eq!((answer.status, answer.header("allow")), (204, "GET, HEAD, OPTIONS, POST"));
    let answer = server.send("HEAD", "/oauth/revoke", &[], "").await;
    assert_eq!((answer.status, answer.header("allow")), (405, "OPTIONS, POST"));
    assert_eq!(server.gate.asked.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn head_is_decided_as_get_and_has_no_body() {
    let server = server();
    assert_eq!(server.send("HEAD", USER, &[], "").await.status, 401);
    let answer = server.send("HEAD", USER, &[OWNER], "").await;
    assert_eq!((answer.status, answer.body.len()), (200, 0));
}

#[tokio::test]
async fn unknown_repeated_and_broken_query_names_are_refused() {
    let server = server();
    let answer = server.send("GET", "/v1/users?limit=7&after=x%2By", &[OWNER], "").await;
    assert_eq!(answer.json()["next"], "x+y");
    assert_eq!(answer.json()["items"][0]["name"], "Some(7)");
    for (query, status, pointer) in [
        ("limit=7&limit=8", 422, "query:limit"),
        ("Limit=7", 422, "query:Limit"),
        ("limit=-1", 422, "query:limit"),
        ("role=emperor", 422, "query:role"),
        ("limit=%", 400, ""),
        ("limit=%ff", 400, ""),
    ] {
        let answer = server.send("GET", &format!("/v1/users?{query}"), &[OWNER], "").await;
        assert_eq!(answer.status, status, "{query}");
        assert_eq!(answer.json()["errors"][0]["pointer"].as_str().unwrap_or(""), pointer, "{query}");
    }
}

#[tokio::test]
async fn forms_are_read_as_strictly_as_queries() {
    let server = server();
    let good = server.send("POST", "/oauth/introspect", &[FORM, MEMBER], "token=a%2Bb&token_type_hint=+c").await;
    assert_eq!(good.json(), json!("a+b c"));
    for (body, status) in
        [("token=a&token=b", 422), ("", 422), ("token=a&x=1", 422), ("token=%zz", 400), ("token=\u{0}", 400)]
    {
        assert_eq!(server.send("POST", "/oauth/introspect", &[FORM, MEMBER], body).await.status, status, "{body}");
    }
    let answer = server.send("POST", "/oauth/revoke", &[FORM], "token=a").await;
    assert_eq!((answer.status, answer.body.len()), (200, 0));
}

#[tokio::test]
async fn an_optional_body_may_be_absent_but_not_something_else() {
    let server = server();
    assert_eq!(server.send("POST", "/v1/logout", &[], "").await.json(), json!(false));
    assert_eq!(server.send("POST", "/v1/logout", &[JSON], "").await.json(), json!(false));
    assert_eq!(server.send("POST", "/v1/logout", &[JSON], r#"{"all":true}"#).await.json(), json!(true));
    assert_eq!(server.send("POST", "/v1/logout", &[], r#"{"all":true}"#).await.status, 415);
    assert_eq!(server.send("POST", "/v1/logout", &[("content-type", "text/plain")], "").await.status, 415);
}

#[tokio::test]
async fn headers_of_gate_and_cache_class_are_on_every_answer() {
    let server = server();
    let answer = server.send("GET", "/keys.json", &[], "").await;
    assert_eq!(answer.json(), json!({ "keys": ["k1"] }));
    assert_eq!(answer.header("cache-control"), "public, max-age=300");
    assert_eq!(answer.header("ratelimit"), "\"user\";r=9");
    for (method, uri, headers, status) in [
        ("GET", USER, vec![OWNER], 200),
        ("GET", USER, vec![], 401),
        ("GET", "/keys.json/", vec![], 404),
        ("POST", "/keys.json", vec![], 405),
        ("POST", "/v1/users", vec![OWNER], 415),
    ] {
        let answer = server.send(method, uri, &headers, "").await;
        assert_eq!((answer.status, answer.header("cache-control")), (status, "no-store"), "{method} {uri}");
        assert_eq!(answer.header("ratelimit").is_empty(), status == 401, "{method} {uri}");
    }
}

#[tokio::test]
async fn an_idempotency_key_reaches_the_permit_or_is_refused() {
    let server = server();
    let create = async |keys: &[(&str, &str)]| {
        let headers = [&[JSON, OWNER], keys].concat();
        server.send("POST", "/v1/users", &headers, r#"{"name":"Ada"}"#).await
    };
    assert_eq!(create(&[("idempotency-key", "k-1")]).await.json()["name"], "k-1");
    let long = "k".repeat(129);
    for keys in [
        vec![("idempotency-key", "")],
        vec![("idempotency-key", "a b")],
        vec![("idempotency-key", "a"), ("idempotency-key", "b")],
        vec![("idempotency-key", long.as_str())],
    ] {
        let answer = create(&keys).await;
        assert_eq!((answer.status, answer.code()), (400, "request.header_invalid".into()));
    }
    assert_eq!(server.app.created(), 1);
}

#[tokio::test]
async fn an_adopted_router_is_gated_as_a_whole() {
    let server = server();
    for (uri, headers, status) in [
        ("/files/up", vec![], 401),
        ("/files/up", vec![MEMBER], 403),
        ("/files/nowhere", vec![], 401),
        ("/files", vec![MEMBER], 403),
    ] {
        assert_eq!(server.send("PUT", uri, &headers, "abc").await.status, status, "{uri}");
    }
    let answer = server.send("PUT", "/files/up", &[OWNER], "abc").await;
    assert_eq!((answer.status, &answer.body[..]), (200, &b"owner 3"[..]));
    assert_eq!((answer.header("cache-control"), answer.header("ratelimit")), ("no-store", "\"user\";r=9"));
    assert_eq!(&server.send("PUT", "/files/nowhere", &[OWNER], "").await.body[..], b"own fallback");
    assert_eq!(server.send("PUT", "/files/up", &[OWNER], "x".repeat(1025)).await.status, 413);
    // A permit for another action than the prefix states is a mistake in the wiring, and nobody gets in by it.
    let answer = server.send("GET", "/files/mistaken", &[OWNER], "").await;
    assert_eq!((answer.status, answer.code()), (500, "server.internal".into()));
}

#[tokio::test]
async fn an_adopted_router_reads_no_more_than_the_limit() {
    let server = server();
    let touched = Arc::new(AtomicBool::new(false));
    let answer = server.send("PUT", "/files/up", &[OWNER], RawBody::new(Endless(touched))).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE.as_u16());
}

#[tokio::test]
async fn a_permit_outside_the_gate_is_an_error_of_the_server() {
    let router =
        axum::Router::new().route("/", axum::routing::get(async |_: crate::guard::Permit<super::app::Ring>| "in"));
    let mut request = Request::new(RawBody::empty());
    request.extensions_mut().insert(Visitor { request: REQUEST, ip: None });
    assert_eq!(router.oneshot(request).await.unwrap().status(), 500);
}

#[tokio::test]
async fn what_the_document_promises_of_plain_types_is_enforced() {
    let server = server();
    for (body, rule) in [(r#"{"name":""}"#, "string.too_short"), (r#"{"name":"a","role":"x"}"#, "value.not_allowed")] {
        let answer = server.send("POST", "/v1/users", &[JSON, OWNER], body).await;
        assert_eq!((answer.status, answer.json()["errors"][0]["code"].as_str().unwrap()), (422, rule), "{body}");
    }
    assert_eq!(server.send("POST", "/v1/users", &[JSON, OWNER], r#"{"name":"\u00e9","role":null}"#).await.status, 201);
    for (query, status) in
        [("limit=0", 422), ("limit=1", 200), ("limit=100", 200), ("limit=101", 422), ("after=7", 200)]
    {
        let answer = server.send("GET", &format!("/v1/users?{query}"), &[OWNER], "").await;
        assert_eq!(answer.status, status, "{query}");
        if status == 422 {
            assert_eq!(answer.json()["errors"][0]["pointer"], "query:limit");
            assert_eq!(answer.json()["errors"][0]["code"], "number.out_of_range");
        }
    }
    let long = format!("/v1/users?after={}", "%c3%a9".repeat(201));
    assert_eq!(server.send("GET", &long, &[OWNER], "").await.json()["errors"][0]["code"], "string.too_long");
    assert_eq!(server.send("GET", &long.replacen("%c3%a9", "", 1), &[OWNER], "").await.status, 200);
    for (seat, status) in [("blue/0", 404), ("blue/1", 200), ("blue/1000", 404), ("7/7", 200)] {
        assert_eq!(server.send("PUT", &format!("/v1/seats/{seat}"), &[], "").await.status, status, "{seat}");
    }
    let hint = format!("token=a&token_type_hint={}", "h".repeat(65));
    assert_eq!(server.send("POST", "/oauth/introspect", &[FORM, MEMBER], hint).await.status, 422);
}
