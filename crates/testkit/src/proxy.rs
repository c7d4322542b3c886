//! A TCP proxy that counts, and that misbehaves on demand.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How it treats what passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    /// Passes each piece on after so long.
    Pass(Duration),
    /// Accepts, reads, and passes nothing on.
    Swallow,
    /// Passes on what clients send and none of the answers.
    Mute,
    /// Ends every connection, also new ones.
    Cut,
}

#[derive(Debug, Default)]
struct Tally {
    connections: AtomicU64,
    up: AtomicU64,
    down: AtomicU64,
    exchanges: AtomicU64,
    /// 1 while the last piece went up.
    rising: AtomicU64,
}

/// A proxy in front of one server.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    target: Arc<AtomicU16>,
    mood: watch::Sender<Mood>,
    tally: Arc<Tally>,
    task: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.mood.send_replace(Mood::Cut);
        self.task.abort();
    }
}

impl Proxy {
    /// A proxy on a free port of this machine to `target` on it.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn start(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let mood = watch::Sender::new(Mood::Pass(Duration::ZERO));
        let tally = Arc::new(Tally::default());
        let target = Arc::new(AtomicU16::new(target));
        let (seen, counted, leads) = (mood.clone(), Arc::clone(&tally), Arc::clone(&target));
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                counted.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(carry(client, leads.load(Ordering::SeqCst), seen.subscribe(), Arc::clone(&counted)));
            }
        });
        Self { port, target, mood, tally, task }
    }

    /// Where it listens.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Leads new connections to another server. Those there are stay where they are.
    pub fn lead_to(&self, target: u16) {
        self.target.store(target, Ordering::SeqCst);
    }

    /// Passes everything on at once, as at the start.
    pub fn pass(&self) {
        self.mood.send_replace(Mood::Pass(Duration::ZERO));
    }

    /// Passes each piece on after so long, in both directions.
    pub fn delay(&self, by: Duration) {
        self.mood.send_replace(Mood::Pass(by));
    }

    /// Keeps connections and accepts new ones, but passes nothing on.
    pub fn swallow(&self) {
        self.mood.send_replace(Mood::Swallow);
    }

    /// Passes on what clients send, and swallows the answers.
    pub fn mute(&self) {
        self.mood.send_replace(Mood::Mute);
    }

    /// Ends all connections, and each new one at once, until [`Proxy::pass`].
    pub fn cut(&self) {
        self.mood.send_replace(Mood::Cut);
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.tally.connections.load(Ordering::SeqCst)
    }

    /// Bytes passed from clients to the server.
    pub fn bytes_up(&self) -> u64 {
        self.tally.up.load(Ordering::SeqCst)
    }

    /// Bytes passed from the server to clients.
    pub fn bytes_down(&self) -> u64 {
        self.tally.down.load(Ordering::SeqCst)
    }

    /// How often something went up after something had come down: with one client and one call after another, the
    /// round trips.
    pub fn exchanges(&self) -> u64 {
        self.tally.exchanges.load(Ordering::SeqCst)
    }
}

async fn carry(client: TcpStream, target: u16, mood: watch::Receiver<Mood>, tally: Arc<Tally>) {
    let mut cut = mood.clone();
    let both = async {
        let server = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], target))).await.ok()?;
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (client_read, client_write) = client.into_split();
        let (server_read, server_write) = server.into_split();
        tokio::select! {
            () = pass(client_read, server_write, mood.clone(), &tally, true) => {}
            () = pass(server_read, client_write, mood.clone(), &tally, false) => {}
        }
        Some(())
    };
    tokio::select! {
        _ = cut.wait_for(|mood| *mood == Mood::Cut) => {}
        _ = both => {}
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mood: watch::Receiver<Mood>, tally: &Tally, up: bool) {
    let mut piece = vec![0; 16 * 1024];
    loop {
        let Ok(length @ 1..) = from.read(&mut piece).await else { return };
        let now = *mood.borrow();
        match now {
            Mood::Pass(delay) if delay > Duration::ZERO => tokio::time::sleep(delay).await,
            Mood::Pass(_) => {}
            Mood::Mute if up => {}
            Mood::Swallow | Mood::Mute => continue,
            Mood::Cut => return,
        }
        let bytes = if up { &tally.up } else { &tally.down };
        bytes.fetch_add(length as u64, Ordering::SeqCst);
        if tally.rising.swap(u64::from(up), Ordering::SeqCst) == 0 && up {
            tally.exchanges.fetch_add(1, Ordering::SeqCst);
        }
        if to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
}
