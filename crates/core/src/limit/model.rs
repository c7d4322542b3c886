//! The arithmetic against an independent model: a log of what was admitted, searched for a broken interval.

use std::time::Duration;

use proptest::prelude::*;

use super::{Limit, Quota, Tat, Verdict, refund, take, take_all};
use crate::time::Millis;

fn quota(count: u32, period: u64, burst: u32) -> Quota {
    Quota::new(count, Duration::from_millis(period), burst).unwrap()
}

/// Admits when no interval that ends now would hold more than `burst + length × count / period`: the definition of
/// what a client was promised, written with whole numbers and without any of the words of the real thing.
#[derive(Clone, Default)]
struct Log(Vec<(i64, u32)>);

impl Log {
    fn would_admit(&self, quota: &Quota, cost: u32, now: i64) -> bool {
        let period = quota.period().as_millis() as i128;
        let mut sum = i128::from(cost);
        let allowed =
            |start: i64| i128::from(quota.burst()) * period + i128::from(now - start) * i128::from(quota.count());
        if sum * period > allowed(now) {
            return false;
        }
        self.0.iter().rev().all(|&(at, taken)| {
            sum += i128::from(taken);
            sum * period <= allowed(at)
        })
    }

    fn take(&mut self, quota: &Quota, cost: u32, now: i64) -> bool {
        let admits = self.would_admit(quota, cost, now);
        if admits {
            self.0.push((now, cost));
        }
        admits
    }

    /// The smallest wait that would be admitted, found by trying.
    fn wait(&self, quota: &Quota, cost: u32, now: i64) -> i64 {
        (1..).find(|wait| self.would_admit(quota, cost, now + wait)).unwrap()
    }
}

/// Follows every schedule of `left` more steps, and compares verdict, remaining, reset and wait at each.
fn explore(quota: &Quota, gaps: &[i64], tat: Option<Tat>, log: &Log, now: i64, left: u32) -> u64 {
    if left == 0 {
        return 1;
    }
    let mut schedules = 0;
    for gap in gaps {
        for cost in 0..=quota.burst() + 1 {
            let (now, mut log) = (now + gap, log.clone());
            let admitted = log.take(quota, cost, now);
            let (after, decision) = take(tat, quota, cost, Millis(now));
            assert_eq!(decision.verdict.admits(), admitted, "{quota:?} {log:?} cost {cost} at {now}", log = log.0);
            let remaining = (0..=quota.burst()).rev().find(|more| log.would_admit(quota, *more, now)).unwrap();
            assert_eq!(decision.remaining, remaining);
            match decision.verdict {
                Verdict::Admit => {}
                Verdict::Deny { retry_after } => {
                    assert_eq!(retry_after.as_millis() as i64, log.wait(quota, cost, now));
                    assert!(decision.reset <= retry_after);
                }
                Verdict::Never => assert!(cost > quota.burst()),
            }
            let reset =
                if remaining == quota.burst() && after.is_none() { 0 } else { log.wait(quota, remaining + 1, now) };
            assert_eq!(decision.reset.as_millis() as i64, reset, "{quota:?} {:?} at {now}", log.0);
            schedules += explore(quota, gaps, after, &log, now, left - 1);
        }
    }
    schedules
}

#[test]
fn every_short_schedule_agrees_with_a_log_of_admissions() {
    let mut schedules = 0;
    for (count, period, burst) in [(1, 1, 1), (2, 3, 1), (3, 2, 2), (1, 4, 2), (7, 10, 2), (2, 7, 3), (5, 3, 3)] {
        let quota = quota(count, period, burst);
        // Gaps around one unit and around a whole burst.
        let unit = period as i64 / i64::from(count);
        let full = quota.drains_in().as_millis() as i64;
        let mut gaps = vec![0, 1, unit.max(2), full - 1, full];
        gaps.sort_unstable();
        gaps.dedup();
        let steps = if burst == 1 { 5 } else { 4 };
        schedules += explore(&quota, &gaps, None, &Log::default(), 1_000_000, steps);
    }
    assert!(schedules > 300_000, "{schedules}");
}

