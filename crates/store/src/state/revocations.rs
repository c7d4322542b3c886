//! What has ended before its time: sessions, tokens, whole users and tenants; and tiers that changed meanwhile.

use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use bartizan_core::audit::Effect;
use bartizan_core::id::{SessionId, TenantId, TokenId, UserId};
use bartizan_core::principal::Tier;
use bartizan_core::time::Millis;

use super::table::{Entry, Fades, Long, NOTHING_FADED, Shards};

/// What a verified token says of itself, as far as it can have ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Presented {
    /// Its session.
    pub session: SessionId,
    /// The token itself.
    pub token: TokenId,
    /// Its user.
    pub user: UserId,
    /// The user's epoch when it was issued.
    pub user_epoch: u64,
    /// Its tenant.
    pub tenant: TenantId,
    /// The tenant's epoch when it was issued.
    pub tenant_epoch: u64,
    /// When it expires by itself.
    pub expires: Millis,
}

/// Whether a verified token is still in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing ended it.
    InForce,
    /// Its session was ended: logout, a deleted session, a reused refresh token.
    SessionEnded,
    /// The token itself was revoked.
    TokenEnded,
    /// Its user logged out everywhere, was disabled, or changed role.
    UserEnded,
    /// Its tenant was suspended.
    TenantEnded,
    /// It had expired once already, before the clock was set back.
    ExpiredBefore,
}

/// A marker that only says *ended*, until the given second since 1970.
#[derive(Clone, Copy, Default)]
struct Ended {
    until: u32,
}

/// The epoch below which tokens have ended.
#[derive(Clone, Copy, Default)]
struct Raised {
    epoch: u64,
    until: u32,
}

/// The tier in force, whatever older tokens say.
#[derive(Clone, Copy, Default)]
struct Moved {
    until: u32,
    /// Index into [`Tier::ALL`]; a byte, since a tier has no default.
    tier: u8,
}

macro_rules! fades {
    ($($marker:ty),+) => {$(
        impl Fades for $marker {
            fn live(&self, now: Millis) -> bool {
                i64::from(self.until) > now.0.div_euclid(1000)
            }
        }
    )+};
}
fades!(Ended, Raised, Moved);

/// How far one sweep may move the border between kept and forgotten. Shorter than a token lives: a clock that jumps
/// ahead for a moment takes no marker with it that is still needed, and refuses no fresh token after it came back.
const LARGEST_STEP: Duration = Duration::from_secs(60);

/// Everything that ended early, in memory.
///
/// Markers are looked up by presence, not by time, and forgotten only by [`Revocations::sweep`]: so a clock set back
/// cannot bring a revoked token to life. A token that expired before the border of the last sweep is refused, because
/// its marker may be gone.
pub(super) struct Revocations {
    ended: Shards<Long, Ended>,
    raised: Shards<Long, Raised>,
    moved: Shards<Long, Moved>,
    filter: Filter,
    generation: AtomicU64,
    border: AtomicI64,
}

impl Revocations {
    pub(super) fn new() -> Self {
        Self {
            ended: Shards::new(256),
            raised: Shards::new(64),
            moved: Shards::new(16),
            filter: Filter::new(),
            generation: AtomicU64::new(0),
            border: AtomicI64::new(i64::MIN),
        }
    }

    pub(super) fn apply(&self, effect: Effect, until: Millis) {
        match effect {
            Effect::EndSession(id) => self.end(id.as_u128(), until),
            Effect::EndToken(id, expires) => self.end(id.as_u128(), until.max(expires)),
            Effect::RaiseUserEpoch(id, epoch) => self.raise(id.as_u128(), epoch, until),
            Effect::RaiseTenantEpoch(id, epoch) => self.raise(id.as_u128(), epoch, until),
            Effect::SetTier(id, tier) => self.move_tier(id.as_u128(), tier, until),
            // Whoever follows remembers it, with its number.
            Effect::BelieveStore(_) => {}
        }
        // After the change is visible: whoever sees the new number sees the change.
        self.generation.fetch_add(1, Ordering::Release);
    }

