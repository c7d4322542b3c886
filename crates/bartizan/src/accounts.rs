//! Becoming somebody: sign-up, login, oneself, one's password.

use std::net::{IpAddr, Ipv4Addr};

use bartizan_core::action::{ChangePassword, ReadSelf};
use bartizan_core::audit::{Actor, EventKind, PasswordChanged};
use bartizan_core::cipher::FieldRef;
use bartizan_core::error::{Code, FieldError, Refusal};
use bartizan_core::id::{SessionId, TenantId, UserId};
use bartizan_core::input::{Email, HumanName, NewPassword, Password, TenantSlug};
use bartizan_core::password::{PasswordPolicy, Rehash, Verified};
use bartizan_core::principal::{Role, Tier};
use bartizan_core::secret::Secret;
use bartizan_store::tenants::{self, NewTenant, TenantRow};
use bartizan_store::users::{self, NewUser, UserRow};
use bartizan_store::words::{TenantStatus, UserStatus};
use bartizan_store::{Conn, PlatformScope, Scope, login_failures, sessions as session_rows};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::Failure;
use crate::entropy::random;
use crate::ground::{Begun, Change, Ground, again, count, digest};
use crate::guard::{DEVICE_COOKIE, Grant, Permit};
use crate::hashing::{HashingError, HashingPool};
use crate::limits::{Attempt, Charge, Limits};
use crate::sessions::{Account, Sessions, TokenPair};
use crate::vault::{TenantKeys, tag};

/// The sealed columns of a user.
pub(crate) const EMAIL: FieldRef = FieldRef::new("users", "email");
pub(crate) const NAME: FieldRef = FieldRef::new("users", "name");

/// A tenant, in short.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct TenantBrief {
    pub(crate) id: TenantId,
    pub(crate) slug: String,
    pub(crate) tier: Tier,
}

/// A user, in short.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct UserBrief {
    pub(crate) id: UserId,
    pub(crate) email: String,
    pub(crate) name: String,
    pub(crate) role: Role,
}

/// What a sign-up made.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SignedUp {
    pub(crate) tenant: TenantBrief,
    pub(crate) user: UserBrief,
}

/// Oneself, from the database.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct Me {
    #[serde(flatten)]
    user: UserBrief,
    tenant: TenantBrief,
    session: SessionId,
}

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct Accounts {
    ground: Ground,
    hashing: HashingPool,
    limits: Limits,
    sessions: Sessions,
}

impl Accounts {
    pub(crate) fn new(ground: Ground, hashing: HashingPool, limits: Limits, sessions: Sessions) -> Self {
        Self { ground, hashing, limits, sessions }
    }

    /// Opens a tenant; whoever does becomes its owner.
    pub(crate) async fn sign_up(
        &self,
        grant: &Grant,
        slug: TenantSlug,
        name: HumanName,
        email: Email,
        password: NewPassword,
    ) -> Result<SignedUp, Failure> {
        let password = password.password();
        self.check_password(password, "/password", &[slug.as_str(), email.local_part(), name.as_str()])?;
        if let Some(taken) = self.tenant(slug.as_str()).await? {
            return self.signed_up_before(grant, &taken).await;
        }
        self.limits.charge_sign_up(grant.origin.ip).await?;
        let hash = self.hash(grant, password).await?;
        let now = self.ground.now();
        let (tenant, user) = (TenantId::new(now, random()?), UserId::new(now, random()?));
        let minted = self.ground.vault.mint(tenant, now)?;
        let keys = self.ground.vault.unlock(tenant, &minted)?;
        let mut change = match self.ground.open_once(grant, tenant).await? {
            Begun::New(change) => change,
            Begun::Again(answer) => return again(&answer),
        };
        let new = NewTenant { slug: slug.as_str(), name_sealed: None, tier: Tier::Free, created_at: now };
        if let Err(cause) = tenants::insert(&mut change, &new).await {
            change.cancel().await?;
            // Somebody was faster: perhaps this very request, sent twice at once.
            return match self.tenant(slug.as_str()).await? {
                Some(taken) => self.signed_up_before(grant, &taken).await,
                None => Err(cause.into()),
            };
        }
        for key in &minted {
            bartizan_store::data_keys::insert(&mut change, &crate::vault::row(key)).await?;
        }
        let owner = Person { id: user, email: &email, name: &name, role: Role::Owner, hash: &hash };
        insert_user(&mut change, &keys, &owner, now).await?;
        let made = SignedUp {
            tenant: TenantBrief { id: tenant, slug: slug.as_str().to_owned(), tier: Tier::Free },
            user: UserBrief {
                id: user,
                email: email.as_str().to_owned(),
                name: name.as_str().to_owned(),
                role: Role::Owner,
            },
        };
        change.commit(EventKind::TenantCreated { tenant, owner: user }, made).await
    }

