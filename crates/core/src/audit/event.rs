//! The events themselves.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::application::AppRecord;
use crate::id::{BlockId, EventId, RequestId, SessionId, TenantId, TokenId, UserId};
use crate::principal::{Role, Tier};
use crate::store_life::StoreLife;
use crate::time::Millis;

/// Who did it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Actor {
    /// A user with a session.
    User {
        /// The user.
        id: UserId,
        /// The session, when there was one.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        session: Option<SessionId>,
    },
    /// Somebody without a credential: a failed login, a sign-up.
    Anonymous,
    /// The operator, through the local socket or the command line.
    Operator,
    /// The server itself, in the named job.
    System {
        /// The name of the job.
        job: String,
    },
}

/// Where the request came from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The client's address, as established through the configured proxies.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ip: Option<std::net::IpAddr>,
    /// The request.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub request: Option<RequestId>,
    /// The node that served it.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub node: String,
}

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Done.
    Ok,
    /// Refused by a rule.
    Denied,
}

/// One row of the audit trail, before it has a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEvent {
    /// Names the event everywhere.
    pub id: EventId,
    /// When.
    pub at: Millis,
    /// In which tenant; `None` for what concerns the whole server.
    pub tenant: Option<TenantId>,
    /// Who.
    pub actor: Actor,
    /// From where.
    pub origin: Origin,
    /// What.
    pub kind: EventKind,
}

/// What happened. Ids and names of fields only: never a secret, an e-mail address or a person's name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind {
    /// The server began to serve.
    ServerStarted,
    /// The server stopped in good order.
    ServerStopped,
    /// The configuration was read again and taken over.
    ConfigReloaded,
    /// The operator took back the time this installation had noted, after a clock that was ahead.
    ClockAccepted {
        /// How far the noted time was ahead, in seconds.
        ahead: u64,
        /// Sessions begun or renewed in that time, which ended.
        ended: u64,
        /// Keys that signed access tokens, none of which is believed any more.
        distrusted: usize,
    },
    /// The shared state was met in another life: another primary, a restart, or lost data.
    StateLifeBegan {
        /// The life.
        life: StoreLife,
    },
    /// A key that signs access tokens was created.
    SigningKeyCreated {
        /// Its name in token headers.
        kid: String,
    },
    /// A published key began to sign; the one before it only verifies from now on.
    SigningKeyRotated {
        /// The key that signs now.
        kid: String,
        /// The key that signed until now.
        retired: String,
    },
    /// A key that verified nothing any more was removed.
    SigningKeyRemoved {
        /// Its name in token headers.
        kid: String,
    },
    /// A tenant and its first owner were created.
    TenantCreated {
        /// The new tenant.
        tenant: TenantId,
        /// Its owner.
        owner: UserId,
    },
    /// The tenant's own data changed.
    TenantUpdated {
        /// Names of the changed fields.
        fields: Vec<&'static str>,
    },
    /// The tenant moved to another tier.
    TenantTierChanged {
        /// The tenant.
        tenant: TenantId,
        /// The tier until now.
        from: Tier,
        /// The tier from now on.
        to: Tier,
    },
    /// The tenant was suspended: every credential of it ends.
    TenantSuspended {
        /// The tenant.
        tenant: TenantId,
        /// The epoch that live tokens must carry from now on.
        epoch: u64,
    },
    /// The tenant may work again.
    TenantResumed {
        /// The tenant.
        tenant: TenantId,
    },
    /// A user was created.
    UserCreated {
        /// The user.
        user: UserId,
        /// His role.
        role: Role,
    },
    /// A user's data changed.
    UserUpdated {
        /// The user.
        user: UserId,
        /// Names of the changed fields.
        fields: Vec<&'static str>,
    },
    /// A user's role changed: tokens that carry the old role end.
    UserRoleChanged {
        /// The user.
        user: UserId,
        /// The role until now.
        from: Role,
        /// The role from now on.
        to: Role,
        /// The epoch that live tokens must carry from now on.
        epoch: u64,
    },
    /// A user was disabled: every credential of his ends.
    UserDisabled {
        /// The user.
        user: UserId,
        /// The epoch that live tokens must carry from now on.
        epoch: u64,
    },
    /// A user may log in again.
    UserEnabled {
        /// The user.
        user: UserId,
    },
    /// A user was deleted: every credential of his ends.
    UserDeleted {
        /// The user.
        user: UserId,
        /// The epoch that live tokens must carry from now on.
        epoch: u64,
    },
    /// A password was changed by its owner; his other sessions end.
    PasswordChanged {
        /// The user.
        user: UserId,
        /// The sessions that ended.
        ended: Vec<SessionId>,
    },
    /// Somebody logged in.
    LoggedIn {
        /// The user.
        user: UserId,
        /// The new session.
        session: SessionId,
    },
    /// A login failed. The user is named only when he exists; the answer to the client does not tell.
    LoginFailed {
        /// The user, when the name was known.
        user: Option<UserId>,
        /// Why, in one stable word.
        reason: &'static str,
    },
    /// An access token was issued for a refresh token.
    TokenRefreshed {
        /// The session.
        session: SessionId,
    },
    /// A spent refresh token came back: the session ends.
    RefreshReused {
        /// The session.
        session: SessionId,
        /// Its user.
        user: UserId,
    },
    /// A session was ended by its user.
    LoggedOut {
        /// The session.
        session: SessionId,
    },
    /// All sessions of a user were ended.
    LoggedOutEverywhere {
        /// The user.
        user: UserId,
        /// The epoch that live tokens must carry from now on.
        epoch: u64,
    },
    /// One session was ended from another one, or by the operator.
    SessionRevoked {
        /// The session.
        session: SessionId,
        /// Its user.
        user: UserId,
    },
    /// One access token was revoked (RFC 7009).
    TokenRevoked {
        /// The token.
        token: TokenId,
        /// When it would have ended by itself.
        expires: Millis,
    },
    /// A request was refused for lack of permission.
    AccessDenied {
        /// The action that was refused.
        action: &'static str,
        /// The stable error code.
        code: &'static str,
    },
    /// A block-list entry was added.
    BlockAdded {
        /// The entry.
        block: BlockId,
        /// The blocked network.
        network: ipnet::IpNet,
    },
    /// A block-list entry was removed.
    BlockRemoved {
        /// The entry.
        block: BlockId,
    },
    /// The audit trail was read.
    AuditRead {
        /// Number of rows shown.
        rows: usize,
    },
    /// Something the application did, under a name of its own.
    Application(AppRecord),
}

