//! The scripts against the functions they are ports of, on random inputs, inside a real Redis.
//!
//! The texts run as they are: a frame gives them keys, arguments, a clock and a keyspace of its own for each case, so
//! that thousands of cases are one call, and nothing in the scripts knows of it.

use std::time::Duration;

use bartizan_core::limit::{Key, Quota, Tat, Verdict, refund, take};
use bartizan_core::time::Millis;
use bartizan_testkit::RedisServer;
use redis::Value;

use super::batch::Call;
use super::link::{Address, Link, LinkOptions, Script};
use super::scripts::{self, Doubles, Said, push_limit};
use crate::state::BanPolicy;

/// Runs each case: a list of key texts, of arguments, and of what the keys hold; answers what the script answered, then
/// what the keys hold afterwards.
const FRAME: &str = r"#!lua
local function run(KEYS, ARGV, redis)
SCRIPT
end
local input, at, answers = ARGV[1], 1, {}
local function word()
  local length
  length, at = struct.unpack('<I4', input, at)
  if length == 4294967295 then return false end
  local text = string.sub(input, at, at + length - 1)
  at = at + length
  return text
end
while at <= #input do
  local keys, held, args = {}, {}, {}
  for i = 1, tonumber(word()) do
    keys[i] = word()
    held[keys[i]] = word()
  end
  for i = 1, tonumber(word()) do args[i] = word() end
  local seconds, micros = word(), word()
  local fake = {
    call = function(name, key, value, px, life)
      if name == 'TIME' then return { seconds, micros } end
      if name == 'GET' then return held[key] end
      if name == 'DEL' then held[key] = false return 1 end
      if name == 'SET' then
        if px ~= 'PX' or not (life >= 1) or life % 1 ~= 0 then error('life ' .. tostring(life)) end
        held[key] = tostring(value)
        return
      end
      if name == 'MGET' then
        local found = {}
        for i = 1, #keys do found[i] = held[keys[i]] end
        return found
      end
      error(name)
    end,
  }
  answers[#answers + 1] = run(keys, args, fake) or false
  local after = {}
  for i = 1, #keys do after[i] = held[keys[i]] end
  answers[#answers + 1] = after
end
return answers
";

/// A small generator: the same cases every time, and a million of them in no time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound.max(1)
    }

    /// As often small as large.
    fn any(&mut self, bits: u64) -> u64 {
        let bits = 1 + self.below(bits);
        self.below(1 << bits)
    }

    fn quota(&mut self) -> Quota {
        loop {
            let count = 1 + self.any(32).min(u64::from(u32::MAX) - 1) as u32;
            let burst = 1 + self.any(32).min(u64::from(u32::MAX) - 1) as u32;
            let period = match self.below(3) {
                0 => 60_000,
                1 => 1 + self.any(34),
                _ => 1 + self.below(5000),
            };
            if let Ok(quota) = Quota::new(count, Duration::from_millis(period), burst) {
                return quota;
            }
        }
    }

    fn clock(&mut self) -> Millis {
        Millis(match self.below(8) {
            0 => self.any(44),
            1 => 17_523_466_567_679 - self.below(3),
            2 => 17_523_466_567_680 + self.any(40),
            _ => 1_700_000_000_000 + self.any(36),
        } as i64)
    }

    /// A request for some of the limits.
    fn call(&mut self, limits: &[(Quota, Option<Tat>)]) -> Asked {
        let all = 1 + self.below((1 << limits.len()) - 1);
        let places: Vec<_> = (0..limits.len()).filter(|place| all & 1 << place != 0).collect();
        let least_burst = places.iter().map(|place| limits[*place].0.burst()).min().unwrap();
        let cost = if self.below(4) == 0 { self.any(32).min(u64::from(least_burst)) as u32 } else { 1 };
        Asked { places, cost, more: if self.below(3) == 0 { self.any(20) as u32 } else { 0 } }
    }

    /// A bucket: empty, of this quota, of another, stale, or from a clock that was ahead.
    fn bucket(&mut self, quota: &Quota, now: Millis) -> Option<Tat> {
        match self.below(6) {
            0 => None,
            1 => {
                let other = self.quota();
                let units = self.any(32).min(u64::from(other.burst())) as u32;
                take(None, &other, units, now).0
            }
            2 => Tat::from_bits((now.0 as u64 + self.any(36)).min((1 << 44) - 1) << 20 | self.any(20)),
            3 => Tat::spent(quota, Millis(now.0 - self.any(24).min(now.0 as u64) as i64)),
            _ => {
                let units = self.any(32).min(u64::from(quota.burst())) as u32;
                let before = Millis(now.0 - self.any(24).min(now.0 as u64) as i64);
                take(None, quota, units, before).0
            }
        }
    }
}

