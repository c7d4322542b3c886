//! kill -9 at every point of a change: afterwards state, trail and effects agree, and what was promised is there.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bartizan_core::audit::{Effect, EventKind};
use bartizan_core::id::{EventId, TenantId, UserId};
use bartizan_core::principal::Role;
use bartizan_store::words::UserStatus;
use bartizan_store::{Db, EFFECT_LIFE, Scope, audit, sessions, users};

use crate::world::*;

const PLAN: &str = "BARTIZAN_STORE_CRASH_PLAN";
const DIR: &str = "BARTIZAN_STORE_CRASH_DIR";

fn scope() -> Scope {
    Scope::granted(TenantId::from_u128(1))
}

fn user() -> UserId {
    UserId::from_u128(2)
}

/// The points of one change at which the child waits for its death.
const POINTS: [&str; 5] = ["begun", "first-write", "second-write", "recorded", "committed"];

/// Not a test by itself: what the other tests start as a child and kill.
#[test]
fn child() {
    let (Ok(plan), Ok(dir)) = (std::env::var(PLAN), std::env::var(DIR)) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let db = Db::open("sqlite:crash.db", Path::new(&dir)).await.unwrap();
        if plan == "endless" { endless(&db).await } else { one_change(&db, &plan).await }
    });
}

fn wait_for_death(at: &str, plan: &str) {
    if at == plan {
        println!("\nreached {at}");
        loop {
            std::thread::park();
        }
    }
}

async fn one_change(db: &Db, plan: &str) {
    let mut tx = db.change(&scope()).await.unwrap();
    wait_for_death("begun", plan);
    let epoch = users::set_status(&mut tx, user(), UserStatus::Disabled, NOW).await.unwrap().unwrap();
    wait_for_death("first-write", plan);
    sessions::end_all(&mut tx, user(), None, NOW).await.unwrap();
    wait_for_death("second-write", plan);
    let kind = EventKind::UserDisabled { user: user(), epoch };
    tx.record(&event(EventId::from_u128(50), Some(scope().tenant()), kind)).await.unwrap();
    wait_for_death("recorded", plan);
    let kind = EventKind::TenantUpdated { fields: vec!["name"] };
    let _ = tx.commit(event(EventId::from_u128(51), Some(scope().tenant()), kind), ()).await.unwrap();
    wait_for_death("committed", plan);
}

async fn endless(db: &Db) {
    for n in 100u128.. {
        let mut tx = db.change(&scope()).await.unwrap();
        let epoch = users::bump_epoch(&mut tx, user()).await.unwrap().unwrap();
        let kind = EventKind::LoggedOutEverywhere { user: user(), epoch };
        let _ = tx.commit(event(EventId::from_u128(n), Some(scope().tenant()), kind), ()).await.unwrap();
        println!("\nreached {epoch}");
    }
}

async fn prepare(dir: &Path) {
    let db = Db::open("sqlite:crash.db", dir).await.unwrap();
    let mut tx = db.change(&scope()).await.unwrap();
    new_tenant(&mut tx, "acme").await;
    new_user(&mut tx, user(), "acme", Role::Owner).await;
    let kind = EventKind::TenantCreated { tenant: scope().tenant(), owner: user() };
    let _ = tx.commit(event(EventId::from_u128(1), Some(scope().tenant()), kind), ()).await.unwrap();
    db.close().await;
}

fn start(plan: &str, dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child", "--nocapture", "--test-threads", "1"])
        .env(PLAN, plan)
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Reads what the child reached until `enough`, then kills it with SIGKILL. Returns all that it had reached.
fn kill_when(mut child: Child, enough: impl Fn(&[String]) -> bool) -> Vec<String> {
    let mut reached = Vec::new();
    let mut killed = false;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some(point) = line.strip_prefix("reached ") {
            reached.push(point.to_owned());
            if !killed && enough(&reached) {
                child.kill().unwrap();
                killed = true;
            }
        }
    }
    child.wait().unwrap();
    assert!(killed, "the child ended by itself: {reached:?}");
    reached
}

#[tokio::test]
async fn killed_between_any_two_statements_all_or_nothing_is_there() {
    for point in POINTS {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path()).await;
        kill_when(start(point, dir.path()), |reached| !reached.is_empty());

        let db = Db::open("sqlite:crash.db", dir.path()).await.unwrap();
        let mut reader = db.read(&scope()).await.unwrap();
        let user_row = users::by_id(&mut reader, user()).await.unwrap().unwrap();
        let rows = audit::page(&mut reader, 0, audit::Filter::default(), 10).await.unwrap();
        let effects = db.load_effects(NOW).await.unwrap().effects;
        if point == "committed" {
            assert_eq!((user_row.status, rows.len()), (UserStatus::Disabled, 3), "{point}");
            assert_eq!(effects, [(Effect::RaiseUserEpoch(user(), 1), NOW + EFFECT_LIFE)], "{point}");
        } else {
            assert_eq!((user_row.status, user_row.epoch, rows.len()), (UserStatus::Active, 0, 1), "{point}");
            assert_eq!(effects, [], "{point}");
        }
        db.check().await.unwrap();
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill_in_full_flight() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path()).await;
    let mut acknowledged = 0u64;
    for kills in [3, 17, 40] {
        let reached = kill_when(start("endless", dir.path()), |reached| reached.len() == kills);
        acknowledged = reached.last().unwrap().parse::<u64>().unwrap().max(acknowledged);

        let db = Db::open("sqlite:crash.db", dir.path()).await.unwrap();
        let mut reader = db.read(&scope()).await.unwrap();
        let epoch = users::by_id(&mut reader, user()).await.unwrap().unwrap().epoch;
        assert!(epoch >= acknowledged, "epoch {epoch} was promised to be {acknowledged}");
        let rows = audit::page(&mut reader, 0, audit::Filter::default(), 10_000).await.unwrap();
        let numbers: Vec<i64> = rows.iter().map(|row| row.tseq.unwrap()).collect();
        assert_eq!(numbers, (1..=i64::try_from(epoch).unwrap() + 1).collect::<Vec<_>>());
        let effects = db.load_effects(NOW).await.unwrap().effects;
        assert_eq!(effects.last().unwrap().0, Effect::RaiseUserEpoch(user(), epoch));
        assert_eq!(effects.len() as u64, epoch);
        drop(reader);
        db.close().await;
        // The next child uses event ids that are taken: give it fresh ones by moving on.
        if kills < 40 {
            let again = tempfile::tempdir().unwrap();
            prepare(again.path()).await;
            std::fs::rename(again.path().join("crash.db"), dir.path().join("crash.db")).unwrap();
            acknowledged = 0;
        }
    }
}
