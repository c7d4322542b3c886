//! Which of an application's plain routes a stray request is told to have met.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use axum::routing::{any, get};
use http::request::Parts;
use http::{HeaderMap, Request};
use tower::ServiceExt;

use super::app::{App, RoleGate, api, defaults};
use crate::api::{Gate, Row};
use crate::front::Visitor;
use crate::guard::Admission;

/// Notes what it is told.
#[derive(Clone, Default)]
struct Noting {
    gate: RoleGate,
    told: Arc<Mutex<Vec<String>>>,
    shut: bool,
}

impl Gate for Noting {
    async fn admit(&self, row: &Row, visitor: &Visitor, parts: &mut Parts) -> Result<Admission, Response> {
        self.gate.admit(row, visitor, parts).await
    }

    async fn stray(&self, parts: &mut Parts) -> Result<HeaderMap, Response> {
        if self.shut { Err(Response::new(Body::empty())) } else { self.gate.stray(parts).await }
    }

    fn undeclared(&self, parts: &Parts, template: &str) {
        self.told.lock().unwrap().push(format!("{} {template}", parts.method));
    }
}

fn plain() -> Router<App> {
    let never = async || -> &'static str { panic!("it ran") };
    Router::new()
        .route("/own/{id}", get(never))
        .route("/v1/users", get(never).put(never))
        .merge(Router::new().route("/all/{*rest}", any(never)))
        .nest("/deep", Router::new().nest("/er/{x}", Router::new().route("/{y}", any(never))))
        .fallback(never)
}

async fn told(shut: bool, wrap: impl FnOnce(Router) -> Router, requests: &[(&str, &str)]) -> Vec<String> {
    let gate = Noting { shut, ..Noting::default() };
    let mounted = api().finish_before(plain(), gate.clone(), &defaults(), |_| None).unwrap();
    let router = wrap(mounted.router.with_state(App::new()));
    for (method, path) in requests {
        let request = Request::builder().method(*method).uri(*path).body(Body::empty()).unwrap();
        router.clone().oneshot(request).await.unwrap();
    }
    gate.told.lock().unwrap().clone()
}

const REQUESTS: &[(&str, &str)] = &[
    ("GET", "/own/secret-id"),
    ("POST", "/own/secret-id"),
    ("PATCH", "/all/a/b/c"),
    ("GET", "/deep/er/1/2"),
    // Declared, so it is the declaration's 405 and not the application's business.
    ("PUT", "/v1/users"),
    ("GET", "/nothing"),
    ("GET", "/own"),
];

#[tokio::test]
async fn the_template_is_told_and_never_what_a_client_wrote() {
    let expected = ["GET /own/{id}", "POST /own/{id}", "PATCH /all/{*rest}", "GET /deep/er/{x}/{y}"];
    assert_eq!(told(false, |router| router, REQUESTS).await, expected);
}

#[tokio::test]
async fn below_a_prefix_the_template_is_told_and_the_prefix_is_no_match() {
    let below: Vec<(&str, String)> = REQUESTS.iter().map(|(method, path)| (*method, format!("/app{path}"))).collect();
    let below: Vec<(&str, &str)> = below.iter().map(|(method, path)| (*method, path.as_str())).collect();
    let told = told(false, |router| Router::new().nest("/app", router), &below).await;
    assert_eq!(told.len(), 4, "{told:?}");
    assert!(told[0].ends_with("/own/{id}") && told[3].ends_with("/deep/er/{x}/{y}"), "{told:?}");
}

#[tokio::test]
async fn whoever_is_refused_anyway_writes_nothing_into_the_log() {
    assert!(told(true, |router| router, REQUESTS).await.is_empty());
}
