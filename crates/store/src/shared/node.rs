//! What this node knows of each key, so that it need not ask: a refusal that still holds, a lease, the bucket as last
//! seen. A bounded table; to forget an entry costs a round trip, never a right decision.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bartizan_core::limit::{Key, Quota, Tat};
use bartizan_core::time::Millis;
use foldhash::quality::RandomState;

use super::lease::Lease;

const SHARDS: usize = 64;
/// Entries looked at when a full shard is asked for room.
const LOOKED_AT: usize = 8;
/// How long a ban is believed without asking again, so that a pardon given elsewhere is heard of.
const BAN_BELIEVED: Duration = Duration::from_secs(10);
/// The window in which requests of a key are counted.
const WINDOW: Duration = Duration::from_millis(100);
/// Requests a second from which a key is hot.
const HOT: u32 = 200;

/// A refusal of the store that holds until a moment: a bucket only drains.
#[derive(Clone, Copy, Debug)]
pub(super) struct Denial {
    pub(super) quota: Quota,
    /// Costs below this may be admitted.
    pub(super) cost: u32,
    /// Until then the store would refuse too, or until a millisecond before.
    pub(super) until: Instant,
    /// From then on it will not: what the client is told.
    pub(super) free: Instant,
}

/// A ban in force, by the store's clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ban {
    pub(super) until: Millis,
    pub(super) heard: Instant,
}

/// How busy a key is on this node.
#[derive(Clone, Copy, Debug, Default)]
struct Heat {
    window: u64,
    count: u32,
    rate: u32,
}

/// What was admitted here while the store was away, still to be charged there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owed {
    pub(super) quota: Quota,
    pub(super) units: u64,
}

/// One key.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    /// The bucket as last seen, by the store's clock.
    pub(super) seen: Option<Tat>,
    /// When that was, by the store's clock.
    seen_at: Millis,
    pub(super) denial: Option<Denial>,
    pub(super) ban: Option<Ban>,
    pub(super) lease: Option<Lease>,
    /// Since when a request is on its way to fetch the next lease: one at a time. One that never came back is forgotten.
    pub(super) fetching: Option<Instant>,
    pub(super) owed: Option<Owed>,
    /// Refusals decided here that the store has not counted towards a ban.
    pub(super) refusals: u32,
    heat: Heat,
}

impl Known {
    /// Counts a request; the requests a second of late, when the key is hot.
    pub(super) fn touch(&mut self, cost: u32, since_start: Duration) -> Option<u32> {
        // Narrow on purpose: a division of 128 bits is dear. It wraps after centuries.
        let window = (since_start.as_millis() as u64) / (WINDOW.as_millis() as u64);
        let heat = &mut self.heat;
        if window != heat.window {
            let per_second = heat.count.saturating_mul(10);
            heat.rate = if window == heat.window + 1 { per_second } else { 0 };
            (heat.window, heat.count) = (window, 0);
        }
        heat.count = heat.count.saturating_add(cost);
        let rate = heat.rate.max(heat.count.saturating_mul(10));
        (rate >= HOT).then_some(rate)
    }

    /// Notes what a bucket held at a moment of the store. Answers may overtake each other on their way to here, but not by
    /// a second: then it is the store's clock that was set back, as by a failover.
    pub(super) fn see(&mut self, tat: Option<Tat>, at: Millis) {
        if at > self.seen_at || at + Duration::from_secs(1) < self.seen_at {
            (self.seen, self.seen_at) = (tat, at);
        } else if at == self.seen_at {
            self.seen = self.seen.max(tat);
        }
    }

    /// The ban in force at `store`, if it need not be asked for again.
    pub(super) fn banned(&self, store: Millis, now: Instant, believe: Believe) -> Option<Millis> {
        let ban = self.ban.filter(|ban| ban.until > store)?;
        let recent = believe == Believe::WhateverIsKnown || now.saturating_duration_since(ban.heard) < BAN_BELIEVED;
        recent.then_some(ban.until)
    }

    /// Whether the key is known to be refused `cost` units of `quota`. Forgets a refusal under another quota.
    pub(super) fn denied(&mut self, quota: &Quota, cost: u32, now: Instant) -> Option<Denial> {
        let denial = self.denial?;
        if denial.quota != *quota || denial.until <= now {
            self.denial = None;
            return None;
        }
        (cost >= denial.cost).then_some(denial)
    }

