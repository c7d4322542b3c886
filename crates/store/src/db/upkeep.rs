//! What start-up reads and what time takes away.

use std::time::Duration;

use bartizan_core::audit::Effect;
use bartizan_core::store_life::StoreLife;
use bartizan_core::time::Millis;

use super::Db;
use crate::error::StoreError;
use crate::queries::{blocks, effects, idempotency, login_failures, refresh_tokens, sessions};
use crate::scope::PlatformScope;

/// Rows deleted in one transaction: short enough that a login behind it does not notice.
const BATCH: u32 = 2_000;

/// How long an ended session's refresh tokens are kept, so that one that comes back is still told apart from noise.
const ENDED_LIFE: Duration = Duration::from_secs(24 * 3600);

/// How long the sealed successor of a spent refresh token is kept: well past the retry window of ten seconds.
const SUCCESSOR_LIFE: Duration = Duration::from_secs(120);

/// Effects in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InForce {
    /// The highest number there is, also when that effect is over: where to go on. 0 when there never was one.
    pub highest: i64,
    /// The effects, each until when it must be remembered. In order.
    pub effects: Vec<(Effect, Millis)>,
    /// The lives of the shared store among them, each with its number. In order.
    pub lives: Vec<(i64, StoreLife)>,
}

/// How many rows [`Db::prune`] removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Effects no live token can feel any more. The newest stays in any case: it keeps the number.
    pub effects: u64,
    /// Remembered answers past their time.
    pub idempotency: u64,
    /// Refresh tokens of sessions ended for a day.
    pub refresh_tokens: u64,
    /// Sealed successors past the retry window (the row stays).
    pub successors: u64,
    /// Sessions past their absolute end, with their refresh tokens.
    pub sessions: u64,
    /// Temporary blocks that are over.
    pub blocks: u64,
    /// Counters of failed logins that are back at zero.
    pub login_failures: u64,
}

impl Db {
    /// The effects in force at `now`, in order: what every node must know before it serves. From the number that comes
    /// with them it then follows with [`Db::effects_after`].
    pub async fn load_effects(&self, now: Millis) -> Result<InForce, StoreError> {
        self.effects_after(0, now).await
    }

    /// The effects in force at `now` that were kept after the one numbered `seq`: what a node has to apply that had
    /// applied all up to `seq`. One short statement when there is nothing new.
    ///
    /// A follower misses nothing that matters, however long it was away: numbers rise in the order of commits, and an
    /// effect is removed only after no token is left that could feel it. When the database itself went back, to a backup
    /// or to a standby that lacked the last changes, `highest` is lower than `seq` and all effects in force are in the
    /// answer: apply them, and go on from `highest`.
    pub async fn effects_after(&self, seq: i64, now: Millis) -> Result<InForce, StoreError> {
        let mut reader = self.read_platform(&PlatformScope::granted("follow the effects in force")).await?;
        effects::after(&mut reader, seq, now).await
    }

    /// Removes what is over at `now`, in short transactions. Safe to call at any time and to interrupt.
    pub async fn prune(&self, now: Millis) -> Result<Pruned, StoreError> {
        let mut total = Pruned::default();
        let scope = PlatformScope::granted("prune what is over");
        loop {
            let mut tx = self.change_platform(&scope).await?;
            let round = Pruned {
                effects: effects::prune(&mut tx, now, BATCH).await?,
                idempotency: idempotency::prune(&mut tx, now, BATCH).await?,
                refresh_tokens: refresh_tokens::prune_ended(&mut tx, now - ENDED_LIFE, BATCH).await?,
                successors: refresh_tokens::forget_successors(&mut tx, now - SUCCESSOR_LIFE, BATCH).await?,
                sessions: sessions::prune(&mut tx, now, BATCH / 10).await?,
                blocks: blocks::prune(&mut tx, now).await?,
                login_failures: login_failures::prune(&mut tx, now, BATCH).await?,
            };
            if round == Pruned::default() {
                tx.cancel().await?;
                return Ok(total);
            }
            tx.commit_quietly(()).await?;
            total.add(round);
        }
    }
}

impl Pruned {
    fn add(&mut self, other: Pruned) {
        self.effects += other.effects;
        self.idempotency += other.idempotency;
        self.refresh_tokens += other.refresh_tokens;
        self.successors += other.successors;
        self.sessions += other.sessions;
        self.blocks += other.blocks;
        self.login_failures += other.login_failures;
    }
}
