//! The public application as a listener calls it.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use tower::Service as _;

use crate::api::Shortcuts;
use crate::front::Peer;

/// A request on its way to its answer.
pub type Answering = Pin<Box<dyn Future<Output = Response> + Send>>;

/// Every declared route behind front and guard, for a listener that calls it itself. Cheap to clone.
///
/// It is the same as [`Engine::router`](crate::engine::Engine::router) and faster: routes without parameters are found by
/// one look-up, and who is connected is said as an argument.
#[derive(Clone, Debug)]
pub struct Application {
    shortcuts: Arc<Shortcuts<()>>,
    router: axum::Router,
}

impl Application {
    pub(crate) fn new(shortcuts: Shortcuts<()>, router: axum::Router) -> Self {
        // With its state given, every handler is made into a route once and not again for each request.
        Self { shortcuts: Arc::new(shortcuts), router: router.with_state(()) }
    }

    /// Answers a request from `peer`, the other end of the connection.
    pub fn answer(&self, mut request: Request, peer: SocketAddr) -> Answering {
        if let Some(arrive) = self.shortcuts.find(request.method(), request.uri().path()) {
            return arrive(request, (), Some(peer.ip()));
        }
        request.extensions_mut().insert(Peer(peer));
        let mut router = self.router.clone();
        Box::pin(async move {
            match router.call(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        })
    }

    pub(crate) fn router(&self) -> axum::Router {
        self.router.clone()
    }
}
