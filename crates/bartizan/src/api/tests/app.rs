//! The application under test.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::FromRef;
use axum::response::Response;
use bartizan_core::action::{Action, CreateUser, DeleteUser, IntrospectToken, ReadUsers, UpdateTenant};
use bartizan_core::audit::{Actor, Origin};
use bartizan_core::error::{Code, Refusal};
use bartizan_core::id::{RequestId, SessionId, TenantId, TokenId, UserId};
use bartizan_core::principal::{Principal, Role, Tier};
use bartizan_core::time::Millis;
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::answer;
use crate::api::*;
use crate::front::Visitor;
use crate::guard::{Admission, Client, Grant, Permit};

/// A gate that knows a caller by the role he claims: enough to see who is asked what, and when.
#[derive(Clone, Default)]
pub(super) struct RoleGate {
    pub(super) asked: Arc<AtomicUsize>,
    pub(super) strays: Arc<AtomicUsize>,
}

pub(super) const REQUEST: RequestId = RequestId::from_u128(7);

fn limits() -> HeaderMap {
    HeaderMap::from_iter([(http::HeaderName::from_static("ratelimit"), HeaderValue::from_static("\"user\";r=9"))])
}

impl Gate for RoleGate {
    async fn admit(&self, row: &Row, _: &Visitor, parts: &mut Parts) -> Result<Admission, Response> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let refuse = |code: Code| answer::refuse(code.into(), REQUEST);
        let mut grant = Grant::anonymous(REQUEST, None);
        if let Access::Requires { roles, .. } = row.access {
            let claimed = parts.headers.get("authorization").ok_or_else(|| refuse(Code::CredentialMissing))?;
            let role: Role = claimed.to_str().unwrap().parse().map_err(|_| refuse(Code::CredentialInvalid))?;
            if !roles.contains(&role) {
                return Err(refuse(Code::PermissionDenied));
            }
            let user = UserId::from_u128(1);
            let session = SessionId::from_u128(2);
            grant = Grant {
                actor: Actor::User { id: user, session: Some(session) },
                tenant: Some(TenantId::from_u128(3)),
                principal: Some(Principal {
                    tenant: TenantId::from_u128(3),
                    user,
                    session,
                    token: TokenId::from_u128(4),
                    role,
                    tier: Tier::Free,
                    expires: Millis(i64::MAX),
                }),
                origin: Origin::default(),
                client: Client::default(),
                idempotency: None,
            };
        }
        Ok(Admission { grant, headers: limits() })
    }

    async fn stray(&self, _: &mut Parts) -> Result<HeaderMap, Response> {
        self.strays.fetch_add(1, Ordering::Relaxed);
        Ok(limits())
    }
}

#[derive(Clone)]
pub(super) struct App {
    pub(super) users: Users,
    pub(super) keys: Document<Keys>,
}

#[derive(Clone)]
pub(super) struct Users(Arc<AtomicUsize>);

impl FromRef<App> for Users {
    fn from_ref(app: &App) -> Self {
        app.users.clone()
    }
}

impl FromRef<App> for Document<Keys> {
    fn from_ref(app: &App) -> Self {
        app.keys.clone()
    }
}

impl App {
    pub(super) fn new() -> Self {
        Self { users: Users(Arc::default()), keys: Document::new(&Keys { keys: vec!["k1".into()] }).unwrap() }
    }

    pub(super) fn created(&self) -> usize {
        self.users.0.load(Ordering::Relaxed)
    }
}

/// A person to be added.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewUser {
    /// How he is called.
    #[schemars(length(min = 1, max = 100))]
    pub(super) name: String,
    #[serde(default)]
    pub(super) role: Option<Role>,
}

