//! Every scoped statement, run beside a second tenant that holds the same ids: it sees and changes nothing there.

use std::path::Path;

use bartizan_core::audit::EventKind;
use bartizan_core::id::{EventId, SessionId, TenantId, UserId};
use bartizan_core::principal::Role;
use bartizan_core::time::Millis;
use bartizan_store::data_keys::DataKeyRow;
use bartizan_store::idempotency::IdempotencyRow;
use bartizan_store::value::{Column, FromRow, Row};
use bartizan_store::{Db, Scope, Scoped, StoreError, Value, data_keys, scoped_statements, sql::TENANT_TABLES};
use bartizan_testkit::PostgresServer;
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};
use tempfile::TempDir;

use crate::world::*;

on_both! {
    reference_to_another_tenants_row_is_refused_by_the_schema,
}

/// The database of the twins, and copies of it.
enum Stage {
    Sqlite(TempDir),
    Postgres(Box<PostgresServer>),
}

impl Stage {
    async fn new(engine: Engine) -> Self {
        let stage = match engine {
            Engine::Sqlite => Stage::Sqlite(tempfile::tempdir().unwrap()),
            Engine::Postgres => {
                let server = PostgresServer::start();
                server.create_database("twins");
                Stage::Postgres(Box::new(server))
            }
        };
        let db = match &stage {
            Stage::Sqlite(dir) => Db::open("sqlite:twins.db", dir.path()).await.unwrap(),
            Stage::Postgres(server) => Db::open(&server.url_of("twins"), Path::new("unused")).await.unwrap(),
        };
        twins(&db).await;
        db.close().await;
        stage
    }

    /// A copy of it, named `n`.
    async fn copy(&self, n: usize) -> Copy<'_> {
        let name = format!("copy{n}");
        let db = match self {
            Stage::Sqlite(dir) => {
                std::fs::copy(dir.path().join("twins.db"), dir.path().join(&name)).unwrap();
                Db::open(&format!("sqlite:{name}"), dir.path()).await.unwrap()
            }
            Stage::Postgres(server) => {
                server.sql("bartizan", &format!("CREATE DATABASE {name} TEMPLATE twins"));
                Db::open(&server.url_of(&name), Path::new("unused")).await.unwrap()
            }
        };
        Copy { stage: self, name, db }
    }
}

struct Copy<'a> {
    stage: &'a Stage,
    name: String,
    db: Db,
}

impl Copy<'_> {
    /// Everything the tenant owns, as text.
    async fn belongings(&self, tenant: TenantId) -> Vec<String> {
        let mut all: Vec<String> = match self.stage {
            Stage::Sqlite(_) => belongings(self.db.path().unwrap(), tenant).await,
            Stage::Postgres(server) => {
                let each = TENANT_TABLES
                    .iter()
                    .map(|table| format!("SELECT '{table} ' || t::text FROM {table} t WHERE tenant_id = '{tenant}'"));
                let all = server.sql(&self.name, &each.collect::<Vec<_>>().join(" UNION ALL "));
                all.lines().map(str::to_owned).collect()
            }
        };
        all.sort();
        all
    }
}

fn alpha() -> TenantId {
    TenantId::from_u128(0xa)
}
fn beta() -> TenantId {
    TenantId::from_u128(0xb)
}
fn user() -> UserId {
    UserId::from_u128(1)
}
fn session() -> SessionId {
    SessionId::from_u128(2)
}

/// Any row, as texts.
struct Texts(Vec<String>);

impl FromRow for Texts {
    fn from_row(row: &Row) -> Result<Self, StoreError> {
        let text = |index| {
            if let Ok(value) = Option::<i64>::read(row, index) {
                return format!("{value:?}");
            }
            match Option::<String>::read(row, index) {
                Ok(value) => format!("{value:?}"),
                Err(_) => String::from_utf8_lossy(&Vec::<u8>::read(row, index).unwrap()).into_owned(),
            }
        };
        Ok(Texts((0..row.width()).map(text).collect()))
    }
}

