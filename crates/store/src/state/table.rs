//! The one table under limits, bans and revocations: names of 64 or 128 bits to small values, in shards.
//!
//! Open addressing in one array of plain numbers, because a map of boxed nodes costs two to three times the memory and
//! a cache miss more per look-up. A value that says nothing any more (`live` is false) means the same as no value: its
//! place is reused in passing, so there is no queue of timers and no scan that a flood of keys could force.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bartizan_core::time::Millis;

/// A value that fades with time.
pub(super) trait Fades: Copy + Default {
    /// Whether forgetting it at `now` would change any answer.
    fn live(&self, now: Millis) -> bool;
}

/// Earlier than everything: at this moment nothing has faded, so nothing is reused in passing.
pub(super) const NOTHING_FADED: Millis = Millis(i64::MIN);

const SMALLEST: usize = 8;
/// Places looked at when a full table is asked for room: bounds the cost of one call during a flood.
const STEP: usize = 32;

/// What a table knows its entries by. The default marks a vacant place and is nobody's name.
pub(super) trait Name: Copy + Default + PartialEq {
    /// Places for ten entries after growing. Dense tables keep more of themselves in the processor's cache, which is best
    /// where names asked for are mostly there; sparse ones have shorter paths for names that are not.
    const PLACES_FOR_TEN: usize;

    /// Spreads names evenly, differently for each seed.
    fn hash(self, seed: Seed) -> u64;
}

/// For names that are equal by chance only, and nobody outside can look for a pair. A slot with an eight-byte value is then a quarter of a cache line, and never lies across two.
#[derive(Clone, Copy, Default, PartialEq)]
pub(crate) struct Short(u64);

/// For names that must be told apart for certain, such as UUIDs. Two halves, since a `u128` would be padded to its size.
#[derive(Clone, Copy, Default, PartialEq)]
pub(super) struct Long(u64, u64);

/// The vacant name's neighbour stands for it: neither hashes nor UUIDs are zero.
impl From<u64> for Short {
    fn from(bits: u64) -> Self {
        Self(bits.max(1))
    }
}

impl From<u128> for Long {
    fn from(bits: u128) -> Self {
        let bits = bits.max(1);
        Self((bits >> 64) as u64, bits as u64)
    }
}

impl From<Short> for u64 {
    fn from(name: Short) -> Self {
        name.0
    }
}

impl From<Long> for u128 {
    fn from(name: Long) -> Self {
        u128::from(name.0) << 64 | u128::from(name.1)
    }
}

impl Name for Short {
    const PLACES_FOR_TEN: usize = 16;

    fn hash(self, seed: Seed) -> u64 {
        seed.mix(self.0, 0)
    }
}

impl Name for Long {
    const PLACES_FOR_TEN: usize = 20;

    fn hash(self, seed: Seed) -> u64 {
        seed.mix(self.0, self.1)
    }
}

#[derive(Clone, Copy, Default)]
struct Slot<N, V> {
    name: N,
    value: V,
}

impl<N: Name, V> Slot<N, V> {
    fn vacant(&self) -> bool {
        self.name == N::default()
    }
}

/// Secret mixing numbers, new in every process: nobody can aim keys at one place.
#[derive(Clone, Copy)]
pub(super) struct Seed(u64, u64);

impl Seed {
    fn mix(self, high: u64, low: u64) -> u64 {
        let wide = u128::from(high ^ self.0) * u128::from(low ^ self.1);
        (wide >> 64) as u64 ^ wide as u64
    }
}

/// Where a key lives now, or how it came in.
pub(super) enum Entry {
    /// It was there, at this place.
    Present(usize),
    /// It was not, and is now, with the value given.
    Added,
    /// It was not, and every place examined is held by a live value.
    Full,
}

/// One shard. At most three quarters of the places are taken: with an eight-byte value 21 to 26 bytes for a short name,
/// 32 to 48 for a long one.
pub(super) struct Table<N, V> {
    seed: Seed,
    slots: Vec<Slot<N, V>>,
    used: usize,
    cursor: usize,
}

impl<N: Name, V: Fades> Table<N, V> {
    fn new(seed: Seed) -> Self {
        Self { seed, slots: Vec::new(), used: 0, cursor: 0 }
    }

    /// The place of `name` and its value.
    pub(super) fn find(&self, name: impl Into<N>) -> Option<(usize, V)> {
        let name = name.into();
        let mut at = self.home(name)?;
        loop {
            let slot = self.slots.get(at)?;
            if slot.name == name {
                return Some((at, slot.value));
            }
            if slot.vacant() {
                return None;
            }
            at = self.next(at);
        }
    }

