//! Nodes are replaced under clients that keep one HTTP/2 connection and have several requests on it at once: in the clear,
//! where they begin with HTTP/2 unasked, and through TLS, where both agree on it.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex, RwLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bartizan_testkit::{DEADLINE, Fleet, FleetPlan};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsConnector;

use crate::fleet;

/// Requests at once on one connection.
const AT_ONCE: usize = 8;
/// The number in a GOAWAY that only announces another one (RFC 9113 section 6.8).
const LAST_POSSIBLE: u32 = 0x7fff_ffff;

/// What was seen on a connection.
#[derive(Debug, Default)]
struct Seen {
    /// Streams on which a request went up.
    asked: BTreeSet<u32>,
    /// Each GOAWAY that came down: the last stream that is answered, and the error code.
    goaways: Vec<(u32, u32)>,
    /// The connection ended without the good-bye of TLS.
    torn: bool,
}

impl Seen {
    /// How many requests the server says it has not looked at: a client may ask them again.
    fn not_processed(&self) -> usize {
        let last = self.goaways.last().map_or(LAST_POSSIBLE, |(last, _)| *last);
        self.asked.iter().filter(|stream| **stream > last).count()
    }
}

/// Finds the frames in the bytes of one direction.
#[derive(Debug)]
struct Frames {
    skip: usize,
    head: Vec<u8>,
}

impl Frames {
    const GOAWAY: u8 = 7;
    const HEADERS: u8 = 1;

    const fn after(skip: usize) -> Self {
        Self { skip, head: Vec::new() }
    }

    fn feed(&mut self, bytes: &[u8], seen: &Mutex<Seen>) {
        for byte in bytes {
            if self.skip > 0 {
                self.skip -= 1;
                continue;
            }
            self.head.push(*byte);
            // Of a GOAWAY its first eight bytes are wanted too.
            let wanted = if self.head.get(3) == Some(&Self::GOAWAY) { 17 } else { 9 };
            if self.head.len() < wanted {
                continue;
            }
            let number = |at: usize| u32::from_be_bytes(self.head[at..at + 4].try_into().unwrap());
            let mut seen = seen.lock().unwrap();
            match self.head[3] {
                Self::GOAWAY => seen.goaways.push((number(9) & LAST_POSSIBLE, number(13))),
                Self::HEADERS => drop(seen.asked.insert(number(5) & LAST_POSSIBLE)),
                _ => {}
            }
            let length = usize::try_from(number(0) >> 8).unwrap();
            (self.skip, self.head) = (length - (wanted - 9), Vec::new());
        }
    }
}

/// A socket, in the clear or within TLS.
trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// How clients reach the nodes.
#[derive(Clone)]
enum Way {
    Clear,
    /// Trusting one certificate.
    Tls(Arc<rustls::ClientConfig>),
}

impl Way {
    /// Connects. Within TLS `protocol` must be agreed on.
    async fn to(&self, base: &str, protocol: &[u8]) -> Option<Box<dyn Socket>> {
        let address = base.split("://").last()?;
        let socket = TcpStream::connect(address).await.ok()?;
        let Self::Tls(config) = self else { return Some(Box::new(socket)) };
        let mut config = rustls::ClientConfig::clone(config);
        // As a browser does, which prefers HTTP/2.
        config.alpn_protocols = vec![protocol.to_vec(), b"http/1.1".to_vec()];
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, socket).await.ok()?;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol));
        Some(Box::new(stream))
    }
}

/// A socket whose frames are noted as they pass.
struct Noted {
    socket: Box<dyn Socket>,
    up: Frames,
    down: Frames,
    seen: Arc<Mutex<Seen>>,
}

impl AsyncRead for Noted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.socket).poll_read(cx, buf);
        // The answers are on the same streams as the questions.
        let Self { down, seen, .. } = &mut *self;
        if matches!(&polled, Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof) {
            seen.lock().unwrap().torn = true;
        }
        down.feed(&buf.filled()[before..], seen);
        polled
    }
}

