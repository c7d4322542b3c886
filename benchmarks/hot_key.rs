//! What one hot key costs all others, at the level of the library: `./bench hotkey` builds and runs it.
//!
//!     hot-key [--seconds 5] [--rounds 5] [--rate 50000]
//!
//! Two nodes share one Redis; each has a runtime with one thread. 50,000 decisions a second about one key come in over both,
//! whether or not those before are done, and beside them 2,000 a second about a thousand other keys, too few of each for
//! a lease. What counts is the 99th percentile of the others, with the hot key and without it, in turn; once with a hot key
//! that has room, and once with one that is refused nearly always; with leases and, to compare, without.
//!
//! A latency begins when the request is handed to the node: how late the generator was is printed, and is not in it.
#![allow(clippy::print_stdout, reason = "a program for the bench script, which prints its table")]

use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bartizan_core::limit::{Key, KeyMaker, Quota};
use bartizan_core::secret::Secret;
use bartizan_core::time::Millis;
use bartizan_store::shared::link::{Address, Link, LinkOptions};
use bartizan_store::shared::{Decided, Group, SharedOptions, SharedState, Want};
use bartizan_store::state::{Admission, Ask, BanPolicy};
use bartizan_testkit::RedisServer;
use tokio::runtime::{Builder, Runtime};

const NODES: usize = 2;
const OTHER_KEYS: u64 = 1_000;
const OTHERS_A_SECOND: u64 = 2_000;
/// Before anything counts: connections, scripts, the first leases.
const WARM: Duration = Duration::from_millis(500);
/// Of the others, with the hot key beside them: at most so many times without.
const PROMISED: f64 = 1.2;

/// A way in which a key can be hot.
struct Case {
    name: &'static str,
    leases: bool,
    /// Of the hot key, a second.
    limit: u32,
}

const CASES: [Case; 4] = [
    Case { name: "leases, room", leases: true, limit: 1_000_000 },
    Case { name: "leases, refused", leases: true, limit: 100 },
    Case { name: "no leases, room", leases: false, limit: 1_000_000 },
    Case { name: "no leases, refused", leases: false, limit: 100 },
];

struct Settings {
    length: Duration,
    rounds: usize,
    hot_a_second: u64,
}

fn settings() -> Result<Settings, Box<dyn Error>> {
    let mut settings = Settings { length: Duration::from_secs(5), rounds: 5, hot_a_second: 50_000 };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value: u64 = args.next().ok_or("usage: hot-key [--seconds N] [--rounds N] [--rate N]")?.parse()?;
        match arg.as_str() {
            "--seconds" => settings.length = Duration::from_secs(value.max(1)),
            "--rounds" => settings.rounds = usize::try_from(value)?.max(1),
            "--rate" => settings.hot_a_second = value.max(1),
            other => return Err(format!("{other} is not known").into()),
        }
    }
    Ok(settings)
}

fn main() -> Result<(), Box<dyn Error>> {
    let settings = settings()?;
    head(&settings);
    for case in &CASES {
        let mut rounds = Vec::new();
        for round in 0..settings.rounds {
            // In turn, and each of them first as often as the other.
            let first = measure(case, &settings, round % 2 == 0)?;
            let second = measure(case, &settings, round % 2 == 1)?;
            rounds.push(if round % 2 == 0 { (second, first) } else { (first, second) });
        }
        row(case, &rounds);
    }
    Ok(())
}

/// One node: its runtime, its state, and what its requests met.
struct Node {
    runtime: Runtime,
    state: SharedState,
    others: Arc<Mutex<Vec<u32>>>,
    hot: Arc<Mutex<Vec<u32>>>,
    hot_admitted: Arc<AtomicU64>,
    /// Decided without Redis.
    alone: Arc<AtomicU64>,
    under_way: Arc<AtomicU64>,
}

