//! The decision itself.

use std::num::NonZeroU64;
use std::time::Duration;

use super::quota::{PART_BITS, Quota};
use crate::time::Millis;

/// Latest moment the packed form reaches, less the longest quota: in the year 2525 time stands still here and limits
/// only get stricter.
const LAST: i64 = (1 << (64 - PART_BITS)) - 1 - (1 << 36);
const PART_MASK: u64 = (1 << PART_BITS) - 1;

/// When a bucket will be empty again (theoretical arrival time). All that is kept of a limit; eight bytes.
///
/// Packed as 44 bits of milliseconds since 1970 and 20 bits of ticks (see [`Quota`]); later sorts higher. An empty
/// bucket has no `Tat`: whatever lies in the past means the same as nothing at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tat(NonZeroU64);

impl Tat {
    /// The number to store.
    pub const fn to_bits(self) -> u64 {
        self.0.get()
    }

    /// The inverse of [`Self::to_bits`]; zero is the empty bucket.
    pub const fn from_bits(bits: u64) -> Option<Self> {
        match NonZeroU64::new(bits) {
            Some(bits) => Some(Self(bits)),
            None => None,
        }
    }

    /// From when on this says nothing any more and may be forgotten: the first whole millisecond not before it.
    pub const fn empty_at(self) -> Millis {
        let up = if self.part() == 0 { 0 } else { 1 };
        Millis(self.millis() as i64 + up)
    }

    /// The state of a bucket of `quota` that was full at `at`: what must be assumed of a key whose state was lost.
    pub fn spent(quota: &Quota, at: Millis) -> Option<Self> {
        pack(quota.capacity, quota, clock(at))
    }

    /// The same moment, but not later than `latest`.
    #[must_use]
    pub fn at_most(self, latest: Millis) -> Option<Self> {
        Self::from_bits(self.to_bits().min(clock(latest) << PART_BITS))
    }

    /// Moved earlier by `by`: keeps what was left to wait when a clock was set back.
    #[must_use]
    pub fn earlier(self, by: Duration) -> Option<Self> {
        let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        Self::from_bits(self.millis().saturating_sub(by) << PART_BITS | self.part())
    }

    const fn millis(self) -> u64 {
        self.0.get() >> PART_BITS
    }

    const fn part(self) -> u64 {
        self.0.get() & PART_MASK
    }
}

/// What one limit says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Within the limit.
    Admit,
    /// Not now.
    Deny {
        /// Waiting exactly this long is enough, if nobody else takes meanwhile; whole milliseconds.
        retry_after: Duration,
    },
    /// Not ever: the cost is higher than the burst.
    Never,
}

impl Verdict {
    /// Whether it is a yes.
    pub const fn admits(&self) -> bool {
        matches!(self, Verdict::Admit)
    }
}

/// The verdict of one limit and how much is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Yes, not now, or never.
    pub verdict: Verdict,
    /// Units that could be taken at this moment, after this decision.
    pub remaining: u32,
    /// How long until there is one unit more than `remaining`; zero when the bucket is empty and no more can come.
    /// Never later than `retry_after`.
    pub reset: Duration,
}

/// Takes `cost` units, or nothing. Returns the state to keep, also for a denial: a clock set back is mended there.
///
/// A cost of zero only looks. No allocation, no loop; about ten nanoseconds.
pub fn take(tat: Option<Tat>, quota: &Quota, cost: u32, now: Millis) -> (Option<Tat>, Decision) {
    let now = clock(now);
    let before = level(tat, quota, now);
    // Not more than the burst, so the product is not more than the capacity.
    let wanted = if cost > quota.burst() { None } else { Some(before + u64::from(cost) * quota.unit) };
    let (after, verdict) = match wanted {
        None => (before, Verdict::Never),
        Some(after) if after <= quota.capacity => (after, Verdict::Admit),
        Some(after) => (before, Verdict::Deny { retry_after: drained(after - quota.capacity, quota) }),
    };
    let free = quota.capacity - after;
    let remaining = u32::try_from(free / quota.unit).unwrap_or(u32::MAX);
    let reset = if after == 0 { Duration::ZERO } else { drained(quota.unit - free % quota.unit, quota) };
    (pack(after, quota, now), Decision { verdict, remaining, reset })
}

