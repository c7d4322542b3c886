//! A question left unanswered.
use bartizan::api::*;

fn main() {
    let _ = Write::<Public> { summary: "s", rate: RateClass::Write, cache: Cache::Private };
}