fn text(tat: Option<Tat>) -> Option<Vec<u8>> {
    let bits = tat?.to_bits();
    let (ms, part) = (bits >> 20, bits & 0xf_ffff);
    Some(if part == 0 { ms.to_string() } else { format!("{ms}:{part}") }.into_bytes())
}

fn word(to: &mut Vec<u8>, word: Option<&[u8]>) {
    to.extend_from_slice(&word.map_or(u32::MAX, |word| word.len() as u32).to_le_bytes());
    to.extend_from_slice(word.unwrap_or_default());
}

/// One request of several.
struct Asked {
    places: Vec<usize>,
    cost: u32,
    more: u32,
}

/// Ticks in a bucket, whichever way they are written.
fn level(tat: Option<Tat>, quota: &Quota, now: Millis) -> (u32, Duration) {
    let (_, decision) = take(tat, quota, 0, now);
    (decision.remaining, decision.reset)
}

fn case(to: &mut Vec<u8>, held: &[(usize, Option<Vec<u8>>)], args: &[&[u8]], now: Millis) {
    word(to, Some(held.len().to_string().as_bytes()));
    for (n, held) in held {
        word(to, Some(format!("k{n}").as_bytes()));
        word(to, held.as_deref());
    }
    word(to, Some(args.len().to_string().as_bytes()));
    args.iter().for_each(|arg| word(to, Some(arg)));
    word(to, Some((now.0 / 1000).to_string().as_bytes()));
    word(to, Some((now.0 % 1000 * 1000 + 999).to_string().as_bytes()));
}

struct Bench {
    link: Link,
    _server: RedisServer,
}

impl Bench {
    async fn start() -> Self {
        let server = RedisServer::start().await;
        let options = LinkOptions { timeout: Duration::from_secs(60), ..LinkOptions::default() };
        let link = Link::start(Address::parse(&server.url()).unwrap(), options);
        link.ready(Duration::from_secs(30)).await.unwrap();
        Self { link, _server: server }
    }

    fn framed(script: &Script) -> Script {
        let body = script.text().split_once('\n').unwrap().1;
        Script::new("framed", Box::leak(FRAME.replace("SCRIPT", body).into_boxed_str()))
    }

    /// Answers and what was held afterwards, case by case.
    async fn run(&self, script: &Script, input: Vec<u8>) -> Vec<(Value, Vec<Value>)> {
        let no: [&str; 0] = [];
        let Value::Array(answers) = self.link.eval(script, &no, &[input]).await.unwrap() else { panic!() };
        let mut answers = answers.into_iter();
        let mut cases = Vec::new();
        while let (Some(answer), Some(Value::Array(held))) = (answers.next(), answers.next()) {
            cases.push((answer, held));
        }
        cases
    }
}

/// What a bucket holds says the same as the function's state, at this moment and at all later ones; and when the script
/// wrote it, it is the same to the bit.
fn same(before: Option<Tat>, after: Option<Tat>, expected: Option<Tat>, quota: &Quota, now: Millis) {
    if after == expected {
        return;
    }
    assert_eq!(after, before, "written, and not what the function says: {expected:?}");
    for later in [0, 1, 2, 1000] {
        let later = Millis(now.0.min(17_523_466_567_679) + later);
        let (one, other) = (take(after, quota, 0, later), take(expected, quota, 0, later));
        assert_eq!(one, other, "{before:?} {expected:?} {quota:?} {now:?}");
    }
}