#[test]
fn seven_a_minute_is_exactly_seven_a_minute() {
    let quota = quota(7, 60_000, 2);
    let (mut tat, mut now, mut admitted) = (None, 1_700_000_000_000, 0u64);
    let start = now;
    // Always wait exactly as told, in whole milliseconds: over 10,000 minutes not one unit is lost or gained, though a
    // seventh of a minute is no whole number of anything.
    while now < start + 10_000 * 60_000 {
        let (after, decision) = take(tat, &quota, 1, Millis(now));
        tat = after;
        match decision.verdict {
            Verdict::Admit => admitted += 1,
            Verdict::Deny { retry_after } => now += retry_after.as_millis() as i64,
            Verdict::Never => unreachable!(),
        }
    }
    assert!((70_000..=70_002).contains(&admitted), "{admitted}");

    // Asking every millisecond loses nothing at all.
    let (mut tat, mut admitted) = (None, 0);
    for now in start..start + 60_000 {
        let (after, decision) = take(tat, &quota, 1, Millis(now));
        tat = after;
        admitted += u32::from(decision.verdict.admits());
    }
    assert_eq!(admitted, 7 + 1);
}

#[test]
fn a_clock_set_back_locks_nobody_out_for_longer_than_a_burst_drains() {
    let quota = quota(60, 60_000, 10);
    let tat = take(None, &quota, 10, Millis(10_000_000)).0;
    // An hour back: full, but no more than full, and the denial mends the state.
    let (tat, decision) = take(tat, &quota, 1, Millis(6_400_000));
    assert_eq!(decision.verdict, Verdict::Deny { retry_after: Duration::from_secs(1) });
    let (tat, decision) = take(tat, &quota, 1, Millis(6_401_000));
    assert!(decision.verdict.admits());
    let (tat, _) = take(tat, &quota, 0, Millis(6_411_000));
    assert_eq!(tat, None);
    // And a clock before 1970 or after 2500 is not a panic.
    for now in [i64::MIN, -1, 0, i64::MAX] {
        let (tat, decision) = take(None, &quota, 10, Millis(now));
        assert!(decision.verdict.admits());
        assert!(!take(tat, &quota, 1, Millis(now)).1.verdict.admits());
    }
}

#[test]
fn a_tier_change_acts_on_the_next_request_without_a_reset() {
    let (free, pro) = (quota(60, 60_000, 60), quota(300, 60_000, 300));
    let spent = take(None, &free, 60, Millis(0)).0;
    assert!(!take(spent, &free, 1, Millis(0)).1.verdict.admits());
    // Up: room at once, what was used stays used (60 seconds of backlog are 300 units of the new rate).
    let (_, decision) = take(spent, &pro, 1, Millis(1000));
    assert!(decision.verdict.admits());
    assert_eq!(decision.remaining, 4);
    // Down: at most the new burst to wait.
    let spent = take(None, &quota(1, 3_600_000, 10), 10, Millis(0)).0;
    let (spent, decision) = take(spent, &free, 1, Millis(0));
    assert_eq!(decision.verdict, Verdict::Deny { retry_after: Duration::from_secs(1) });
    assert!(take(spent, &free, 60, Millis(60_000)).1.verdict.admits());
}

#[test]
fn a_cost_above_the_burst_is_never_admitted_and_never_charged() {
    let quota = quota(60, 60_000, 10);
    let (tat, decision) = take(None, &quota, 11, Millis(0));
    assert_eq!((tat, decision.verdict, decision.remaining), (None, Verdict::Never, 10));
}

#[test]
fn a_lost_state_can_be_assumed_spent() {
    let quota = quota(60, 60_000, 10);
    let tat = Tat::spent(&quota, Millis(5000));
    assert!(!take(tat, &quota, 1, Millis(5999)).1.verdict.admits());
    assert!(take(tat, &quota, 1, Millis(6000)).1.verdict.admits());
    assert_eq!(take(tat, &quota, 0, Millis(15_000)).0, None);
}

fn quotas() -> impl Strategy<Value = Quota> {
    (1u32..50, 1u64..5_000, 1u32..20).prop_map(|(count, period, burst)| quota(count, period, burst))
}

fn schedules() -> impl Strategy<Value = Vec<(i64, u32)>> {
    prop::collection::vec((prop_oneof![Just(0i64), 0i64..20, 0i64..3_000], 0u32..6), 1..60)
}

