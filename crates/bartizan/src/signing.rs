//! The keys that sign access tokens: wrapped in the database, so that every node has the same ones.
//!
//! pending (published) → active (signs) → retired (verifies) → removed; or compromised (neither), from anywhere.

use std::sync::Arc;

use arc_swap::ArcSwap;
use bartizan_core::id::TokenId;
use bartizan_core::principal::Principal;
use bartizan_core::time::Millis;
use bartizan_core::token::{Algorithm, Claims, KeySet, KeyState, SigningKey, Verifier};
use bartizan_keys::KeyProvider;
use bartizan_store::signing_keys::{self, SigningKeyRow};
use bartizan_store::{Db, PlatformScope, words};
use serde_json::Value;

use crate::api::Failure;
use crate::entropy::random;
use crate::settings::Tokens;

/// Signs access tokens and holds what verifies them. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Signing(Arc<ArcSwap<Ring>>);

#[derive(Debug)]
struct Ring {
    active: SigningKey,
    verifier: Verifier,
    issuer: Arc<str>,
    audience: Arc<str>,
}

/// What a new access token is to say.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) principal: Principal,
    pub(crate) user_epoch: u64,
    pub(crate) tenant_epoch: u64,
}

impl Signing {
    /// Loads the keys; makes the first one in a new database.
    ///
    /// # Errors
    /// When a key cannot be unwrapped: the keyring does not hold the root key it was wrapped under.
    pub(crate) async fn load(
        db: &Db,
        provider: &dyn KeyProvider,
        tokens: &Tokens,
        now: Millis,
    ) -> Result<Self, Failure> {
        let mut rows = {
            let scope = PlatformScope::granted("start-up: load the signing keys");
            let mut reader = db.read_platform(&scope).await?;
            signing_keys::all(&mut reader).await?
        };
        if !rows.iter().any(|row| row.state == words::KeyState::Active) {
            rows.push(first(db, provider, now).await?);
        }
        let mut active = None;
        let mut verifying = Vec::with_capacity(rows.len());
        for row in &rows {
            let pkcs8 = provider.unwrap_bytes(&row.kek, binding(&row.kid).as_bytes(), &row.private_wrapped)?;
            let algorithm =
                Algorithm::parse(&row.alg).ok_or_else(|| Failure::fault("a signing key of an unknown kind"))?;
            let key = SigningKey::from_pkcs8(algorithm, &pkcs8).map_err(Failure::fault)?;
            verifying.push(key.verification_key(state(row.state)).map_err(Failure::fault)?);
            if row.state == words::KeyState::Active {
                active = Some(key);
            }
        }
        let active = active.ok_or_else(|| Failure::fault("no active signing key"))?;
        let keys = Arc::new(KeySet::new(verifying).map_err(Failure::fault)?);
        let verifier = Verifier::new(keys, tokens.issuer.as_str(), tokens.audience.as_str()).map_err(Failure::fault)?;
        let (issuer, audience) = (tokens.issuer.as_str().into(), tokens.audience.as_str().into());
        Ok(Self(Arc::new(ArcSwap::from_pointee(Ring { active, verifier, issuer, audience }))))
    }

    /// Signs a token for `subject`, valid from `now` until its principal's `expires`.
    pub(crate) fn issue(&self, subject: &Subject, now: Millis) -> Result<String, Failure> {
        let ring = self.0.load();
        let who = &subject.principal;
        let claims = Claims {
            iss: Arc::clone(&ring.issuer),
            aud: Arc::clone(&ring.audience),
            sub: who.user,
            tid: who.tenant,
            sid: who.session,
            jti: who.token,
            iat: now,
            exp: who.expires,
            role: who.role,
            tier: who.tier,
            ue: subject.user_epoch,
            te: subject.tenant_epoch,
        };
        ring.active.sign(&claims).map_err(Failure::fault)
    }

    /// Verifies signature and claims; says nothing about revocation.
    pub(crate) fn verify(&self, token: &str, now: Millis) -> Result<Claims, bartizan_core::token::Rejection> {
        self.0.load().verifier.verify(token, now)
    }

    /// Whether a token verified before is still within its time.
    pub(crate) fn check_time(&self, claims: &Claims, now: Millis) -> Result<(), bartizan_core::token::Rejection> {
        self.0.load().verifier.check_time(claims, now)
    }

    /// The public keys, as published.
    pub(crate) fn jwks(&self) -> Result<Value, Failure> {
        serde_json::to_value(self.0.load().verifier.keys().public_jwks()).map_err(Failure::fault)
    }
}

/// A fresh id for a token.
pub(crate) fn token_id(now: Millis) -> Result<TokenId, Failure> {
    Ok(TokenId::new(now, random()?))
}

async fn first(db: &Db, provider: &dyn KeyProvider, now: Millis) -> Result<SigningKeyRow, Failure> {
    let algorithm = Algorithm::Ed25519;
    let pkcs8 = SigningKey::generate_pkcs8(algorithm).map_err(Failure::fault)?;
    let key = SigningKey::from_pkcs8(algorithm, &pkcs8).map_err(Failure::fault)?;
    let public = key.verification_key(KeyState::Active).map_err(Failure::fault)?.public_jwk();
    let row = SigningKeyRow {
        kid: key.kid().to_owned(),
        alg: algorithm.as_str().to_owned(),
        state: words::KeyState::Active,
        public_jwk: serde_json::to_string(&public).map_err(Failure::fault)?,
        private_wrapped: provider.wrap_bytes(binding(key.kid()).as_bytes(), &pkcs8)?,
        kek: provider.kek_id().to_owned(),
        created_at: now,
        activated_at: Some(now),
        retired_at: None,
    };
    let mut tx = db.change_platform(&PlatformScope::granted("start-up: the first signing key")).await?;
    signing_keys::insert(&mut tx, &row).await?;
    let event = bartizan_core::audit::AuditEvent {
        id: bartizan_core::id::EventId::new(now, random()?),
        at: now,
        tenant: None,
        actor: bartizan_core::audit::Actor::System { job: "first-start".into() },
        origin: bartizan_core::audit::Origin::default(),
        kind: bartizan_core::audit::EventKind::SigningKeyCreated { kid: row.kid.clone() },
    };
    // Nothing is in force yet that this could end.
    let _ = tx.commit(event, ()).await?;
    Ok(row)
}

/// What the wrap of a signing key is bound to: it cannot be put in another key's place.
fn binding(kid: &str) -> String {
    format!("bartizan/signing-key/{kid}")
}

const fn state(word: words::KeyState) -> KeyState {
    match word {
        words::KeyState::Pending => KeyState::Pending,
        words::KeyState::Active => KeyState::Active,
        words::KeyState::Retired => KeyState::Retired,
        words::KeyState::Compromised => KeyState::Compromised,
    }
}
