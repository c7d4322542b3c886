//! What every service stands on: the clock, the database, the hot state, the vault; and the one way to change
//! something.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{Context, SHA256};
use bartizan_core::audit::{Actor, AuditEvent, Effect, EventKind, Origin, Recorded};
use bartizan_core::cipher::{FieldRef, Purpose, WrappedKey};
use bartizan_core::error::Code;
use bartizan_core::id::{EventId, TenantId};
use bartizan_core::principal::Principal;
use bartizan_core::time::Millis;
use bartizan_store::idempotency::IdempotencyRow;
use bartizan_store::shared::SharedState;
use bartizan_store::state::{EmbeddedState, Presented, Standing};
use bartizan_store::words::{TenantStatus, UserStatus};
use bartizan_store::{
    Border, Committed, Conn, Db, PlatformScope, Reader, Scope, StoreError, Tx, data_keys, idempotency, sessions,
    tenants, users,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::Failure;
use crate::clock::Clock;
use crate::entropy::random;
use crate::following::Following;
use crate::guard::{Grant, Permit};
use crate::metrics::{Metrics, Word};
use crate::settings::Settings;
use crate::vault::{TenantKeys, Vault};

/// How long an answer is remembered for its `Idempotency-Key`.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);

/// The sealed column of remembered answers.
const ANSWER: FieldRef = FieldRef::new("idempotency", "response");

/// The ground. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Ground(Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) clock: Clock,
    pub(crate) db: Db,
    /// Revocations of this installation, and the limits where no other node counts.
    pub(crate) state: EmbeddedState,
    /// The limits of all nodes together.
    pub(crate) shared: Option<SharedState>,
    /// How far what other nodes ended has been read; `None` with a database that no other node can open.
    pub(crate) following: Option<Following>,
    pub(crate) vault: Vault,
    pub(crate) settings: ArcSwap<Settings>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) node: String,
}

impl Deref for Ground {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Ground {
    pub(crate) fn new(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }

    pub(crate) fn now(&self) -> Millis {
        self.clock.now()
    }

    /// An event of what `grant` does, now.
    pub(crate) fn event(&self, grant: &Grant, kind: EventKind) -> Result<AuditEvent, Failure> {
        let at = self.now();
        // The node is named here and not in every grant: most requests leave no event.
        let origin = Origin { node: self.node.clone(), ..grant.origin.clone() };
        Ok(AuditEvent {
            id: EventId::new(at, random()?),
            at,
            tenant: grant.tenant,
            actor: grant.actor.clone(),
            origin,
            kind,
        })
    }

    /// A read-only view of the permit's tenant.
    pub(crate) async fn read(&self, grant: &Grant) -> Result<Reader<Scope>, Failure> {
        Ok(self.db.read(&grant.scope()?).await?)
    }

    /// A read-only view across tenants, for a stated reason.
    pub(crate) async fn read_platform(&self, why: &'static str) -> Result<Reader<PlatformScope>, Failure> {
        Ok(self.db.read_platform(&PlatformScope::granted(why)).await?)
    }

    /// Begins the change a permit allows. With an `Idempotency-Key` that was already answered, the answer comes back
    /// instead and nothing is begun.
    pub(crate) async fn change<A: Recorded>(&self, permit: &Permit<A>) -> Result<Begun<A::Event>, Failure> {
        self.begin(permit.grant()).await
    }

    /// Begins a change of a public route, whose tenant the service has just found or made.
    pub(crate) async fn open(&self, grant: &Grant, tenant: TenantId) -> Result<Change<EventKind>, Failure> {
        let grant = Grant { tenant: Some(tenant), idempotency: None, ..grant.clone() };
        match self.begin(&grant).await? {
            Begun::New(change) => Ok(*change),
            Begun::Again(_) => Err(Failure::fault("an answer was remembered for a change without a key")),
        }
    }

    /// Like [`Ground::open`], with the client's `Idempotency-Key` in force.
    pub(crate) async fn open_once(&self, grant: &Grant, tenant: TenantId) -> Result<Begun<EventKind>, Failure> {
        self.begin(&Grant { tenant: Some(tenant), ..grant.clone() }).await
    }

    /// The answer this very request got before, when its `Idempotency-Key` is known: for a service that has to ask
    /// something first which is no longer true after the change.
    pub(crate) async fn answered(&self, grant: &Grant) -> Result<Option<Vec<u8>>, Failure> {
        if grant.idempotency.is_none() {
            return Ok(None);
        }
        match self.begin::<EventKind>(grant).await? {
            Begun::Again(answer) => Ok(Some(answer)),
            Begun::New(change) => change.cancel().await.map(|()| None),
        }
    }

