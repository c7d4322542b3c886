//! More than six arguments.
use bartizan::api::*;

type S = Service<u8>;

async fn many(_: S, _: S, _: S, _: S, _: S, _: S, _: S) -> Result<Done, Failure> {
    Ok(Done)
}

fn main() {
    let route = Write { summary: "s", access: public("a test"), rate: RateClass::Write, csrf: Csrf::Enforced, cache: Cache::Private };
    let _ = Api::<u8>::new().post("/a", route, many);
}
