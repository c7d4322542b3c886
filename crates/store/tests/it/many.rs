//! Several nodes on one PostgreSQL: changes of a tenant take turns, and who follows misses nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bartizan_core::audit::{AuditEvent, EventKind};
use bartizan_core::id::{SessionId, UserId};
use bartizan_core::limit::{Key, Tat};
use bartizan_core::principal::Role;
use bartizan_core::store_life::StoreLife;
use bartizan_store::login_failures::FailureRow;
use bartizan_store::refresh_tokens::{Race, Spend};
use bartizan_store::{Db, DbOptions, InForce, Scope, StoreErrorKind, audit, login_failures, refresh_tokens, users};
use tokio::task::JoinSet;

use crate::world::*;

on_both! {
    highest_number_outlives_the_effects_and_never_goes_back,
    who_is_ahead_of_the_database_is_told_everything_again,
    lives_of_the_store_come_in_the_order_of_commits_and_the_last_ones_stay_for_ever,
    effect_is_seen_by_whoever_asks_after_the_commit,
}

const SMALL: DbOptions =
    DbOptions { pool: 8, acquire: Duration::from_secs(20), answer: Duration::from_secs(10), password: None };

async fn nodes(world: &World, count: usize) -> Vec<Db> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(world.node(&SMALL).await);
    }
    all
}

async fn log_out(world: &World, db: &Db, scope: &Scope, user: UserId) -> bartizan_store::Committed<u64> {
    let mut tx = db.change(scope).await.unwrap();
    let epoch = users::bump_epoch(&mut tx, user).await.unwrap().unwrap();
    let event = world.event(scope.tenant(), EventKind::LoggedOutEverywhere { user, epoch });
    tx.commit(event, epoch).await.unwrap()
}

async fn highest_number_outlives_the_effects_and_never_goes_back(world: World) {
    assert_eq!(world.db.load_effects(NOW).await.unwrap(), InForce::default());
    let (scope, user) = world.tenant("acme").await;
    for round in 1..=3i64 {
        for _ in 0..3 {
            let _ = log_out(&world, &world.db, &scope, user).await;
        }
        let before = world.db.load_effects(NOW).await.unwrap().highest;
        assert!(before >= round * 3);
        let over = later(27 * 60);
        world.db.prune(over).await.unwrap();
        let left = world.db.load_effects(over).await.unwrap();
        assert_eq!(left, InForce { highest: before, ..InForce::default() });
        let left = world.db.effects_after(before, over).await.unwrap();
        assert_eq!(left, InForce { highest: before, ..InForce::default() });
    }
    let done = log_out(&world, &world.db, &scope, user).await;
    assert_eq!(done.effect_seq, Some(world.db.load_effects(NOW).await.unwrap().highest));
}

async fn lives_of_the_store_come_in_the_order_of_commits_and_the_last_ones_stay_for_ever(world: World) {
    let (scope, user) = world.tenant("acme").await;
    let life = |n: u64| StoreLife { process: [7; 20], birth: n };
    let event = |n: u64| {
        let kind = EventKind::StateLifeBegan { life: life(n) };
        AuditEvent { tenant: None, ..world.event(scope.tenant(), kind) }
    };
    let begin = async |n: u64| (world.db.record_alone(event(n)).await.unwrap().effect_seq.unwrap(), life(n));
    let mut begun = vec![begin(1).await];
    let between = log_out(&world, &world.db, &scope, user).await;
    begun.push(begin(2).await);
    assert!(begun[0].0 < between.effect_seq.unwrap() && between.effect_seq.unwrap() < begun[1].0);
    let all = world.db.load_effects(NOW).await.unwrap();
    assert_eq!((all.highest, &all.lives, all.effects.len()), (begun[1].0, &begun, 3));
    assert_eq!(world.db.effects_after(begun[0].0, NOW).await.unwrap().lives, begun[1..]);
    // What ends a session is over some day, a life is not.
    let more: Vec<_> = (3..=1005).map(event).collect();
    let last = world.db.record_all(&more).await.unwrap().effect_seq.unwrap();
    begun.extend((3..=1005).map(|n| (last - 1005 + i64::try_from(n).unwrap(), life(n))));
    world.db.prune(later(400 * 86_400)).await.unwrap();
    let left = world.db.load_effects(later(400 * 86_400)).await.unwrap();
    assert_eq!(left.lives, begun[begun.len() - 1001..]);
    assert_eq!(left.highest, begun.last().unwrap().0);
}

