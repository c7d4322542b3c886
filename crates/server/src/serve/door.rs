//! A door: one listening socket, its bounds, and the application behind it.
//!
//! What it promises: a client that sends nothing, or sends slowly, is let go after [`Bounds::header_timeout`], one whose
//! socket takes nothing after [`Bounds::write_timeout`]; no client can hold more than its share of connections; when told
//! to stop, it accepts nobody new and lets those inside finish. What it does not do: decide who may do what, which is the
//! application's matter.
//! *Caveats:* behind a proxy all clients share the proxy's address, so trusted proxies are exempt from the share. An
//! HTTP/2 client that answers pings may leave answers untaken by its flow control, at most 128 a connection.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bartizan_core::error::Code;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use ipnet::IpNet;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tower::Service as _;

use super::patience::Patient;
use super::sniff::{self, Version};
use super::tls::Tls;
use super::unread::{Replacing, Unread};
use crate::config::Config;
use crate::exit::{Exit, Stop};
use crate::wiring::{Answering, Application, Peer};

/// What a connection may take.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Time for the first bytes, and for each request's head.
    pub header_timeout: Duration,
    /// Time for the client to take at least something of an answer that waits.
    pub write_timeout: Duration,
    /// Time for the TLS handshake.
    pub handshake_timeout: Duration,
    /// Bytes of a request's head.
    pub max_header: usize,
    /// Connections at once.
    pub connections: usize,
    /// Connections at once from one address.
    pub per_address: usize,
    /// Whose connections are not counted by address.
    pub exempt: Vec<IpNet>,
}

impl Bounds {
    /// The bounds that the configuration states.
    pub fn of(config: &Config) -> Self {
        let keys = &config.keys;
        Self {
            header_timeout: keys.server.header_timeout.0,
            write_timeout: keys.server.write_timeout.0,
            handshake_timeout: keys.tls.handshake_timeout.0,
            max_header: usize::try_from(keys.server.max_header.0).unwrap_or(usize::MAX),
            connections: keys.server.max_connections.usize().min(Semaphore::MAX_PERMITS),
            per_address: keys.server.connections_per_address.usize(),
            exempt: keys.proxies.trusted.0.clone(),
        }
    }
}

/// Binds `address`, or says which key to change.
pub async fn bind(address: SocketAddr, key: &str, flag: &str) -> Result<TcpListener, Stop> {
    // Tokio sets SO_REUSEADDR on Unix, so that a restart does not wait for old connections to fade.
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => {
            Stop::new(Exit::InUse, format!("port {} is in use: choose another with {flag} or `{key}`", address.port()))
        }
        io::ErrorKind::PermissionDenied => {
            Stop::new(Exit::Failed, format!("this user may not listen on port {}", address.port()))
                .hint(format!("Choose a port above 1023 with {flag} or `{key}`, or grant CAP_NET_BIND_SERVICE."))
        }
        io::ErrorKind::AddrNotAvailable => {
            Stop::new(Exit::Failed, format!("this machine has no address {}", address.ip()))
                .hint(format!("Choose another with {flag} or `{key}`."))
        }
        _ => Stop::new(Exit::Failed, format!("cannot listen on {address} (`{key}`): {error}")),
    })
}

/// What answers the requests that come in by a door.
#[derive(Clone)]
pub struct App(Arc<dyn Fn(Request<Body>, SocketAddr) -> Answering + Send + Sync>);

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("App")
    }
}

impl From<Application> for App {
    fn from(application: Application) -> Self {
        Self(Arc::new(move |request, peer| application.answer(request, peer)))
    }
}

impl From<Router> for App {
    fn from(router: Router) -> Self {
        // With its state given, every handler is made into a route once and not again for each request.
        let router = router.with_state(());
        Self(Arc::new(move |mut request, peer| {
            request.extensions_mut().insert(Peer(peer));
            let answering = router.clone().call(request);
            Box::pin(async move { answering.await.unwrap_or_else(|never| match never {}) })
        }))
    }
}

/// One listening socket and what is behind it.
#[derive(Debug)]
pub struct Door {
    /// What it is called in the log.
    pub name: &'static str,
    /// Where it listens.
    pub listener: TcpListener,
    /// With TLS, or without.
    pub tls: Option<Tls>,
    /// The application.
    pub app: App,
    /// Its answer to what is no request.
    pub unread: Unread,
    /// Its bounds.
    pub bounds: Bounds,
}

