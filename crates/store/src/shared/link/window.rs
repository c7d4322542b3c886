//! How many calls of the last second failed.

/// Calls needed before their ratio means anything: below it a harmless blip would open the breaker.
const ENOUGH: u32 = 20;
/// Length of a slice in milliseconds; ten make the second that is looked at.
const SLICE: u64 = 100;

#[derive(Clone, Copy, Debug, Default)]
struct Slice {
    tick: u64,
    calls: u32,
    failed: u32,
}

/// The calls of about the last second, in ten slices.
#[derive(Debug, Default)]
pub(super) struct Window {
    slices: [Slice; 10],
}

impl Window {
    /// Counts a call that ended at `now` (milliseconds of any monotonic clock). True when at least half of at least
    /// 20 calls of the last second failed.
    pub(super) fn record(&mut self, now: u64, failed: bool) -> bool {
        let tick = now / SLICE;
        let place = usize::try_from(tick % 10).unwrap_or(0);
        if let Some(slice) = self.slices.get_mut(place) {
            if slice.tick != tick {
                *slice = Slice { tick, calls: 0, failed: 0 };
            }
            slice.calls = slice.calls.saturating_add(1);
            slice.failed = slice.failed.saturating_add(u32::from(failed));
        }
        if !failed {
            return false;
        }
        let recent = self.slices.iter().filter(|slice| slice.tick + 10 > tick);
        let (calls, failures) = recent.fold((0_u32, 0_u32), |(calls, failures), slice| {
            (calls.saturating_add(slice.calls), failures.saturating_add(slice.failed))
        });
        calls >= ENOUGH && failures.saturating_mul(2) >= calls
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_failures_are_a_blip() {
        let mut window = Window::default();
        assert!((0..19).all(|n| !window.record(n, true)));
        assert!(window.record(19, true));
    }

    #[test]
    fn less_than_half_is_tolerated() {
        let mut window = Window::default();
        assert!((0..900).all(|n| !window.record(n, n % 3 == 0)));
    }

    #[test]
    fn failures_of_an_earlier_second_are_forgotten() {
        let mut window = Window::default();
        for n in 0..19 {
            assert!(!window.record(n, true));
        }
        assert!(!window.record(1_100, true));
    }
}
