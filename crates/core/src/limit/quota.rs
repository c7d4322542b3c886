//! The parameters of a limit, checked once.

use std::time::Duration;

/// Longest period, and longest time a full burst may take to drain: a leap year.
const LONGEST: u64 = 366 * 24 * 3600 * 1000;
/// Room for the fraction of a millisecond in a [`Tat`](super::Tat).
pub(super) const PART_BITS: u32 = 20;
/// Most ticks of a full burst. Twice as many still fit a double, the only number a script in Redis has: so the shared
/// counters are as exact as those in memory.
const MOST_TICKS: u64 = 1 << 52;

/// `count` in `period` in the long run, at most `burst` at once.
///
/// Time is counted in milliseconds, as everywhere in Bartizan, and each millisecond in `drain` ticks, chosen so that one
/// unit of cost is a whole number of ticks. So 7 a minute is exactly 7 a minute, for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quota {
    count: u32,
    burst: u32,
    period: u64,
    /// Ticks that drain in a millisecond: `count / gcd(count, period)`.
    pub(super) drain: u32,
    /// Ticks of one unit of cost: `period / gcd(count, period)`.
    pub(super) unit: u64,
    /// Ticks of a full burst.
    pub(super) capacity: u64,
    /// Milliseconds in which a full burst drains, rounded up: a division that every decision would need.
    pub(super) drain_millis: u64,
}

/// Why three numbers make no quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidQuota {
    /// Nothing would ever be admitted.
    #[error("the count must be at least 1")]
    CountZero,
    /// Nothing would ever be admitted.
    #[error("the burst must be at least 1")]
    BurstZero,
    /// Zero, longer than 366 days, or with a fraction of a millisecond.
    #[error("the period must be a whole number of milliseconds, at least one and at most 366 days")]
    PeriodOutOfRange,
    /// The count does not go into the period evenly enough to be kept exactly.
    #[error("more than 1,048,576 steps in a millisecond: choose a rounder count or a shorter period")]
    RateTooFine,
    /// The burst is worth more than a year of the rate.
    #[error("the burst is worth more than 366 days of the rate")]
    BurstTooLong,
    /// A full burst has more than 2^52 ticks: no room to keep it exactly.
    #[error("burst times period has too many steps: choose a rounder count, a smaller burst or a shorter period")]
    BurstTooFine,
}

/// A [`Quota`] in whole ticks, as a shared store counts it. All three fit a double exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticks {
    /// Ticks that drain in a millisecond; at most 2^20.
    pub drain: u32,
    /// Ticks of one unit of cost.
    pub unit: u64,
    /// Ticks of a full burst; at most 2^52.
    pub capacity: u64,
}

impl Quota {
    /// `count` in each `period` in the long run, at most `burst` at once.
    ///
    /// # Errors
    /// See [`InvalidQuota`]; every count up to 1,048,576 is fine with every period of whole
    /// milliseconds up to 49 days and a burst worth that long, or with every period and a burst up to 142,000.
    pub fn new(count: u32, period: Duration, burst: u32) -> Result<Self, InvalidQuota> {
        if count == 0 {
            return Err(InvalidQuota::CountZero);
        }
        if burst == 0 {
            return Err(InvalidQuota::BurstZero);
        }
        let millis = u64::try_from(period.as_millis()).unwrap_or(u64::MAX);
        if millis == 0 || millis > LONGEST || !period.subsec_nanos().is_multiple_of(1_000_000) {
            return Err(InvalidQuota::PeriodOutOfRange);
        }
        let shared = gcd(u64::from(count), millis);
        let (drain, unit) = (u64::from(count) / shared, millis / shared);
        if drain > 1 << PART_BITS {
            return Err(InvalidQuota::RateTooFine);
        }
        let drain = u32::try_from(drain).map_err(|_| InvalidQuota::RateTooFine)?;
        let capacity = u128::from(unit) * u128::from(burst);
        if capacity > u128::from(LONGEST) * u128::from(drain) {
            return Err(InvalidQuota::BurstTooLong);
        }
        let capacity = u64::try_from(capacity).map_err(|_| InvalidQuota::BurstTooLong)?;
        if capacity > MOST_TICKS {
            return Err(InvalidQuota::BurstTooFine);
        }
        let drain_millis = capacity.div_ceil(u64::from(drain));
        Ok(Self { count, burst, period: millis, drain, unit, capacity, drain_millis })
    }

    /// Units in each period, in the long run.
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Units at once, at most.
    pub const fn burst(&self) -> u32 {
        self.burst
    }

    /// The period.
    pub const fn period(&self) -> Duration {
        Duration::from_millis(self.period)
    }

    /// The same in ticks, for a store that counts by itself.
    pub const fn ticks(&self) -> Ticks {
        Ticks { drain: self.drain, unit: self.unit, capacity: self.capacity }
    }

    /// How long a full burst takes to drain: the longest lock-out after a clock was set back, and after a downgrade.
    pub const fn drains_in(&self) -> Duration {
        Duration::from_millis(self.drain_millis)
    }
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absurd_numbers_make_no_quota() {
        let minute = Duration::from_secs(60);
        assert_eq!(Quota::new(0, minute, 1), Err(InvalidQuota::CountZero));
        assert_eq!(Quota::new(1, minute, 0), Err(InvalidQuota::BurstZero));
        assert_eq!(Quota::new(1, Duration::ZERO, 1), Err(InvalidQuota::PeriodOutOfRange));
        assert_eq!(Quota::new(1, Duration::from_micros(1500), 1), Err(InvalidQuota::PeriodOutOfRange));
        assert_eq!(Quota::new(1, Duration::MAX, 1), Err(InvalidQuota::PeriodOutOfRange));
        assert_eq!(Quota::new(1, minute, u32::MAX), Err(InvalidQuota::BurstTooLong));
        assert_eq!(Quota::new(1_234_567, minute, 1), Err(InvalidQuota::RateTooFine));
        assert!(Quota::new(60_000_000, minute, u32::MAX).is_ok());
        assert!(Quota::new(u32::MAX, Duration::from_secs(1), 1).is_err());
        let year = Duration::from_millis(LONGEST);
        assert_eq!(Quota::new(1_048_573, year, 1_048_573), Err(InvalidQuota::BurstTooFine));
        assert!(Quota::new(1_048_573, year, 142_000).is_ok());
        assert!(Quota::new(1_048_576, year, 1_048_576).is_ok());
        assert!(Quota::new(1_048_573, Duration::from_millis((1 << 32) - 1), 1_048_573).is_ok());
    }

    #[test]
    fn a_unit_is_a_whole_number_of_ticks() {
        let quota = Quota::new(7, Duration::from_secs(60), 3).unwrap();
        assert_eq!((quota.drain, quota.unit, quota.capacity), (7, 60_000, 180_000));
        assert_eq!(quota.drains_in(), Duration::from_millis(25_715));
        let quota = Quota::new(600, Duration::from_secs(60), 300).unwrap();
        assert_eq!((quota.drain, quota.unit), (1, 100));
    }
}