impl Node {
    fn start(number: usize, url: &str, leases: bool) -> Result<Self, Box<dyn Error>> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let address = Address::parse(url)?;
        let state = runtime.block_on(async {
            // What is measured is deciding by Redis: nobody shall decide without it because the machine is busy.
            let options = LinkOptions { timeout: Duration::from_secs(5), ..LinkOptions::default() };
            let link = Link::start(address, options);
            link.ready(Duration::from_secs(30)).await?;
            let options = SharedOptions { leases, ..SharedOptions::new(format!("node {number}"), BanPolicy::never()) };
            let state = SharedState::new(link, KeyMaker::new(&Secret::new([1; 32])), options)
                .map_err(Box::<dyn Error>::from)?;
            state.tend(now(), Instant::now()).await;
            let tended = state.clone();
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    tended.tend(now(), Instant::now()).await;
                }
            });
            Ok::<_, Box<dyn Error>>(state)
        })?;
        Ok(Self {
            runtime,
            state,
            others: Arc::default(),
            hot: Arc::default(),
            hot_admitted: Arc::default(),
            alone: Arc::default(),
            under_way: Arc::default(),
        })
    }

    /// Hands a request to the node, whatever else it is doing.
    fn request(&self, key: Key, quota: Quota, kind: Kind, counts: bool) {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        let under_way = self.under_way.clone();
        let began = Instant::now();
        let (state, alone, admitted) = (self.state.clone(), self.alone.clone(), self.hot_admitted.clone());
        let times = if kind == Kind::Hot { self.hot.clone() } else { self.others.clone() };
        self.runtime.spawn(async move {
            let mut asks = [Ask::new(key, "tenant", quota)];
            let mut groups = [Group { who: key, asks: &mut asks }];
            let ruled = state.admit(&mut groups, 1, Want::Decision, now(), Instant::now()).await;
            let took = u32::try_from(began.elapsed().as_nanos()).unwrap_or(u32::MAX);
            if !ruled.is_ok_and(|ruled| ruled.decided != Decided::Local) {
                alone.fetch_add(1, Ordering::Relaxed);
            }
            if counts {
                times.lock().unwrap_or_else(PoisonError::into_inner).push(took);
                if kind == Kind::Hot && ruled.is_ok_and(|ruled| ruled.admission == Admission::Admitted) {
                    admitted.fetch_add(1, Ordering::Relaxed);
                }
            }
            under_way.fetch_sub(1, Ordering::Release);
        });
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Hot,
    Other,
}

/// What came of one run.
struct Seen {
    others_p50: f64,
    others_p99: f64,
    hot_p99: f64,
    /// A second.
    hot_asked: f64,
    hot_admitted: f64,
    /// Calls to the store, a second.
    calls: f64,
    /// Of one core.
    store: f64,
    /// How late the generator was, in microseconds, but for one request in a hundred.
    late_p99: f64,
}

