//! One life of the connection to one primary: from the proof that it is one to the first sign that it fails.
//!
//! A wire is never mended. When the server hangs, breaks off, fails too often or turns out to be no primary, the wire
//! ends and the link makes another, which is proved anew: that is the breaker. So a server that was paused and comes
//! back is not trusted because it answers, but because it was asked what it is.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::{Cmd, Pipeline, RedisResult, Value};
use tokio::sync::watch;

use super::Core;
use super::address::{Kind, Server};
use super::connector::{Connection, answered};
use super::error::{Door, Failure, Unavailable};
use super::info::Info;
use super::window::Window;

/// After so much silence a wire asks for a sign of life, so that a hung server is noticed without a request.
const SILENCE: Duration = Duration::from_millis(500);
/// After so much silence, although it asks, this process itself was held up: meanwhile others may have promoted
/// another server, and the one at the other end may have been held up with us.
const STALE: Duration = Duration::from_secs(2);

/// A connection that was proved to lead to a primary.
pub(super) struct Wire {
    server: Server,
    lines: Vec<Connection>,
    next: AtomicUsize,
    timeout: Duration,
    born: Instant,
    /// When the last answer came, in microseconds since `born`.
    heard: AtomicU64,
    /// Until when it is trusted without another word from the sentinels, in microseconds since `born`.
    trusted: AtomicU64,
    window: Mutex<Window>,
    end: Arc<watch::Sender<Option<Unavailable>>>,
    core: Arc<Core>,
}

impl Wire {
    /// Connects and demands the proof: a primary, of a version that knows `#!lua`, of the kind we were told, that
    /// answers within the time-out of a call.
    ///
    /// # Errors
    /// Why it is none, or not now.
    pub(super) async fn open(core: &Arc<Core>, server: &Server, kind: Kind) -> Result<Arc<Self>, Unavailable> {
        let connector = core.connector()?;
        let within = connector.within();
        let tls = "; if it does not speak TLS there, write redis in place of rediss in state.url";
        let hint = if connector.is_tls() { tls } else { "" };
        let late = || Unavailable::Disconnected(format!("{server} did not serve a connection within {within:?}{hint}"));
        tokio::time::timeout(within, Self::prove(core, server, kind)).await.map_err(|_| late())?
    }

    async fn prove(core: &Arc<Core>, server: &Server, kind: Kind) -> Result<Arc<Self>, Unavailable> {
        let end = Arc::new(watch::Sender::new(None));
        let mut lines = Vec::new();
        for _ in 0..core.options.pool.max(1) {
            let (over, nudge, name) = (Arc::clone(&end), Arc::clone(core), server.clone());
            let ended = move || {
                let why = Unavailable::Disconnected(format!("{name} closed the connection"));
                if over.send_if_modified(|end| end.is_none() && end.replace(why).is_none()) {
                    nudge.nudge.notify_one();
                }
            };
            lines.push(core.connector()?.data(server, ended).await?);
        }
        let wire = Arc::new(Self {
            server: server.clone(),
            lines,
            next: AtomicUsize::new(0),
            timeout: core.options.timeout,
            born: Instant::now(),
            heard: AtomicU64::new(0),
            trusted: AtomicU64::new(u64::MAX),
            window: Mutex::new(Window::default()),
            end,
            core: Arc::clone(core),
        });
        let info = Info::parse(&wire.ask(&redis::cmd("INFO")).await?);
        info.prove(server, kind)?;
        let asked = Instant::now();
        wire.ask(&redis::cmd("PING")).await?;
        let took = asked.elapsed();
        if took > wire.timeout {
            let slow = format!("{server} answers after {took:?}, later than the time-out of {:?}", wire.timeout);
            return Err(Unavailable::Disconnected(slow));
        }
        Ok(wire)
    }

    /// Whom it leads to.
    pub(super) const fn server(&self) -> &Server {
        &self.server
    }

    /// Why it ended, if it did. One lock, uncontended but for the end.
    pub(super) fn over(&self) -> Option<Unavailable> {
        self.end.borrow().clone()
    }

    /// From now on it is trusted for `span` only, unless this is called again.
    pub(super) fn trust(&self, span: Duration) {
        let span = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        self.trusted.store(self.clock().saturating_add(span), Ordering::Relaxed);
    }

    /// Ends it when what was proved is too long ago. Looked at before a call, and again when its answer is there:
    /// in between this process may have been held up.
    fn trusted(&self) -> Result<(), Unavailable> {
        if self.silent() > STALE || self.clock() > self.trusted.load(Ordering::Relaxed) {
            self.end(Unavailable::Open);
        }
        self.over().map_or(Ok(()), Err)
    }

    /// Ends it, once; who waits for answers is told at once.
    pub(super) fn end(&self, why: Unavailable) {
        if self.end.send_if_modified(|end| end.is_none() && end.replace(why).is_none()) {
            self.lines.iter().for_each(Connection::cut);
            self.core.nudge.notify_one();
        }
    }

