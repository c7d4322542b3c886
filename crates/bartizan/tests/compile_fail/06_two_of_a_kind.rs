//! Two bodies, two permits.
use bartizan::api::*;
use bartizan::guard::Permit;
use bartizan_core::action::CreateUser;

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct NewUser {}

async fn bodies(_: Permit<CreateUser>, _: Body<NewUser>, _: Form<NewUser>) -> Result<Done, Failure> {
    Ok(Done)
}

async fn permits(_: Permit<CreateUser>, _: Permit<CreateUser>) -> Result<Done, Failure> {
    Ok(Done)
}

fn main() {
    let route = Write { summary: "s", access: requires(CreateUser), rate: RateClass::Write, csrf: Csrf::Enforced, cache: Cache::Private };
    let _ = Api::<()>::new().post("/a", route, bodies);
    let route = Write { summary: "s", access: requires(CreateUser), rate: RateClass::Write, csrf: Csrf::Enforced, cache: Cache::Private };
    let _ = Api::<()>::new().post("/a", route, permits);
}
