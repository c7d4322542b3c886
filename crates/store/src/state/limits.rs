//! The counters: for each limited key one moment.

use std::slice;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use bartizan_core::limit::{self, Key, Limit, Quota, Tat, Verdict, take_all};
use bartizan_core::time::Millis;

use super::table::{Entry, Fades, Shards, Short, Writing};

/// Most limits one call may name.
pub const MOST_LIMITS: usize = 8;
/// Most shared buckets a shard keeps; more than a configuration has policies.
const MOST_SHARED: usize = 32;

/// One limit of a request: whose, and how much. After the call `limit.decision` says what this limit answered.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// Whose counter, with the policy's name in the tuple: `keys.key(&[b"user", tenant, user])`.
    pub key: Key,
    /// The policy; its `state` is filled in by the store.
    pub limit: Limit,
    /// Where it was counted, set by the call.
    pub counted: Counted,
}

impl Ask {
    /// Asks for `quota` of `key` under the policy `name`.
    pub fn new(key: Key, name: &'static str, quota: Quota) -> Self {
        Self { key, limit: Limit::new(name, quota), counted: Counted::Own }
    }
}

impl AsRef<Limit> for Ask {
    fn as_ref(&self) -> &Limit {
        &self.limit
    }
}

impl AsMut<Limit> for Ask {
    fn as_mut(&mut self) -> &mut Limit {
        &mut self.limit
    }
}

/// Where a limit was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// In the key's own bucket.
    Own,
    /// In the bucket that new keys share while the table is full.
    Shared,
}

impl Fades for Option<Tat> {
    fn live(&self, now: Millis) -> bool {
        self.is_some_and(|tat| tat.empty_at() > now)
    }
}

/// What a shard keeps beside its table.
#[derive(Default)]
pub(super) struct Beside {
    shared: Vec<Shared>,
    /// Whether anything changed since the last snapshot.
    pub(super) dirty: bool,
}

struct Shared {
    name: &'static str,
    quota: Quota,
    state: Option<Tat>,
}

type Shard<'a> = Writing<'a, Short, Option<Tat>, Beside>;

/// An odd number whose multiples by the lengths of prefixes differ in the bits where the networks that are given out are
/// all alike, so that an address, a network and a wider one never have one name.
const SPREAD: u64 = 0x2545_f491_4f6c_dd1d;

/// Half of a key is enough to tell counters apart: among two million, two share a bucket with a chance of one in ten
/// million, which makes both stricter. Nobody can look for such a pair: hashes are keyed, ids are not of the user's
/// choice, and prefixes have names of their own (see [`SPREAD`]).
pub(crate) fn name(key: Key) -> Short {
    (((key.0 >> 64) as u64).wrapping_mul(SPREAD) ^ (key.0 as u64).rotate_left(32)).into()
}

/// The table of counters.
///
/// **When it is full** of live counters, none is freed. A new key is then counted in a bucket it shares with the other
/// new keys of its shard and policy: they are limited together, at one key's quota a shard. A key that later gets a
/// bucket of its own starts with what the shared one holds, so falling back never gives anybody more than his quota.
pub(super) struct Limits {
    pub(super) shards: Shards<Short, Option<Tat>, Beside>,
    cap: usize,
    /// Longest time any counter seen can take to empty, in milliseconds: what lies further ahead than that was written
    /// before the clock was set back.
    longest: AtomicU64,
    /// Keys without a counter are taken as spent at this moment; `i64::MIN` for never.
    spent_at: AtomicI64,
    shared_total: AtomicU64,
}

impl Limits {
    pub(super) fn new(max_keys: usize) -> Self {
        // Big enough that shards fill evenly, many enough that cores do not meet.
        let shards = Shards::new((max_keys / 2048).clamp(1, 256));
        let cap = (max_keys / shards.shard_count()).max(1);
        Self {
            shards,
            cap,
            longest: AtomicU64::new(0),
            spent_at: AtomicI64::new(i64::MIN),
            shared_total: AtomicU64::new(0),
        }
    }

