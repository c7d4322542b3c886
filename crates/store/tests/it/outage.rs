//! The database server killed, gone, frozen and back: what was promised is there, and nobody hangs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bartizan_core::audit::{Effect, EventKind};
use bartizan_store::{Committed, Db, DbOptions, Scope, StoreError, StoreErrorKind, audit, users};
use tokio::task::JoinSet;

use crate::world::*;

async fn log_out(
    world: &World,
    db: &Db,
    scope: &Scope,
    user: bartizan_core::id::UserId,
) -> Result<Committed<u64>, StoreError> {
    let mut tx = db.change(scope).await?;
    let epoch = users::bump_epoch(&mut tx, user).await?.unwrap_or(0);
    let event = world.event(scope.tenant(), EventKind::LoggedOutEverywhere { user, epoch });
    tx.commit(event, epoch).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_acknowledged_survives_the_death_of_the_server() {
    let mut world = World::new(Engine::Postgres).await;
    let (scope, user) = world.tenant("acme").await;
    let mut server = world.server.take().unwrap();
    let world = Arc::new(world);
    let (mut acknowledged, mut unknown) = (0u64, 0u64);
    for kills in [5, 20, 40] {
        let mut writers = JoinSet::new();
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        for _ in 0..4 {
            let (world, scope, tell) = (Arc::clone(&world), scope.clone(), tell.clone());
            writers.spawn(async move {
                loop {
                    match log_out(&world, &world.db, &scope, user).await {
                        Ok(done) => drop(tell.send(done.value)),
                        Err(error) => break error,
                    }
                }
            });
        }
        drop(tell);
        for _ in 0..kills {
            acknowledged = told.recv().await.unwrap().max(acknowledged);
        }
        server.kill();
        for error in writers.join_all().await {
            let expected = matches!(error.kind(), StoreErrorKind::Unreachable | StoreErrorKind::Unknown);
            assert!(expected, "{error}: {error:?}");
            unknown += u64::from(error.kind() == StoreErrorKind::Unknown);
        }
        while let Some(epoch) = told.recv().await {
            acknowledged = epoch.max(acknowledged);
        }
        server.restart();

        let mut reader = world.db.read(&scope).await.unwrap();
        let epoch = users::by_id(&mut reader, user).await.unwrap().unwrap().epoch;
        assert!(epoch >= acknowledged && epoch <= acknowledged + unknown, "{epoch}, {acknowledged} + {unknown}");
        let rows = audit::page(&mut reader, 0, audit::Filter::default(), 10_000).await.unwrap();
        let numbers: Vec<i64> = rows.iter().map(|row| row.tseq.unwrap()).collect();
        assert_eq!(numbers, (1..=i64::try_from(epoch).unwrap() + 1).collect::<Vec<_>>());
        let effects = world.db.load_effects(NOW).await.unwrap().effects;
        assert_eq!(effects.last().unwrap().0, Effect::RaiseUserEpoch(user, epoch));
        assert_eq!(effects.len() as u64, epoch);
        acknowledged = epoch;
    }
}

#[tokio::test]
async fn server_that_is_gone_is_told_at_once_and_found_again_without_a_failed_request() {
    let mut world = World::new(Engine::Postgres).await;
    let (scope, user) = world.tenant("acme").await;
    // Some connections rest in the pools.
    let readers = [world.db.read(&scope).await.unwrap(), world.db.read(&scope).await.unwrap()];
    drop(readers);
    world.server().restart();
    // Dead connections are noticed, and nothing was done on them: the caller sees nothing of it.
    let _ = log_out(&world, &world.db, &scope, user).await.unwrap();
    for _ in 0..3 {
        let mut reader = world.db.read(&scope).await.unwrap();
        assert_eq!(users::by_id(&mut reader, user).await.unwrap().unwrap().epoch, 1);
    }

    world.server().kill();
    for _ in 0..3 {
        let begin = Instant::now();
        let error = log_out(&world, &world.db, &scope, user).await.unwrap_err();
        assert_eq!((error.kind(), error.transient()), (StoreErrorKind::Unreachable, true), "{error}");
        assert!(error.to_string().contains("does not answer"), "{error}");
        let error = match world.db.read(&scope).await {
            Ok(mut reader) => users::by_id(&mut reader, user).await.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(error.kind(), StoreErrorKind::Unreachable, "{error}");
        assert!(begin.elapsed() < Duration::from_secs(5), "nobody waits for a server that refuses");
    }
    world.server().restart();
    assert_eq!(log_out(&world, &world.db, &scope, user).await.unwrap().value, 2);
}

#[tokio::test]
async fn frozen_server_keeps_nobody_for_ever_and_a_lost_answer_to_a_commit_is_unknown() {
    let world = World::new(Engine::Postgres).await;
    let (scope, user) = world.tenant("acme").await;
    let options = DbOptions { acquire: Duration::from_secs(3), answer: Duration::from_secs(2), ..DbOptions::default() };
    let db = world.node(&options).await;
    let server = world.server.as_ref().unwrap();

    let mut tx = db.change(&scope).await.unwrap();
    let epoch = users::bump_epoch(&mut tx, user).await.unwrap().unwrap();
    let event = world.event(scope.tenant(), EventKind::LoggedOutEverywhere { user, epoch });
    // Everything is written but the last word.
    tx.record(&event).await.unwrap();
    let other = world.event(scope.tenant(), EventKind::ServerStarted);
    let mut begun = Box::pin(tx.commit(other, ()));
    server.pause();
    let begin = Instant::now();
    let error = begun.as_mut().await.unwrap_err();
    assert!(matches!(error.kind(), StoreErrorKind::Unknown | StoreErrorKind::Unreachable), "{error}");
    let error = db.change(&scope).await.err().unwrap();
    assert_eq!(error.kind(), StoreErrorKind::Unreachable, "{error}");
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());

    server.resume();
    let mut tx = loop {
        match db.change(&scope).await {
            Ok(tx) => break tx,
            Err(error) => assert!(error.transient(), "{error}"),
        }
    };
    let epoch = users::by_id(&mut tx, user).await.unwrap().unwrap().epoch;
    assert!(epoch <= 1);
    let rows = audit::page(&mut tx, 0, audit::Filter::default(), 10).await.unwrap();
    assert_eq!(rows.len() as u64, 1 + 2 * epoch, "all of it, or nothing");
}

#[tokio::test]
async fn commit_whose_answer_is_lost_is_unknown() {
    let world = World::new(Engine::Postgres).await;
    let (scope, user) = world.tenant("acme").await;
    let options = DbOptions { answer: Duration::from_secs(2), ..DbOptions::default() };
    let db = world.node(&options).await;
    let server = world.server.as_ref().unwrap();
    // The primary waits for a standby that does not exist, as it does when a standby is lost.
    server.sql("bartizan", "ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    server.sql("bartizan", "SELECT pg_reload_conf()");
    while server.sql("bartizan", "SHOW synchronous_standby_names") != "nobody" {}
    let error = log_out(&world, &db, &scope, user).await.unwrap_err();
    assert_eq!((error.kind(), error.transient()), (StoreErrorKind::Unknown, false), "{error}");
    assert!(error.to_string().contains("may or may not have been kept"), "{error}");
}
