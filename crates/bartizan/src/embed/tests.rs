//! What needs the engine's inside to be seen.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bartizan_core::action::UpdateTenant;
use bartizan_core::audit::TenantUpdated;
use bartizan_core::secret::Secret;
use bartizan_store::tenants;
use http::Request;
use http_body_util::BodyExt;
use tempfile::TempDir;
use tower::ServiceExt;

use crate::api::{Api, Cache, Csrf, Done, Failure, RateClass, Service, Write, requires};
use crate::clock::Clock;
use crate::engine::{Engine, create_secrets};
use crate::ground::{Begun, Ground};
use crate::guard::Permit;
use crate::settings::{Password, Settings};
use bartizan_core::time::Millis;

pub(crate) const NOW: Millis = Millis(1_900_000_000_000);

/// An engine in a directory of its own, with a clock that stands still and the cheapest hash there is.
pub(crate) async fn engine(change: impl FnOnce(&mut Settings)) -> (Engine, TempDir) {
    let dir = TempDir::new().unwrap();
    let mut settings = Settings::embedded(dir.path());
    settings.password = Password { min_length: 15, memory_kib: 8, passes: 1, lanes: 1, workers: 2, queue: 100 };
    change(&mut settings);
    create_secrets(&settings).unwrap();
    (Engine::start_at(settings, Clock::manual(NOW)).await.unwrap(), dir)
}

/// A password the policy accepts.
pub(crate) fn passphrase() -> Secret<String> {
    Secret::new("gravel-lantern-72-orbit".to_owned())
}

/// An access token of a user of the tenant `acme`.
pub(crate) async fn token(engine: &Engine, email: &str) -> String {
    let body = serde_json::json!({ "tenant": "acme", "email": email, "password": passphrase().expose() });
    let request = Request::post("/v1/login")
        .header("host", "bells")
        .header("content-type", "application/json")
        .body(Body::from(body.to_string()));
    let answer = engine.router().oneshot(request.unwrap()).await.unwrap();
    let tokens: serde_json::Value = serde_json::from_slice(&bytes(answer).await).unwrap();
    tokens["access_token"].as_str().unwrap_or_else(|| panic!("{tokens}")).to_owned()
}

async fn bytes(answer: Response) -> Vec<u8> {
    answer.into_body().collect().await.unwrap().to_bytes().to_vec()
}

/// Never comes to an end.
async fn hang(_: Permit<UpdateTenant>, Service(_): Service<Ground>) -> Result<Done, Failure> {
    std::future::pending().await
}

/// Renames the tenant, and never comes to keep it.
async fn rename_and_hang(permit: Permit<UpdateTenant>, Service(ground): Service<Ground>) -> Result<Done, Failure> {
    let Begun::New(mut change) = ground.change(&permit).await? else { return Ok(Done) };
    tenants::set_name(&mut change, Some(b"renamed"), NOW).await?;
    let row = tenants::own(&mut change).await?.unwrap();
    assert_eq!(row.name_sealed.as_deref(), Some(&b"renamed"[..]));
    std::future::pending::<()>().await;
    change.commit(TenantUpdated { fields: vec!["name"] }, ()).await.map(|()| Done)
}

#[tokio::test]
async fn a_deadline_answers_408_and_takes_the_open_transaction_back() {
    let (engine, _dir) = engine(|settings| settings.request.deadline = Duration::from_millis(300)).await;
    engine.operator().add_tenant("acme", "Owner", "o@acme.example", passphrase()).await.unwrap();
    let owner = token(&engine, "o@acme.example").await;
    let route = Write {
        summary: "Hangs",
        access: requires(UpdateTenant),
        rate: RateClass::Write,
        csrf: Csrf::Enforced,
        cache: Cache::Private,
    };
    let api = Api::new().post("/rename", route, rename_and_hang).post("/hang", route, hang);
    let router = engine.guard(axum::Router::new(), api).unwrap().with_state(engine.ground.clone());
    let rows = async || {
        let rows = serde_json::to_value(engine.operator().audit_tail(None, 100).await.unwrap()).unwrap();
        rows.as_array().unwrap().iter().filter(|row| row["action"] != "audit.read").count()
    };
    let trail = rows().await;

    for path in ["/hang", "/rename"] {
        let request = Request::post(path)
            .header("host", "bells")
            .header("authorization", format!("Bearer {owner}"))
            .body(Body::empty());
        let answer = router.clone().oneshot(request.unwrap()).await.unwrap();
        assert_eq!(answer.status(), 408, "{path}");
        let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
        let problem: serde_json::Value = serde_json::from_slice(&bytes(answer).await).unwrap();
        assert_eq!((problem["code"].as_str(), problem["instance"].as_str()), (Some("request.timeout"), Some(&*id)));
    }

    // Nothing of it is left, neither change nor row, and the one writer is free again.
    let mut reader = engine.ground.read_platform("a test").await.unwrap();
    let row = tenants::by_slug(&mut reader, "acme").await.unwrap().unwrap();
    assert_ne!(row.name_sealed.as_deref(), Some(&b"renamed"[..]));
    drop(reader);
    assert_eq!(rows().await, trail);
    engine.operator().set_tier("acme", bartizan_core::principal::Tier::Pro).await.unwrap();
    let text = engine.ground.metrics.render();
    let counted = "http_server_request_duration_seconds_count{http_request_method=\"POST\",http_route=\"/rename\",http_response_status_code=\"4xx\"} 1";
    assert!(text.contains(counted), "{text}");
}