impl AsyncWrite for Noted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.socket).poll_write(cx, buf);
        if let Poll::Ready(Ok(written)) = polled {
            let Self { up, seen, .. } = &mut *self;
            up.feed(&buf[..written], seen);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// One kept connection.
struct Kept {
    base: String,
    sender: SendRequest<Full<Bytes>>,
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

/// What became of a request.
enum Fate {
    Answered(u16),
    /// It never left.
    Unsent,
    /// It left, and there was no answer.
    Lost,
}

impl Kept {
    async fn to(base: &str, way: &Way) -> Option<Self> {
        let socket = way.to(base, b"h2").await?;
        let seen = Arc::new(Mutex::new(Seen::default()));
        // The preface of a client is no frame.
        let (up, down) = (Frames::after(24), Frames::after(0));
        let noted = Noted { socket, up, down, seen: Arc::clone(&seen) };
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(noted)).await.ok()?;
        let task = tokio::spawn(async move { drop(connection.await) });
        Some(Self { base: base.to_owned(), sender, seen, task })
    }

    /// One request, from its own task.
    fn ask(&self, access: &str) -> impl Future<Output = Fate> + Send + 'static {
        let request =
            Request::get(format!("{}/v1/whoami", self.base)).header("authorization", format!("Bearer {access}"));
        let mut sender = self.sender.clone();
        let answer = async move {
            if sender.ready().await.is_err() {
                return Fate::Unsent;
            }
            match sender.try_send_request(request.body(Full::default()).unwrap()).await {
                Ok(answer) => {
                    let status = answer.status().as_u16();
                    answer.into_body().collect().await.map_or(Fate::Lost, |_| Fate::Answered(status))
                }
                Err(mut error) => error.take_message().map_or(Fate::Lost, |_| Fate::Unsent),
            }
        };
        async { tokio::time::timeout(DEADLINE, answer).await.expect("an answer or none") }
    }

    /// Logs in; the access token.
    async fn login(&self, login: &Value) -> String {
        let request = Request::post(format!("{}/v1/login", self.base)).header("content-type", "application/json");
        let request = request.body(Full::from(login.to_string())).unwrap();
        let answer = self.sender.clone().send_request(request).await.unwrap();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap();
        body["access_token"].as_str().unwrap_or_else(|| panic!("{body}")).to_owned()
    }

    /// Waits until the server has closed the connection; what was seen on it.
    async fn ended(self) -> Seen {
        drop(self.sender);
        tokio::time::timeout(DEADLINE, self.task).await.expect("the connection ends").expect("its task");
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

/// Uses one connection as long as it is there, and then the next. How many requests were answered, were to be asked
/// again, and on how many connections the server said that it goes away.
async fn keep_asking(
    known: Arc<RwLock<Vec<String>>>,
    way: Way,
    access: String,
    stopped: watch::Receiver<bool>,
) -> [usize; 3] {
    let [mut answered, mut again, mut told] = [0; 3];
    for turn in 0.. {
        if *stopped.borrow() {
            break;
        }
        let base = {
            let all = known.read().unwrap();
            all[turn % all.len()].clone()
        };
        let Some(kept) = Kept::to(&base, &way).await else { continue };
        let mut lost = 0;
        while !kept.sender.is_closed() && !*stopped.borrow() {
            let mut unsent = 0;
            let mut batch = JoinSet::new();
            for _ in 0..AT_ONCE {
                batch.spawn(kept.ask(&access));
            }
            for fate in batch.join_all().await {
                match fate {
                    Fate::Answered(status) => {
                        assert_eq!(status, 200);
                        answered += 1;
                    }
                    Fate::Lost => lost += 1,
                    Fate::Unsent => unsent += 1,
                }
            }
            again += unsent;
            if unsent > 0 {
                break;
            }
        }
        if *stopped.borrow() {
            break;
        }
        let seen = kept.ended().await;
        assert!(seen.goaways.iter().any(|(last, code)| (*last, *code) == (LAST_POSSIBLE, 0)), "not warned: {seen:?}");
        assert!(seen.goaways.iter().all(|(_, code)| *code == 0) && !seen.torn, "{seen:?}");
        assert!(lost <= seen.not_processed(), "{lost} requests lost that the server had taken: {seen:?}");
        (again, told) = (again + lost, told + 1);
    }
    [answered, again, told]
}

fn addresses(fleet: &Fleet) -> Vec<String> {
    fleet.nodes.iter().map(|node| node.server.api.clone()).collect()
}

/// One HTTP/1.1 connection that is kept and says nothing after its first request; ends when the server closes it.
async fn silent(base: &str, way: &Way, access: &str) -> JoinHandle<()> {
    let socket = way.to(base, b"http/1.1").await.expect("a connection");
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await.unwrap();
    let task = tokio::spawn(async move { connection.await.expect("an end in good order") });
    let request = Request::get("/v1/whoami").header("host", "localhost");
    let request = request.header("authorization", format!("Bearer {access}")).body(Full::<Bytes>::default()).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    drop(answer.into_body().collect().await.unwrap());
    tokio::spawn(async move {
        // Whoever drops his end of it closes the connection.
        let _kept = sender;
        task.await.unwrap();
    })
}

async fn replaced_under_load(plan: FleetPlan, way: Way) {
    let mut fleet = plan.start(2).await;
    let login = json!({ "tenant": fleet.on(0).tenant, "email": fleet.on(0).email, "password": fleet.on(0).password });
    let access = Kept::to(&fleet.on(0).api, &way).await.expect("a connection").login(&login).await;
    let known = Arc::new(RwLock::new(addresses(&fleet)));
    let (stop, stopped) = watch::channel(false);
    let mut running = JoinSet::new();
    for _ in 0..4 {
        running.spawn(keep_asking(Arc::clone(&known), way.clone(), access.clone(), stopped.clone()));
    }
    for node in 0..2 {
        // Those who have a connection and say nothing hold nobody up.
        let quiet = Kept::to(&fleet.on(node).api, &way).await.expect("a connection");
        assert!(matches!(quiet.ask(&access).await, Fate::Answered(200)));
        let silent = silent(&fleet.on(node).api, &way, &access).await;
        let began = Instant::now();
        fleet.nodes[node].server.sigterm();
        let gone = fleet.on(node).api.clone();
        known.write().unwrap().retain(|base| *base != gone);
        assert_eq!(fleet.nodes[node].server.ended().await, Some(0), "{}", fleet.on(node).log());
        // `server.drain` is 20 s: after it whoever is left is cut off.
        assert!(began.elapsed() < Duration::from_secs(15), "it took {:?}", began.elapsed());
        assert!(!fleet.on(node).log().contains("were cut off"), "{}", fleet.on(node).log());
        let seen = quiet.ended().await;
        assert!(!seen.goaways.is_empty() && !seen.torn, "{seen:?}");
        tokio::time::timeout(DEADLINE, silent).await.expect("the connection ends").unwrap();
        fleet.restart(node).await;
        *known.write().unwrap() = addresses(&fleet);
        fleet.know_each_other().await;
    }
    stop.send_replace(true);
    let all = running.join_all().await;
    assert!(all.iter().all(|[answered, ..]| *answered > 100), "{all:?}");
    // Each of the nodes had connections when it was told to stop.
    let told: usize = all.iter().map(|[.., told]| told).sum();
    assert!(told >= 4, "answered, asked again, told to go: {all:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn replacing_all_nodes_fails_no_request_on_a_kept_http_2_connection() {
    replaced_under_load(fleet(), Way::Clear).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replacing_all_nodes_fails_none_through_tls_either() {
    let home = tempfile::tempdir().unwrap();
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let path = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("cert.pem"), pair.cert.pem()).unwrap();
    std::fs::write(path("key.pem"), "").unwrap();
    std::fs::set_permissions(path("key.pem"), std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(path("key.pem"), pair.signing_key.serialize_pem()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(pair.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_root_certificates(roots).with_no_client_auth();
    let plan = fleet()
        .set("SERVER__TLS__CERT", &path("cert.pem"))
        .set("SERVER__TLS__KEY", &path("key.pem"))
        .set("SERVER__PUBLIC_URL", "https://127.0.0.1:8443");
    replaced_under_load(plan, Way::Tls(Arc::new(config))).await;
}
