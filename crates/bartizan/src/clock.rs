//! The engine's clock: wall time that never runs backwards.
//!
//! Expiry, revocation and limits all assume that a moment once passed stays passed. So `now` advances with the
//! monotonic clock; when the system's clock is ahead (a jump, a suspended machine) we follow it, when it is behind we
//! keep our own and report the difference, because going back would bring expired credentials to life.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bartizan_core::time::Millis;

/// Tells the time. Cheap to clone; clones share one time.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Source>);

#[derive(Debug)]
enum Source {
    System { started: Instant, base: AtomicI64 },
    Manual(AtomicI64),
}

impl Clock {
    /// The system's clock, made monotonic.
    pub fn system() -> Self {
        Self(Arc::new(Source::System { started: Instant::now(), base: AtomicI64::new(system_now()) }))
    }

    /// A clock that stands still until [`Clock::advance`] moves it: for tests.
    pub fn manual(now: Millis) -> Self {
        Self(Arc::new(Source::Manual(AtomicI64::new(now.0))))
    }

    /// The current moment. About 30 ns.
    pub fn now(&self) -> Millis {
        match &*self.0 {
            Source::System { started, base } => Millis(base.load(Ordering::Relaxed).saturating_add(elapsed(started))),
            Source::Manual(now) => Millis(now.load(Ordering::Relaxed)),
        }
    }

    /// Moves a manual clock forward; a system clock is not moved.
    pub fn advance(&self, by: std::time::Duration) {
        if let Source::Manual(now) = &*self.0 {
            now.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::Relaxed);
        }
    }

    /// Follows the system's clock forward and returns by how many milliseconds it is *behind* ours (zero when it is
    /// not). Called once a second by the engine's upkeep.
    pub fn reconcile(&self) -> i64 {
        let Source::System { started, base } = &*self.0 else { return 0 };
        let target = system_now().saturating_sub(elapsed(started));
        let before = base.fetch_max(target, Ordering::Relaxed);
        before.saturating_sub(target).max(0)
    }
}

fn elapsed(started: &Instant) -> i64 {
    i64::try_from(started.elapsed().as_millis()).unwrap_or(i64::MAX)
}

fn system_now() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_runs_backwards() {
        let clock = Clock::system();
        let first = clock.now();
        assert!(clock.now() >= first);
        // A base far ahead stands for a system clock that was set back meanwhile.
        if let Source::System { base, .. } = &*clock.0 {
            base.fetch_add(60_000, Ordering::Relaxed);
        }
        let behind = clock.reconcile();
        assert!((59_000..=61_000).contains(&behind), "{behind}");
        assert!(clock.now().0 >= first.0 + 60_000);
    }
}
