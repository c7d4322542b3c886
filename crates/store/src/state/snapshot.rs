//! The counters on disk, so that a restart is no amnesty.
//!
//! One file, whole each time: written beside the old one, synced, and moved over it, so that there is always one
//! complete snapshot, whatever happens in between. All numbers are big-endian.
//!
//! | bytes | content |
//! |---|---|
//! | 8 | `BZLIMITS` |
//! | 4 | format, now 3 |
//! | 4 | zero |
//! | 8 | fingerprint of the secret the keys were made with |
//! | 8 | when it was written, milliseconds since 1970 |
//! | 8 | longest time any quota takes to drain, milliseconds |
//! | 16 each | name of a counter, time at which its bucket is empty |
//! | 32 each | key of a ban record, its refusals, its end and level |
//! | 8 + 8 | number of counters, of ban records |
//! | 32 | HMAC-SHA-256 of everything before |

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bartizan_core::limit::{Key, KeyMaker, KeyedDigest, Tat};
use bartizan_core::time::Millis;

use super::bans::{Bans, Record};
use super::limits::Limits;
use super::table::{Fades as _, Short};

const MAGIC: [u8; 8] = *b"BZLIMITS";
const FORMAT: u32 = 3;
const HEAD: usize = 40;
const COUNTER: usize = 16;
const BAN: usize = 32;
const TAIL: usize = 16 + 32;

/// What a snapshot wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snapshot {
    /// A new file is in place.
    Written {
        /// Its length in bytes.
        bytes: u64,
    },
    /// Nothing was counted since the last one; the file was left alone.
    Unchanged,
}

/// What was found at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Restored {
    /// No snapshot: a first start.
    Nothing,
    /// The counters are back.
    Counters {
        /// How many were still of use.
        keys: usize,
        /// How many did not fit under `max_keys` and are lost; zero unless that setting was lowered.
        dropped: usize,
        /// How long ago they were written; zero after a clock set back.
        age: Duration,
    },
    /// The file could not be used. It was moved to where the path says, and every counter starts empty: see
    /// [`EmbeddedState::assume_spent`](super::EmbeddedState::assume_spent) for the strict alternative.
    SetAside {
        /// Why.
        flaw: Flaw,
        /// Where the file is now.
        moved_to: PathBuf,
    },
}

/// Why a snapshot cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Flaw {
    /// Not a snapshot at all.
    #[error("it is not a snapshot of limits")]
    NotASnapshot,
    /// From another version.
    #[error("it has a format this version does not know")]
    UnknownFormat,
    /// Made under another secret, so its keys mean nothing here.
    #[error("it was made with another installation's secret")]
    Foreign,
    /// Cut short or changed.
    #[error("it is damaged")]
    Damaged,
}

pub(super) fn save(path: &Path, limits: &Limits, bans: &Bans, keys: &KeyMaker, now: Millis) -> io::Result<u64> {
    let beside = with_suffix(path, ".new");
    let written = create(&beside).and_then(|file| {
        let (file, bytes) = write_to(file, limits, bans, keys, now)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        sync_directory(path)?;
        Ok(bytes)
    });
    if written.is_err() {
        // The old snapshot stays what it was. What is left of the new one is in the way of the next try at most.
        let _ = fs::remove_file(&beside);
    }
    written
}

/// Writes a whole snapshot to `to`; gives it back with the number of bytes written.
pub(super) fn write_to<W: Write>(
    to: W,
    limits: &Limits,
    bans: &Bans,
    keys: &KeyMaker,
    now: Millis,
) -> io::Result<(W, u64)> {
    let mut sink = Sealing { to: io::BufWriter::with_capacity(1 << 16, to), digest: keys.digest(), bytes: 0 };
    sink.put(&MAGIC)?;
    sink.put(&FORMAT.to_be_bytes())?;
    sink.put(&[0; 4])?;
    sink.put(&keys.fingerprint())?;
    sink.put(&now.0.to_be_bytes())?;
    let longest = u64::try_from(limits.longest().as_millis()).unwrap_or(u64::MAX);
    sink.put(&longest.to_be_bytes())?;
    let (mut counters, mut records) = (0u64, 0u64);
    // One shard at a time, copied out under its lock and written without it.
    let mut copy: Vec<u8> = Vec::new();
    for shard in 0..limits.shards.shard_count() {
        copy.clear();
        if let Some(shard) = limits.shards.read(shard) {
            for (name, tat) in shard.0.live(now) {
                copy.extend_from_slice(&u64::from(name).to_be_bytes());
                copy.extend_from_slice(&tat.map_or(0, Tat::to_bits).to_be_bytes());
                counters += 1;
            }
        }
        sink.put(&copy)?;
    }
    for shard in 0..bans.records.shard_count() {
        copy.clear();
        if let Some(shard) = bans.records.read(shard) {
            for (name, record) in shard.0.live(now) {
                let (denials, packed) = record.parts();
                copy.extend_from_slice(&u128::from(name).to_be_bytes());
                copy.extend_from_slice(&denials.to_be_bytes());
                copy.extend_from_slice(&packed.to_be_bytes());
                records += 1;
            }
        }
        sink.put(&copy)?;
    }
    sink.put(&counters.to_be_bytes())?;
    sink.put(&records.to_be_bytes())?;
    sink.seal()
}

