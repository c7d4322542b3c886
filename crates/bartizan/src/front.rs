//! The whole layer stack, outermost first, in one function: what happens to every request, whatever it asks for.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use axum::body::Body;
use axum::extract::{ConnectInfo, MatchedPath, Request};
use axum::response::Response;
use bartizan_core::browser::{Cache, CorsPolicy, ResponseClass, SecurityHeaders};
use bartizan_core::error::Code;
use bartizan_core::id::{IdText, RequestId};
use bartizan_core::net::Proxies;
use futures_util::FutureExt;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, StatusCode, Version, header};
use tower::{Layer, Service};

use crate::answer::{self, REQUEST_ID};
use crate::api::RowIndex;
use crate::clock::Clock;
use crate::entropy::random;
use crate::metrics::{Metrics, RouteMetrics};

/// The other end of the connection. The listener puts it into every request's extensions; axum's own way of saying it,
/// `into_make_service_with_connect_info::<SocketAddr>()`, does as well.
///
/// Without either, all requests count as coming from one address and share its limits: too tight, never open.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// Who sends a request and how it is called: established by the front, believed by the guard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Visitor {
    pub(crate) request: RequestId,
    /// `None` where the listener does not say.
    pub(crate) ip: Option<IpAddr>,
}

impl Visitor {
    pub(crate) fn of(parts: &Parts) -> Self {
        let nobody = Self { request: RequestId::from_u128(0), ip: None };
        parts.extensions.get::<Visitor>().copied().unwrap_or(nobody)
    }
}

/// What can change while the server runs.
#[derive(Debug)]
pub(crate) struct Reloadable {
    pub(crate) proxies: Proxies,
    pub(crate) cors: CorsPolicy,
    pub(crate) deadline: Duration,
}

/// The front. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Front(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    ids: RequestIds,
    headers: SecurityHeaders,
    reloadable: Arc<ArcSwap<Reloadable>>,
    metrics: Arc<Metrics>,
}

/// Request ids: the time, eight bytes that name this process, a counter. Unique without a random draw for each.
#[derive(Debug)]
struct RequestIds {
    process: [u8; 4],
    next: AtomicU64,
}

impl Front {
    pub(crate) fn new(
        clock: Clock,
        headers: SecurityHeaders,
        reloadable: Arc<ArcSwap<Reloadable>>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, crate::api::Failure> {
        let ids = RequestIds { process: random()?, next: AtomicU64::new(0) };
        Ok(Self(Arc::new(Inner { clock, ids, headers, reloadable, metrics })))
    }

    /// Puts `router`, whose table `routes` counts, behind the stack.
    pub(crate) fn layer<S: Clone + Send + Sync + 'static>(
        &self,
        router: axum::Router<S>,
        routes: RouteMetrics,
    ) -> axum::Router<S> {
        let stack = Stack { front: self.clone(), routes: Arc::new(routes) };
        router.layer(stack)
    }
}

/// The front before one router.
#[derive(Clone)]
struct Stack {
    front: Front,
    routes: Arc<RouteMetrics>,
}

impl<I> Layer<I> for Stack {
    type Service = Stacked<I>;
    fn layer(&self, inner: I) -> Stacked<I> {
        Stacked { stack: self.clone(), inner }
    }
}

/// A service behind the stack.
#[derive(Clone)]
struct Stacked<I> {
    stack: Stack,
    inner: I,
}

impl<I> Service<Request> for Stacked<I>
where
    I: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    I::Future: Send,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        // The one that was asked whether it is ready is the one to call.
        let fresh = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, fresh);
        Box::pin(pass(self.stack.clone(), request, inner))
    }
}

