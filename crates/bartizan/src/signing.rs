//! The keys that sign access tokens: wrapped in the database, so that every node has the same ones.
//!
//! pending (published) → active (signs) → retired (verifies) → removed; or compromised (neither), from anywhere.
//!
//! [`Signing::tend`] moves them along by age: a new key is published before it signs, long enough for every consumer of
//! the published set to have fetched it; a retired one verifies until the last token it signed has ended.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bartizan_core::audit::{AuditEvent, EventKind};
use bartizan_core::id::TokenId;
use bartizan_core::principal::Principal;
use bartizan_core::time::Millis;
use bartizan_core::token::{
    Algorithm, CLOCK_SKEW, Claims, KeySet, KeyState, MAX_LIFETIME, Rejection, SigningKey, Verifier,
};
use bartizan_keys::KeyProvider;
use bartizan_store::signing_keys::{self, SigningKeyRow};
use bartizan_store::{Db, PlatformScope, words};
use serde_json::Value;

use crate::api::Failure;
use crate::entropy::random;
use crate::ground::Ground;
use crate::guard::Grant;
use crate::settings::Tokens;

/// How long a key signs before its successor is made (SP 800-57 allows years; a short period keeps the way trodden).
const SIGNS_FOR: Duration = Duration::from_secs(90 * 86_400);

/// How long a key is published before it signs: two of the published set's max-age of five minutes.
const PUBLISHED_FOR: Duration = Duration::from_secs(600);

/// How long a retired key still verifies: until the last token it can have signed has ended.
const VERIFIES_FOR: Duration = Duration::from_secs(MAX_LIFETIME.as_secs() + CLOCK_SKEW.as_secs());

/// Signs access tokens and holds what verifies them. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Signing(Arc<ArcSwap<Ring>>);

#[derive(Debug)]
struct Ring {
    /// What was stored when it was made.
    stored: Vec<(String, words::KeyState)>,
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

/// Whether the keys changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tended {
    /// They did: what was published or remembered is out of date.
    Changed,
    /// They did not.
    Unchanged,
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
        node: &str,
        now: Millis,
    ) -> Result<Self, Failure> {
        let mut rows = stored(db).await?;
        if !rows.iter().any(|row| row.state == words::KeyState::Active) {
            let row = make(provider, words::KeyState::Active, now)?;
            let mut tx = db.change_platform(&tending()).await?;
            // Another node may have been faster.
            rows = signing_keys::all(&mut tx).await?;
            if rows.iter().any(|row| row.state == words::KeyState::Active) {
                tx.cancel().await?;
                let ring = Ring::of(&rows, provider, tokens.issuer.as_str().into(), tokens.audience.as_str().into())?;
                return Ok(Self(Arc::new(ArcSwap::from_pointee(ring))));
            }
            signing_keys::insert(&mut tx, &row).await?;
            let event = AuditEvent {
                id: bartizan_core::id::EventId::new(now, random()?),
                at: now,
                tenant: None,
                actor: Grant::system("first-start", node).actor,
                origin: Grant::system("first-start", node).origin,
                kind: EventKind::SigningKeyCreated { kid: row.kid.clone() },
            };
            // Nothing is in force yet that this could end.
            let _ = tx.commit(event, ()).await?;
            rows.push(row);
        }
        let ring = Ring::of(&rows, provider, tokens.issuer.as_str().into(), tokens.audience.as_str().into())?;
        Ok(Self(Arc::new(ArcSwap::from_pointee(ring))))
    }

    /// Moves the keys along where it is time, and takes over what changed: at most one step a call, each durable and
    /// recorded before it is in force here.
    pub(crate) async fn tend(&self, ground: &Ground, provider: &dyn KeyProvider) -> Result<Tended, Failure> {
        let now = ground.now();
        // Read inside the change: of several nodes one moves the keys along, the others find it done.
        let mut tx = ground.db.change_platform(&tending()).await?;
        let rows = signing_keys::all(&mut tx).await?;
        let pending = rows.iter().find(|row| row.state == words::KeyState::Pending);
        let active = rows.iter().find(|row| row.state == words::KeyState::Active);
        let over = rows.iter().find(|row| {
            let ended = matches!(row.state, words::KeyState::Retired | words::KeyState::Compromised);
            ended && row.retired_at.is_some_and(|at| now.since(at) > VERIFIES_FOR)
        });
        let due = active.is_some_and(|row| now.since(row.activated_at.unwrap_or(row.created_at)) >= SIGNS_FOR);
        let grant = Grant::system("key-rotation", &ground.node);
        let kind = if let Some(row) = over {
            signing_keys::delete(&mut tx, &row.kid).await?;
            EventKind::SigningKeyRemoved { kid: row.kid.clone() }
        } else if let (Some(next), Some(last)) = (pending, active)
            && now.since(next.created_at) >= PUBLISHED_FOR
        {
            signing_keys::advance(&mut tx, &last.kid, words::KeyState::Retired, now).await?;
            signing_keys::advance(&mut tx, &next.kid, words::KeyState::Active, now).await?;
            EventKind::SigningKeyRotated { kid: next.kid.clone(), retired: last.kid.clone() }
        } else if due && pending.is_none() {
            let row = make(provider, words::KeyState::Pending, now)?;
            signing_keys::insert(&mut tx, &row).await?;
            EventKind::SigningKeyCreated { kid: row.kid }
        } else {
            tx.cancel().await?;
            return self.take_over(&rows, provider);
        };
        let event = ground.event(&grant, kind)?;
        ground.keep(tx, event, ()).await?;
        self.take_over(&stored(&ground.db).await?, provider)
    }

    /// Puts the stored keys in force, if they are others than those in force.
    fn take_over(&self, rows: &[SigningKeyRow], provider: &dyn KeyProvider) -> Result<Tended, Failure> {
        let old = self.0.load_full();
        let stored = states(rows);
        if old.stored == stored {
            return Ok(Tended::Unchanged);
        }
        self.0.store(Arc::new(Ring::of(rows, provider, Arc::clone(&old.issuer), Arc::clone(&old.audience))?));
        Ok(Tended::Changed)
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
    pub(crate) fn verify(&self, token: &str, now: Millis) -> Result<Claims, Rejection> {
        self.0.load().verifier.verify(token, now)
    }

    /// Whether a token verified before is still within its time.
    pub(crate) fn check_time(&self, claims: &Claims, now: Millis) -> Result<(), Rejection> {
        self.0.load().verifier.check_time(claims, now)
    }

    /// The public keys, as published.
    pub(crate) fn jwks(&self) -> Result<Value, Failure> {
        serde_json::to_value(self.0.load().verifier.keys().public_jwks()).map_err(Failure::fault)
    }
}

