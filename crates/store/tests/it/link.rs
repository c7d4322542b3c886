//! The link to Redis, against real servers that hang, die, move and fill up.

use std::time::{Duration, Instant};

use bartizan_core::secret::Secret;
use bartizan_store::shared::link::{Address, Link, LinkOptions, LinkState, Script, Unavailable};
use bartizan_testkit::{ClusterSet, Proxy, RedisServer, SentinelSet, old_redis, until};
use redis::Value;

/// Adds to a counter and returns it.
static ADD: Script = Script::new("add", "#!lua\nreturn redis.call('INCRBY', KEYS[1], ARGV[1])");
/// Reads a counter, and says that it only reads.
static LOOK: Script = Script::new("look", "#!lua flags=no-writes\nreturn redis.call('GET', KEYS[1])");
/// Reads a key that was not declared.
static SNEAK: Script = Script::new("sneak", "#!lua\nreturn redis.call('GET', 'undeclared')");
/// Keeps the server busy for about ARGV[1] milliseconds.
static DAWDLE: Script = Script::new(
    "dawdle",
    "#!lua\nlocal function now() local t = redis.call('TIME') return t[1] * 1000 + t[2] / 1000 end\n\
     local start = now() while now() - start < tonumber(ARGV[1]) do end return 1",
);

/// Long enough that only a server that does not answer runs into it, on a busy machine too.
pub(crate) const PATIENT: Duration = Duration::from_millis(800);

pub(crate) fn link_to(url: &str) -> Link {
    link_with(url, LinkOptions { timeout: PATIENT, ..LinkOptions::default() })
}

pub(crate) fn link_with(url: &str, options: LinkOptions) -> Link {
    Link::start(Address::parse(url).unwrap(), options)
}

pub(crate) async fn ready(url: &str) -> Link {
    let link = link_to(url);
    link.ready(bartizan_testkit::DEADLINE).await.unwrap();
    link
}

pub(crate) async fn add(link: &Link, key: &str) -> Result<i64, Unavailable> {
    link.eval(&ADD, &[key], &[1]).await.map(|value| match value {
        Value::Int(sum) => sum,
        other => panic!("{other:?}"),
    })
}

pub(crate) async fn works_again(link: &Link, key: &str) {
    until("calls succeed again", || async { add(link, key).await.is_ok() }).await;
}

