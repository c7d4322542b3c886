//! From a token's text to the principal it stands for right now.

use std::sync::Arc;

use bartizan_core::error::Code;
use bartizan_core::principal::Principal;
use bartizan_core::time::Millis;
use bartizan_core::token::{Claims, Rejection};
use bartizan_store::state::{Presented, Standing};

use super::verified::{Digest, VerifiedTokens};
use crate::ground::{Ground, count};
use crate::signing::Signing;

/// Checks access tokens: signature (remembered or verified), time, revocation, epochs, tier. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Authenticator {
    ground: Ground,
    signing: Signing,
    verified: Arc<VerifiedTokens>,
}

/// Why a token is refused: the code for the caller, a word for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rejected {
    pub(crate) code: Code,
    pub(crate) reason: &'static str,
}

/// What is remembered of a token: its digest, unless it is too large to be one of ours, and what it says if its signature
/// was verified before.
#[derive(Clone, Debug)]
pub(crate) struct Recalled {
    digest: Option<Digest>,
    claims: Option<Arc<Claims>>,
}

impl Recalled {
    /// Whether the signature was verified before.
    pub(crate) fn verified(&self) -> bool {
        self.claims.is_some()
    }
}

impl From<Rejection> for Rejected {
    fn from(rejection: Rejection) -> Self {
        Self { code: rejection.code(), reason: rejection.as_str() }
    }
}

impl Rejected {
    /// Whether the token never was one of ours: then somebody is trying.
    pub(crate) fn is_forged(&self) -> bool {
        self.code == Code::CredentialInvalid
    }
}

impl Authenticator {
    pub(crate) fn new(ground: Ground, signing: Signing) -> Self {
        let verified = Arc::new(VerifiedTokens::new(ground.settings.load().tokens.cache));
        Self { ground, signing, verified }
    }

    /// The principal of a token that is genuine, within its time, and not revoked. No input or output; about a
    /// microsecond for a token seen before, an Ed25519 verification for a new one.
    pub(crate) fn check(&self, token: &str, now: Millis) -> Result<Principal, Rejected> {
        self.inspect(token, now).map(|(principal, _)| principal)
    }

    /// As [`Self::check`], of a token that was just looked up. Nothing may be waited for in between: a key could be
    /// retired meanwhile.
    pub(crate) fn check_recalled(&self, token: &str, recalled: Recalled, now: Millis) -> Result<Principal, Rejected> {
        let result = self.genuine(token, recalled, now).and_then(|claims| self.live(&claims));
        self.counted(&result);
        result
    }

    /// As [`Self::check`], with what the token itself says.
    pub(crate) fn inspect(&self, token: &str, now: Millis) -> Result<(Principal, Arc<Claims>), Rejected> {
        let result = self.genuine(token, self.recall(token), now).and_then(|claims| Ok((self.live(&claims)?, claims)));
        self.counted(&result);
        result
    }

    fn counted<T>(&self, result: &Result<T, Rejected>) {
        if let Err(rejected) = result {
            count(&self.ground.metrics.token_rejections, "reason", rejected.reason);
        }
    }

    /// What is remembered of a token. A few hundred nanoseconds.
    pub(crate) fn recall(&self, token: &str) -> Recalled {
        // A token too large to be ours is not worth a digest.
        if token.len() > bartizan_core::token::MAX_TOKEN {
            return Recalled { digest: None, claims: None };
        }
        let digest = VerifiedTokens::digest(token);
        Recalled { claims: self.verified.find(&digest), digest: Some(digest) }
    }

    /// Forgets every remembered signature: a key was retired, removed or distrusted.
    pub(crate) fn forget(&self) {
        self.verified.flush();
    }

    /// Number of tokens whose signature is remembered.
    pub(crate) fn remembered(&self) -> usize {
        self.verified.len()
    }

    fn genuine(&self, token: &str, recalled: Recalled, now: Millis) -> Result<Arc<Claims>, Rejected> {
        let Some(digest) = recalled.digest else { return Err(Rejection::TooLarge.into()) };
        if let Some(claims) = recalled.claims {
            self.signing.check_time(&claims, now)?;
            return Ok(claims);
        }
        let age = self.verified.age();
        let claims = Arc::new(self.signing.verify(token, now)?);
        self.verified.insert(digest, age, Arc::clone(&claims));
        Ok(claims)
    }

    /// Revocation and tier are looked at every time: what is remembered of a token can outlive neither.
    fn live(&self, claims: &Claims) -> Result<Principal, Rejected> {
        let state = &self.ground.state;
        let presented = Presented {
            session: claims.sid,
            token: claims.jti,
            user: claims.sub,
            user_epoch: claims.ue,
            tenant: claims.tid,
            tenant_epoch: claims.te,
            expires: claims.exp,
        };
        if state.standing(&presented) != Standing::InForce {
            return Err(Rejected { code: Code::CredentialRevoked, reason: "revoked" });
        }
        Ok(Principal {
            tenant: claims.tid,
            user: claims.sub,
            session: claims.sid,
            token: claims.jti,
            role: claims.role,
            tier: state.tier_override(claims.tid).unwrap_or(claims.tier),
            expires: claims.exp,
        })
    }
}
