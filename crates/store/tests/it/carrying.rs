//! What one machine counted, taken along into real Redis servers.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bartizan_core::limit::{Key, KeyMaker, Quota, Tat, take};
use bartizan_core::secret::Secret;
use bartizan_core::time::Millis;
use bartizan_store::shared::link::Link;
use bartizan_store::shared::{Carried, CarryError, Group, Load, SharedState, Want, carry};
use bartizan_store::state::{Admission, Ask, BanPolicy, EmbeddedState, Flaw, Found, Kept};
use bartizan_testkit::{ClusterSet, RedisServer};
use tempfile::TempDir;

use crate::shared::{PATIENT, node_with, options};
use crate::world::unless_cut_short;

/// Seven in a minute does not divide into milliseconds: fractions must come along.
fn quota() -> Quota {
    Quota::new(7, Duration::from_secs(3_600), 5).unwrap()
}

fn policy() -> BanPolicy {
    BanPolicy::new(3, Duration::from_secs(600)).unwrap()
}

fn now() -> Millis {
    Millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64)
}

fn keys() -> KeyMaker {
    KeyMaker::new(&Secret::new([1; 32]))
}

/// A machine on which `many` keys from 1 have taken one to five units of five, by turns.
fn machine(many: u128) -> EmbeddedState {
    let state = EmbeddedState::new(1_000_000, policy(), keys());
    for key in 1..=many {
        let cost = 1 + (key % 5) as u32;
        assert!(state.take(&mut [Ask::new(Key(key), "user", quota())], cost, now()).admits());
    }
    state
}

/// Its snapshot, as the disk has it.
fn kept(state: &EmbeddedState) -> (TempDir, Kept) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("limits.snapshot");
    let _ = state.snapshot(&path, now()).unwrap();
    match Kept::open(&path, &keys(), now()).unwrap() {
        Found::Whole(kept) => (dir, kept),
        other => panic!("{other:?}"),
    }
}

async fn carried(link: &Link, kept: &Kept) -> Result<Carried, CarryError> {
    carry(link, &keys(), "bz:", &Load { snapshot: Some(kept), failures: &[] }, |_| {}).await
}

async fn node(url: &str) -> SharedState {
    let mut options = options(1);
    options.bans = policy();
    node_with(url, PATIENT, options).await
}

async fn ask(state: &SharedState, key: u128, cost: u32) -> (Admission, u32) {
    let mut asks = [Ask::new(Key(key), "user", quota())];
    let ruled = state
        .admit(&mut [Group { who: Key(key), asks: &mut asks }], cost, Want::Decision, now(), Instant::now())
        .await
        .unwrap();
    (ruled.admission, asks[0].limit.decision.remaining)
}

/// Everything a server holds of limits and bans.
async fn held(server: &RedisServer) -> Vec<String> {
    const ALL: &str = "local all = {} for _, name in ipairs(redis.call('KEYS', 'bz:{*')) do \
        all[#all + 1] = name .. ' ' .. redis.call('GET', name) end return all";
    let mut all: Vec<String> = server.cli(&["EVAL", ALL, "0"]).await.lines().map(str::to_owned).collect();
    all.sort();
    all
}

