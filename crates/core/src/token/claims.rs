//! What an access token says (RFC 7519 section 4, RFC 9068 section 2.2).

use std::str::FromStr;
use std::sync::Arc;

use serde::Serialize;

use super::rejection::Rejection;
use super::strict_json::{Object, Value};
use super::{MAX_LIFETIME, Verifier};
use crate::id::{SessionId, TenantId, TokenId, UserId};
use crate::principal::{Role, Tier};
use crate::time::Millis;

/// Largest integer that every JSON reader keeps exactly (RFC 8259 section 6).
const MAX_EXACT: i64 = (1 << 53) - 1;
/// 9999-12-31T23:59:59Z: no date after it can be written as RFC 3339.
const MAX_SECONDS: i64 = 253_402_300_799;

/// The claims of an access token. All are required; `nbf` may be present and is checked; any other claim is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Who issued it: compared byte by byte.
    pub iss: Arc<str>,
    /// Whom it is for: one string, compared byte by byte. Our tokens have one audience, so a list is refused.
    pub aud: Arc<str>,
    /// The user.
    pub sub: UserId,
    /// The tenant.
    pub tid: TenantId,
    /// The session.
    pub sid: SessionId,
    /// This token.
    pub jti: TokenId,
    /// When it was issued. Travels in whole seconds; a fraction is dropped when signing.
    pub iat: Millis,
    /// When it ends: at this moment it is no longer valid. Travels in whole seconds like `iat`.
    pub exp: Millis,
    /// The user's role when it was issued.
    pub role: Role,
    /// The tenant's tier when it was issued.
    pub tier: Tier,
    /// The user's epoch when it was issued, below 2^53: a later epoch ends the token.
    pub ue: u64,
    /// The tenant's epoch when it was issued, below 2^53: a later epoch ends the token.
    pub te: u64,
}

/// The claims as they are written, in this order.
#[derive(Serialize)]
struct Written<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: UserId,
    tid: TenantId,
    sid: SessionId,
    jti: TokenId,
    iat: i64,
    exp: i64,
    role: Role,
    tier: Tier,
    ue: u64,
    te: u64,
}

const NAMES: &[&str] = &["iss", "aud", "sub", "tid", "sid", "jti", "iat", "exp", "nbf", "role", "tier", "ue", "te"];

impl Claims {
    /// Writes the payload; nothing if [`Claims::parse`] would not read it back.
    pub(super) fn to_json(&self) -> Option<Vec<u8>> {
        let (iat, exp) = (self.iat.seconds(), self.exp.seconds());
        let exact = |number: u64| i64::try_from(number).is_ok_and(|number| number <= MAX_EXACT);
        let sound = !self.iss.is_empty()
            && !self.aud.is_empty()
            && exact(self.ue)
            && exact(self.te)
            && (0..=MAX_SECONDS).contains(&iat)
            && exp <= MAX_SECONDS
            && check_lifetime(iat, exp).is_ok();
        if !sound {
            return None;
        }
        let Self { sub, tid, sid, jti, role, tier, ue, te, .. } = *self;
        let written = Written { iss: &self.iss, aud: &self.aud, sub, tid, sid, jti, iat, exp, role, tier, ue, te };
        serde_json::to_vec(&written).ok()
    }

    /// Reads a payload whose signature was found good, and holds it against `verifier` and `now`.
    pub(super) fn parse(json: &[u8], verifier: &Verifier, now: Millis) -> Result<Self, Rejection> {
        let object = Object::parse(json)?;
        if object.names().any(|name| !NAMES.contains(&name)) {
            return Err(Rejection::ClaimUnknown);
        }
        let (iss, aud) = (text(&object, "iss")?, text(&object, "aud")?);
        let (iat, exp) = (seconds(&object, "iat")?, seconds(&object, "exp")?);
        let not_before = object.member("nbf").map(|_| seconds(&object, "nbf")).transpose()?;
        let claims = Self {
            iss: verifier.issuer.clone(),
            aud: verifier.audience.clone(),
            sub: parsed(&object, "sub")?,
            tid: parsed(&object, "tid")?,
            sid: parsed(&object, "sid")?,
            jti: parsed(&object, "jti")?,
            iat: Millis::from_seconds(iat),
            exp: Millis::from_seconds(exp),
            role: parsed(&object, "role")?,
            tier: parsed(&object, "tier")?,
            ue: epoch(&object, "ue")?,
            te: epoch(&object, "te")?,
        };
        if iss.is_empty() || iss != &*verifier.issuer {
            return Err(Rejection::WrongIssuer);
        }
        if aud.is_empty() || aud != &*verifier.audience {
            return Err(Rejection::WrongAudience);
        }
        check_lifetime(iat, exp)?;
        if let Some(not_before) = not_before {
            if not_before >= exp {
                return Err(Rejection::ClaimInvalid);
            }
            if Millis::from_seconds(not_before) > now + super::CLOCK_SKEW {
                return Err(Rejection::NotYetValid);
            }
        }
        verifier.check_time(&claims, now)?;
        Ok(claims)
    }
}

fn check_lifetime(iat: i64, exp: i64) -> Result<(), Rejection> {
    match u64::try_from(exp.saturating_sub(iat)) {
        Err(_) | Ok(0) => Err(Rejection::ClaimInvalid),
        Ok(life) if life > MAX_LIFETIME.as_secs() => Err(Rejection::Lifetime),
        Ok(_) => Ok(()),
    }
}

fn text<'o>(object: &'o Object<'_>, name: &str) -> Result<&'o str, Rejection> {
    object.member(name).ok_or(Rejection::ClaimMissing)?.text().ok_or(Rejection::ClaimInvalid)
}

fn parsed<T: FromStr>(object: &Object<'_>, name: &str) -> Result<T, Rejection> {
    text(object, name)?.parse().map_err(|_| Rejection::ClaimInvalid)
}

fn integer(object: &Object<'_>, name: &str, most: i64) -> Result<i64, Rejection> {
    match object.member(name).ok_or(Rejection::ClaimMissing)? {
        Value::Integer(number) if (0..=most).contains(number) => Ok(*number),
        _ => Err(Rejection::ClaimInvalid),
    }
}

fn seconds(object: &Object<'_>, name: &str) -> Result<i64, Rejection> {
    integer(object, name, MAX_SECONDS)
}

fn epoch(object: &Object<'_>, name: &str) -> Result<u64, Rejection> {
    integer(object, name, MAX_EXACT).map(i64::unsigned_abs)
}