    async fn begin<E>(&self, grant: &Grant) -> Result<Begun<E>, Failure> {
        let scope = grant.scope()?;
        let mut tx = self.db.change(&scope).await?;
        if let Some(who) = &grant.principal
            && !self.stands(who, &mut tx).await?
        {
            tx.cancel().await?;
            return Err(Code::CredentialRevoked.into());
        }
        let once = Once::of(grant)?;
        if let Some(once) = &once
            && let Some(row) = idempotency::find(&mut tx, once.key, self.now()).await?
        {
            if row.request_digest != once.request {
                tx.cancel().await?;
                return Err(Code::IdempotencyConflict.into());
            }
            let keys = self.keys(&mut tx).await?;
            tx.cancel().await?;
            return Ok(Begun::Again(keys.open(ANSWER, &hex::encode(once.key), &row.response_sealed)?.expose().clone()));
        }
        let change = Change { tx, ground: self.clone(), grant: grant.clone(), once, kind: std::marker::PhantomData };
        Ok(Begun::New(Box::new(change)))
    }

    /// Whether the credential that was let in is still in force inside the transaction. Between the guard and here lies
    /// the queue of the password hashes and that of the writers: what was revoked meanwhile changes nothing any more.
    async fn stands(&self, who: &Principal, tx: &mut Tx<Scope>) -> Result<bool, Failure> {
        // Of the token alone memory knows; whatever has an epoch is asked of the database, which is ahead of memory.
        let presented = Presented {
            session: who.session,
            token: who.token,
            user: who.user,
            user_epoch: u64::MAX,
            tenant: who.tenant,
            tenant_epoch: u64::MAX,
            expires: who.expires,
        };
        if self.state.standing(&presented) != Standing::InForce {
            return Ok(false);
        }
        let session = sessions::by_id(tx, who.session).await?;
        let user = users::by_id(tx, who.user).await?;
        let tenant = tenants::own(tx).await?;
        Ok(session.is_some_and(|session| session.ended_at.is_none())
            && user.is_some_and(|user| user.status == UserStatus::Active && user.role == who.role)
            && tenant.is_some_and(|tenant| tenant.status == TenantStatus::Active))
    }

    /// The tenant's keys, from memory or unwrapped from the database.
    pub(crate) async fn keys(&self, conn: &mut Conn<Scope>) -> Result<Arc<TenantKeys>, Failure> {
        let tenant = conn.scope().tenant();
        if let Some(keys) = self.vault.cached(tenant) {
            return Ok(keys);
        }
        let rows = data_keys::all(conn).await?;
        let wrapped = rows
            .into_iter()
            .map(|row| {
                let purpose = Purpose::ALL.iter().copied().find(|purpose| purpose.as_str() == row.purpose);
                let purpose = purpose.ok_or_else(|| Failure::fault("a data key of an unknown purpose"))?;
                let (id, kek, created, wrapped) = (row.id, row.kek, row.created_at, row.wrapped);
                Ok(WrappedKey { tenant, id, purpose, kek, created, wrapped })
            })
            .collect::<Result<Vec<_>, Failure>>()?;
        Ok(self.vault.unlock(tenant, &wrapped)?)
    }

    /// Makes a change durable and puts its effects into force, in one step that ends even when nobody waits for it: a
    /// client that hangs up, or a deadline, between the two would leave a session ended on disk and alive in memory.
    pub(crate) async fn keep<S, T>(&self, tx: Tx<S>, event: AuditEvent, value: T) -> Result<T, Failure>
    where
        S: Border + Send + 'static,
        T: Send + 'static,
    {
        let ground = self.clone();
        let kept = tokio::spawn(async move {
            let mut committed = tx.commit(event, value).await?;
            let (effect_seq, kept) = (committed.effect_seq, Instant::now());
            // Of all effects only a tier undoes another, so here the order counts: it is that of the database, in which a
            // reader that is under way may still be one behind.
            let moves = |effect: &Effect| matches!(effect, Effect::SetTier(..));
            if committed.effects.iter().any(|(effect, _)| moves(effect)) && ground.read_after(kept).await {
                committed.effects.retain(|(effect, _)| !moves(effect));
            }
            let value = ground.apply(committed);
            ground.announce(effect_seq, kept).await;
            Ok::<_, StoreError>(value)
        });
        Ok(kept.await.map_err(Failure::fault)??)
    }