pub(crate) async fn is_down(link: &Link) {
    until("the link is down", || async { link.state() != LinkState::Up }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_is_loaded_once_and_again_after_a_flush_without_a_failed_call() {
    let redis = RedisServer::start().await;
    let link = ready(&redis.url()).await;
    assert_eq!(add(&link, "n").await, Ok(1));
    assert_eq!(add(&link, "n").await, Ok(2));
    assert_eq!(link.counts().scripts_loaded, 1);
    redis.cli(&["SCRIPT", "FLUSH"]).await;
    assert_eq!(add(&link, "n").await, Ok(3));
    let counts = link.counts();
    assert_eq!((counts.scripts_loaded, counts.calls, counts.failures, counts.reconnects), (2, 3, 0, 0));
}

#[tokio::test]
async fn a_key_that_was_not_declared_is_refused() {
    let cluster = ClusterSet::start(1, 0).await;
    let link = ready(&cluster.url()).await;
    let answer = link.eval::<_, i64>(&SNEAK, &["other"], &[]).await;
    assert!(matches!(&answer, Err(Unavailable::Script(_))), "{answer:?}");
    assert_eq!(link.state(), LinkState::Up, "a fault of a script says nothing about the server");
}

#[tokio::test]
async fn a_call_is_one_round_trip_and_many_calls_share_one_connection() {
    let redis = RedisServer::start().await;
    let proxy = Proxy::start(redis.port()).await;
    let link = ready(&format!("redis://127.0.0.1:{}", proxy.port())).await;
    add(&link, "n").await.unwrap();
    let before = proxy.exchanges();
    for _ in 0..20 {
        add(&link, "n").await.unwrap();
    }
    // A sign of life may come in between when the machine is slow.
    assert!(proxy.exchanges() - before <= 22, "{}", proxy.exchanges() - before);
    let calls = (0..200).map(|_| add(&link, "n"));
    assert!(futures_util::future::join_all(calls).await.iter().all(Result::is_ok));
    assert_eq!(proxy.connections(), 1);
    let options = LinkOptions { pool: 3, timeout: PATIENT, ..LinkOptions::default() };
    let wide = link_with(&format!("redis://127.0.0.1:{}", proxy.port()), options);
    wide.ready(bartizan_testkit::DEADLINE).await.unwrap();
    assert_eq!((proxy.connections(), add(&wide, "m").await), (4, Ok(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_server_costs_one_timeout_and_then_none() {
    let redis = RedisServer::start().await;
    let link = ready(&redis.url()).await;
    add(&link, "n").await.unwrap();
    redis.pause();
    // All are sent before the first runs out of time.
    let began = Instant::now();
    let calls = futures_util::future::join_all((0..50).map(|_| add(&link, "n"))).await;
    assert!(calls.iter().all(|call| call.is_err()));
    assert!(began.elapsed() < PATIENT * 2, "{:?}", began.elapsed());
    let sent = link.counts().timeouts;
    let began = Instant::now();
    for _ in 0..1_000 {
        assert!(add(&link, "n").await.is_err());
    }
    assert!(began.elapsed() < PATIENT, "1,000 calls over an open breaker took {:?}", began.elapsed());
    assert_eq!(link.counts().timeouts, sent);
    assert_eq!(link.counts().breaker_opened, 1);
    redis.resume();
    works_again(&link, "n").await;
    assert!(link.counts().reconnects > 0, "the server may have missed a failover");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_unused_is_noticed_without_a_call() {
    let redis = RedisServer::start().await;
    let link = ready(&redis.url()).await;
    redis.pause();
    is_down(&link).await;
    assert_eq!(add(&link, "n").await, Err(Unavailable::Open));
    redis.resume();
    until("the link is up", || async { link.state() == LinkState::Up }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_that_returns_empty_is_used_at_once() {
    let mut redis = RedisServer::start().await;
    let link = ready(&redis.url()).await;
    assert_eq!(add(&link, "n").await, Ok(1));
    redis.kill().await;
    is_down(&link).await;
    let answer = add(&link, "n").await;
    assert!(matches!(&answer, Err(Unavailable::Disconnected(_))), "{answer:?}");
    redis.restart().await;
    link.ready(bartizan_testkit::DEADLINE).await.unwrap();
    let failed = link.counts().failures;
    assert_eq!(add(&link, "n").await, Ok(1), "it came back empty, scripts and all");
    assert_eq!(link.counts().failures, failed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_whose_answer_was_lost_is_not_repeated() {
    let redis = RedisServer::start().await;
    let proxy = Proxy::start(redis.port()).await;
    let url = format!("redis://127.0.0.1:{}", proxy.port());
    let link = link_with(&url, LinkOptions { timeout: bartizan_testkit::DEADLINE, ..LinkOptions::default() });
    link.ready(bartizan_testkit::DEADLINE).await.unwrap();
    add(&link, "n").await.unwrap();
    proxy.mute();
    let call = tokio::spawn({
        let link = link.clone();
        async move { add(&link, "n").await }
    });
    until("the call has been applied", || async { redis.cli(&["GET", "n"]).await == "2" }).await;
    proxy.cut();
    let answer = call.await.unwrap();
    assert!(matches!(&answer, Err(Unavailable::Disconnected(_))), "{answer:?}");
    proxy.pass();
    works_again(&link, "other").await;
    assert_eq!(redis.cli(&["GET", "n"]).await, "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_slower_than_the_timeout_is_not_used_until_it_is_quick() {
    let redis = RedisServer::start().await;
    let proxy = Proxy::start(redis.port()).await;
    let link = ready(&format!("redis://127.0.0.1:{}", proxy.port())).await;
    proxy.delay(PATIENT);
    is_down(&link).await;
    until("it was found too slow", || async {
        matches!(link.state(), LinkState::Down { why: Unavailable::Disconnected(_), .. })
    })
    .await;
    proxy.swallow();
    let began = Instant::now();
    assert!(add(&link, "n").await.is_err());
    assert!(began.elapsed() < PATIENT);
    proxy.pass();
    works_again(&link, "n").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_slow_script_does_not_open_the_breaker_for_others() {
    let redis = RedisServer::start().await;
    let link = ready(&redis.url()).await;
    let milliseconds = [i64::try_from(PATIENT.as_millis() / 4).unwrap()];
    let slow = link.eval(&DAWDLE, &["k"], &milliseconds);
    let (slow, quick) = tokio::join!(slow, add(&link, "n"));
    assert_eq!((slow, quick), (Ok(Value::Int(1)), Ok(1)));
    assert_eq!(link.counts().breaker_opened, 0);
}

/// Writes hang and reads do not, as with a disk that stalls. Of three connections two are given the writes.
#[tokio::test]
async fn a_server_that_answers_only_some_calls_is_given_up_and_taken_back() {
    let redis = RedisServer::start().await;
    let link = link_with(&redis.url(), LinkOptions { timeout: PATIENT, pool: 3, ..LinkOptions::default() });
    link.ready(bartizan_testkit::DEADLINE).await.unwrap();
    for _ in 0..3 {
        // One call a connection, so that the scripts are known and the first connection is next.
        add(&link, "n").await.unwrap();
        link.eval::<_, i64>(&LOOK, &["n"], &[]).await.unwrap();
    }
    let calls = || {
        let link = link.clone();
        tokio::spawn(async move {
            tokio::join!(add(&link, "n"), add(&link, "n"), link.eval::<_, i64>(&LOOK, &["n"], &[])).0
        })
    };
    assert_eq!(redis.cli(&["CLIENT", "PAUSE", "60000", "WRITE"]).await, "OK");
    until("the breaker opens", || async {
        drop(calls());
        link.counts().breaker_opened > 0
    })
    .await;
    assert!(link.counts().timeouts >= 10, "{:?}", link.counts());
    assert_eq!(redis.cli(&["CLIENT", "UNPAUSE"]).await, "OK");
    works_again(&link, "n").await;
}

#[tokio::test]
async fn a_full_server_says_so_and_recovers() {
    let redis = RedisServer::start().await;
    let link = ready(&redis.url()).await;
    add(&link, "n").await.unwrap();
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]).await;
    assert_eq!(add(&link, "n").await, Err(Unavailable::OutOfMemory));
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert_eq!(add(&link, "n").await, Ok(2), "an answered refusal opens no breaker");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_becomes_a_replica_is_not_used() {
    let (redis, other) = (RedisServer::start().await, RedisServer::start().await);
    let link = ready(&redis.url()).await;
    add(&link, "n").await.unwrap();
    redis.cli(&["REPLICAOF", "127.0.0.1", &other.port().to_string()]).await;
    until("it is known to be a replica", || async { add(&link, "n").await == Err(Unavailable::ReadOnly) }).await;
    is_down(&link).await;
    redis.cli(&["REPLICAOF", "NO", "ONE"]).await;
    works_again(&link, "n").await;
}

#[tokio::test]
async fn wrong_credentials_are_refused_at_once_and_never_repeated() {
    let redis = RedisServer::with_password("the right word").await;
    let options = |word: &str| LinkOptions { password: Some(Secret::new(word.into())), ..LinkOptions::default() };
    for options in [LinkOptions::default(), options("the wrong word")] {
        let link = link_with(&redis.url(), options);
        let answer = link.ready(bartizan_testkit::DEADLINE).await;
        let Err(Unavailable::Refused(said)) = answer else { panic!("{answer:?}") };
        let said = said.to_string();
        assert!(said.contains("password") && said.contains("state.password_file"), "{said}");
        assert!(!format!("{said} {link:?}").contains("wrong word"), "{said}");
    }
    let link = link_with(&redis.url(), options("the right word"));
    link.ready(bartizan_testkit::DEADLINE).await.unwrap();
}

#[tokio::test]
async fn a_user_who_may_not_run_scripts_is_told_so() {
    let redis = RedisServer::start().await;
    let said = redis.cli(&["ACL", "SETUSER", "poor", "on", ">secret", "~*", "+info", "+ping"]).await;
    assert_eq!(said, "OK");
    let url = format!("redis://poor:secret@127.0.0.1:{}", redis.port());
    let link = ready(&url).await;
    let answer = add(&link, "n").await;
    assert!(matches!(&answer, Err(Unavailable::Refused(said)) if said.to_string().contains("NOPERM")), "{answer:?}");
    redis.cli(&["ACL", "SETUSER", "poor", "+evalsha", "+eval", "+incrby"]).await;
    assert_eq!(add(&link, "n").await, Ok(1));
}

#[tokio::test]
async fn tls_trusts_the_authority_it_was_given_and_no_other() {
    let redis = RedisServer::with_tls(&[]).await;
    let trusting = LinkOptions { ca: Some(redis.ca()), timeout: PATIENT, ..LinkOptions::default() };
    let link = link_with(&redis.url(), trusting.clone());
    link.ready(bartizan_testkit::DEADLINE).await.unwrap();
    assert_eq!(add(&link, "n").await, Ok(1));
    assert!(link.survey().await.unwrap()[0].tls);

    let stranger = RedisServer::with_tls(&[]).await;
    let plain = RedisServer::start().await;
    for (url, ca, word) in [
        (redis.url(), stranger.ca(), "TLS"),
        (redis.url(), redis.ca().with_file_name("none.pem"), "CA certificates"),
        (redis.url(), redis.ca().with_file_name("key.pem"), "CA certificates"),
        (plain.url().replace("redis:", "rediss:"), redis.ca(), "TLS"),
    ] {
        let link = link_with(&url, LinkOptions { ca: Some(ca), ..trusting.clone() });
        let answer = link.ready(Duration::from_secs(5)).await;
        assert!(matches!(&answer, Err(why) if why.to_string().contains(word)), "{url}: {answer:?}");
    }
    // The other way round: no TLS where TLS is spoken.
    let link = link_to(&redis.url().replace("rediss:", "redis:"));
    let answer = link.ready(Duration::from_secs(2)).await;
    assert!(matches!(&answer, Err(why) if why.to_string().contains("TLS")), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_and_their_servers_are_spoken_to_in_tls_and_a_failover_is_followed() {
    let mut set = SentinelSet::with_tls(1, 3).await;
    let trusting = LinkOptions { ca: Some(set.servers[0].ca()), timeout: PATIENT, ..LinkOptions::default() };
    let link = link_with(&set.url(), trusting.clone());
    link.ready(bartizan_testkit::DEADLINE).await.unwrap();
    assert_eq!(add(&link, "n").await, Ok(1));
    assert!(link.survey().await.unwrap()[0].tls);
    until("the replica has it", || async { set.servers[1].cli(&["GET", "n"]).await == "1" }).await;
    set.servers[0].kill().await;
    works_again(&link, "n").await;
    assert!(set.servers[1].cli(&["GET", "n"]).await.parse::<i64>().unwrap() >= 2);
    assert_eq!(link.survey().await.unwrap()[0].server.port, set.servers[1].port());
    is_refused_without_the_right_tls(&set.url(), trusting).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_of_a_cluster_are_spoken_to_in_tls_and_a_failover_is_followed() {
    let mut cluster = ClusterSet::with_tls(3, 1).await;
    let trusting = LinkOptions { ca: Some(cluster.nodes[0].ca()), timeout: PATIENT, ..LinkOptions::default() };
    let link = link_with(&cluster.url(), trusting.clone());
    link.ready(bartizan_testkit::DEADLINE).await.unwrap();
    for n in 0..32 {
        assert_eq!(add(&link, &format!("{{{n}}}")).await, Ok(1));
    }
    let survey = link.survey().await.unwrap();
    assert!(survey.len() == 3 && survey.iter().all(|server| server.tls), "{survey:?}");
    // A redirection leads to the port of TLS as well.
    let slot: u16 = cluster.nodes[0].cli(&["CLUSTER", "KEYSLOT", "{0}"]).await.parse().unwrap();
    let from = usize::from(slot) * 3 / 16_384;
    cluster.begin_move(slot, from, (from + 1) % 3).await;
    assert_eq!(add(&link, "{0}another").await, Ok(1));
    assert!(link.counts().redirections > 0, "{:?}", link.counts());
    cluster.nodes[2].kill().await;
    until("the loss is noticed", || async { add(&link, "foo").await.is_err() }).await;
    works_again(&link, "foo").await;
    is_refused_without_the_right_tls(&cluster.url(), trusting).await;
}

/// Neither another authority nor none, nor a line in the clear.
async fn is_refused_without_the_right_tls(url: &str, trusting: LinkOptions) {
    let stranger = RedisServer::with_tls(&[]).await;
    for (ca, word) in [(Some(stranger.ca()), "state.ca_file"), (None, "state.ca_file")] {
        let link = link_with(url, LinkOptions { ca, ..trusting.clone() });
        let answer = link.ready(bartizan_testkit::DEADLINE).await;
        assert!(
            matches!(&answer, Err(Unavailable::Refused(said)) if said.to_string().contains(word)),
            "{url}: {answer:?}"
        );
    }
    let link = link_with(&url.replace("rediss", "redis"), trusting);
    let answer = link.ready(Duration::from_secs(2)).await;
    assert!(matches!(&answer, Err(why) if why.to_string().contains("write rediss")), "{url}: {answer:?}");
}

#[tokio::test]
async fn an_old_server_is_refused_by_name() {
    let port = old_redis("6.2.14").await;
    let link = link_to(&format!("redis://127.0.0.1:{port}"));
    let Err(Unavailable::Refused(said)) = link.ready(bartizan_testkit::DEADLINE).await else { panic!() };
    assert!(said.to_string().contains("Redis 6.2.14") && said.to_string().contains("7.0"), "{said}");
}

#[tokio::test]
async fn the_kind_of_the_address_must_be_that_of_the_servers() {
    let redis = RedisServer::start().await;
    let cluster = ClusterSet::start(1, 0).await;
    let alone = link_to(&redis.url().replace("redis:", "redis+cluster:"));
    let member = link_to(&cluster.url().replace("redis+cluster:", "redis:"));
    for (link, word) in [(alone, "not part of a cluster"), (member, "redis+cluster://")] {
        let answer = link.ready(bartizan_testkit::DEADLINE).await;
        assert!(matches!(&answer, Err(Unavailable::Refused(said)) if said.to_string().contains(word)), "{answer:?}");
    }
}

#[tokio::test]
async fn a_survey_tells_what_an_operator_must_know() {
    let redis = RedisServer::with(&["--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru"]).await;
    let link = ready(&redis.url()).await;
    let [server] = &link.survey().await.unwrap()[..] else { panic!() };
    assert_eq!((server.maxmemory, server.maxmemory_policy.as_str(), server.evicts()), (64 << 20, "allkeys-lru", true));
    assert!(server.version.starts_with("Redis ") || server.version.starts_with("Valkey "));
    assert_eq!((server.role.as_str(), server.append_only, server.snapshots), ("master", false, Some(false)));
    assert!(server.used_memory > 0 && server.round_trip > Duration::ZERO && !server.tls);
    assert!(server.clock_difference_ms.abs() < 1_000);
    redis.cli(&["CONFIG", "SET", "save", "60 1", "maxmemory-policy", "noeviction"]).await;
    let [server] = &link.survey().await.unwrap()[..] else { panic!() };
    assert!(!server.evicts() && server.snapshots == Some(true));
}

#[tokio::test]
async fn a_link_that_was_shut_down_stays_down() {
    let redis = RedisServer::start().await;
    let link = ready(&redis.url()).await;
    link.shutdown().await;
    assert!(matches!(add(&link, "n").await, Err(Unavailable::Disconnected(_))));
    until("the connection is gone", || async { redis.info("connected_clients").await == "1" }).await;
}

/// The runtime has this one thread, so nothing of the link runs while it is held up.
#[tokio::test]
async fn after_this_process_was_held_up_the_server_is_proved_anew() {
    let redis = RedisServer::start().await;
    let link = ready(&redis.url()).await;
    add(&link, "n").await.unwrap();
    let held_up = std::process::Command::new("redis-cli")
        .args(["-p", &redis.port().to_string(), "BLPOP", "nothing", "2.2"])
        .output();
    assert!(held_up.unwrap().status.success());
    assert_eq!(add(&link, "n").await, Err(Unavailable::Open), "what was proved is too long ago");
    assert_eq!(redis.cli(&["GET", "n"]).await, "1");
    works_again(&link, "n").await;
    assert_eq!(link.counts().reconnects, 1);
}