async fn who_was_limited_or_banned_stays_so(url: &str) {
    let machine = machine(1_200);
    for _ in 0..3 {
        let _ = machine.count_refusal(Key(5_000), now());
    }
    for _ in 0..2 {
        let _ = machine.count_refusal(Key(5_001), now());
    }
    let end = machine.banned(Key(5_000), now()).unwrap();
    let (_dir, kept) = kept(&machine);
    let node = node(url).await;
    let done = carried(node.link(), &kept).await.unwrap();
    assert_eq!(done, Carried { counters: 1_200, bans: 2, written: 1_202 });
    let again = carried(node.link(), &kept).await.unwrap();
    assert_eq!(again, Carried { counters: 1_200, bans: 2, written: 0 });

    for key in 1..=1_200 {
        // The bucket is that of the machine to the last tick, so the answer is the machine's.
        let there = node.peek(Key(key)).await;
        assert_eq!(there, machine.tat_of(Key(key)), "{key}");
        let left = take(there, &quota(), 0, now()).1.remaining;
        assert_eq!(left, 4 - (key % 5) as u32);
    }
    assert!(matches!(ask(&node, 4, 1).await.0, Admission::Limited { .. }), "all five were taken");
    assert_eq!(ask(&node, 3, 1).await, (Admission::Admitted, 0));
    assert!(matches!(ask(&node, 3, 1).await.0, Admission::Limited { .. }));
    assert_eq!(ask(&node, 9_999, 5).await, (Admission::Admitted, 0), "a stranger has his whole burst");

    let Admission::Banned { until } = ask(&node, 5_000, 1).await.0 else { panic!("the ban is not there") };
    assert!(until.0.abs_diff(end.0) < 2_000, "{until} {end}");
    // Two refusals came along, so the third begins a ban.
    assert!(node.count_refusal(Key(5_001), now(), Instant::now()).await.is_some());

    // Nothing of what the nodes did is taken back.
    let _ = carried(node.link(), &kept).await.unwrap();
    assert!(matches!(ask(&node, 3, 1).await.0, Admission::Limited { .. }));
    assert!(matches!(ask(&node, 5_001, 1).await.0, Admission::Banned { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_limited_or_banned_on_one_machine_stays_so_on_many() {
    let server = RedisServer::start().await;
    who_was_limited_or_banned_stays_so(&server.url()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_limited_or_banned_on_one_machine_stays_so_on_a_cluster() {
    let cluster = ClusterSet::start(3, 0).await;
    who_was_limited_or_banned_stays_so(&cluster.url()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_way_cut_short_again_and_again_ends_as_one_that_was_not() {
    let machine = machine(3_000);
    machine.ban(Key(7), Duration::from_secs(60), now());
    let (_dir, kept) = kept(&machine);
    let (whole, broken) = (RedisServer::start().await, RedisServer::start().await);
    let _ = carried(node(&whole.url()).await.link(), &kept).await.unwrap();
    let expected = held(&whole).await;
    assert_eq!(expected.len(), 3_001);

    let node = node(&broken.url()).await;
    let mut steps = 1;
    loop {
        let keys = keys();
        let load = Load { snapshot: Some(&kept), failures: &[] };
        let link = node.link();
        let done = unless_cut_short(steps, |tell| carry(link, &keys, "bz:", &load, move |_| tell())).await;
        let Some(done) = done else {
            steps += 2;
            continue;
        };
        let done = done.unwrap();
        assert_eq!((done.counters, done.bans), (3_000, 1));
        break;
    }
    assert!(steps > 5, "{steps}");
    assert_eq!(held(&broken).await, expected);
    assert_eq!(carried(node.link(), &kept).await.unwrap().written, 0);
    assert_eq!(held(&broken).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_on_which_nodes_serve_frees_nobody_and_is_freed_by_nobody() {
    let server = RedisServer::start().await;
    let node = node(&server.url()).await;
    // Of the first five the nodes have seen more than the machine, of the next five less.
    for key in 1..=10 {
        assert_eq!(ask(&node, key, if key <= 5 { 5 } else { 1 }).await.0, Admission::Admitted);
    }
    let machine = EmbeddedState::new(1_000, policy(), keys());
    for key in 1..=10 {
        let cost = if key <= 5 { 1 } else { 5 };
        assert!(machine.take(&mut [Ask::new(Key(key), "user", quota())], cost, now()).admits());
    }
    // Each side knows of one ban that the other does not, and of one that the other knows better.
    let length = |minutes: u64| Duration::from_secs(60 * minutes);
    for (key, minutes) in [(20, 10), (21, 10), (22, 50)] {
        let _ = node.ban(Key(key), length(minutes), now(), Instant::now()).await.unwrap();
    }
    for (key, minutes) in [(21, 50), (22, 10), (23, 10)] {
        machine.ban(Key(key), length(minutes), now());
    }
    let (_dir, kept) = kept(&machine);
    let done = carried(node.link(), &kept).await.unwrap();
    assert_eq!(done, Carried { counters: 10, bans: 3, written: 5 + 2 });
    let other = self::node(&server.url()).await;
    for key in 1..=10 {
        assert!(matches!(ask(&other, key, 1).await.0, Admission::Limited { .. }), "{key}");
    }
    for (key, minutes) in [(20, 10), (21, 50), (22, 50), (23, 10)] {
        let Admission::Banned { until } = ask(&other, key, 1).await.0 else { panic!("{key} is free") };
        let left = until.since(now());
        assert!(left <= length(minutes) && left > length(minutes) - Duration::from_secs(60), "{key} {left:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_ban_is_as_long_as_it_would_have_been() {
    let machine = EmbeddedState::new(1_000, policy(), keys());
    let ago = |seconds: i64| Millis(now().0 - 1_000 * seconds);
    // Two bans, ten minutes and then twenty, which ended a minute ago.
    for began in [ago(60 * 32), ago(60 * 21)] {
        for _ in 0..3 {
            let _ = machine.count_refusal(Key(1), began);
        }
    }
    assert_eq!(machine.banned(Key(1), now()), None);
    let (_dir, kept) = kept(&machine);
    let server = RedisServer::start().await;
    let node = node(&server.url()).await;
    assert_eq!(carried(node.link(), &kept).await.unwrap().bans, 1);
    let until = async {
        let mut until = None;
        for _ in 0..3 {
            until = node.count_refusal(Key(1), now(), Instant::now()).await;
        }
        until.unwrap()
    };
    let length = until.await.since(now());
    assert!(length > Duration::from_secs(60 * 39) && length <= Duration::from_secs(60 * 40), "{length:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_logins_come_along_from_the_database_too() {
    let server = RedisServer::start().await;
    let node = node(&server.url()).await;
    let tat = Tat::spent(&quota(), now()).unwrap();
    let over = Tat::spent(&quota(), Millis(now().0 - 86_400_000)).unwrap();
    let failures = [(Key(1), tat), (Key(2), over)];
    let load = Load { snapshot: None, failures: &failures };
    let done = carry(node.link(), &keys(), "bz:", &load, |_| {}).await.unwrap();
    assert_eq!((done.counters, done.written), (2, 1), "what is over is not written");
    assert!(matches!(ask(&node, 1, 1).await.0, Admission::Limited { .. }));
    assert_eq!(ask(&node, 2, 5).await.0, Admission::Admitted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_full_or_forgets_is_noticed() {
    let (_dir, kept) = kept(&machine(20_000));
    let full = RedisServer::with(&["--maxmemory", "3mb", "--maxmemory-policy", "noeviction"]).await;
    let forgetful = RedisServer::with(&["--maxmemory", "3mb", "--maxmemory-policy", "allkeys-lru"]).await;
    let error = carried(node(&full.url()).await.link(), &kept).await.unwrap_err();
    assert!(error.to_string().contains("full"), "{error}");
    let error = carried(node(&forgetful.url()).await.link(), &kept).await.unwrap_err();
    assert!(matches!(error, CarryError::Missing { missing: 1.., all: 20_000 }), "{error}");
    // What helps is room.
    assert_eq!(full.cli(&["CONFIG", "SET", "maxmemory", "0"]).await, "OK");
    assert_eq!(carried(node(&full.url()).await.link(), &kept).await.unwrap().counters, 20_000);
}

#[test]
fn a_snapshot_of_other_secrets_is_told_and_left_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("limits.snapshot");
    let _ = machine(10).snapshot(&path, now()).unwrap();
    let other = KeyMaker::new(&Secret::new([2; 32]));
    assert!(matches!(Kept::open(&path, &other, now()).unwrap(), Found::Flawed(Flaw::Foreign)));
    assert!(matches!(Kept::open(&path, &keys(), now()).unwrap(), Found::Whole(_)));
}
