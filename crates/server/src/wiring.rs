//! Where the binary meets the library: everything that touches the engine is in this file.

use std::path::Path;
use std::time::Duration;

use bartizan::api::Failure;
use bartizan::clock::Clock;
use bartizan::noted_time::{self, Acceptance};
use bartizan::settings::Settings;
use bartizan_core::error::{Code, Refusal};
use bartizan_core::time::Millis;
use bartizan_keys::{FileKeyring, SecretSource};
use bartizan_store::words::TenantStatus;
use bartizan_store::{Db, PlatformScope, StoreErrorKind, meta};
use serde::Serialize;
use serde_json::Value;

use crate::admin::Command;
use crate::exit::{Exit, Stop};

pub use bartizan::Peer;
pub use bartizan::application::{Answering, Application};
pub use bartizan::engine::Engine;

/// Starts the engine; says how to mend what prevents it.
pub async fn start(settings: Settings) -> Result<Engine, Stop> {
    Engine::start(settings).await.map_err(|error| Stop::new(Exit::Failed, error.to_string()))
}

/// Creates all secrets in `dir`. Those that exist stay: an interrupted `init` can be repeated.
pub fn create_secrets(dir: &Path) -> Result<(), Stop> {
    let made = FileKeyring::create(&SecretSource::dir(dir));
    made.map(drop).map_err(|faults| Stop::new(Exit::Failed, faults.to_string()))
}

/// What is wrong with the secrets: empty, short, placeholder, readable by others. Changes nothing.
pub fn check_secrets(source: &SecretSource) -> Result<(), String> {
    FileKeyring::open(source).map(drop).map_err(|faults| faults.to_string())
}

/// What a look at the database found.
#[derive(Debug)]
pub struct Examined {
    /// Whether it opens and is of a version this program knows; either answer is what to show.
    pub state: Result<String, String>,
    /// The latest moment it has seen; `None` while it is new, or a running server holds it.
    pub seen: Option<Millis>,
}

/// Opens the database, reads all of it, and closes it again.
pub async fn examine_database(settings: &Settings) -> Examined {
    let path = settings.data.join(settings.database.strip_prefix("sqlite:").unwrap_or_default());
    let told = |state| Examined { state, seen: None };
    if !path.exists() {
        return told(Ok("not created yet".into()));
    }
    match Db::open(&settings.database, &settings.data).await {
        Ok(db) => {
            let sound = db.check().await.map_err(|error| error.to_string());
            let seen = last_seen(&db).await;
            db.close().await;
            Examined { state: sound.map(|()| format!("{} is sound", path.display())), seen }
        }
        Err(error) if error.kind() == StoreErrorKind::Locked => {
            told(Ok(format!("{} is in use by a running server", path.display())))
        }
        Err(error) => told(Err(error.to_string())),
    }
}

/// Takes this machine's clock for right; see [`bartizan::noted_time`].
pub async fn accept_clock(settings: &Settings) -> Result<Acceptance, Stop> {
    // A look must not create a database.
    if settings.database.strip_prefix("sqlite:").is_some_and(|file| !settings.data.join(file).exists()) {
        return Ok(Acceptance::Unneeded);
    }
    noted_time::accept(settings, &Clock::system()).await.map_err(|error| Stop::new(Exit::Failed, error.to_string()))
}

async fn last_seen(db: &Db) -> Option<Millis> {
    let mut reader = db.read_platform(&PlatformScope::granted("doctor: the time belongs to everybody")).await.ok()?;
    meta::find(&mut reader, meta::LAST_SEEN).await.ok()??.parse().ok().map(Millis)
}

/// Every declared route, one object each: method, path, access, rate, what it is for.
pub fn routes() -> Result<Value, Stop> {
    let table = bartizan::engine::table().map_err(|error| Stop::new(Exit::Failed, error.to_string()))?;
    serde_json::to_value(table).map_err(|error| Stop::new(Exit::Failed, error.to_string()))
}

/// Carries out an operator's command.
pub async fn carry_out(engine: &Engine, command: Command) -> Result<Value, Refusal> {
    let operator = engine.operator();
    match command {
        Command::TenantLs {} => show(operator.tenants().await),
        Command::TenantAdd { slug, name, email, password } => {
            show(operator.add_tenant(&slug, &name, &email, password.0).await)
        }
        Command::TenantSetTier { slug, tier } => show(operator.set_tier(&slug, tier).await),
        Command::TenantSuspend { slug } => show(operator.set_status(&slug, TenantStatus::Suspended).await),
        Command::TenantResume { slug } => show(operator.set_status(&slug, TenantStatus::Active).await),
        Command::UserLs { tenant } => show(operator.users(&tenant).await),
        Command::UserAdd { tenant, email, name, role, password } => {
            show(operator.add_user(&tenant, &email, &name, role, password.0).await)
        }
        Command::UserDisable { tenant, user } => show(operator.disable_user(&tenant, &user).await),
        Command::SessionLs { tenant, user } => show(operator.sessions(&tenant, &user).await),
        Command::SessionRevoke { tenant, session } => show(operator.revoke_session(&tenant, &session).await),
        Command::BlockLs {} => show(operator.blocks().await),
        Command::BlockAdd { cidr, ttl, reason } => {
            show(operator.add_block(cidr, ttl.map(Duration::from_secs), &reason).await)
        }
        Command::BlockRm { id } => show(operator.remove_block(&id).await),
        Command::AuditTail { after, limit } => show(operator.audit_tail(after, limit).await),
    }
}

/// Whether the tenant `slug` exists: how `dev` knows whether its demo tenant is still to be made.
pub async fn has_tenant(engine: &Engine, slug: &str) -> Result<bool, Stop> {
    let tenants = carry_out(engine, Command::TenantLs {}).await;
    let tenants = tenants.map_err(|refusal| Stop::new(Exit::Failed, refusal.detail.to_string()))?;
    let tenants = tenants.as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(tenants.iter().any(|tenant| tenant.get("slug").and_then(Value::as_str) == Some(slug)))
}

/// The answer as JSON. A fault is logged here, once, and told without its cause.
fn show<T: Serialize>(answer: Result<T, Failure>) -> Result<Value, Refusal> {
    match answer {
        Ok(value) => serde_json::to_value(value).map_err(|_| Refusal::new(Code::Internal)),
        Err(Failure::Refusal(refusal)) => Err(refusal),
        Err(Failure::Fault(cause)) => {
            tracing::error!(%cause, "an operator's command failed");
            Err(Code::Internal.into())
        }
    }
}
