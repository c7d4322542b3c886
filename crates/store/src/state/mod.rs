//! The hot state on one machine: limits, bans, revocations, in memory.
//!
//! Methods are intentions, each atomic; the time is always an argument. SQL stays the truth for revocations (they are
//! loaded before the server listens); the counters are kept by [`EmbeddedState::snapshot`]. Nothing here blocks except
//! for snapshots, which do file work and belong on a thread that may wait.
//!
//! **What it costs** (`benches/state.rs` measures it): a decision is about one cache miss for each limit among a
//! million keys; a look at the revocations is four reads of a filter without any lock, and a table only when the filter
//! does not rule it out. 21 to 26 bytes a limited key, 32 to 48 a revoked token; 2 MiB and little more when empty.
//!
//! **What a kill -9 may give away:** what was counted after the last snapshot is forgotten. So a key may be admitted once
//! more what it was admitted since then, at most its burst. [`EmbeddedState::assume_spent`] makes that zero.
//!
//! **Upkeep by the caller:** [`EmbeddedState::sweep`] about once a second, [`EmbeddedState::snapshot`] as often as the
//! bound above asks for.

mod bans;
mod limits;
mod revocations;
mod snapshot;
mod table;
#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bartizan_core::audit::Effect;
use bartizan_core::id::TenantId;
use bartizan_core::limit::{Key, KeyMaker, Quota, Tat, Verdict};
use bartizan_core::principal::Tier;
use bartizan_core::time::Millis;

pub use bans::BanPolicy;
pub(crate) use bans::Record;
pub(crate) use limits::name;
pub use limits::{Ask, Counted, MOST_LIMITS};
pub use revocations::{Presented, Standing};
pub(crate) use snapshot::Entry;
pub use snapshot::{Flaw, Found, Kept, Restored, Snapshot};

use bans::Bans;
use limits::Limits;
use revocations::Revocations;

/// One sweep looks at every n-th shard, so that none takes long.
const SWEEP_ROUND: usize = 8;

/// The gate's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Within every limit, and charged to each.
    Admitted,
    /// Over a limit; nothing was charged. `limit.violated()` of the asks tells which.
    Limited {
        /// Waiting exactly this long is enough, if nobody else takes meanwhile.
        retry_after: Duration,
    },
    /// Refused without counting: a ban is in force.
    Banned {
        /// Its end.
        until: Millis,
    },
    /// Over a limit once too often: a ban begins with this request.
    BanBegan {
        /// Its end.
        until: Millis,
    },
    /// No waiting helps: the cost is above a burst, a key was named twice, or there were more than [`MOST_LIMITS`]
    /// limits.
    Impossible,
}

/// How much there is of everything: what metrics export.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Counters held, those that have emptied since the last sweep included.
    pub limited_keys: usize,
    /// Limits counted in a shared bucket because the table was full, since the start.
    pub counted_shared: u64,
    /// Ban records: bans in force, and refusals that may lead to one.
    pub ban_records: usize,
    /// Ended sessions and tokens.
    pub ended: usize,
    /// Users and tenants with a raised epoch.
    pub raised: usize,
    /// Tenants whose tier changed.
    pub moved: usize,
    /// Bytes held by all of it.
    pub memory_bytes: usize,
}

/// Limits, bans and revocations of one machine.
pub struct EmbeddedState {
    keys: KeyMaker,
    limits: Limits,
    bans: Bans,
    revocations: Revocations,
    sweeps: AtomicUsize,
    /// Held while a snapshot is written; whether the last one failed.
    snapshot: Mutex<LastSnapshot>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum LastSnapshot {
    Complete,
    Missing,
}

impl EmbeddedState {
    /// Empty state for at most `max_keys` counters and an eighth as many ban records. Allocates a little over 2 MiB.
    pub fn new(max_keys: usize, bans: BanPolicy, keys: KeyMaker) -> Self {
        Self {
            keys,
            limits: Limits::new(max_keys),
            bans: Bans::new(bans, (max_keys / 8).max(64)),
            revocations: Revocations::new(),
            sweeps: AtomicUsize::new(0),
            snapshot: Mutex::new(LastSnapshot::Missing),
        }
    }

    /// Makes the keys of limits and bans.
    pub fn keys(&self) -> &KeyMaker {
        &self.keys
    }

    /// Takes `cost` from every limit or from none, in one step for all callers. The asks then tell what each said.
    ///
    /// At most [`MOST_LIMITS`] limits, each with another key; more, or a key named twice, is [`Verdict::Never`].
    pub fn take(&self, asks: &mut [Ask], cost: u32, now: Millis) -> Verdict {
        self.limits.take(asks, cost, now)
    }

    /// [`Self::take`] at the gate: refuses while `who` is banned, before any counting, and counts each refusal towards
    /// the next ban.
    pub fn admit(&self, who: Key, asks: &mut [Ask], cost: u32, now: Millis) -> Admission {
        if let Some(until) = self.bans.banned(who, now) {
            return Admission::Banned { until };
        }
        match self.limits.take(asks, cost, now) {
            Verdict::Admit => Admission::Admitted,
            Verdict::Never => Admission::Impossible,
            Verdict::Deny { retry_after } => match self.bans.denied(who, now) {
                Some(until) => Admission::BanBegan { until },
                None => Admission::Limited { retry_after },
            },
        }
    }

    /// Gives back what a call with these asks took.
    pub fn refund(&self, asks: &[Ask], cost: u32, now: Millis) {
        self.limits.refund(asks, cost, now);
    }

    /// Until when `who` is banned, if so.
    pub fn banned(&self, who: Key, now: Millis) -> Option<Millis> {
        self.bans.banned(who, now)
    }