/// Writes and digests at once.
struct Sealing<W: Write> {
    to: io::BufWriter<W>,
    digest: KeyedDigest,
    bytes: u64,
}

impl<W: Write> Sealing<W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        self.to.write_all(bytes)
    }

    fn seal(mut self) -> io::Result<(W, u64)> {
        self.to.write_all(&self.digest.finish())?;
        let to = self.to.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok((to, self.bytes + 32))
    }
}

pub(super) fn load(path: &Path, limits: &Limits, bans: &Bans, keys: &KeyMaker, now: Millis) -> io::Result<Restored> {
    match Kept::open(path, keys, now)? {
        Found::Nothing => Ok(Restored::Nothing),
        Found::Flawed(flaw) => {
            let moved_to = with_suffix(path, &format!(".corrupt-{}", now.0));
            fs::rename(path, &moved_to)?;
            Ok(Restored::SetAside { flaw, moved_to })
        }
        Found::Whole(kept) => restore(&kept, limits, bans),
    }
}

/// What a look at the file found.
#[derive(Debug)]
pub enum Found {
    /// No file: nothing was ever counted.
    Nothing,
    /// A file that cannot be used; it is left where it is.
    Flawed(Flaw),
    /// A snapshot whose seal is right.
    Whole(Kept),
}

/// A whole snapshot, read as often as wanted, one reading after another. What takes its place on the disk meanwhile
/// changes nothing here.
#[derive(Debug)]
pub struct Kept {
    file: File,
    checked: Checked,
    now: Millis,
}

/// One of its entries that still says something, by the clock that reads it.
pub(crate) enum Entry {
    Counter(Short, Tat),
    Ban(Key, Record),
}

impl Kept {
    /// Looks at the file at `path`, by the keys it should have been made with.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub fn open(path: &Path, keys: &KeyMaker, now: Millis) -> io::Result<Found> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => return Err(error),
        };
        // Read twice rather than held in memory: nothing is believed before the seal is checked.
        Ok(match check(&file, keys)? {
            Ok(checked) => Found::Whole(Self { file, checked, now }),
            Err(flaw) => Found::Flawed(flaw),
        })
    }

    /// How long ago it was written; zero after a clock set back.
    pub fn age(&self) -> Duration {
        self.now.since(self.checked.written)
    }

    /// How many entries it has, with those that are over by now.
    pub(crate) fn len(&self) -> u64 {
        self.checked.counters + self.checked.records
    }

    pub(crate) fn entries(&self) -> io::Result<Entries<'_>> {
        let mut file = &self.file;
        io::Seek::seek(&mut file, io::SeekFrom::Start(HEAD as u64))?;
        let Checked { longest, counters, records, .. } = self.checked;
        // After a clock set back what was left to wait is kept, rather than the moment.
        let back = self.checked.written.since(self.now);
        let numbers = Plain(BufReader::with_capacity(1 << 16, file));
        Ok(Entries { numbers, counters, records, back, latest: self.now + longest, now: self.now })
    }
}

/// See [`Kept::entries`].
pub(crate) struct Entries<'a> {
    numbers: Plain<BufReader<&'a File>>,
    counters: u64,
    records: u64,
    back: Duration,
    latest: Millis,
    now: Millis,
}

impl Iterator for Entries<'_> {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

