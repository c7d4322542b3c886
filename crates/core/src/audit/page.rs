//! Keeps `docs/events.md` equal to the events: names, targets, details, effects.

use super::effects::{Effect, effects};
use super::event::EventKind;
use crate::id::{BlockId, SessionId, TenantId, TokenId, UserId};
use crate::principal::{Role, Tier};
use crate::store_life::StoreLife;
use crate::time::Millis;

const TENANT: TenantId = TenantId::from_u128(1);
const USER: UserId = UserId::from_u128(2);
const SESSION: SessionId = SessionId::from_u128(3);
const BLOCK: BlockId = BlockId::from_u128(4);
const TOKEN: TokenId = TokenId::from_u128(5);

/// The event declared after `kind`; without a catch-all, so that a new one does not compile until it stands here.
fn next(kind: &EventKind) -> Option<EventKind> {
    let (tenant, user, session, token, block, epoch) = (TENANT, USER, SESSION, TOKEN, BLOCK, 7);
    Some(match kind {
        EventKind::ServerStarted => EventKind::ServerStopped,
        EventKind::ServerStopped => EventKind::ConfigReloaded,
        EventKind::ConfigReloaded => EventKind::ClockAccepted { ahead: 1, ended: 2, distrusted: 3 },
        EventKind::ClockAccepted { .. } => EventKind::StateLifeBegan { life: StoreLife { process: [1; 20], birth: 1 } },
        EventKind::StateLifeBegan { .. } => EventKind::SigningKeyCreated { kid: "kid".into() },
        EventKind::SigningKeyCreated { .. } => {
            EventKind::SigningKeyRotated { kid: "kid".into(), retired: "kid".into() }
        }
        EventKind::SigningKeyRotated { .. } => EventKind::SigningKeyRemoved { kid: "kid".into() },
        EventKind::SigningKeyRemoved { .. } => EventKind::TenantCreated { tenant, owner: user },
        EventKind::TenantCreated { .. } => EventKind::TenantUpdated { fields: vec!["name"] },
        EventKind::TenantUpdated { .. } => EventKind::TenantTierChanged { tenant, from: Tier::Free, to: Tier::Pro },
        EventKind::TenantTierChanged { .. } => EventKind::TenantSuspended { tenant, epoch },
        EventKind::TenantSuspended { .. } => EventKind::TenantResumed { tenant },
        EventKind::TenantResumed { .. } => EventKind::UserCreated { user, role: Role::Member },
        EventKind::UserCreated { .. } => EventKind::UserUpdated { user, fields: vec!["name"] },
        EventKind::UserUpdated { .. } => {
            EventKind::UserRoleChanged { user, from: Role::Member, to: Role::Admin, epoch }
        }
        EventKind::UserRoleChanged { .. } => EventKind::UserDisabled { user, epoch },
        EventKind::UserDisabled { .. } => EventKind::UserEnabled { user },
        EventKind::UserEnabled { .. } => EventKind::UserDeleted { user, epoch },
        EventKind::UserDeleted { .. } => EventKind::PasswordChanged { user, ended: vec![session, session] },
        EventKind::PasswordChanged { .. } => EventKind::LoggedIn { user, session },
        EventKind::LoggedIn { .. } => EventKind::LoginFailed { user: Some(user), reason: "credentials" },
        EventKind::LoginFailed { .. } => EventKind::TokenRefreshed { session },
        EventKind::TokenRefreshed { .. } => EventKind::RefreshReused { session, user },
        EventKind::RefreshReused { .. } => EventKind::LoggedOut { session },
        EventKind::LoggedOut { .. } => EventKind::LoggedOutEverywhere { user, epoch },
        EventKind::LoggedOutEverywhere { .. } => EventKind::SessionRevoked { session, user },
        EventKind::SessionRevoked { .. } => EventKind::TokenRevoked { token, expires: Millis(1) },
        EventKind::TokenRevoked { .. } => EventKind::AccessDenied { action: "users.read", code: "access.denied" },
        EventKind::AccessDenied { .. } => {
            let network = std::net::IpAddr::from([192, 0, 2, 1]).into();
            EventKind::BlockAdded { block, network }
        }
        EventKind::BlockAdded { .. } => EventKind::BlockRemoved { block },
        EventKind::BlockRemoved { .. } => EventKind::AuditRead { rows: 3 },
        // Those of applications stand in their own documents.
        EventKind::AuditRead { .. } | EventKind::Application(_) => return None,
    })
}

fn every() -> Vec<EventKind> {
    std::iter::successors(Some(EventKind::ServerStarted), next).collect()
}

fn or_dash(words: &[String]) -> String {
    if words.is_empty() { "—".into() } else { words.join(", ") }
}

fn targets(kind: &EventKind) -> String {
    let word = |id: &String| {
        let word = match id.split('_').next().unwrap_or_default() {
            TenantId::PREFIX => "tenant",
            UserId::PREFIX => "user",
            SessionId::PREFIX => "session",
            TokenId::PREFIX => "token",
            BlockId::PREFIX => "block",
            "kid" => "key id",
            other => panic!("{other}: an id the page has no word for"),
        };
        word.to_owned()
    };
    or_dash(&kind.targets().iter().map(word).collect::<Vec<_>>())
}

fn details(kind: &EventKind) -> String {
    let details = kind.details();
    let names = details.as_object().unwrap().keys().map(|name| format!("`{name}`"));
    or_dash(&names.collect::<Vec<_>>())
}

fn in_force(kind: &EventKind) -> String {
    let mut words: Vec<_> = effects(kind)
        .iter()
        .map(|effect| match (effect, kind) {
            (Effect::EndSession(_), EventKind::PasswordChanged { .. }) => "the access tokens of these sessions end",
            (Effect::EndSession(_), _) => "the access tokens of the session end",
            (Effect::EndToken(..), _) => "the access token ends",
            (Effect::RaiseUserEpoch(..), _) => "all access tokens of the user end",
            (Effect::RaiseTenantEpoch(..), _) => "all access tokens of the tenant end",
            (Effect::SetTier(..), _) => "the tenant's tier",
            (Effect::BelieveStore(_), _) => "which store's number nodes believe",
        })
        .map(str::to_owned)
        .collect();
    words.dedup();
    or_dash(&words)
}

#[test]
fn every_event_has_its_action_in_the_list_and_the_list_nothing_else() {
    let actions: Vec<&str> = every().iter().map(EventKind::action).collect();
    assert_eq!(actions, EventKind::ACTIONS, "ACTIONS names every event once, in order of declaration");
}

#[test]
fn the_page_of_events_says_what_the_events_do() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/events.md");
    let page = std::fs::read_to_string(page).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| `") && line.matches('|').count() == 7);
    let rows: Vec<Vec<&str>> = rows.map(|line| line.split('|').map(str::trim).collect()).collect();
    let said: Vec<[String; 4]> = rows.iter().map(|row| [row[1], row[4], row[5], row[6]].map(str::to_owned)).collect();
    let true_ones: Vec<[String; 4]> = every()
        .iter()
        .map(|kind| [format!("`{}`", kind.action()), targets(kind), details(kind), in_force(kind)])
        .collect();
    assert_eq!(said, true_ones, "action, targets, details, in force at once");
    for row in rows {
        assert!(!row[2].is_empty() && !row[3].is_empty(), "{row:?}: when, and by whom?");
    }
}