impl Ring {
    fn of(
        rows: &[SigningKeyRow],
        provider: &dyn KeyProvider,
        issuer: Arc<str>,
        audience: Arc<str>,
    ) -> Result<Self, Failure> {
        let mut active = None;
        let mut verifying = Vec::with_capacity(rows.len());
        for row in rows {
            let pkcs8 = provider.unwrap_bytes(&row.kek, binding(&row.kid).as_bytes(), &row.private_wrapped)?;
            let algorithm = Algorithm::parse(&row.alg);
            let algorithm = algorithm.ok_or_else(|| Failure::fault("a signing key of an unknown kind"))?;
            let key = SigningKey::from_pkcs8(algorithm, &pkcs8).map_err(Failure::fault)?;
            verifying.push(key.verification_key(state(row.state)).map_err(Failure::fault)?);
            if row.state == words::KeyState::Active {
                active = Some(key);
            }
        }
        let active = active.ok_or_else(|| Failure::fault("no active signing key"))?;
        let keys = Arc::new(KeySet::new(verifying).map_err(Failure::fault)?);
        let verifier = Verifier::new(keys, Arc::clone(&issuer), Arc::clone(&audience)).map_err(Failure::fault)?;
        Ok(Self { active, verifier, issuer, audience, stored: states(rows) })
    }
}

/// Every key with its state, to tell whether something changed.
fn states(rows: &[SigningKeyRow]) -> Vec<(String, words::KeyState)> {
    rows.iter().map(|row| (row.kid.clone(), row.state)).collect()
}

/// A fresh id for a token.
pub(crate) fn token_id(now: Millis) -> Result<TokenId, Failure> {
    Ok(TokenId::new(now, random()?))
}

async fn stored(db: &Db) -> Result<Vec<SigningKeyRow>, Failure> {
    let mut reader = db.read_platform(&tending()).await?;
    Ok(signing_keys::all(&mut reader).await?)
}

fn tending() -> PlatformScope {
    PlatformScope::granted("the signing keys are everybody's")
}

fn make(provider: &dyn KeyProvider, state: words::KeyState, now: Millis) -> Result<SigningKeyRow, Failure> {
    let algorithm = Algorithm::Ed25519;
    let pkcs8 = SigningKey::generate_pkcs8(algorithm).map_err(Failure::fault)?;
    let key = SigningKey::from_pkcs8(algorithm, &pkcs8).map_err(Failure::fault)?;
    let public = key.verification_key(KeyState::Active).map_err(Failure::fault)?.public_jwk();
    Ok(SigningKeyRow {
        kid: key.kid().to_owned(),
        alg: algorithm.as_str().to_owned(),
        state,
        public_jwk: serde_json::to_string(&public).map_err(Failure::fault)?,
        private_wrapped: provider.wrap_bytes(binding(key.kid()).as_bytes(), &pkcs8)?,
        kek: provider.kek_id().to_owned(),
        created_at: now,
        activated_at: (state == words::KeyState::Active).then_some(now),
        retired_at: None,
    })
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
