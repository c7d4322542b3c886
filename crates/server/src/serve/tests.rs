//! A door as its clients see it: real sockets, port 0, short deadlines of its own.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::door::{Bounds, Door, bind};
use super::tls::Tls;
use super::unread::Unread;
use super::*;

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
/// Long enough for a loaded machine; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

struct Open {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    served: JoinHandle<usize>,
}

fn bounds() -> Bounds {
    Bounds {
        header_timeout: PATIENCE,
        write_timeout: PATIENCE,
        handshake_timeout: PATIENCE,
        max_header: 8192,
        connections: 64,
        per_address: 64,
        exempt: Vec::new(),
    }
}

async fn open(app: Router, tls: Option<Tls>, bounds: Bounds, drain: Duration) -> Open {
    let listener = bind("127.0.0.1:0".parse().unwrap(), "server.listen", "--listen").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    let app = app.into();
    let unread =
        Unread::new(|code| http::Response::builder().status(code.status()).body(code.as_str().into()).unwrap());
    let served = tokio::spawn(Door { name: "test", listener, tls, app, unread, bounds }.serve(stopped, drain));
    Open { address, stop, served }
}

fn hello() -> Router {
    Router::new().route("/", get(async || "hello"))
}

/// Sends `bytes`, then reads until the server closes.
async fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    rest(&mut stream).await
}

async fn rest(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut answer = Vec::new();
    // A reset instead of an orderly end is an end too.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the server closes");
    String::from_utf8_lossy(&answer).into_owned()
}