    /// Checks e-mail and password and begins a session. Unknown tenant, unknown user, wrong password, disabled user and
    /// suspended tenant are one answer, at one price.
    pub(crate) async fn log_in(
        &self,
        grant: &Grant,
        slug: TenantSlug,
        email: Email,
        password: Password,
    ) -> Result<(TokenPair, HeaderValue), Failure> {
        let tenant = self.tenant(slug.as_str()).await?;
        let found = self.find(tenant.as_ref(), &email).await?;
        let device = self.known_device(grant, found.as_ref()).await?;
        // Counted under the spelling that is looked up: another one of the same address is no fresh allowance.
        let account = email.index_form();
        let attempt = Attempt { tenant: slug.as_str(), account: &account, ip: grant.origin.ip, device };
        // Charged before the hash, so that a flood costs the attacker his quota and not our memory.
        let charge = self.limits.charge_login(&attempt).await.inspect_err(|_| self.counted("limited"))?;
        let secret = URL_SAFE_NO_PAD.encode(random::<32>()?);
        let mut found = found;
        let pair = loop {
            let named = found.as_ref().map(|found| found.user.id);
            match self.enter(grant, found.take(), &password, &charge, &secret).await? {
                Entry::In(pair) => break pair,
                Entry::Changed => found = self.find(tenant.as_ref(), &email).await?,
                Entry::Refused => {
                    self.counted("failed");
                    let tenant = tenant.map(|tenant| tenant.id);
                    self.login_failed(grant, tenant, named, &charge).await?;
                    return Err(Code::LoginFailed.into());
                }
            }
        };
        self.counted("succeeded");
        let cookie = format!("{DEVICE_COOKIE}={secret}; Path=/; Max-Age=34560000; Secure; HttpOnly; SameSite=Lax");
        Ok((pair, HeaderValue::try_from(cookie).map_err(Failure::fault)?))
    }

    /// Compares the password and begins the session. Only a refusal keeps its charge.
    async fn enter(
        &self,
        grant: &Grant,
        found: Option<Found>,
        password: &Password,
        charge: &Charge,
        device: &str,
    ) -> Result<Entry, Failure> {
        let record = found.as_ref().map(|found| found.user.password_hash.expose().as_str());
        let verdict = match self.compare(grant, password, record, charge).await {
            Err(Failure::Fault(cause)) => {
                // A damaged record or a lost pepper is ours to mend; the answer must not tell that this user exists.
                tracing::error!(%cause, "a password could not be compared");
                self.ground.metrics.faults.inc();
                Verified::Wrong
            }
            verdict => verdict.inspect_err(|_| self.counted("busy"))?,
        };
        let usable = found.filter(|found| {
            verdict != Verified::Wrong
                && found.user.status == UserStatus::Active
                && found.tenant.status == TenantStatus::Active
        });
        let Some(found) = usable else { return Ok(Entry::Refused) };
        let begun = self.renew_and_begin(grant, &found, verdict, password, device).await;
        if !matches!(begun, Ok(Entry::Changed | Entry::Refused)) {
            self.limits.refund_login(charge).await;
        }
        begun
    }

    /// Compares a password with a record. A full queue says nothing about the password and gives the charge back.
    async fn compare(
        &self,
        grant: &Grant,
        password: &Password,
        record: Option<&str>,
        charge: &Charge,
    ) -> Result<Verified, Failure> {
        let compared = self.hashing_for(grant).verify(password.expose(), record).await;
        if matches!(compared, Err(HashingError::Busy { .. })) {
            self.limits.refund_login(charge).await;
        }
        Ok(compared?)
    }

