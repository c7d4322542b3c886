//! What one machine counted, taken along into the shared store.
//!
//! Of what is there and what comes the stricter stays, key by key, in one step of the store each. So it may be cut short
//! and done again, done twice, and done into a store on which nodes already serve: nobody is admitted sooner by it than
//! either side alone would admit him.
//!
//! Moments in a snapshot are by the clock of the machine that wrote it, those in the store by the store's. They are moved
//! by the difference of the two, so that what was left to wait is what is left to wait. Clocks that agree to within the
//! round trip in which they were compared are taken for equal; otherwise the difference is rounded up to tenths of a second,
//! so that nobody waits shorter.

use std::io;
use std::time::Duration;

use bartizan_core::limit::{Key, KeyMaker, Tat};
use bartizan_core::time::Millis;
use futures_util::future::try_join_all;

use super::link::{Link, ServerInfo, Unavailable};
use super::names::{Names, NoNames};
use super::scripts::{self, Doubles};
use crate::db::{Progress, Stage};
use crate::state::{self, Entry, Kept, Record};

/// Entries on their way at once.
const BATCH: usize = 512;
/// Entries of one call, where they need not be in one slot: the store does nothing else meanwhile.
const AT_ONCE: usize = 64;
/// To what the difference of two clocks is rounded up, so that measuring it again gives the same.
const ROUNDED: i64 = 100;
/// A difference measured within such a round trip is good enough.
const CLOSE: Duration = Duration::from_millis(5);
/// How often it is measured at most.
const MEASURED: usize = 10;

/// What is to be taken along.
#[derive(Debug)]
pub struct Load<'a> {
    /// Counters and bans, as memory kept them.
    pub snapshot: Option<&'a Kept>,
    /// Counters of failed logins, as the database kept them.
    pub failures: &'a [(Key, Tat)],
}

/// What is there now, counted by looking at all of it again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Counters that are not over yet.
    pub counters: u64,
    /// Ban records that are not over yet.
    pub bans: u64,
    /// How many of both this run had to write: those that were not there already, or were there less strict.
    pub written: u64,
}

