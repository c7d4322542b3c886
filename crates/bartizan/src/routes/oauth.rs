//! The two OAuth operations resource servers and clients expect: revocation (RFC 7009) and introspection (RFC 7662).

use bartizan_core::action::IntrospectToken;
use bartizan_core::input::TokenText;
use schemars::JsonSchema;
use serde::Deserialize;

use super::Services;
use crate::api::{
    Accepted, Api, Cache, Csrf, Failure, Form, Found, RateClass, Service, Visit, Write, public, requires,
};
use crate::guard::Permit;
use crate::sessions::{Introspection, Sessions};

pub(super) fn routes() -> Api<Services> {
    Api::new()
        .post(
            "/oauth/revoke",
            Write {
                summary: "Revoke an access or refresh token (RFC 7009)",
                access: public("whoever holds a token may end it"),
                rate: RateClass::Token,
                csrf: Csrf::Enforced,
                cache: Cache::Private,
            },
            revoke_token,
        )
        .post(
            "/oauth/introspect",
            Write {
                summary: "Whether a token of one's own tenant is live (RFC 7662)",
                access: requires(IntrospectToken),
                rate: RateClass::Read,
                csrf: Csrf::Enforced,
                cache: Cache::Private,
            },
            introspect_token,
        )
}

/// A token, and perhaps what kind it is.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenForm {
    /// The access or refresh token.
    pub(crate) token: TokenText,
    /// `access_token` or `refresh_token`; other values are ignored, as RFC 7009 section 2.1 asks.
    #[serde(default)]
    #[schemars(length(max = 64))]
    #[expect(dead_code, reason = "a hint: both kinds are told apart by their shape")]
    token_type_hint: Option<String>,
    /// Clients of RFC 7009 name themselves; whoever holds the token may end it, so nobody is asked who he is.
    #[serde(default)]
    #[schemars(length(max = 256))]
    #[expect(dead_code, reason = "taken, so that ordinary clients are not refused, and not believed")]
    client_id: Option<String>,
}

async fn revoke_token(
    visit: Visit,
    Service(sessions): Service<Sessions>,
    Form(form): Form<TokenForm>,
) -> Result<Accepted, Failure> {
    sessions.revoke_token(visit.grant(), form.token).await?;
    Ok(Accepted)
}

async fn introspect_token(
    permit: Permit<IntrospectToken>,
    Service(sessions): Service<Sessions>,
    Form(form): Form<TokenForm>,
) -> Result<Found<Introspection>, Failure> {
    sessions.introspect(&permit, form.token).await.map(Found)
}
