//! The operator's hand: what the local admin socket may do. No route leads here.
//!
//! Every change is recorded with the actor *operator*, in the trail of the tenant it concerns.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bartizan_core::action::{CreateUser, ReadUsers, UpdateUser};
use bartizan_core::audit::EventKind;
use bartizan_core::error::{Code, Refusal};
use bartizan_core::id::{BlockId, SessionId, TenantId, UserId};
use bartizan_core::input::{Email, HumanName, InputFault, NewPassword, TenantSlug};
use bartizan_core::net::BlockList;
use bartizan_core::principal::{Role, Tier};
use bartizan_core::secret::Secret;
use bartizan_core::time::Millis;
use bartizan_store::audit::{self, AuditRow};
use bartizan_store::blocks::{self, BlockRow};
use bartizan_store::tenants::{self, TenantRow};
use bartizan_store::{PlatformScope, Scope, sessions as session_rows, words};
use ipnet::IpNet;
use serde::Serialize;
use serde_json::Value;

use crate::accounts::{Accounts, SignedUp};
use crate::api::Failure;
use crate::entropy::random;
use crate::ground::{Ground, count};
use crate::guard::{Grant, Permit};
use crate::sessions::{SessionView, view as session_view};
use crate::upkeep;
use crate::users::{NewUser, UserPatch, UserStatus, UserView, Users};

/// How the trail names whoever speaks to the socket.
const OPERATOR: &str = "operator";

/// Most rows of one listing.
const MOST: u32 = 10_000;

/// A tenant as the operator sees it.
#[derive(Clone, Debug, Serialize)]
pub struct TenantLine {
    id: TenantId,
    slug: String,
    tier: Tier,
    status: words::TenantStatus,
    created_at: Millis,
}

/// An entry of the block list.
#[derive(Clone, Debug, Serialize)]
pub struct BlockLine {
    id: BlockId,
    network: String,
    reason: String,
    created_at: Millis,
    expires_at: Option<Millis>,
}

/// A row of the whole trail.
#[derive(Clone, Debug, Serialize)]
pub struct EventLine {
    seq: i64,
    at: Millis,
    tenant: Option<TenantId>,
    action: String,
    outcome: String,
    actor: String,
    targets: Value,
    details: Value,
    ip: Option<String>,
    request: Option<String>,
}

/// The hand. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Operator {
    ground: Ground,
    accounts: Accounts,
    users: Users,
    blocked: Arc<ArcSwap<BlockList>>,
}

impl Operator {
    pub(crate) fn new(ground: Ground, accounts: Accounts, users: Users, blocked: Arc<ArcSwap<BlockList>>) -> Self {
        Self { ground, accounts, users, blocked }
    }

    /// Every tenant, in order of creation.
    pub async fn tenants(&self) -> Result<Vec<TenantLine>, Failure> {
        let mut reader = self.ground.read_platform("the operator lists tenants").await?;
        let rows = tenants::page(&mut reader, None, MOST).await?;
        Ok(rows.into_iter().map(tenant_line).collect())
    }

    /// Opens a tenant with its owner.
    pub async fn add_tenant(
        &self,
        slug: &str,
        name: &str,
        email: &str,
        password: Secret<String>,
    ) -> Result<SignedUp, Failure> {
        let slug = TenantSlug::parse(slug).map_err(at("slug"))?;
        let (name, email) = (HumanName::parse(name).map_err(at("name"))?, Email::parse(email).map_err(at("email"))?);
        let password = NewPassword::parse(password.expose()).map_err(at("password"))?;
        self.accounts.sign_up(&self.grant(None), slug, name, email, password).await
    }

    /// Moves a tenant to another tier, from its next request on.
    pub async fn set_tier(&self, slug: &str, tier: Tier) -> Result<TenantLine, Failure> {
        let tenant = self.tenant(slug).await?;
        let mut change = self.ground.open(&self.grant(Some(tenant.id)), tenant.id).await?;
        tenants::set_tier(&mut change, tier, self.ground.now()).await?;
        let event = EventKind::TenantTierChanged { tenant: tenant.id, from: tenant.tier, to: tier };
        let line = TenantLine { tier, ..tenant_line(tenant) };
        change.commit(event, line).await
    }

