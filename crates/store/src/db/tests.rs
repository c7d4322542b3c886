//! What can only be provoked from inside: a disk that is full.

use bartizan_core::audit::{Actor, AuditEvent, EventKind, Origin};
use bartizan_core::id::{EventId, TenantId};
use bartizan_core::principal::Tier;
use bartizan_core::time::Millis;

use super::*;
use crate::error::StoreErrorKind;
use crate::queries::{meta, tenants};

const NOW: Millis = Millis(1_800_000_000_000);

fn file(db: &Db) -> &sqlite::Sqlite {
    match &db.inner.engine {
        Engine::Sqlite(sqlite) => sqlite,
        Engine::Postgres(_) => panic!("not a file"),
    }
}

/// Lets the file grow to so many pages and no further: what SQLite then answers is SQLITE_FULL.
async fn limit(db: &Db, pages: i64) {
    let writer = &file(db).writer;
    let sql = format!("PRAGMA max_page_count = {pages}");
    sqlx::query(sqlx::AssertSqlSafe(sql)).execute(writer).await.unwrap();
}

async fn pages(db: &Db) -> i64 {
    let writer = &file(db).writer;
    let (count,): (i64,) = sqlx::query_as("PRAGMA page_count").fetch_one(writer).await.unwrap();
    count
}

fn resumed(tenant: TenantId, n: u8) -> AuditEvent {
    AuditEvent {
        id: EventId::new(NOW, [n; 10]),
        at: NOW,
        tenant: Some(tenant),
        actor: Actor::Operator,
        origin: Origin::default(),
        kind: EventKind::TenantUpdated { fields: vec!["name"] },
    }
}

#[tokio::test]
async fn full_disk_refuses_the_change_loses_nothing_and_heals_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open("sqlite:full.db", dir.path()).await.unwrap();
    let tenant = TenantId::new(NOW, [1; 10]);
    let scope = Scope::granted(tenant);
    let new = tenants::NewTenant { slug: "acme", name_sealed: None, tier: Tier::Free, created_at: NOW };
    let mut tx = db.change(&scope).await.unwrap();
    tenants::insert(&mut tx, &new).await.unwrap();
    let _ = tx.commit(resumed(tenant, 0), ()).await.unwrap();

    let large = vec![7; 100_000];
    for _ in 0..2 {
        // Each time: after the failure the writer is a new connection.
        limit(&db, pages(&db).await + 1).await;
        let mut tx = db.change(&scope).await.unwrap();
        let error = tenants::set_name(&mut tx, Some(&large), NOW).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Full);
        assert!(error.to_string().contains("free space"), "{error}");
        // SQLite may have rolled back by itself: a service that ignored the error must not keep half a change.
        let error = tx.commit(resumed(tenant, 1), ()).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Misuse);
    }

    limit(&db, 1_000_000).await;
    let mut tx = db.change(&scope).await.unwrap();
    tenants::set_name(&mut tx, Some(&large), NOW).await.unwrap();
    let done = tx.commit(resumed(tenant, 2), ()).await.unwrap();
    assert_eq!(done.seq, 2, "the refused changes left no row");
    assert_eq!(db.abandoned(), 0);
    db.check().await.unwrap();
}

#[tokio::test]
async fn what_ran_quietly_is_kept_without_a_row_and_what_did_not_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open("sqlite:quiet.db", dir.path()).await.unwrap();
    let scope = PlatformScope::granted("test");
    let mut tx = db.change_platform(&scope).await.unwrap();
    meta::set(&mut tx, "node", "n1").await.unwrap();
    tx.commit_quietly(()).await.unwrap();
    let mut reader = db.read_platform(&scope).await.unwrap();
    assert_eq!(meta::find(&mut reader, "node").await.unwrap().as_deref(), Some("n1"));
}

#[tokio::test]
async fn connections_keep_the_promises_of_durability() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open("sqlite:pragmas.db", dir.path()).await.unwrap();
    let sqlite::Sqlite { writer, readers, .. } = file(&db);
    let ask = async |pool, pragma: &str| {
        let sql = sqlx::AssertSqlSafe(format!("SELECT CAST(\"{pragma}\" AS TEXT) FROM pragma_{pragma}"));
        sqlx::query_as::<_, (String,)>(sql).fetch_one(pool).await.unwrap().0
    };
    assert_eq!(ask(writer, "journal_mode").await, "wal");
    assert_eq!(ask(writer, "synchronous").await, "2", "FULL");
    for pool in [writer, readers] {
        assert_eq!(ask(pool, "foreign_keys").await, "1");
        assert_eq!(ask(pool, "trusted_schema").await, "0");
    }
}
