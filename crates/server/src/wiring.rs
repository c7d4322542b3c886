//! Where the binary meets the library: everything that touches the engine is in this file.

#[path = "stand_in.rs"]
mod stand_in;

use std::net::SocketAddr;
use std::path::Path;

use axum::extract::ConnectInfo;
use bartizan_core::error::Refusal;
use http::Request;
use serde::Serialize;
use serde_json::Value;

use crate::admin::Command;
use crate::exit::{Exit, Stop};

pub use stand_in::{Engine, Failure};

/// Starts the engine; says how to mend what prevents it.
pub async fn start(settings: bartizan::settings::Settings) -> Result<Engine, Stop> {
    Engine::start(settings).await.map_err(|error| Stop::new(Exit::Failed, error.to_string()))
}

/// Tells the application who is connected: the peer of the socket, which may be a proxy.
pub fn introduce<B>(request: &mut Request<B>, peer: SocketAddr) {
    request.extensions_mut().insert(ConnectInfo(peer));
}

/// Creates all secrets in `dir`, which exists. Those that exist stay: an interrupted `init` can be repeated.
pub fn create_secrets(_dir: &Path) -> Result<(), Stop> {
    Ok(())
}

/// What is wrong with the secrets in `dir`: empty, short, placeholder, readable by others. Changes nothing.
pub fn check_secrets(dir: &Path) -> Result<(), String> {
    if dir.is_dir() { Ok(()) } else { Err(format!("{} does not exist", dir.display())) }
}

/// Whether the database opens and is of a version this program knows; the answer is what to show.
pub async fn check_database(settings: &bartizan::settings::Settings) -> Result<String, String> {
    let path = settings.database.strip_prefix("sqlite:").unwrap_or_default();
    let path = settings.data.join(path);
    if path.exists() { Ok(format!("{} exists", path.display())) } else { Ok("not created yet".into()) }
}

/// Every declared route, one object each: method, path, access, rate, what it is for.
pub fn routes() -> Value {
    stand_in::routes()
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
        Command::UserLs { tenant } => show(operator.users(&tenant).await),
        Command::UserAdd { tenant, email, name, role, password } => {
            show(operator.add_user(&tenant, &email, &name, role, password.0).await)
        }
        Command::UserDisable { tenant, user } => show(operator.disable_user(&tenant, &user).await),
        Command::SessionLs { tenant, user } => show(operator.sessions(&tenant, &user).await),
        Command::SessionRevoke { tenant, session } => show(operator.revoke_session(&tenant, &session).await),
        Command::BlockLs {} => show(operator.blocks().await),
        Command::BlockAdd { cidr, ttl, reason } => {
            show(operator.add_block(cidr, ttl.map(std::time::Duration::from_secs), &reason).await)
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

fn show<T: Serialize>(answer: Result<T, Failure>) -> Result<Value, Refusal> {
    serde_json::to_value(answer?).map_err(|_| Refusal::new(bartizan_core::error::Code::Internal))
}
