//! Whether a text is an access token of this installation, now.

use std::sync::Arc;

use super::claims::Claims;
use super::jose::Jws;
use super::key::{KeyError, KeySet};
use super::rejection::Rejection;
use super::{CLOCK_SKEW, MAX_TOKEN};
use crate::time::Millis;

/// Checks access tokens. Cheap to make and to clone: a key rotation makes a new one.
#[derive(Clone, Debug)]
pub struct Verifier {
    keys: Arc<KeySet>,
    pub(super) issuer: Arc<str>,
    pub(super) audience: Arc<str>,
}

impl Verifier {
    /// Believes tokens that a key of `keys` signed, that `issuer` issued and that are meant for `audience`.
    ///
    /// # Errors
    /// `Symmetric` if the set holds MAC keys: whoever could check an access token could then make one.
    pub fn new(
        keys: Arc<KeySet>,
        issuer: impl Into<Arc<str>>,
        audience: impl Into<Arc<str>>,
    ) -> Result<Self, KeyError> {
        if keys.iter().any(|key| key.algorithm().is_symmetric()) {
            return Err(KeyError::Symmetric);
        }
        Ok(Self { keys, issuer: issuer.into(), audience: audience.into() })
    }

    /// The keys that are believed.
    pub fn keys(&self) -> &KeySet {
        &self.keys
    }

    /// Checks `token` completely, except whether it was revoked.
    ///
    /// Costs one signature verification and the reading of two small JSON texts. The answer may be kept under a digest of
    /// the whole text; ask [`Verifier::check_time`] before each use, and forget it when the keys change.
    ///
    /// # Errors
    /// A [`Rejection`]. The header is judged first, then the signature, then the claims: what a bad signature covers is
    /// never looked at.
    pub fn verify(&self, token: &str, now: Millis) -> Result<Claims, Rejection> {
        let jws = Jws::parse(token, MAX_TOKEN)?;
        // Both spellings of RFC 9068 section 4, in the one letter case that anybody writes.
        if !matches!(jws.header().typ.as_deref(), Some("at+jwt" | "application/at+jwt")) {
            return Err(Rejection::WrongType);
        }
        let verified = jws.verify(&self.keys)?;
        Claims::parse(&verified.payload, self, now)
    }

    /// Whether claims that were verified before are in force at `now`. Two comparisons.
    ///
    /// # Errors
    /// `Expired` from `exp` on; `NotYetValid` if `iat` is further ahead than [`CLOCK_SKEW`], as after a clock set back.
    pub fn check_time(&self, claims: &Claims, now: Millis) -> Result<(), Rejection> {
        if now >= claims.exp {
            return Err(Rejection::Expired);
        }
        if claims.iat > now + CLOCK_SKEW {
            return Err(Rejection::NotYetValid);
        }
        Ok(())
    }
}