/// Two tenants with equal ids everywhere; only the sealed values, slugs, tags and hashes tell whose a row is.
async fn twins(db: &Db) {
    for (tenant, name) in [(alpha(), "alpha"), (beta(), "beta")] {
        let mut tx = db.change(&Scope::granted(tenant)).await.unwrap();
        new_tenant(&mut tx, name).await;
        new_user(&mut tx, user(), "same", Role::Owner).await;
        let hash = [u8::try_from(tenant.as_u128()).unwrap(); 32];
        new_session(&mut tx, session(), user(), hash, name).await;
        let key = DataKeyRow { id: 1, purpose: "field".into(), kek: "k1".into(), created_at: NOW, wrapped: mark(name) };
        data_keys::insert(&mut tx, &key).await.unwrap();
        tx.remember(&IdempotencyRow {
            scope_user: Some(user()),
            key_hash: [1; 32],
            request_digest: [2; 32],
            status: 201,
            response_sealed: mark(name),
            created: NOW,
            expires: later(60),
        })
        .await
        .unwrap();
        let kind = EventKind::LoggedIn { user: user(), session: session() };
        let mut event = event(EventId::from_u128(tenant.as_u128()), Some(tenant), kind);
        event.actor = bartizan_core::audit::Actor::User { id: user(), session: Some(session()) };
        let _ = tx.commit(event, ()).await.unwrap();
    }
}

/// Arguments from `$2` on with which the statement finds or changes something of its own tenant. `hash` is the
/// refresh token's digest, the one thing that cannot be equal in two tenants.
fn arguments(name: &str, hash: [u8; 32], fresh: &[u8]) -> Vec<Value> {
    let (usr, ses) = (Value::from(user()), Value::from(session()));
    let at = |seconds| Value::from(later(seconds));
    let fresh_text = String::from_utf8_lossy(fresh).trim().to_owned();
    let blob = || Value::from(fresh);
    let fresh_hash = || {
        let mut hash = [9; 32];
        hash[..16].copy_from_slice(fresh);
        Value::from(hash)
    };
    let new_user = || Value::from(UserId::from_u128(77));
    let same = || Value::from(mark("same"));
    match name {
        "audit::NUMBER" | "tenants::OWN" | "data_keys::ALL" | "users::ACTIVE_OWNERS" => vec![],
        "audit::APPEND" => vec![
            Value::from(99i64),
            Value::from(EventId::from_u128(fresh_hash_number(fresh))),
            at(0),
            "operator".into(),
            Value::Null,
            Value::Null,
            "server.started".into(),
            "ok".into(),
            "[]".into(),
            "{}".into(),
            Value::Null,
            Value::Null,
            "n1".into(),
        ],
        "audit::PAGE" => vec![Value::from(0i64), Value::from(10i64)],
        "audit::PAGE_BY_ACTION" => vec![Value::from(0i64), Value::from(10i64), "login.succeeded".into()],
        "audit::PAGE_BY_ACTOR" => vec![Value::from(0i64), Value::from(10i64), usr],
        "audit::PAGE_BY_BOTH" => vec![Value::from(0i64), Value::from(10i64), usr, "login.succeeded".into()],
        "blind_index::INSERT" => {
            vec!["users".into(), "email".into(), Value::from(1i64), blob(), Value::from("usr_x")]
        }
        "blind_index::FIND" => vec!["users".into(), "email".into(), Value::from(1i64), same()],
        "blind_index::DELETE" => vec!["users".into(), "email".into(), usr],
        "data_keys::INSERT" => vec![Value::from(2i64), "field".into(), "k1".into(), at(0), blob()],
        "data_keys::REWRAP" => vec![Value::from(1i64), "k2".into(), blob(), "k1".into()],
        "idempotency::INSERT" => {
            vec![fresh_hash(), usr, Value::from([2; 32]), Value::from(200i64), blob(), at(0), at(60)]
        }
        "idempotency::FIND" => vec![Value::from([1; 32]), at(1)],
        "refresh_tokens::INSERT" => vec![ses, Value::from(5i64), fresh_hash(), at(60)],
        "refresh_tokens::SPEND" => vec![ses, Value::from(0i64), Value::from(hash), at(1), blob(), fresh_hash()],
        "refresh_tokens::ADVANCE" => vec![ses, Value::from(0i64), at(1), at(60)],
        "sessions::INSERT" => {
            vec![Value::from(SessionId::from_u128(77)), usr, at(0), at(1), at(2), Value::Null, blob()]
        }
        "sessions::BY_ID" => vec![ses],
        "sessions::LIVE_OF_USER" => vec![usr, at(1), "".into(), Value::from(10i64)],
        "sessions::KNOWS_DEVICE" => vec![usr, same()],
        "sessions::TOUCH" | "sessions::END" => vec![ses, at(1)],
        "sessions::END_ALL" => vec![usr, "".into(), at(1)],
        "sessions::END_OF_TENANT" => vec![at(1)],
        "tenants::INSERT" => vec![fresh_text.into(), blob(), "free".into(), at(0)],
        "tenants::SET_TIER" => vec!["pro".into(), at(1)],
        "tenants::SET_STATUS" => vec!["suspended".into(), at(1)],
        "tenants::SET_NAME" => vec![blob(), at(1)],
        "users::INSERT" => vec![new_user(), blob(), blob(), "member".into(), "$argon2id$".into(), at(0)],
        "users::BY_ID" | "users::BUMP_EPOCH" | "users::DELETE" => vec![usr],
        "users::BY_TAG" => vec!["email".into(), Value::from(1i64), same()],
        "users::PAGE" => vec!["".into(), Value::from(10i64)],
        "users::SET_FIELDS" => vec![usr, blob(), Value::Null, at(1)],
        "users::SET_ROLE" => vec![usr, "admin".into(), at(1)],
        "users::SET_STATUS" => vec![usr, "disabled".into(), at(1)],
        "users::SET_PASSWORD" => vec![usr, "$argon2id$new".into(), at(1)],
        "users::LOGGED_IN" => vec![usr, at(1)],
        other => panic!("a new scoped statement {other}: give the contract test its arguments"),
    }
}