    /// Sets the value of a name that is there; `hint` is where it was last seen.
    pub(super) fn set(&mut self, name: impl Into<N>, hint: usize, value: V) {
        let name = name.into();
        if let Some(slot) = self.slots.get_mut(hint)
            && slot.name == name
        {
            slot.value = value;
        } else if let Some((at, _)) = self.find(name)
            && let Some(slot) = self.slots.get_mut(at)
        {
            slot.value = value;
        }
    }

    /// Finds `name`, or adds it with `value` when at most `cap` places are taken or one has faded.
    pub(super) fn enter(&mut self, name: impl Into<N>, value: V, now: Millis, cap: usize) -> Entry {
        let name = name.into();
        let mut faded = None;
        if let Some(mut at) = self.home(name) {
            while let Some(slot) = self.slots.get(at).filter(|slot| !slot.vacant()) {
                if slot.name == name {
                    return Entry::Present(at);
                }
                if faded.is_none() && !slot.value.live(now) {
                    faded = Some(at);
                }
                at = self.next(at);
            }
        }
        // A faded place on the way is on the key's own path, so taking it over breaks no other path.
        if let Some(slot) = faded.and_then(|at| self.slots.get_mut(at)) {
            *slot = Slot { name, value };
            return Entry::Added;
        }
        if self.used >= cap && self.reclaim(now) == 0 {
            return Entry::Full;
        }
        if (self.used + 1) * 4 > self.slots.len() * 3 {
            self.rebuild(now, |_| {});
        }
        self.place(Slot { name, value });
        Entry::Added
    }

    /// Forgets `name`; says whether it was there.
    pub(super) fn remove(&mut self, name: impl Into<N>) -> Option<V> {
        let (at, value) = self.find(name)?;
        self.vacate(at);
        Some(value)
    }

    /// Lets `mend` look at every value, then forgets what has faded, telling `forgotten`; gives memory back when most
    /// places are vacant.
    pub(super) fn sweep(&mut self, now: Millis, mend: impl Fn(&mut V), mut forgotten: impl FnMut(N)) {
        if self.used == 0 {
            return;
        }
        let mut dead = 0;
        for slot in self.slots.iter_mut().filter(|slot| !slot.vacant()) {
            mend(&mut slot.value);
            dead += usize::from(!slot.value.live(now));
        }
        if dead * 8 > self.used || self.used * 4 < self.slots.len() {
            self.rebuild(now, forgotten);
        } else if dead > 0 {
            for at in 0..self.slots.len() {
                self.vacate_faded(at, now, &mut forgotten);
            }
        }
    }

    /// Every live name and value.
    pub(super) fn live(&self, now: Millis) -> impl Iterator<Item = (N, V)> {
        self.slots.iter().filter(move |slot| !slot.vacant() && slot.value.live(now)).map(|slot| (slot.name, slot.value))
    }

    /// Examines a few places and frees those that have faded; says how many.
    fn reclaim(&mut self, now: Millis) -> usize {
        let before = self.used;
        for _ in 0..STEP.min(self.slots.len()) {
            self.cursor = if self.cursor < self.slots.len() { self.cursor } else { 0 };
            self.vacate_faded(self.cursor, now, &mut |_| {});
            self.cursor += 1;
        }
        before - self.used
    }

    fn vacate_faded(&mut self, at: usize, now: Millis, forgotten: &mut impl FnMut(N)) {
        // Vacating moves a later entry here, which may have faded too.
        while let Some(slot) = self.slots.get(at).filter(|slot| !slot.vacant() && !slot.value.live(now)) {
            forgotten(slot.name);
            self.vacate(at);
        }
    }

    /// Takes the entry at `hole` away and closes the gap, so that no path is interrupted.
    fn vacate(&mut self, mut hole: usize) {
        let mut at = self.next(hole);
        while let Some(slot) = self.slots.get(at).copied().filter(|slot| !slot.vacant()) {
            let home = self.home(slot.name).unwrap_or(at);
            // It may move back into the hole when the hole lies on its path, that is between its home and here.
            if self.distance(home, at) >= self.distance(hole, at) {
                self.put(hole, slot);
                hole = at;
            }
            at = self.next(at);
        }
        self.put(hole, Slot::default());
        self.used = self.used.saturating_sub(1);
    }