    pub(super) fn take(&self, asks: &mut [Ask], cost: u32, now: Millis) -> Verdict {
        // The same for one limit as for several, without the bookkeeping of several shards: a third of the work.
        if let [ask] = asks {
            return self.take_one(ask, cost, now);
        }
        let mut held = Held::new();
        // Equal keys in one call would be charged once for two: that is a mistake of the caller, and refused.
        let repeated =
            asks.iter().enumerate().any(|(n, ask)| asks.iter().skip(n + 1).any(|other| other.key == ask.key));
        if repeated || !held.lock(&self.shards, asks) {
            return Verdict::Never;
        }
        let mut places = [usize::MAX; MOST_LIMITS];
        let mut ready = true;
        for (ask, place) in asks.iter_mut().zip(&mut places) {
            let shard = held.shard(self.shards.shard_of(name(ask.key)));
            ready &= shard.is_some_and(|shard| self.prepare(shard, ask, place, now));
        }
        let verdict = if ready { take_all(asks, cost, now) } else { Verdict::Never };
        for (ask, place) in asks.iter().zip(places) {
            if let Some(shard) = held.shard(self.shards.shard_of(name(ask.key))) {
                keep(shard, ask, place);
            }
        }
        verdict
    }

    fn take_one(&self, ask: &mut Ask, cost: u32, now: Millis) -> Verdict {
        let Some(mut shard) = self.shards.write(self.shards.shard_of(name(ask.key))) else { return Verdict::Never };
        let mut place = usize::MAX;
        let ready = self.prepare(&mut shard, ask, &mut place, now);
        let verdict = if ready { take_all(slice::from_mut(ask), cost, now) } else { Verdict::Never };
        keep(&mut shard, ask, place);
        verdict
    }

    /// Makes an ask ready to be decided. `false` when it cannot be counted at all.
    fn prepare(&self, shard: &mut Shard<'_>, ask: &mut Ask, place: &mut usize, now: Millis) -> bool {
        let ready = self.look_up(shard, ask, place, now);
        if !ready {
            ask.limit.decision.verdict = Verdict::Never;
        }
        let spent_at = Millis(self.spent_at.load(Ordering::Relaxed));
        if spent_at.0 != i64::MIN && now < spent_at + ask.limit.quota.drains_in() {
            ask.limit.state = ask.limit.state.max(Tat::spent(&ask.limit.quota, spent_at));
        }
        ready
    }

    /// Fills in the state of one ask, making room for the key. `false` when not even a shared bucket can be had.
    fn look_up(&self, shard: &mut Shard<'_>, ask: &mut Ask, place: &mut usize, now: Millis) -> bool {
        let (table, beside) = shard.both();
        ask.counted = Counted::Own;
        self.remember_longest(ask.limit.quota.drains_in());
        // A value that is live for the moment, so that the next key of this call cannot take the place.
        let provisional = Tat::from_bits(u64::MAX);
        if let Some((at, state)) = table.find(name(ask.key)) {
            (*place, ask.limit.state) = (at, state);
            if !state.live(now) {
                table.set(name(ask.key), at, provisional);
            }
            return true;
        }
        let shared = beside.shared.iter().find(|shared| shared.is_for(&ask.limit)).and_then(|shared| shared.state);
        ask.limit.state = shared;
        match table.enter(name(ask.key), provisional, now, self.cap) {
            Entry::Present(at) => *place = at,
            Entry::Added => {}
            Entry::Full => {
                ask.counted = Counted::Shared;
                self.shared_total.fetch_add(1, Ordering::Relaxed);
                return beside.make_shared(&ask.limit, now);
            }
        }
        true
    }

    pub(super) fn refund(&self, asks: &[Ask], cost: u32, now: Millis) {
        for ask in asks {
            let Some(mut shard) = self.shards.write(self.shards.shard_of(name(ask.key))) else { continue };
            let (table, beside) = shard.both();
            beside.dirty = true;
            let quota = &ask.limit.quota;
            match ask.counted {
                Counted::Own => {
                    if let Some((at, state)) = table.find(name(ask.key)) {
                        table.set(name(ask.key), at, limit::refund(state, quota, cost, now));
                    }
                }
                Counted::Shared => {
                    if let Some(shared) = beside.shared.iter_mut().find(|shared| shared.is_for(&ask.limit)) {
                        shared.state = limit::refund(shared.state, quota, cost, now);
                    }
                }
            }
        }
    }

    pub(super) fn tat_of(&self, key: Key) -> Option<Tat> {
        self.shards.value(name(key)).flatten()
    }

