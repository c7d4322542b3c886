//! A database that moves from a file to a server: all of it, from wherever it was cut short, and into nothing else.

use std::path::Path;

use bartizan_core::audit::EventKind;
use bartizan_store::db::{Progress, Transferred, transfer};
use bartizan_store::{Db, DbOptions, StoreError, StoreErrorKind};
use bartizan_testkit::PostgresServer;
use tempfile::TempDir;

use crate::world::{Engine, NOW, World, unless_cut_short};

/// A file with a tenant, sessions, refresh tokens and a long trail, closed.
async fn source() -> TempDir {
    let world = World::new(Engine::Sqlite).await;
    let (scope, user) = world.tenant("acme").await;
    for _ in 0..3 {
        let _ = world.session(&scope, user).await;
    }
    let events: Vec<_> = (0..1_200).map(|_| world.event(scope.tenant(), EventKind::ServerStarted)).collect();
    let _ = world.db.record_all(&events).await.unwrap();
    for epoch in 1..=3 {
        let ended = EventKind::LoggedOutEverywhere { user, epoch };
        let _ = world.db.record_alone(world.event(scope.tenant(), ended)).await.unwrap();
    }
    // What is over and removed has had its numbers all the same.
    let _ = world.db.prune(NOW + std::time::Duration::from_secs(86_400)).await.unwrap();
    world.into_dir().await
}

async fn moved(dir: &Path, target: &str, progress: impl FnMut(Progress)) -> Result<Transferred, StoreError> {
    transfer("sqlite:world.db", dir, target, &DbOptions::default(), progress).await
}

/// Runs a transfer until it has told of its progress `steps` times, then lets it go as a crash would.
async fn cut_short(dir: &Path, target: &str, steps: usize) -> bool {
    let done = unless_cut_short(steps, |tell| moved(dir, target, move |_| tell())).await;
    done.map(Result::unwrap).is_none()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_move_cut_short_again_and_again_arrives_whole_and_numbers_go_on() {
    let dir = source().await;
    let server = PostgresServer::start();
    let mut steps = 1;
    while cut_short(dir.path(), &server.url(), steps).await {
        let half = Db::open(&server.url(), dir.path()).await.map(drop).unwrap_err();
        assert_eq!(half.kind(), StoreErrorKind::Occupied, "{half}");
        steps += 3;
    }
    assert!(steps > 10, "{steps}");
    assert!(matches!(moved(dir.path(), &server.url(), |_| {}).await.unwrap(), Transferred::Before(_)));
    assert_eq!(server.sql("bartizan", "SELECT count(*), count(DISTINCT seq), max(tseq) FROM audit"), "1207|1207|1207");
    let next = "SELECT last_value >= (SELECT max(seq) FROM effects) FROM effects_seq_seq";
    assert_eq!(server.sql("bartizan", next), "t");
    assert_eq!(server.sql("bartizan", "SELECT last_value, is_called FROM audit_seq_seq"), "1207|t");
    let db = Db::open(&server.url(), dir.path()).await.unwrap();
    db.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn only_an_empty_database_takes_another_in() {
    let dir = source().await;
    let server = PostgresServer::start();
    let refused = async |target: &str, words: &str| {
        let error = moved(dir.path(), target, |_| {}).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Occupied, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    };
    let foreign = server.create_database("foreign");
    server.sql("foreign", "CREATE SCHEMA shop; CREATE TABLE shop.orders (id INT)");
    refused(&foreign, "shop.orders").await;
    assert_eq!(server.sql("foreign", "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"), "0");

    let used = server.create_database("used");
    let db = Db::open(&used, dir.path()).await.unwrap();
    let started = crate::world::event(bartizan_core::id::EventId::new(NOW, [7; 10]), None, EventKind::ServerStarted);
    let _ = db.record_alone(started).await.unwrap();
    db.close().await;
    refused(&used, "a server already runs").await;

    // The old server ran again after the move had begun.
    assert!(cut_short(dir.path(), &server.url(), 12).await);
    let old = Db::open("sqlite:world.db", dir.path()).await.unwrap();
    let again = moved(dir.path(), &server.url(), |_| {}).await.unwrap_err();
    assert_eq!(again.kind(), StoreErrorKind::Locked, "{again}");
    let started = crate::world::event(bartizan_core::id::EventId::new(NOW, [8; 10]), None, EventKind::ServerStarted);
    let _ = old.record_alone(started).await.unwrap();
    old.close().await;
    drop(old);
    refused(&server.url(), "ran again").await;

    let nothing = tempfile::tempdir().unwrap();
    let error = moved(nothing.path(), &server.url(), |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("no SQLite database to move"), "{error}");
    assert_eq!(nothing.path().read_dir().unwrap().count(), 0, "a look creates nothing");
}
