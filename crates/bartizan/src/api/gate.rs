//! Who decides: the seam between the route table and the guard.

use std::future::Future;

use axum::response::Response;
use http::HeaderMap;
use http::request::Parts;

use super::row::Row;
use crate::front::Visitor;
use crate::guard::Admission;

/// Decides about every request before the first byte of its body is read.
///
/// The engine's guard is the one implementation that can admit anybody: an [`Admission`] holds a grant, and only this
/// crate makes grants.
pub trait Gate: Clone + Send + Sync + 'static {
    /// Decides about a request for a declared route. What is refused is answered with the response as it is.
    fn admit(
        &self,
        row: &Row,
        visitor: &Visitor,
        parts: &mut Parts,
    ) -> impl Future<Output = Result<Admission, Response>> + Send;

    /// Decides about a request for nothing that is declared: probing for paths must cost the prober something. `Ok`
    /// carries headers for the 404 or 405 that follows.
    fn stray(&self, parts: &mut Parts) -> impl Future<Output = Result<HeaderMap, Response>> + Send;

    /// Notes that a request met a route of the application's own router, `template`, that its `Api` does not declare. It
    /// is answered with 404 whatever this does.
    fn undeclared(&self, parts: &Parts, template: &str) {
        tracing::warn!(method = %parts.method, route = template, "a route that is not declared was asked for");
    }
}