    pub(super) fn standing(&self, presented: &Presented) -> Standing {
        let ended = |id: u128| self.filter.may_hold(id) && self.ended.value(id).is_some();
        let raised = |id: u128, epoch: u64| {
            self.filter.may_hold(id) && self.raised.value(id).is_some_and(|raised| epoch < raised.epoch)
        };
        if presented.expires.0 <= self.border.load(Ordering::Acquire) {
            Standing::ExpiredBefore
        } else if self.ended.is_empty() && self.raised.is_empty() {
            Standing::InForce
        } else if ended(presented.session.as_u128()) {
            Standing::SessionEnded
        } else if ended(presented.token.as_u128()) {
            Standing::TokenEnded
        } else if raised(presented.user.as_u128(), presented.user_epoch) {
            Standing::UserEnded
        } else if raised(presented.tenant.as_u128(), presented.tenant_epoch) {
            Standing::TenantEnded
        } else {
            Standing::InForce
        }
    }

    pub(super) fn tier_override(&self, tenant: TenantId) -> Option<Tier> {
        let moved = self.moved.value(tenant.as_u128())?;
        Tier::ALL.get(usize::from(moved.tier)).copied()
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Forgets what is over, in the shards that `chosen` picks from (number, count).
    pub(super) fn sweep(&self, now: Millis, chosen: impl Fn(usize, usize) -> bool) {
        let border = self.advance(now);
        let picked = |count: usize| (0..count).filter(|shard| chosen(*shard, count)).collect::<Vec<_>>();
        for shard in picked(self.ended.shard_count()) {
            if let Some(mut shard) = self.ended.write(shard) {
                shard.table().sweep(border, |_| {}, |id| self.filter.remove(id.into()));
            }
        }
        for shard in picked(self.raised.shard_count()) {
            if let Some(mut shard) = self.raised.write(shard) {
                shard.table().sweep(border, |_| {}, |id| self.filter.remove(id.into()));
            }
        }
        for shard in picked(self.moved.shard_count()) {
            if let Some(mut shard) = self.moved.write(shard) {
                shard.table().sweep(border, |_| {}, |_| {});
            }
        }
    }

    /// Sets the border before anything is forgotten by it. It never moves back, and ahead in small steps.
    fn advance(&self, now: Millis) -> Millis {
        let step = |border: i64| {
            if border == i64::MIN { now.0 } else { now.0.min((Millis(border) + LARGEST_STEP).0).max(border) }
        };
        let before = self
            .border
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |border| Some(step(border)))
            .unwrap_or_else(|border| border);
        Millis(step(before))
    }

    fn end(&self, id: u128, until: Millis) {
        let until = second(until);
        let Some(mut shard) = self.ended.write(self.ended.shard_of(id)) else { return };
        let table = shard.table();
        match table.enter(id, Ended { until }, NOTHING_FADED, usize::MAX) {
            Entry::Present(at) => {
                let before = table.find(id).map_or(0, |(_, ended)| ended.until);
                table.set(id, at, Ended { until: before.max(until) });
            }
            Entry::Added => self.filter.add(id),
            Entry::Full => {}
        }
    }

    fn raise(&self, id: u128, epoch: u64, until: Millis) {
        let until = second(until);
        let Some(mut shard) = self.raised.write(self.raised.shard_of(id)) else { return };
        let table = shard.table();
        match table.enter(id, Raised { epoch, until }, NOTHING_FADED, usize::MAX) {
            Entry::Present(at) => {
                let before = table.find(id).map(|(_, raised)| raised).unwrap_or_default();
                table.set(id, at, Raised { epoch: before.epoch.max(epoch), until: before.until.max(until) });
            }
            Entry::Added => self.filter.add(id),
            Entry::Full => {}
        }
    }

    fn move_tier(&self, id: u128, tier: Tier, until: Millis) {
        let index = Tier::ALL.iter().position(|known| *known == tier).and_then(|index| u8::try_from(index).ok());
        let moved = Moved { until: second(until), tier: index.unwrap_or(0) };
        let Some(mut shard) = self.moved.write(self.moved.shard_of(id)) else { return };
        if let Entry::Present(at) = shard.table().enter(id, moved, NOTHING_FADED, usize::MAX) {
            shard.table().set(id, at, moved);
        }
    }

