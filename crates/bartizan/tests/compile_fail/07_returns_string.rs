//! Not a `Result`.
use bartizan::api::*;

async fn text() -> String {
    String::new()
}

fn main() {
    let route = Write { summary: "s", access: public("a test"), rate: RateClass::Write, csrf: Csrf::Enforced, cache: Cache::Private };
    let _ = Api::<()>::new().post("/a", route, text);
}
