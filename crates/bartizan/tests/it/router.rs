//! The `Api` router as an application sees it: only the engine's guard can admit anybody, so a gate of one's own can
//! refuse and nothing else.

use axum::body::Body;
use axum::response::Response;
use bartizan::Visitor;
use bartizan::api::{
    Api, Cache, Csrf, Defaults, Done, Failure, Faults, Flaw, Gate, Info, Mounted, RateClass, Read, Row, Write, because,
    public, requires,
};
use bartizan::guard::{Admission, Permit};
use bartizan_core::action::Action;
use bartizan_core::principal::Role;
use http::request::Parts;
use http::{HeaderMap, Request, StatusCode};
use tower::ServiceExt;

/// An application's own action.
struct RingTheBell;

impl Action for RingTheBell {
    const NAME: &'static str = "bells.ring";
    const ROLES: &'static [Role] = &[Role::Member];
}

/// Lets nobody in.
#[derive(Clone)]
struct Closed;

impl Gate for Closed {
    async fn admit(&self, row: &Row, _: &Visitor, _: &mut Parts) -> Result<Admission, Response> {
        let mut response = Response::new(Body::from(row.name()));
        *response.status_mut() = StatusCode::IM_A_TEAPOT;
        Err(response)
    }
    async fn stray(&self, _: &mut Parts) -> Result<HeaderMap, Response> {
        Ok(HeaderMap::new())
    }
}

async fn ring(_: Permit<RingTheBell>) -> Result<Done, Failure> {
    Ok(Done)
}

async fn look() -> Result<Done, Failure> {
    Ok(Done)
}

fn mount(api: Api<()>) -> Result<Mounted<()>, Faults> {
    let info = Info { title: "Bells".into(), version: "1".into(), license: "MIT".into() };
    api.finish(Closed, Defaults { body: 1024, info })
}

fn bells() -> Api<()> {
    Api::new()
        .post(
            "/bell",
            Write {
                summary: "Ring",
                access: requires(RingTheBell),
                rate: RateClass::Write,
                csrf: Csrf::Enforced,
                cache: Cache::Private,
            },
            ring,
        )
        .get(
            "/bell",
            Read { summary: "Look", access: public("anybody may look"), rate: RateClass::Probe, cache: Cache::Private },
            look,
        )
}

async fn status(router: &axum::Router, method: &str, path: &str) -> u16 {
    let request = Request::builder().method(method).uri(path).body(Body::empty());
    router.clone().oneshot(request.unwrap()).await.unwrap().status().as_u16()
}

#[tokio::test]
async fn every_route_asks_the_gate_public_or_not() {
    let files = axum::Router::new().route("/{name}", axum::routing::get(async || "file"));
    let route = Write {
        summary: "Files",
        access: public("a test"),
        rate: RateClass::Read,
        csrf: Csrf::Enforced,
        cache: Cache::Private,
    };
    let router = mount(bells().adopt("/files", route, because("static files"), files)).unwrap().router;
    for (method, path) in
        [("POST", "/bell"), ("GET", "/bell"), ("HEAD", "/bell"), ("GET", "/files/a"), ("PUT", "/files/a")]
    {
        assert_eq!(status(&router, method, path).await, 418, "{method} {path}");
    }
    for (method, path, code) in
        [("GET", "/bell/", 404), ("GET", "/", 404), ("TRACE", "/bell", 405), ("PUT", "/bell", 405)]
    {
        assert_eq!(status(&router, method, path).await, code, "{method} {path}");
    }
}

#[tokio::test]
async fn nested_below_a_prefix_of_the_application_the_routes_stay_gated() {
    let mounted = mount(bells()).unwrap();
    let router = axum::Router::new().route("/own", axum::routing::get(async || "own")).nest("/api", mounted.router);
    assert_eq!(status(&router, "GET", "/own").await, 200);
    assert_eq!(status(&router, "POST", "/api/bell").await, 418);
    assert_eq!(status(&router, "DELETE", "/api/bell").await, 405);
    assert_eq!(status(&router, "GET", "/api/nothing").await, 404);
}

#[test]
fn faults_of_merged_apis_are_told_together() {
    let faults = mount(bells().merge(bells())).unwrap_err();
    assert_eq!(faults.iter().filter(|fault| fault.flaw == Flaw::Duplicate).count(), 2);
    assert!(faults.to_string().contains("POST /bell: declared twice"));
}