    /// Waits until it ends, and sees to it that a silent server is noticed.
    pub(super) async fn watch(&self) -> Unavailable {
        let mut end = self.end.subscribe();
        loop {
            let silence = SILENCE.saturating_sub(self.silent());
            if let Some(why) = self.over() {
                return why;
            }
            tokio::select! {
                _ = end.changed() => {}
                () = tokio::time::sleep(silence.max(Duration::from_millis(10))) => {
                    if self.silent() >= SILENCE {
                        let deadline = tokio::time::Instant::now() + self.timeout;
                        // Its failure is seen by the exchange itself.
                        let _ = self.call(&redis::cmd("PING"), false, deadline).await;
                    }
                }
            }
        }
    }

    /// Sends one command and waits for its answer until `deadline`; `asking` precedes it with `ASKING`. Never sends
    /// twice.
    pub(super) async fn call(
        &self,
        command: &Cmd,
        asking: bool,
        deadline: tokio::time::Instant,
    ) -> Result<Value, Failure> {
        self.trusted()?;
        let nth = self.next.fetch_add(1, Ordering::Relaxed) % self.lines.len().max(1);
        let Some(line) = self.lines.get(nth) else { return Err(Unavailable::Open.into()) };
        let mut pipe = line.pipe.clone();
        let answer = if asking {
            let mut both = Pipeline::new();
            both.cmd("ASKING").add_command(command.clone());
            let first = |values: Vec<Value>| values.into_iter().next().unwrap_or(Value::Nil);
            patient(deadline, async { pipe.send_packed_commands(&both, 1, 1).await.map(first) }).await
        } else {
            patient(deadline, pipe.send_packed_command(command)).await
        };
        self.judge(answer)
    }

    /// What an exchange says about the server, and what it answered.
    fn judge(&self, answer: Option<RedisResult<Value>>) -> Result<Value, Failure> {
        let counts = &self.core.counts;
        let Some(answer) = answer else {
            counts.timeouts.fetch_add(1, Ordering::Relaxed);
            // A call waited in vain and no other was answered either: the server hangs.
            if self.silent() >= self.timeout || self.count(true) {
                self.trip();
            }
            return Err(Unavailable::Timeout.into());
        };
        let answer = answered(answer, &self.server, Door::Data);
        if let Err(Failure::Gone(Unavailable::Disconnected(why))) = &answer {
            if self.count(true) {
                self.trip();
            }
            return Err(self.over().unwrap_or_else(|| Unavailable::Disconnected(why.clone())).into());
        }
        self.trusted()?;
        self.heard.fetch_max(self.clock(), Ordering::Relaxed);
        self.count(false);
        match &answer {
            // It is alive, but not what we took it for: have it proved again.
            Err(Failure::Gone(why @ (Unavailable::ReadOnly | Unavailable::Loading))) => self.end(why.clone()),
            Err(Failure::Moved(_) | Failure::Later(_)) => {
                self.core.nudge.notify_one();
            }
            _ => {}
        }
        answer
    }

    fn trip(&self) {
        if self.over().is_none() {
            self.core.counts.opened.fetch_add(1, Ordering::Relaxed);
            self.end(Unavailable::Open);
        }
    }

    fn count(&self, failed: bool) -> bool {
        let now = self.clock() / 1_000;
        self.window.lock().unwrap_or_else(PoisonError::into_inner).record(now, failed)
    }

    fn clock(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// How long nothing was heard.
    fn silent(&self) -> Duration {
        Duration::from_micros(self.clock().saturating_sub(self.heard.load(Ordering::Relaxed)))
    }

    /// A command outside the path of requests, bounded by the caller.
    async fn ask(&self, command: &Cmd) -> Result<Value, Unavailable> {
        let Some(line) = self.lines.first() else { return Err(Unavailable::Open) };
        let answer = line.pipe.clone().send_packed_command(command).await;
        let answer = answered(answer, &self.server, Door::Data)?;
        self.heard.fetch_max(self.clock(), Ordering::Relaxed);
        Ok(answer)
    }

    /// A command of a survey, which may take as long as making a connection.
    pub(super) async fn inquire(&self, command: &Cmd) -> Result<Value, Unavailable> {
        let within = self.core.connector()?.within();
        tokio::time::timeout(within, self.ask(command)).await.map_err(|_| Unavailable::Timeout)?
    }
}

/// Waits until `deadline`, and then once more for what arrived in the meantime: when this process itself was held up,
/// the clock rings before the answer that lies in the socket is read, and that is no fault of the server.
async fn patient<T>(deadline: tokio::time::Instant, answer: impl Future<Output = T>) -> Option<T> {
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        biased;
        value = &mut answer => return Some(value),
        () = tokio::time::sleep_until(deadline) => {}
    }
    tokio::task::yield_now().await;
    tokio::select! {
        biased;
        value = &mut answer => Some(value),
        () = std::future::ready(()) => None,
    }
}
