//! The set of arguments is closed.
use bartizan::api::*;

struct Whole;

impl<S: Sync> Arg<S> for Whole {
    type Body = Nothing;
    type Proof = Nothing;
    fn describe(_: &mut Description) {}
    async fn take(_: &mut Incoming, _: &S) -> Result<Self, Failure> {
        Ok(Whole)
    }
}

fn main() {}
