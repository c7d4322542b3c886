//! The query.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::argument::{Arg, Nothing};
use super::call::Sealed;
use super::failure::Failure;
use super::incoming::Incoming;
use super::schema::Description;
use super::text::{self, Place};

/// The query as a flat struct: unknown and repeated names are refused with 422, what is not UTF-8 with 400.
#[derive(Clone, Copy, Debug)]
pub struct Query<T>(pub T);

impl<T> Sealed for Query<T> {}

impl<S: Sync, T: DeserializeOwned + JsonSchema + Send> Arg<S> for Query<T> {
    type Body = Nothing;
    type Proof = Nothing;

    fn describe(description: &mut Description) {
        description.query::<T>();
    }

    async fn take(incoming: &mut Incoming, _: &S) -> Result<Self, Failure> {
        let query = incoming.parts.uri.query().unwrap_or_default();
        let pairs = text::pairs(Place::Query, query.as_bytes())?;
        let read = text::read(Place::Query, pairs.clone()).map_err(Failure::from)?;
        incoming.bounds.check_pairs(Place::Query, &pairs)?;
        Ok(Query(read))
    }
}
