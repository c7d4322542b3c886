//! The whole layer stack, outermost first, in one function: what happens to every request, whatever it asks for.

use std::convert::Infallible;
use std::future::{poll_fn, ready};
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::response::Response;
use bartizan_core::browser::{Cache, CorsPolicy, ResponseClass, SecurityHeaders};
use bartizan_core::error::Code;
use bartizan_core::id::{IdText, RequestId};
use bartizan_core::net::Proxies;
use futures_util::FutureExt;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use tower::{Layer, Service};

use crate::answer::{self, REQUEST_ID};
use crate::clock::Clock;
use crate::entropy::random;
use crate::ground::count;
use crate::metrics::{Metrics, RouteMetrics};

/// The other end of the connection. The listener puts it into every request's extensions; axum's own way of saying it,
/// `into_make_service_with_connect_info::<SocketAddr>()`, does as well.
///
/// Without either, all requests count as coming from one address and share its limits: too tight, never open.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// Who sends a request and how it is called: established by the front, believed by the guard.
#[derive(Clone, Copy, Debug)]
pub struct Visitor {
    /// The request.
    pub request: RequestId,
    /// The client's address, as established through the configured proxies; `None` where the listener does not say.
    pub ip: Option<IpAddr>,
}

impl Visitor {
    /// The one that the front noted in a request on its way through an axum router. Without the front it is nobody, whose
    /// request has the nil id: wrong, but harmless.
    pub(crate) fn noted(extensions: &Extensions) -> Self {
        let nobody = Self { request: RequestId::from_u128(0), ip: None };
        extensions.get::<Visitor>().copied().unwrap_or(nobody)
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

    /// The answer to what the listener cannot read as a request.
    pub(crate) fn unread(&self, code: Code) -> http::Response<Vec<u8>> {
        let Inner { clock, ids, metrics, .. } = &*self.0;
        let id = ids.next(clock);
        count(&metrics.refused, "code", code.as_str());
        self.finish(answer::problem(code.into(), id), id, None)
    }

    /// An answer that was made without the front, with what every answer carries.
    pub(crate) fn marked(&self, response: Response) -> Response {
        self.finish(response, self.0.ids.next(&self.0.clock), None)
    }

    /// Security headers by kind of answer, and the request id.
    fn finish<B>(&self, mut response: http::Response<B>, id: RequestId, cache: Option<Cache>) -> http::Response<B> {
        let class = match response.status() {
            status if status.is_client_error() || status.is_server_error() => ResponseClass::Error,
            status if status.is_redirection() => ResponseClass::Redirect,
            _ => ResponseClass::ApiJson,
        };
        let cache = cache.or_else(|| response.extensions().get::<Cache>().copied()).unwrap_or_default();
        self.0.headers.apply(class, cache, response.headers_mut());
        if let Ok(value) = HeaderValue::from_str(id.write(&mut IdText::default())) {
            response.headers_mut().insert(REQUEST_ID, value);
        }
        response
    }

    /// The front before the routes that `routes` counts.
    pub(crate) fn before(&self, routes: RouteMetrics) -> Stack {
        Stack { front: self.clone(), routes: Arc::new(routes), row: None, cache: None }
    }
}

/// The front before a route, or before a service with routes of its own.
#[derive(Clone, Debug)]
pub(crate) struct Stack {
    front: Front,
    routes: Arc<RouteMetrics>,
    /// The place of the route in its table; `None` for what matched none.
    row: Option<usize>,
    /// Who may keep a success; `None` where the answer says so itself.
    cache: Option<Cache>,
}

/// A request that the front has let in.
#[derive(Debug)]
pub(crate) struct Entered {
    began: Instant,
    pub(crate) visitor: Visitor,
    deadline: Duration,
    /// The headers of a request to which CORS may apply.
    asking: Option<Box<HeaderMap>>,
}

impl Stack {
    /// As before, for the route at `row`.
    pub(crate) fn at(&self, row: usize, cache: Option<Cache>) -> Self {
        Self { row: Some(row), cache, ..self.clone() }
    }