/// What every connection of a door shares.
struct Shared {
    tls: Option<Tls>,
    app: App,
    unread: Unread,
    bounds: Bounds,
    stop: watch::Receiver<bool>,
}

impl Door {
    /// Serves until `stop` says true, then waits at most `drain` for requests in flight. Returns how many connections
    /// had to be cut.
    pub async fn serve(self, mut stop: watch::Receiver<bool>, drain: Duration) -> usize {
        let total = self.bounds.connections;
        let places = Arc::new(Semaphore::new(total));
        let shares = Arc::new(Shares { by_address: Mutex::default(), most: self.bounds.per_address });
        let (tls, app, unread, bounds) = (self.tls, self.app, self.unread, self.bounds);
        let shared = Arc::new(Shared { tls, app, unread, bounds, stop: stop.clone() });
        loop {
            let accepted = tokio::select! {
                biased;
                () = told(&mut stop) => break,
                accepted = accept(&self.listener, &places) => accepted,
            };
            let (stream, peer, place) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Usually out of file descriptors: accepting again at once would spin without helping.
                    tracing::warn!(door = self.name, %error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Some(share) = shares.take(peer.ip(), &shared.bounds.exempt) else {
                tracing::debug!(door = self.name, %peer, "connection refused: its address has its share");
                continue;
            };
            let shared = shared.clone();
            tokio::spawn(async move {
                greet(stream, peer, &shared).await;
                drop((share, place));
            });
        }
        drop(self.listener);
        // Every place back means that nobody is inside.
        let all = u32::try_from(total).unwrap_or(u32::MAX);
        let empty = timeout(drain, places.acquire_many(all)).await.is_ok();
        if empty { 0 } else { total.saturating_sub(places.available_permits()) }
    }
}

/// Waits until `stop` says true; its sender going away means the same.
async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    // The place comes first: whom we cannot serve waits in the kernel's queue and costs us nothing.
    let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, place))
}

/// How many connections each address holds.
struct Shares {
    by_address: Mutex<HashMap<IpAddr, usize>>,
    most: usize,
}

/// Who is counted: an IPv4 address, or an IPv6 /64, which is what one customer has at least.
fn holder(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
        v4 => v4,
    }
}

/// One connection's share; given back when dropped.
struct Share(Option<(Arc<Shares>, IpAddr)>);

impl Shares {
    fn take(self: &Arc<Self>, address: IpAddr, exempt: &[IpNet]) -> Option<Share> {
        let address = address.to_canonical();
        if exempt.iter().any(|network| network.contains(&address)) {
            return Some(Share(None));
        }
        let address = holder(address);
        let mut held = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(address).or_default();
        if *count >= self.most {
            return None;
        }
        *count = count.saturating_add(1);
        Some(Share(Some((self.clone(), address))))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let Some((shares, address)) = &self.0 else { return };
        let mut held = shares.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                held.remove(address);
            }
        }
    }
}

/// Finds out what the client speaks, and serves it. Errors here are the client's: they are not worth a log line.
async fn greet(stream: TcpStream, peer: SocketAddr, shared: &Shared) {
    // Answers are small and complete: waiting to fill a packet only adds delay.
    let _ = stream.set_nodelay(true);
    // Who has not asked for anything yet is not waited for when the door closes.
    let mut stop = shared.stop.clone();
    let Some(tls) = &shared.tls else {
        let sniffed = tokio::select! {
            sniffed = timeout(shared.bounds.header_timeout, sniff::version(Patient::new(stream, shared.bounds.write_timeout))) => sniffed,
            () = told(&mut stop) => return,
        };
        if let Ok(Ok((version, stream))) = sniffed {
            converse(stream, version, peer, shared).await;
        }
        return;
    };
    let handshake = async {
        let mut first = [0u8; 1];
        stream.peek(&mut first).await?;
        // 22 opens every TLS handshake (RFC 8446 section 5.1).
        if first != [22] {
            return turn_away(stream, &shared.unread).await.map(|()| None);
        }
        let stream = Patient::new(stream, shared.bounds.write_timeout);
        TlsAcceptor::from(tls.config()).accept(stream).await.map(Some)
    };
    let shaken = tokio::select! {
        shaken = timeout(shared.bounds.handshake_timeout, handshake) => shaken,
        () = told(&mut stop) => return,
    };
    match shaken {
        Ok(Ok(Some(stream))) => {
            let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let version = if h2 { Version::Http2 } else { Version::Http1 };
            converse(stream, version, peer, shared).await;
        }
        Ok(Ok(None)) => {}
        Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
        Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
    }
}

