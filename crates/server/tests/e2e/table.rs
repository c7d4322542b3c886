//! Tests that nobody writes down: made from the server's own document, for every operation in it.

use bartizan_testkit::{Client, Server, raw};
use http::Method;
use serde_json::Value;

use crate::headers::complete;
use crate::server;

/// One operation of the document.
struct Operation {
    method: Method,
    /// With parameters filled in by ids that no row has.
    path: String,
    template: String,
    public: bool,
    media: Option<String>,
}

async fn operations(server: &Server) -> Vec<Operation> {
    let document = server.client().get("/openapi.json").await.expect(200).json();
    assert_eq!(document["openapi"].as_str().map(|v| v.starts_with("3.1")), Some(true));
    let mut found = Vec::new();
    for (template, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let Ok(method) = Method::from_bytes(method.to_uppercase().as_bytes()) else { continue };
            if !["GET", "POST", "PUT", "PATCH", "DELETE"].contains(&method.as_str()) {
                continue;
            }
            let security = if operation["security"].is_null() { &document["security"] } else { &operation["security"] };
            let public = security.as_array().is_none_or(Vec::is_empty);
            let media = operation["requestBody"]["content"].as_object().and_then(|c| c.keys().next().cloned());
            let path = fill(template, &operation["parameters"], &item["parameters"]);
            found.push(Operation { method, path, template: template.clone(), public, media });
        }
    }
    assert!(found.len() >= 18, "only {} operations are documented", found.len());
    found
}

fn fill(template: &str, own: &Value, shared: &Value) -> String {
    let mut path = template.to_owned();
    for parameter in own.as_array().into_iter().chain(shared.as_array()).flatten().filter(|p| p["in"] == "path") {
        let pattern = parameter["schema"]["pattern"].as_str().unwrap_or("^usr_");
        let prefix: String = pattern.trim_start_matches('^').chars().take_while(|c| *c != '[').collect();
        let id = format!("{prefix}0190a0a0a0a07000800000000000dead");
        path = path.replace(&format!("{{{}}}", parameter["name"].as_str().unwrap()), &id);
    }
    assert!(!path.contains('{'), "{template} has an undeclared parameter");
    path
}

async fn call(client: &Client, operation: &Operation, media: Option<&str>, body: &str) -> bartizan_testkit::Answer {
    client.send(operation.method.clone(), &operation.path, media, body.to_owned()).await
}

#[tokio::test]
async fn without_a_credential_every_operation_that_is_not_public_is_refused() {
    let server = server().await;
    for operation in operations(&server).await.iter().filter(|o| !o.public) {
        let what = format!("{} {}", operation.method, operation.template);
        for client in
            [server.client(), server.client().bearer("x.y.z"), server.client().with("authorization", "Basic eDp5")]
        {
            let answer = call(&client, operation, operation.media.as_deref(), "{}").await;
            assert_eq!(answer.status, 401, "{what}");
            complete(&what, &answer.problem(401));
        }
    }
}

#[tokio::test]
async fn no_more_is_public_than_was_decided() {
    let server = server().await;
    let mut public: Vec<String> =
        operations(&server).await.iter().filter(|o| o.public).map(|o| format!("{} {}", o.method, o.template)).collect();
    public.sort();
    let decided = [
        "GET /",
        "GET /.well-known/jwks.json",
        "GET /openapi.json",
        "POST /oauth/revoke",
        "POST /v1/login",
        "POST /v1/signup",
        "POST /v1/token/refresh",
    ];
    assert!(public.iter().all(|operation| decided.contains(&operation.as_str())), "{public:?}");
}

#[tokio::test]
async fn every_body_has_a_limit() {
    let server = server().await;
    let token = server.owner().await.access;
    for operation in operations(&server).await.iter().filter(|o| o.media.is_some()) {
        let request = format!(
            "{} {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\nContent-Type: {}\r\nContent-Length: 99999999\r\n\r\n",
            operation.method,
            operation.path,
            operation.media.as_deref().unwrap()
        );
        let answer = raw(&server.api, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 413"), "{} {}: {answer}", operation.method, operation.template);
    }
}

#[tokio::test]
async fn every_body_has_one_media_type() {
    let server = server().await;
    let owner = server.owner().await.client;
    for operation in operations(&server).await.iter().filter(|o| o.media.is_some()) {
        for media in ["text/plain", "application/xml", "application/octet-stream"] {
            let answer = call(&owner, operation, Some(media), "{}").await;
            assert_eq!(answer.status, 415, "{} {} {media}", operation.method, operation.template);
            complete(&operation.template, &answer);
        }
    }
}

#[tokio::test]
async fn every_body_refuses_unknown_members_and_broken_json() {
    let server = server().await;
    let owner = server.owner().await.client;
    let json = Some("application/json");
    for operation in operations(&server).await.iter().filter(|o| o.media.as_deref() == json) {
        let what = format!("{} {}", operation.method, operation.template);
        let unknown = call(&owner, operation, json, r#"{"unheard_of":1}"#).await;
        assert_eq!(unknown.status, 422, "{what}");
        complete(&what, &unknown.refused(422, "request.input_invalid"));
        for broken in ["{", "[]]", "{\"a\":1,\"a\":2}", "\u{feff}{}", "{} {}"] {
            let answer = call(&owner, operation, json, broken).await;
            assert_eq!(answer.status, 400, "{what} {broken}");
        }
    }
}

#[tokio::test]
async fn every_operation_says_404_to_an_id_that_no_row_has() {
    let server = server().await;
    let owner = server.owner().await.client;
    let with_id = |o: &&Operation| o.template.contains('{') && matches!(o.method, Method::GET | Method::DELETE);
    for operation in operations(&server).await.iter().filter(with_id) {
        let answer = call(&owner, operation, None, "").await;
        assert_eq!(answer.status, 404, "{} {}", operation.method, operation.template);
        complete(&operation.template, &answer);
    }
}

#[tokio::test]
async fn every_path_refuses_the_methods_it_does_not_have_and_other_spellings() {
    let server = server().await;
    let owner = server.owner().await.client;
    let all = operations(&server).await;
    for operation in &all {
        let declared = |method: &Method| all.iter().any(|o| o.template == operation.template && o.method == *method);
        for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::TRACE] {
            if declared(&method) {
                continue;
            }
            let answer = owner.send(method.clone(), &operation.path, None, "").await;
            assert_eq!(answer.status, 405, "{method} {}", operation.template);
            assert!(answer.header("allow").contains(operation.method.as_str()), "{method} {}", operation.template);
            complete(&operation.template, &answer);
        }
        let slashed = format!("{}/", operation.path.trim_end_matches('/'));
        if slashed != operation.path {
            drop(owner.send(operation.method.clone(), &slashed, None, "").await.problem(404));
        }
    }
}

#[tokio::test]
async fn every_operation_says_how_it_can_fail() {
    let server = server().await;
    let document = server.client().get("/openapi.json").await.expect(200).json();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap().iter().filter(|(name, _)| *name != "parameters") {
            assert!(operation["operationId"].is_string() && operation["summary"].is_string(), "{method} {path}");
            let responses = operation["responses"].as_object().unwrap();
            assert!(responses.keys().any(|status| status.starts_with('2')), "{method} {path}");
            assert!(responses.contains_key("default") || responses.contains_key("4XX"), "{method} {path}");
        }
    }
}