impl EventKind {
    /// The stable dotted name: what `GET /v1/audit?action=` filters by.
    pub const fn action(&self) -> &'static str {
        match self {
            EventKind::ServerStarted => "server.started",
            EventKind::ServerStopped => "server.stopped",
            EventKind::ConfigReloaded => "config.reloaded",
            EventKind::ClockAccepted { .. } => "clock.accepted",
            EventKind::StateLifeBegan { .. } => "state.life_began",
            EventKind::SigningKeyCreated { .. } => "signing_key.created",
            EventKind::SigningKeyRotated { .. } => "signing_key.rotated",
            EventKind::SigningKeyRemoved { .. } => "signing_key.removed",
            EventKind::TenantCreated { .. } => "tenant.created",
            EventKind::TenantUpdated { .. } => "tenant.updated",
            EventKind::TenantTierChanged { .. } => "tenant.tier_changed",
            EventKind::TenantSuspended { .. } => "tenant.suspended",
            EventKind::TenantResumed { .. } => "tenant.resumed",
            EventKind::UserCreated { .. } => "user.created",
            EventKind::UserUpdated { .. } => "user.updated",
            EventKind::UserRoleChanged { .. } => "user.role_changed",
            EventKind::UserDisabled { .. } => "user.disabled",
            EventKind::UserEnabled { .. } => "user.enabled",
            EventKind::UserDeleted { .. } => "user.deleted",
            EventKind::PasswordChanged { .. } => "password.changed",
            EventKind::LoggedIn { .. } => "login.succeeded",
            EventKind::LoginFailed { .. } => "login.failed",
            EventKind::TokenRefreshed { .. } => "token.refreshed",
            EventKind::RefreshReused { .. } => "token.refresh_reused",
            EventKind::LoggedOut { .. } => "session.logged_out",
            EventKind::LoggedOutEverywhere { .. } => "session.logged_out_everywhere",
            EventKind::SessionRevoked { .. } => "session.revoked",
            EventKind::TokenRevoked { .. } => "token.revoked",
            EventKind::AccessDenied { .. } => "access.denied",
            EventKind::BlockAdded { .. } => "block.added",
            EventKind::BlockRemoved { .. } => "block.removed",
            EventKind::AuditRead { .. } => "audit.read",
            EventKind::Application(record) => record.name(),
        }
    }

    /// Every action name but those of applications, for the reference and for checking a filter.
    pub const ACTIONS: &'static [&'static str] = &[
        "server.started",
        "server.stopped",
        "config.reloaded",
        "clock.accepted",
        "state.life_began",
        "signing_key.created",
        "signing_key.rotated",
        "signing_key.removed",
        "tenant.created",
        "tenant.updated",
        "tenant.tier_changed",
        "tenant.suspended",
        "tenant.resumed",
        "user.created",
        "user.updated",
        "user.role_changed",
        "user.disabled",
        "user.enabled",
        "user.deleted",
        "password.changed",
        "login.succeeded",
        "login.failed",
        "token.refreshed",
        "token.refresh_reused",
        "session.logged_out",
        "session.logged_out_everywhere",
        "session.revoked",
        "token.revoked",
        "access.denied",
        "block.added",
        "block.removed",
        "audit.read",
    ];

    /// How it went.
    pub const fn outcome(&self) -> Outcome {
        match self {
            EventKind::LoginFailed { .. } | EventKind::RefreshReused { .. } | EventKind::AccessDenied { .. } => {
                Outcome::Denied
            }
            _ => Outcome::Ok,
        }
    }

    /// What it was done to, as ids in text, most specific first.
    pub fn targets(&self) -> Vec<String> {
        match self {
            EventKind::TenantCreated { tenant, owner } => vec![tenant.to_string(), owner.to_string()],
            EventKind::TenantTierChanged { tenant, .. }
            | EventKind::TenantSuspended { tenant, .. }
            | EventKind::TenantResumed { tenant } => vec![tenant.to_string()],
            EventKind::UserCreated { user, .. }
            | EventKind::UserUpdated { user, .. }
            | EventKind::UserRoleChanged { user, .. }
            | EventKind::UserDisabled { user, .. }
            | EventKind::UserEnabled { user }
            | EventKind::UserDeleted { user, .. }
            | EventKind::PasswordChanged { user, .. }
            | EventKind::LoggedOutEverywhere { user, .. } => vec![user.to_string()],
            EventKind::LoginFailed { user, .. } => user.iter().map(UserId::to_string).collect(),
            EventKind::LoggedIn { user, session }
            | EventKind::RefreshReused { session, user }
            | EventKind::SessionRevoked { session, user } => vec![session.to_string(), user.to_string()],
            EventKind::TokenRefreshed { session } | EventKind::LoggedOut { session } => vec![session.to_string()],
            EventKind::TokenRevoked { token, .. } => vec![token.to_string()],
            EventKind::BlockAdded { block, .. } | EventKind::BlockRemoved { block } => vec![block.to_string()],
            EventKind::SigningKeyCreated { kid } | EventKind::SigningKeyRemoved { kid } => vec![kid.clone()],
            EventKind::SigningKeyRotated { kid, retired } => vec![kid.clone(), retired.clone()],
            EventKind::Application(record) => record.targets(),
            EventKind::ServerStarted
            | EventKind::ServerStopped
            | EventKind::ConfigReloaded
            | EventKind::ClockAccepted { .. }
            | EventKind::StateLifeBegan { .. }
            | EventKind::TenantUpdated { .. }
            | EventKind::AccessDenied { .. }
            | EventKind::AuditRead { .. } => Vec::new(),
        }
    }

    /// The rest of what is worth knowing, as a small flat object.
    pub fn details(&self) -> Value {
        match self {
            EventKind::ClockAccepted { ahead, ended, distrusted } => {
                json!({ "ahead_seconds": ahead, "ended_sessions": ended, "distrusted_keys": distrusted })
            }
            EventKind::StateLifeBegan { life } => json!({ "life": life.to_string() }),
            EventKind::TenantUpdated { fields } | EventKind::UserUpdated { fields, .. } => json!({ "fields": fields }),
            EventKind::TenantTierChanged { from, to, .. } => json!({ "from": from, "to": to }),
            EventKind::UserCreated { role, .. } => json!({ "role": role }),
            EventKind::UserRoleChanged { from, to, .. } => json!({ "from": from, "to": to }),
            EventKind::PasswordChanged { ended, .. } => json!({ "ended_sessions": ended.len() }),
            EventKind::LoginFailed { reason, .. } => json!({ "reason": reason }),
            EventKind::AccessDenied { action, code } => json!({ "action": action, "code": code }),
            EventKind::BlockAdded { network, .. } => json!({ "network": network }),
            EventKind::AuditRead { rows } => json!({ "rows": rows }),
            EventKind::Application(record) => record.details(),
            _ => json!({}),
        }
    }
}