    async fn renew_and_begin(
        &self,
        grant: &Grant,
        found: &Found,
        verdict: Verified,
        password: &Password,
        device: &str,
    ) -> Result<Entry, Failure> {
        let outdated = verdict == Verified::Right(Rehash::Needed);
        let rehashed = if outdated { Some(self.hash(grant, password).await?) } else { None };
        self.begin_session(grant, found, rehashed, device).await
    }

    /// Oneself.
    pub(crate) async fn me(&self, permit: &Permit<ReadSelf>) -> Result<Me, Failure> {
        let who = permit.user()?;
        let mut reader = self.ground.read(permit.grant()).await?;
        let user = users::by_id(&mut reader, who.user).await?.ok_or(Code::CredentialRevoked)?;
        let tenant = tenants::own(&mut reader).await?.ok_or(Code::CredentialRevoked)?;
        let keys = self.ground.keys(&mut reader).await?;
        Ok(Me {
            user: brief(&keys, &user)?,
            tenant: TenantBrief { id: tenant.id, slug: tenant.slug, tier: tenant.tier },
            session: who.session,
        })
    }

    /// Changes one's own password. The current one is checked under the same limits as a login; the other sessions end.
    pub(crate) async fn change_password(
        &self,
        permit: Permit<ChangePassword>,
        current: Password,
        new: NewPassword,
    ) -> Result<(), Failure> {
        let new = new.password();
        let who = permit.user()?.clone();
        // Asked before the current password, which after the change is another one.
        if self.ground.answered(permit.grant()).await?.is_some() {
            return Ok(());
        }
        let (user, email, name) = {
            let mut reader = self.ground.read(permit.grant()).await?;
            let user = users::by_id(&mut reader, who.user).await?.ok_or(Code::CredentialRevoked)?;
            let keys = self.ground.keys(&mut reader).await?;
            let brief = brief(&keys, &user)?;
            (user, brief.email, brief.name)
        };
        self.check_password(new, "/new", &[&email, &name])?;
        let tenant = who.tenant.to_string();
        let grant = permit.grant();
        // A live session is a known device: an outsider's failures do not stand in the owner's way.
        let device = Some(digest(&[b"session", who.session.as_bytes()]));
        let attempt = Attempt { tenant: &tenant, account: &email, ip: grant.origin.ip, device };
        let charge = self.limits.charge_login(&attempt).await?;
        let record = user.password_hash.expose().as_str();
        if self.compare(grant, &current, Some(record), &charge).await? == Verified::Wrong {
            self.login_failed(grant, Some(who.tenant), Some(who.user), &charge).await?;
            return Err(Code::PasswordWrong.into());
        }
        self.limits.refund_login(&charge).await;
        let hash = self.hash(grant, new).await?;
        let now = self.ground.now();
        let Begun::New(mut change) = self.ground.change(&permit).await? else { return Ok(()) };
        // Whoever was compared with must still be in place: of two changes from one password only one is made.
        let stands = users::by_id(&mut change, who.user).await?;
        if stands.is_none_or(|stands| stands.password_hash != user.password_hash) {
            change.cancel().await?;
            return Err(Code::Conflict.into());
        }
        users::set_password_hash(&mut change, who.user, &hash, now).await?;
        let ended = session_rows::end_all(&mut change, who.user, Some(who.session), now).await?;
        count(&self.ground.metrics.revocations, "cause", "password_changed");
        change.commit(PasswordChanged { user: who.user, ended }, ()).await
    }

    /// Refuses a password the policy does not allow; `context` are words it may not be built from.
    pub(crate) fn check_password(
        &self,
        password: &Password,
        pointer: &'static str,
        context: &[&str],
    ) -> Result<(), Refusal> {
        let policy = PasswordPolicy::new(self.ground.settings.load().password.min_length);
        policy.check(password, context).map_err(|mut refusal| {
            for error in &mut refusal.errors {
                error.pointer = pointer.into();
            }
            if refusal.errors.is_empty() {
                refusal.errors.push(FieldError::new(pointer, "password.unacceptable", refusal.detail.clone()));
            }
            refusal
        })
    }

