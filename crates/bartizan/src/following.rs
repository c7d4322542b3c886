//! What other nodes ended: read from the database again and again, so that this node knows of it within a stated bound.
//!
//! The database numbers every effect in the order of the commits. A node remembers up to which number it has read, and
//! reads on every [`PERIOD`]. How old its copy may be is the *bound*: past it no credential is believed without one more
//! read, and when that fails the request is refused. So a revocation answered with 2xx anywhere is in force everywhere
//! within the bound, or nobody is let in there.
//!
//! In *strict* mode the shared state also holds the highest number. It is raised before the 2xx leaves, comes back with
//! each request's round trip, and a node that has read less reads on before it decides. What follows from it is checked
//! in `store/src/shared/models` and written down in `docs/models.md`:
//!
//! - A read's age counts from its beginning: what is committed during a read may be missing in it.
//! - Only reads move the number on. An own commit does not: a lower one of another node may not have been read yet.
//! - A number is believed only in the life of the store that the database announced last. Whoever meets another life
//!   announces it, in the same order of commits as the revocations. Until a node has read that, each of its requests
//!   reads the database once, by a read that began after the request.
//! - A raise counts only in the life announced last before the revocation, and when all nodes have had time to hear of it.
//!   Else the answer waits out the bound, after its commit and before its 2xx.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex as Sync, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bartizan_core::audit::EventKind;
use bartizan_core::error::{Code, Refusal};
use bartizan_core::store_life::StoreLife;
use bartizan_store::InForce;
use bartizan_store::shared::Sequence;
use tokio::sync::Mutex;

use self::lives::Lives;
use crate::ground::Ground;
use crate::guard::Grant;

mod lives;

/// How often the database is read: the usual delay of a revocation made elsewhere is half of it.
pub(crate) const PERIOD: Duration = Duration::from_millis(200);

/// How much further back than now effects are read: clocks of nodes may differ by five minutes each way, and a token
/// lives fifteen.
const OVERLAP: Duration = Duration::from_secs(20 * 60);

/// How much longer than the bound somebody waits who could not raise the number: clocks do not run equally fast.
const MARGIN: Duration = Duration::from_millis(50);

/// How often a node announces a life of the store at most: nodes that disagree about the store must not write all the time.
const ANNOUNCED: Duration = Duration::from_secs(5);

/// How far this node has read.
#[derive(Debug)]
pub(crate) struct Following {
    bound: Duration,
    strict: bool,
    start: Instant,
    applied: AtomicI64,
    /// When the last complete read began, in microseconds since `start`.
    fresh: AtomicU64,
    /// Held during a read. Whoever waited for it takes over its outcome if it began late enough.
    last: Mutex<Option<(Instant, bool)>>,
    lives: Sync<Lives>,
    /// Held while a life of the store is announced; when this node last did.
    announcing: Mutex<Option<Instant>>,
}

/// What a request may build on: taken before its credential is looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Copied {
    /// Effects up to this number are in force here.
    applied: i64,
    /// The life of the store announced last among them.
    life: Option<StoreLife>,
}

impl Following {
    /// From what was loaded by a read that began at `began`.
    pub(crate) fn new(bound: Duration, strict: bool, loaded: &InForce, began: Instant) -> Self {
        let mut lives = Lives::default();
        lives.hear(&loaded.lives, Instant::now());
        Self {
            bound,
            strict,
            start: began,
            applied: AtomicI64::new(loaded.highest),
            fresh: AtomicU64::new(0),
            last: Mutex::new(None),
            lives: Sync::new(lives),
            announcing: Mutex::new(None),
        }
    }

    /// Whether each request asks the shared state for the number.
    pub(crate) fn strict(&self) -> bool {
        self.strict
    }

    /// The number up to which effects are in force here.
    pub(crate) fn applied(&self) -> i64 {
        self.applied.load(Ordering::Acquire)
    }

    /// How old the copy is.
    pub(crate) fn age(&self) -> Duration {
        self.start.elapsed().saturating_sub(Duration::from_micros(self.fresh.load(Ordering::Acquire)))
    }

    /// The bound.
    pub(crate) fn bound(&self) -> Duration {
        self.bound
    }

    /// What a request may build on whose copy is fresh. The life is read first, and made known last: so the number is never
    /// below that of its announcement, or a revocation before the announcement could be missed.
    pub(crate) fn copied(&self) -> Copied {
        let life = self.lives().last();
        Copied { applied: self.applied(), life }
    }

    fn lives(&self) -> MutexGuard<'_, Lives> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes what a read brought that began at `began` known, when its effects are in force.
    fn advance(&self, after: i64, found: &InForce, began: Instant) {
        self.applied.store(found.highest, Ordering::Release);
        {
            let mut lives = self.lives();
            if found.highest < after {
                lives.forget();
            }
            lives.hear(&found.lives, Instant::now());
        }
        let fresh = began.saturating_duration_since(self.start).as_micros();
        self.fresh.store(u64::try_from(fresh).unwrap_or(u64::MAX), Ordering::Release);
    }
}

impl Ground {
    /// Makes sure that the copy of the revocations is not older than the bound. Nothing to do, and no wait, as long as
    /// the reads succeed; always so with a database that only this process can open.
    ///
    /// # Errors
    /// 503 when the database cannot be read: nobody is believed.
    pub(crate) async fn fresh(&self) -> Result<(), Refusal> {
        match &self.following {
            Some(following) if following.age() >= following.bound => {
                Box::pin(self.read_on(following, Instant::now())).await
            }
            _ => Ok(()),
        }
    }