    /// Puts durable effects into force in memory. Must be done before the answer leaves.
    pub(crate) fn apply<T>(&self, committed: Committed<T>) -> T {
        for (effect, until) in committed.effects {
            self.state.apply(effect, until);
        }
        self.metrics.audit_events.inc();
        committed.value
    }

    /// Records something that changed nothing, such as a refusal.
    pub(crate) async fn record(&self, grant: &Grant, kind: EventKind) -> Result<(), Failure> {
        let event = self.event(grant, kind)?;
        self.apply(self.db.record_alone(event).await?);
        Ok(())
    }
}

/// What begins when a change is asked for.
#[derive(Debug)]
pub(crate) enum Begun<E> {
    /// The change.
    New(Box<Change<E>>),
    /// It was made before, under the same `Idempotency-Key`: the answer it got, as JSON.
    Again(Vec<u8>),
}

/// Reads a remembered answer back.
pub(crate) fn again<T: DeserializeOwned>(answer: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(answer).map_err(Failure::fault)
}

/// A change in the making: a transaction inside one tenant that can only be kept with an event of the kind `E`.
pub(crate) struct Change<E> {
    tx: Tx<Scope>,
    ground: Ground,
    grant: Grant,
    once: Option<Once>,
    kind: std::marker::PhantomData<fn(E)>,
}

impl<E> std::fmt::Debug for Change<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Change").field("grant", &self.grant).finish_non_exhaustive()
    }
}

impl<E: Into<EventKind>> Change<E> {
    /// Writes a further event; the last one goes to [`Change::commit`].
    pub(crate) async fn record(&mut self, event: E) -> Result<(), Failure> {
        let event = self.ground.event(&self.grant, event.into())?;
        self.tx.record(&event).await?;
        self.ground.metrics.audit_events.inc();
        Ok(())
    }

    /// Keeps the change. When this returns it is durable together with its audit row, its effects are in force on this
    /// node, and `value` may be answered.
    pub(crate) async fn commit<T>(mut self, event: E, value: T) -> Result<T, Failure>
    where
        T: Serialize + Send + 'static,
    {
        let event = self.ground.event(&self.grant, event.into())?;
        if let Some(once) = &self.once {
            let keys = self.ground.keys(&mut self.tx).await?;
            let answer = serde_json::to_vec(&value).map_err(Failure::fault)?;
            let row = IdempotencyRow {
                scope_user: self.grant.principal.as_ref().map(|principal| principal.user),
                key_hash: once.key,
                request_digest: once.request,
                status: 200,
                response_sealed: keys.seal(ANSWER, &hex::encode(once.key), &answer)?,
                created: event.at,
                expires: event.at + REMEMBERED,
            };
            self.tx.remember(&row).await?;
        }
        let Self { tx, ground, .. } = self;
        ground.keep(tx, event, value).await
    }

    /// Names who acts, where that is only known inside the change: a login, a refresh.
    pub(crate) fn acts(&mut self, actor: Actor) {
        self.grant.actor = actor;
    }

    /// Takes everything back because a rule refused.
    pub(crate) async fn cancel(self) -> Result<(), Failure> {
        Ok(self.tx.cancel().await?)
    }
}

impl<E> Deref for Change<E> {
    type Target = Tx<Scope>;
    fn deref(&self) -> &Tx<Scope> {
        &self.tx
    }
}

impl<E> DerefMut for Change<E> {
    fn deref_mut(&mut self) -> &mut Tx<Scope> {
        &mut self.tx
    }
}

/// Digests of an `Idempotency-Key` and of the request it stands for.
#[derive(Clone, Copy, Debug)]
struct Once {
    key: [u8; 32],
    request: [u8; 32],
}

impl Once {
    /// The key belongs to the user who sent it; nobody meets another one's answer.
    fn of(grant: &Grant) -> Result<Option<Self>, Failure> {
        let Some(wish) = &grant.idempotency else { return Ok(None) };
        let user = grant.principal.as_ref().map(|principal| principal.user.to_string()).unwrap_or_default();
        let body = wish.body.get().copied().unwrap_or_default();
        Ok(Some(Self {
            key: digest(&[user.as_bytes(), wish.key.as_bytes()]),
            request: digest(&[wish.target.as_bytes(), &body]),
        }))
    }
}

/// SHA-256 of length-prefixed parts: no two lists of parts share a digest.
pub(crate) fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

/// Counts one more of `word` in a family of counters.
pub(crate) fn count(
    family: &prometheus_client::metrics::family::Family<Word, prometheus_client::metrics::counter::Counter>,
    label: &'static str,
    word: &'static str,
) {
    family.get_or_create(&Word(label, word)).inc();
}
