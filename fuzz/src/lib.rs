//! What is fuzzed, and what must hold: one method a target. Each must come back for any bytes; a panic is the finding.
//!
//! Used twice: by the targets in `fuzz_targets/`, and by a test of the main workspace that replays the corpus.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use axum::body::Body as RawBody;
use bartizan::Peer;
use bartizan::api::{Api, Body, Cache, Csrf, Failure, Form, Found, Path, Query, RateClass, Read, Write, public};
use bartizan::engine::{Engine, create_secrets};
use bartizan::settings::{Password as Hashing, Rate, Settings, TierLimits};
use bartizan_core::audit::EventKind;
use bartizan_core::error::Code;
use bartizan_core::input::{
    AuditActionFilter, Cursor, Email, HumanName, IdempotencyKey, NewPassword, PageLimit, Password, RefreshToken,
    TenantSlug, TokenText,
};
use bartizan_core::json::{Limits, MAX_FAULTS, parse, scan};
use bartizan_core::limit::KeyMaker;
use bartizan_core::net::{Proxies, canonical};
use bartizan_core::principal::Tier;
use bartizan_core::secret::Secret;
use bartizan_core::time::Millis;
use bartizan_core::token::{KeySet, VerificationKey, Verifier};
use bartizan_store::state::{BanPolicy, EmbeddedState, Restored};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Method, Request};
use http_body_util::BodyExt;
use schemars::JsonSchema;
use serde::Deserialize;
use tempfile::TempDir;
use tower::ServiceExt;

const NOW: Millis = Millis(1_900_000_000_000);
const ISSUER: &str = "https://issuer.example";
const AUDIENCE: &str = "bartizan";
/// Fewer counters than a snapshot can claim.
const MAX_KEYS: usize = 64;

/// One target: comes back, or panics, which is the finding.
pub type Target = fn(&Bench, &[u8]);

/// The targets by name, as the folders of the corpus are called.
pub const TARGETS: &[(&str, Target)] = &[
    ("address", Bench::address),
    ("json", Bench::json),
    ("request", Bench::request),
    ("snapshot", Bench::snapshot),
    ("token", Bench::token),
    ("words", Bench::words),
];

/// What the targets need, each part made when it is first used.
pub struct Bench {
    signer: LazyLock<Signer>,
    shelf: LazyLock<TempDir>,
    door: LazyLock<Door>,
}

impl Default for Bench {
    fn default() -> Self {
        Self::new()
    }
}

impl Bench {
    /// An empty bench.
    pub fn new() -> Self {
        let shelf = || tempfile::tempdir().expect("a directory for snapshots");
        Self { signer: LazyLock::new(Signer::new), shelf: LazyLock::new(shelf), door: LazyLock::new(Door::open) }
    }

    /// First byte: who is connected. Rest: lines of `X-Forwarded-For`.
    pub fn address(&self, bytes: &[u8]) {
        let Some((first, rest)) = bytes.split_first() else { return };
        let peers = ["10.1.1.1", "203.0.113.9", "::ffff:10.2.2.2", "fd00::1", "2001:db8::1", "::ffff:203.0.113.9"];
        let peer: IpAddr = peers[usize::from(*first) % peers.len()].parse().expect("an address");
        let trusted = ["10.0.0.0/8", "fd00::/8"].map(|net| net.parse().expect("a network"));
        let proxies = Proxies::new(trusted);
        let lines: Vec<&[u8]> = rest.split(|byte| *byte == b'\n').collect();
        let found = proxies.client(peer, lines.iter().copied());
        assert_eq!(found, canonical(found));
        if !proxies.trusts(peer) {
            assert_eq!(found, canonical(peer), "believed a stranger");
        }
        let joined = lines.join(&b","[..]);
        assert_eq!(proxies.client(peer, [&joined[..]]), found, "lines and commas mean the same");
        // What a client writes stands on the left of what the proxies append.
        if !proxies.trusts(found) {
            let spoofed = [&b"192.0.2.77, 10.9.9.9,"[..], &joined].concat();
            assert_eq!(proxies.client(peer, [&spoofed[..]]), found, "spoofed");
        }
    }

    /// A JSON text.
    pub fn json(&self, bytes: &[u8]) {
        let limits = Limits::default();
        let acceptable = scan(bytes, &limits).is_ok();
        if acceptable {
            serde_json::from_slice::<serde_json::Value>(bytes).expect("what we accept, others read");
        }
        match parse::<Everything>(bytes, &limits) {
            Ok(_) => assert!(acceptable),
            Err(refusal) if refusal.code == Code::JsonInvalid => assert!(!acceptable),
            Err(refusal) => {
                assert!(acceptable && refusal.code == Code::InputInvalid);
                assert!((1..=MAX_FAULTS).contains(&refusal.errors.len()), "{refusal:?}");
                assert!(refusal.errors.iter().all(|error| error.pointer.is_empty() || error.pointer.starts_with('/')));
            }
        }
    }

