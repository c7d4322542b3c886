//! Sessions: begun by a login, renewed by refresh tokens, ended by logout, revocation, reuse or time.

use std::net::IpAddr;

use bartizan_core::action::{IntrospectToken, ListSessions, Logout, RevokeSession};
use bartizan_core::audit::{Actor, EventKind, LoggedOut, SessionRevoked};
use bartizan_core::cipher::FieldRef;
use bartizan_core::error::Code;
use bartizan_core::id::{SessionId, TenantId, TokenId, UserId};
use bartizan_core::input::{RefreshToken, TokenText};
use bartizan_core::principal::{Principal, Role, Tier};
use bartizan_core::time::Millis;
use bartizan_store::refresh_tokens::{self, PresentedToken, Race, Spend};
use bartizan_store::sessions::{self, NewSession, SessionRow};
use bartizan_store::words::{RefreshState, TenantStatus, UserStatus};
use bartizan_store::{tenants, users};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::{Failure, Page};
use crate::entropy::random;
use crate::ground::{Begun, Change, Ground, count, digest};
use crate::guard::{Authenticator, Client, Grant, Permit};
use crate::paging;
use crate::routes::Paging;
use crate::signing::{Signing, Subject, token_id};
use crate::successor;
use crate::vault::TenantKeys;

const CLIENT: FieldRef = FieldRef::new("sessions", "client");

/// What a login or a refresh gives.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct TokenPair {
    /// The access token, a JWS of type `at+jwt`.
    access_token: String,
    /// Always `Bearer`.
    token_type: &'static str,
    /// Seconds until the access token ends.
    expires_in: u64,
    /// Good for one refresh.
    refresh_token: String,
    /// Seconds until the refresh token ends, unless it is used before.
    refresh_expires_in: u64,
}

/// A session as its owner sees it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SessionView {
    id: SessionId,
    created_at: Millis,
    /// When it was last renewed.
    last_seen_at: Millis,
    /// When it ends unless it is renewed.
    expires_at: Millis,
    /// Whether this request came with it.
    current: bool,
    /// The address of the login.
    ip: Option<String>,
    /// What the client called itself at the login.
    user_agent: Option<String>,
}

/// What RFC 7662 says of a token; of one that is not live, only that.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub(crate) struct Introspection {
    active: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<UserId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<TokenId>,
    /// Seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
    /// Seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    iat: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<TenantId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<SessionId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<Role>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tier: Option<Tier>,
}

/// The client as it is kept, sealed, with its session.
#[derive(Serialize, Deserialize)]
struct KeptClient {
    ip: Option<IpAddr>,
    user_agent: Option<String>,
}

/// Who a session is for: what the login has just read inside its transaction.
pub(crate) struct Account {
    pub(crate) tenant: TenantId,
    pub(crate) tenant_epoch: u64,
    pub(crate) tier: Tier,
    pub(crate) user: UserId,
    pub(crate) user_epoch: u64,
    pub(crate) role: Role,
}

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct Sessions {
    ground: Ground,
    signing: Signing,
    authenticator: Authenticator,
}

impl Sessions {
    pub(crate) fn new(ground: Ground, signing: Signing, authenticator: Authenticator) -> Self {
        Self { ground, signing, authenticator }
    }

    /// Begins a session inside the login's transaction, and makes its tokens.
    pub(crate) async fn begin(
        &self,
        change: &mut Change<EventKind>,
        keys: &TenantKeys,
        account: &Account,
        grant: &Grant,
        device: Option<[u8; 32]>,
    ) -> Result<(SessionId, TokenPair), Failure> {
        let now = self.ground.now();
        let settings = self.ground.settings.load();
        let id = SessionId::new(now, random()?);
        let absolute = now + settings.tokens.refresh_absolute;
        let idle = absolute.min(now + settings.tokens.refresh_idle);
        let kept = KeptClient { ip: grant.origin.ip, user_agent: grant.client.user_agent.clone() };
        let kept = serde_json::to_vec(&kept).map_err(Failure::fault)?;
        let new = NewSession {
            id,
            user_id: account.user,
            created_at: now,
            idle_expires_at: idle,
            absolute_expires_at: absolute,
            device_hash: device.as_ref().map(<[u8; 32]>::as_slice),
            client_sealed: &keys.seal(CLIENT, &id.to_string(), &kept)?,
        };
        sessions::insert(change, &new).await?;
        let refresh = mint()?;
        refresh_tokens::insert(change, id, 0, hash(&refresh), idle).await?;
        let pair = self.pair(account, id, refresh, idle, absolute, now)?;
        count(&self.ground.metrics.tokens_issued, "by", "login");
        Ok((id, pair))
    }