    /// Markers of ended sessions and tokens, raised epochs, and changed tiers.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        (self.ended.len(), self.raised.len(), self.moved.len())
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.ended.memory_bytes() + self.raised.memory_bytes() + self.moved.memory_bytes() + Filter::CELLS
    }
}

/// Whole seconds, rounded up: a marker may stay a little longer, never shorter.
fn second(at: Millis) -> u32 {
    u32::try_from(at.0.saturating_add(999).div_euclid(1000).max(0)).unwrap_or(u32::MAX)
}

/// Says of nearly every id that is not in the tables that it is not, without a lock: one byte counts the ids that
/// share it. Readers on all cores share its cache lines; a lock's own line they would have to take from each other.
///
/// Two mebibytes. With n ids a look-up goes on to the table, and finds nothing there, in one of 2,000,000 / n cases.
struct Filter(Box<[Block]>);

/// A page of cells: built as a whole, which is what makes an empty filter cheap.
type Block = [AtomicU8; BLOCK];
/// Cells in a page.
const BLOCK: usize = 4096;

impl Filter {
    const CELLS: usize = 1 << 21;

    fn new() -> Self {
        Self((0..Self::CELLS / BLOCK).map(|_| [const { AtomicU8::new(0) }; BLOCK]).collect())
    }

    /// Ids are UUIDs that we made: their last bits are random and not chosen by others.
    fn cell(&self, id: u128) -> Option<&AtomicU8> {
        let mixed = (id as u64 ^ (id >> 64) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let cell = (mixed >> (64 - Self::CELLS.trailing_zeros())) as usize;
        self.0.get(cell / BLOCK)?.get(cell % BLOCK)
    }

    fn may_hold(&self, id: u128) -> bool {
        self.cell(id).is_none_or(|cell| cell.load(Ordering::Acquire) != 0)
    }

    /// A cell that reached its highest number keeps it for ever: it no longer knows how many it stands for.
    fn add(&self, id: u128) {
        if let Some(cell) = self.cell(id) {
            let _ = cell.fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| Some(count.saturating_add(1)));
        }
    }