    /// Even first byte: a token, or a key, as sent. Odd: a header and a payload, parted by a zero byte, to be signed.
    pub fn token(&self, bytes: &[u8]) {
        let Some((first, rest)) = bytes.split_first() else { return };
        let Signer { pair, verifier } = &*self.signer;
        if first % 2 == 0 {
            if let Ok(text) = std::str::from_utf8(rest) {
                assert!(verifier.verify(text, NOW).is_err(), "forged");
            }
            if let Ok(key) = VerificationKey::from_jwk(rest) {
                assert!(!key.kid().is_empty());
            }
            let _ = KeySet::from_jwks(rest);
            return;
        }
        let mut halves = rest.splitn(2, |byte| *byte == 0);
        let [header, payload] = [(); 2].map(|()| URL_SAFE_NO_PAD.encode(halves.next().unwrap_or_default()));
        let input = format!("{header}.{payload}");
        let token = format!("{input}.{}", URL_SAFE_NO_PAD.encode(pair.sign(input.as_bytes())));
        if let Ok(claims) = verifier.verify(&token, NOW) {
            assert_eq!((&*claims.iss, &*claims.aud), (ISSUER, AUDIENCE));
            assert!(claims.exp > NOW && verifier.check_time(&claims, NOW).is_ok());
        }
    }

    /// A word as a person or a program would send it.
    pub fn words(&self, bytes: &[u8]) {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        macro_rules! settled {
            ($($type:ident $print:ident $most:literal,)+) => {$(
                if let Ok(word) = $type::parse(text) {
                    let printed = word.$print();
                    assert!(printed.chars().count() <= $most, stringify!($type));
                    assert!(!printed.chars().any(char::is_control), stringify!($type));
                    let again = $type::parse(printed).expect("what a type prints, it reads");
                    assert_eq!(again.$print(), printed, stringify!($type));
                }
            )+};
        }
        settled! {
            Email as_str 254,
            HumanName as_str 100,
            TenantSlug as_str 63,
            Cursor as_str 1024,
            IdempotencyKey as_str 255,
            Password expose 256,
            RefreshToken expose 128,
            TokenText expose 8192,
        }
        if let Ok(password) = NewPassword::parse(text) {
            assert!(password.password().characters() <= 256);
        }
        if let Ok(limit) = PageLimit::parse(text) {
            assert!((1..=100).contains(&limit.number()));
        }
        if let Ok(filter) = AuditActionFilter::parse(text) {
            assert!(EventKind::ACTIONS.contains(&filter.as_str()));
        }
    }

    /// Even first byte: the file as it is. Odd: the rest of it, put under this installation's name and seal.
    pub fn snapshot(&self, bytes: &[u8]) {
        let Some((first, rest)) = bytes.split_first() else { return };
        let keys = KeyMaker::new(&Secret::new([7; 32]));
        let mut file = rest.to_vec();
        if first % 2 == 1 {
            if let Some(fingerprint) = file.get_mut(16..24) {
                fingerprint.copy_from_slice(&keys.fingerprint());
            }
            let mut seal = keys.digest();
            seal.update(&file);
            file.extend_from_slice(&seal.finish());
        }
        let path = self.shelf.path().join(format!("{:?}.snapshot", std::thread::current().id()));
        std::fs::write(&path, &file).expect("a file on the shelf");
        let bans = BanPolicy::new(100, Duration::from_secs(60)).expect("a policy");
        let state = EmbeddedState::new(MAX_KEYS, bans, keys);
        match state.load(&path, NOW).expect("any content is an answer") {
            Restored::Counters { keys, dropped, .. } => {
                assert!(keys <= MAX_KEYS && keys + dropped <= file.len() / 24);
                // What was taken over can be written and read again.
                state.sweep(NOW);
                state.snapshot(&path, NOW).expect("written");
                assert!(!matches!(state.load(&path, NOW), Ok(Restored::SetAside { .. })));
            }
            Restored::SetAside { moved_to, .. } => {
                assert!(!path.exists());
                std::fs::remove_file(moved_to).expect("it was moved there");
            }
            Restored::Nothing => panic!("there is a file"),
        }
        let _ = std::fs::remove_file(&path);
    }

    /// A request as text: method and target, header lines, an empty line, the body.
    pub fn request(&self, bytes: &[u8]) {
        let mut lines = bytes.splitn(2, |byte| *byte == b'\n');
        let (first, mut rest) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        let Some(space) = first.iter().position(|byte| *byte == b' ') else { return };
        let mut request = Request::builder().method(&first[..space]).uri(&first[space + 1..]);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line = &rest[..end];
            rest = &rest[end + 1..];
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { break };
            request = request.header(&line[..colon], line[colon + 1..].trim_ascii());
        }
        if let Ok(request) = request.body(RawBody::from(rest.to_vec())) {
            self.door.knock(request);
        }
    }
}