    /// Counts a refusal that was not a limit's, such as a failed login; the end of the ban when it was one too many.
    pub fn count_refusal(&self, who: Key, now: Millis) -> Option<Millis> {
        self.bans.denied(who, now)
    }

    /// Bans `who` for `length`, at most an hour ([`BanPolicy::LONGEST`]); tells the end. For longer there is the block list.
    pub fn ban(&self, who: Key, length: Duration, now: Millis) -> Millis {
        self.bans.ban(who, length, now)
    }

    /// Takes another ban policy from now on; bans in force stay.
    pub fn rule_bans(&self, policy: BanPolicy) {
        self.bans.rule(policy);
    }

    /// Ends the ban of `who` and forgets what led to it.
    pub fn pardon(&self, who: Key) {
        self.bans.pardon(who);
    }

    /// Makes an effect of the audit trail true. `until` is when the last token it concerns expires, leeway included.
    /// Twice is the same as once.
    pub fn apply(&self, effect: Effect, until: Millis) {
        self.revocations.apply(effect, until);
    }

    /// Whether a verified token is still in force. Usually no lock at all; no allocation.
    pub fn standing(&self, presented: &Presented) -> Standing {
        self.revocations.standing(presented)
    }

    /// The tier that replaces the one older tokens carry.
    pub fn tier_override(&self, tenant: TenantId) -> Option<Tier> {
        self.revocations.tier_override(tenant)
    }

    /// Changes with every [`Self::apply`]: what was found in force at this number still is.
    pub fn generation(&self) -> u64 {
        self.revocations.generation()
    }

    /// The kept moment of one counter, for callers that store chosen ones themselves; `None` when it is empty.
    pub fn tat_of(&self, key: Key) -> Option<Tat> {
        self.limits.tat_of(key)
    }

    /// Puts a stored moment of a counter of `quota` back. The later of this and what is there stays.
    pub fn restore(&self, key: Key, quota: &Quota, tat: Tat, now: Millis) -> Restore {
        self.limits.remember_longest(quota.drains_in());
        match tat.at_most(now + quota.drains_in()) {
            Some(tat) if !self.limits.restore(limits::name(key), tat, now) => Restore::NoRoom,
            _ => Restore::Kept,
        }
    }

    /// From now on takes every bucket as full at `at`, unless it knows worse: the strict way to start after counters
    /// were lost, since nobody can have taken more. Everybody begins without a burst and refills at his rate.
    pub fn assume_spent(&self, at: Millis) {
        self.limits.assume_spent(at);
    }

    /// Forgets what is over, in an eighth of the shards; call it about once a second. It also mends counters that lie
    /// too far ahead after the clock was set back.
    pub fn sweep(&self, now: Millis) {
        let turn = self.sweeps.fetch_add(1, Ordering::Relaxed);
        let chosen = |shard: usize, count: usize| shard % SWEEP_ROUND == turn % SWEEP_ROUND || count == 1;
        let shards = self.limits.shards.shard_count();
        (0..shards).filter(|shard| chosen(*shard, shards)).for_each(|shard| self.limits.sweep(shard, now));
        let shards = self.bans.records.shard_count();
        (0..shards).filter(|shard| chosen(*shard, shards)).for_each(|shard| self.bans.sweep(shard, now));
        self.revocations.sweep(now, chosen);
    }

    /// Writes the counters and bans to `path`, replacing the last snapshot in one step; does nothing when nothing was
    /// counted since. Blocks for the disk: a few milliseconds, and about 16 bytes a counter.
    ///
    /// # Errors
    /// Whatever the disk says. The last snapshot is then still whole, and the next call tries again.
    pub fn snapshot(&self, path: &Path, now: Millis) -> io::Result<Snapshot> {
        let mut last = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = *last == LastSnapshot::Missing;
        changed |= self.bans.dirty.swap(false, Ordering::Relaxed);
        for shard in 0..self.limits.shards.shard_count() {
            if let Some(mut shard) = self.limits.shards.write(shard) {
                changed |= std::mem::take(&mut shard.beside().dirty);
            }
        }
        if !changed {
            return Ok(Snapshot::Unchanged);
        }
        *last = LastSnapshot::Missing;
        let bytes = snapshot::save(path, &self.limits, &self.bans, &self.keys, now)?;
        *last = LastSnapshot::Complete;
        Ok(Snapshot::Written { bytes })
    }

    /// Reads what [`Self::snapshot`] wrote; call it before serving. A file that is damaged, foreign or of another
    /// version is moved aside and told, never an error.
    ///
    /// # Errors
    /// Only when the disk refuses to read or move the file.
    pub fn load(&self, path: &Path, now: Millis) -> io::Result<Restored> {
        snapshot::load(path, &self.limits, &self.bans, &self.keys, now)
    }

    /// How much there is of everything. Takes each shard's lock for a moment.
    pub fn counts(&self) -> Counts {
        let (ended, raised, moved) = self.revocations.counts();
        Counts {
            limited_keys: self.limits.shards.len(),
            counted_shared: self.limits.shared_total(),
            ban_records: self.bans.records.len(),
            ended,
            raised,
            moved,
            memory_bytes: self.memory_bytes(),
        }
    }

    /// Bytes held by the tables.
    pub fn memory_bytes(&self) -> usize {
        self.limits.shards.memory_bytes() + self.bans.records.memory_bytes() + self.revocations.memory_bytes()
    }
}

impl std::fmt::Debug for EmbeddedState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedState").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

/// Whether a counter could be put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Restore {
    /// It counts, or was empty by now.
    Kept,
    /// The table is full: its key will be counted with the other new keys.
    NoRoom,
}