fn fresh_hash_number(fresh: &[u8]) -> u128 {
    u128::from_be_bytes(fresh.try_into().unwrap())
}

async fn belongings(path: &Path, tenant: TenantId) -> Vec<String> {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    let mut conn = SqliteConnection::connect_with(&options).await.unwrap();
    let mut all = Vec::new();
    for table in TENANT_TABLES {
        let columns: Vec<(String,)> =
            sqlx::query_as("SELECT name FROM pragma_table_info($1)").bind(*table).fetch_all(&mut conn).await.unwrap();
        let quoted: Vec<String> = columns.iter().map(|(name,)| format!("quote({name})")).collect();
        let sql = format!("SELECT '{table} ' || {} FROM {table} WHERE tenant_id = $1", quoted.join(" || ' ' || "));
        let rows: Vec<(String,)> =
            sqlx::query_as(AssertSqlSafe(sql)).bind(tenant.to_string()).fetch_all(&mut conn).await.unwrap();
        all.extend(rows.into_iter().map(|(row,)| row));
    }
    conn.close().await.unwrap();
    all
}

/// Runs the statement for `tenant` and keeps what it did; the rows it answered and the number it changed.
async fn run(
    db: &Db,
    tenant: TenantId,
    statement: Scoped,
    args: Vec<Value>,
    n: u128,
) -> Result<(Vec<Texts>, u64), StoreError> {
    let mut tx = db.change(&Scope::granted(tenant)).await?;
    let text = statement.text();
    let answer = if text.starts_with("SELECT") || text.contains("RETURNING") {
        (tx.rows(statement, args).await?, 0)
    } else {
        (Vec::new(), tx.run(statement, args).await?)
    };
    if text.starts_with("SELECT") {
        tx.cancel().await?;
    } else {
        let event = event(EventId::from_u128(n), Some(tenant), EventKind::ServerStarted);
        let _ = tx.commit(event, ()).await?;
    }
    Ok(answer)
}

