//! Signing up, logging in and out, and oneself.

use bartizan_core::action::{ChangePassword, Logout, ReadSelf};
use bartizan_core::id::{SessionId, TenantId, UserId};
use bartizan_core::input::{Email, HumanName, NewPassword, Password, RefreshToken, TenantSlug};
use bartizan_core::principal::{Role, Tier};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Services;
use crate::accounts::{Accounts, Me, SignedUp};
use crate::api::{
    Api, Body, Cache, Created, Csrf, Done, Failure, Found, RateClass, Read, Service, Visit, WithCookie, Write, public,
    requires,
};
use crate::guard::Permit;
use crate::sessions::{Sessions, TokenPair};

pub(super) fn routes() -> Api<Services> {
    entrance().merge(oneself())
}

/// What needs no access token: it is where they come from.
fn entrance() -> Api<Services> {
    Api::new()
        .post(
            "/v1/signup",
            Write {
                summary: "Open a tenant and become its owner",
                access: public("anybody may open a tenant"),
                rate: RateClass::Signup,
                csrf: Csrf::Enforced,
                cache: Cache::Private,
            },
            sign_up,
        )
        .post(
            "/v1/login",
            Write {
                summary: "Exchange e-mail and password for tokens",
                access: public("this is where a credential comes from"),
                rate: RateClass::Login,
                csrf: Csrf::Enforced,
                cache: Cache::Private,
            },
            log_in,
        )
        .post(
            "/v1/token/refresh",
            Write {
                summary: "Exchange a refresh token for new tokens",
                access: public("the refresh token is the credential"),
                rate: RateClass::Token,
                csrf: Csrf::Enforced,
                cache: Cache::Private,
            },
            refresh,
        )
}

fn oneself() -> Api<Services> {
    Api::new()
        .post(
            "/v1/logout",
            Write {
                summary: "End this session, or all sessions of the user",
                access: requires(Logout),
                rate: RateClass::Write,
                csrf: Csrf::Enforced,
                cache: Cache::Private,
            },
            log_out,
        )
        .get(
            "/v1/whoami",
            Read {
                summary: "Who the token says one is; reads no database",
                access: requires(ReadSelf),
                rate: RateClass::Read,
                cache: Cache::Private,
            },
            whoami,
        )
        .get(
            "/v1/me",
            Read {
                summary: "One's own account, from the database",
                access: requires(ReadSelf),
                rate: RateClass::Read,
                cache: Cache::Private,
            },
            me,
        )
        .post(
            "/v1/me/password",
            Write {
                summary: "Change one's password; the other sessions end",
                access: requires(ChangePassword),
                rate: RateClass::Login,
                csrf: Csrf::Enforced,
                cache: Cache::Private,
            },
            change_password,
        )
}

/// A new tenant and its owner.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignUp {
    /// The tenant's name in addresses.
    pub(crate) tenant: TenantSlug,
    /// The owner's name.
    pub(crate) name: HumanName,
    /// The owner's e-mail address.
    pub(crate) email: Email,
    /// The owner's password.
    pub(crate) password: NewPassword,
}

async fn sign_up(
    visit: Visit,
    Service(accounts): Service<Accounts>,
    Body(new): Body<SignUp>,
) -> Result<Created<SignedUp>, Failure> {
    accounts.sign_up(visit.grant(), new.tenant, new.name, new.email, new.password).await.map(Created)
}

/// What a person types to log in.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogIn {
    pub(crate) tenant: TenantSlug,
    pub(crate) email: Email,
    pub(crate) password: Password,
}

async fn log_in(
    visit: Visit,
    Service(accounts): Service<Accounts>,
    Body(login): Body<LogIn>,
) -> Result<WithCookie<Found<TokenPair>>, Failure> {
    let (pair, device) = accounts.log_in(visit.grant(), login.tenant, login.email, login.password).await?;
    Ok(WithCookie { answer: Found(pair), cookie: device })
}

/// The refresh token of the last answer.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Refresh {
    pub(crate) refresh_token: RefreshToken,
}

async fn refresh(
    visit: Visit,
    Service(sessions): Service<Sessions>,
    Body(refresh): Body<Refresh>,
) -> Result<Found<TokenPair>, Failure> {
    sessions.refresh(visit.grant(), refresh.refresh_token).await.map(Found)
}

/// Which sessions to end.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogOut {
    /// All sessions of the user instead of this one.
    #[serde(default)]
    pub(crate) all: bool,
}

async fn log_out(
    permit: Permit<Logout>,
    Service(sessions): Service<Sessions>,
    body: Option<Body<LogOut>>,
) -> Result<Done, Failure> {
    let everywhere = body.is_some_and(|Body(wish)| wish.all);
    if everywhere {
        sessions.log_out_everywhere(permit).await?
    } else {
        sessions.log_out(permit).await?
    }
    Ok(Done)
}

/// What the verified token says.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct WhoAmI {
    sub: UserId,
    tenant: TenantId,
    tier: Tier,
    role: Role,
    session: SessionId,
}

async fn whoami(permit: Permit<ReadSelf>) -> Result<Found<WhoAmI>, Failure> {
    let who = permit.user()?;
    Ok(Found(WhoAmI { sub: who.user, tenant: who.tenant, tier: who.tier, role: who.role, session: who.session }))
}

async fn me(permit: Permit<ReadSelf>, Service(accounts): Service<Accounts>) -> Result<Found<Me>, Failure> {
    accounts.me(&permit).await.map(Found)
}

/// The old and the new password.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PasswordChange {
    pub(crate) current: Password,
    pub(crate) new: NewPassword,
}

async fn change_password(
    permit: Permit<ChangePassword>,
    Service(accounts): Service<Accounts>,
    Body(wish): Body<PasswordChange>,
) -> Result<Done, Failure> {
    accounts.change_password(permit, wish.current, wish.new).await?;
    Ok(Done)
}