/// Tells a client without TLS that it has come to the wrong door. No redirect: a credential may have travelled openly
/// already, and a client that follows would never notice.
async fn turn_away(mut stream: TcpStream, unread: &Unread) -> io::Result<()> {
    stream.write_all(&unread.last_message(Code::Malformed, None)).await?;
    stream.shutdown().await
}

/// How many times as large as allowed a head may be in HTTP/2 and still be read, to be refused like everything else.
const HTTP2_HEAD: usize = 4;

/// The size of a head as RFC 9113 section 6.5.2 counts it: each field with 32 bytes more than its name and value.
fn head_size<B>(request: &Request<B>) -> usize {
    let size = |name: &str, value: usize| name.len() + value + 32;
    let path = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    let fields = request.headers().iter().map(|(name, value)| size(name.as_str(), value.len()));
    fields.sum::<usize>() + size(":path", path)
}

async fn converse<S>(stream: S, version: Version, peer: SocketAddr, shared: &Shared)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (bounds, mut stop) = (&shared.bounds, shared.stop.clone());
    let (app, unread, max_header) = (shared.app.clone(), shared.unread.clone(), bounds.max_header);
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        // HTTP/1 was measured as it was read.
        let answering = if version == Version::Http2 && head_size(&request) > max_header {
            let refused = unread.answer(Code::HeadTooLarge).map(Body::from);
            Box::pin(std::future::ready(refused)) as Answering
        } else {
            (app.0)(request.map(Body::new), peer)
        };
        async move { Ok::<_, Infallible>(answering.await) }
    });
    let outcome = match version {
        Version::Http1 => {
            let io = TokioIo::new(Replacing::new(stream, shared.unread.clone()));
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(bounds.header_timeout).half_close(false).writev(false);
            // The buffer bounds a head that never ends, the other figure one that does.
            http.max_header_size(bounds.max_header).max_buf_size(bounds.max_header.max(65_536));
            let mut connection = std::pin::pin!(http.serve_connection(io, service));
            tokio::select! {
                outcome = connection.as_mut() => outcome,
                () = told(&mut stop) => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        }
        Version::Http2 => {
            let io = TokioIo::new(stream);
            let mut http = http2::Builder::new(TokioExecutor::new());
            http.timer(TokioTimer::new()).max_concurrent_streams(128);
            // Beyond this the implementation answers by itself, bare; up to it we do.
            http.max_header_list_size(u32::try_from(bounds.max_header.saturating_mul(HTTP2_HEAD)).unwrap_or(u32::MAX));
            // A peer that does not answer a ping is gone, or pretends to be.
            http.keep_alive_interval(bounds.header_timeout).keep_alive_timeout(bounds.header_timeout);
            let mut connection = std::pin::pin!(http.serve_connection(io, service));
            tokio::select! {
                outcome = connection.as_mut() => outcome,
                () = told(&mut stop) => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%peer, %error, "connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_network_counts_as_one_client_and_a_mapped_address_as_the_ipv4_it_is() {
        let shares = Arc::new(Shares { by_address: Mutex::default(), most: 1 });
        let take = |address: &str, exempt: &[IpNet]| shares.take(address.parse().unwrap(), exempt);
        let _first = take("2001:db8::1", &[]).unwrap();
        assert!(take("2001:db8::ffff:1", &[]).is_none());
        assert!(take("2001:db8:0:1::1", &[]).is_some());
        let _mapped = take("::ffff:192.0.2.1", &[]).unwrap();
        assert!(take("192.0.2.1", &[]).is_none());
        assert!(take("192.0.2.1", &["192.0.2.0/24".parse().unwrap()]).is_some());
    }
}
