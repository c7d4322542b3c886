//! What a node does about once a second, and when it stops.

use std::collections::VecDeque;

use super::node::Keep;
use super::*;

/// For how long a node is believed to live after its last sign.
const BELIEVED: Duration = Duration::from_secs(10);
/// Over how many of the last counts of live nodes the highest holds: a store that lost its data counts too few at first.
const COUNTS: usize = 30;
/// Calls of one kind at once.
const AT_ONCE: usize = 64;

/// What the last rounds left.
#[derive(Default)]
pub(super) struct Tended {
    last: Option<Instant>,
    counts: VecDeque<u32>,
}

/// What a round finds to tell the store.
#[derive(Default)]
struct Found {
    idle: Vec<(Key, Quota, u64, u64)>,
    refusals: Vec<(Key, u32)>,
    owed: Vec<(Key, Owed)>,
}

impl SharedState {
    /// Says that this node lives, gives idle leases back, charges what was admitted while the store was away, tells the
    /// refusals decided here, and forgets what is over. Call it about once a second.
    pub async fn tend(&self, now: Millis, mono: Instant) {
        let inner = &*self.0;
        let up = inner.link.state() == LinkState::Up;
        {
            let mut tended = inner.tended.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(last) = tended.last.replace(mono).filter(|_| !up) {
                let passed = mono.saturating_duration_since(last).as_millis();
                count(&inner.counters.away_millis, u64::try_from(passed).unwrap_or(u64::MAX));
            }
        }
        inner.local.sweep(inner.store_time(mono, now));
        inner.heartbeat(BELIEVED).await;
        let found = inner.find(mono, now, Leases::Idle, up);
        inner.tell(found, now, mono).await;
    }

    /// Gives all leases back, charges what is owed, and leaves the live nodes. The link stays.
    pub async fn shutdown(&self, now: Millis, mono: Instant) {
        let inner = &*self.0;
        let found = inner.find(mono, now, Leases::All, true);
        inner.tell(found, now, mono).await;
        inner.heartbeat(Duration::ZERO).await;
    }
}

/// Which leases to give back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leases {
    Idle,
    All,
}

impl Inner {
    async fn heartbeat(&self, life: Duration) {
        let args = [self.node.clone().into_bytes(), life.as_millis().to_string().into_bytes()];
        let answer = self.eval(&scripts::HEARTBEAT, &[self.names.nodes()], &args).await;
        let Ok((live, _)) = answer.and_then(|answer| scripts::pair(&answer)) else { return };
        let mut tended = self.tended.lock().unwrap_or_else(PoisonError::into_inner);
        tended.counts.push_back(u32::try_from(live).unwrap_or(u32::MAX));
        if tended.counts.len() > COUNTS {
            tended.counts.pop_front();
        }
        self.live.store(tended.counts.iter().copied().max().unwrap_or(0), Ordering::Relaxed);
    }

    fn find(&self, mono: Instant, now: Millis, leases: Leases, up: bool) -> Found {
        let store = self.store_time(mono, now);
        let mut found = Found::default();
        self.known.retain(|key, known| {
            if let Some(lease) = known.lease.filter(|lease| leases == Leases::All || lease.idle(mono)) {
                known.lease = None;
                let ticks = lease.ticks(mono);
                if ticks > 0 {
                    let since = u64::try_from(lease.store_time(mono).0).unwrap_or(0);
                    found.idle.push((key, lease.quota, ticks, since));
                }
            }
            known.fetching = known.fetching.filter(|since| mono.saturating_duration_since(*since) <= lease::LIFE);
            if up && known.refusals > 0 {
                found.refusals.push((key, std::mem::take(&mut known.refusals)));
            }
            if let Some(owed) = known.owed.take_if(|owed| up || owed.units == 0) {
                self.owing.fetch_sub(1, Ordering::Relaxed);
                if owed.units > 0 {
                    found.owed.push((key, owed));
                }
            }
            known.ban = known.ban.filter(|ban| ban.until > store);
            known.denial = known.denial.filter(|denial| denial.until > mono);
            let seen = known.seen.is_some_and(|tat| tat.empty_at() > store);
            if seen || known.ban.is_some() || known.denial.is_some() { Keep::Keep } else { Keep::Forget }
        });
        found
    }

    async fn tell(&self, found: Found, now: Millis, mono: Instant) {
        let returned = found.idle.iter().map(|(_, quota, ticks, _)| ticks / quota.ticks().unit).sum();
        count(&self.counters.lease_units_returned, returned);
        for some in found.idle.chunks(AT_ONCE) {
            self.give_back(some).await;
        }
        for some in found.owed.chunks(AT_ONCE) {
            self.replay(some).await;
        }
        for some in found.refusals.chunks(AT_ONCE) {
            join_all(some.iter().map(|(who, refusals)| self.refuse(*who, *refusals, now, mono))).await;
        }
    }

    /// Before a request is decided by the store again: charges what its keys owe.
    pub(super) async fn settle_keys(&self, request: &Request) {
        if self.link.state() != LinkState::Up {
            return;
        }
        let mut owed = Vec::new();
        for line in &request.lines {
            if let Some(Some(some)) = self.known.known(line.ask.key, |known| known.owed.take()) {
                self.owing.fetch_sub(1, Ordering::Relaxed);
                owed.push((line.ask.key, some));
            }
        }
        self.replay(&owed).await;
    }

    /// Charges without asking. What did not get through is owed still; when only the answer was lost it is charged twice,
    /// which never admits more.
    async fn replay(&self, owed: &[(Key, Owed)]) {
        let most = if self.link.is_cluster() { 1 } else { AT_ONCE };
        let calls = owed.chunks(most).map(|chunk| async move {
            let (mut keys, mut numbers) = (Vec::with_capacity(chunk.len()), Doubles::default());
            for (key, owed) in chunk {
                let ticks = owed.quota.ticks();
                keys.push(self.names.bucket(*key));
                let units = owed.units.min(u64::from(owed.quota.burst()));
                numbers.push(&[u64::from(ticks.drain), ticks.capacity, units * ticks.unit]);
            }
            let answer = self.eval(&scripts::REPLAY, &keys, &[numbers.finish()]).await;
            for (key, owed) in chunk {
                if answer.is_ok() {
                    count(&self.counters.replayed, owed.units);
                } else {
                    self.owe_again(*key, *owed);
                }
            }
        });
        join_all(calls).await;
    }

    fn owe_again(&self, key: Key, again: Owed) {
        let began = self.known.with(key, |known| match &mut known.owed {
            Some(owed) => {
                owed.units = owed.units.saturating_add(again.units);
                false
            }
            none => {
                *none = Some(again);
                true
            }
        });
        match began {
            Some(true) => drop(self.owing.fetch_add(1, Ordering::Relaxed)),
            Some(false) => {}
            None => count(&self.counters.replay_lost, again.units),
        }
    }
}