/// A person.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct User {
    pub(super) id: UserId,
    pub(super) name: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Search {
    /// How many.
    #[schemars(range(min = 1, max = 100))]
    limit: Option<u8>,
    #[schemars(length(max = 200))]
    after: Option<String>,
    role: Option<Role>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Logout {
    #[serde(default)]
    all: bool,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Token {
    #[schemars(length(max = 4096))]
    pub(super) token: String,
    #[schemars(length(max = 64))]
    pub(super) token_type_hint: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Keys {
    keys: Vec<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Seat {
    #[schemars(length(max = 40))]
    room: String,
    #[schemars(range(min = 1, max = 999))]
    seat: u16,
}

async fn list_users(_: Permit<ReadUsers>, Query(search): Query<Search>) -> Result<Page<User>, Failure> {
    let _ = search.role;
    let user = User { id: UserId::from_u128(1), name: format!("{:?}", search.limit) };
    Ok(Page { items: vec![user], next: search.after })
}

/// The body stands first: the order of arguments is free.
async fn create_user(
    Body(new): Body<NewUser>,
    permit: Permit<CreateUser>,
    Service(users): Service<Users>,
) -> Result<Created<User>, Refusal> {
    if new.name == "taken" {
        return Err(Code::EmailTaken.into());
    }
    let _ = new.role;
    users.0.fetch_add(1, Ordering::Relaxed);
    let key = permit.grant().idempotency.as_ref().map_or(new.name, |once| once.key.clone());
    Ok(Created(User { id: permit.principal().unwrap().user, name: key }))
}

async fn user(_: Permit<ReadUsers>, Path(id): Path<UserId>) -> Result<Found<User>, Failure> {
    Ok(Found(User { id, name: "Ada".into() }))
}

async fn delete_user(_: Permit<DeleteUser>, Path(id): Path<UserId>) -> Result<Done, Failure> {
    match id.as_u128() {
        404 => Err(Code::NotFound.into()),
        500 => Err(Failure::fault(std::io::Error::other("disk on fire at /var/lib/secret"))),
        _ => Ok(Done),
    }
}

async fn take_seat(_: Visit, Path(seat): Path<Seat>) -> Result<Found<String>, Failure> {
    Ok(Found(format!("{} {}", seat.room, seat.seat)))
}

async fn logout(visit: Visit, body: Option<Body<Logout>>) -> Result<Found<bool>, Failure> {
    assert_eq!(visit.request(), Some(REQUEST));
    assert_eq!(visit.ip(), None);
    Ok(Found(body.is_some_and(|Body(logout)| logout.all)))
}

async fn introspect(_: Permit<IntrospectToken>, Form(token): Form<Token>) -> Result<Found<String>, Failure> {
    Ok(Found(token.token + &token.token_type_hint.unwrap_or_default()))
}

async fn revoke(Form(_): Form<Token>) -> Result<Accepted, Failure> {
    Ok(Accepted)
}

async fn keys(Service(keys): Service<Document<Keys>>) -> Result<Document<Keys>, Failure> {
    Ok(keys)
}

pub(super) fn read<P>(access: P) -> Read<P> {
    Read { summary: "Reads", access, rate: RateClass::Read, cache: Cache::Private }
}

pub(super) fn write<P>(access: P) -> Write<P> {
    Write { summary: "Writes", access, rate: RateClass::Write, csrf: Csrf::Enforced, cache: Cache::Private }
}

pub(super) fn defaults() -> Defaults {
    let info = Info { title: "Tiny".into(), version: "1".into(), license: "MIT OR Apache-2.0".into() };
    Defaults { body: 1024, info }
}

async fn upload(permit: Permit<UpdateTenant>, body: axum::body::Bytes) -> String {
    format!("{} {}", permit.principal().unwrap().role, body.len())
}

async fn mistaken(_: Permit<CreateUser>) -> &'static str {
    "in"
}

pub(super) fn api() -> Api<App> {
    let files = axum::Router::new()
        .route("/up", axum::routing::put(upload))
        .route("/mistaken", axum::routing::get(mistaken))
        .fallback(async || "own fallback");
    let users = Api::new()
        .get("/v1/users", read(requires(ReadUsers)), list_users)
        .tag("users")
        .post("/v1/users", write(requires(CreateUser)), create_user)
        .tag("users")
        .body_limit(64)
        .get("/v1/users/{id}", read(requires(ReadUsers)), user)
        .delete("/v1/users/{id}", write(requires(DeleteUser)), delete_user);
    let keys_age = Cache::Public(Duration::from_secs(300));
    let open = Write { csrf: Csrf::Exempt("carries its own credential"), ..write(public("asked by resource servers")) };
    Api::new()
        .merge(users)
        .put("/v1/seats/{room}/{seat}", write(public("a test")), take_seat)
        .post("/v1/logout", write(public("a test")), logout)
        .post("/oauth/introspect", write(requires(IntrospectToken)), introspect)
        .post("/oauth/revoke", open, revoke)
        .get("/keys.json", Read { cache: keys_age, ..read(public("public keys")) }, keys)
        .adopt("/files", write(requires(UpdateTenant)), because("streams"), files)
}

/// An action of the application's own.
#[derive(Clone, Copy)]
pub(super) struct Ring;

impl Action for Ring {
    const NAME: &'static str = "bells.ring";
    const ROLES: &'static [Role] = &[Role::Member];
}
