//! How much was admitted beyond a limit, counted from outside, in the same way for every library.
//!
//! *"100 a second"* is read so: in any stretch of time of length T at most `100 + 100 × T`. That is what a bucket of 100
//! promises. A window of a second that begins at the first request and admits exactly 100 keeps it too while more is asked
//! than admitted (a test below), so no way of counting is at a disadvantage here.
//!
//! From outside an admission is known to lie between question and answer. Counted for a stretch is only what lies in it
//! for certain, so an excess that is found is one; a little of it may be missed. The clocks of stores tell whole
//! milliseconds, so each stretch is taken to be one longer than it was.

use crate::run::WINDOW;

/// How exactly a store knows the time, in nanoseconds.
const TICK: f64 = 1e6;

/// Asked and answered, in nanoseconds since the start.
#[derive(Clone, Copy, Debug)]
pub struct Admission {
    pub key: usize,
    pub asked: u64,
    pub answered: u64,
}

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Excess {
    /// Most admitted of one key in a stretch of one window.
    pub most: u64,
    /// Beyond the limit: of the worst key, in its worst stretch.
    pub worst: u64,
    /// The same of all keys together.
    pub all: u64,
}

/// Looks through every stretch of every key.
pub fn find(admissions: &[Admission], keys: usize, limit: u32) -> Excess {
    let mut of = vec![(Vec::new(), Vec::new()); keys];
    for admission in admissions {
        of[admission.key].0.push(admission.asked);
        of[admission.key].1.push(admission.answered);
    }
    let mut found = Excess::default();
    for (mut asked, mut answered) in of {
        asked.sort_unstable();
        answered.sort_unstable();
        found.most = found.most.max(most(&asked, &answered));
        let beyond = beyond(&asked, &answered, limit);
        found.worst = found.worst.max(beyond);
        found.all += beyond;
    }
    found
}

/// For a stretch from `a` to `b`, all that was answered until `b`, less what was asked before `a`.
fn most(asked: &[u64], answered: &[u64]) -> u64 {
    let window = WINDOW.as_nanos() as u64;
    let counts = asked
        .iter()
        .enumerate()
        .map(|(before, from)| answered.partition_point(|at| *at <= from + window).saturating_sub(before));
    counts.max().unwrap_or(0) as u64
}

/// The same for stretches of every length, less what the limit allows in it.
fn beyond(asked: &[u64], answered: &[u64], limit: u32) -> u64 {
    let rate = f64::from(limit) / WINDOW.as_nanos() as f64;
    let (mut start, mut starts) = (f64::MIN, asked.iter().enumerate().peekable());
    let mut most: f64 = 0.0;
    for (at, end) in answered.iter().enumerate() {
        while let Some((before, from)) = starts.next_if(|(_, from)| *from <= end) {
            start = start.max(*from as f64 * rate - before as f64);
        }
        most = most.max((at + 1) as f64 - (*end as f64 + TICK) * rate + start - f64::from(limit));
    }
    // A rounding error is no admission.
    (most - 1e-3).max(0.0).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(moments: impl Iterator<Item = u64>) -> Vec<Admission> {
        moments.map(|asked| Admission { key: 0, asked, answered: asked + 1000 }).collect()
    }

    #[test]
    fn exact_windows_and_exact_buckets_have_no_excess() {
        let windows = at((0..5).flat_map(|window| (0..100).map(move |n| window * SECOND + n * 50_000)));
        assert_eq!(find(&windows, 1, 100), Excess { most: 100, worst: 0, all: 0 });
        let bucket = at((0..100).map(|n| n * 1000).chain((1..400).map(|n| n * SECOND / 100)));
        assert_eq!(find(&bucket, 1, 100), Excess { most: 199, worst: 0, all: 0 });
    }

    #[test]
    fn each_admission_too_many_is_found() {
        let windows = at((0..5).flat_map(|window| (0..107).map(move |n| window * SECOND + n * 1000)));
        assert_eq!(find(&windows, 1, 100), Excess { most: 107, worst: 35, all: 35 });
        let bucket = at((0..100).map(|n| n * 1000).chain((1..400).map(|n| n * SECOND / 100)).chain([2 * SECOND; 3]));
        assert_eq!(find(&bucket, 1, 100).worst, 3);
        let mut two = windows.clone();
        two.extend(windows.iter().map(|admission| Admission { key: 1, ..*admission }));
        assert_eq!(find(&two, 2, 100), Excess { most: 107, worst: 35, all: 70 });
    }

    #[test]
    fn what_may_lie_outside_of_a_stretch_is_not_counted_in_it() {
        // 150 of 100, all under way for two seconds: they may have been admitted 50 at a time.
        let slow: Vec<_> = (0..150).map(|n| Admission { key: 0, asked: n, answered: 2 * SECOND + n }).collect();
        assert_eq!(find(&slow, 1, 100).worst, 0);
    }
}
