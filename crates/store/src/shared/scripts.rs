//! The scripts, what they are given and what they answer.
//!
//! Numbers travel as doubles in one argument: parsing one argument costs the store less than parsing twenty, and a
//! double holds every number here exactly (see [`Ticks`]).

use bartizan_core::limit::{Quota, Tat, Ticks};
use bartizan_core::store_life::StoreLife;
use bartizan_core::time::Millis;
use redis::Value;

use super::Sequence;
use super::batch::Call;
use super::link::{Script, Unavailable};
use crate::state::BanPolicy;

macro_rules! script {
    ($(#[$doc:meta])* $constant:ident, $name:literal, $($file:literal),+) => {
        $(#[$doc])*
        pub(super) static $constant: Script =
            Script::new($name, concat!($(include_str!(concat!("scripts/", $file, ".lua"))),+));
    };
}

script!(
    /// Bans and limits in one step.
    TAKE, "take", "gcra", "bans", "life", "take"
);
script!(
    /// Gives back.
    REFUND, "refund", "gcra", "refund"
);
script!(
    /// Charges without asking.
    REPLAY, "replay", "gcra", "replay"
);
script!(
    /// Counts refusals towards a ban.
    REFUSE, "refuse", "gcra", "bans", "refuse"
);
script!(
    /// Bans by hand.
    BAN, "ban", "gcra", "ban"
);
script!(
    /// Ends a ban.
    PARDON, "pardon", "pardon"
);
script!(
    /// Looks at a bucket.
    PEEK, "peek", "peek"
);
script!(
    /// Takes buckets over.
    CARRY, "carry", "later", "carry"
);
script!(
    /// Takes ban records over.
    CARRY_BANS, "carry bans", "later", "carry_bans"
);
script!(
    /// Looks at buckets and ban records.
    LOOK, "look", "look"
);
script!(
    /// Raises the revocation sequence.
    RAISE, "raise", "oom", "life", "raise"
);
script!(
    /// Tells the revocation sequence.
    SEQUENCE, "sequence", "oom", "life", "sequence"
);
script!(
    /// Says that this node lives.
    HEARTBEAT, "heartbeat", "heartbeat"
);

/// Doubles in one argument.
#[derive(Default)]
pub(super) struct Doubles(Vec<u8>);

impl Doubles {
    /// Adds whole numbers below 2^53.
    pub(super) fn push(&mut self, numbers: &[u64]) -> &mut Self {
        for number in numbers {
            self.0.extend_from_slice(&(*number as f64).to_le_bytes());
        }
        self
    }

    /// Adds a ban policy; no bans are four zeros.
    pub(super) fn push_bans(&mut self, policy: Option<&BanPolicy>) -> &mut Self {
        match policy.and_then(BanPolicy::ticks) {
            Some((ticks, first)) => self.push(&[u64::from(ticks.drain), ticks.unit, ticks.capacity, millis(first)]),
            None => self.push(&[0; 4]),
        }
    }

    /// Adds numbers that were made before.
    pub(super) fn extend(&mut self, numbers: &[u8]) {
        self.0.extend_from_slice(numbers);
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }
}

fn millis(length: std::time::Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

/// What one limit adds to the argument of [`TAKE`]: at least `least` units, up to `most`, for the group at place `group`
/// (from 1; 0 for none).
pub(super) fn push_limit(to: &mut Doubles, quota: &Quota, least: u32, most: u32, group: usize) {
    let Ticks { drain, unit, capacity } = quota.ticks();
    let ticks = |units: u32| u64::from(units) * unit;
    to.push(&[u64::from(drain), unit, capacity, ticks(least), ticks(most.min(quota.burst())), group as u64]);
}

/// Milliseconds and ticks of a moment.
pub(super) fn parts(tat: Tat) -> (u64, u64) {
    (tat.to_bits() >> 20, tat.to_bits() & 0xf_ffff)
}

/// What [`TAKE`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Taken,
    Over,
    /// `who` is the place of a group of the call, from zero.
    Banned {
        until: Millis,
        who: usize,
    },
    BanBegan {
        until: Millis,
        who: usize,
    },
}

/// What one request is told.
#[derive(Debug)]
pub(super) struct Taken {
    /// What each bucket held before.
    pub(super) before: Vec<Option<Tat>>,
    pub(super) sequence: Option<Sequence>,
    /// The store's moment; zero when only the sequence was asked for.
    pub(super) now: Millis,
    pub(super) said: Said,
}

/// Reads the answer of [`TAKE`] for these calls.
pub(super) fn taken(answer: Value, calls: &[Call]) -> Result<Vec<Taken>, Unavailable> {
    let Value::Array(values) = answer else { return Err(foreign("not a list")) };
    let mut values = values.into_iter();
    let mut next = || values.next().ok_or_else(|| foreign("a list of another length"));
    let now = moment(&next()?)?;
    let mut all = Vec::with_capacity(calls.len());
    for call in calls {
        let before = (0..call.limits).map(|_| tat(&next()?)).collect::<Result<Vec<_>, _>>()?;
        for _ in 0..call.groups {
            next()?;
        }
        let (code, until, who) = (number(&next()?)?, moment(&next()?)?, number(&next()?)?);
        let who = usize::try_from(who.saturating_sub(1)).unwrap_or(usize::MAX);
        let said = match code {
            0 => Said::Taken,
            1 => Said::Over,
            2 => Said::Banned { until, who },
            3 => Said::BanBegan { until, who },
            _ => return Err(foreign("an unknown verdict")),
        };
        all.push(Taken { before, sequence: None, now, said });
    }
    if calls.iter().any(|call| call.sequence) {
        let told = sequence(&next()?)?;
        for (taken, _) in all.iter_mut().zip(calls).filter(|(_, call)| call.sequence) {
            taken.sequence = told;
        }
    }
    if values.next().is_some() { Err(foreign("a list of another length")) } else { Ok(all) }
}

/// Reads the answer of [`SEQUENCE`] for so many who asked.
pub(super) fn read(answer: &Value, many: usize) -> Result<Vec<Taken>, Unavailable> {
    let sequence = sequence(answer)?;
    let told = || Taken { before: Vec::new(), sequence, now: Millis(0), said: Said::Taken };
    Ok((0..many).map(|_| told()).collect())
}

/// A bucket's text.
pub(super) fn tat(value: &Value) -> Result<Option<Tat>, Unavailable> {
    let Some(text) = text(value)? else { return Ok(None) };
    let (ms, part) = text.split_once(':').unwrap_or((text, "0"));
    let parse = |digits: &str| digits.parse::<u64>().map_err(|_| foreign("a bucket that is no moment"));
    let (ms, part) = (parse(ms)?, parse(part)?);
    if ms >> 44 != 0 || part >> 20 != 0 {
        return Err(foreign("a bucket out of range"));
    }
    Ok(Tat::from_bits(ms << 20 | part))
}

/// A ban record's text: its end, its rank, and the bucket of the refusals not forgotten yet.
pub(super) fn record(value: &Value) -> Result<Option<(Millis, u64, Option<Tat>)>, Unavailable> {
    let Some(record) = text(value)? else { return Ok(None) };
    let mut words = record.splitn(3, ' ');
    let mut next = || words.next().ok_or_else(|| foreign("a ban record that is none"));
    let parse = |digits: &str| digits.parse::<u64>().map_err(|_| foreign("a ban record that is none"));
    let (until, rank) = (parse(next()?)?, parse(next()?)?);
    let denials = match next()? {
        "-" => None,
        bucket => tat(&Value::BulkString(bucket.as_bytes().to_vec()))?,
    };
    Ok(Some((Millis(i64::try_from(until).unwrap_or(i64::MAX)), rank, denials)))
}

/// Reads the answer of [`LOOK`]: the store's moment, and what is there.
pub(super) fn looked(answer: Value, many: usize) -> Result<(Millis, Vec<Value>), Unavailable> {
    match answer {
        Value::Array(mut values) if values.len() == many + 1 => {
            let held = values.split_off(1);
            let now = values.first().map(moment).transpose()?.unwrap_or(Millis(0));
            Ok((now, held))
        }
        _ => Err(foreign("a list of another length")),
    }
}

/// A count.
pub(super) fn counted(answer: &Value) -> Result<u64, Unavailable> {
    number(answer).map(|number| u64::try_from(number).unwrap_or(0))
}

/// The sequence's text: `<process> <birth> <number>`.
pub(super) fn sequence(value: &Value) -> Result<Option<Sequence>, Unavailable> {
    let Some(text) = text(value)? else { return Ok(None) };
    let parsed = || {
        let (digits, rest) = text.split_once(' ')?;
        let (birth, number) = rest.split_once(' ')?;
        let mut process = [0; 20];
        hex::decode_to_slice(digits, &mut process).ok()?;
        let life = StoreLife { process, birth: birth.parse().ok()? };
        Some(Sequence { number: number.parse().ok()?, life })
    };
    parsed().map(Some).ok_or_else(|| foreign("a sequence that is no number"))
}

/// Two numbers in a list.
pub(super) fn pair(answer: &Value) -> Result<(i64, i64), Unavailable> {
    match answer {
        Value::Array(values) => match values.as_slice() {
            [first, second] => Ok((number(first)?, number(second)?)),
            _ => Err(foreign("a list of another length")),
        },
        _ => Err(foreign("not a list")),
    }
}

fn moment(value: &Value) -> Result<Millis, Unavailable> {
    number(value).map(Millis)
}

fn number(value: &Value) -> Result<i64, Unavailable> {
    match value {
        Value::Int(number) => Ok(*number),
        _ => Err(foreign("not a number")),
    }
}

fn text(value: &Value) -> Result<Option<&str>, Unavailable> {
    match value {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => std::str::from_utf8(bytes).map(Some).map_err(|_| foreign("not a text")),
        _ => Err(foreign("not a text")),
    }
}

/// Somebody else's data under our keys, or a server that is not what it says: no answer to build on.
fn foreign(what: &str) -> Unavailable {
    Unavailable::Script(format!("the answer holds {what}"))
}
