//! An application inside the engine: what it declares is served, what it merely has is refused.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ConnectInfo;
use axum::routing::{any, get, post};
use bartizan::Peer;
use bartizan::api::{
    Api, Cache, Csrf, Done, Failure, Flaw, Found, Path, RateClass, Read, Write, because, public, requires,
};
use bartizan::clock::Clock;
use bartizan::engine::{Engine, create_secrets};
use bartizan::guard::Permit;
use bartizan::settings::{Password, Rate, Settings, TierLimits};
use bartizan_core::action::{Action, ReadSelf};
use bartizan_core::principal::{Role, Tier};
use bartizan_core::secret::Secret;
use bartizan_core::time::Millis;
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

#[path = "../../../../examples/invoices.rs"]
#[expect(dead_code, unreachable_pub, reason = "a program of its own, whose `main` is run by whoever reads it")]
mod invoices;

/// An engine in a directory of its own, with a clock that stands still.
pub(crate) struct Site {
    pub(crate) engine: Engine,
    _dir: TempDir,
}

impl Site {
    /// Limits out of the way, the cheapest hash there is.
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let dir = TempDir::new().unwrap();
        let mut settings = Settings::embedded(dir.path());
        let open = Rate::per_minute(1_000_000, 1_000_000);
        for tier in Tier::ALL {
            settings.limits.tiers.insert(*tier, TierLimits { user: open, tenant: open });
        }
        settings.limits.address = open;
        settings.password = Password { min_length: 15, memory_kib: 8, passes: 1, lanes: 1, workers: 2, queue: 100 };
        change(&mut settings);
        create_secrets(&settings).unwrap();
        let engine = Engine::start_at(settings, Clock::manual(Millis(1_900_000_000_000))).await.unwrap();
        Self { engine, _dir: dir }
    }

    /// Opens a tenant with a user of each role.
    pub(crate) async fn tenant(&self, slug: &str) {
        let operator = self.engine.operator();
        operator.add_tenant(slug, "Somebody", &email(Role::Owner), passphrase()).await.unwrap();
        for role in Role::ALL.iter().copied().filter(|role| *role != Role::Owner) {
            operator.add_user(slug, &email(role), "Somebody", role, passphrase()).await.unwrap();
        }
    }

    /// Logs the tenant's user of this role in.
    pub(crate) async fn caller(&self, router: &Router, slug: &str, role: Role) -> Caller {
        let nobody = Caller { router: router.clone(), headers: HeaderMap::new(), ip: HOME };
        let body = json!({ "tenant": slug, "email": email(role), "password": passphrase().expose() });
        let token = nobody.send("POST", "/v1/login", Some(&body)).await.expect(200).json();
        nobody.with("authorization", &format!("Bearer {}", token["access_token"].as_str().unwrap()))
    }

    /// The rows of one action in the trail, once there are so many: refusals are written behind the answer.
    pub(crate) async fn rows(&self, action: &str, wanted: usize) -> Vec<Value> {
        let mut rows = Vec::new();
        let found = tokio::time::timeout(Duration::from_secs(20), async {
            loop {
                let tail = self.engine.operator().audit_tail(None, 10_000).await.unwrap();
                let all = serde_json::to_value(&tail).unwrap();
                rows = all.as_array().unwrap().iter().filter(|row| row["action"] == action).cloned().collect();
                if rows.len() >= wanted {
                    return;
                }
                tokio::task::yield_now().await;
            }
        });
        let in_time = found.await.is_ok();
        assert!(in_time && rows.len() == wanted, "{wanted} rows of {action} expected: {rows:#?}");
        rows
    }

    /// The value of a series.
    async fn metric(&self, series: &str) -> u64 {
        let request = Request::get("/metrics").body(Body::empty()).unwrap();
        let answer = self.engine.ops_router().oneshot(request).await.unwrap();
        let text = answer.into_body().collect().await.unwrap().to_bytes();
        let text = std::str::from_utf8(&text).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().unwrap()
    }

    /// How many answers of this class a route has given.
    async fn answered(&self, method: &str, route: &str, class: &str) -> u64 {
        self.metric(&format!(
            "http_server_request_duration_seconds_count{{http_request_method=\"{method}\",http_route=\"{route}\",\
             http_response_status_code=\"{class}\"}}"
        ))
        .await
    }
}

