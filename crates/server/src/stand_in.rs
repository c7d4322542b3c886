//! A stand-in for the engine until the library has one: remembers tenants in a file, knows nothing else.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::get;
use bartizan::settings::Settings;
use bartizan_core::error::{Code, Refusal};
use bartizan_core::principal::{Role, Tier};
use bartizan_core::secret::Secret;
use serde_json::{Value, json};

/// Why an operation was not done.
pub type Failure = Refusal;

/// Why the engine did not start.
#[derive(Debug)]
pub(super) struct StartError(String);

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The stand-in.
#[derive(Debug)]
pub struct Engine {
    tenants: PathBuf,
}

/// The operator's hand.
#[derive(Debug)]
pub struct Operator<'a>(&'a Engine);

pub(super) fn routes() -> Value {
    json!([{"method": "GET", "path": "/v1/whoami", "access": "self.read", "summary": "Who is asking"}])
}

impl Engine {
    pub(super) async fn start(settings: Settings) -> Result<Self, StartError> {
        Ok(Self { tenants: settings.data.join("stand-in.json") })
    }

    /// The public application.
    pub fn router(&self) -> Router {
        let whoami = |ConnectInfo(peer): ConnectInfo<std::net::SocketAddr>| async move { format!("{}\n", peer.ip()) };
        let slow = || async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            "slow\n"
        };
        Router::new().route("/v1/whoami", get(whoami)).route("/slow", get(slow))
    }

    /// The operators' application.
    pub fn ops_router(&self) -> Router {
        Router::new().route("/healthz", get(async || "ok\n")).route("/readyz", get(async || "ok\n"))
    }

    /// Takes over what can be changed while serving.
    pub async fn reload(&self, _settings: Settings) -> Result<(), Failure> {
        Ok(())
    }

    /// Ends the work that goes on behind the requests.
    pub async fn shutdown(&self) {}

    /// The operator's hand.
    pub fn operator(&self) -> Operator<'_> {
        Operator(self)
    }

    fn read(&self) -> Vec<Value> {
        std::fs::read(&self.tenants).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }
}

type Answer = Result<Value, Failure>;

impl Operator<'_> {
    pub(super) async fn tenants(&self) -> Answer {
        Ok(self.0.read().into())
    }
    pub(super) async fn add_tenant(&self, slug: &str, name: &str, email: &str, _password: Secret<String>) -> Answer {
        let mut tenants = self.0.read();
        if tenants.iter().any(|tenant| tenant.get("slug") == Some(&slug.into())) {
            return Err(Code::SlugTaken.into());
        }
        let tenant = json!({"slug": slug, "tier": "free", "owner": name, "email": email});
        tenants.push(tenant.clone());
        let written = std::fs::write(&self.0.tenants, Value::from(tenants).to_string());
        written.map(|()| tenant).map_err(|_| Code::StorageUnavailable.into())
    }
    pub(super) async fn set_tier(&self, _slug: &str, _tier: Tier) -> Answer {
        Err(Code::NotFound.into())
    }
    pub(super) async fn users(&self, _slug: &str) -> Answer {
        Ok(json!([]))
    }
    pub(super) async fn add_user(&self, _: &str, _: &str, _: &str, _: Role, _: Secret<String>) -> Answer {
        Err(Code::NotFound.into())
    }
    pub(super) async fn disable_user(&self, _slug: &str, _user: &str) -> Answer {
        Err(Code::NotFound.into())
    }
    pub(super) async fn sessions(&self, _slug: &str, _user: &str) -> Answer {
        Ok(json!([]))
    }
    pub(super) async fn revoke_session(&self, _slug: &str, _session: &str) -> Answer {
        Err(Code::NotFound.into())
    }
    pub(super) async fn blocks(&self) -> Answer {
        Ok(json!([]))
    }
    pub(super) async fn add_block(&self, cidr: ipnet::IpNet, _ttl: Option<Duration>, reason: &str) -> Answer {
        Ok(json!({"cidr": cidr, "reason": reason}))
    }
    pub(super) async fn remove_block(&self, _id: &str) -> Answer {
        Err(Code::NotFound.into())
    }
    pub(super) async fn audit_tail(&self, _after: Option<u64>, _limit: u32) -> Answer {
        Ok(json!([]))
    }
}