/// The stack.
async fn pass<I>(Stack { front, routes }: Stack, mut request: Request, mut inner: I) -> Result<Response, Infallible>
where
    I: Service<Request, Response = Response, Error = Infallible>,
{
    let Inner { clock, ids, headers, reloadable, metrics } = &*front.0;
    let began = Instant::now();
    let reloadable = reloadable.load();

    // The request id comes first, so that whatever goes wrong below can be found again.
    let id = ids.next(clock);

    // With two Hosts, or none where HTTP/1.1 demands one, a proxy and we could disagree about whom the request is for
    // (RFC 9112 section 3.2).
    let hosts = request.headers().get_all(header::HOST).iter().take(2).count();
    if hosts > 1 || hosts == 0 && request.version() == Version::HTTP_11 {
        return Ok(finish(answer::refuse(Code::HeaderInvalid.into(), id), headers, id));
    }

    // The client's address, before anybody counts by it.
    let ip = peer(&request).map(|peer| {
        let forwarded = request.headers().get_all(FORWARDED_FOR).iter().map(HeaderValue::as_bytes);
        reloadable.proxies.client(peer, forwarded)
    });
    request.extensions_mut().insert(Visitor { request: id, ip });
    request.extensions_mut().insert(answer::Request(id));

    // Preflights carry no credential and ask about rules, not data: answered before the guard.
    let asking = (!reloadable.cors.origins().is_empty()).then(|| request.headers().clone());
    if let Some(preflight) = reloadable.cors.preflight(request.method(), request.headers(), METHODS) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        response.headers_mut().extend(preflight);
        return Ok(finish(response, headers, id));
    }

    // The deadline stands around everything that waits: body, database, hashing queue. What it cuts off is dropped, and
    // with it an open transaction. A panic ends its request and nothing else.
    let way = (request.method().clone(), request.extensions().get::<MatchedPath>().cloned());
    let answering = AssertUnwindSafe(async move { inner.call(request).await }).catch_unwind();
    let mut response = match tokio::time::timeout(reloadable.deadline, answering).await {
        Ok(Ok(Ok(response))) => response,
        Ok(Ok(Err(never))) => match never {},
        Ok(Err(_)) => {
            metrics.panics.inc();
            let (method, route) = (&way.0, way.1.as_ref().map(MatchedPath::as_str));
            tracing::error!(request = %id, %method, route, "a handler panicked");
            cut_off(Code::Internal, id, &way, &routes)
        }
        Err(_) => cut_off(Code::BodyTimeout, id, &way, &routes),
    };

    if let Some(asking) = asking {
        reloadable.cors.answer(&asking, response.headers_mut());
    }
    if response.status() == StatusCode::INTERNAL_SERVER_ERROR {
        metrics.faults.inc();
    }
    let row = response.extensions().get::<RowIndex>().map(|row| row.0);
    routes.answered(row, response.status().as_u16(), began.elapsed());

    // Last, so that no answer leaves without them.
    Ok(finish(response, headers, id))
}

/// The answer to a request that did not come to its own, put down to the row it was on its way to.
fn cut_off(
    code: Code,
    id: RequestId,
    (method, path): &(Method, Option<MatchedPath>),
    routes: &RouteMetrics,
) -> Response {
    let mut response = answer::refuse(code.into(), id);
    if let Some(row) = path.as_ref().and_then(|path| routes.find(method, path.as_str())) {
        response.extensions_mut().insert(RowIndex(row));
    }
    response
}

/// Who is connected, as the listener says.
fn peer(request: &Request) -> Option<IpAddr> {
    let extensions = request.extensions();
    let said = extensions.get::<Peer>().map(|peer| peer.0);
    said.or_else(|| extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0)).map(|peer| peer.ip())
}

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The methods our routes use, for preflights.
const METHODS: &[Method] = &[Method::GET, Method::POST, Method::PATCH, Method::PUT, Method::DELETE];

/// Security headers by kind of answer, and the request id.
fn finish(mut response: Response, headers: &SecurityHeaders, id: RequestId) -> Response {
    let class = match response.status() {
        status if status.is_client_error() || status.is_server_error() => ResponseClass::Error,
        status if status.is_redirection() => ResponseClass::Redirect,
        _ => ResponseClass::ApiJson,
    };
    let cache = response.extensions().get::<Cache>().copied().unwrap_or_default();
    headers.apply(class, cache, response.headers_mut());
    if let Ok(value) = HeaderValue::from_str(id.write(&mut IdText::default())) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

impl RequestIds {
    fn next(&self, clock: &Clock) -> RequestId {
        let number = self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let [_, _, a, b, c, d, e, f] = number;
        let [p, q, r, s] = self.process;
        RequestId::new(clock.now(), [p, q, r, s, a, b, c, d, e, f])
    }
}
