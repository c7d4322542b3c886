//! A service comes out of the state.
use bartizan::api::*;

struct Users;

async fn create(_: Service<Users>) -> Result<Done, Failure> {
    Ok(Done)
}

fn main() {
    let route = Write { summary: "s", access: public("a test"), rate: RateClass::Write, csrf: Csrf::Enforced, cache: Cache::Private };
    let _ = Api::<()>::new().post("/a", route, create);
}
