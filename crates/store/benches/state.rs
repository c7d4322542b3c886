//! The hot state at a million keys and a million revocations: time, and memory by the tables' own account and by the
//! operating system's.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bartizan_core::audit::Effect;
use bartizan_core::id::{SessionId, TenantId, TokenId, UserId};
use bartizan_core::limit::{Key, KeyMaker, Quota};
use bartizan_core::secret::Secret;
use bartizan_core::time::Millis;
use bartizan_store::state::{Ask, BanPolicy, EmbeddedState, Presented};
use criterion::{Criterion, criterion_group, criterion_main};

const NOW: Millis = Millis(1_700_000_000_000);
const MILLION: u128 = 1_000_000;

fn state() -> EmbeddedState {
    EmbeddedState::new(2_000_000, BanPolicy::never(), KeyMaker::new(&Secret::new([1; 32])))
}

/// As good as the keyed hash, and costs nothing: the hash has its own benchmark.
fn key(n: u128) -> Key {
    Key(n.wrapping_add(1).wrapping_mul(0xda94_2042_e4dd_58b5_9e37_79b9_7f4a_7c15))
}

fn random(n: u64) -> [u8; 10] {
    let mut bytes = [7; 10];
    for (to, from) in bytes.iter_mut().skip(2).zip(n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()) {
        *to = from;
    }
    bytes
}

fn resident_bytes() -> Option<usize> {
    let pages: usize = std::fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()?;
    Some(pages * 4096)
}

/// Processor time of this thread: what a figure means on a machine that does other things too.
fn busy() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(Duration::from_nanos(text.split(' ').next()?.parse().ok()?))
}

/// Measures by the clock, and tells the processor time beside it.
#[allow(clippy::print_stdout)]
fn measure<T>(c: &mut Criterion, name: &str, mut work: impl FnMut() -> T) {
    const TIMES: u32 = 500_000;
    let before = busy();
    for _ in 0..TIMES {
        black_box(work());
    }
    if let Some((before, after)) = before.zip(busy()) {
        println!("{name}: {} ns of processor time", (after - before).as_nanos() / u128::from(TIMES));
    }
    c.bench_function(name, |b| b.iter(&mut work));
}

#[allow(clippy::print_stdout)]
fn tell(what: &str, before: (usize, Option<usize>), after: (usize, Option<usize>)) {
    let own = (after.0 - before.0) as f64 / MILLION as f64;
    let resident = before.1.zip(after.1).map(|(before, after)| after.saturating_sub(before) as f64 / MILLION as f64);
    println!("{what}: {own:.1} bytes each by the tables, {resident:.1?} by the resident set");
}

fn limits(c: &mut Criterion) {
    let Ok(quota) = Quota::new(60, Duration::from_secs(60), 60) else { return };
    let Ok(hour) = Quota::new(1_000_000, Duration::from_secs(3600), 1_000_000) else { return };
    let state = state();
    let before = (state.memory_bytes(), resident_bytes());
    for n in 0..MILLION {
        state.take(&mut [Ask::new(key(n), "user", hour)], 1000, NOW);
    }
    tell("limited key", before, (state.memory_bytes(), resident_bytes()));

    let mut n = 0u128;
    let mut next = move || {
        n = (n + 611_953) % MILLION;
        key(n)
    };
    measure(c, "state/decision, 1 limit, 1 M keys", || state.take(&mut [Ask::new(next(), "user", hour)], 1, NOW));
    measure(c, "state/decision, 3 limits, 1 M keys", || {
        let mut asks =
            [Ask::new(next(), "user", hour), Ask::new(next(), "tenant", hour), Ask::new(next(), "address", hour)];
        state.take(&mut asks, 1, NOW)
    });
    state.ban(Key(5), Duration::from_secs(60), NOW);
    measure(c, "state/admit of a banned key", || state.admit(Key(5), &mut [Ask::new(next(), "user", quota)], 1, NOW));
    let Ok(dir) = tempfile::tempdir() else { return };
    let path = dir.path().join("limits");
    let mut group = c.benchmark_group("state");
    group.sample_size(10);
    group.bench_function("snapshot of 1 M keys", |b| {
        b.iter(|| {
            state.take(&mut [Ask::new(next(), "user", hour)], 1, NOW);
            state.snapshot(&path, NOW)
        });
    });
    group.bench_function("load of 1 M keys", |b| {
        b.iter(|| self::state().load(&path, NOW));
    });
    group.bench_function("sweep, an eighth of 1 M keys", |b| b.iter(|| state.sweep(NOW)));
    group.finish();
}

#[allow(clippy::print_stdout)]
fn revocations(c: &mut Criterion) {
    let state = state();
    let before = (state.memory_bytes(), resident_bytes());
    let until = NOW + Duration::from_secs(600);
    let (start, began) = (Instant::now(), busy());
    for n in 0..MILLION as u64 {
        state.apply(Effect::EndSession(SessionId::new(NOW, random(n))), until);
    }
    let busy = busy().zip(began).map(|(after, before)| after - before);
    println!("load of 1 M revocations: {:?}, {busy:?} of processor time", start.elapsed());
    tell("revoked session", before, (state.memory_bytes(), resident_bytes()));

    let presented = |n: u64| Presented {
        session: SessionId::new(NOW, random(n)),
        token: TokenId::new(NOW, random(n + 1)),
        user: UserId::new(NOW, random(n + 2)),
        user_epoch: 1,
        tenant: TenantId::new(NOW, random(n + 3)),
        tenant_epoch: 1,
        expires: until,
    };
    // Made beforehand: making ids takes longer than looking them up.
    let live: Vec<_> = (0..50_000).map(|n| presented(10_000_000 + 4 * n)).collect();
    let revoked: Vec<_> = (0..50_000).map(|n| presented(20 * n)).collect();
    let round = |tokens: &[Presented], state: &EmbeddedState, n: &mut usize| {
        *n = (*n + 1) % tokens.len();
        tokens.get(*n).map(|presented| state.standing(presented))
    };
    let mut n = 0;
    measure(c, "state/standing of a live token, 1 M revocations", || round(&live, &state, &mut n));
    measure(c, "state/standing of a revoked token, 1 M revocations", || round(&revoked, &state, &mut n));
    let small = self::state();
    for n in 0..1000 {
        small.apply(Effect::EndSession(SessionId::new(NOW, random(n))), until);
        small.apply(Effect::RaiseUserEpoch(UserId::new(NOW, random(n + 5000)), 2), until);
    }
    measure(c, "state/standing of a live token, 2,000 revocations", || round(&live, &small, &mut n));
}

criterion_group!(benches, limits, revocations);
criterion_main!(benches);
