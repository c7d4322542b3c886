//! A database of one's own, on either engine; ids, and events.

use std::sync::atomic::{AtomicU64, Ordering};

use bartizan_core::audit::{Actor, AuditEvent, EventKind, Origin};
use bartizan_core::id::{EventId, SessionId, TenantId, UserId};
use bartizan_core::principal::{Role, Tier};
use bartizan_core::secret::Secret;
use bartizan_core::time::Millis;
use bartizan_store::blind_index::Tag;
use bartizan_store::sessions::NewSession;
use bartizan_store::tenants::NewTenant;
use bartizan_store::users::NewUser;
use bartizan_store::{Db, DbOptions, PlatformScope, Scope, Tx, refresh_tokens, sessions, tenants, users};
use bartizan_testkit::PostgresServer;
use tempfile::TempDir;

/// The moment at which tests take place.
pub(crate) const NOW: Millis = Millis(1_800_000_000_000);

pub(crate) fn later(seconds: i64) -> Millis {
    Millis(NOW.0 + seconds * 1000)
}

/// Sixteen bytes that say who they belong to.
pub(crate) fn mark(owner: &str) -> Vec<u8> {
    format!("{owner:>16}").into_bytes()
}

pub(crate) fn platform() -> PlatformScope {
    PlatformScope::granted("a test looks at everything")
}

/// Which database a test runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    Sqlite,
    Postgres,
}

/// Makes a test on each database out of each function that takes a [`World`]. One that is not listed is dead code.
macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $name() {
                super::$name($crate::world::World::new($crate::world::Engine::Sqlite).await).await;
            })+
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $name() {
                super::$name($crate::world::World::new($crate::world::Engine::Postgres).await).await;
            })+
        }
    };
}
pub(crate) use on_both;

/// A database of its own.
pub(crate) struct World {
    pub(crate) db: Db,
    pub(crate) server: Option<PostgresServer>,
    dir: TempDir,
    serial: AtomicU64,
}

impl World {
    pub(crate) async fn new(engine: Engine) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = (engine == Engine::Postgres).then(PostgresServer::start);
        let url = server.as_ref().map_or_else(|| "sqlite:world.db".to_owned(), PostgresServer::url);
        let db = Db::open(&url, dir.path()).await.unwrap();
        Self { db, server, dir, serial: AtomicU64::new(1) }
    }

    /// Closes the database and leaves its directory.
    pub(crate) async fn into_dir(self) -> TempDir {
        self.db.close().await;
        self.dir
    }

    /// The server, for tests on PostgreSQL.
    pub(crate) fn server(&mut self) -> &mut PostgresServer {
        self.server.as_mut().unwrap()
    }

    /// Another node on the same database, for tests on PostgreSQL.
    pub(crate) async fn node(&self, options: &DbOptions) -> Db {
        Db::open_with(&self.server.as_ref().unwrap().url(), self.dir.path(), options).await.unwrap()
    }

    pub(crate) fn random(&self) -> [u8; 10] {
        let mut bytes = [0; 10];
        bytes[2..].copy_from_slice(&self.serial.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        bytes
    }

    pub(crate) fn event(&self, tenant: TenantId, kind: EventKind) -> AuditEvent {
        let id = EventId::new(NOW, self.random());
        event(id, Some(tenant), kind)
    }

    /// A tenant with one owner.
    pub(crate) async fn tenant(&self, slug: &str) -> (Scope, UserId) {
        let tenant = TenantId::new(NOW, self.random());
        let owner = UserId::new(NOW, self.random());
        let scope = Scope::granted(tenant);
        let mut tx = self.db.change(&scope).await.unwrap();
        new_tenant(&mut tx, slug).await;
        new_user(&mut tx, owner, slug, Role::Owner).await;
        let event = self.event(tenant, EventKind::TenantCreated { tenant, owner });
        let _ = tx.commit(event, ()).await.unwrap();
        (scope, owner)
    }

    /// A session of the user with its first refresh token, whose digest is returned.
    pub(crate) async fn session(&self, scope: &Scope, user: UserId) -> (SessionId, [u8; 32]) {
        let session = SessionId::new(NOW, self.random());
        let mut hash = [0; 32];
        hash[..16].copy_from_slice(session.as_bytes());
        let mut tx = self.db.change(scope).await.unwrap();
        new_session(&mut tx, session, user, hash, "client").await;
        let event = self.event(scope.tenant(), EventKind::LoggedIn { user, session });
        let _ = tx.commit(event, ()).await.unwrap();
        (session, hash)
    }
}

pub(crate) fn event(id: EventId, tenant: Option<TenantId>, kind: EventKind) -> AuditEvent {
    let origin = Origin { ip: Some([192, 0, 2, 7].into()), request: None, node: "n1".into() };
    AuditEvent { id, at: NOW, tenant, actor: Actor::Operator, origin, kind }
}

pub(crate) async fn new_tenant(tx: &mut Tx, slug: &str) {
    let name = mark(slug);
    let tenant = NewTenant { slug, name_sealed: Some(&name), tier: Tier::Free, created_at: NOW };
    tenants::insert(tx, &tenant).await.unwrap();
}

/// A user whose sealed fields and tag are made from `owner`.
pub(crate) async fn new_user(tx: &mut Tx, id: UserId, owner: &str, role: Role) {
    let sealed = mark(owner);
    let user = NewUser {
        id,
        email_sealed: &sealed,
        email_tag: Tag { key_id: 1, tag: &sealed },
        name_sealed: &sealed,
        role,
        password_hash: &Secret::new(format!("$argon2id${owner}")),
        created_at: NOW,
    };
    users::insert(tx, &user).await.unwrap();
}

pub(crate) async fn new_session(tx: &mut Tx, id: SessionId, user: UserId, hash: [u8; 32], owner: &str) {
    let (sealed, device) = (mark(owner), mark("same"));
    let session = NewSession {
        id,
        user_id: user,
        created_at: NOW,
        idle_expires_at: later(1000),
        absolute_expires_at: later(9000),
        device_hash: Some(&device),
        client_sealed: &sealed,
    };
    sessions::insert(tx, &session).await.unwrap();
    refresh_tokens::insert(tx, id, 0, hash, later(1000)).await.unwrap();
}

/// Does the work until it has told of its progress `steps` times, then lets it go as a crash would: nothing.
pub(crate) async fn unless_cut_short<F: Future>(
    steps: usize,
    work: impl FnOnce(Box<dyn Fn() + Send + Sync>) -> F,
) -> Option<F::Output> {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let working = work(Box::new(move || {
        let _ = tell.send(());
    }));
    let enough = async {
        for _ in 0..steps {
            if told.recv().await.is_none() {
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        biased;
        () = enough => None,
        done = working => Some(done),
    }
}
