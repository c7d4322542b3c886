//! Facts into verdicts: the facts are made up, everything behind the decision is real.

use futures_util::FutureExt as _;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bartizan_core::error::Code;
use bartizan_core::id::RequestId;
use bartizan_core::principal::{Role, Tier};
use bartizan_core::time::Millis;
use http::{HeaderMap, Method, Uri};
use tempfile::TempDir;

use super::{Check, Decider, RequestFacts, Verdict};
use crate::api::Row;
use crate::embed::tests::{NOW, engine, passphrase, token};
use crate::engine::Engine;
use crate::settings::{Rate, TierLimits};

/// Requests an address or a user may send.
const PLENTY: u32 = 200;

struct World {
    engine: Engine,
    _dir: TempDir,
    owner: String,
    member: String,
    /// The same, having used up what they may.
    spent_owner: String,
    spent_member: String,
}

async fn world() -> World {
    let (engine, dir) = engine(|settings| {
        let open = Rate::per_minute(1_000_000, 1_000_000);
        let limits = TierLimits { user: Rate::per_minute(PLENTY, PLENTY), tenant: open };
        settings.limits.tiers.insert(Tier::Free, limits);
        settings.limits.address = Rate::per_minute(PLENTY, PLENTY);
        // A ban would be another no of the same check: kept out of the way.
        settings.limits.ban_after = 1_000_000;
    })
    .await;
    let operator = engine.operator();
    operator.add_tenant("acme", "Owner", "owner@acme.example", passphrase()).await.unwrap();
    for (email, role) in [
        ("member@acme.example", Role::Member),
        ("spent-owner@acme.example", Role::Owner),
        ("spent-member@acme.example", Role::Member),
    ] {
        operator.add_user("acme", email, "Somebody", role, passphrase()).await.unwrap();
    }
    operator.add_block("198.51.100.0/24".parse().unwrap(), None, "a test").await.unwrap();
    let world = World {
        owner: token(&engine, "owner@acme.example").await,
        member: token(&engine, "member@acme.example").await,
        spent_owner: token(&engine, "spent-owner@acme.example").await,
        spent_member: token(&engine, "spent-member@acme.example").await,
        engine,
        _dir: dir,
    };
    for spent in [&world.spent_owner, &world.spent_member] {
        for number in 0..PLENTY {
            drop(world.decide("GET /v1/whoami", address(2, number), &bearer(spent), NOW));
        }
    }
    for _ in 0..PLENTY {
        let (headers, uri) = (HeaderMap::new(), Uri::from_static("/nothing"));
        assert!(matches!(
            at_once(world.decider().stray(&facts(SPENT, &Method::GET, &uri, &headers), NOW)),
            Verdict::Allow { .. }
        ));
    }
    world
}

const SPENT: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));
const BLOCKED: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));

/// One of many addresses, so that none meets its limit by chance.
fn address(network: u8, number: u32) -> IpAddr {
    let [_, _, third, fourth] = number.to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(10, network, third, fourth))
}

fn bearer(token: &str) -> HeaderMap {
    headers(&[("authorization", &format!("Bearer {token}"))])
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, value.parse().unwrap());
    }
    headers
}

fn facts<'a>(ip: IpAddr, method: &'a Method, uri: &'a Uri, headers: &'a HeaderMap) -> RequestFacts<'a> {
    RequestFacts { id: RequestId::from_u128(7), ip: Some(ip), method, uri, headers }
}

impl World {
    fn decider(&self) -> &Decider {
        self.engine.door.guard.decider()
    }

    fn row(&self, name: &str) -> &Row {
        self.engine.table().rows().iter().find(|row| row.name() == name).unwrap()
    }

    fn decide(&self, row: &str, ip: IpAddr, headers: &HeaderMap, now: Millis) -> Verdict {
        let (method, path) = row.split_once(' ').unwrap();
        let (method, uri) = (Method::from_bytes(method.as_bytes()).unwrap(), path.parse().unwrap());
        at_once(self.decider().decide(&facts(ip, &method, &uri, headers), self.row(row), now))
    }
}

/// On one machine a decision waits for nothing.
fn at_once(decision: impl Future<Output = Verdict>) -> Verdict {
    decision.now_or_never().expect("a decision on one machine waits for nothing")
}

#[track_caller]
fn denied(verdict: Verdict) -> (Check, &'static str, Code) {
    match verdict {
        Verdict::Deny { reason, refusal, .. } => (reason.check, reason.word, refusal.code),
        Verdict::Allow { .. } => panic!("allowed"),
    }
}