    /// Whether something here is nowhere else.
    fn precious(&self) -> bool {
        self.lease.is_some() || self.owed.is_some() || self.refusals > 0
    }
}

/// How far to trust what was heard some time ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Believe {
    /// Only what is recent: the store can be asked.
    WhatIsRecent,
    /// All of it: there is nobody to ask.
    WhateverIsKnown,
}

/// All keys.
pub(super) struct Node {
    /// A request looks up eight, which with the standard hash would cost as much as the rest of the decision. What strangers
    /// choose of a key (an IPv6 network) is spread by random numbers of this process.
    shards: Box<[Mutex<HashMap<Key, Known, RandomState>>]>,
    cap: usize,
}

impl Node {
    /// For at most `most` keys.
    pub(super) fn new(most: usize) -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), cap: (most / SHARDS).max(LOOKED_AT) }
    }

    /// Works on what is known of `key`; `None` when a full table has no room for it.
    pub(super) fn with<T>(&self, key: Key, work: impl FnOnce(&mut Known) -> T) -> Option<T> {
        let mut shard = self.shard(key)?.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = shard.get_mut(&key) {
            return Some(work(known));
        }
        if shard.len() >= self.cap {
            let old = shard.iter().take(LOOKED_AT).find(|(_, known)| !known.precious()).map(|(key, _)| *key)?;
            shard.remove(&old);
        }
        Some(work(shard.entry(key).or_default()))
    }

    /// Works on what is known of `key`, if anything is.
    pub(super) fn known<T>(&self, key: Key, work: impl FnOnce(&mut Known) -> T) -> Option<T> {
        self.shard(key)?.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&key).map(work)
    }

    /// Works on every entry, and forgets those `work` says it of.
    pub(super) fn retain(&self, mut work: impl FnMut(Key, &mut Known) -> Keep) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.retain(|key, known| work(*key, known) == Keep::Keep || known.precious());
            if shard.capacity() > 4 * shard.len() + 64 {
                shard.shrink_to_fit();
            }
        }
    }

    /// Keys something is known of.
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    fn shard(&self, key: Key) -> Option<&Mutex<HashMap<Key, Known, RandomState>>> {
        // Addresses and ids differ in other bits than hashes do.
        let mixed = (key.0 ^ (key.0 >> 64)) as u64;
        self.shards.get((mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % SHARDS)
    }
}

/// Whether an entry stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    Keep,
    Forget,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_keys_neither_grows_the_table_nor_frees_what_is_nowhere_else() {
        let node = Node::new(1000);
        let quota = Quota::new(1, WINDOW, 1).unwrap();
        node.with(Key(7), |known| known.owed = Some(Owed { quota, units: 3 }));
        for key in 100..100_000 {
            node.with(Key(key), |known| known.seen = Tat::from_bits(1));
        }
        assert!(node.len() <= 1000);
        assert_eq!(node.known(Key(7), |known| known.owed.map(|owed| owed.units)), Some(Some(3)));
        node.retain(|_, _| Keep::Forget);
        assert_eq!(node.len(), 1);
    }

    #[test]
    fn a_key_is_hot_from_two_hundred_a_second_and_cools_down() {
        let mut known = Known::default();
        let touched: Vec<_> = (0..20).map(|n| known.touch(1, Duration::from_millis(n))).collect();
        assert_eq!((touched[18], touched[19]), (None, Some(200)));
        assert_eq!(known.touch(1, Duration::from_millis(150)), Some(200));
        assert_eq!(known.touch(1, Duration::from_millis(450)), None);
    }

    #[test]
    fn a_refusal_is_forgotten_when_the_quota_changes_and_says_nothing_of_smaller_costs() {
        let (one, other) = (Quota::new(1, WINDOW, 9).unwrap(), Quota::new(2, WINDOW, 9).unwrap());
        let now = Instant::now();
        let (until, free) = (now + WINDOW, now + WINDOW);
        let mut known = Known { denial: Some(Denial { quota: one, cost: 5, until, free }), ..Known::default() };
        assert!(known.denied(&one, 5, now).is_some());
        assert!(known.denied(&one, 4, now).is_none());
        assert!(known.denied(&other, 5, now).is_none());
        assert!(known.denied(&one, 5, now).is_none());
    }
}
