//! A plain axum router behind the gate: the exception that costs a sentence.

use std::any::TypeId;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequestParts, Request};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use bartizan_core::action::Action;
use bartizan_core::browser;
use bartizan_core::error::Code;
use http::request::Parts;
use http_body_util::Limited;

use super::failure;
use super::gate::Gate;
use super::incoming::{announced_length, limit, too_large};
use super::mount::{close, merge_headers};

use super::row::Row;
use crate::answer;
use crate::front::Visitor;
use crate::guard::{Grant, Permit};

/// The grant on its way through somebody else's router. Taken out once, for the stated action only.
#[derive(Clone)]
struct Admitted {
    grant: Grant,
    action: Option<TypeId>,
}

/// Puts the gate before everything in `router`, its own fallback included.
pub(super) fn guarded<S, G>(router: axum::Router<S>, row: Arc<Row>, gate: G) -> axum::Router<S>
where
    S: Clone + Send + Sync + 'static,
    G: Gate,
{
    router.layer(from_fn(move |request: Request, next: Next| {
        let (row, gate) = (Arc::clone(&row), gate.clone());
        async move { pass(request, next, &row, gate).await }
    }))
}

async fn pass<G: Gate>(request: Request, next: Next, row: &Row, gate: G) -> Response {
    let (mut parts, body) = request.into_parts();
    let visitor = Visitor::noted(&parts.extensions);
    let id = visitor.request;
    let admission = match gate.admit(row, &visitor, &mut parts).await {
        Ok(admission) => admission,
        Err(refused) => return marked(close(refused), row),
    };
    if announced_length(&parts.headers, &body) > limit(row) {
        let mut response = close(failure::answer(too_large(row), id, &row.path));
        merge_headers(&mut response, admission.headers);
        return marked(response, row);
    }
    parts.extensions.insert(Admitted { grant: admission.grant, action: row.action });
    let body = Body::new(Limited::new(body, limit(row)));
    let mut response = next.run(Request::from_parts(parts, body)).await;
    merge_headers(&mut response, admission.headers);
    // Where the router of a public row says itself who may keep its answer, the row does not widen it; an answer for one
    // user is never shared.
    let headers = response.headers_mut();
    if row.action.is_none() && headers.contains_key(http::header::CACHE_CONTROL) {
        return response;
    }
    headers.insert(http::header::CACHE_CONTROL, row.cache.control());
    marked(response, row)
}

/// Tells the front who may keep the answer.
fn marked(mut response: Response, row: &Row) -> Response {
    response.extensions_mut().insert(browser::Cache::from(row.cache));
    response
}

/// In an adopted router a permit is an ordinary extractor. Where the gate did not run, or let the request in for another
/// action, it answers 500: that is a mistake in the wiring, and nobody gets in by it.
impl<S: Sync, A: Action> FromRequestParts<S> for Permit<A> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        match parts.extensions.remove::<Admitted>() {
            Some(Admitted { grant, action }) if action == Some(TypeId::of::<A>()) => Ok(Permit::new(grant)),
            found => {
                let id = Visitor::noted(&parts.extensions).request;
                let cause = if found.is_some() { "it was let in for another action" } else { "the gate did not run" };
                tracing::error!(request = %id, action = A::NAME, cause, "permit asked for where there is none");
                Err(answer::refuse(Code::Internal.into(), id))
            }
        }
    }
}
