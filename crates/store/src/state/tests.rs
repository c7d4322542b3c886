//! The state as its callers see it.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bartizan_core::id::SessionId;
use bartizan_core::limit::{Key, KeyMaker, Quota, Verdict};
use bartizan_core::secret::Secret;
use bartizan_core::time::Millis;
use proptest::prelude::*;

use super::*;

const NOW: Millis = Millis(1_700_000_000_000);

fn state(max_keys: usize) -> EmbeddedState {
    state_of(max_keys, [1; 32])
}

fn state_of(max_keys: usize, secret: [u8; 32]) -> EmbeddedState {
    EmbeddedState::new(max_keys, BanPolicy::never(), KeyMaker::new(&Secret::new(secret)))
}

fn per_minute(count: u32) -> Quota {
    Quota::new(count, Duration::from_secs(60), count).unwrap()
}

fn take(state: &EmbeddedState, key: u128, quota: Quota, now: Millis) -> Verdict {
    state.take(&mut [Ask::new(Key(key), "user", quota)], 1, now)
}

fn later(millis: i64) -> Millis {
    Millis(NOW.0 + millis)
}

#[test]
fn eight_threads_on_one_key_admit_exactly_the_burst() {
    let (state, admitted) = (state(1000), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..500 {
                    if take(&state, 7, per_minute(100), NOW).admits() {
                        admitted.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(admitted.load(Ordering::Relaxed), 100);
}

#[test]
fn several_keys_are_charged_together_or_not_at_all_by_many_threads() {
    // Each thread asks for its own key and a common one, in both orders: no deadlock, and no charge without the other.
    let state = state(1_000_000);
    let admitted: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (1..=8u128)
            .map(|thread| {
                let state = &state;
                scope.spawn(move || {
                    let mut admitted = 0;
                    for n in 0..400 {
                        let own = Ask::new(Key(thread << 70 | thread), "user", per_minute(60));
                        let common = Ask::new(Key(99), "tenant", per_minute(300));
                        let mut asks = if n % 2 == 0 { [own, common] } else { [common, own] };
                        admitted += u32::from(state.take(&mut asks, 1, NOW).admits());
                    }
                    admitted
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(admitted.iter().sum::<u32>(), 300);
    for (thread, admitted) in (1..=8u128).zip(admitted) {
        let mut ask = [Ask::new(Key(thread << 70 | thread), "user", per_minute(60))];
        assert!(state.take(&mut ask, 0, NOW).admits());
        assert_eq!(ask[0].limit.decision.remaining, 60 - admitted);
    }
}

#[test]
fn upkeep_beside_the_traffic_loses_no_charge() {
    let dir = tempfile::tempdir().unwrap();
    let (state, path) = (state(8_000), dir.path().join("limits"));
    let admitted = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4u128 {
            let (state, admitted) = (&state, &admitted);
            scope.spawn(move || {
                for n in 0..2_000u128 {
                    let victim = Ask::new(Key(1 + n % 10), "user", per_minute(50));
                    let newcomer = Ask::new(Key(thread << 80 | n << 20 | 77), "address", per_minute(50));
                    admitted
                        .fetch_add(u32::from(state.take(&mut [victim, newcomer], 1, NOW).admits()), Ordering::Relaxed);
                }
            });
        }
        for _ in 0..20 {
            state.sweep(NOW);
            state.snapshot(&path, NOW).unwrap();
        }
    });
    assert_eq!(admitted.load(Ordering::Relaxed), 10 * 50);
    state.snapshot(&path, NOW).unwrap();
    let after = self::state(8_000);
    after.load(&path, NOW).unwrap();
    assert!((1..=10).all(|key| !take(&after, key, per_minute(50), NOW).admits()));
}

#[test]
fn a_full_table_never_frees_a_limited_key() {
    let state = state(64);
    for _ in 0..10 {
        assert!(take(&state, 7, per_minute(10), NOW).admits());
    }
    let mut shared = 0;
    for key in 1000..20_000 {
        let mut ask = [Ask::new(Key(key), "user", per_minute(10))];
        let admitted = state.take(&mut ask, 1, NOW).admits();
        if ask[0].counted == Counted::Shared {
            shared += u32::from(admitted);
        } else {
            assert!(admitted);
        }
    }
    assert!(!take(&state, 7, per_minute(10), NOW).admits(), "the victim was freed");
    assert!(state.counts().limited_keys <= 64);
    // All the newcomers together got what one of them may have.
    assert_eq!(shared, 10);
    assert_eq!(state.counts().counted_shared, 19_000 - 63);
}

#[test]
fn a_full_table_takes_new_keys_again_when_the_old_ones_are_empty() {
    let state = state(64);
    for key in 1..1000 {
        take(&state, key, per_minute(60), NOW);
    }
    let mut ask = [Ask::new(Key(5000), "user", per_minute(60))];
    state.take(&mut ask, 1, later(999));
    assert_eq!(ask[0].counted, Counted::Shared);
    // What the 64 took is drained after a second; the shared bucket takes longer, and a new bucket begins with it.
    state.take(&mut ask, 1, later(1000));
    assert_eq!(ask[0].counted, Counted::Own);
    assert!(ask[0].limit.decision.remaining < 59);
    for _ in 0..60 {
        state.sweep(later(120_000));
    }
    assert_eq!(state.counts().limited_keys, 0);
    let mut ask = [Ask::new(Key(6000), "user", per_minute(60))];
    assert!(state.take(&mut ask, 1, later(120_000)).admits());
    assert_eq!(ask[0].limit.decision.remaining, 59);
}

#[test]
fn a_refund_goes_back_to_where_it_was_taken() {
    let state = state(1);
    take(&state, 1, per_minute(10), NOW);
    let mut ask = [Ask::new(Key(2), "login", per_minute(10))];
    assert!(state.take(&mut ask, 3, NOW).admits());
    assert_eq!(ask[0].counted, Counted::Shared);
    state.refund(&ask, 3, NOW);
    assert!(state.take(&mut ask, 10, NOW).admits());
    let mut own = [Ask::new(Key(1), "user", per_minute(10))];
    assert!(state.take(&mut own, 4, NOW).admits());
    state.refund(&own, 4, NOW);
    assert!(state.take(&mut own, 9, NOW).admits());
}

#[test]
fn mistakes_of_the_caller_are_refused_and_charge_nothing() {
    let state = state(1000);
    let ask = |key| Ask::new(Key(key), "user", per_minute(10));
    assert_eq!(state.take(&mut [ask(1), ask(1)], 1, NOW), Verdict::Never);
    assert_eq!(state.take(&mut [1, 2, 3, 4, 5, 6, 7, 8, 9].map(ask), 1, NOW), Verdict::Never);
    assert_eq!(state.take(&mut [ask(1)], 11, NOW), Verdict::Never);
    assert!(state.take(&mut [1, 2, 3, 4, 5, 6, 7, 8].map(ask), 10, NOW).admits());
    assert!(state.take(&mut [], 1, NOW).admits());
}

#[test]
fn too_many_shared_policies_are_refused_and_leave_no_trace() {
    let state = state(1);
    take(&state, 1, per_minute(1), NOW);
    let verdicts: Vec<_> = (1..=40).map(|n| take(&state, 2, per_minute(n + 10), NOW)).collect();
    assert!(verdicts[..32].iter().all(Verdict::admits));
    assert!(verdicts[32..].iter().all(|verdict| *verdict == Verdict::Never));
    assert!(take(&state, 2, per_minute(99), later(120_000)).admits());
}

#[test]
fn repeated_refusals_lead_to_a_ban_that_is_checked_first() {
    let policy = BanPolicy::new(3, Duration::from_secs(60)).unwrap();
    let state = EmbeddedState::new(1000, policy, KeyMaker::new(&Secret::new([1; 32])));
    let admit = |now| state.admit(Key(1), &mut [Ask::new(Key(2), "address", per_minute(2))], 1, now);
    assert_eq!([admit(NOW), admit(NOW)], [Admission::Admitted; 2]);
    let limited = Admission::Limited { retry_after: Duration::from_secs(30) };
    assert_eq!([admit(NOW), admit(NOW)], [limited; 2]);
    let until = later(60_000);
    assert_eq!(admit(NOW), Admission::BanBegan { until });
    assert_eq!(admit(later(59_999)), Admission::Banned { until });
    assert_eq!(admit(until), Admission::Admitted);
    state.ban(Key(1), Duration::from_secs(5), until);
    assert!(matches!(admit(until), Admission::Banned { .. }));
    state.pardon(Key(1));
    assert_eq!(admit(until), Admission::Admitted);
}

#[test]
fn another_ban_policy_acts_on_the_next_refusal_and_pardons_nobody() {
    let policy = |after| BanPolicy::new(after, Duration::from_secs(60)).unwrap();
    let state = EmbeddedState::new(1000, policy(100), KeyMaker::new(&Secret::new([1; 32])));
    let admit = |key| state.admit(Key(key), &mut [Ask::new(Key(key + 1000), "address", per_minute(1))], 1, NOW);
    assert_eq!(admit(1), Admission::Admitted);
    assert!(matches!([admit(1), admit(1)], [Admission::Limited { .. }, Admission::Limited { .. }]));
    state.rule_bans(policy(3));
    // What was refused before weighs what it weighed then: little, but not nothing.
    assert!(matches!([admit(1), admit(1)], [Admission::Limited { .. }, Admission::BanBegan { .. }]));
    state.rule_bans(policy(100));
    assert!(matches!(admit(1), Admission::Banned { .. }));
}

#[test]
fn counters_and_bans_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("limits ünd more.snapshot");
    let before = state(100_000);
    assert_eq!(before.load(&path, NOW).unwrap(), Restored::Nothing);
    for key in 1..=5000 {
        take(&before, key, per_minute(1), NOW);
    }
    before.ban(Key(3), Duration::from_secs(600), NOW);
    let bytes = 40 + 5000 * 16 + 32 + 48;
    assert_eq!(before.snapshot(&path, NOW).unwrap(), Snapshot::Written { bytes });
    assert_eq!(fs::metadata(&path).unwrap().len(), bytes);
    assert_eq!(before.snapshot(&path, NOW).unwrap(), Snapshot::Unchanged);
    // A ban or a pardon without any traffic is worth a snapshot too.
    before.ban(Key(4), Duration::from_secs(600), NOW);
    before.pardon(Key(4));
    assert_eq!(before.snapshot(&path, NOW).unwrap(), Snapshot::Written { bytes });
    #[cfg(unix)]
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions()) & 0o777, 0o600);

    let after = state(100_000);
    let restored = after.load(&path, later(30_000)).unwrap();
    assert_eq!(restored, Restored::Counters { keys: 5000, dropped: 0, age: Duration::from_secs(30) });
    assert!((1..=5000).all(|key| !take(&after, key, per_minute(1), later(59_999)).admits()));
    assert!((1..=5000).all(|key| take(&after, key, per_minute(1), later(60_000)).admits()));
    assert_eq!(after.banned(Key(3), later(599_999)), Some(later(600_000)));
    // Long afterwards nothing of it matters any more.
    let late = state(100_000);
    let restored = late.load(&path, later(60_000)).unwrap();
    assert_eq!(restored, Restored::Counters { keys: 0, dropped: 0, age: Duration::from_secs(60) });
}

#[test]
fn a_snapshot_from_the_future_keeps_the_waits_and_not_the_moments() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("limits");
    let before = state(1000);
    take(&before, 1, per_minute(1), NOW);
    before.ban(Key(1), Duration::from_secs(600), NOW);
    before.snapshot(&path, later(20_000)).unwrap();
    // A year back.
    let back = later(-366 * 86_400_000);
    let after = state(1000);
    after.load(&path, back).unwrap();
    assert!(!take(&after, 1, per_minute(1), Millis(back.0 + 39_999)).admits());
    assert!(take(&after, 1, per_minute(1), Millis(back.0 + 40_000)).admits());
    assert_eq!(after.banned(Key(1), back), Some(Millis(back.0 + 580_000)));
}

#[test]
fn a_damaged_or_foreign_snapshot_is_set_aside_and_the_server_starts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("limits");
    let before = state(1000);
    for key in 1..=100 {
        take(&before, key, per_minute(1), NOW);
    }
    before.snapshot(&path, NOW).unwrap();
    let whole = fs::read(&path).unwrap();
    let mut flaws: Vec<(Vec<u8>, Flaw)> = vec![
        (Vec::new(), Flaw::NotASnapshot),
        (b"garbage".to_vec(), Flaw::NotASnapshot),
        (vec![0; 4096], Flaw::NotASnapshot),
        (b"BZLIM".to_vec(), Flaw::Damaged),
        ([whole.as_slice(), b"x"].concat(), Flaw::Damaged),
    ];
    for cut in [8, 39, 40, 87, 88, 100, whole.len() - 33, whole.len() - 1] {
        flaws.push((whole[..cut].to_vec(), Flaw::Damaged));
    }
    for flip in [15, 24, 39, 40, 1000, whole.len() - 48, whole.len() - 40, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[flip] ^= 1;
        flaws.push((bytes, Flaw::Damaged));
    }
    let mut newer = whole.clone();
    newer[11] = 4;
    flaws.push((newer, Flaw::UnknownFormat));
    for (n, (bytes, flaw)) in flaws.into_iter().enumerate() {
        fs::write(&path, &bytes).unwrap();
        let (after, now) = (state(1000), later(n as i64));
        let moved_to = dir.path().join(format!("limits.corrupt-{}", now.0));
        assert_eq!(
            after.load(&path, now).unwrap(),
            Restored::SetAside { flaw, moved_to: moved_to.clone() },
            "case {n}"
        );
        assert_eq!(fs::read(moved_to).unwrap(), bytes);
        assert!(!path.exists());
        assert_eq!(after.counts().limited_keys, 0);
        assert!(take(&after, 1, per_minute(1), now).admits());
    }
    fs::write(&path, &whole).unwrap();
    let restored = state_of(1000, [2; 32]).load(&path, NOW).unwrap();
    assert!(matches!(restored, Restored::SetAside { flaw: Flaw::Foreign, .. }));
}