/// Gives `cost` units back, as when a password turned out to be right. Never more than was taken: an empty bucket stays
/// empty.
pub fn refund(tat: Option<Tat>, quota: &Quota, cost: u32, now: Millis) -> Option<Tat> {
    let now = clock(now);
    let back = u64::from(cost).saturating_mul(quota.unit);
    pack(level(tat, quota, now).saturating_sub(back), quota, now)
}

/// One of several limits of a request: what is asked and, afterwards, what was said.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// The policy's name in header fields and problem bodies. It tells the world nothing about the client.
    pub name: &'static str,
    /// The parameters of this call.
    pub quota: Quota,
    /// The kept state, before and after.
    pub state: Option<Tat>,
    /// What this limit said. In a call that another limit refused, an admitting limit shows its uncharged state.
    pub decision: Decision,
    /// The state before the call, while it is not certain that all limits admit.
    before: Option<Tat>,
}

impl Limit {
    /// A limit that was not asked yet, with an empty bucket.
    pub fn new(name: &'static str, quota: Quota) -> Self {
        let decision = Decision { verdict: Verdict::Admit, remaining: quota.burst(), reset: Duration::ZERO };
        Self { name, quota, state: None, decision, before: None }
    }

    /// Whether this limit said no.
    pub const fn violated(&self) -> bool {
        !self.decision.verdict.admits()
    }
}

impl AsRef<Limit> for Limit {
    fn as_ref(&self) -> &Limit {
        self
    }
}

impl AsMut<Limit> for Limit {
    fn as_mut(&mut self) -> &mut Limit {
        self
    }
}

/// Takes `cost` from every limit, or from none. The denying ones are [`Limit::violated`] afterwards; the wait is the
/// longest of theirs, so it is exact too. Without any limit the answer is yes. No allocation.
pub fn take_all<L: AsMut<Limit>>(limits: &mut [L], cost: u32, now: Millis) -> Verdict {
    let mut verdict = Verdict::Admit;
    for limit in limits.iter_mut().map(AsMut::as_mut) {
        limit.before = limit.state;
        (limit.state, limit.decision) = take(limit.before, &limit.quota, cost, now);
        verdict = harder(verdict, limit.decision.verdict);
    }
    if verdict.admits() {
        return verdict;
    }
    // One said no: the others give back what they took, and show themselves as they are without it.
    for limit in limits.iter_mut().map(AsMut::as_mut).filter(|limit| !limit.violated()) {
        (limit.state, limit.decision) = take(limit.before, &limit.quota, 0, now);
    }
    verdict
}

fn harder(one: Verdict, other: Verdict) -> Verdict {
    match (one, other) {
        (Verdict::Never, _) | (_, Verdict::Never) => Verdict::Never,
        (Verdict::Deny { retry_after: a }, Verdict::Deny { retry_after: b }) => Verdict::Deny { retry_after: a.max(b) },
        (Verdict::Admit, said) | (said, Verdict::Admit) => said,
    }
}

/// Milliseconds since 1970, within what the packed form holds.
fn clock(now: Millis) -> u64 {
    now.0.clamp(0, LAST).unsigned_abs()
}

/// Ticks in the bucket at `now`, never more than a full burst: that is the clamp which mends a clock set back and lets
/// a downgrade wait no longer than its own burst.
fn level(tat: Option<Tat>, quota: &Quota, now: u64) -> u64 {
    let Some(ahead) = tat.and_then(|tat| tat.millis().checked_sub(now)) else { return 0 };
    if ahead > quota.drain_millis {
        return quota.capacity;
    }
    // A fraction kept under another quota counts as at most a whole millisecond.
    let part = tat.map_or(0, Tat::part).min(u64::from(quota.drain));
    (ahead * u64::from(quota.drain) + part).min(quota.capacity)
}

fn pack(level: u64, quota: &Quota, now: u64) -> Option<Tat> {
    if level == 0 {
        return None;
    }
    let drain = u64::from(quota.drain);
    Tat::from_bits((now + level / drain) << PART_BITS | (level % drain))
}

/// How long `ticks` take to drain, rounded up to whole milliseconds.
fn drained(ticks: u64, quota: &Quota) -> Duration {
    Duration::from_millis(ticks.div_ceil(u64::from(quota.drain)))
}
