//! One library, one schedule, one run.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bartizan_testkit::RedisServer;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::excess::{Admission, Excess, find};
use crate::library::{About, Asker, Kind, Library, NODES};

/// Tasks that ask, over all nodes.
pub const TASKS: usize = 64;
/// In which a limit is given: limitador knows whole seconds only.
pub const WINDOW: Duration = Duration::from_secs(1);

/// What is asked.
pub struct Schedule {
    pub name: &'static str,
    pub what: &'static str,
    pub keys: usize,
    pub order: Order,
    pub about: About,
    /// Of each key in a window; above what can be asked, all is admitted and nothing needs counting.
    pub limit: u32,
}

/// Which key is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Each as often as the others.
    Even,
    /// The nth a nth as often as the first, about: as users are.
    Skewed,
}

impl Order {
    /// A key of so many, by a number below one that was thrown.
    fn key(self, keys: usize, thrown: f64) -> usize {
        let place = match self {
            Self::Even => thrown * keys as f64,
            Self::Skewed => (keys as f64 + 1.0).powf(thrown) - 1.0,
        };
        (place as usize).min(keys - 1)
    }
}

impl Schedule {
    /// Whether more is asked than admitted.
    pub fn refuses(&self) -> bool {
        self.limit < 1_000_000
    }
}

/// What came of it.
pub struct Outcome {
    /// Decisions a second.
    pub rate: f64,
    /// Admitted in all, a second.
    pub admitted: f64,
    /// Of a decision, in microseconds.
    pub p50: f64,
    pub p99: f64,
    /// Processor time of the nodes and of Redis, in microseconds a decision.
    pub nodes: f64,
    pub store: f64,
    pub excess: Excess,
}

/// What one task has seen.
#[derive(Default)]
struct Seen {
    nanos: Vec<u32>,
    admitted: u64,
    admissions: Vec<Admission>,
}

/// A Redis and a runtime of its own, so that nothing of one run is left in the next.
pub fn run(schedule: &Schedule, kind: Kind, length: Duration) -> Result<Outcome, Box<dyn Error>> {
    let runtime = Runtime::new()?;
    let outcome = runtime.block_on(measure(schedule, kind, length));
    runtime.shutdown_background();
    outcome
}

async fn measure(schedule: &Schedule, kind: Kind, length: Duration) -> Result<Outcome, Box<dyn Error>> {
    let redis = RedisServer::start().await;
    let library = Arc::new(Library::start(kind, &redis.url(), schedule.limit, schedule.about).await?);
    let askers: Arc<[Asker]> = (0..schedule.keys).map(Asker::numbered).collect();
    let (before, before_here) = (busy(&redis).await, busy_here());
    let (start, mut tasks) = (Instant::now(), JoinSet::new());
    for task in 0..TASKS {
        let asking =
            Asking { library: library.clone(), askers: askers.clone(), order: schedule.order, task, start, length };
        tasks.spawn(asking.run(schedule.refuses()));
    }
    let mut all = Seen::default();
    while let Some(seen) = tasks.join_next().await {
        let seen = seen?.map_err(|error| format!("{kind:?}: {error}"))?;
        all.nanos.extend(seen.nanos);
        all.admissions.extend(seen.admissions);
        all.admitted += seen.admitted;
    }
    let took = start.elapsed().as_secs_f64();
    let nodes = (busy_here() - before_here) * 1e6 / all.nanos.len() as f64;
    let store = (busy(&redis).await - before) * 1e6 / all.nanos.len() as f64;
    all.nanos.sort_unstable();
    let at = |part: f64| {
        let place = (all.nanos.len() as f64 * part) as usize;
        all.nanos.get(place).copied().map_or(0.0, |nanos| f64::from(nanos) / 1000.0)
    };
    Ok(Outcome {
        rate: all.nanos.len() as f64 / took,
        admitted: all.admitted as f64 / took,
        p50: at(0.5),
        p99: at(0.99),
        nodes,
        store,
        excess: find(&all.admissions, schedule.keys, schedule.limit),
    })
}

/// One task.
struct Asking {
    library: Arc<Library>,
    askers: Arc<[Asker]>,
    order: Order,
    task: usize,
    start: Instant,
    length: Duration,
}

impl Asking {
    /// Asks one question after the other, of keys in an order that depends on nothing but the task's number.
    async fn run(self, keep: bool) -> Result<Seen, String> {
        let (mut seen, mut dice) = (Seen::default(), self.task as u64 + 1);
        let since = |at: Instant| at.duration_since(self.start).as_nanos() as u64;
        loop {
            dice = dice.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            let key = self.order.key(self.askers.len(), (dice >> 32) as f64 / (1u64 << 32) as f64);
            let asked = Instant::now();
            let admitted = self.library.admits(self.task % NODES, &self.askers[key]).await?;
            let answered = Instant::now();
            seen.nanos.push(u32::try_from((answered - asked).as_nanos()).unwrap_or(u32::MAX));
            if admitted {
                seen.admitted += 1;
                if keep {
                    seen.admissions.push(Admission { key, asked: since(asked), answered: since(answered) });
                }
            }
            if answered - self.start > self.length {
                return Ok(seen);
            }
            // As between two requests of a server: what waits for Redis gets its turn.
            tokio::task::yield_now().await;
        }
    }
}

/// Seconds of processor time of the store.
async fn busy(redis: &RedisServer) -> f64 {
    let mut busy = 0.0;
    for field in ["used_cpu_user", "used_cpu_sys"] {
        busy += redis.info(field).await.parse().unwrap_or(0.0);
    }
    busy
}

/// Seconds of processor time of this process, in hundredths.
fn busy_here() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // What comes after the name in brackets, from the third field on: 14 and 15 are ticks of both kinds.
    let ticks = stat.rsplit_once(") ").map_or("", |(_, fields)| fields).split(' ').skip(11).take(2);
    ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}