#[test]
fn a_snapshot_that_cannot_be_written_leaves_the_old_one_whole_and_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("limits");
    let before = state(1000);
    take(&before, 1, per_minute(1), NOW);
    before.snapshot(&path, NOW).unwrap();
    let old = fs::read(&path).unwrap();
    take(&before, 2, per_minute(1), NOW);
    // Something that cannot be removed lies in the way.
    fs::create_dir(dir.path().join("limits.new")).unwrap();
    assert!(before.snapshot(&path, NOW).is_err());
    assert_eq!(fs::read(&path).unwrap(), old);
    fs::remove_dir(dir.path().join("limits.new")).unwrap();
    assert!(matches!(before.snapshot(&path, NOW).unwrap(), Snapshot::Written { .. }));
    let restored = state(1000).load(&path, NOW).unwrap();
    assert!(matches!(restored, Restored::Counters { keys: 2, .. }));
    // What a crash left half written is no obstacle.
    fs::write(dir.path().join("limits.new"), b"half").unwrap();
    take(&before, 3, per_minute(1), NOW);
    assert!(before.snapshot(&path, NOW).is_ok());
}

#[test]
#[allow(clippy::print_stderr)]
fn a_full_disk_is_an_error_and_not_a_panic() {
    if !std::path::Path::new("/dev/full").exists() {
        eprintln!("skipped: no /dev/full");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let full = state(1000);
    take(&full, 1, per_minute(1), NOW);
    let sink = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let error = snapshot::write_to(sink, &full.limits, &full.bans, &full.keys, NOW).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    assert!(full.snapshot(&dir.path().join("missing/dir/limits"), NOW).is_err());
}

#[test]
fn no_network_shares_a_counter_with_another_of_another_width() {
    let key = |prefix: u64, length: u128| Key(length << 64 | u128::from(prefix));
    // Chosen so that the plain sum of both halves is the same.
    let (wide, narrow) = (key(0x2001_0db8_0001_0000, 48), key(0x2001_0dc8_0001_0000, 64));
    let state = state(1000);
    assert!(take(&state, wide.0, per_minute(1), NOW).admits());
    assert!(take(&state, narrow.0, per_minute(1), NOW).admits());
    // Two names that are equal would need networks that differ in the three bits in which all those given out are alike.
    let name = |length| u64::from(limits::name(key(0, length))).rotate_right(32);
    for (one, other) in [(48, 64), (48, 128), (64, 128)] {
        assert_ne!((name(one) ^ name(other)) >> 61, 0, "{one} {other}");
    }
}

#[test]
fn counters_that_were_lost_can_be_taken_as_spent() {
    let state = state(1000);
    state.assume_spent(NOW);
    assert!(!take(&state, 1, per_minute(60), NOW).admits());
    assert!(take(&state, 1, per_minute(60), later(1000)).admits());
    assert!(!take(&state, 1, per_minute(60), later(1000)).admits());
    let mut ask = [Ask::new(Key(2), "user", per_minute(60))];
    assert!(state.take(&mut ask, 1, later(60_000)).admits());
    assert_eq!(ask[0].limit.decision.remaining, 59);
}

#[test]
fn a_chosen_counter_can_be_kept_elsewhere() {
    let (before, quota) = (state(1000), per_minute(5));
    for _ in 0..5 {
        take(&before, 1, quota, NOW);
    }
    let tat = before.tat_of(Key(1)).unwrap();
    assert_eq!(before.tat_of(Key(2)), None);
    let after = state(1000);
    assert_eq!(after.restore(Key(1), &quota, tat, NOW), Restore::Kept);
    // Upkeep between restoring and the first request takes nothing away.
    for _ in 0..SWEEP_ROUND {
        after.sweep(NOW);
    }
    assert!(!take(&after, 1, quota, NOW).admits());
    // Restoring something older changes nothing; a full table says so.
    let older = bartizan_core::limit::take(None, &quota, 1, NOW).0.unwrap();
    assert_eq!(after.restore(Key(1), &quota, older, NOW), Restore::Kept);
    assert_eq!(after.tat_of(Key(1)), Some(tat));
    let small = state(1);
    assert_eq!(small.restore(Key(1), &quota, tat, NOW), Restore::Kept);
    assert_eq!(small.restore(Key(2), &quota, tat, NOW), Restore::NoRoom);
}

#[test]
fn a_clock_set_back_locks_out_for_a_burst_and_does_not_fill_the_table_for_ever() {
    let state = state(1000);
    for key in 1..=500 {
        take(&state, key, per_minute(10), NOW);
    }
    let back = later(-86_400_000);
    for key in 1..=10 {
        assert!(!take(&state, key, per_minute(10), back).admits());
        assert!(take(&state, key, per_minute(10), Millis(back.0 + 6_000)).admits());
    }
    for _ in 0..SWEEP_ROUND {
        state.sweep(back);
    }
    for _ in 0..SWEEP_ROUND {
        state.sweep(Millis(back.0 + 60_000));
    }
    assert_eq!(state.counts().limited_keys, 0);
}

#[test]
fn a_limited_key_and_a_revocation_cost_at_most_fifty_bytes() {
    // The extremes lie around the sizes at which tables grow, so measure at every step.
    let (state, quota) = (state(10_000_000), per_minute(1));
    let empty = state.memory_bytes();
    let (mut worst, mut before) = (0.0f64, empty);
    let spread = |n: u128| n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    for n in 1..=150_000u128 {
        state.take(&mut [Ask::new(Key(spread(n)), "user", quota)], 1, NOW);
        if n > 50_000 && n % 5_000 == 0 {
            worst = worst.max((state.memory_bytes() - before) as f64 / n as f64);
        }
    }
    before = state.memory_bytes();
    for n in 1..=150_000u128 {
        state.apply(Effect::EndSession(SessionId::from_u128(spread(n))), later(300_000));
        if n > 50_000 && n % 5_000 == 0 {
            worst = worst.max((state.memory_bytes() - before) as f64 / n as f64);
        }
    }
    assert!(worst <= 50.0, "{worst} bytes");
}

proptest! {
    /// The store is the pure function, whatever shares a table and in whatever order keys come and go.
    #[test]
    fn the_store_decides_as_the_pure_function_does(
        calls in prop::collection::vec((prop::collection::btree_set(1u128..12, 1..4), 0i64..9_000, 1u32..3), 1..80),
        cap in prop_oneof![Just(1000usize), Just(3000), Just(50_000)],
    ) {
        let state = limits::Limits::new(cap);
        let quotas = [per_minute(3), per_minute(10), per_minute(40)];
        let quota = |key: u128| quotas[(key % 3) as usize];
        let mut model = std::collections::HashMap::new();
        let mut now = NOW;
        for (keys, gap, cost) in calls {
            now = Millis(now.0 + gap);
            let mut asks: Vec<_> = keys.iter().map(|key| Ask::new(Key(*key << 60), "x", quota(*key))).collect();
            let mut limits: Vec<_> = asks.iter().map(|ask| ask.limit).collect();
            for (limit, key) in limits.iter_mut().zip(&keys) {
                limit.state = model.get(key).copied().flatten();
            }
            let expected = bartizan_core::limit::take_all(&mut limits, cost, now);
            prop_assert_eq!(state.take(&mut asks, cost, now), expected);
            for ((ask, limit), key) in asks.iter().zip(&limits).zip(&keys) {
                prop_assert_eq!(ask.limit.decision, limit.decision);
                prop_assert_eq!(ask.counted, Counted::Own);
                model.insert(*key, limit.state);
            }
            if gap % 5 == 0 {
                (0..state.shards.shard_count()).for_each(|shard| state.sweep(shard, now));
            }
        }
    }

    /// With a table far too small no key ever gets more than its own quota, whatever falls into shared buckets.
    #[test]
    fn a_full_table_never_gives_a_key_more_than_its_quota(
        calls in prop::collection::vec((1u128..30, 0i64..4_000), 1..300),
    ) {
        let (state, quota) = (limits::Limits::new(4), per_minute(5));
        let mut alone = std::collections::HashMap::new();
        let mut now = NOW;
        for (key, gap) in calls {
            now = Millis(now.0 + gap);
            let admitted = state.take(&mut [Ask::new(Key(key), "x", quota)], 1, now).admits();
            if admitted {
                let (after, decision) = bartizan_core::limit::take(alone.get(&key).copied().flatten(), &quota, 1, now);
                prop_assert!(decision.verdict.admits(), "key {} got more than its quota", key);
                alone.insert(key, after);
            }
        }
    }
}