    /// The hash of a password that was checked.
    pub(crate) async fn hash(&self, grant: &Grant, password: &Password) -> Result<Secret<String>, Failure> {
        Ok(Secret::new(self.hashing_for(grant).hash(password.expose()).await?.to_string()))
    }

    /// The pool, within the share of the network that asks. Where no listener said who is connected, all have one share;
    /// the operator has no bounds but the pool's.
    fn hashing_for(&self, grant: &Grant) -> HashingPool {
        match (grant.origin.ip, &grant.actor) {
            (None, Actor::Operator | Actor::System { .. }) => self.hashing.clone(),
            (ip, _) => self.hashing.for_client(ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))),
        }
    }

    async fn tenant(&self, slug: &str) -> Result<Option<TenantRow>, Failure> {
        let mut reader = self.ground.read_platform("login knows a slug and no tenant yet").await?;
        Ok(tenants::by_slug(&mut reader, slug).await?)
    }

    /// The user behind an address. An unknown tenant asks as much of the database as a known one.
    async fn find(&self, tenant: Option<&TenantRow>, email: &Email) -> Result<Option<Found>, Failure> {
        let id = tenant.map_or(TenantId::from_u128(0), |tenant| tenant.id);
        let mut reader = self.ground.db.read(&Scope::granted(id)).await?;
        let Some(tenant) = tenant else {
            let decoy = digest(&[b"decoy", email.as_str().as_bytes()]);
            let tag = bartizan_store::blind_index::Tag { key_id: 0, tag: &decoy };
            users::by_email_tag(&mut reader, tag).await?;
            return Ok(None);
        };
        let keys = self.ground.keys(&mut reader).await?;
        let user = by_email(&mut reader, &keys, email).await?;
        Ok(user.map(|user| Found { tenant: tenant.clone(), user, keys }))
    }

    /// The digest of the device's secret, when this user has logged in with it before.
    async fn known_device(&self, grant: &Grant, found: Option<&Found>) -> Result<Option<[u8; 32]>, Failure> {
        let Some(secret) = &grant.client.device else { return Ok(None) };
        let hash = device_hash(secret);
        // An unknown user asks as much of the database as a known one.
        let nobody = (TenantId::from_u128(0), UserId::from_u128(0));
        let (tenant, user) = found.map_or(nobody, |found| (found.tenant.id, found.user.id));
        let mut reader = self.ground.db.read(&Scope::granted(tenant)).await?;
        let known = session_rows::knows_device(&mut reader, user, hash).await?;
        Ok(known.then_some(hash))
    }

    async fn begin_session(
        &self,
        grant: &Grant,
        found: &Found,
        rehashed: Option<Secret<String>>,
        device: &str,
    ) -> Result<Entry, Failure> {
        let now = self.ground.now();
        let mut change = self.ground.open(grant, found.tenant.id).await?;
        // The hash took a while: what matters is what is true inside this transaction.
        let user = users::by_id(&mut change, found.user.id).await?.filter(|user| user.status == UserStatus::Active);
        let tenant = tenants::own(&mut change).await?.filter(|tenant| tenant.status == TenantStatus::Active);
        let (Some(user), Some(tenant)) = (user, tenant) else {
            change.cancel().await?;
            return Ok(Entry::Refused);
        };
        if user.password_hash != found.user.password_hash {
            // A password changed meanwhile has ended all sessions but one; the old one must not begin another.
            change.cancel().await?;
            return Ok(Entry::Changed);
        }
        if let Some(hash) = rehashed {
            users::set_password_hash(&mut change, user.id, &hash, now).await?;
        }
        users::logged_in(&mut change, user.id, now).await?;
        let account = Account {
            tenant: tenant.id,
            tenant_epoch: tenant.epoch,
            tier: tenant.tier,
            user: user.id,
            user_epoch: user.epoch,
            role: user.role,
        };
        let device = Some(device_hash(device));
        let (session, pair) = self.sessions.begin(&mut change, &found.keys, &account, grant, device).await?;
        change.acts(Actor::User { id: user.id, session: Some(session) });
        change.commit(EventKind::LoggedIn { user: user.id, session }, ()).await?;
        Ok(Entry::In(pair))
    }

    /// Writes the failure down and makes its charge durable, in one transaction: a restart is no pardon.
    /// The row names the user when there is one: for the readers of the trail, at no other cost in time.
    async fn login_failed(
        &self,
        grant: &Grant,
        tenant: Option<TenantId>,
        user: Option<UserId>,
        charge: &Charge,
    ) -> Result<(), Failure> {
        let grant = Grant { tenant, ..grant.clone() };
        let event = self.ground.event(&grant, EventKind::LoginFailed { user, reason: "credentials" })?;
        let scope = PlatformScope::granted("login: a failure may concern no tenant");
        // It decides on nothing it reads, so only the tenant's own changes wait for it.
        let mut tx = self.ground.db.change_of(&scope, tenant.as_slice()).await?;
        login_failures::save(&mut tx, &self.limits.failures(charge)).await?;
        self.ground.keep(tx, event, ()).await
    }

    /// The tenant name is taken. By this very request, sent before? Then its answer again.
    async fn signed_up_before(&self, grant: &Grant, taken: &TenantRow) -> Result<SignedUp, Failure> {
        if grant.idempotency.is_some() {
            match self.ground.open_once(grant, taken.id).await? {
                Begun::Again(answer) => return again(&answer),
                Begun::New(change) => change.cancel().await?,
            }
        }
        Err(Code::SlugTaken.into())
    }

    fn counted(&self, outcome: &'static str) {
        count(&self.ground.metrics.logins, "outcome", outcome);
    }
}