    fn remove(&self, id: u128) {
        if let Some(cell) = self.cell(id) {
            let _ = cell.fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| match count {
                0 | u8::MAX => None,
                _ => Some(count - 1),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(1_700_000_000_000);

    fn token() -> Presented {
        Presented {
            session: SessionId::new(NOW, [1; 10]),
            token: TokenId::new(NOW, [2; 10]),
            user: UserId::new(NOW, [3; 10]),
            user_epoch: 4,
            tenant: TenantId::new(NOW, [4; 10]),
            tenant_epoch: 7,
            expires: later(300),
        }
    }

    fn later(seconds: u64) -> Millis {
        NOW + Duration::from_secs(seconds)
    }

    fn sweep(revocations: &Revocations, now: Millis) {
        revocations.sweep(now, |_, _| true);
    }

    #[test]
    fn each_kind_of_end_is_told_apart() {
        let token = token();
        for (effect, standing) in [
            (Effect::EndSession(token.session), Standing::SessionEnded),
            (Effect::EndToken(token.token, later(300)), Standing::TokenEnded),
            (Effect::RaiseUserEpoch(token.user, 5), Standing::UserEnded),
            (Effect::RaiseTenantEpoch(token.tenant, 8), Standing::TenantEnded),
            (Effect::RaiseUserEpoch(token.user, 4), Standing::InForce),
            (Effect::RaiseTenantEpoch(token.tenant, 7), Standing::InForce),
            (Effect::SetTier(token.tenant, Tier::Pro), Standing::InForce),
            (Effect::EndSession(SessionId::from_u128(token.session.as_u128() ^ 1)), Standing::InForce),
            (Effect::RaiseUserEpoch(token.user, u64::MAX), Standing::UserEnded),
        ] {
            let revocations = Revocations::new();
            assert_eq!(revocations.standing(&token), Standing::InForce);
            let generation = revocations.generation();
            revocations.apply(effect, later(300));
            assert_eq!(revocations.standing(&token), standing, "{effect:?}");
            assert_ne!(revocations.generation(), generation);
        }
    }

    #[test]
    fn applying_twice_or_late_changes_nothing() {
        let (revocations, token) = (Revocations::new(), token());
        for epoch in [9, 9, 5] {
            revocations.apply(Effect::RaiseUserEpoch(token.user, epoch), later(300));
            revocations.apply(Effect::EndSession(token.session), later(300));
        }
        assert_eq!(revocations.counts(), (1, 1, 0));
        let user_of_epoch = |user_epoch| Presented { user_epoch, session: SessionId::from_u128(1), ..token };
        assert_eq!(revocations.standing(&user_of_epoch(8)), Standing::UserEnded);
        assert_eq!(revocations.standing(&user_of_epoch(9)), Standing::InForce);
        // The longer of two times counts.
        revocations.apply(Effect::EndSession(token.session), later(1));
        sweep(&revocations, later(0));
        for second in 0..10 {
            sweep(&revocations, later(second * 30));
        }
        assert_eq!(revocations.standing(&token), Standing::SessionEnded);
    }

    #[test]
    fn a_tier_change_is_known_until_the_old_tokens_are_gone() {
        let (revocations, tenant) = (Revocations::new(), token().tenant);
        assert_eq!(revocations.tier_override(tenant), None);
        for tier in [Tier::Enterprise, Tier::Free, Tier::Pro] {
            revocations.apply(Effect::SetTier(tenant, tier), later(300));
            assert_eq!(revocations.tier_override(tenant), Some(tier));
        }
        sweep(&revocations, later(301));
        assert_eq!(revocations.tier_override(tenant), None);
    }

    #[test]
    fn what_is_over_is_forgotten_and_costs_nothing() {
        let revocations = Revocations::new();
        for n in 1..=10_000u64 {
            let mut random = [0; 10];
            random[..8].copy_from_slice(&n.to_be_bytes());
            revocations.apply(Effect::EndSession(SessionId::new(NOW, random)), later(300));
        }
        assert_eq!(revocations.counts().0, 10_000);
        sweep(&revocations, later(299));
        assert_eq!(revocations.counts().0, 10_000);
        sweep(&revocations, later(301));
        assert_eq!(revocations.counts().0, 0);
        assert!(revocations.filter.0.iter().flatten().all(|cell| cell.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn a_clock_set_forward_and_back_brings_no_revoked_token_to_life() {
        let (revocations, token) = (Revocations::new(), token());
        revocations.apply(Effect::EndSession(token.session), later(300));
        sweep(&revocations, NOW);
        // A day ahead for one sweep, then back: the marker is still there, and others are not hurt.
        sweep(&revocations, later(86_400));
        assert_eq!(revocations.standing(&token), Standing::SessionEnded);
        let fresh = Presented { session: SessionId::from_u128(5), ..token };
        assert_eq!(revocations.standing(&fresh), Standing::InForce);
        // Ahead for long: the marker goes, and with it every token that could have needed it.
        for _ in 0..10 {
            sweep(&revocations, later(86_400));
        }
        assert_eq!(revocations.counts().0, 0);
        assert_eq!(revocations.standing(&token), Standing::ExpiredBefore);
    }

    #[test]
    fn a_crowded_filter_cell_never_hides_a_revocation() {
        let filter = Filter::new();
        for _ in 0..300 {
            filter.add(9);
        }
        for _ in 0..300 {
            filter.remove(9);
        }
        assert!(filter.may_hold(9));
    }

    #[test]
    fn readers_see_every_revocation_that_was_applied_before() {
        let revocations = Revocations::new();
        std::thread::scope(|scope| {
            for thread in 0..4u128 {
                let revocations = &revocations;
                scope.spawn(move || {
                    for n in 1..2_000u128 {
                        let session = SessionId::from_u128((thread << 64) + n * 7919);
                        revocations.apply(Effect::EndSession(session), later(300));
                        let presented = Presented { session, ..token() };
                        assert_eq!(revocations.standing(&presented), Standing::SessionEnded);
                        if n % 500 == 0 {
                            sweep(revocations, NOW);
                        }
                    }
                });
            }
        });
        assert_eq!(revocations.counts().0, 4 * 1999);
    }
}