async fn stays_inside(copy: &Copy<'_>, name: &str, statement: Scoped) {
    let name = name.strip_prefix("bartizan_store::queries::").unwrap();
    let db = &copy.db;
    let before = (copy.belongings(alpha()).await, copy.belongings(beta()).await);
    assert!(before.0.len() > 8 && before.1.len() == before.0.len());

    // A tenant that has nothing: finds nothing, touches nobody. An INSERT of his own may fail or succeed.
    let empty = TenantId::from_u128(0xc);
    if let Ok((rows, changed)) = run(db, empty, statement, arguments(name, [0xa; 32], &mark("fresh-c")), 100).await {
        let inserts = statement.text().starts_with("INSERT");
        assert!(inserts || changed == 0, "{name} changed {changed} rows of others");
        assert!(
            inserts || rows.iter().all(|row| row.0 == ["Some(0)"]),
            "{name} shows rows of others to a tenant without any"
        );
    }
    assert_eq!(copy.belongings(alpha()).await, before.0, "{name} reached into another tenant");
    assert_eq!(copy.belongings(beta()).await, before.1, "{name} reached into another tenant");

    // The twin, with the other's refresh digest: nothing of the other.
    if let Ok((rows, _)) = run(db, beta(), statement, arguments(name, [0xa; 32], &mark("fresh-b")), 101).await {
        assert!(
            !rows.iter().any(|row| row
                .0
                .iter()
                .any(|text| text.contains("alpha") || text.contains("ten_0000000000000000000000000000000a"))),
            "{name} shows rows of another tenant"
        );
        assert!(rows.len() <= 2, "{name} shows more than is his");
    }
    assert_eq!(copy.belongings(alpha()).await, before.0, "{name} reached into the twin");

    // The owner himself: the arguments do find or change something, so the above was no empty proof.
    let (rows, changed) = match run(db, alpha(), statement, arguments(name, [0xa; 32], &mark("fresh-a")), 102).await {
        Ok(answer) => answer,
        // The one row that cannot be inserted twice.
        Err(error) if name == "tenants::INSERT" => {
            assert!(matches!(error.kind(), bartizan_store::StoreErrorKind::Duplicate(_)));
            return;
        }
        Err(error) => panic!("{name}: {error}: {error:?}"),
    };
    assert!(!rows.is_empty() || changed > 0, "{name}: the arguments find nothing, the test proves nothing");
}

async fn every_scoped_statement_stays_inside_its_tenant(engine: Engine) {
    let stage = Stage::new(engine).await;
    let statements = scoped_statements();
    assert!(statements.len() > 30);
    // What only reads leaves no trace, so it shares one copy.
    let (reads, writes): (Vec<_>, Vec<_>) =
        statements.into_iter().partition(|(_, statement)| statement.text().starts_with("SELECT"));
    let copy = stage.copy(0).await;
    for (name, statement) in reads {
        stays_inside(&copy, name, statement).await;
    }
    copy.db.close().await;
    for (n, (name, statement)) in writes.into_iter().enumerate() {
        let copy = stage.copy(n + 1).await;
        stays_inside(&copy, name, statement).await;
        copy.db.close().await;
    }
}

#[tokio::test]
async fn every_scoped_statement_stays_inside_its_tenant_on_sqlite() {
    every_scoped_statement_stays_inside_its_tenant(Engine::Sqlite).await;
}

#[tokio::test]
async fn every_scoped_statement_stays_inside_its_tenant_on_postgres() {
    every_scoped_statement_stays_inside_its_tenant(Engine::Postgres).await;
}

async fn reference_to_another_tenants_row_is_refused_by_the_schema(world: World) {
    let (alpha, alice) = world.tenant("alpha").await;
    let (beta, _) = world.tenant("beta").await;
    let _ = world.session(&alpha, alice).await;
    let mut tx = world.db.change(&beta).await.unwrap();
    let session = bartizan_store::sessions::NewSession {
        id: SessionId::new(NOW, world.random()),
        user_id: alice,
        created_at: NOW,
        idle_expires_at: Millis(NOW.0 + 1),
        absolute_expires_at: Millis(NOW.0 + 1),
        device_hash: None,
        client_sealed: b"x",
    };
    let error = bartizan_store::sessions::insert(&mut tx, &session).await.unwrap_err();
    assert_eq!(error.kind(), bartizan_store::StoreErrorKind::Constraint);
}
