//! Nodes are replaced under clients that keep one HTTP/2 connection and have several requests on it at once.

use std::collections::BTreeSet;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, RwLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bartizan_testkit::{Client, DEADLINE, Fleet};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

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

/// A socket whose frames are noted as they pass.
struct Noted {
    socket: TcpStream,
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
    async fn to(base: &str) -> Option<Self> {
        let socket = TcpStream::connect(base.trim_start_matches("http://")).await.ok()?;
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

    /// Waits until the server has closed the connection; what was seen on it.
    async fn ended(self) -> Seen {
        drop(self.sender);
        tokio::time::timeout(DEADLINE, self.task).await.expect("the connection ends").expect("its task");
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

/// Uses one connection as long as it is there, and then the next. How many requests were answered, were to be asked
/// again, and on how many connections the server said that it goes away.
async fn keep_asking(known: Arc<RwLock<Vec<String>>>, access: String, stopped: watch::Receiver<bool>) -> [usize; 3] {
    let [mut answered, mut again, mut told] = [0; 3];
    for turn in 0.. {
        if *stopped.borrow() {
            break;
        }
        let base = {
            let all = known.read().unwrap();
            all[turn % all.len()].clone()
        };
        let Some(kept) = Kept::to(&base).await else { continue };
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
        assert!(seen.goaways.iter().all(|(_, code)| *code == 0), "{seen:?}");
        assert!(lost <= seen.not_processed(), "{lost} requests lost that the server had taken: {seen:?}");
        (again, told) = (again + lost, told + 1);
    }
    [answered, again, told]
}

fn addresses(fleet: &Fleet) -> Vec<String> {
    fleet.nodes.iter().map(|node| node.server.api.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn replacing_all_nodes_fails_no_request_on_a_kept_http_2_connection() {
    let mut fleet = fleet().start(2).await;
    let session = fleet.on(0).owner().await;
    let known = Arc::new(RwLock::new(addresses(&fleet)));
    let (stop, stopped) = watch::channel(false);
    let mut running = JoinSet::new();
    for _ in 0..4 {
        running.spawn(keep_asking(Arc::clone(&known), session.access.clone(), stopped.clone()));
    }
    for node in 0..2 {
        // Those who have a connection and say nothing hold nobody up.
        let quiet = Kept::to(&fleet.on(node).api).await.expect("a connection");
        assert!(matches!(quiet.ask(&session.access).await, Fate::Answered(200)));
        let silent = Client::new(&fleet.on(node).api).bearer(&session.access);
        drop(silent.get("/v1/whoami").await.expect(200));
        let began = Instant::now();
        fleet.nodes[node].server.sigterm();
        let gone = fleet.on(node).api.clone();
        known.write().unwrap().retain(|base| *base != gone);
        assert_eq!(fleet.nodes[node].server.ended().await, Some(0), "{}", fleet.on(node).log());
        // `server.drain` is 20 s: after it whoever is left is cut off.
        assert!(began.elapsed() < Duration::from_secs(15), "it took {:?}", began.elapsed());
        assert!(!fleet.on(node).log().contains("were cut off"), "{}", fleet.on(node).log());
        assert!(!quiet.ended().await.goaways.is_empty());
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