impl Entries<'_> {
    fn step(&mut self) -> io::Result<Option<Entry>> {
        while self.counters > 0 {
            self.counters -= 1;
            let (name, tat) = (self.numbers.number()?, Tat::from_bits(self.numbers.number()?));
            let tat = tat.and_then(|tat| tat.earlier(self.back)).and_then(|tat| tat.at_most(self.latest));
            if let Some(tat) = tat.filter(|tat| tat.empty_at() > self.now) {
                return Ok(Some(Entry::Counter(name.into(), tat)));
            }
        }
        while self.records > 0 {
            self.records -= 1;
            let (key, denials, packed) = (Key(self.numbers.key()?), self.numbers.number()?, self.numbers.number()?);
            let record = Record::from_parts(Tat::from_bits(denials), packed).earlier(self.back).mended(self.now);
            if record.live(self.now) {
                return Ok(Some(Entry::Ban(key, record)));
            }
        }
        Ok(None)
    }
}

#[derive(Debug)]
struct Checked {
    written: Millis,
    longest: Duration,
    counters: u64,
    records: u64,
}

fn check(mut file: &File, keys: &KeyMaker) -> io::Result<Result<Checked, Flaw>> {
    let length = file.metadata()?.len();
    let mut reader = BufReader::with_capacity(1 << 16, &mut file);
    if length < (HEAD + TAIL) as u64 {
        let mut start = Vec::new();
        reader.take(MAGIC.len() as u64).read_to_end(&mut start)?;
        let ours = !start.is_empty() && MAGIC.starts_with(&start);
        return Ok(Err(if ours { Flaw::Damaged } else { Flaw::NotASnapshot }));
    }
    let mut digest = keys.digest();
    let mut head = Numbers(&mut reader, &mut digest);
    let (magic, format, fingerprint) = (head.bytes()?, head.bytes::<4>()?, (head.bytes::<4>()?, head.bytes()?).1);
    if magic != MAGIC {
        return Ok(Err(Flaw::NotASnapshot));
    }
    if u32::from_be_bytes(format) != FORMAT {
        return Ok(Err(Flaw::UnknownFormat));
    }
    if fingerprint != keys.fingerprint() {
        return Ok(Err(Flaw::Foreign));
    }
    let (written, longest) = (Millis(head.number()?.cast_signed()), Duration::from_millis(head.number()?));
    let mut left = length - (HEAD + TAIL) as u64;
    let mut piece = [0u8; 1 << 13];
    while left > 0 {
        let wanted = usize::try_from(left).unwrap_or(piece.len()).min(piece.len());
        let Some(piece) = piece.get_mut(..wanted) else { break };
        reader.read_exact(piece)?;
        digest.update(piece);
        left -= wanted as u64;
    }
    let mut tail = Numbers(&mut reader, &mut digest);
    let (counters, records) = (tail.number()?, tail.number()?);
    let mut seal = [0; 32];
    reader.read_exact(&mut seal)?;
    let expected = u128::from(counters) * COUNTER as u128 + u128::from(records) * BAN as u128;
    // A checksum rather than a defence: whoever can write here owns the server. So no constant time is needed.
    if seal != digest.finish() || u128::from(length) != expected + (HEAD + TAIL) as u128 {
        return Ok(Err(Flaw::Damaged));
    }
    Ok(Ok(Checked { written, longest, counters, records }))
}

fn restore(kept: &Kept, limits: &Limits, bans: &Bans) -> io::Result<Restored> {
    limits.remember_longest(kept.checked.longest);
    let (mut keys, mut dropped) = (0, 0);
    for entry in kept.entries()? {
        match entry? {
            Entry::Counter(name, tat) if limits.restore(name, tat, kept.now) => keys += 1,
            Entry::Counter(..) => dropped += 1,
            Entry::Ban(key, record) => bans.restore(key, record, kept.now),
        }
    }
    Ok(Restored::Counters { keys, dropped, age: kept.age() })
}

/// Reads fixed-size pieces and digests them.
struct Numbers<'a, R>(&'a mut R, &'a mut KeyedDigest);

impl<R: Read> Numbers<'_, R> {
    fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes)?;
        self.1.update(&bytes);
        Ok(bytes)
    }

    fn number(&mut self) -> io::Result<u64> {
        self.bytes().map(u64::from_be_bytes)
    }
}

/// Reads fixed-size pieces that were checked before.
struct Plain<R>(R);

impl<R: Read> Plain<R> {
    fn number(&mut self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.0.read_exact(&mut bytes)?;
        Ok(u64::from_be_bytes(bytes))
    }

    fn key(&mut self) -> io::Result<u128> {
        let mut bytes = [0; 16];
        self.0.read_exact(&mut bytes)?;
        Ok(u128::from_be_bytes(bytes))
    }
}

/// A new file that only we may read. Whatever a crash left there is removed first, so nothing is written through a link.
fn create(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Makes the move itself durable. Only Unix lets a directory be synced.
fn sync_directory(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