/// A type with something of everything that bodies are made of.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "it is only read into")]
struct Everything {
    #[serde(default)]
    name: Option<HumanName>,
    #[serde(default)]
    email: Option<Email>,
    #[serde(default)]
    bytes: Vec<u8>,
    #[serde(default)]
    tier: Option<Tier>,
    #[serde(default)]
    number: f64,
    #[serde(default)]
    large: Option<i64>,
    #[serde(default)]
    map: BTreeMap<String, bool>,
    #[serde(default)]
    inner: Option<Box<Everything>>,
    #[serde(default)]
    any: serde_json::Value,
}

/// Signs whatever it is given, with a key that is believed.
struct Signer {
    pair: Ed25519KeyPair,
    verifier: Verifier,
}

impl Signer {
    fn new() -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a seed");
        let x = URL_SAFE_NO_PAD.encode(pair.public_key());
        let jwk = format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"k","x":"{x}"}}"#);
        let key = VerificationKey::from_jwk(jwk.as_bytes()).expect("a key");
        let keys = KeySet::new([key]).expect("a set");
        Self { pair, verifier: Verifier::new(keys.into(), ISSUER, AUDIENCE).expect("no MAC key") }
    }
}

/// The whole stack, in process.
struct Door {
    router: axum::Router,
    runtime: tokio::runtime::Runtime,
    _engine: Engine,
    _dir: TempDir,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Search {
    #[schemars(length(max = 40))]
    text: Option<String>,
    #[serde(default)]
    #[schemars(range(min = 0, max = 9))]
    limit: u8,
    tier: Option<Tier>,
    email: Option<Email>,
}

impl Search {
    fn told(self) -> Found<String> {
        let Search { text, limit, tier, email } = self;
        Found(format!("{text:?} {limit} {tier:?} {email:?}"))
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Name {
    #[schemars(length(max = 40))]
    name: String,
}

async fn query(Query(search): Query<Search>) -> Result<Found<String>, Failure> {
    Ok(search.told())
}

async fn form(Form(search): Form<Search>) -> Result<Found<String>, Failure> {
    Ok(search.told())
}

async fn body(Body(search): Body<Search>) -> Result<Found<String>, Failure> {
    Ok(search.told())
}

async fn path(Path(name): Path<Name>) -> Result<Found<String>, Failure> {
    Ok(Found(name.name))
}

impl Door {
    fn open() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let dir = tempfile::tempdir().expect("a directory");
        let mut settings = Settings::embedded(dir.path());
        // Nothing but the reading of input shall decide.
        let open = Rate::per_minute(1_000_000_000, 1_000_000_000);
        for tier in Tier::ALL {
            settings.limits.tiers.insert(*tier, TierLimits { user: open, tenant: open });
        }
        let limits = &mut settings.limits;
        (limits.address, limits.network, limits.ban_after) = (open, open, 1_000_000_000);
        settings.password = Hashing { min_length: 15, memory_kib: 8, passes: 1, lanes: 1, workers: 1, queue: 100 };
        create_secrets(&settings).expect("secrets");
        let engine = runtime.block_on(Engine::start(settings)).expect("an engine");
        let access = public("a fuzzer");
        let read = Read { summary: "Reads", access, rate: RateClass::Read, cache: Cache::Private };
        let csrf = Csrf::Enforced;
        let write = Write { summary: "Writes", access, rate: RateClass::Write, csrf, cache: Cache::Private };
        let own = Api::<()>::new().get("/q", read, query).get("/p/{name}", read, path);
        let own = own.post("/f", write, form).post("/b", write, body).body_limit(4096);
        let router = engine.guard(axum::Router::new(), own.merge(engine.routes())).expect("no faults");
        Self { router, runtime, _engine: engine, _dir: dir }
    }

    /// Any request has an answer that is not our fault, and looks like one of ours.
    fn knock(&self, mut request: Request<RawBody>) {
        request.extensions_mut().insert(Peer(SocketAddr::from(([192, 0, 2, 1], 4711))));
        let bare = request.method() == Method::HEAD;
        let answer = self.runtime.block_on(async {
            let (parts, body) = self.router.clone().oneshot(request).await.expect("never an error").into_parts();
            (parts, body.collect().await.expect("a whole body").to_bytes())
        });
        let (parts, body) = answer;
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        assert!(parts.status.as_u16() < 500, "{parts:?}");
        assert!(header("x-request-id").starts_with("req_") && header("x-content-type-options") == "nosniff");
        if parts.status.is_client_error() {
            assert_eq!(header("content-type"), "application/problem+json");
            assert_eq!(header("cache-control"), "no-store, max-age=0");
            let problem: serde_json::Value = if bare { return } else { serde_json::from_slice(&body).expect("JSON") };
            let known = Code::ALL.iter().find(|code| problem["code"] == code.as_str()).expect("a code");
            assert_eq!(known.status(), parts.status.as_u16());
        }
    }
}
