//! Units taken from a hot key beforehand, so that most requests need not ask the store.
//!
//! A lease is charged when it is granted and used later. What could go wrong is the time between: the bucket drains
//! meanwhile, and others may take the room that the leased units still claim. What keeps every interval within
//! `burst + L × rate`, as without leases:
//!
//! **Invariant:** at every moment the units all nodes may still use together are not more than what is in the bucket.
//! - A grant and a return change both sides alike; a use changes the left side only.
//! - The bucket drains at the quota's rate. So do the usable units of each lease, or else
//! - the bucket is known to be at least half full, and all leases together are at most half a burst: that is why a lease is
//!   at most `burst / (4 × live nodes)` (half of it in reserve for nodes that joined a moment ago) and why it need not
//!   drain while its [`Lease::slack`] lasts.
//!
//! Then uses in an interval are at most what was usable at its beginning plus what was granted or taken in it, which is
//! at most `usable + burst - level + L × rate`, and that is at most `burst + L × rate`.

use std::time::{Duration, Instant};

use bartizan_core::limit::{Decision, Quota, Tat, take};
use bartizan_core::time::Millis;

/// How long a lease may be used.
pub(super) const LIFE: Duration = Duration::from_secs(1);
/// Without use for so long it is given back.
const IDLE: Duration = Duration::from_millis(200);
/// For how much of a key's recent traffic a lease is, in milliseconds. Longer, and more lies where others cannot use it;
/// shorter, and the calls for the next one are felt.
const SPAN: u64 = 100;

/// Units of one key that this node has paid for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    pub(super) quota: Quota,
    /// Paid for and not used, in ticks of the quota: a unit cut off at each grant would add up.
    ticks: u64,
    /// Size when it was granted.
    granted: u64,
    /// When it was last used.
    used: Instant,
    /// Before the call that brought it: all drains are reckoned from here, so earlier than they began.
    sent: Instant,
    /// For so long the bucket is certainly half full.
    slack: Duration,
    /// The store's clock at the grant.
    at: Millis,
    /// The bucket after the grant: what decisions are told from.
    tat: Option<Tat>,
}

/// How many units a lease of `quota` may hold on one of `live` nodes, for traffic of `rate` units a second here.
pub(super) fn size(quota: &Quota, rate: u32, live: u32) -> u32 {
    let most = quota.burst() / live.max(1).saturating_mul(4);
    let period = u64::try_from(quota.period().as_millis()).unwrap_or(u64::MAX).max(1);
    // What this node will use, and what will drain from the lease meanwhile.
    let wanted = u64::from(rate) * SPAN / 1000 + u64::from(quota.count()) * SPAN / period;
    u32::try_from(wanted).unwrap_or(u32::MAX).min(most)
}

impl Lease {
    /// A grant of `units` that left the bucket at `tat`; `older` are the ticks left of the one before.
    pub(super) fn granted(quota: Quota, units: u32, tat: Option<Tat>, at: Millis, sent: Instant, older: u64) -> Self {
        let level = tat.map_or(Duration::ZERO, |tat| tat.empty_at().since(at)).saturating_sub(Duration::from_millis(1));
        let slack = level.saturating_sub(quota.drains_in() / 2 + Duration::from_millis(1));
        let ticks = u64::from(units) * quota.ticks().unit + older;
        Self { quota, ticks, granted: ticks, used: sent, sent, slack, at, tat }
    }

    /// The ticks that may still be used by the invariant, whatever the age.
    pub(super) fn ticks(&self, now: Instant) -> u64 {
        let drained = now.saturating_duration_since(self.sent).saturating_sub(self.slack);
        if drained.is_zero() {
            return self.ticks;
        }
        let millis = u64::try_from(drained.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        self.ticks.saturating_sub(millis.saturating_mul(u64::from(self.quota.ticks().drain)))
    }

    /// The whole units among them.
    pub(super) fn usable(&self, now: Instant) -> u32 {
        u32::try_from(self.ticks(now) / self.quota.ticks().unit.max(1)).unwrap_or(u32::MAX)
    }

    /// Uses `cost` of it, if there is as much.
    pub(super) fn spend(&mut self, cost: u32, now: Instant) -> bool {
        let there = now.saturating_duration_since(self.sent) < LIFE && self.usable(now) >= cost;
        if there {
            self.ticks = self.ticks.saturating_sub(u64::from(cost) * self.quota.ticks().unit);
            self.used = now;
        }
        there
    }

    /// Puts back what was spent by a request that another limit refused.
    pub(super) fn restore(&mut self, cost: u32) {
        self.ticks = (self.ticks + u64::from(cost) * self.quota.ticks().unit).min(self.granted);
    }

    /// Whether nobody uses it, or it is too old to be used: time to give it back.
    pub(super) fn idle(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.used) > IDLE || now.saturating_duration_since(self.sent) >= LIFE
    }