    /// Whether the copy is young enough, without a read.
    pub(crate) fn is_fresh(&self) -> bool {
        self.following.as_ref().is_none_or(|following| following.age() < following.bound)
    }

    /// Takes what a strict request was told into account. `copied` is from after its copy was found fresh and before its
    /// credential was looked at; `began` is when the request began. Says whether the credential must be looked at again.
    ///
    /// # Errors
    /// 503 when the database had to be read and could not.
    pub(crate) async fn heed(&self, said: Option<Sequence>, copied: Copied, began: Instant) -> Result<bool, Refusal> {
        let Some(following) = &self.following else { return Ok(false) };
        let believed = said.filter(|said| copied.life == Some(said.life));
        if believed.is_some_and(|said| i64::try_from(said.number).unwrap_or(i64::MAX) <= copied.applied) {
            return Ok(false);
        }
        Box::pin(self.read_on(following, began)).await?;
        if believed.is_none() && following.copied().life != said.map(|said| said.life) {
            let ground = self.clone();
            tokio::spawn(async move { ground.meet().await });
        }
        Ok(true)
    }

    /// Asks the store in which life it is, and announces that if it is news.
    pub(crate) async fn meet(&self) {
        let (Some(following), Some(shared)) = (&self.following, &self.shared) else { return };
        let Ok(mut announced) = following.announcing.try_lock() else { return };
        if !following.strict || announced.is_some_and(|last| last.elapsed() < ANNOUNCED) {
            return;
        }
        // Makes the number where there is none.
        let known = u64::try_from(following.applied()).unwrap_or(0);
        let Ok(Sequence { life, .. }) = shared.raise_sequence(known).await else { return };
        let last = following.copied().life;
        if last == Some(life) {
            return;
        }
        *announced = Some(Instant::now());
        let told = self.record(&Grant::system("shared-state", &self.node), EventKind::StateLifeBegan { life }).await;
        match told {
            Ok(()) if last.is_none() => tracing::info!(%life, "the shared state is announced to all nodes"),
            Ok(()) => tracing::warn!(
                %life,
                "the shared state is another one than before (started anew, failed over, or emptied): until every node knows, \
                 requests read the database, and what ends a session waits out the bound"
            ),
            Err(cause) => tracing::error!(%cause, "a new life of the shared state cannot be announced in the database"),
        }
    }

    /// Reads on once; in the background, for ever.
    pub(crate) async fn follow(&self) {
        let Some(following) = &self.following else { return };
        let mut tick = tokio::time::interval(PERIOD);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            tick.tick().await;
            let failed = self.read_on(following, Instant::now()).await.is_err();
            if failed && !failing {
                tracing::error!(
                    bound = ?following.bound,
                    "revocations of other nodes cannot be read from the database: past the bound nobody is let in here"
                );
            }
            if !failed && failing {
                tracing::info!("revocations of other nodes are read again");
            }
            failing = failed;
        }
    }

    /// Puts everything into force that was kept before `kept`, in its order. Not where nothing is followed, or the
    /// database cannot be read.
    pub(crate) async fn read_after(&self, kept: Instant) -> bool {
        match &self.following {
            Some(following) => self.read_on(following, kept).await.is_ok(),
            None => false,
        }
    }

    /// A read that began at `not_before` or later; one for all who wait.
    async fn read_on(&self, following: &Following, not_before: Instant) -> Result<(), Refusal> {
        let away = || Refusal::new(Code::StorageUnavailable).retry_after(Duration::from_secs(1));
        let mut last = following.last.lock().await;
        if let Some((began, read)) = *last
            && began >= not_before
        {
            return if read { Ok(()) } else { Err(away()) };
        }
        let began = Instant::now();
        let after = following.applied();
        let read = tokio::time::timeout(following.bound, self.db.effects_after(after, self.now() - OVERLAP)).await;
        let found = match read {
            Ok(Ok(found)) => found,
            failed => {
                *last = Some((began, false));
                if let Ok(Err(cause)) = failed {
                    tracing::debug!(%cause, "effects could not be read");
                }
                return Err(away());
            }
        };
        for (effect, until) in &found.effects {
            self.state.apply(*effect, *until);
        }
        following.advance(after, &found, began);
        *last = Some((began, true));
        Ok(())
    }

    /// Before the 2xx of a change that ends something: makes sure that every node heeds it at once, or will have heard
    /// of it. `kept` is when the commit returned.
    pub(crate) async fn announce(&self, effect_seq: Option<i64>, kept: Instant) {
        let (Some(following), Some(seq)) = (&self.following, effect_seq) else { return };
        if !following.strict {
            return;
        }
        let raise = async {
            let shared = self.shared.as_ref()?;
            shared.raise_sequence(u64::try_from(seq).unwrap_or(0)).await.ok()
        };
        // All lives announced before `seq` are known after a read that began after the commit.
        let (raised, read) = tokio::join!(raise, self.read_on(following, kept));
        let (wait, now) = (following.bound + MARGIN, Instant::now());
        let counts = |told: Sequence| read.is_ok() && following.lives().settled(told.life, seq, wait, now);
        let raised = raised.is_some_and(counts);
        if !raised {
            self.metrics.announcements_waited.inc();
            tokio::time::sleep_until((kept + following.bound + MARGIN).into()).await;
        }
    }
}