    /// Suspends a tenant: every credential of it ends now, for good. Or lets it work again, which begins with new logins:
    /// whoever took a credential while the tenant was suspended, or was the reason for it, has nothing.
    pub async fn set_status(&self, slug: &str, status: words::TenantStatus) -> Result<TenantLine, Failure> {
        let tenant = self.tenant(slug).await?;
        let mut change = self.ground.open(&self.grant(Some(tenant.id)), tenant.id).await?;
        let now = self.ground.now();
        let epoch = tenants::set_status(&mut change, status, now).await?.ok_or(Code::NotFound)?;
        if status == words::TenantStatus::Suspended {
            session_rows::end_of_tenant(&mut change, now).await?;
        }
        let event = match status {
            words::TenantStatus::Suspended => EventKind::TenantSuspended { tenant: tenant.id, epoch },
            words::TenantStatus::Active => EventKind::TenantResumed { tenant: tenant.id },
        };
        count(&self.ground.metrics.revocations, "cause", "tenant_status");
        let line = TenantLine { status, ..tenant_line(tenant) };
        change.commit(event, line).await
    }

    /// The users of a tenant.
    pub async fn users(&self, slug: &str) -> Result<Vec<UserView>, Failure> {
        let tenant = self.tenant(slug).await?;
        self.users.all(&Permit::<ReadUsers>::new(self.grant(Some(tenant.id)))).await
    }

    /// Adds a user.
    pub async fn add_user(
        &self,
        slug: &str,
        email: &str,
        name: &str,
        role: Role,
        password: Secret<String>,
    ) -> Result<NewUser, Failure> {
        let tenant = self.tenant(slug).await?;
        let (name, email) = (HumanName::parse(name).map_err(at("name"))?, Email::parse(email).map_err(at("email"))?);
        let password = NewPassword::parse(password.expose()).map_err(at("password"))?;
        let permit = Permit::<CreateUser>::new(self.grant(Some(tenant.id)));
        self.users.create(permit, email, name, role, Some(password)).await
    }

    /// Disables a user, named by id or e-mail address: every credential of his ends now.
    pub async fn disable_user(&self, slug: &str, user: &str) -> Result<UserView, Failure> {
        let tenant = self.tenant(slug).await?;
        let user = self.user(tenant.id, user).await?;
        let permit = Permit::<UpdateUser>::new(self.grant(Some(tenant.id)));
        let patch = UserPatch { status: Some(UserStatus::Disabled), ..UserPatch::default() };
        self.users.update(permit, user, patch).await
    }

    /// The live sessions of a user, named by id or e-mail address.
    pub async fn sessions(&self, slug: &str, user: &str) -> Result<Vec<SessionView>, Failure> {
        let tenant = self.tenant(slug).await?;
        let user = self.user(tenant.id, user).await?;
        let mut reader = self.ground.db.read(&Scope::granted(tenant.id)).await?;
        let rows = session_rows::live_of_user(&mut reader, user, self.ground.now(), None, MOST).await?;
        let keys = self.ground.keys(&mut reader).await?;
        rows.into_iter().map(|row| session_view(&keys, row, None)).collect()
    }

    /// Ends a session.
    pub async fn revoke_session(&self, slug: &str, session: &str) -> Result<(), Failure> {
        let tenant = self.tenant(slug).await?;
        let session: SessionId = session.parse().map_err(|_| Code::NotFound)?;
        let mut change = self.ground.open(&self.grant(Some(tenant.id)), tenant.id).await?;
        let found = session_rows::by_id(&mut change, session).await?;
        let Some(row) = found else {
            change.cancel().await?;
            return Err(Code::NotFound.into());
        };
        session_rows::end(&mut change, session, self.ground.now()).await?;
        count(&self.ground.metrics.revocations, "cause", "operator");
        change.commit(EventKind::SessionRevoked { session, user: row.user_id }, ()).await
    }

    /// The block list.
    pub async fn blocks(&self) -> Result<Vec<BlockLine>, Failure> {
        let mut reader = self.ground.read_platform("the operator reads the block list").await?;
        let rows = blocks::all(&mut reader, self.ground.now()).await?;
        Ok(rows.into_iter().map(block_line).collect())
    }

