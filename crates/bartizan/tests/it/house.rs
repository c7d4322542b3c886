//! A house for a test: a directory of its own, the real engine on it, a clock that stands still, and callers who come
//! in through the whole stack without a socket.

use std::future::{Future, poll_fn};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::Poll;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use bartizan::Peer;
use bartizan::clock::Clock;
use bartizan::engine::{Engine, StartError};
use bartizan::operator::Operator;
use bartizan::settings::{Password, Rate, Settings, TierLimits};
use bartizan_core::principal::Tier;
use bartizan_core::time::Millis;
use bartizan_keys::FileKeyring;
use http::{HeaderMap, Method, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, FromRow};
use tempfile::TempDir;
use tower::ServiceExt;

/// When every house is built.
pub(crate) const BUILT: Millis = Millis(1_900_000_000_000);

/// A password the policy accepts, one for each seed.
pub(crate) fn passphrase(seed: &str) -> String {
    format!("gravel-{seed}-lantern-72-orbit")
}

/// A rate that never stands in the way.
pub(crate) const OPEN: Rate = Rate { count: 1_000_000, period: Duration::from_secs(1), burst: 1_000_000 };

/// Settings for `dir` with limits out of the way and the cheapest hash there is.
pub(crate) fn unhindered(dir: &Path) -> Settings {
    let mut settings = Settings::embedded(dir);
    for tier in Tier::ALL {
        settings.limits.tiers.insert(*tier, TierLimits { user: OPEN, tenant: OPEN });
    }
    let limits = &mut settings.limits;
    for rate in [&mut limits.address, &mut limits.network, &mut limits.login_account_network] {
        *rate = OPEN;
    }
    for rate in [&mut limits.login_account, &mut limits.login_network, &mut limits.login_tenant] {
        *rate = OPEN;
    }
    settings.password = Password { min_length: 15, memory_kib: 8, passes: 1, lanes: 1, workers: 4, queue: 10_000 };
    settings
}

/// The house. Dropped, it crashes: the runtime of the engine ends in the middle of whatever it does.
pub(crate) struct House {
    dir: Arc<TempDir>,
    pub(crate) settings: Settings,
    pub(crate) clock: Clock,
    door: Door,
    life: Option<Life>,
}

/// The engine between a start and its end, on a runtime of its own, so that a crash takes all its tasks with it.
struct Life {
    engine: Engine,
    runtime: tokio::runtime::Runtime,
}

/// Where callers come in; after a restart it leads to the new engine.
type Door = Arc<RwLock<Option<axum::Router>>>;

impl House {
    /// Limits out of the way, the cheapest hash there is.
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// As [`House::new`], with settings changed by the test.
    pub(crate) async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let dir = TempDir::new().unwrap();
        let mut settings = unhindered(dir.path());
        change(&mut settings);
        FileKeyring::create(&settings.secrets).unwrap();
        let mut house =
            Self { dir: Arc::new(dir), settings, clock: Clock::manual(BUILT), door: Door::default(), life: None };
        house.start().await.unwrap();
        house
    }

    /// Starts the engine on what is there.
    pub(crate) async fn start(&mut self) -> Result<(), StartError> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let started = Engine::start_at(self.settings.clone(), self.clock.clone());
        match runtime.spawn(started).await.unwrap() {
            Ok(engine) => {
                *self.door.write().unwrap_or_else(PoisonError::into_inner) = Some(engine.router());
                self.life = Some(Life { engine, runtime });
                Ok(())
            }
            Err(cause) => {
                end(runtime).await;
                Err(cause)
            }
        }
    }

    /// Ends the engine without a word, like a kill: no shutdown, no last snapshot.
    pub(crate) async fn crash(&mut self) {
        *self.door.write().unwrap_or_else(PoisonError::into_inner) = None;
        if let Some(Life { engine, runtime }) = self.life.take() {
            drop(engine);
            end(runtime).await;
        }
    }

    /// Ends the engine in good order.
    pub(crate) async fn stop(&mut self) {
        if let Some(life) = &self.life {
            life.engine.shutdown().await;
        }
        self.crash().await;
    }

    /// A crash and a new start.
    pub(crate) async fn crash_and_start(&mut self) {
        self.crash().await;
        self.start().await.unwrap();
    }

    /// The running engine.
    pub(crate) fn engine(&self) -> &Engine {
        &self.life.as_ref().unwrap().engine
    }

    /// The operator's hand.
    pub(crate) fn operator(&self) -> Operator {
        self.engine().operator()
    }

    /// The directory of the house.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Somebody without a credential, at a documentation address.
    pub(crate) fn caller(&self) -> Caller {
        let ip = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        Caller { door: Arc::clone(&self.door), ip, headers: HeaderMap::new() }
    }

    /// Opens a tenant and logs its owner in.
    pub(crate) async fn tenant(&self, slug: &str) -> Session {
        let body = json!({
            "tenant": slug, "name": format!("Owner of {slug}"), "email": "owner@same.example", "password": passphrase(slug)
        });
        drop(self.caller().post("/v1/signup", &body).await.expect(201));
        self.login(slug, "owner@same.example", &passphrase(slug)).await
    }

    /// Logs somebody in.
    pub(crate) async fn login(&self, slug: &str, email: &str, password: &str) -> Session {
        let answer = self.caller().try_login(slug, email, password).await.expect(200);
        let caller = self.caller().bearer(&answer.text("/access_token"));
        let device = answer.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
        let who = caller.get("/v1/whoami").await.expect(200);
        Session {
            access: answer.text("/access_token"),
            refresh: answer.text("/refresh_token"),
            user: who.text("/sub"),
            id: who.text("/session"),
            device,
            caller,
        }
    }

    /// Lets `by` create a user and logs him in. His password is `passphrase(name)`.
    pub(crate) async fn user(&self, slug: &str, by: &Session, role: &str, name: &str) -> Session {
        let email = format!("{name}@same.example");
        let body = json!({ "email": email, "name": name, "role": role, "password": passphrase(name) });
        drop(by.caller.post("/v1/users", &body).await.expect(201));
        self.login(slug, &email, &passphrase(name)).await
    }

    /// Rows of the database file, as somebody with the file sees them.
    pub(crate) async fn rows<T: for<'r> FromRow<'r, sqlx::sqlite::SqliteRow> + Send + Unpin>(
        &self,
        sql: &'static str,
    ) -> Vec<T> {
        let mut file = self.file().await;
        sqlx::query_as::<_, T>(sql).fetch_all(&mut file).await.unwrap()
    }

    /// One number out of the database file.
    pub(crate) async fn number(&self, sql: &'static str) -> i64 {
        self.rows::<(i64,)>(sql).await[0].0
    }

    async fn file(&self) -> SqliteConnection {
        let path = self.settings.data.join("bartizan.db");
        SqliteConnectOptions::new().filename(path).read_only(true).connect().await.unwrap()
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if let Some(Life { engine, runtime }) = self.life.take() {
            *self.door.write().unwrap_or_else(PoisonError::into_inner) = None;
            drop(engine);
            // Not waited for: a test that panics is inside a runtime. The directory goes last.
            runtime.shutdown_background();
        }
    }
}