    /// Moves what is live into an array of the right size.
    fn rebuild(&mut self, now: Millis, mut forgotten: impl FnMut(N)) {
        let live = self.slots.iter().filter(|slot| !slot.vacant() && slot.value.live(now)).count();
        let size = ((live + 1) * N::PLACES_FOR_TEN / 10).max(SMALLEST);
        let old = std::mem::replace(&mut self.slots, vec![Slot::default(); size]);
        (self.used, self.cursor) = (0, 0);
        for slot in old.into_iter().filter(|slot| !slot.vacant()) {
            if slot.value.live(now) {
                self.place(slot);
            } else {
                forgotten(slot.name);
            }
        }
    }

    /// Puts a new entry into the first vacant place of its path. There is one: a quarter is always vacant.
    fn place(&mut self, new: Slot<N, V>) {
        let Some(mut at) = self.home(new.name) else { return };
        while self.slots.get(at).is_some_and(|slot| !slot.vacant()) {
            at = self.next(at);
        }
        self.put(at, new);
        self.used += 1;
    }

    fn put(&mut self, at: usize, new: Slot<N, V>) {
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = new;
        }
    }

    /// Where the path of a name begins; `None` without any place.
    fn home(&self, name: N) -> Option<usize> {
        let places = self.slots.len() as u128;
        (places > 0).then(|| ((u128::from(name.hash(self.seed)) * places) >> 64) as usize)
    }

    fn next(&self, at: usize) -> usize {
        if at + 1 < self.slots.len() { at + 1 } else { 0 }
    }

    fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from { to - from } else { to + self.slots.len() - from }
    }
}

/// One shard, on cache lines of its own: cores that use different shards do not meet.
#[repr(align(128))]
struct Shard<N, V, X>(RwLock<(Table<N, V>, X)>);

/// A table cut into shards, each behind its own lock, with `X` beside the table.
///
/// A poisoned lock is taken all the same: values are plain numbers, written whole.
pub(super) struct Shards<N, V, X = ()> {
    shards: Box<[Shard<N, V, X>]>,
    seed: Seed,
    /// Places taken, over all shards; a hint for the fast way out of an empty table.
    used: AtomicUsize,
}

impl<N: Name, V: Fades, X: Default> Shards<N, V, X> {
    /// At least `wanted` shards, rounded up to a power of two.
    pub(super) fn new(wanted: usize) -> Self {
        let state = RandomState::new();
        let seed = Seed(state.hash_one(0), state.hash_one(1));
        let places = Seed(state.hash_one(2), state.hash_one(3));
        let shards = (0..wanted.max(1).next_power_of_two())
            .map(|_| Shard(RwLock::new((Table::new(places), X::default()))))
            .collect();
        Self { shards, seed, used: AtomicUsize::new(0) }
    }

    pub(super) fn shard_count(&self) -> usize {
        self.shards.len()
    }

    pub(super) fn shard_of(&self, name: impl Into<N>) -> usize {
        name.into().hash(self.seed) as usize & (self.shards.len() - 1)
    }

    /// Whether there is nothing at all: one read of a shared number.
    pub(super) fn is_empty(&self) -> bool {
        self.used.load(Ordering::Acquire) == 0
    }

    /// Places taken, faded ones included.
    pub(super) fn len(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub(super) fn read(&self, shard: usize) -> Option<RwLockReadGuard<'_, (Table<N, V>, X)>> {
        self.shards.get(shard).map(|shard| shard.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn write(&self, shard: usize) -> Option<Writing<'_, N, V, X>> {
        let guard = self.shards.get(shard)?.0.write().unwrap_or_else(PoisonError::into_inner);
        Some(Writing { before: guard.0.used, guard, used: &self.used })
    }

    /// Value of a name.
    pub(super) fn value(&self, name: impl Into<N>) -> Option<V> {
        if self.is_empty() {
            return None;
        }
        let name = name.into();
        self.read(self.shard_of(name))?.0.find(name).map(|(_, value)| value)
    }

    /// Bytes held by the arrays and the shards themselves.
    pub(super) fn memory_bytes(&self) -> usize {
        let arrays: usize = (0..self.shards.len())
            .filter_map(|shard| Some(self.read(shard)?.0.slots.capacity() * size_of::<Slot<N, V>>()))
            .sum();
        arrays + self.shards.len() * size_of::<Shard<N, V, X>>()
    }
}

/// A shard held for writing; keeps the shared count right when it is let go.
pub(super) struct Writing<'a, N, V, X> {
    guard: RwLockWriteGuard<'a, (Table<N, V>, X)>,
    before: usize,
    used: &'a AtomicUsize,
}

