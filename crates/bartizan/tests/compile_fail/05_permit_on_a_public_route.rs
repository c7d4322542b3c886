//! A public route proves nothing.
use bartizan::api::*;
use bartizan::guard::Permit;
use bartizan_core::action::CreateUser;

async fn create(_: Permit<CreateUser>) -> Result<Done, Failure> {
    Ok(Done)
}

fn main() {
    let route = Write { summary: "s", access: public("a test"), rate: RateClass::Write, csrf: Csrf::Enforced, cache: Cache::Private };
    let _ = Api::<()>::new().post("/a", route, create);
}