    /// Exchanges a refresh token. One caller wins; a lost answer is given again to the same client for a few seconds;
    /// any other use of a spent token ends the session.
    pub(crate) async fn refresh(&self, grant: &Grant, presented: RefreshToken) -> Result<TokenPair, Failure> {
        let text = presented.expose();
        let Some(found) = self.find(text).await? else { return Err(Code::RefreshInvalid.into()) };
        let now = self.ground.now();
        if !alive(&found, now) {
            return Err(Code::RefreshInvalid.into());
        }
        if found.state == RefreshState::Live
            && let Some(pair) = self.spend(grant, text, &found).await?
        {
            return Ok(pair);
        }
        // Spent before, or by somebody else this very moment: look again at what is true now.
        let Some(found) = self.find(text).await? else { return Err(Code::RefreshInvalid.into()) };
        // Still live and yet not exchanged: its time ran out in between. That is nobody's theft.
        if !alive(&found, now) || found.state == RefreshState::Live {
            return Err(Code::RefreshInvalid.into());
        }
        match self.retry(grant, text, &found).await? {
            Some(pair) => Ok(pair),
            None => self.reuse(grant, &found).await,
        }
    }

    /// One's own live sessions, oldest first.
    pub(crate) async fn list(
        &self,
        permit: &Permit<ListSessions>,
        paging: Paging,
    ) -> Result<Page<SessionView>, Failure> {
        let who = permit.user()?;
        let after = paging::position::<SessionId>(paging.after.as_ref())?;
        let limit = paging.limit.number();
        let mut reader = self.ground.read(permit.grant()).await?;
        let rows =
            sessions::live_of_user(&mut reader, who.user, self.ground.now(), after, paging::one_more(limit)).await?;
        let keys = self.ground.keys(&mut reader).await?;
        paging::page(rows, limit, |row| row.id.to_string(), |row| view(&keys, row, Some(who.session)))
    }

    /// Ends one of one's own sessions. Somebody else's is not there.
    pub(crate) async fn revoke(&self, permit: Permit<RevokeSession>, id: SessionId) -> Result<(), Failure> {
        let user = permit.user()?.user;
        let mut change = match self.ground.change(&permit).await? {
            Begun::New(change) => change,
            Begun::Again(_) => return Ok(()),
        };
        let found = sessions::by_id(&mut change, id).await?.filter(|session| session.user_id == user);
        if found.is_none() || !sessions::end(&mut change, id, self.ground.now()).await? {
            change.cancel().await?;
            return Err(Code::NotFound.into());
        }
        count(&self.ground.metrics.revocations, "cause", "session_revoked");
        change.commit(SessionRevoked { session: id, user }, ()).await
    }

    /// Ends this session.
    pub(crate) async fn log_out(&self, permit: Permit<Logout>) -> Result<(), Failure> {
        let session = permit.user()?.session;
        let Begun::New(mut change) = self.ground.change(&permit).await? else { return Ok(()) };
        sessions::end(&mut change, session, self.ground.now()).await?;
        count(&self.ground.metrics.revocations, "cause", "logout");
        change.commit(LoggedOut::Session { session }, ()).await
    }

    /// Ends all sessions of the user, this one too.
    pub(crate) async fn log_out_everywhere(&self, permit: Permit<Logout>) -> Result<(), Failure> {
        let user = permit.user()?.user;
        let Begun::New(mut change) = self.ground.change(&permit).await? else { return Ok(()) };
        sessions::end_all(&mut change, user, None, self.ground.now()).await?;
        let Some(epoch) = users::bump_epoch(&mut change, user).await? else {
            change.cancel().await?;
            return Err(Code::CredentialRevoked.into());
        };
        count(&self.ground.metrics.revocations, "cause", "logout_everywhere");
        change.commit(LoggedOut::Everywhere { user, epoch }, ()).await
    }

    /// Ends what the token stands for (RFC 7009): an access token alone, a refresh token with its whole session. A token
    /// that is unknown or over is answered the same.
    pub(crate) async fn revoke_token(&self, grant: &Grant, token: TokenText) -> Result<(), Failure> {
        if let Ok(refresh) = RefreshToken::parse(token.expose()) {
            let Some(found) = self.find(refresh.expose()).await? else { return Ok(()) };
            let mut change = self.ground.open(grant, found.tenant_id).await?;
            if !sessions::end(&mut change, found.session_id, self.ground.now()).await? {
                return change.cancel().await;
            }
            count(&self.ground.metrics.revocations, "cause", "oauth_revoke");
            let event = EventKind::SessionRevoked { session: found.session_id, user: found.user_id };
            return change.commit(event, ()).await;
        }
        let Ok(who) = self.authenticator.check(token.expose(), self.ground.now()) else { return Ok(()) };
        let change = self.ground.open(grant, who.tenant).await?;
        count(&self.ground.metrics.revocations, "cause", "oauth_revoke");
        change.commit(EventKind::TokenRevoked { token: who.token, expires: who.expires }, ()).await
    }

