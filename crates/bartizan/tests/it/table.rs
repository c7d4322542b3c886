//! Tests that nobody writes down: made from the table, for every built-in row.

use bartizan::api::{Access, Row, Verb};
use bartizan_core::principal::Role;
use http::Method;
use serde_json::json;

use crate::application::{Caller, Site};

/// The path of a row, its parameters filled in by an id that no row of the database has.
fn path(row: &Row) -> String {
    let fill = |segment: &str| match segment.starts_with('{') {
        true if row.path.contains("sessions") => "ses_0190a0a0a0a07000800000000000dead".to_owned(),
        true => "usr_0190a0a0a0a07000800000000000dead".to_owned(),
        false => segment.to_owned(),
    };
    row.path.split('/').map(fill).collect::<Vec<_>>().join("/")
}

fn method(row: &Row) -> Method {
    assert_ne!(row.method, Verb::Any, "no built-in router is adopted");
    Method::from_bytes(row.method.as_str().as_bytes()).unwrap()
}

#[tokio::test]
async fn without_a_credential_every_row_that_requires_an_action_is_refused() {
    let site = Site::new().await;
    let nobody = Caller::nobody(&site.engine.router());
    let mut asked = 0;
    for row in site.engine.table().rows() {
        let Access::Requires { .. } = row.access else { continue };
        // The body is not looked at: it is not even of the right type.
        let answer = nobody.send(method(row).as_str(), &path(row), Some(&json!([]))).await;
        drop(answer.refused(401, "auth.credential_missing"));
        asked += 1;
    }
    assert!(asked >= 15, "only {asked} rows require anything");
}

/// For every row and every role that may not: 403, and one row in the trail that says who, what, from where.
#[tokio::test]
async fn a_missing_permission_is_refused_and_leaves_one_row_for_every_row_of_the_table() {
    let site = Site::new().await;
    let router = site.engine.router();
    site.tenant("acme").await;
    let mut expected = Vec::new();
    for role in Role::ALL {
        let caller = site.caller(&router, "acme", *role).await;
        let who = caller.send("GET", "/v1/whoami", None).await.json();
        for row in site.engine.table().rows() {
            let Access::Requires { action, roles } = row.access else { continue };
            if roles.contains(role) {
                continue;
            }
            let answer = caller.send(method(row).as_str(), &path(row), Some(&json!([]))).await;
            let answer = answer.refused(403, "access.denied");
            expected.push((action.to_owned(), who["sub"].clone(), answer.json()["instance"].clone()));
        }
    }
    assert!(expected.len() >= 12, "{expected:?}");
    let rows = site.rows("access.denied", expected.len()).await;
    for (action, actor, request) in expected {
        let mine: Vec<_> = rows.iter().filter(|row| row["request"] == request).collect();
        assert_eq!(mine.len(), 1, "{action}");
        assert_eq!((&mine[0]["details"]["action"], &mine[0]["actor"]), (&json!(action), &actor));
        assert_eq!((&mine[0]["outcome"], &mine[0]["ip"]), (&json!("denied"), &json!("192.0.2.1")));
    }
}

#[tokio::test]
async fn every_row_answers_the_roles_that_may_with_something_else_than_403() {
    let site = Site::new().await;
    let router = site.engine.router();
    site.tenant("acme").await;
    for role in Role::ALL {
        for row in site.engine.table().rows() {
            let Access::Requires { roles, .. } = row.access else { continue };
            if !roles.contains(role) {
                continue;
            }
            // Somebody new each time: a logout among the rows ends his session.
            let caller = site.caller(&router, "acme", *role).await;
            let status = caller.send(method(row).as_str(), &path(row), None).await.status;
            assert!(![401, 403, 500].contains(&status), "{} as {role}: {status}", row.name());
        }
    }
    assert_eq!(site.rows("access.denied", 0).await.len(), 0);
}

/// The listener's short way and axum's long one lead to the same entrance.
#[tokio::test]
async fn the_application_called_directly_answers_like_its_router() {
    let site = Site::new().await;
    site.tenant("acme").await;
    let (application, router) = (site.engine.application(), site.engine.router());
    let direct = axum::Router::new().fallback(async move |request: axum::extract::Request| {
        let peer = request.extensions().get::<bartizan::Peer>().map(|peer| peer.0);
        application.answer(request, peer.unwrap()).await
    });
    let mut asked: Vec<(String, String)> =
        site.engine.table().rows().iter().map(|row| (method(row).to_string(), path(row))).collect();
    let others =
        [("HEAD", "/v1/whoami"), ("PUT", "/v1/login"), ("OPTIONS", "/v1/me"), ("GET", "/v1/whoami/"), ("GET", "/")];
    asked.extend(others.map(|(method, path)| (method.to_owned(), path.to_owned())));
    for (method, path) in asked {
        let mut seen = Vec::new();
        for way in [&router, &direct] {
            // Somebody new each time: a logout among the rows ends his session.
            for caller in [Caller::nobody(way), site.caller(way, "acme", Role::Owner).await] {
                let answer = caller.send(&method, &path, None).await;
                let mut names: Vec<String> = answer.headers.keys().map(ToString::to_string).collect();
                // On a response that no socket has seen axum writes the length itself, for whoever serves it.
                names.retain(|name| name != "content-length");
                names.sort();
                seen.push((answer.status, names, answer.headers.get("ratelimit-policy").cloned()));
            }
        }
        assert_eq!((&seen[0], &seen[1]), (&seen[2], &seen[3]), "{method} {path}");
    }
}