    /// Blocks a network, for ever or for so long. In force on this node when this returns.
    pub async fn add_block(&self, network: IpNet, ttl: Option<Duration>, reason: &str) -> Result<BlockLine, Failure> {
        let now = self.ground.now();
        let row = BlockRow {
            id: BlockId::new(now, random()?),
            network: network.trunc().to_string(),
            reason: reason.chars().take(500).collect(),
            created_at: now,
            expires_at: ttl.map(|ttl| now + ttl),
        };
        let scope = PlatformScope::granted("the operator blocks a network");
        let mut tx = self.ground.db.change_platform(&scope).await?;
        blocks::insert(&mut tx, &row).await?;
        let kind = EventKind::BlockAdded { block: row.id, network: network.trunc() };
        let event = self.ground.event(&self.grant(None), kind)?;
        let row = self.ground.keep(tx, event, row).await?;
        upkeep::load_blocks(&self.ground, &self.blocked).await?;
        Ok(block_line(row))
    }

    /// Removes an entry of the block list.
    pub async fn remove_block(&self, id: &str) -> Result<(), Failure> {
        let id: BlockId = id.parse().map_err(|_| Code::NotFound)?;
        let scope = PlatformScope::granted("the operator unblocks a network");
        let mut tx = self.ground.db.change_platform(&scope).await?;
        if !blocks::delete(&mut tx, id).await? {
            tx.cancel().await?;
            return Err(Code::NotFound.into());
        }
        let event = self.ground.event(&self.grant(None), EventKind::BlockRemoved { block: id })?;
        self.ground.keep(tx, event, ()).await?;
        upkeep::load_blocks(&self.ground, &self.blocked).await
    }

    /// Rows of the whole trail: those after `after`, or the newest. The reading is itself recorded, unless it showed
    /// nothing or only such readings: who follows the trail would never come to its end.
    pub async fn audit_tail(&self, after: Option<u64>, limit: u32) -> Result<Vec<EventLine>, Failure> {
        let mut reader = self.ground.read_platform("the operator follows the whole trail").await?;
        let limit = limit.min(MOST);
        let rows = match after {
            Some(after) => audit::since(&mut reader, i64::try_from(after).unwrap_or(i64::MAX), limit).await?,
            None => audit::newest(&mut reader, limit).await?,
        };
        drop(reader);
        let read = EventKind::AuditRead { rows: rows.len() };
        if rows.iter().any(|row| row.action != read.action() || row.actor_type != OPERATOR) {
            self.ground.record(&self.grant(None), read).await?;
        }
        Ok(rows.into_iter().map(event_line).collect())
    }

    fn grant(&self, tenant: Option<TenantId>) -> Grant {
        Grant::operator(tenant, &self.ground.node)
    }

    async fn tenant(&self, slug: &str) -> Result<TenantRow, Failure> {
        let mut reader = self.ground.read_platform("the operator names a tenant by its slug").await?;
        let row = tenants::by_slug(&mut reader, slug).await?;
        row.ok_or_else(|| Refusal::new(Code::NotFound).detail("No tenant has this name.").into())
    }

    async fn user(&self, tenant: TenantId, user: &str) -> Result<UserId, Failure> {
        if let Ok(id) = user.parse() {
            return Ok(id);
        }
        let email = Email::parse(user).map_err(at("user"))?;
        let found = self.users.find(&Permit::<ReadUsers>::new(self.grant(Some(tenant))), &email).await?;
        found.ok_or_else(|| Refusal::new(Code::NotFound).detail("No user of this tenant has this address.").into())
    }
}

/// Names the argument that was not acceptable.
fn at(name: &'static str) -> impl Fn(InputFault) -> Failure {
    move |fault| Refusal::new(Code::InputInvalid).error(fault.at(name)).into()
}

fn tenant_line(row: TenantRow) -> TenantLine {
    TenantLine { id: row.id, slug: row.slug, tier: row.tier, status: row.status, created_at: row.created_at }
}

fn block_line(row: BlockRow) -> BlockLine {
    BlockLine {
        id: row.id,
        network: row.network,
        reason: row.reason,
        created_at: row.created_at,
        expires_at: row.expires_at,
    }
}

fn event_line(row: AuditRow) -> EventLine {
    EventLine {
        seq: row.seq,
        at: row.at,
        tenant: row.tenant_id,
        action: row.action,
        outcome: row.outcome,
        actor: row.actor_id.unwrap_or(row.actor_type),
        targets: row.targets,
        details: row.details,
        ip: row.ip,
        request: row.request.map(|id| id.to_string()),
    }
}
