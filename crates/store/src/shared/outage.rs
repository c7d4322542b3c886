//! Who decides while the store is away.

use std::time::Duration;

use bartizan_core::limit::{Key, Quota, Tat, Verdict, take};
use bartizan_core::time::Millis;

use crate::state::{Ask, EmbeddedState};

/// What happens to requests while the store is away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Each node counts by itself, at the limit divided by the nodes that live, beginning with what it last saw of the
    /// key: all nodes together stay within the limit.
    #[default]
    Local,
    /// Nothing is admitted.
    Refuse,
    /// Everything is admitted and counted as such: nobody is protected meanwhile. Never a default.
    Open,
}

/// This node's part of a quota among `live` nodes: the rate divided exactly where it can be, the burst rounded down, and
/// at least one unit each.
pub(super) fn share(quota: &Quota, live: u32) -> Quota {
    if live <= 1 {
        return *quota;
    }
    let burst = (quota.burst() / live).max(1);
    Quota::new(quota.count(), quota.period() * live, burst)
        .or_else(|_| Quota::new((quota.count() / live).max(1), quota.period(), burst))
        .or_else(|_| Quota::new((quota.count() / live).max(1), quota.period(), 1))
        .or_else(|_| Quota::new(1, quota.period(), 1))
        // One unit in a period of a valid quota is always valid.
        .unwrap_or(*quota)
}

/// The bucket of a share that is as full as the whole was when last seen: in units, since its ticks are others.
pub(super) fn begin(seen: Option<Tat>, quota: &Quota, share: &Quota, live: u32, at: Millis) -> Option<Tat> {
    let left = take(seen, quota, 0, at).1.remaining;
    // An unused key has its whole share, the one unit it has at least included.
    let left = if left == quota.burst() { share.burst() } else { (left / live.max(1)).min(share.burst()) };
    take(None, share, share.burst() - left, at).0
}

/// Takes `cost` from this node's shares of every ask or of none. `seen` tells how a bucket was last seen.
pub(super) fn decide(
    local: &EmbeddedState,
    asks: &mut [Ask],
    seen: impl Fn(Key) -> Option<Tat>,
    cost: u32,
    live: u32,
    at: Millis,
) -> Verdict {
    let mut shares: Vec<Ask> = Vec::with_capacity(asks.len());
    for ask in asks.iter() {
        let share = share(&ask.limit.quota, live);
        if let Some(tat) = begin(seen(ask.key), &ask.limit.quota, &share, live, at) {
            // Without room the key is counted with others: stricter, not laxer.
            let _ = local.restore(ask.key, &share, tat, at);
        }
        shares.push(Ask::new(ask.key, ask.limit.name, share));
    }
    // A share may be smaller than the cost. Waiting does not help then, but the store's return will.
    let verdict = match local.take(&mut shares, cost, at) {
        Verdict::Never => Verdict::Deny { retry_after: RETRY },
        verdict => verdict,
    };
    for (ask, share) in asks.iter_mut().zip(&shares) {
        ask.limit.decision = share.limit.decision;
        if share.limit.decision.verdict == Verdict::Never {
            ask.limit.decision.verdict = Verdict::Deny { retry_after: RETRY };
        }
        ask.counted = share.counted;
    }
    verdict
}

/// When to try again if nothing better is known.
pub(super) const RETRY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::BanPolicy;
    use bartizan_core::limit::KeyMaker;
    use bartizan_core::secret::Secret;
    use proptest::prelude::*;

    #[test]
    fn shares_add_up_to_no_more_than_the_whole_unless_there_are_more_nodes_than_units() {
        for (count, seconds, burst) in [(60, 60, 60), (7, 60, 10), (1, 366 * 86_400, 1), (1_048_573, 86_400, 50_000)] {
            let quota = Quota::new(count, Duration::from_secs(seconds), burst).unwrap();
            for live in 1..9 {
                let share = share(&quota, live);
                assert!(share.burst() * live <= burst.max(live));
                let whole = u128::from(count) * share.period().as_millis();
                let parts = u128::from(share.count() * live) * quota.period().as_millis();
                assert!(parts <= whole || share.count() == 1, "{quota:?} {share:?}");
            }
        }
    }

    proptest! {
        /// Four nodes that all saw the bucket at the same moment, cut off from then on.
        #[test]
        fn nodes_cut_off_admit_together_what_one_bucket_would(
            taken in 0u32..60, schedule in prop::collection::vec((0u64..400, 0usize..4, 1u32..4), 1..300),
        ) {
            let quota = Quota::new(60, Duration::from_secs(10), 60).unwrap();
            let nodes: Vec<_> = (0..4)
                .map(|_| EmbeddedState::new(64, BanPolicy::never(), KeyMaker::new(&Secret::new([1; 32]))))
                .collect();
            let start = Millis(1_000_000);
            let seen = take(None, &quota, taken, start).0;
            let (mut now, mut admitted) = (start, u64::from(taken));
            for (gap, node, cost) in schedule {
                now = now + Duration::from_millis(gap);
                let mut asks = [Ask::new(Key(5), "x", quota)];
                if decide(&nodes[node], &mut asks, |_| seen, cost, 4, now).admits() {
                    admitted += u64::from(cost);
                }
                prop_assert!(admitted * 10_000 <= 600_000 + 60 * now.since(start).as_millis() as u64);
            }
        }
    }
}