    /// What is done before anybody is asked who he is. `peer` is the other end of the connection. `Err` is the answer.
    pub(crate) fn enter(&self, request: &Request, peer: Option<IpAddr>) -> Result<Entered, Box<Response>> {
        let Inner { clock, ids, reloadable, .. } = &*self.front.0;
        let began = Instant::now();
        let reloadable = reloadable.load();

        // The request id comes first, so that whatever goes wrong below can be found again.
        let id = ids.next(clock);

        // With two Hosts, or none where HTTP/1.1 demands one, a proxy and we could disagree about whom the request is for
        // (RFC 9112 section 3.2).
        let hosts = request.headers().get_all(header::HOST).iter().take(2).count();
        if hosts > 1 || hosts == 0 && request.version() == Version::HTTP_11 {
            return Err(Box::new(self.front.finish(answer::refuse(Code::HeaderInvalid.into(), id), id, None)));
        }

        // The client's address, before anybody counts by it.
        let ip = peer.map(|peer| {
            let forwarded = request.headers().get_all(FORWARDED_FOR).iter().map(HeaderValue::as_bytes);
            reloadable.proxies.client(peer, forwarded)
        });

        // Preflights carry no credential and ask about rules, not data: answered before the guard.
        let asking = (!reloadable.cors.origins().is_empty()).then(|| Box::new(request.headers().clone()));
        if let Some(preflight) = reloadable.cors.preflight(request.method(), request.headers(), METHODS) {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            response.headers_mut().extend(preflight);
            return Err(Box::new(self.front.finish(response, id, None)));
        }
        Ok(Entered { began, visitor: Visitor { request: id, ip }, deadline: reloadable.deadline, asking })
    }

    /// Waits for the answer, and does what every answer needs.
    ///
    /// `answering` comes pinned: a future that is handed on is copied with all it holds, and this one holds much.
    pub(crate) async fn leave<F>(&self, entered: Entered, answering: Pin<&mut F>) -> Response
    where
        F: Future<Output = Response>,
    {
        let metrics = &self.front.0.metrics;
        let Entered { began, visitor: Visitor { request: id, .. }, deadline, asking } = entered;

        // The deadline stands around everything that waits: body, database, hashing queue. What it cuts off is dropped, and
        // with it an open transaction. A panic ends its request and nothing else.
        let answering = AssertUnwindSafe(answering).catch_unwind();
        let mut response = match within(deadline, answering).await {
            Some(Ok(response)) => response,
            Some(Err(_)) => {
                metrics.panics.inc();
                tracing::error!(request = %id, route = self.row.and_then(|row| self.routes.name(row)), "a handler panicked");
                answer::refuse(Code::Internal.into(), id)
            }
            None => answer::refuse(Code::BodyTimeout.into(), id),
        };

        if let Some(asking) = asking {
            self.front.0.reloadable.load().cors.answer(&asking, response.headers_mut());
        }
        if response.status() == StatusCode::INTERNAL_SERVER_ERROR {
            metrics.faults.inc();
        }
        self.routes.answered(self.row, response.status().as_u16(), began.elapsed());

        // Last, so that no answer leaves without them.
        self.front.finish(response, id, self.cache)
    }
}

/// The outcome of `future`, unless it takes longer than `limit`. Most never wait, and cost no timer.
async fn within<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    let (mut future, mut end) = (pin!(future), None);
    poll_fn(|context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Some(output));
        }
        // Outside the task's budget: what uses it up each time would otherwise never be told that its time is over.
        let end = end.get_or_insert_with(|| Box::pin(tokio::task::unconstrained(tokio::time::sleep(limit))));
        end.as_mut().poll(context).map(|()| None)
    })
    .await
}

impl<I> Layer<I> for Stack {
    type Service = Stacked<I>;
    fn layer(&self, inner: I) -> Stacked<I> {
        Stacked { stack: self.clone(), inner }
    }
}

/// A service behind the stack.
#[derive(Clone, Debug)]
pub(crate) struct Stacked<I> {
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

    fn call(&mut self, mut request: Request) -> Self::Future {
        let stack = self.stack.clone();
        let entered = match stack.enter(&request, peer(&request)) {
            Ok(entered) => entered,
            Err(response) => return Box::pin(ready(Ok(*response))),
        };
        request.extensions_mut().insert(entered.visitor);
        // The one that was asked whether it is ready is the one to call.
        let fresh = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, fresh);
        Box::pin(async move {
            // Called inside, so that a panic of the service's own is caught like one of its handlers.
            let answering = pin!(async move {
                match inner.call(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                }
            });
            Ok(stack.leave(entered, answering).await)
        })
    }
}

/// Who is connected, as the listener says.
pub(crate) fn peer(request: &Request) -> Option<IpAddr> {
    let extensions = request.extensions();
    let said = extensions.get::<Peer>().map(|peer| peer.0);
    said.or_else(|| extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0)).map(|peer| peer.ip())
}

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The methods our routes use, for preflights.
const METHODS: &[Method] = &[Method::GET, Method::POST, Method::PATCH, Method::PUT, Method::DELETE];

impl RequestIds {
    fn next(&self, clock: &Clock) -> RequestId {
        let number = self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let [_, _, a, b, c, d, e, f] = number;
        let [p, q, r, s] = self.process;
        RequestId::new(clock.now(), [p, q, r, s, a, b, c, d, e, f])
    }
}