/// Every set of faults a request can have at once: 128 of them. The first check that fails is the one told, whatever
/// else is wrong, and those before it are the ones that passed.
#[tokio::test]
async fn of_everything_wrong_with_a_request_the_first_check_tells() {
    let world = world().await;
    for set in 0..(1u32 << Check::ALL.len()) {
        let has = |check: Check| set & (1 << (check as u32)) != 0;
        let ip = match (has(Check::BlockList), has(Check::AddressLimits)) {
            (true, _) => BLOCKED,
            (false, true) => SPENT,
            (false, false) => address(1, set),
        };
        let genuine = match (has(Check::PrincipalLimits), has(Check::Permission)) {
            (false, false) => &world.owner,
            (false, true) => &world.member,
            (true, false) => &world.spent_owner,
            (true, true) => &world.spent_member,
        };
        let token = if has(Check::Credential) { "x.y.z" } else { genuine };
        // A page of another site cannot write the header down: it has a cookie instead.
        let mut headers = if has(Check::Origin) {
            headers(&[("cookie", "a=b"), ("sec-fetch-site", "cross-site")])
        } else {
            bearer(token)
        };
        if has(Check::CredentialForm) {
            headers.append("authorization", "Bearer x".parse().unwrap());
            headers.append("authorization", "Bearer y".parse().unwrap());
        }
        let verdict = world.decide("POST /v1/users", ip, &headers, NOW);
        let first = Check::ALL.iter().copied().find(|check| has(*check));
        match (verdict, first) {
            (Verdict::Allow { principal, .. }, None) => assert_eq!(principal.unwrap().role, Role::Owner),
            (Verdict::Deny { reason, .. }, Some(first)) => {
                assert_eq!(reason.check, first, "{set:07b}");
                assert!(reason.passed().eq(Check::ALL.iter().copied().filter(|check| *check < first)));
            }
            (verdict, first) => panic!("{set:07b}: {first:?} expected, {verdict:?}"),
        }
    }
}

#[tokio::test]
async fn each_check_says_no_in_its_own_words() {
    let world = world().await;
    let users = "GET /v1/users";
    let none = HeaderMap::new();
    let later = NOW + Duration::from_secs(301);
    let cross = headers(&[("cookie", "a=b"), ("sec-fetch-site", "cross-site")]);
    let basic = headers(&[("authorization", "Basic eDp5")]);
    let mut number = 0;
    let mut expect = |row, ip: Option<IpAddr>, headers: &HeaderMap, now, expected: (Check, &str, Code)| {
        number += 1;
        let ip = ip.unwrap_or_else(|| address(3, number));
        assert_eq!(denied(world.decide(row, ip, headers, now)), expected, "{row} {expected:?}");
    };
    expect(users, Some(BLOCKED), &none, NOW, (Check::BlockList, "access.address_blocked", Code::AddressBlocked));
    expect(users, Some(SPENT), &none, NOW, (Check::AddressLimits, "limit.quota_exceeded", Code::QuotaExceeded));
    expect(users, None, &basic, NOW, (Check::CredentialForm, "auth.credential_invalid", Code::CredentialInvalid));
    expect("POST /v1/login", None, &cross, NOW, (Check::Origin, "request.cross_site", Code::CrossSite));
    expect(users, None, &none, NOW, (Check::Credential, "auth.credential_missing", Code::CredentialMissing));
    let expired = (Check::Credential, "expired", Code::CredentialExpired);
    expect(users, None, &bearer(&world.owner), later, expired);
    let spent = bearer(&world.spent_member);
    expect(users, None, &spent, NOW, (Check::PrincipalLimits, "limit.quota_exceeded", Code::QuotaExceeded));
    let member = bearer(&world.member);
    expect(users, None, &member, NOW, (Check::Permission, "users.read", Code::PermissionDenied));
    world.engine.operator().disable_user("acme", "member@acme.example").await.unwrap();
    expect(users, None, &member, NOW, (Check::Credential, "revoked", Code::CredentialRevoked));
}

#[tokio::test]
async fn only_a_missing_permission_is_recorded_with_the_name_of_who_lacks_it() {
    let world = world().await;
    let verdict = world.decide("GET /v1/users", address(4, 1), &bearer(&world.member), NOW);
    let Verdict::Deny { record: Some(record), .. } = verdict else { panic!("not recorded") };
    assert_eq!((record.0.role, record.1.action()), (Role::Member, "access.denied"));
    let verdict = world.decide("GET /v1/users", address(4, 2), &bearer("x.y.z"), NOW);
    assert!(matches!(verdict, Verdict::Deny { record: None, .. }));
}

/// A public route believes nothing and asks for nothing, but block list, limits and origin stand before it too.
#[tokio::test]
async fn a_public_route_has_the_first_four_checks() {
    let world = world().await;
    for headers in [HeaderMap::new(), bearer("x.y.z"), bearer(&world.owner)] {
        let verdict = world.decide("POST /v1/login", address(5, 1), &headers, NOW);
        assert!(matches!(verdict, Verdict::Allow { principal: None, .. }));
    }
    assert_eq!(denied(world.decide("POST /v1/login", BLOCKED, &HeaderMap::new(), NOW)).0, Check::BlockList);
    assert_eq!(denied(world.decide("GET /openapi.json", SPENT, &HeaderMap::new(), NOW)).0, Check::AddressLimits);
}

/// A listener that forgets to say who is connected must not switch the limits off.
#[tokio::test]
async fn without_an_address_all_requests_share_the_limits_of_one() {
    let world = world().await;
    let (method, uri, headers) = (Method::GET, Uri::from_static("/v1/whoami"), bearer(&world.owner));
    let facts = RequestFacts { ip: None, ..facts(SPENT, &method, &uri, &headers) };
    let row = world.row("GET /v1/whoami");
    // Those that logged in while the world was made came without an address too.
    let admitted = (0..PLENTY + 1)
        .take_while(|_| matches!(at_once(world.decider().decide(&facts, row, NOW)), Verdict::Allow { .. }));
    assert_eq!(admitted.count(), PLENTY as usize - 4);
    assert_eq!(denied(at_once(world.decider().decide(&facts, row, NOW))).0, Check::AddressLimits);
}
