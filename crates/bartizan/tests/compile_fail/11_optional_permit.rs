//! A permit is never optional.
use bartizan::api::*;
use bartizan::guard::Permit;
use bartizan_core::action::CreateUser;

async fn create(_: Option<Permit<CreateUser>>) -> Result<Done, Failure> {
    Ok(Done)
}

fn main() {
    let route = Write { summary: "s", access: requires(CreateUser), rate: RateClass::Write, csrf: Csrf::Enforced, cache: Cache::Private };
    let _ = Api::<()>::new().post("/a", route, create);
}