    /// Whether it is time to ask for the next one.
    pub(super) fn low(&self, now: Instant) -> bool {
        self.ticks(now) <= self.granted / 4 || now.saturating_duration_since(self.sent) > LIFE / 2
    }

    /// The store's clock now, as far as this lease knows it.
    pub(super) fn store_time(&self, now: Instant) -> Millis {
        self.at + now.saturating_duration_since(self.sent)
    }

    /// What the shared counter said when it was last seen, drained since.
    pub(super) fn decision(&self, now: Instant) -> Decision {
        take(self.tat, &self.quota, 0, self.store_time(now)).1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bartizan_core::limit::refund;
    use proptest::prelude::*;

    #[test]
    fn all_leases_together_are_at_most_half_a_burst_even_if_the_nodes_double() {
        let quota = Quota::new(1000, Duration::from_secs(1), 1000).unwrap();
        for live in 1..20 {
            assert!(size(&quota, u32::MAX, live) * live * 2 <= 500);
        }
        assert_eq!(size(&quota, 200, 1), 20 + 100);
    }

    /// One thing that happens: milliseconds after the last, the node, and what it does.
    #[derive(Clone, Debug)]
    enum Step {
        Fetch(usize, u32),
        Spend(usize),
        Take(u32),
        Return(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<(u64, Step)>> {
        let step = prop_oneof![
            3 => (0usize..3, 1u32..20).prop_map(|(node, units)| Step::Fetch(node, units)),
            8 => (0usize..3).prop_map(Step::Spend),
            2 => (1u32..40).prop_map(Step::Take),
            1 => (0usize..3).prop_map(Step::Return),
        ];
        prop::collection::vec((prop_oneof![4 => 0u64..4, 1 => 0u64..120], step), 1..120)
    }

    proptest! {
        /// The promise itself, searched for a broken interval: uses, not charges, and every pair of moments.
        #[test]
        fn no_interval_holds_more_uses_than_without_leases(steps in steps(), count in 20u32..2000) {
            let quota = Quota::new(count, Duration::from_secs(1), 160).unwrap();
            let (start, mut passed) = (Instant::now(), 0u64);
            let (mut tat, mut leases, mut uses) = (None, [None::<Lease>; 3], Vec::<(u64, u32)>::new());
            for (gap, step) in steps {
                passed += gap;
                let (mono, now) = (start + Duration::from_millis(passed), Millis(1_000_000 + passed as i64));
                match step {
                    Step::Fetch(node, wanted) => {
                        let older = leases[node].map_or(0, |lease: Lease| lease.ticks(mono));
                        let held = leases[node].map_or(0, |lease: Lease| lease.usable(mono)) + 1;
                        let cap = size(&quota, u32::MAX, 3);
                        let room = take(tat, &quota, 0, now).1.remaining;
                        let units = wanted.min(cap.saturating_sub(held)).min(room);
                        let (after, decision) = take(tat, &quota, units, now);
                        prop_assert!(decision.verdict.admits());
                        tat = after;
                        leases[node] = Some(Lease::granted(quota, units, tat, now, mono, older));
                    }
                    Step::Spend(node) => {
                        if leases[node].as_mut().is_some_and(|lease| lease.spend(1, mono)) {
                            uses.push((passed, 1));
                        }
                    }
                    Step::Take(cost) => {
                        let (after, decision) = take(tat, &quota, cost, now);
                        tat = after;
                        if decision.verdict.admits() {
                            uses.push((passed, cost));
                        }
                    }
                    Step::Return(node) => {
                        let units = leases[node].take().map_or(0, |lease: Lease| lease.usable(mono));
                        tat = refund(tat, &quota, units, now);
                    }
                }
            }
            for (from, (begin, _)) in uses.iter().enumerate() {
                let mut sum = 0u64;
                for (end, cost) in &uses[from..] {
                    sum += u64::from(*cost);
                    prop_assert!(sum * 1000 <= 160_000 + (end - begin) * u64::from(count), "{sum} from {begin} to {end}");
                }
            }
        }
    }
}
