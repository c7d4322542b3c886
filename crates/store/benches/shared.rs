//! The shared state over a Redis of its own: what a decision takes, and what it costs the store.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bartizan_core::limit::{Key, KeyMaker, Quota};
use bartizan_core::secret::Secret;
use bartizan_core::time::Millis;
use bartizan_store::shared::link::{Address, Link, LinkOptions, Script};
use bartizan_store::shared::{Group, SharedOptions, SharedState, Want};
use bartizan_store::state::{Ask, BanPolicy};
use bartizan_testkit::RedisServer;
use criterion::{Criterion, criterion_group, criterion_main};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

const NOW: Millis = Millis(1_700_000_000_000);
const KEYS: u64 = 100_000;
/// Tasks that ask at once: what pipelines their calls over the one connection.
const TASKS: u64 = 64;
const CALLS: u64 = 200_000;

/// What the full check costs when written without thought: a call for each key.
static NAIVE: Script = Script::new(
    "naive",
    "#!lua
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
for i = 4, 5 do
  local ban = redis.call('GET', KEYS[i])
  if ban and tonumber(ban) > now then return { 0, tonumber(ban) } end
end
local sequence = redis.call('GET', KEYS[6])
local tats = {}
for i = 1, 3 do
  local interval, burst = tonumber(ARGV[i * 2 - 1]), tonumber(ARGV[i * 2])
  local tat = math.max(tonumber(redis.call('GET', KEYS[i]) or 0), now) + interval
  if tat - now > burst then return { 0, tat - now - burst } end
  tats[i] = tat
end
for i = 1, 3 do redis.call('SET', KEYS[i], tats[i], 'PX', tats[i] - now + 1) end
return { 1, sequence }
",
);

fn key(n: u64) -> Key {
    Key(u128::from(n + 1).wrapping_mul(0xda94_2042_e4dd_58b5_9e37_79b9_7f4a_7c15))
}

fn spread(n: u64) -> u64 {
    (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) % KEYS
}

struct Bench {
    runtime: Runtime,
    server: RedisServer,
    link: Link,
    quota: Quota,
}

impl Bench {
    fn start() -> Option<Self> {
        let runtime = Runtime::new().ok()?;
        let server = runtime.block_on(RedisServer::start());
        let options = LinkOptions { timeout: Duration::from_secs(5), ..LinkOptions::default() };
        let link = runtime.block_on(async {
            let link = Link::start(Address::parse(&server.url()).ok()?, options);
            link.ready(Duration::from_secs(30)).await.ok()?;
            Some(link)
        })?;
        Some(Self { runtime, server, link, quota: Quota::new(600_000, Duration::from_secs(60), 100_000).ok()? })
    }

    #[allow(clippy::unwrap_used)]
    fn state(&self, leases: bool) -> SharedState {
        let bans = BanPolicy::new(20, Duration::from_secs(60)).unwrap_or(BanPolicy::never());
        let options = SharedOptions { leases, ..SharedOptions::new("bench", bans) };
        let state = SharedState::new(self.link.clone(), KeyMaker::new(&Secret::new([1; 32])), options).unwrap();
        self.runtime.block_on(async {
            let _ = state.raise_sequence(1).await;
            state.tend(NOW, Instant::now()).await;
        });
        state
    }

    /// Processor time of the store so far.
    async fn store_busy(&self) -> f64 {
        let mut busy = 0.0;
        for field in ["used_cpu_user", "used_cpu_sys"] {
            busy += self.server.info(field).await.parse().unwrap_or(0.0);
        }
        busy
    }

    /// Processor time of the store and wall time, in microseconds a call, of calls by many tasks at once.
    #[allow(clippy::print_stdout)]
    fn store_cost<F: Future<Output = ()> + Send + 'static>(&self, name: &str, call: impl Fn(u64) -> F) {
        let (busy, wall) = self.runtime.block_on(async {
            let (before, start) = (self.store_busy().await, Instant::now());
            let mut tasks = JoinSet::new();
            for n in 0..CALLS {
                if n >= TASKS {
                    let _ = tasks.join_next().await;
                }
                tasks.spawn(call(n));
            }
            while tasks.join_next().await.is_some() {}
            (self.store_busy().await - before, start.elapsed())
        });
        let each = |seconds: f64| seconds * 1e6 / CALLS as f64;
        println!("{name}: {:.1} us of the store, {:.1} us by the clock", each(busy), each(wall.as_secs_f64()));
    }
}

/// The full check: address and network or tenant, user, two bans, the sequence.
async fn full(state: SharedState, quota: Quota, n: u64) {
    let mut address = [Ask::new(key(spread(n)), "address", quota)];
    let mut account = [
        Ask::new(key(KEYS + spread(n + 7)), "user", quota),
        Ask::new(key(2 * KEYS + spread(n) / 100), "tenant", quota),
    ];
    let subjects = (address.first().map_or(Key(1), |ask| ask.key), account.first().map_or(Key(1), |ask| ask.key));
    let mut groups = [Group { who: subjects.0, asks: &mut address }, Group { who: subjects.1, asks: &mut account }];
    let _ = black_box(state.admit(&mut groups, 1, Want::DecisionAndSequence, NOW, Instant::now()).await);
}

async fn one(state: &SharedState, key: Key, quota: Quota) {
    let mut asks = [Ask::new(key, "user", quota)];
    let mut groups = [Group { who: key, asks: &mut asks }];
    let _ = black_box(state.admit(&mut groups, 1, Want::Decision, NOW, Instant::now()).await);
}

fn store(_: &mut Criterion) {
    let Some(bench) = Bench::start() else { return };
    let (state, quota) = (bench.state(false), bench.quota);
    for _ in 0..2 {
        let link = bench.link.clone();
        bench.store_cost("naive script of six keys", |n| {
            let link = link.clone();
            async move {
                let name = |n: u64, kind| format!("naive:{{{:032x}}}{kind}", key(n).0);
                let (a, u, t) = (spread(n), KEYS + spread(n + 7), 2 * KEYS + spread(n) / 100);
                let keys =
                    [name(a, "l"), name(u, "l"), name(t, "l"), name(a, "b"), name(u, "b"), "naive:sequence".to_owned()];
                let _ = black_box(link.eval(&NAIVE, &keys, &["1", "10000", "1", "10000", "1", "10000"]).await);
            }
        });
        bench.store_cost("full check", |n| full(state.clone(), quota, n));
        bench.store_cost("one limit and its ban", |n| {
            let state = state.clone();
            async move { one(&state, key(spread(n)), quota).await }
        });
    }
    let leasing = bench.state(true);
    bench.store_cost("one hot key with leases", |_| {
        let state = leasing.clone();
        async move { one(&state, Key(77), quota).await }
    });
}

fn latency(c: &mut Criterion) {
    let Some(bench) = Bench::start() else { return };
    let (state, quota) = (bench.state(false), bench.quota);
    let mut n = 0;
    c.bench_function("shared/full check, one round trip", |b| {
        b.iter(|| {
            n += 1;
            bench.runtime.block_on(full(state.clone(), quota, n));
        });
    });
    let Ok(spent) = Quota::new(1, Duration::from_secs(86_400), 1) else { return };
    c.bench_function("shared/refusal that is known", |b| {
        b.iter(|| bench.runtime.block_on(one(&state, Key(5), spent)));
    });
    let leasing = bench.state(true);
    c.bench_function("shared/hot key with leases", |b| {
        b.iter(|| bench.runtime.block_on(one(&leasing, Key(6), quota)));
    });
}

criterion_group!(benches, store, latency);
criterion_main!(benches);
