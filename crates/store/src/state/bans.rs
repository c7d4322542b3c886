//! Temporary bans: whoever keeps asking after being refused is not even counted for a while.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use bartizan_core::limit::{InvalidQuota, Key, Quota, Tat, Ticks, take};
use bartizan_core::time::Millis;

use super::table::{Entry, Fades, Long, Shards};

/// When refusals turn into a ban, and how long it is.
#[derive(Clone, Copy, Debug)]
pub struct BanPolicy {
    denials: Option<Quota>,
    first: Duration,
}

impl BanPolicy {
    /// Longest ban, and how long a clean record takes to halve the next one.
    pub const LONGEST: Duration = Duration::from_secs(3600);
    /// In this time as many refusals are forgotten as lead to a ban.
    pub const FORGET: Duration = Duration::from_secs(600);

    /// A ban of `first` after `after` refusals, each next one twice as long, up to an hour. Refusals are forgotten
    /// evenly, `after` of them in ten minutes; an hour without a ban halves the next one again. With `after` zero there
    /// are no bans.
    ///
    /// # Errors
    /// When `after` does not go into ten minutes (see [`InvalidQuota`]); every number up to a million does.
    pub fn new(after: u32, first: Duration) -> Result<Self, InvalidQuota> {
        let denials = if after == 0 { None } else { Some(Quota::new(after, Self::FORGET, after)?) };
        // Whole milliseconds, like every moment.
        let first = Duration::from_millis(u64::try_from(first.min(Self::LONGEST).as_millis()).unwrap_or(0));
        Ok(Self { denials, first })
    }

    /// How refusals are counted and how long the first ban is, for the scripts; `None` when there are no bans.
    pub(crate) fn ticks(&self) -> Option<(Ticks, Duration)> {
        self.denials.map(|denials| (denials.ticks(), self.first))
    }

    /// No bans.
    pub const fn never() -> Self {
        Self { denials: None, first: Duration::ZERO }
    }

    /// How long a ban is that follows on `level` others.
    fn length(&self, level: u64) -> Duration {
        let times = 1u32 << level.min(20);
        self.first.saturating_mul(times).min(Self::LONGEST)
    }
}

const LEVEL_BITS: u32 = 8;
/// The longest ban is reached long before.
const HIGHEST: u64 = 32;

/// The record of one key: refusals not forgotten yet, end of the ban in force or of the last one, and how many times
/// the next one doubles. Sixteen bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Record {
    denials: Option<Tat>,
    /// Milliseconds of the end, then the level in the low bits.
    packed: u64,
}

impl Record {
    pub(super) const fn from_parts(denials: Option<Tat>, packed: u64) -> Self {
        Self { denials, packed }
    }

    pub(super) fn parts(&self) -> (u64, u64) {
        (self.denials.map_or(0, Tat::to_bits), self.packed)
    }

    /// The end of the ban in force or of the last one.
    pub(crate) fn until(&self) -> Millis {
        Millis((self.packed >> LEVEL_BITS).cast_signed())
    }

    /// How many times the ban after that doubles.
    pub(crate) fn level(&self) -> u64 {
        self.packed & ((1 << LEVEL_BITS) - 1)
    }

    /// Refusals not forgotten yet.
    pub(crate) fn denials(&self) -> Option<Tat> {
        self.denials
    }

    fn set(&mut self, until: Millis, level: u64) {
        self.packed = until.0.max(0).unsigned_abs() << LEVEL_BITS | level.min(HIGHEST);
    }

    /// The same record with its times not further ahead than they can be, as after a clock set back.
    pub(super) fn mended(mut self, now: Millis) -> Self {
        let latest = now + BanPolicy::LONGEST;
        self.denials = self.denials.and_then(|tat| tat.at_most(now + BanPolicy::FORGET));
        if self.until() > latest {
            self.set(latest, self.level());
        }
        self
    }

    /// The same waits, counted from a clock that shows `by` less.
    pub(super) fn earlier(mut self, by: Duration) -> Self {
        self.denials = self.denials.and_then(|tat| tat.earlier(by));
        self.set(self.until() - by, self.level());
        self
    }

