//! A read has no CSRF answer.
use bartizan::api::*;

async fn look() -> Result<Done, Failure> {
    Ok(Done)
}

fn main() {
    let route = Read { summary: "s", access: public("a test"), rate: RateClass::Read, cache: Cache::Private };
    let _ = Api::<()>::new().post("/a", route, look);
}
