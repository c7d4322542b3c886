//! What the guard does on every request: a token it has seen, looked up, held against time, revocation, epochs and tier.
//!
//! `cargo bench -p bartizan --bench guard`

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench that cannot go on stops here")]

use std::hint::black_box;

use axum::body::Body;
use bartizan::engine::Engine;
use bartizan::settings::Settings;
use bartizan_keys::{FileKeyring, SecretSource};
use criterion::{Criterion, criterion_group, criterion_main};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

const PASSWORD: &str = "four quiet lighthouses at noon";

async fn post(engine: &Engine, path: &str, body: String) -> serde_json::Value {
    let request = http::Request::post(path).header("content-type", "application/json").header("host", "bench");
    let response = engine.router().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
    serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
}

fn guard(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let home = tempfile::tempdir().unwrap();
    FileKeyring::create(&SecretSource::dir(home.path().join("secrets"))).unwrap();
    let engine = runtime.block_on(Engine::start(Settings::embedded(home.path()))).unwrap();
    let token = runtime.block_on(async {
        let signup = format!(r#"{{"tenant":"bench","name":"B","email":"b@bench.example","password":"{PASSWORD}"}}"#);
        post(&engine, "/v1/signup", signup).await;
        let login = format!(r#"{{"tenant":"bench","email":"b@bench.example","password":"{PASSWORD}"}}"#);
        let answer = post(&engine, "/v1/login", login).await;
        answer.get("access_token").and_then(|token| token.as_str()).unwrap().to_owned()
    });
    criterion.bench_function("verify and revocation of a remembered token", |bencher| {
        bencher.iter(|| engine.authenticate(black_box(&token)).unwrap());
    });
    runtime.block_on(engine.shutdown());
}

criterion_group!(benches, guard);
criterion_main!(benches);