/// Why not all of it is there.
#[derive(Debug, thiserror::Error)]
pub enum CarryError {
    /// The store did not answer, or cannot take it.
    #[error(transparent)]
    Store(#[from] Unavailable),
    /// The snapshot cannot be read.
    #[error("the snapshot cannot be read: {0}")]
    File(#[from] io::Error),
    /// What was written was not there afterwards.
    #[error("{missing} of {all} counters and bans are not in the store as they were written")]
    Missing {
        /// How many.
        missing: u64,
        /// Of how many.
        all: u64,
    },
    /// This process has no AES.
    #[error(transparent)]
    Names(#[from] NoNames),
}

/// Takes `load` along into the store behind `link`, under the names that nodes with `keys` and `prefix` use, and looks
/// whether all of it is there. Every entry is sent once and read once, `BATCH` at a time.
///
/// # Errors
/// [`CarryError`]. What is there stays; doing it again goes over all of it again and changes only what is missing.
pub async fn carry(
    link: &Link,
    keys: &KeyMaker,
    prefix: &str,
    load: &Load<'_>,
    mut progress: impl FnMut(Progress),
) -> Result<Carried, CarryError> {
    let carrier = Carrier { link, names: Names::new(prefix, keys)?, later: difference(link).await? };
    let rows = load.len();
    let mut carried = Carried::default();
    for (nth, stage) in [(0, Stage::Copying), (1, Stage::Comparing)] {
        let mut tell = |done| {
            progress(Progress { stage, table: "limits", done, rows, steps: nth * rows + done, all: 2 * rows });
        };
        let (mut done, mut missing) = (0, 0);
        let mut entries = load.entries()?;
        loop {
            let batch = carrier.batch(&mut entries)?;
            let many = batch.len();
            if many == 0 {
                break;
            }
            if stage == Stage::Copying {
                carried.counters += batch.buckets.len() as u64;
                carried.bans += batch.records.len() as u64;
                carried.written += carrier.write(&batch).await?;
            } else {
                missing += carrier.missing(&batch).await?;
            }
            done += many as u64;
            tell(done.min(rows));
        }
        tell(rows);
        if missing > 0 {
            return Err(CarryError::Missing { missing, all: carried.counters + carried.bans });
        }
    }
    Ok(carried)
}

impl Load<'_> {
    fn len(&self) -> u64 {
        self.failures.len() as u64 + self.snapshot.map_or(0, Kept::len)
    }

    fn entries(&self) -> io::Result<impl Iterator<Item = io::Result<Entry>>> {
        let failures = self.failures.iter().map(|(key, tat)| Ok(Entry::Counter(state::name(*key), *tat)));
        let kept = self.snapshot.map(Kept::entries).transpose()?;
        Ok(failures.chain(kept.into_iter().flatten()))
    }
}

/// By how much a moment of this machine must be moved to be one of the store's, in milliseconds. Where there are several
/// servers, the one that is most ahead counts.
async fn difference(link: &Link) -> Result<i64, Unavailable> {
    let mut best: Vec<ServerInfo> = Vec::new();
    for _ in 0..MEASURED {
        let servers = link.survey().await?;
        for server in servers {
            match best.iter_mut().find(|known| known.server == server.server) {
                Some(known) if server.round_trip < known.round_trip => *known = server,
                Some(_) => {}
                None => best.push(server),
            }
        }
        if best.iter().all(|server| server.round_trip < CLOSE) {
            break;
        }
    }
    let of = |server: &ServerInfo| shift(server.clock_difference_ms, server.round_trip);
    Ok(best.iter().map(of).max().unwrap_or(0))
}

/// The same for a difference measured so. Clocks that may be equal are equal: then the same moments are written each time.
fn shift(measured: i64, round_trip: Duration) -> i64 {
    let half = i64::try_from(round_trip.as_micros().div_ceil(2_000)).unwrap_or(i64::MAX / 4) + 1;
    let (least, most) = (measured.saturating_sub(half), measured.saturating_add(half));
    if least <= 0 && most >= 0 {
        return 0;
    }
    most.div_euclid(ROUNDED) * ROUNDED + if most.rem_euclid(ROUNDED) > 0 { ROUNDED } else { 0 }
}

struct Carrier<'a> {
    link: &'a Link,
    names: Names,
    /// What is added to each moment.
    later: i64,
}

/// Some entries under the names of the store, by its clock.
#[derive(Default)]
struct Batch {
    buckets: Vec<(String, Moment)>,
    records: Vec<(String, Ban)>,
}

impl Batch {
    fn len(&self) -> usize {
        self.buckets.len() + self.records.len()
    }
}

/// A bucket's: milliseconds and ticks.
type Moment = (u64, u64);

struct Ban {
    until: u64,
    rank: u64,
    denials: Option<Moment>,
}

impl Carrier<'_> {
    fn batch(&self, entries: &mut impl Iterator<Item = io::Result<Entry>>) -> io::Result<Batch> {
        let mut batch = Batch::default();
        for entry in entries.take(BATCH) {
            match entry? {
                Entry::Counter(name, tat) => {
                    batch.buckets.push((self.names.bucket_named(name.into()), self.moment(tat)));
                }
                Entry::Ban(who, record) => batch.records.push((self.names.ban(who), self.ban(&record))),
            }
        }
        Ok(batch)
    }

    fn moment(&self, tat: Tat) -> Moment {
        let (ms, part) = scripts::parts(tat);
        (ms.saturating_add_signed(self.later), part)
    }

    fn ban(&self, record: &Record) -> Ban {
        Ban {
            until: record.until().0.max(0).unsigned_abs().saturating_add_signed(self.later),
            rank: record.level(),
            denials: record.denials().map(|tat| self.moment(tat)),
        }
    }

    /// How many keys one call may name.
    fn most(&self) -> usize {
        if self.link.is_cluster() { 1 } else { AT_ONCE }
    }

    /// Says how many had to be written.
    async fn write(&self, batch: &Batch) -> Result<u64, Unavailable> {
        let buckets = batch.buckets.chunks(self.most()).map(async |some| {
            let mut numbers = Doubles::default();
            for (_, (ms, part)) in some {
                numbers.push(&[*ms, *part]);
            }
            let answer = self.link.eval(&scripts::CARRY, &names(some), &[numbers.finish()]).await?;
            scripts::counted(&answer)
        });
        let records = batch.records.chunks(self.most()).map(async |some| {
            let mut numbers = Doubles::default();
            for (_, ban) in some {
                let (ms, part) = ban.denials.unwrap_or_default();
                numbers.push(&[ban.until, ban.rank, ms, part]);
            }
            let answer = self.link.eval(&scripts::CARRY_BANS, &names(some), &[numbers.finish()]).await?;
            scripts::counted(&answer)
        });
        let (buckets, records) = tokio::try_join!(try_join_all(buckets), try_join_all(records))?;
        Ok(buckets.into_iter().chain(records).sum())
    }