impl<N, V, X> Writing<'_, N, V, X> {
    pub(super) fn table(&mut self) -> &mut Table<N, V> {
        &mut self.guard.0
    }

    pub(super) fn beside(&mut self) -> &mut X {
        &mut self.guard.1
    }

    pub(super) fn both(&mut self) -> (&mut Table<N, V>, &mut X) {
        let (table, beside) = &mut *self.guard;
        (table, beside)
    }
}

impl<N, V, X> Drop for Writing<'_, N, V, X> {
    fn drop(&mut self) {
        // Still under the lock, so whoever sees the entry sees the count.
        let after = self.guard.0.used;
        if after > self.before {
            self.used.fetch_add(after - self.before, Ordering::Release);
        } else if after < self.before {
            self.used.fetch_sub(self.before - after, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[derive(Clone, Copy, Debug, Default, PartialEq)]
    struct Until(i64);

    impl Fades for Until {
        fn live(&self, now: Millis) -> bool {
            self.0 > now.0
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Enter(u8, i64),
        Set(u8, i64),
        Remove(u8),
        Pass(i64),
        Sweep,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (any::<u8>(), 1i64..50).prop_map(|(key, life)| Step::Enter(key, life)),
            2 => (any::<u8>(), 1i64..50).prop_map(|(key, life)| Step::Set(key, life)),
            1 => any::<u8>().prop_map(Step::Remove),
            2 => (1i64..10).prop_map(Step::Pass),
            1 => Just(Step::Sweep),
        ];
        prop::collection::vec(step, 1..300)
    }

    proptest! {
        #[test]
        fn behaves_like_a_map_of_what_is_live(steps in steps(), cap in 1usize..100) {
            let mut table: Table<Long, _> = Table::new(Seed(0x1234_5678_9abc_def1, 0x0fed_cba9_8765_4321));
            let (mut model, mut now): (HashMap<u128, Until>, _) = (HashMap::new(), Millis(0));
            for step in steps {
                match step {
                    Step::Enter(key, life) => {
                        let (key, value) = (u128::from(key) + 1, Until(now.0 + life));
                        match table.enter(key, value, now, cap) {
                            // What faded may or may not be there any more; setting it anew is the same.
                            Entry::Present(at) => table.set(key, at, value),
                            Entry::Added => prop_assert!(!model.get(&key).is_some_and(|value| value.live(now))),
                            Entry::Full => {
                                prop_assert!(!model.get(&key).is_some_and(|value| value.live(now)));
                                prop_assert!(table.used >= cap);
                                continue;
                            }
                        }
                        model.insert(key, value);
                    }
                    Step::Set(key, life) => {
                        let (key, value) = (u128::from(key) + 1, Until(now.0 + life));
                        if table.find(key).is_some() {
                            table.set(key, usize::MAX, value);
                            model.insert(key, value);
                        }
                    }
                    Step::Remove(key) => {
                        table.remove(u128::from(key) + 1);
                        model.remove(&(u128::from(key) + 1));
                    }
                    Step::Pass(time) => now.0 += time,
                    Step::Sweep => {
                        let mut gone = Vec::new();
                        table.sweep(now, |_| {}, |name| gone.push(u128::from(name)));
                        for key in gone {
                            prop_assert!(!model.get(&key).is_some_and(|value| value.live(now)));
                        }
                        prop_assert!(table.slots.iter().all(|slot| slot.vacant() || slot.value.live(now)));
                    }
                }
                prop_assert!(table.used <= cap);
                prop_assert_eq!(table.used, table.slots.iter().filter(|slot| !slot.vacant()).count());
                for (key, value) in model.iter().filter(|(_, value)| value.live(now)) {
                    prop_assert_eq!(table.find(*key).map(|(_, value)| value), Some(*value));
                }
            }
            let live: HashMap<_, _> = table.live(now).map(|(name, value)| (u128::from(name), value)).collect();
            model.retain(|_, value| value.live(now));
            prop_assert_eq!(live, model);
        }
    }

    #[test]
    fn memory_is_given_back_after_a_flood() {
        let shards: Shards<Long, Until> = Shards::new(4);
        for key in 1..=10_000u128 {
            let mut shard = shards.write(shards.shard_of(key)).unwrap();
            shard.table().enter(key, Until(10), Millis(0), usize::MAX);
        }
        assert_eq!(shards.len(), 10_000);
        assert!(shards.memory_bytes() <= 10_000 * 48 + 4 * 256);
        for shard in 0..4 {
            shards.write(shard).unwrap().table().sweep(Millis(10), |_| {}, |_| {});
        }
        assert!(shards.is_empty());
        assert!(shards.memory_bytes() < 2_000);
    }
}