    /// Says whether a token of the caller's tenant is live (RFC 7662); of any other only that it is not.
    pub(crate) async fn introspect(
        &self,
        permit: &Permit<IntrospectToken>,
        token: TokenText,
    ) -> Result<Introspection, Failure> {
        let tenant = permit.user()?.tenant;
        let now = self.ground.now();
        if let Ok(refresh) = RefreshToken::parse(token.expose()) {
            let found = self.find(refresh.expose()).await?;
            let live = found
                .filter(|found| found.tenant_id == tenant && found.state == RefreshState::Live && alive(found, now));
            return Ok(live.map_or_else(Introspection::default, |found| Introspection {
                active: true,
                token_type: Some("refresh_token"),
                sub: Some(found.user_id),
                exp: Some(found.expires_at.seconds()),
                tenant: Some(found.tenant_id),
                session: Some(found.session_id),
                ..Introspection::default()
            }));
        }
        let Ok((who, claims)) = self.authenticator.inspect(token.expose(), now) else {
            return Ok(Introspection::default());
        };
        if who.tenant != tenant {
            return Ok(Introspection::default());
        }
        let settings = self.ground.settings.load();
        Ok(Introspection {
            active: true,
            token_type: Some("Bearer"),
            iss: Some(settings.tokens.issuer.clone()),
            aud: Some(settings.tokens.audience.clone()),
            sub: Some(who.user),
            jti: Some(who.token),
            exp: Some(who.expires.seconds()),
            iat: Some(claims.iat.seconds()),
            tenant: Some(who.tenant),
            session: Some(who.session),
            role: Some(who.role),
            tier: Some(who.tier),
        })
    }

    async fn find(&self, token: &str) -> Result<Option<PresentedToken>, Failure> {
        let mut reader = self.ground.read_platform("refresh: a token does not say whose it is").await?;
        Ok(refresh_tokens::by_hash(&mut reader, hash(token)).await?)
    }

    /// Tries to be the one who exchanges the token; `None` when somebody else was.
    async fn spend(&self, grant: &Grant, token: &str, found: &PresentedToken) -> Result<Option<TokenPair>, Failure> {
        let mut change = self.ground.open(grant, found.tenant_id).await?;
        // Read again inside the transaction: a role or an epoch may have changed since.
        let (user, tenant) = (users::by_id(&mut change, found.user_id).await?, tenants::own(&mut change).await?);
        let (Some(user), Some(tenant)) = (user, tenant) else {
            change.cancel().await?;
            return Ok(None);
        };
        if user.status != UserStatus::Active || tenant.status != TenantStatus::Active {
            change.cancel().await?;
            return Ok(None);
        }
        let now = self.ground.now();
        let settings = self.ground.settings.load_full();
        let idle = found.absolute_expires_at.min(now + settings.tokens.refresh_idle);
        let next = mint()?;
        let spend = Spend {
            session: found.session_id,
            generation: found.generation,
            hash: hash(token),
            now,
            successor_sealed: &successor::seal(token, found.session_id, &next)?,
            successor_hash: hash(&next),
            spender_hash: spender(grant),
            expires_at: idle,
        };
        if refresh_tokens::spend(&mut change, &spend).await? == Race::Lost {
            change.cancel().await?;
            return Ok(None);
        }
        let account = Account {
            tenant: found.tenant_id,
            tenant_epoch: tenant.epoch,
            tier: tenant.tier,
            user: found.user_id,
            user_epoch: user.epoch,
            role: user.role,
        };
        let pair = self.pair(&account, found.session_id, next, idle, found.absolute_expires_at, now)?;
        count(&self.ground.metrics.tokens_issued, "by", "refresh");
        change.acts(Actor::User { id: found.user_id, session: Some(found.session_id) });
        change.commit(EventKind::TokenRefreshed { session: found.session_id }, ()).await?;
        Ok(Some(pair))
    }