/// Ends a runtime where waiting is allowed.
async fn end(runtime: tokio::runtime::Runtime) {
    tokio::task::spawn_blocking(move || drop(runtime)).await.unwrap();
}

/// A session and what its client holds.
#[derive(Clone)]
pub(crate) struct Session {
    /// The access token.
    pub(crate) access: String,
    /// The refresh token.
    pub(crate) refresh: String,
    /// The user's id.
    pub(crate) user: String,
    /// The session's id.
    pub(crate) id: String,
    /// The cookie that marks the device.
    pub(crate) device: String,
    /// Comes with the access token.
    pub(crate) caller: Caller,
}

/// Somebody who sends requests.
#[derive(Clone)]
pub(crate) struct Caller {
    door: Door,
    ip: IpAddr,
    headers: HeaderMap,
}

impl Caller {
    /// Somebody who comes in through a router that is in no house.
    pub(crate) fn through(router: axum::Router) -> Self {
        let ip = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        Self { door: Arc::new(RwLock::new(Some(router))), ip, headers: HeaderMap::new() }
    }

    /// From another address.
    pub(crate) fn from(mut self, ip: &str) -> Self {
        self.ip = ip.parse().unwrap();
        self
    }

    /// With another header.
    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(name, value.parse().unwrap());
        self
    }

    /// With an access token.
    pub(crate) fn bearer(self, token: &str) -> Self {
        self.with("authorization", &format!("Bearer {token}"))
    }

    /// As a browser that has the device cookie, on the own site.
    pub(crate) fn device(self, cookie: &str) -> Self {
        self.with("cookie", cookie).with("sec-fetch-site", "same-origin")
    }

    /// With an `Idempotency-Key`.
    pub(crate) fn once(self, key: &str) -> Self {
        self.with("idempotency-key", key)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, None, Vec::new()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, None, Vec::new()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, Some("application/json"), body.to_string().into_bytes()).await
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::PATCH, path, Some("application/json"), body.to_string().into_bytes()).await
    }

    pub(crate) async fn form(&self, path: &str, body: &str) -> Answer {
        self.send(Method::POST, path, Some("application/x-www-form-urlencoded"), body.into()).await
    }

    pub(crate) async fn try_login(&self, slug: &str, email: &str, password: &str) -> Answer {
        self.post("/v1/login", &json!({ "tenant": slug, "email": email, "password": password })).await
    }

    pub(crate) async fn refresh(&self, token: &str) -> Answer {
        self.post("/v1/token/refresh", &json!({ "refresh_token": token })).await
    }

    /// One request, through the whole stack.
    pub(crate) async fn send(&self, method: Method, path: &str, media: Option<&str>, body: Vec<u8>) -> Answer {
        let request = self.request(method, path, media, body);
        let router = self.door.read().unwrap_or_else(PoisonError::into_inner).clone().unwrap();
        let (parts, body) = router.oneshot(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    /// The request itself and where to take it, for a test that gives up half-way.
    pub(crate) fn unsent(&self, method: Method, path: &str, body: &Value) -> (axum::Router, Request) {
        let router = self.door.read().unwrap_or_else(PoisonError::into_inner).clone().unwrap();
        let (media, body) = match body {
            Value::Null => (None, Vec::new()),
            body => (Some("application/json"), body.to_string().into_bytes()),
        };
        (router, self.request(method, path, media, body))
    }

    fn request(&self, method: Method, path: &str, media: Option<&str>, body: Vec<u8>) -> Request {
        let mut request =
            Request::builder().method(method).uri(path).header("host", "house").body(Body::from(body)).unwrap();
        request.headers_mut().extend(self.headers.clone());
        if let Some(media) = media {
            request.headers_mut().insert("content-type", media.parse().unwrap());
        }
        request.extensions_mut().insert(Peer(SocketAddr::new(self.ip, 4711)));
        request
    }
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// The answer, when it has this status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", String::from_utf8_lossy(&self.body));
        self
    }

    /// The answer, when it is this refusal.
    #[track_caller]
    pub(crate) fn refused(self, status: u16, code: &str) -> Self {
        let answer = self.expect(status);
        assert_eq!(answer.text("/code"), code);
        answer
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    #[track_caller]
    pub(crate) fn text(&self, pointer: &str) -> String {
        let json = self.json();
        json.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no {pointer} in {json}")).to_owned()
    }

    /// Everything that an outsider may compare: status, the names of the headers, and the body less its instance.
    pub(crate) fn shape(&self) -> (u16, Vec<String>, String) {
        let mut names: Vec<String> = self.headers.keys().map(ToString::to_string).collect();
        names.sort();
        let mut body: Value = serde_json::from_slice(&self.body).unwrap_or(Value::Null);
        if let Some(members) = body.as_object_mut() {
            members.remove("instance");
        }
        (self.status.as_u16(), names, body.to_string())
    }
}

/// All rows of a paged list.
pub(crate) async fn all(caller: &Caller, path: &str) -> Vec<Value> {
    let (mut rows, mut cursor) = (Vec::new(), String::new());
    let mark = if path.contains('?') { '&' } else { '?' };
    loop {
        let page = caller.get(&format!("{path}{mark}limit=100{cursor}")).await.expect(200).json();
        rows.extend(page["items"].as_array().unwrap().iter().cloned());
        match page["next"].as_str() {
            Some(next) => cursor = format!("&after={next}"),
            None => return rows,
        }
    }
}

/// How many rows of `action` the trail has.
pub(crate) async fn counted(caller: &Caller, action: &str) -> usize {
    all(caller, &format!("/v1/audit?action={action}")).await.len()
}

/// A request stopped in the middle of its way: at one of its waits, after so many polls.
pub(crate) struct Paused<F: Future> {
    future: Pin<Box<F>>,
    output: Option<F::Output>,
}

impl<F: Future> Paused<F> {
    /// Polls `future` so many times, each time after it was woken.
    pub(crate) async fn after(polls: usize, future: F) -> Self {
        let mut paused = Self { future: Box::pin(future), output: None };
        let mut left = polls;
        poll_fn(|context| {
            left = left.saturating_sub(1);
            match paused.future.as_mut().poll(context) {
                Poll::Ready(output) => paused.output = Some(output),
                Poll::Pending if left > 0 => return Poll::Pending,
                Poll::Pending => {}
            }
            Poll::Ready(())
        })
        .await;
        paused
    }

    /// Whether it came to its end before it was stopped.
    pub(crate) fn is_done(&self) -> bool {
        self.output.is_some()
    }

    /// Lets it go on to its end.
    pub(crate) async fn rest(self) -> F::Output {
        match self.output {
            Some(output) => output,
            None => self.future.await,
        }
    }
}

/// Pauses `first` at each of its waits in turn, lets `second` run meanwhile, then lets `first` go on; asks `check` about
/// every order of events. A second that has to wait for the first (it holds the one writer) gets its turn after it. Returns how
/// often the second was first.
pub(crate) async fn in_every_order<A, B, Fut>(
    first: impl AsyncFn(usize) -> (A, Fut),
    second: impl AsyncFn(&A) -> B,
    check: impl AsyncFn(A, Answer, B),
) -> usize
where
    Fut: Future<Output = Answer>,
{
    let (mut polls, mut overtaken, mut serial, mut sweeps) = (0, 0, 0, 0);
    // How many waits there are depends on how fast the other threads answer: one sweep may see few of them.
    while sweeps == 0 || (overtaken == 0 && sweeps < 10) {
        (polls, serial) = (polls + 1, serial + 1);
        let (world, request) = first(serial).await;
        let paused = Paused::after(polls, request).await;
        let done = paused.is_done();
        let (answer, other) = {
            let mut second = Box::pin(second(&world));
            match tokio::time::timeout(Duration::from_millis(700), &mut second).await {
                Ok(other) => {
                    overtaken += usize::from(!done);
                    (paused.rest().await, other)
                }
                Err(_) => tokio::join!(paused.rest(), second),
            }
        };
        check(world, answer, other).await;
        if done {
            (polls, sweeps) = (0, sweeps + 1);
        }
    }
    overtaken
}
