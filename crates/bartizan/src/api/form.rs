//! Form bodies, which OAuth's endpoints speak (RFC 7009 section 2.1, RFC 7662 section 2.1).

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::argument::{Arg, Nothing, TheBody};
use super::call::Sealed;
use super::failure::Failure;
use super::incoming::{Incoming, Media};
use super::schema::{Description, Presence};
use super::text::{self, Place};

/// An `application/x-www-form-urlencoded` body as a flat struct, read as strictly as a query.
///
/// A browser sends such a body across origins without asking: leave `Csrf::Enforced` on its route.
#[derive(Clone, Copy, Debug)]
pub struct Form<T>(pub T);

impl<T> Sealed for Form<T> {}

impl<S: Sync, T: DeserializeOwned + JsonSchema + Send> Arg<S> for Form<T> {
    type Body = TheBody;
    type Proof = Nothing;

    fn describe(description: &mut Description) {
        description.body::<T>(Media::Form, Presence::Required);
    }

    async fn take(incoming: &mut Incoming, _: &S) -> Result<Self, Failure> {
        incoming.require_media(Media::Form)?;
        let bytes = incoming.read_body().await?;
        let pairs = text::pairs(Place::Form, &bytes)?;
        let read = text::read(Place::Form, pairs.clone()).map_err(Failure::from)?;
        incoming.bounds.check_pairs(Place::Form, &pairs)?;
        Ok(Form(read))
    }
}