fn email(role: Role) -> String {
    format!("{role}@same.example")
}

fn passphrase() -> Secret<String> {
    Secret::new("gravel-lantern-72-orbit".to_owned())
}

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// Somebody who sends requests.
#[derive(Clone)]
pub(crate) struct Caller {
    router: Router,
    headers: HeaderMap,
    ip: IpAddr,
}

impl Caller {
    /// Without a credential.
    pub(crate) fn nobody(router: &Router) -> Self {
        Self { router: router.clone(), headers: HeaderMap::new(), ip: HOME }
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(name, value.parse().unwrap());
        self
    }

    pub(crate) async fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let mut request =
            Request::builder().method(method).uri(path).header("host", "bells").body(Body::empty()).unwrap();
        request.headers_mut().extend(self.headers.clone());
        if let Some(body) = body {
            request.headers_mut().insert("content-type", "application/json".parse().unwrap());
            *request.body_mut() = body.to_string().into();
        }
        request.extensions_mut().insert(Peer(SocketAddr::new(self.ip, 4711)));
        answer(&self.router, request).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, None).await
    }
}

async fn answer(router: &Router, request: Request<Body>) -> Answer {
    let (parts, body) = router.clone().oneshot(request).await.unwrap().into_parts();
    Answer { status: parts.status.as_u16(), headers: parts.headers, body: body.collect().await.unwrap().to_bytes() }
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    #[track_caller]
    fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self
    }

    /// The answer, when it is this refusal: a problem that names its request.
    #[track_caller]
    pub(crate) fn refused(self, status: u16, code: &str) -> Self {
        let answer = self.expect(status);
        let problem = answer.json();
        assert_eq!((problem["code"].as_str(), answer.header("content-type")), (Some(code), "application/problem+json"));
        assert_eq!(problem["instance"].as_str(), Some(answer.header("x-request-id")));
        answer
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// What an outsider can tell two answers apart by: everything but the request's id and what is left of the limits.
    fn shape(&self) -> (u16, Vec<(String, String)>, Value) {
        let mut problem = self.json();
        problem.as_object_mut().unwrap().remove("instance");
        let own = |name: &str| name == "x-request-id" || name == "ratelimit";
        let headers = self.headers.iter().filter(|(name, _)| !own(name.as_str()));
        let mut headers: Vec<_> =
            headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
        headers.sort();
        (self.status, headers, problem)
    }
}

/// The application's own action.
struct Ring;

impl Action for Ring {
    const NAME: &'static str = "bells.ring";
    const ROLES: &'static [Role] = &[Role::Member];
}

async fn ring(permit: Permit<Ring>) -> Result<Found<String>, Failure> {
    Ok(Found(permit.user()?.user.to_string()))
}

