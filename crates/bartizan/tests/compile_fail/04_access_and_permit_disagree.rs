//! No permit, another one, or one too many.
use bartizan::api::*;
use bartizan::guard::Permit;
use bartizan_core::action::{CreateUser, ReadUsers};

async fn none() -> Result<Done, Failure> {
    Ok(Done)
}

async fn other(_: Permit<ReadUsers>) -> Result<Done, Failure> {
    Ok(Done)
}

async fn visit(_: Visit) -> Result<Done, Failure> {
    Ok(Done)
}

fn main() {
    let route = Write { summary: "s", access: requires(CreateUser), rate: RateClass::Write, csrf: Csrf::Enforced, cache: Cache::Private };
    let _ = Api::<()>::new().post("/a", route, none);
    let route = Write { summary: "s", access: requires(CreateUser), rate: RateClass::Write, csrf: Csrf::Enforced, cache: Cache::Private };
    let _ = Api::<()>::new().post("/a", route, other);
    let route = Write { summary: "s", access: requires(CreateUser), rate: RateClass::Write, csrf: Csrf::Enforced, cache: Cache::Private };
    let _ = Api::<()>::new().post("/a", route, visit);
}