const ROUNDS: usize = 210;
const CASES: usize = 2000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn take_decides_as_the_function_on_a_million_random_buckets() {
    let bench = Bench::start().await;
    let framed = Bench::framed(&scripts::TAKE);
    let mut dice = Dice(1);
    let (mut buckets, mut admitted, mut denied, mut granted, mut mended, mut shared) = (0, 0, 0, 0, 0, 0);
    for _ in 0..ROUNDS {
        let (mut input, mut asked) = (Vec::new(), Vec::new());
        for _ in 0..CASES {
            let now = dice.clock();
            let limits: Vec<_> = (0..1 + dice.below(4))
                .map(|_| {
                    let quota = dice.quota();
                    (quota, dice.bucket(&quota, now))
                })
                .collect();
            // One request for all of them, or several that share some.
            let calls: Vec<_> = (0..1 + dice.below(4).saturating_sub(1)).map(|_| dice.call(&limits)).collect();
            let mut numbers = Doubles::default();
            numbers.push(&[calls.len() as u64]).push_bans(None);
            for Asked { places, cost, more } in &calls {
                numbers.push(&[places.len() as u64, 0]);
                for place in places {
                    push_limit(&mut numbers, &limits[*place].0, *cost, cost.saturating_add(*more), 0);
                }
            }
            let keys = calls.iter().flat_map(|call| &call.places).map(|place| (*place, text(limits[*place].1)));
            case(&mut input, &keys.collect::<Vec<_>>(), &[&numbers.finish()], now);
            asked.push((limits, calls, now));
        }
        for ((answer, held), (mut limits, calls, now)) in bench.run(&framed, input).await.into_iter().zip(asked) {
            let shape = |call: &Asked| Call {
                limits: call.places.len(),
                groups: 0,
                sequence: false,
                keys: Vec::new(),
                numbers: Vec::new(),
            };
            let all = scripts::taken(answer, &calls.iter().map(shape).collect::<Vec<_>>()).unwrap();
            let (first, mut touched) = (limits.clone(), limits.iter().map(|_| false).collect::<Vec<_>>());
            for (taken, Asked { places, cost, more }) in all.iter().zip(&calls) {
                assert_eq!(taken.now.0, now.0.min(17_523_466_567_679));
                let admits = places.iter().all(|place| {
                    let (quota, tat) = &limits[*place];
                    take(*tat, quota, *cost, now).1.verdict.admits()
                });
                assert_eq!(taken.said, if admits { Said::Taken } else { Said::Over }, "{limits:?} {cost} {now:?}");
                for (nth, place) in places.iter().enumerate() {
                    let (quota, before) = &mut limits[*place];
                    buckets += 1;
                    if touched[*place] {
                        assert_eq!(level(taken.before[nth], quota, now), level(*before, quota, now), "{quota:?}");
                        shared += 1;
                    } else {
                        assert_eq!(taken.before[nth], *before);
                    }
                    touched[*place] = true;
                    if admits {
                        let room = take(*before, quota, 0, now).1.remaining;
                        let grant = cost.saturating_add(*more).min(room);
                        assert!(grant >= *cost);
                        let (after, decision) = take(*before, quota, grant, now);
                        assert_eq!(decision.verdict, Verdict::Admit);
                        *before = after;
                        granted += u64::from(grant > *cost);
                    } else {
                        *before = take(*before, quota, 0, now).0;
                    }
                }
                if admits { admitted += 1 } else { denied += 1 }
            }
            for (place, after) in calls.iter().flat_map(|call| &call.places).zip(&held) {
                let (quota, expected) = &limits[*place];
                let after = scripts::tat(after).unwrap();
                same(first[*place].1, after, *expected, quota, now);
                mended += u64::from(calls.len() == 1 && all[0].said == Said::Over && after != first[*place].1);
            }
        }
    }
    assert!(buckets >= 1_000_000, "{buckets}");
    assert!(
        admitted > 100_000 && denied > 50_000 && granted > 50_000 && mended > 1_000 && shared > 100_000,
        "{admitted} admitted, {denied} denied, {granted} with a lease, {mended} mended, {shared} shared"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refund_and_replay_move_a_bucket_as_the_functions_do() {
    let bench = Bench::start().await;
    let (refunds, replays) = (Bench::framed(&scripts::REFUND), Bench::framed(&scripts::REPLAY));
    let mut dice = Dice(2);
    for _ in 0..50 {
        let (mut back, mut forward, mut decayed, mut asked) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for _ in 0..CASES {
            let (quota, now) = (dice.quota(), dice.clock());
            let (before, units) = (dice.bucket(&quota, now), dice.any(32).min(u64::from(quota.burst())) as u32);
            let (ticks, ago) = (quota.ticks(), dice.any(20));
            let amount = u64::from(units) * ticks.unit;
            let numbers = |list: &[u64]| {
                let mut numbers = Doubles::default();
                numbers.push(list);
                numbers.finish()
            };
            let (drain, held) = (u64::from(ticks.drain), [(0, text(before))]);
            let clamped = now.0.min(17_523_466_567_679) as u64;
            case(&mut back, &held, &[&numbers(&[drain, ticks.capacity, amount, 1 << 52])], now);
            case(&mut decayed, &held, &[&numbers(&[drain, ticks.capacity, amount, clamped.saturating_sub(ago)])], now);
            case(&mut forward, &held, &[&numbers(&[drain, ticks.capacity, amount])], now);
            asked.push((quota, before, units, now, ago.min(clamped)));
        }
        let answers =
            (bench.run(&refunds, back).await, bench.run(&refunds, decayed).await, bench.run(&replays, forward).await);
        for (place, (quota, before, units, now, ago)) in asked.into_iter().enumerate() {
            let after = |cases: &[(Value, Vec<Value>)]| scripts::tat(&cases[place].1[0]).unwrap();
            let all = refund(before, &quota, units, now);
            if before.is_some() {
                assert_eq!(after(&answers.0), all, "{quota:?} {before:?} {units}");
            }
            // Giving back later gives back less, and never takes.
            assert!(after(&answers.1) >= all);
            if ago == 0 && before.is_some() {
                assert_eq!(after(&answers.1), all);
            }
            let room = take(before, &quota, 0, now).1.remaining;
            let expected = if units <= room { take(before, &quota, units, now).0 } else { Tat::spent(&quota, now) };
            assert_eq!(after(&answers.2), expected, "{quota:?} {before:?} {units} of {room}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_lead_to_the_same_bans_as_in_memory() {
    let bench = Bench::start().await;
    let framed = Bench::framed(&scripts::REFUSE);
    let who = Key(7);
    let mut dice = Dice(3);
    // Many histories side by side, each with its own policy and clock; every step is one case of one call.
    let mut histories: Vec<_> = (0..1000)
        .map(|_| {
            let after = if dice.below(3) == 0 { 1 } else { 1 + dice.below(40) as u32 };
            let policy = BanPolicy::new(after, Duration::from_millis(dice.any(23))).unwrap();
            let keys = bartizan_core::limit::KeyMaker::new(&bartizan_core::secret::Secret::new([1; 32]));
            let memory = crate::state::EmbeddedState::new(64, policy, keys);
            (policy, memory, Millis(1_700_000_000_000), None::<Vec<u8>>)
        })
        .collect();
    let (mut began, mut mended) = (0, 0);
    for _ in 0..200 {
        let mut input = Vec::new();
        for (policy, _, now, held) in &mut histories {
            match dice.below(20) {
                0 => now.0 -= dice.any(28) as i64,
                1 => now.0 += dice.any(28) as i64,
                _ => now.0 += dice.any(14) as i64,
            }
            let mut numbers = Doubles::default();
            numbers.push(&[1]).push_bans(Some(policy));
            case(&mut input, &[(0, held.clone())], &[&numbers.finish()], *now);
        }
        let answers = bench.run(&framed, input).await;
        for ((answer, mut after), (_, memory, now, held)) in answers.into_iter().zip(&mut histories) {
            let (store, until) = scripts::pair(&answer).unwrap();
            let expected = memory.count_refusal(who, *now);
            assert_eq!((store, Some(until).filter(|until| *until > 0)), (now.0, expected.map(|until| until.0)));
            began += u64::from(until > 0);
            let Value::BulkString(text) = after.remove(0) else { panic!() };
            let end: i64 = String::from_utf8(text.clone()).unwrap().split(' ').next().unwrap().parse().unwrap();
            assert_eq!(Some(end).filter(|end| *end > now.0), memory.banned(who, *now).map(|until| until.0));
            mended += u64::from(end == now.0 + 3_600_000);
            *held = Some(text);
        }
    }
    assert!(began > 10_000 && mended > 100, "{began} {mended}");
}
