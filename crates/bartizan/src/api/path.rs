//! Path parameters.

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{FromRequestParts, RawPathParams};
use bartizan_core::error::Code;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::argument::{Arg, Nothing};
use super::call::Sealed;
use super::failure::Failure;
use super::incoming::Incoming;
use super::schema::Description;
use super::text::{self, Pairs, Place};

/// The `{parameters}` of the path: a struct with one field for each, or, where there is one parameter, its type alone.
///
/// A parameter that does not parse is 404, the same as one that names nothing: nobody learns which ids are well formed.
#[derive(Clone, Copy, Debug)]
pub struct Path<T>(pub T);

impl<T> Sealed for Path<T> {}

impl<S: Sync, T: DeserializeOwned + JsonSchema + Send> Arg<S> for Path<T> {
    type Body = Nothing;
    type Proof = Nothing;

    fn describe(description: &mut Description) {
        description.path::<T>();
    }

    async fn take(incoming: &mut Incoming, _: &S) -> Result<Self, Failure> {
        let found = match RawPathParams::from_request_parts(&mut incoming.parts, &()).await {
            Ok(found) => found,
            Err(RawPathParamsRejection::InvalidUtf8InPathParam(_)) => return Err(Code::EncodingInvalid.into()),
            Err(other) => return Err(Failure::fault(other)),
        };
        let pairs: Pairs = found.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        incoming.bounds.check_pairs(Place::Path, &pairs).map_err(|_| Failure::from(Code::NotFound))?;
        text::read(Place::Path, pairs).map(Path).map_err(|_| Code::NotFound.into())
    }
}
