//! Nothing unsendable across an await.
use bartizan::api::*;

async fn look() -> Result<Done, Failure> {
    let held = std::rc::Rc::new(());
    std::future::ready(()).await;
    drop(held);
    Ok(Done)
}

fn main() {
    let route = Write { summary: "s", access: public("a test"), rate: RateClass::Write, csrf: Csrf::Enforced, cache: Cache::Private };
    let _ = Api::<()>::new().post("/a", route, look);
}