    /// The lost answer again: the same successor, for the same client, within the window, while nobody used it.
    async fn retry(&self, grant: &Grant, token: &str, found: &PresentedToken) -> Result<Option<TokenPair>, Failure> {
        let now = self.ground.now();
        let settings = self.ground.settings.load_full();
        let recent = found.spent_at.is_some_and(|spent| now <= spent + settings.tokens.refresh_retry);
        let same = found.spender_hash.as_deref() == Some(spender(grant).as_slice());
        let newest = found.session_generation == found.generation.saturating_add(1);
        let Some(sealed) = found.successor_sealed.as_deref().filter(|_| recent && same && newest) else {
            return Ok(None);
        };
        let next = successor::open(token, found.session_id, sealed)?;
        let account = Account {
            tenant: found.tenant_id,
            tenant_epoch: found.tenant_epoch,
            tier: found.tier,
            user: found.user_id,
            user_epoch: found.user_epoch,
            role: found.role,
        };
        self.pair(&account, found.session_id, next, found.idle_expires_at, found.absolute_expires_at, now).map(Some)
    }

    /// A spent token came back: somebody has a copy. Nobody keeps the session.
    async fn reuse(&self, grant: &Grant, found: &PresentedToken) -> Result<TokenPair, Failure> {
        let mut change = self.ground.open(grant, found.tenant_id).await?;
        if sessions::end(&mut change, found.session_id, self.ground.now()).await? {
            self.ground.metrics.refresh_reuse.inc();
            count(&self.ground.metrics.revocations, "cause", "refresh_reuse");
            tracing::warn!(session = %found.session_id, user = %found.user_id, "a spent refresh token came back");
            let event = EventKind::RefreshReused { session: found.session_id, user: found.user_id };
            change.commit(event, ()).await?;
        } else {
            change.cancel().await?;
        }
        Err(Code::RefreshInvalid.into())
    }

    fn pair(
        &self,
        account: &Account,
        session: SessionId,
        refresh: String,
        idle: Millis,
        absolute: Millis,
        now: Millis,
    ) -> Result<TokenPair, Failure> {
        let expires = absolute.min(now + self.ground.settings.load().tokens.access);
        let principal = Principal {
            tenant: account.tenant,
            user: account.user,
            session,
            token: token_id(now)?,
            role: account.role,
            tier: account.tier,
            expires,
        };
        let subject = Subject { principal, user_epoch: account.user_epoch, tenant_epoch: account.tenant_epoch };
        Ok(TokenPair {
            access_token: self.signing.issue(&subject, now)?,
            token_type: "Bearer",
            expires_in: expires.since(now).as_secs(),
            refresh_token: refresh,
            refresh_expires_in: idle.since(now).as_secs(),
        })
    }
}

/// Whether everything the token hangs on still stands.
fn alive(found: &PresentedToken, now: Millis) -> bool {
    // Tokens count in whole seconds: in the session's last one there is no room for another.
    found.ended_at.is_none()
        && found.absolute_expires_at.seconds() > now.seconds()
        && found.user_status == UserStatus::Active
        && found.tenant_status == TenantStatus::Active
        && (found.state == RefreshState::Spent || found.expires_at > now)
}

/// A new refresh token: 256 random bits.
fn mint() -> Result<String, Failure> {
    Ok(format!("{}{}", RefreshToken::PREFIX, URL_SAFE_NO_PAD.encode(random::<32>()?)))
}

/// What is stored of a refresh token. A plain digest is enough for 256 random bits (ASVS 6.5.2).
fn hash(token: &str) -> [u8; 32] {
    digest(&[b"refresh", token.as_bytes()])
}

/// Who spends: User-Agent and network. See docs/adr/0003.
fn spender(grant: &Grant) -> [u8; 32] {
    let network = grant.origin.ip.map(neighbourhood).unwrap_or_default();
    let Client { user_agent, .. } = &grant.client;
    digest(&[b"spender", user_agent.as_deref().unwrap_or_default().as_bytes(), network.as_bytes()])
}

/// The network a device stays in for a few seconds: IPv4 /24, IPv6 /48.
fn neighbourhood(ip: IpAddr) -> String {
    let length = if ip.is_ipv4() { 24 } else { 48 };
    IpNet::new(ip, length).map(|net| net.trunc().to_string()).unwrap_or_default()
}

/// A session as shown.
pub(crate) fn view(keys: &TenantKeys, row: SessionRow, current: Option<SessionId>) -> Result<SessionView, Failure> {
    let kept = keys.open(CLIENT, &row.id.to_string(), &row.client_sealed)?;
    let kept: KeptClient = serde_json::from_slice(kept.expose()).map_err(Failure::fault)?;
    Ok(SessionView {
        id: row.id,
        created_at: row.created_at,
        last_seen_at: row.last_seen_at,
        expires_at: row.idle_expires_at,
        current: current == Some(row.id),
        ip: kept.ip.map(|ip| ip.to_string()),
        user_agent: kept.user_agent,
    })
}