async fn look(Path(name): Path<Name>) -> Result<Found<String>, Failure> {
    Ok(Found(name.name))
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Name {
    #[schemars(length(max = 40))]
    name: String,
}

async fn fall(_: Permit<ReadSelf>) -> Result<Done, Failure> {
    panic!("a mistake of the application's")
}

async fn wait(_: Permit<ReadSelf>) -> Result<Done, Failure> {
    std::future::pending().await
}

async fn upload(permit: Permit<Ring>, body: Bytes) -> String {
    format!("{} {}", permit.user().map(|who| who.role.to_string()).unwrap_or_default(), body.len())
}

fn read<P>(access: P) -> Read<P> {
    Read { summary: "Reads", access, rate: RateClass::Read, cache: Cache::Private }
}

fn write<P>(access: P) -> Write<P> {
    Write { summary: "Writes", access, rate: RateClass::Write, csrf: Csrf::Enforced, cache: Cache::Private }
}

fn bells() -> Api<u8> {
    let files = Router::new().route("/up", post(upload)).fallback(async || "the adopted router's own fallback");
    Api::new()
        .post("/bells", write(requires(Ring)), ring)
        .get("/bells/{name}", read(public("anybody may look")), look)
        .adopt("/files", write(requires(Ring)), because("streams"), files)
}

/// The application's plain routes. Not one of them may run.
fn plain() -> Router<u8> {
    let never = async || -> &'static str { panic!("a route that was not declared ran") };
    let inner = Router::new().route("/inner/{id}", get(never)).fallback(never);
    Router::new()
        .route("/own", get(never).post(never))
        .route("/spaced%20out", get(never))
        // In the way of declared ones: the same, another method of one, a pattern over one.
        .route("/bells", post(never).delete(never))
        .route("/bells/{id}/rope", get(never))
        .route("/files/{*rest}", any(never))
        .merge(Router::new().route("/merged", any(never)))
        .nest("/nested", inner)
        .nest_service("/service", get(never))
        .fallback(never)
        .layer(axum::middleware::from_fn(a_layer))
}

async fn a_layer(_: axum::extract::Request, _: axum::middleware::Next) -> String {
    panic!("a layer of the application's ran")
}

const UNDECLARED: &str = "bartizan_requests_refused_total{code=\"route.undeclared\"}";
const PANICS: &str = "bartizan_panics_total";

#[tokio::test]
async fn a_route_that_is_not_declared_looks_like_none_and_is_counted() {
    let site = Site::new().await;
    let router = site.engine.guard(plain(), bells().merge(site.engine.routes())).unwrap().with_state(7);
    site.tenant("acme").await;
    let nobody = Caller::nobody(&router);
    let member = site.caller(&router, "acme", Role::Member).await;
    let unknown = nobody.get("/nothing").await.refused(404, "request.not_found").shape();
    assert_eq!(site.metric(UNDECLARED).await, 0);

    let had = [
        ("GET", "/own"),
        ("HEAD", "/own"),
        ("POST", "/own"),
        ("PATCH", "/own"),
        ("OPTIONS", "/own"),
        ("GET", "/own?a=b"),
        ("GET", "/spaced%20out"),
        ("TRACE", "/merged"),
        ("GET", "/nested/inner/12"),
        ("GET", "/nested/inner/%2e%2e"),
        ("GET", "/bells/big/rope"),
        ("GET", "/service"),
    ];
    for (number, (method, path)) in had.into_iter().enumerate() {
        let caller = if number % 2 == 0 { &nobody } else { &member };
        let answer = caller.send(method, path, None).await;
        assert_eq!(answer.status, 404, "{method} {path}");
        if method != "HEAD" {
            let mut shape = answer.shape();
            shape.1.retain(|(name, _)| name != "content-length");
            let mut expected = unknown.clone();
            expected.1.retain(|(name, _)| name != "content-length");
            assert_eq!(shape, expected, "{method} {path}");
        }
        assert_eq!(site.metric(UNDECLARED).await, number as u64 + 1, "{method} {path}");
    }
    // Other spellings, and what only the application's fallbacks would answer, are paths that nobody has.
    // So is what lies deep in a nested service, of which the router knows only that it is somewhere there.
    for path in ["/own/", "//own", "/OWN", "/o%77n", "/nested", "/nested/other", "/nothing", "/service/of/any/depth"] {
        drop(nobody.get(path).await.refused(404, "request.not_found"));
    }
    assert_eq!(site.metric(UNDECLARED).await, had.len() as u64);
    assert_eq!(site.metric(PANICS).await, 0);
}

#[tokio::test]
async fn what_is_declared_is_decided_as_declared_whatever_the_application_has_there() {
    let site = Site::new().await;
    let router = site.engine.guard(plain(), bells().merge(site.engine.routes())).unwrap().with_state(7);
    site.tenant("acme").await;
    let nobody = Caller::nobody(&router);
    let member = site.caller(&router, "acme", Role::Member).await;
    let owner = site.caller(&router, "acme", Role::Owner).await;

    drop(nobody.send("POST", "/bells", None).await.refused(401, "auth.credential_missing"));
    drop(owner.send("POST", "/bells", None).await.refused(403, "access.denied"));
    let denied = site.rows("access.denied", 1).await;
    assert_eq!(denied[0]["details"]["action"], "bells.ring");
    let who = member.get("/v1/whoami").await.expect(200).json();
    assert_eq!(member.send("POST", "/bells", None).await.expect(200).json(), who["sub"]);
    // A method the application has and the declaration has not.
    let answer = member.send("DELETE", "/bells", None).await.refused(405, "request.method_not_allowed");
    assert_eq!(answer.header("allow"), "OPTIONS, POST");
    let answer = nobody.send("OPTIONS", "/bells/big", None).await.expect(204);
    assert_eq!(answer.header("allow"), "GET, HEAD, OPTIONS");
    // Decoded once, matched as written, HEAD as GET without a body.
    assert_eq!(nobody.get("/bells/big%2Fone%2541").await.expect(200).json(), json!("big/one%41"));
    assert!(nobody.send("HEAD", "/bells/big", None).await.expect(200).body.is_empty());
    for path in ["/bells/", "/bells/big/", "/BELLS/big", "/bells//big", "/bel%6cs/big"] {
        drop(nobody.get(path).await.refused(404, "request.not_found"));
    }
    // An adopted router is guarded as a whole, its fallback included, and may ask for the permit.
    drop(nobody.send("POST", "/files/up", None).await.refused(401, "auth.credential_missing"));
    drop(nobody.get("/files/other").await.refused(401, "auth.credential_missing"));
    drop(owner.get("/files/other").await.refused(403, "access.denied"));
    let answer = member.send("POST", "/files/up", Some(&json!("abc"))).await.expect(200);
    assert_eq!((&*answer.body, answer.header("cache-control")), (&b"member 5"[..], "no-store, max-age=0"));
    assert!(!answer.header("ratelimit").is_empty() && !answer.header("x-content-type-options").is_empty());
    assert_eq!(&*member.get("/files/other").await.expect(200).body, b"the adopted router's own fallback");

    assert_eq!(site.metric(UNDECLARED).await, 0);
    assert_eq!(site.answered("POST", "/bells", "2xx").await, 1);
    assert_eq!(site.answered("POST", "/bells", "4xx").await, 2);
    assert_eq!(site.answered("ANY", "/files", "2xx").await, 2);
    assert_eq!(site.answered("ANY", "/files", "4xx").await, 3);
}

#[tokio::test]
async fn the_built_in_routes_stand_beside_an_application_only_where_it_wants_them() {
    let site = Site::new().await;
    let without = Caller::nobody(&site.engine.guard(plain(), bells()).unwrap().with_state(7));
    for path in ["/v1/me", "/openapi.json", "/.well-known/jwks.json"] {
        drop(without.get(path).await.refused(404, "request.not_found"));
    }
    let with = site.engine.guard(plain(), bells().merge(site.engine.routes())).unwrap().with_state(7);
    let (with, own) = (Caller::nobody(&with), Caller::nobody(&site.engine.router()));
    let paths = async |caller: &Caller| caller.get("/openapi.json").await.expect(200).json()["paths"].clone();
    // Each document describes the table it is in.
    let (all, built_in) = (paths(&with).await, paths(&own).await);
    assert!(all["/bells"].is_object() && all["/v1/me"].is_object());
    assert!(built_in["/bells"].is_null() && built_in["/v1/me"].is_object());
    assert_eq!(with.get("/.well-known/jwks.json").await.body, own.get("/.well-known/jwks.json").await.body);
}

#[tokio::test]
async fn a_route_that_is_built_in_already_is_a_fault_and_no_panic() {
    let site = Site::new().await;
    let again = || Api::<u8>::new().post("/v1/login", write(requires(Ring)), ring);
    let faults = site.engine.guard(Router::new(), again().merge(site.engine.routes())).unwrap_err();
    assert!(faults.iter().any(|fault| fault.flaw == Flaw::Duplicate), "{faults}");
    assert!(site.engine.guard(Router::new(), again()).is_ok());
}

#[tokio::test]
async fn a_panic_is_a_500_of_its_request_and_of_nothing_else() {
    let site = Site::new().await;
    let api = Api::<u8>::new().post("/fall/{name}", write(requires(ReadSelf)), fall_named).merge(site.engine.routes());
    let api = api.get("/fall", read(requires(ReadSelf)), fall);
    let router = site.engine.guard(Router::new(), api).unwrap().with_state(7);
    site.tenant("acme").await;
    let member = site.caller(&router, "acme", Role::Member).await;
    for number in 1..=3 {
        let answer = member.get("/fall").await.refused(500, "server.internal");
        assert!(!String::from_utf8_lossy(&answer.body).contains("mistake"));
        assert!(!answer.header("x-content-type-options").is_empty());
        assert_eq!(answer.header("cache-control"), "no-store, max-age=0");
        assert_eq!(site.metric(PANICS).await, number);
        assert_eq!(site.answered("GET", "/fall", "5xx").await, number);
        drop(member.get("/v1/me").await.expect(200));
    }
    drop(member.send("POST", "/fall/deep", None).await.refused(500, "server.internal"));
    assert_eq!(site.answered("POST", "/fall/{name}", "5xx").await, 1);
    assert_eq!(site.metric("bartizan_faults_total").await, 4);
}

async fn fall_named(_: Permit<ReadSelf>, _: Path<Name>) -> Result<Done, Failure> {
    panic!("another mistake of the application's")
}

#[tokio::test]
async fn a_deadline_answers_408_for_a_handler_and_for_a_body_that_never_ends() {
    let site = Site::with(|settings| settings.request.deadline = Duration::from_millis(200)).await;
    let api = Api::<u8>::new().post("/wait", write(requires(ReadSelf)), wait).merge(site.engine.routes());
    let router = site.engine.guard(Router::new(), api).unwrap().with_state(7);
    site.tenant("acme").await;
    let member = site.caller(&router, "acme", Role::Member).await;
    drop(member.send("POST", "/wait", None).await.refused(408, "request.timeout"));
    assert_eq!(site.answered("POST", "/wait", "4xx").await, 1);
    let endless = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
    let request = Request::post("/v1/login").header("host", "bells").header("content-type", "application/json");
    let request = request.body(Body::from_stream(endless)).unwrap();
    drop(answer(&router, request).await.refused(408, "request.timeout"));
    drop(member.get("/v1/me").await.expect(200));
}

#[tokio::test]
async fn a_request_that_does_not_say_whom_it_is_for_is_refused_as_http_1_1_wants() {
    let site = Site::new().await;
    let router = site.engine.guard(plain(), bells()).unwrap().with_state(7);
    let asked = async |version, hosts: &[&str]| {
        let mut request = Request::get("/bells/big").version(version);
        for host in hosts {
            request = request.header("host", *host);
        }
        answer(&router, request.body(Body::empty()).unwrap()).await
    };
    for hosts in [&[][..], &["a.example", "a.example"]] {
        let refused = asked(http::Version::HTTP_11, hosts).await.refused(400, "request.header_invalid");
        assert!(refused.headers.contains_key("x-content-type-options"));
    }
    drop(asked(http::Version::HTTP_10, &["a", "b"]).await.refused(400, "request.header_invalid"));
    for (version, hosts) in
        [(http::Version::HTTP_11, &["a"][..]), (http::Version::HTTP_10, &[]), (http::Version::HTTP_2, &[])]
    {
        assert_ne!(asked(version, hosts).await.status, 400, "{version:?}");
    }
}

#[tokio::test]
async fn the_address_is_the_one_the_listener_tells_in_either_way() {
    let site = Site::with(|settings| settings.limits.address = Rate::per_minute(3, 3)).await;
    let router = site.engine.guard(plain(), bells()).unwrap().with_state(7);
    let ask = async |tell: &dyn Fn(&mut http::Extensions)| {
        let mut request = Request::get("/bells/big").header("host", "bells").body(Body::empty()).unwrap();
        tell(request.extensions_mut());
        answer(&router, request).await.status
    };
    let socket = |last| SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)), 4711);
    let nothing = |_: &mut http::Extensions| ();
    let peer = |extensions: &mut http::Extensions| {
        extensions.insert(Peer(socket(2)));
    };
    let connected = |extensions: &mut http::Extensions| {
        extensions.insert(ConnectInfo(socket(3)));
    };
    // The server's own word wins over what a layer of axum's may have put there.
    let both = |extensions: &mut http::Extensions| {
        extensions.insert(ConnectInfo(socket(3)));
        extensions.insert(Peer(socket(4)));
    };
    let ways: [&dyn Fn(&mut http::Extensions); 4] = [&nothing, &peer, &connected, &both];
    for tell in ways {
        let mut statuses = Vec::new();
        for _ in 0..4 {
            statuses.push(ask(tell).await);
        }
        assert_eq!(statuses, [200, 200, 200, 429]);
    }
}