    /// How many times the next ban doubles: one step less for each hour since the last.
    fn standing(&self, now: Millis) -> u64 {
        let hours = now.since(self.until()).as_millis() / BanPolicy::LONGEST.as_millis();
        self.level().saturating_sub(u64::try_from(hours).unwrap_or(u64::MAX))
    }
}

impl Fades for Record {
    fn live(&self, now: Millis) -> bool {
        self.denials.live(now) || self.until() > now || self.standing(now) > 0
    }
}

/// The bans in force and the records that lead to them.
pub(super) struct Bans {
    pub(super) records: Shards<Long, Record>,
    policy: RwLock<BanPolicy>,
    cap: usize,
    /// Whether anything changed since the last snapshot.
    pub(super) dirty: AtomicBool,
}

impl Bans {
    pub(super) fn new(policy: BanPolicy, most: usize) -> Self {
        let records = Shards::new((most / 2048).clamp(1, 64));
        let cap = (most / records.shard_count()).max(1);
        Self { records, policy: RwLock::new(policy), cap, dirty: AtomicBool::new(false) }
    }

    /// Another policy from now on; bans in force stay.
    pub(super) fn rule(&self, policy: BanPolicy) {
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = policy;
    }

    fn policy(&self) -> BanPolicy {
        *self.policy.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until when the key is banned, if it is.
    pub(super) fn banned(&self, key: Key, now: Millis) -> Option<Millis> {
        let record = self.records.value(key.0)?;
        if record.until() <= now {
            return None;
        }
        if record.until() > now + BanPolicy::LONGEST {
            // The clock was set back: what is left is not longer than a ban can be.
            let mut shard = self.records.write(self.records.shard_of(key.0))?;
            let (at, record) = shard.table().find(key.0)?;
            let mended = record.mended(now);
            shard.table().set(key.0, at, mended);
            return Some(mended.until());
        }
        Some(record.until())
    }

    /// Writes down a refusal; the end of the ban when it was one too many. With a full table nothing is written: the
    /// limit itself still refuses.
    pub(super) fn denied(&self, key: Key, now: Millis) -> Option<Millis> {
        let policy = self.policy();
        let quota = policy.denials?;
        let mut shard = self.records.write(self.records.shard_of(key.0))?;
        let table = shard.table();
        let mut record = table.find(key.0).map(|(_, record)| record.mended(now)).unwrap_or_default();
        let (denials, decision) = take(record.denials, &quota, 1, now);
        record.denials = denials;
        let enough = decision.remaining == 0;
        if enough {
            let level = record.standing(now);
            record.set(now + policy.length(level), level + 1);
            record.denials = None;
        }
        let kept = match table.enter(key.0, record, now, self.cap) {
            Entry::Present(at) => {
                table.set(key.0, at, record);
                true
            }
            Entry::Added => true,
            Entry::Full => false,
        };
        self.dirty.store(true, Ordering::Relaxed);
        (enough && kept).then(|| record.until())
    }

    /// Bans by hand, for at most an hour; the end. Not subject to the cap: it is an operator's or a detector's decision.
    pub(super) fn ban(&self, key: Key, length: Duration, now: Millis) -> Millis {
        let until = now + length.min(BanPolicy::LONGEST);
        if let Some(mut shard) = self.records.write(self.records.shard_of(key.0)) {
            let table = shard.table();
            let mut record = table.find(key.0).map(|(_, record)| record).unwrap_or_default();
            record.set(until, record.standing(now));
            if let Entry::Present(at) = table.enter(key.0, record, now, usize::MAX) {
                table.set(key.0, at, record);
            }
        }
        self.dirty.store(true, Ordering::Relaxed);
        until
    }

    /// Ends a ban and forgets what led to it.
    pub(super) fn pardon(&self, key: Key) {
        if let Some(mut shard) = self.records.write(self.records.shard_of(key.0)) {
            shard.table().remove(key.0);
        }
        self.dirty.store(true, Ordering::Relaxed);
    }

    pub(super) fn restore(&self, key: Key, record: Record, now: Millis) {
        if let Some(mut shard) = self.records.write(self.records.shard_of(key.0)) {
            shard.table().enter(key.0, record, now, self.cap);
        }
    }

    pub(super) fn sweep(&self, shard: usize, now: Millis) {
        if let Some(mut shard) = self.records.write(shard) {
            shard.table().sweep(now, |record| *record = record.mended(now), |_| {});
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = Key(7);

    fn bans(after: u32, first: u64) -> Bans {
        Bans::new(BanPolicy::new(after, Duration::from_secs(first)).unwrap(), 100)
    }

    fn deny(bans: &Bans, times: u32, now: Millis) -> Option<Millis> {
        (0..times).map(|_| bans.denied(KEY, now)).last().flatten()
    }

    #[test]
    fn the_last_refusal_too_many_begins_a_ban_that_ends_on_time() {
        let bans = bans(5, 60);
        let now = Millis(1_000_000);
        assert_eq!(deny(&bans, 4, now), None);
        assert_eq!(bans.banned(KEY, now), None);
        let until = now + Duration::from_secs(60);
        assert_eq!(deny(&bans, 1, now), Some(until));
        assert_eq!(bans.banned(KEY, now), Some(until));
        assert_eq!(bans.banned(KEY, Millis(until.0 - 1)), Some(until));
        assert_eq!(bans.banned(KEY, until), None);
        assert_eq!(bans.banned(Key(8), now), None);
    }

    #[test]
    fn bans_double_up_to_an_hour_and_decay_with_good_behaviour() {
        let bans = bans(1, 60);
        let mut now = Millis(1_000_000);
        for expected in [60, 120, 240, 480, 960, 1920, 3600, 3600] {
            let until = deny(&bans, 1, now).unwrap();
            assert_eq!(until.since(now), Duration::from_secs(expected));
            now = until;
        }
        // Three hours clean: eight steps become five.
        now = now + Duration::from_secs(3 * 3600);
        assert_eq!(deny(&bans, 1, now).unwrap().since(now), Duration::from_secs(1920));
        now = now + Duration::from_secs(100 * 3600);
        for shard in 0..bans.records.shard_count() {
            bans.sweep(shard, now);
        }
        assert!(bans.records.is_empty());
        assert_eq!(deny(&bans, 1, now).unwrap().since(now), Duration::from_secs(60));
    }

    #[test]
    fn slow_refusals_are_forgotten() {
        let bans = bans(10, 60);
        let mut now = Millis(1_000_000);
        for _ in 0..1000 {
            // One a minute is as fast as they are forgotten.
            assert_eq!(deny(&bans, 1, now), None);
            now = now + Duration::from_secs(60);
        }
        assert_eq!(deny(&bans, 9, now), None);
        assert!(deny(&bans, 1, now).is_some());
    }

    #[test]
    fn a_clock_set_back_does_not_prolong_a_ban_beyond_an_hour() {
        let bans = bans(1, 60);
        deny(&bans, 1, Millis(100_000_000_000));
        let back = Millis(1_000_000);
        let until = bans.banned(KEY, back).unwrap();
        assert_eq!(until, back + BanPolicy::LONGEST);
        assert_eq!(bans.banned(KEY, until), None);
    }

    #[test]
    fn a_flood_of_refused_keys_neither_grows_the_table_nor_frees_the_banned() {
        let bans = bans(2, 60);
        let now = Millis(1_000_000);
        deny(&bans, 2, now);
        for key in 100..10_000 {
            bans.denied(Key(key), now);
        }
        assert!(bans.records.len() <= 100);
        assert!(bans.banned(KEY, now).is_some());
    }

    #[test]
    fn a_ban_by_hand_holds_until_it_is_pardoned() {
        let bans = Bans::new(BanPolicy::never(), 1);
        let now = Millis(1_000_000);
        for key in 1..20 {
            bans.ban(Key(key), Duration::from_secs(10), now);
        }
        assert!((1..20).all(|key| bans.banned(Key(key), now).is_some()));
        assert_eq!(bans.denied(KEY, now), None);
        bans.pardon(KEY);
        assert_eq!(bans.banned(KEY, now), None);
        assert_eq!(bans.ban(KEY, Duration::MAX, now), now + BanPolicy::LONGEST);
    }
}