proptest! {
    /// P1 and P10: never more than promised, and never less.
    #[test]
    fn admits_exactly_what_a_log_of_admissions_allows(quota in quotas(), schedule in schedules()) {
        let (mut tat, mut log, mut now) = (None, Log::default(), 1_700_000_000_000);
        for (gap, cost) in schedule {
            now += gap;
            let (after, decision) = take(tat, &quota, cost, Millis(now));
            tat = after;
            prop_assert_eq!(decision.verdict.admits(), log.take(&quota, cost, now));
        }
    }

    /// P2: the sum charged per limit is the cost of what was admitted.
    #[test]
    fn several_limits_are_charged_together_or_not_at_all(
        several in prop::collection::vec(quotas(), 1..6),
        schedule in schedules(),
    ) {
        let mut limits: Vec<_> = several.iter().map(|quota| Limit::new("x", *quota)).collect();
        let mut logs = vec![Log::default(); limits.len()];
        let mut now = 1_700_000_000_000;
        for (gap, cost) in schedule {
            now += gap;
            let allowed: Vec<_> =
                several.iter().zip(&logs).map(|(quota, log)| log.would_admit(quota, cost, now)).collect();
            let verdict = take_all(&mut limits, cost, Millis(now));
            prop_assert_eq!(verdict.admits(), allowed.iter().all(|allowed| *allowed));
            for ((limit, log), allowed) in limits.iter().zip(&mut logs).zip(&allowed) {
                prop_assert_eq!(limit.violated(), !allowed);
                if verdict.admits() {
                    log.0.push((now, cost));
                }
                let more = limit.decision.remaining;
                prop_assert!(log.would_admit(&limit.quota, more, now));
                prop_assert!(more == limit.quota.burst() || !log.would_admit(&limit.quota, more + 1, now));
            }
        }
    }

    /// P11: the wait is exact.
    #[test]
    fn waiting_as_told_is_admitted_and_a_millisecond_less_is_not(
        quota in quotas(), schedule in schedules(), cost in 1u32..6,
    ) {
        let (mut tat, mut now) = (None, 1_700_000_000_000);
        for (gap, cost) in schedule {
            now += gap;
            tat = take(tat, &quota, cost, Millis(now)).0;
        }
        let (tat, decision) = take(tat, &quota, cost, Millis(now));
        if let Verdict::Deny { retry_after } = decision.verdict {
            let then = Millis(now) + retry_after;
            prop_assert!(take(tat, &quota, cost, then).1.verdict.admits());
            prop_assert!(!take(tat, &quota, cost, Millis(then.0 - 1)).1.verdict.admits());
        }
    }

    /// P5: whatever the clock does, nobody waits longer than a burst drains, and a jump forward by d gives at most
    /// what d is worth.
    #[test]
    fn any_clock_is_survived(quota in quotas(), clock in prop::collection::vec((any::<i32>(), 1u32..6), 1..60)) {
        let mut tat = None;
        for (now, cost) in clock {
            let now = Millis(1_700_000_000_000 + i64::from(now));
            let (after, decision) = take(tat, &quota, cost, now);
            tat = after;
            if let Verdict::Deny { retry_after } = decision.verdict {
                prop_assert!(retry_after <= quota.drains_in());
            }
            prop_assert!(tat.is_none_or(|tat| tat.empty_at() <= now + quota.drains_in()));
        }
    }

    #[test]
    fn a_refund_undoes_a_take_and_never_more(quota in quotas(), schedule in schedules(), cost in 1u32..6) {
        let (mut tat, mut now) = (None, 1_700_000_000_000);
        for (gap, cost) in schedule {
            now += gap;
            tat = take(tat, &quota, cost, Millis(now)).0;
        }
        let before = take(tat, &quota, 0, Millis(now));
        let (after, decision) = take(before.0, &quota, cost, Millis(now));
        if decision.verdict.admits() {
            prop_assert_eq!(refund(after, &quota, cost, Millis(now)), before.0);
        }
        prop_assert_eq!(refund(after, &quota, u32::MAX, Millis(now)), None);
    }

    #[test]
    fn the_packed_form_keeps_order_and_value(quota in quotas(), at in 0i64..4_000_000_000_000, cost in 1u32..6) {
        let tat = take(None, &quota, cost, Millis(at)).0;
        prop_assert_eq!(tat, tat.and_then(|tat| Tat::from_bits(tat.to_bits())));
        if let (Some(one), Some(other)) = (tat, take(tat, &quota, 1, Millis(at)).0) {
            prop_assert!(one <= other);
        }
    }
}