#[tokio::test]
async fn the_example_keeps_tenants_apart_and_asks_for_permission() {
    let site = Site::new().await;
    let router = invoices::application(&site.engine).unwrap();
    site.tenant("acme").await;
    site.tenant("zenith").await;
    let acme = site.caller(&router, "acme", Role::Member).await;
    let zenith = site.caller(&router, "zenith", Role::Owner).await;
    let auditor = site.caller(&router, "acme", Role::Auditor).await;
    let invoice = json!({ "customer": "Ada", "cents": 1200 });

    let written = acme.send("POST", "/invoices", Some(&invoice)).await.expect(201).json();
    assert_eq!((&written["number"], &written["customer"]), (&json!(1), &json!("Ada")));
    assert_eq!(written["by"], acme.get("/v1/whoami").await.json()["sub"]);
    assert_eq!(auditor.get("/invoices/1").await.expect(200).json(), written);
    drop(auditor.send("POST", "/invoices", Some(&invoice)).await.refused(403, "access.denied"));
    drop(Caller::nobody(&router).get("/invoices").await.refused(401, "auth.credential_missing"));

    // The application's own row stands in the tenant's trail, with the actor the guard saw.
    let rows = auditor.get("/v1/audit?action=app.invoice.written").await.expect(200).json()["items"].clone();
    assert_eq!(rows.as_array().unwrap().len(), 1);
    assert_eq!((&rows[0]["actor"]["id"], &rows[0]["details"]), (&written["by"], &json!({ "cents": 1200 })));
    assert!(rows[0]["request"].is_string() && rows[0]["ip"] == HOME.to_string());

    // Another tenant's invoice and one that is not there are the same answer.
    let foreign = zenith.get("/invoices/1").await.refused(404, "request.not_found").shape();
    assert_eq!(foreign, zenith.get("/invoices/9").await.refused(404, "request.not_found").shape());
    assert_eq!(zenith.get("/invoices").await.expect(200).json()["items"], json!([]));
    assert_eq!(zenith.send("POST", "/invoices", Some(&invoice)).await.expect(201).json()["number"], 1);

    for wrong in [json!({ "customer": "", "cents": 1 }), json!({ "customer": "A", "cents": 0 }), json!({ "cents": 1 })]
    {
        drop(acme.send("POST", "/invoices", Some(&wrong)).await.refused(422, "request.input_invalid"));
    }
    let unknown = json!({ "customer": "A", "cents": 1, "tenant": "ten_0" });
    drop(acme.send("POST", "/invoices", Some(&unknown)).await.refused(422, "request.input_invalid"));
    assert_eq!(acme.get("/invoices").await.expect(200).json()["items"].as_array().unwrap().len(), 1);
    let document = acme.get("/openapi.json").await.expect(200).json();
    assert_eq!(document["paths"]["/invoices"]["post"]["x-access"]["requires"]["action"], "invoices.create");
}