/// A user with what is needed to let him in.
struct Found {
    tenant: TenantRow,
    user: UserRow,
    keys: std::sync::Arc<TenantKeys>,
}

/// How a login went.
enum Entry {
    /// The session began.
    In(TokenPair),
    /// The stored record is not the one the password was compared with: compare again.
    Changed,
    /// One of the reasons that are all told alike.
    Refused,
}

/// A user about to be written.
pub(crate) struct Person<'a> {
    pub(crate) id: UserId,
    pub(crate) email: &'a Email,
    pub(crate) name: &'a HumanName,
    pub(crate) role: Role,
    pub(crate) hash: &'a Secret<String>,
}

/// Writes a user with his personal data sealed and his address in the blind index.
pub(crate) async fn insert_user<E: Into<EventKind>>(
    change: &mut Change<E>,
    keys: &TenantKeys,
    person: &Person<'_>,
    now: bartizan_core::time::Millis,
) -> Result<(), Failure> {
    let row = person.id.to_string();
    let index = keys.index(EMAIL, person.email.index_form().as_bytes())?;
    let new = NewUser {
        id: person.id,
        email_sealed: &keys.seal(EMAIL, &row, person.email.as_str().as_bytes())?,
        email_tag: tag(&index),
        name_sealed: &keys.seal(NAME, &row, person.name.as_str().as_bytes())?,
        role: person.role,
        password_hash: person.hash,
        created_at: now,
    };
    Ok(users::insert(change, &new).await?)
}

/// A user with his personal data opened.
pub(crate) fn brief(keys: &TenantKeys, user: &UserRow) -> Result<UserBrief, Failure> {
    let row = user.id.to_string();
    Ok(UserBrief {
        id: user.id,
        email: keys.open_text(EMAIL, &row, &user.email_sealed)?.expose().clone(),
        name: keys.open_text(NAME, &row, &user.name_sealed)?.expose().clone(),
        role: user.role,
    })
}

/// The user of an address, by the blind index: under every index key the tenant has.
pub(crate) async fn by_email(conn: &mut Conn, keys: &TenantKeys, email: &Email) -> Result<Option<UserRow>, Failure> {
    for index in keys.index_all(EMAIL, email.index_form().as_bytes())? {
        if let Some(user) = users::by_email_tag(conn, tag(&index)).await? {
            return Ok(Some(user));
        }
    }
    Ok(None)
}

fn device_hash(secret: &str) -> [u8; 32] {
    digest(&[b"device", secret.as_bytes()])
}