    /// Says how many are not there, or less strict than they were written, though they are not over.
    async fn missing(&self, batch: &Batch) -> Result<u64, Unavailable> {
        let buckets = batch.buckets.chunks(self.most()).map(async |some| {
            let (now, held) = self.look(&names(some)).await?;
            let mut missing = 0;
            for ((_, wanted), held) in some.iter().zip(&held) {
                let there = scripts::tat(held)?.is_some_and(|held| scripts::parts(held) >= *wanted);
                missing += u64::from(!there && !is_over(wanted.0, now));
            }
            Ok::<_, Unavailable>(missing)
        });
        let records = batch.records.chunks(self.most()).map(async |some| {
            let (now, held) = self.look(&names(some)).await?;
            let mut missing = 0;
            for ((_, wanted), held) in some.iter().zip(&held) {
                missing += u64::from(!wanted.is_there(scripts::record(held)?, now));
            }
            Ok::<_, Unavailable>(missing)
        });
        let (buckets, records) = tokio::try_join!(try_join_all(buckets), try_join_all(records))?;
        Ok(buckets.into_iter().chain(records).sum())
    }

    async fn look(&self, names: &[&str]) -> Result<(Millis, Vec<redis::Value>), Unavailable> {
        let no: &[Vec<u8>] = &[];
        let answer = self.link.eval(&scripts::LOOK, names, no).await?;
        scripts::looked(answer, names.len())
    }
}

fn names<T>(some: &[(String, T)]) -> Vec<&str> {
    some.iter().map(|(name, _)| name.as_str()).collect()
}

/// A key's end may have come a millisecond after the moment it holds.
fn is_over(ms: u64, now: Millis) -> bool {
    ms <= now.0.max(0).unsigned_abs() + 1
}

impl Ban {
    /// Whether what is held is as strict as this. A later ban has taken the refusals that led to it away.
    fn is_there(&self, held: Option<(Millis, u64, Option<Tat>)>, now: Millis) -> bool {
        const HOUR: u64 = 3_600_000;
        let Some((until, rank, denials)) = held else {
            let forgotten = self.denials.is_none_or(|(ms, _)| is_over(ms, now));
            return forgotten && is_over(self.until + self.rank * HOUR, now);
        };
        let until = until.0.max(0).unsigned_abs();
        let denials = denials.map(scripts::parts) >= self.denials || self.denials.is_some_and(|d| is_over(d.0, now));
        until > self.until || until == self.until && rank >= self.rank && denials
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_may_be_equal_are_and_others_never_shorten_a_wait() {
        let trip = |millis| Duration::from_millis(millis);
        assert_eq!([shift(0, trip(0)), shift(1, trip(1)), shift(-2, trip(2))], [0; 3]);
        assert_eq!([shift(4, trip(2)), shift(99, trip(2)), shift(300_000, trip(3))], [100, 200, 300_100]);
        assert_eq!([shift(-4, trip(2)), shift(-150, trip(2)), shift(-300_000, trip(3))], [0, -100, -299_900]);
        for measured in [-1_000, -101, -3, 0, 3, 99, 100, 1_000] {
            assert!(shift(measured, trip(4)) >= measured - 3, "{measured}");
        }
    }

    #[test]
    fn a_record_is_there_when_what_is_held_is_as_strict() {
        let now = Millis(1_000_000);
        let tat = |ms: u64| Tat::from_bits(ms << 20);
        let ban = Ban { until: 1_060_000, rank: 2, denials: Some((1_300_000, 0)) };
        let held = |until, rank, ms| Some((Millis(until), rank, tat(ms)));
        assert!(ban.is_there(held(1_060_000, 2, 1_300_000), now));
        assert!(ban.is_there(Some((Millis(1_060_001), 3, None)), now));
        assert!(!ban.is_there(held(1_059_999, 2, 1_300_000), now));
        assert!(!ban.is_there(held(1_060_000, 1, 1_300_000), now));
        assert!(!ban.is_there(held(1_060_000, 2, 1_299_999), now));
        assert!(!ban.is_there(None, now));
        assert!(ban.is_there(None, Millis(1_060_000 + 2 * 3_600_000)));
    }
}
