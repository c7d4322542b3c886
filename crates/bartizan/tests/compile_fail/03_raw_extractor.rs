//! What skips limits, parsing and the document.
use bartizan::api::*;

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct NewUser {}

async fn json(_: axum::Json<NewUser>) -> Result<Done, Failure> {
    Ok(Done)
}

async fn bytes(_: axum::body::Bytes) -> Result<Done, Failure> {
    Ok(Done)
}

async fn request(_: axum::extract::Request) -> Result<Done, Failure> {
    Ok(Done)
}

async fn query(_: axum::extract::Query<NewUser>) -> Result<Done, Failure> {
    Ok(Done)
}

async fn headers(_: http::HeaderMap) -> Result<Done, Failure> {
    Ok(Done)
}

fn main() {
    let route = Write { summary: "s", access: public("a test"), rate: RateClass::Write, csrf: Csrf::Enforced, cache: Cache::Private };
    let _ = Api::<()>::new().post("/a", route, json);
    let route = Write { summary: "s", access: public("a test"), rate: RateClass::Write, csrf: Csrf::Enforced, cache: Cache::Private };
    let _ = Api::<()>::new().post("/a", route, bytes);
    let route = Write { summary: "s", access: public("a test"), rate: RateClass::Write, csrf: Csrf::Enforced, cache: Cache::Private };
    let _ = Api::<()>::new().post("/a", route, request);
    let route = Write { summary: "s", access: public("a test"), rate: RateClass::Write, csrf: Csrf::Enforced, cache: Cache::Private };
    let _ = Api::<()>::new().post("/a", route, query);
    let route = Write { summary: "s", access: public("a test"), rate: RateClass::Write, csrf: Csrf::Enforced, cache: Cache::Private };
    let _ = Api::<()>::new().post("/a", route, headers);
}