async fn who_is_ahead_of_the_database_is_told_everything_again(world: World) {
    let (scope, user) = world.tenant("acme").await;
    // A database that went back to where it was empty.
    assert_eq!(world.db.effects_after(50, NOW).await.unwrap(), InForce::default());
    for _ in 0..3 {
        let _ = log_out(&world, &world.db, &scope, user).await;
    }
    let all = world.db.load_effects(NOW).await.unwrap();
    assert_eq!(world.db.effects_after(all.highest + 50, NOW).await.unwrap(), all);
    let last = world.db.effects_after(all.highest - 1, NOW).await.unwrap();
    assert_eq!((last.highest, &last.effects[..]), (all.highest, &all.effects[2..]));
}

async fn effect_is_seen_by_whoever_asks_after_the_commit(world: World) {
    let (scope, user) = world.tenant("acme").await;
    let mut seen = 0;
    for _ in 0..20 {
        let done = log_out(&world, &world.db, &scope, user).await;
        let now = world.db.effects_after(seen, NOW).await.unwrap();
        assert_eq!((Some(now.highest), now.effects), (done.effect_seq, done.effects));
        seen = now.highest;
    }
    let quiet = world.db.record_alone(world.event(scope.tenant(), EventKind::ServerStarted)).await.unwrap();
    assert_eq!(quiet.effect_seq, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_64_spends_of_one_refresh_token_on_four_nodes_one_wins() {
    let world = Arc::new(World::new(Engine::Postgres).await);
    let (scope, user) = world.tenant("acme").await;
    let (session, hash) = world.session(&scope, user).await;
    let nodes = nodes(&world, 4).await;
    let mut tasks = JoinSet::new();
    for n in 0..64u8 {
        let (world, scope, db) = (Arc::clone(&world), scope.clone(), nodes[usize::from(n % 4)].clone());
        tasks.spawn(async move {
            let mut tx = db.change(&scope).await.unwrap();
            let spend = Spend {
                session,
                generation: 0,
                hash,
                now: later(1),
                successor_sealed: &[n],
                successor_hash: [n; 32],
                spender_hash: [n; 32],
                expires_at: later(500),
            };
            match refresh_tokens::spend(&mut tx, &spend).await.unwrap() {
                Race::Won => {
                    let event = world.event(scope.tenant(), EventKind::TokenRefreshed { session });
                    let _ = tx.commit(event, ()).await.unwrap();
                    1
                }
                Race::Lost => 0,
            }
        });
    }
    assert_eq!(tasks.join_all().await.into_iter().sum::<u32>(), 1);
    let mut reader = nodes[0].read_platform(&platform()).await.unwrap();
    let token = refresh_tokens::by_hash(&mut reader, hash).await.unwrap().unwrap();
    assert_eq!(token.session_generation, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn numbers_have_no_gaps_when_four_nodes_write_and_record_at_once() {
    let world = Arc::new(World::new(Engine::Postgres).await);
    let (acme, user) = world.tenant("acme").await;
    let (rival, rival_user) = world.tenant("rival").await;
    let nodes = nodes(&world, 3).await;
    let mut tasks = JoinSet::new();
    for n in 0..16usize {
        let (world, db) = (Arc::clone(&world), nodes[n % 3].clone());
        let (acme, rival) = (acme.clone(), rival.clone());
        let (scope, user) = if n % 2 == 0 { (acme.clone(), user) } else { (rival.clone(), rival_user) };
        tasks.spawn(async move {
            for round in 0..8 {
                match round % 4 {
                    0 => drop(log_out(&world, &db, &scope, user).await),
                    // In both orders: whoever takes two turns takes them in one order.
                    1 => {
                        let mut events = [&acme, &rival].map(|s| world.event(s.tenant(), EventKind::ServerStarted));
                        if n % 2 == 0 {
                            events.reverse();
                        }
                        let _ = db.record_all(&events).await.unwrap();
                    }
                    2 => {
                        let mut tx = db.change(&scope).await.unwrap();
                        users::set_role(&mut tx, user, Role::Owner, NOW).await.unwrap();
                        tx.cancel().await.unwrap();
                    }
                    _ => {
                        let mut tx = db.change_platform(&platform()).await.unwrap();
                        for scope in [&rival, &acme] {
                            tx.record(&world.event(scope.tenant(), EventKind::ServerStarted)).await.unwrap();
                        }
                        let _ = tx.commit(world.event(acme.tenant(), EventKind::ServerStarted), ()).await.unwrap();
                    }
                }
            }
        });
    }
    tasks.join_all().await;
    // One for the creation; of each task 2 of its own kind, 2 of both; the last kind leaves two in `acme`.
    for (scope, expected) in [(acme, 1 + 8 * 2 + 16 * 2 + 16 * 4), (rival, 1 + 8 * 2 + 16 * 2 + 16 * 2)] {
        let mut reader = world.db.read(&scope).await.unwrap();
        let rows = audit::page(&mut reader, 0, audit::Filter::default(), 1000).await.unwrap();
        let numbers: Vec<i64> = rows.iter().map(|row| row.tseq.unwrap()).collect();
        assert_eq!(numbers, (1..=expected).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn follower_of_eight_writers_misses_no_effect() {
    const ROUNDS: usize = 40;
    let world = Arc::new(World::new(Engine::Postgres).await);
    let nodes = nodes(&world, 2).await;
    let running = Arc::new(AtomicUsize::new(8));
    let mut writers = JoinSet::new();
    for n in 0..8usize {
        let (scope, user) = world.tenant(&format!("tenant-{n}")).await;
        let (world, db, running) = (Arc::clone(&world), nodes[n % 2].clone(), Arc::clone(&running));
        writers.spawn(async move {
            let mut kept = Vec::new();
            for round in 0..ROUNDS {
                let mut tx = db.change(&scope).await.unwrap();
                let epoch = users::bump_epoch(&mut tx, user).await.unwrap().unwrap();
                if round % 5 == 0 {
                    // Draws no number, but takes its time.
                    tx.cancel().await.unwrap();
                    continue;
                }
                let session = SessionId::new(NOW, world.random());
                tx.record(&world.event(scope.tenant(), EventKind::LoggedOut { session })).await.unwrap();
                let event = world.event(scope.tenant(), EventKind::LoggedOutEverywhere { user, epoch });
                kept.push(tx.commit(event, ()).await.unwrap());
            }
            running.fetch_sub(1, Ordering::SeqCst);
            kept
        });
    }
    let (mut seen, mut polls, mut applied) = (Vec::new(), 0, 0);
    loop {
        let last = running.load(Ordering::SeqCst) == 0;
        let news = world.db.effects_after(applied, NOW).await.unwrap();
        assert!(news.highest >= applied);
        (applied, polls) = (news.highest, polls + 1);
        seen.extend(news.effects);
        if last {
            break;
        }
    }
    println!("{} effects in {polls} polls", seen.len());
    assert_eq!(seen.len(), 8 * (ROUNDS - ROUNDS / 5) * 2);
    let all = world.db.load_effects(NOW).await.unwrap();
    assert_eq!(all, InForce { highest: applied, effects: seen.clone(), lives: vec![] });
    // In the order of commits: what one writer kept stands in his order, and nobody's effects stand between those of
    // one commit.
    for kept in writers.join_all().await {
        let mut from = 0;
        for done in kept {
            let at = seen[from..].iter().position(|effect| *effect == done.effects[0]).unwrap() + from;
            assert_eq!(seen[at..at + 2], done.effects[..]);
            from = at + 2;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tenants_do_not_wait_for_each_other_and_the_platform_waits_for_all() {
    let world = World::new(Engine::Postgres).await;
    let (acme, user) = world.tenant("acme").await;
    let (rival, rival_user) = world.tenant("rival").await;
    let other = world.node(&SMALL).await;
    let mut tx = world.db.change(&acme).await.unwrap();
    let epoch = users::bump_epoch(&mut tx, user).await.unwrap().unwrap();
    let _ = log_out(&world, &other, &rival, rival_user).await;

    let second = tokio::spawn({
        let (other, acme) = (other.clone(), acme.clone());
        async move {
            let mut tx = other.change(&acme).await.unwrap();
            users::by_id(&mut tx, user).await.unwrap().unwrap().epoch
        }
    });
    let everything = tokio::spawn({
        let other = other.clone();
        async move { other.change_platform(&platform()).await.unwrap().cancel().await.unwrap() }
    });
    // Both stand in the queue of the server.
    while world.server.as_ref().unwrap().sql("bartizan", "SELECT count(*) FROM pg_locks WHERE NOT granted") != "2" {}
    assert!(!second.is_finished() && !everything.is_finished());
    let event = world.event(acme.tenant(), EventKind::LoggedOutEverywhere { user, epoch });
    let _ = tx.commit(event, ()).await.unwrap();
    assert_eq!(second.await.unwrap(), 1, "who waited sees what was kept before");
    everything.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn failures_counted_by_many_at_once_never_wait_for_each_other() {
    let world = Arc::new(World::new(Engine::Postgres).await);
    let nodes = nodes(&world, 2).await;
    let mut tasks = JoinSet::new();
    for n in 0..8usize {
        let (scope, _) = world.tenant(&format!("tenant-{n}")).await;
        let (world, db) = (Arc::clone(&world), nodes[n % 2].clone());
        tasks.spawn(async move {
            for round in 0..20 {
                let at = later(round);
                let moment = Tat::from_bits(u64::MAX).unwrap().at_most(later(1_000)).unwrap();
                let mut rows: Vec<FailureRow> =
                    (0..4u8).map(|key| FailureRow::new(Key(u128::from(key)), moment, at)).collect();
                rows.rotate_left(n % 4);
                let mut tx = db.change_of(&platform(), &[scope.tenant()]).await.unwrap();
                login_failures::save(&mut tx, &rows).await.unwrap();
                let kind = EventKind::LoginFailed { user: None, reason: "credentials" };
                let _ = tx.commit(world.event(scope.tenant(), kind), ()).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    let mut reader = world.db.read_platform(&platform()).await.unwrap();
    let rows = login_failures::all(&mut reader, NOW).await.unwrap();
    assert!(rows.len() == 4 && rows.iter().all(|row| row.updated_at == later(19)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn crowd_of_one_tenant_leaves_connections_to_the_others() {
    let world = World::new(Engine::Postgres).await;
    let (acme, user) = world.tenant("acme").await;
    let (rival, rival_user) = world.tenant("rival").await;
    let db = world.node(&SMALL).await;
    // Four connections to change with; acme's turn is held, and many want it.
    let mut held = db.change(&acme).await.unwrap();
    let mut crowd = JoinSet::new();
    for _ in 0..10 {
        let (db, acme) = (db.clone(), acme.clone());
        crowd.spawn(async move { db.change(&acme).await.unwrap().cancel().await.unwrap() });
    }
    while world.server.as_ref().unwrap().sql("bartizan", "SELECT count(*) FROM pg_locks WHERE NOT granted") != "1" {}
    let _ = log_out(&world, &db, &rival, rival_user).await;
    assert!(users::by_id(&mut held, user).await.unwrap().is_some());
    held.cancel().await.unwrap();
    crowd.join_all().await;
}

#[tokio::test]
async fn change_that_does_nothing_loses_its_turn() {
    let world = World::new(Engine::Postgres).await;
    let (scope, user) = world.tenant("acme").await;
    let mut idle = world.db.change(&scope).await.unwrap();
    let epoch = users::bump_epoch(&mut idle, user).await.unwrap().unwrap();
    let mut tx = loop {
        match world.db.change(&scope).await {
            Ok(tx) => break tx,
            Err(error) => assert!(error.kind() == StoreErrorKind::Busy && error.transient(), "{error}"),
        }
    };
    assert_eq!(users::by_id(&mut tx, user).await.unwrap().unwrap().epoch, 0, "nothing of the idle change is there");
    tx.cancel().await.unwrap();
    let event = world.event(scope.tenant(), EventKind::LoggedOutEverywhere { user, epoch });
    let error = idle.commit(event, ()).await.unwrap_err();
    assert!(error.transient(), "{error}: it failed before anything was kept");
}

#[tokio::test]
async fn pool_without_a_free_connection_is_busy() {
    let world = World::new(Engine::Postgres).await;
    let (scope, user) = world.tenant("acme").await;
    let options = DbOptions { pool: 2, acquire: Duration::from_secs(3), ..SMALL };
    let db = world.node(&options).await;
    let held = db.change(&scope).await.unwrap();
    let error = db.change_of(&platform(), &[]).await.err().unwrap();
    assert_eq!(error.kind(), StoreErrorKind::Busy);
    assert!(error.to_string().contains("connections of the pool") && error.transient(), "{error}");
    // Reading does not stand in that queue.
    let mut reader = db.read(&scope).await.unwrap();
    assert!(users::by_id(&mut reader, user).await.unwrap().is_some());
    drop(held);
    db.change(&scope).await.unwrap().cancel().await.unwrap();
}

#[tokio::test]
async fn server_without_a_free_connection_is_busy() {
    let server = bartizan_testkit::PostgresServer::start_with(&["max_connections=8", "max_wal_senders=0"]);
    let db = Db::open(&server.url(), std::path::Path::new("unused")).await.unwrap();
    let mut held = Vec::new();
    let error = loop {
        match db.change_platform(&platform()).await {
            // Each in a turn of its own would wait: readers do not.
            Ok(tx) => tx.cancel().await.unwrap(),
            Err(error) => break error,
        }
        match db.read_platform(&platform()).await {
            Ok(reader) => held.push(reader),
            Err(error) => break error,
        }
        // The connections of other readers are other nodes'.
        if held.len() == 8 {
            let other = Db::open(&server.url(), std::path::Path::new("unused")).await;
            break other.err().unwrap();
        }
    };
    assert_eq!(error.kind(), StoreErrorKind::Busy, "{error}");
    assert!(error.to_string().contains("max_connections") && error.transient(), "{error}");
    held.clear();
    db.read_platform(&platform()).await.unwrap();
}