async fn until(stream: &mut (impl tokio::io::AsyncRead + Unpin), end: &str) -> String {
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).ends_with(end) {
        let read = tokio::time::timeout(PATIENCE, stream.read_buf(&mut answer)).await.expect("the server answers");
        assert!(read.unwrap() > 0, "closed after {}", String::from_utf8_lossy(&answer));
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_client_that_says_nothing_or_too_little_is_let_go() {
    let short = Bounds { header_timeout: Duration::from_millis(150), ..bounds() };
    let door = open(hello(), None, short, PATIENCE).await;
    let started = Instant::now();
    let (silent, half, preface) = tokio::join!(
        exchange(door.address, b""),
        exchange(door.address, b"GET / HTTP/1.1\r\nhost: a\r\nx: "),
        exchange(door.address, b"PRI * HTTP/2.0\r\n"),
    );
    assert_eq!((silent.as_str(), preface.as_str()), ("", ""));
    assert!(half.is_empty() || half.starts_with("HTTP/1.1 408"), "{half}");
    assert!(started.elapsed() < PATIENCE / 2);
}

#[tokio::test]
async fn a_client_that_reads_nothing_of_a_large_answer_is_let_go() {
    let large = || async { vec![0u8; 64 << 20] };
    let app = hello().route("/large", get(large));
    let one = Bounds { write_timeout: Duration::from_millis(150), connections: 1, ..bounds() };
    let door = open(app, None, one, PATIENCE).await;
    let mut lazy = TcpStream::connect(door.address).await.unwrap();
    lazy.write_all(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    // The only place becomes free, although the first client is still connected.
    let answer = exchange(door.address, b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    assert!(answer.ends_with("hello"), "{answer}");
    drop(lazy);
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_an_answer() {
    let short = Bounds { header_timeout: Duration::from_millis(150), ..bounds() };
    let door = open(hello(), None, short, PATIENCE).await;
    let answer = exchange(door.address, GET).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("hello"), "{answer}");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused_with_or_without_an_end() {
    let door = open(hello(), None, bounds(), PATIENCE).await;
    let fields = "x: ".to_owned() + &"y".repeat(9000) + "\r\n";
    let whole = exchange(door.address, format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n").as_bytes()).await;
    assert!(whole.starts_with("HTTP/1.1 431"), "{whole}");
    let many = "x: y\r\n".repeat(200);
    let many = exchange(door.address, format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n").as_bytes()).await;
    assert!(many.starts_with("HTTP/1.1 431"), "{many}");
    let endless = exchange(door.address, format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(100_000)).as_bytes()).await;
    assert!(endless.is_empty() || endless.starts_with("HTTP/1.1 431"), "{endless}");
}

#[tokio::test]
async fn http_2_with_prior_knowledge_is_answered_and_told_who_asks() {
    let who = |peer: axum::Extension<bartizan::Peer>| async move { peer.0.0.ip().to_string() };
    let door = open(Router::new().route("/", get(who)), None, bounds(), PATIENCE).await;
    let stream = TcpStream::connect(door.address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("http://a/").body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.version(), http::Version::HTTP_2);
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    assert_eq!(body, "127.0.0.1");
}

#[tokio::test]
async fn a_head_too_large_for_http_2_is_refused_by_the_application_too() {
    let door = open(hello(), None, bounds(), PATIENCE).await;
    let stream = TcpStream::connect(door.address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    for (bytes, status, body) in [(7_000, 200, "hello"), (9_000, 431, "request.head_too_large"), (7_000, 200, "hello")]
    {
        let request = http::Request::get("http://a/").header("x", "y".repeat(bytes));
        let request = request.body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), status, "{bytes}");
        let read = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
        assert_eq!(read, body);
    }
}

#[tokio::test]
async fn one_address_gets_no_more_than_its_share_and_gets_it_back() {
    let door = open(hello(), None, Bounds { per_address: 2, ..bounds() }, PATIENCE).await;
    let mut first = TcpStream::connect(door.address).await.unwrap();
    let mut second = TcpStream::connect(door.address).await.unwrap();
    for stream in [&mut first, &mut second] {
        stream.write_all(GET).await.unwrap();
        until(stream, "hello").await;
    }
    assert_eq!(exchange(door.address, GET).await, "");
    drop((first, second));
    // The server notices the two ends in its own time.
    let again = async {
        loop {
            let mut stream = TcpStream::connect(door.address).await.unwrap();
            let mut first = [0u8; 4];
            if stream.write_all(GET).await.is_ok() && stream.read_exact(&mut first).await.is_ok() {
                break first;
            }
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, again).await.unwrap(), *b"HTTP");
}

#[tokio::test]
async fn told_to_stop_it_finishes_what_is_in_flight_and_accepts_nobody_new() {
    let (entered, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let slow = {
        let (entered, go) = (entered.clone(), go.clone());
        move || async move {
            entered.notify_one();
            go.notified().await;
            "finished"
        }
    };
    let door = open(Router::new().route("/", get(slow)), None, bounds(), PATIENCE).await;
    let mut idle = TcpStream::connect(door.address).await.unwrap();
    let busy = tokio::spawn(async move { exchange(door.address, GET).await });
    entered.notified().await;
    door.stop.send_replace(true);
    assert_eq!(rest(&mut idle).await, "");
    let refused = async {
        while TcpStream::connect(door.address).await.is_ok() {
            tokio::task::yield_now().await
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.unwrap();
    assert!(!door.served.is_finished());
    go.notify_one();
    assert!(busy.await.unwrap().ends_with("finished"));
    assert_eq!(tokio::time::timeout(PATIENCE, door.served).await.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn what_takes_longer_than_the_drain_is_counted_as_cut_off() {
    let entered = Arc::new(Notify::new());
    let stuck = {
        let entered = entered.clone();
        move || async move {
            entered.notify_one();
            std::future::pending::<&str>().await
        }
    };
    let door = open(Router::new().route("/", get(stuck)), None, bounds(), Duration::from_millis(100)).await;
    let mut stream = TcpStream::connect(door.address).await.unwrap();
    stream.write_all(GET).await.unwrap();
    entered.notified().await;
    door.stop.send_replace(true);
    assert_eq!(tokio::time::timeout(PATIENCE, door.served).await.unwrap().unwrap(), 1);
}

#[tokio::test]
async fn a_panic_in_a_handler_ends_one_connection_and_gives_its_place_back() {
    let broken = async || -> &'static str { panic!("a mistake") };
    let app = Router::new().route("/", get(broken)).route("/ok", get(async || "hello"));
    let door = open(app, None, Bounds { connections: 1, per_address: 1, ..bounds() }, PATIENCE).await;
    assert_eq!(exchange(door.address, GET).await, "");
    let answer = exchange(door.address, b"GET /ok HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    assert!(answer.ends_with("hello"), "{answer}");
}

#[tokio::test]
async fn a_port_in_use_is_said_with_the_way_out() {
    let taken = bind("127.0.0.1:0".parse().unwrap(), "server.listen", "--listen").await.unwrap();
    let address = taken.local_addr().unwrap();
    let stop = bind(address, "server.listen", "--listen").await.unwrap_err();
    assert_eq!(stop.exit, Exit::InUse);
    let port = address.port();
    assert_eq!(stop.message, format!("port {port} is in use: choose another with --listen or `server.listen`"));
}

/// Writes a new self-signed pair and returns the certificate.
fn issue(dir: &Path) -> CertificateDer<'static> {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(dir.join("cert.pem"), pair.cert.pem()).unwrap();
    let key = dir.join("key.pem");
    let _ = std::fs::remove_file(&key);
    crate::install::write_new(&key, pair.signing_key.serialize_pem().as_bytes()).unwrap();
    pair.cert.der().clone()
}

fn load(dir: &Path) -> Result<Tls, super::tls::TlsError> {
    Tls::load(dir.join("cert.pem"), dir.join("key.pem"))
}

/// Connects, trusting only `trusted`, and returns the protocol agreed on and the answer to a request.
async fn over_tls(
    address: SocketAddr,
    trusted: &CertificateDer<'static>,
    alpn: &[&[u8]],
) -> std::io::Result<(Option<Vec<u8>>, String)> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let agreed = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
    if agreed.as_deref() == Some(b"h2") {
        return Ok((agreed, String::new()));
    }
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await?;
    Ok((agreed, rest(&mut stream).await))
}

#[tokio::test]
async fn tls_speaks_both_versions_of_http_and_turns_plain_text_away() {
    let temp = tempfile::tempdir().unwrap();
    let cert = issue(temp.path());
    let door = open(hello(), Some(load(temp.path()).unwrap()), bounds(), PATIENCE).await;
    let (agreed, answer) = over_tls(door.address, &cert, &[b"http/1.1"]).await.unwrap();
    assert!(agreed.as_deref() == Some(b"http/1.1") && answer.ends_with("hello"), "{answer}");
    assert_eq!(over_tls(door.address, &cert, &[b"h2", b"http/1.1"]).await.unwrap().0.as_deref(), Some(&b"h2"[..]));
    let plain = exchange(door.address, GET).await;
    assert!(plain.starts_with("HTTP/1.1 400 ") && plain.ends_with("\r\n\r\nrequest.malformed"), "{plain}");
}

#[tokio::test]
async fn a_handshake_that_stalls_is_let_go() {
    let temp = tempfile::tempdir().unwrap();
    issue(temp.path());
    let short = Bounds { handshake_timeout: Duration::from_millis(150), ..bounds() };
    let door = open(hello(), Some(load(temp.path()).unwrap()), short, PATIENCE).await;
    let (silent, stalled) = tokio::join!(exchange(door.address, b""), exchange(door.address, &[22, 3, 1]));
    assert_eq!((silent.as_str(), stalled.as_str()), ("", ""));
}

#[tokio::test]
async fn a_new_pair_is_used_after_a_reload_and_a_broken_one_changes_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let old = issue(temp.path());
    let tls = load(temp.path()).unwrap();
    let door = open(hello(), Some(tls.clone()), bounds(), PATIENCE).await;
    over_tls(door.address, &old, &[b"http/1.1"]).await.unwrap();
    let new = issue(temp.path());
    tls.reload().unwrap();
    over_tls(door.address, &new, &[b"http/1.1"]).await.unwrap();
    over_tls(door.address, &old, &[b"http/1.1"]).await.unwrap_err();
    // Half of a replacement: the certificate no longer belongs to the key.
    let stranger = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(temp.path().join("cert.pem"), stranger.cert.pem()).unwrap();
    assert!(tls.reload().unwrap_err().to_string().contains("do not make a pair"));
    std::fs::write(temp.path().join("cert.pem"), "").unwrap();
    assert!(tls.reload().unwrap_err().to_string().contains("holds no certificate"));
    over_tls(door.address, &new, &[b"http/1.1"]).await.unwrap();
}

#[test]
fn a_private_key_that_everybody_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let temp = tempfile::tempdir().unwrap();
    issue(temp.path());
    std::fs::set_permissions(temp.path().join("key.pem"), std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(load(temp.path()).unwrap_err().to_string().contains("chmod 640"));
    assert!(CertificateDer::from_pem_file(temp.path().join("cert.pem")).is_ok());
}

#[tokio::test]
async fn a_file_replaced_or_rewritten_is_noticed_and_a_neighbour_is_not() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("bartizan.toml");
    std::fs::write(&file, "a").unwrap();
    let mut watch = super::watch::Watch::new().unwrap();
    watch.add(&file).unwrap();
    std::fs::write(temp.path().join("other"), "b").unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(600), watch.changed()).await.is_err());
    std::fs::write(temp.path().join("draft"), "c").unwrap();
    std::fs::rename(temp.path().join("draft"), &file).unwrap();
    tokio::time::timeout(PATIENCE, watch.changed()).await.unwrap();
    std::fs::write(&file, "longer").unwrap();
    tokio::time::timeout(PATIENCE, watch.changed()).await.unwrap();
}

#[tokio::test]
async fn a_change_is_not_lost_when_the_waiting_is_broken_off() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("bartizan.toml");
    std::fs::write(&file, "a").unwrap();
    let mut watch = super::watch::Watch::new().unwrap();
    watch.add(&file).unwrap();
    std::fs::write(&file, "longer").unwrap();
    // Long enough to receive the event, too short to act on it.
    for _ in 0..5 {
        assert!(tokio::time::timeout(Duration::from_millis(100), watch.changed()).await.is_err());
    }
    tokio::time::timeout(PATIENCE, watch.changed()).await.unwrap();
}