    /// Puts a kept moment back; the later one stays. `false` when a full table has no room for it.
    pub(super) fn restore(&self, name: Short, tat: Tat, now: Millis) -> bool {
        let Some(tat) = tat.at_most(self.latest(now)).filter(|tat| tat.empty_at() > now) else { return true };
        let Some(mut shard) = self.shards.write(self.shards.shard_of(name)) else { return false };
        let (table, beside) = shard.both();
        beside.dirty = true;
        match table.enter(name, Some(tat), now, self.cap) {
            Entry::Present(at) => {
                let later = table.find(name).and_then(|(_, state)| state).max(Some(tat));
                table.set(name, at, later);
                true
            }
            Entry::Added => true,
            Entry::Full => false,
        }
    }

    pub(super) fn assume_spent(&self, at: Millis) {
        self.spent_at.store(at.0, Ordering::Relaxed);
    }

    /// Forgets what has emptied and mends what lies too far ahead, in one shard.
    pub(super) fn sweep(&self, shard: usize, now: Millis) {
        let latest = self.latest(now);
        if let Some(mut shard) = self.shards.write(shard) {
            shard.table().sweep(now, |state| *state = state.and_then(|tat| tat.at_most(latest)), |_| {});
            let beside = shard.beside();
            beside.shared.retain(|shared| shared.state.live(now));
            beside.shared.shrink_to_fit();
        }
    }

    pub(super) fn longest(&self) -> Duration {
        Duration::from_millis(self.longest.load(Ordering::Relaxed))
    }

    /// What lies further ahead than the longest quota drains cannot be true; so no quota in use may be unknown here.
    pub(super) fn remember_longest(&self, drains_in: Duration) {
        let millis = u64::try_from(drains_in.as_millis()).unwrap_or(u64::MAX);
        if millis > self.longest.load(Ordering::Relaxed) {
            self.longest.fetch_max(millis, Ordering::Relaxed);
        }
    }

    fn latest(&self, now: Millis) -> Millis {
        now + self.longest()
    }

    pub(super) fn shared_total(&self) -> u64 {
        self.shared_total.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn is_for(&self, limit: &Limit) -> bool {
        self.name == limit.name && self.quota == limit.quota
    }
}

impl Beside {
    fn make_shared(&mut self, limit: &Limit, now: Millis) -> bool {
        if self.shared.iter().any(|shared| shared.is_for(limit)) {
            return true;
        }
        if self.shared.len() >= MOST_SHARED {
            self.shared.retain(|shared| shared.state.live(now));
        }
        let room = self.shared.len() < MOST_SHARED;
        if room {
            self.shared.push(Shared { name: limit.name, quota: limit.quota, state: limit.state });
        }
        room
    }
}

fn keep(shard: &mut Shard<'_>, ask: &Ask, place: usize) {
    let (table, beside) = shard.both();
    beside.dirty = true;
    match ask.counted {
        Counted::Own => table.set(name(ask.key), place, ask.limit.state),
        Counted::Shared => {
            if let Some(shared) = beside.shared.iter_mut().find(|shared| shared.is_for(&ask.limit)) {
                shared.state = ask.limit.state;
            }
        }
    }
}

/// The shards one call needs, each locked once, always in ascending order: two calls cannot wait for each other.
struct Held<'a> {
    shards: [Option<(usize, Shard<'a>)>; MOST_LIMITS],
}

impl<'a> Held<'a> {
    const fn new() -> Self {
        Self { shards: [const { None }; MOST_LIMITS] }
    }

    /// `false` when the call names more limits than a call may.
    fn lock(&mut self, shards: &'a Shards<Short, Option<Tat>, Beside>, asks: &[Ask]) -> bool {
        let mut wanted = [usize::MAX; MOST_LIMITS];
        let Some(wanted) = wanted.get_mut(..asks.len()) else { return false };
        for (wanted, ask) in wanted.iter_mut().zip(asks) {
            *wanted = shards.shard_of(name(ask.key));
        }
        wanted.sort_unstable();
        let mut last = usize::MAX;
        for (place, shard) in self.shards.iter_mut().zip(wanted) {
            if *shard != last {
                *place = shards.write(*shard).map(|held| (*shard, held));
                last = *shard;
            }
        }
        true
    }

    fn shard(&mut self, wanted: usize) -> Option<&mut Shard<'a>> {
        self.shards.iter_mut().flatten().find(|(shard, _)| *shard == wanted).map(|(_, held)| held)
    }
}