fn measure(case: &Case, settings: &Settings, hot: bool) -> Result<Seen, Box<dyn Error>> {
    let main = Builder::new_current_thread().enable_all().build()?;
    let redis = main.block_on(RedisServer::start());
    let nodes: Vec<Node> =
        (0..NODES).map(|number| Node::start(number, &redis.url(), case.leases)).collect::<Result<_, _>>()?;
    // Once more, so that the first has heard of the second.
    for node in &nodes {
        node.runtime.block_on(node.state.tend(now(), Instant::now()));
    }
    let second = Duration::from_secs(1);
    let plan = Plan {
        hot: Quota::new(case.limit, second, case.limit)?,
        other: Quota::new(1_000, second, 1_000)?,
        hot_each: hot.then(|| second / u32::try_from(settings.hot_a_second).unwrap_or(u32::MAX)),
        other_each: second / OTHERS_A_SECOND as u32,
        end: WARM + settings.length,
    };
    let before = main.block_on(busy(&redis));
    let start = Instant::now();
    let mut late = plan.drive(&nodes, start);
    let store = (main.block_on(busy(&redis)) - before) / start.elapsed().as_secs_f64();
    // What was handed over shall be answered.
    let deadline = Instant::now() + Duration::from_secs(10);
    while nodes.iter().any(|node| node.under_way.load(Ordering::Acquire) > 0) {
        if Instant::now() > deadline {
            return Err("the nodes do not keep up".into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut seen = gather(&nodes, settings)?;
    (seen.store, seen.late_p99) = (store, percentile(&mut late, 0.99));
    for node in nodes {
        node.runtime.shutdown_background();
    }
    main.block_on(async move { drop(redis) });
    Ok(seen)
}

/// When to ask for what.
struct Plan {
    hot: Quota,
    other: Quota,
    hot_each: Option<Duration>,
    other_each: Duration,
    end: Duration,
}

impl Plan {
    /// Hands over each request when it is due, or as soon as this thread gets there; how late that was, in nanoseconds.
    fn drive(&self, nodes: &[Node], start: Instant) -> Vec<u32> {
        let (mut late, mut dice) = (Vec::new(), 1u64);
        // Not at the same moment, nor always in the same distance.
        let (mut hot_due, mut other_due) = (Duration::ZERO, Duration::from_micros(7));
        let mut hot_node = nodes.iter().cycle();
        let mut other_node = nodes.iter().cycle();
        loop {
            let passed = start.elapsed();
            if passed >= self.end {
                return late;
            }
            while hot_due.min(other_due) <= passed {
                let due = hot_due.min(other_due);
                let counts = due >= WARM;
                if counts {
                    let by = start.elapsed().saturating_sub(due);
                    late.push(u32::try_from(by.as_nanos()).unwrap_or(u32::MAX));
                }
                if hot_due <= other_due {
                    match (self.hot_each, hot_node.next()) {
                        (Some(each), Some(node)) => {
                            node.request(Key(77), self.hot, Kind::Hot, counts);
                            hot_due += each;
                        }
                        _ => hot_due = Duration::MAX,
                    }
                } else if let Some(node) = other_node.next() {
                    dice = dice.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
                    let key = Key(u128::from((dice >> 33) % OTHER_KEYS + 100) << 64 | u128::from(dice % 7));
                    node.request(key, self.other, Kind::Other, counts);
                    other_due +=
                        self.other_each / 2 + self.other_each.mul_f64((dice >> 40) as f64 / (1u64 << 24) as f64);
                }
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}

fn gather(nodes: &[Node], settings: &Settings) -> Result<Seen, Box<dyn Error>> {
    let (mut others, mut hot, mut admitted) = (Vec::new(), Vec::new(), 0);
    for node in nodes {
        others.append(&mut node.others.lock().unwrap_or_else(PoisonError::into_inner));
        hot.append(&mut node.hot.lock().unwrap_or_else(PoisonError::into_inner));
        admitted += node.hot_admitted.load(Ordering::Relaxed);
        if node.alone.load(Ordering::Relaxed) > 0 {
            return Err("Redis did not answer in time: the machine is too busy".into());
        }
    }
    let seconds = settings.length.as_secs_f64();
    Ok(Seen {
        hot_asked: hot.len() as f64 / seconds,
        hot_admitted: admitted as f64 / seconds,
        others_p50: percentile(&mut others, 0.5),
        others_p99: percentile(&mut others, 0.99),
        hot_p99: percentile(&mut hot, 0.99),
        calls: nodes.iter().map(|node| node.state.counts().round_trips).sum::<u64>() as f64
            / (WARM + settings.length).as_secs_f64(),
        store: 0.0,
        late_p99: 0.0,
    })
}

/// Of nanoseconds, in microseconds.
fn percentile(nanos: &mut [u32], part: f64) -> f64 {
    nanos.sort_unstable();
    let place = (nanos.len() as f64 * part) as usize;
    nanos.get(place).copied().map_or(0.0, |nanos| f64::from(nanos) / 1000.0)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.get(values.len().saturating_sub(1) / 2), values.get(values.len() / 2));
    (low.copied().unwrap_or(0.0) + high.copied().unwrap_or(0.0)) / 2.0
}

fn head(settings: &Settings) {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu =
        info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("?", |(_, name)| name);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!(
        "{cores} cores of {cpu}; {NODES} nodes with one thread each, their Redis and the generator on this machine; \
         {OTHERS_A_SECOND}/s of {OTHER_KEYS} other keys, {}/s of the hot one; {} s, median of {} rounds\n",
        settings.hot_a_second,
        settings.length.as_secs(),
        settings.rounds
    );
    println!(
        "| hot key | others' p50 µs, without and with | others' p99 µs, without and with | ratio of p99 | hot: asked/s, \
         admitted/s | hot p99 µs | calls to Redis/s, without and with | Redis, of a core, without and with | generator late µs, p99 |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|");
}

fn row(case: &Case, rounds: &[(Seen, Seen)]) {
    let without = |figure: fn(&Seen) -> f64| median(rounds.iter().map(|(without, _)| figure(without)));
    let with = |figure: fn(&Seen) -> f64| median(rounds.iter().map(|(_, with)| figure(with)));
    // The ratio of each round, so that what disturbs the machine disturbs both sides of it.
    let ratio = median(rounds.iter().map(|(without, with)| with.others_p99 / without.others_p99));
    let verdict = match (case.leases, ratio <= PROMISED) {
        (true, true) => format!(" (promised ≤ {PROMISED}: holds)"),
        (true, false) => format!(" (promised ≤ {PROMISED}: falls short)"),
        (false, _) => String::new(),
    };
    println!(
        "| {} | {:.0}, {:.0} | {:.0}, {:.0} | {ratio:.2}{verdict} | {:.0}, {:.0} | {:.1} | {:.0}, {:.0} \
         | {:.0} %, {:.0} % | {:.0}, {:.0} |",
        case.name,
        without(|seen| seen.others_p50),
        with(|seen| seen.others_p50),
        without(|seen| seen.others_p99),
        with(|seen| seen.others_p99),
        with(|seen| seen.hot_asked),
        with(|seen| seen.hot_admitted),
        with(|seen| seen.hot_p99),
        without(|seen| seen.calls),
        with(|seen| seen.calls),
        without(|seen| seen.store * 100.0),
        with(|seen| seen.store * 100.0),
        without(|seen| seen.late_p99),
        with(|seen| seen.late_p99),
    );
}

fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Seconds of processor time of the store.
async fn busy(redis: &RedisServer) -> f64 {
    let mut busy = 0.0;
    for field in ["used_cpu_user", "used_cpu_sys"] {
        busy += redis.info(field).await.parse().unwrap_or(0.0);
    }
    busy
}
