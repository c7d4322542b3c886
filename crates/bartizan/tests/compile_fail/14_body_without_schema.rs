//! Input is in the document.
use bartizan::api::*;

#[derive(serde::Deserialize)]
struct NewUser {}

async fn create(_: Body<NewUser>) -> Result<Done, Failure> {
    Ok(Done)
}

fn main() {
    let route = Write { summary: "s", access: public("a test"), rate: RateClass::Write, csrf: Csrf::Enforced, cache: Cache::Private };
    let _ = Api::<()>::new().post("/a", route, create);
}
