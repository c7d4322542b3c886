//! An application's own routes that are not in the table: known, so that they can be told of, and never called.

use std::sync::{Arc, OnceLock};

use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use http::request::Parts;
use tower::ServiceExt as _;

/// A plain router of which only the paths are used.
///
/// It is not merged with the declared routes: axum panics where two routers have a path in common, and a pattern of one
/// could hide a route of the other. Behind them it is asked only about what the declaration does not have.
///
/// Of a nested service axum tells only the prefix itself; deeper paths count as paths that nobody has. They are refused all
/// the same.
pub(super) struct Undeclared<S> {
    routes: axum::Router<S>,
    /// The same with a state, made at the first question. Which state is all the same: no handler ever sees it.
    asker: Arc<OnceLock<Asker>>,
}

/// By hand: a derive would ask `S: Clone` of a router that is cloneable without.
impl<S: Clone> Clone for Undeclared<S> {
    fn clone(&self) -> Self {
        Self { routes: self.routes.clone(), asker: Arc::clone(&self.asker) }
    }
}

/// Says which route a request would have met.
pub(super) type Asker = axum::Router;

impl<S: Clone + Send + Sync + 'static> Undeclared<S> {
    /// The routes of `app`, if it has any. The layer is the outermost one, so nothing of `app` runs behind it: no
    /// handler, no layer, no fallback.
    pub(super) fn of(app: axum::Router<S>) -> Option<Self> {
        app.has_routes().then(|| Self { routes: app.layer(from_fn(tell)), asker: Arc::default() })
    }

    pub(super) fn asker(&self, state: S) -> Asker {
        self.asker.get_or_init(|| self.routes.clone().with_state(state)).clone()
    }
}

/// What a matched route answers instead of itself.
#[derive(Clone)]
struct Told(MatchedPath);

async fn tell(request: Request, _: Next) -> Response {
    let mut response = Response::new(Body::empty());
    if let Some(path) = request.extensions().get::<MatchedPath>() {
        response.extensions_mut().insert(Told(path.clone()));
    }
    response
}

/// The template of the undeclared route that `parts` asks for, if there is one.
pub(super) async fn ask(asker: Option<Asker>, parts: &Parts) -> Option<String> {
    let mut parts = parts.clone();
    // Set by a router around this one, it would be taken for our own answer.
    parts.extensions.remove::<MatchedPath>();
    let response = asker?.oneshot(Request::from_parts(parts, Body::empty())).await.ok()?;
    response.extensions().get::<Told>().map(|Told(path)| path.as_str().to_owned())
}
