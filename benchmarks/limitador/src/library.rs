//! The two libraries, each as its documentation shows it, behind one question.

use std::collections::HashMap;
use std::error::Error;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bartizan_core::limit::{KeyMaker, Quota};
use bartizan_core::secret::Secret;
use bartizan_core::time::Millis;
use bartizan_store::shared::link::{Address, Link, LinkOptions};
use bartizan_store::shared::{Decided, Group, SharedOptions, SharedState, Want};
use bartizan_store::state::{Admission, Ask, BanPolicy};
use limitador::AsyncRateLimiter;
use limitador::limit::{Context, Expression, Limit, Namespace};
use limitador::storage::AsyncCounterStorage;
use limitador::storage::redis::{AsyncRedisStorage, CachedRedisStorageBuilder};

use crate::run::WINDOW;

/// Nodes of one library on one Redis.
pub const NODES: usize = 2;

/// Who asks.
pub struct Asker {
    pub address: String,
    pub user: String,
    pub tenant: String,
}

impl Asker {
    /// The one with this number: a hundred share a tenant.
    pub fn numbered(number: usize) -> Self {
        Self {
            address: format!("2001:db8::{number:x}"),
            user: format!("user-{number}"),
            tenant: format!("tenant-{}", number / 100),
        }
    }
}

/// Which limits a decision is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// The user's.
    User,
    /// Those of address, user and tenant, which a request of a service with tenants has.
    Request,
}

/// Which library, and how it is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Each decision is made by the store.
    Bartizan,
    /// Hot keys are paid for in advance.
    BartizanLeases,
    /// `AsyncRedisStorage`: each decision asks the store.
    Limitador,
    /// `CachedRedisStorage`: decisions are made here, and the store is told each second, as is its default.
    LimitadorCached,
}

/// The nodes of one of them.
pub struct Library {
    about: About,
    nodes: Nodes,
}

enum Nodes {
    Bartizan(Vec<SharedState>, Quota),
    Limitador(Vec<AsyncRateLimiter>, Namespace),
}

impl Library {
    /// `limit` for each key in a window, over an empty Redis at `url`. Call it within a runtime.
    pub async fn start(kind: Kind, url: &str, limit: u32, about: About) -> Result<Self, Box<dyn Error>> {
        let nodes = match kind {
            Kind::Bartizan => bartizan(url, limit, false).await?,
            Kind::BartizanLeases => bartizan(url, limit, true).await?,
            Kind::Limitador | Kind::LimitadorCached => limitador(url, limit, about, kind).await?,
        };
        Ok(Self { about, nodes })
    }

    /// Whether the asker may go on. An error when that was not decided as it should be.
    pub async fn admits(&self, node: usize, asker: &Asker) -> Result<bool, String> {
        match &self.nodes {
            Nodes::Bartizan(nodes, quota) => ask_bartizan(&nodes[node], *quota, asker, self.about).await,
            Nodes::Limitador(nodes, namespace) => ask_limitador(&nodes[node], namespace, asker, self.about).await,
        }
    }
}

async fn ask_bartizan(state: &SharedState, quota: Quota, asker: &Asker, about: About) -> Result<bool, String> {
    let key =
        |kind: &str, parts: [&str; 2]| state.keys().key(&[kind.as_bytes(), parts[0].as_bytes(), parts[1].as_bytes()]);
    let user = key("user", [&asker.tenant, &asker.user]);
    let ruled = match about {
        About::User => {
            let mut asks = [Ask::new(user, "user", quota)];
            let mut groups = [Group { who: user, asks: &mut asks }];
            state.admit(&mut groups, 1, Want::Decision, now(), Instant::now()).await
        }
        About::Request => {
            let address = key("address", ["", &asker.address]);
            let mut of_address = [Ask::new(address, "address", quota)];
            let tenant = Ask::new(key("tenant", ["", &asker.tenant]), "tenant", quota);
            let mut of_account = [Ask::new(user, "user", quota), tenant];
            let mut groups =
                [Group { who: address, asks: &mut of_address }, Group { who: user, asks: &mut of_account }];
            state.admit(&mut groups, 1, Want::Decision, now(), Instant::now()).await
        }
    };
    let ruled = ruled.map_err(|error| error.to_string())?;
    match (ruled.decided, ruled.admission) {
        (Decided::Local, _) => Err("Redis did not answer in time".into()),
        (_, Admission::Admitted) => Ok(true),
        (_, Admission::Limited { .. }) => Ok(false),
        (_, other) => Err(format!("{other:?}")),
    }
}

async fn ask_limitador(
    limiter: &AsyncRateLimiter,
    namespace: &Namespace,
    asker: &Asker,
    about: About,
) -> Result<bool, String> {
    let mut values = HashMap::from([("user".to_owned(), asker.user.clone())]);
    if about == About::Request {
        values.insert("address".to_owned(), asker.address.clone());
        values.insert("tenant".to_owned(), asker.tenant.clone());
    }
    let result = limiter.check_rate_limited_and_update(namespace, &Context::from(values), 1).await;
    result.map(|result| !result.limited).map_err(|error| error.to_string())
}

fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

async fn bartizan(url: &str, limit: u32, leases: bool) -> Result<Nodes, Box<dyn Error>> {
    let mut nodes = Vec::new();
    for node in 0..NODES {
        // What is measured is deciding by Redis: on a machine that is too busy nobody shall decide without it instead.
        let options = LinkOptions { timeout: Duration::from_secs(5), ..LinkOptions::default() };
        let link = Link::start(Address::parse(url)?, options);
        link.ready(Duration::from_secs(30)).await?;
        let options = SharedOptions { leases, ..SharedOptions::new(format!("node {node}"), BanPolicy::never()) };
        nodes.push(SharedState::new(link, KeyMaker::new(&Secret::new([1; 32])), options)?);
    }
    // Twice, so that the first has heard of the second.
    for node in nodes.iter().chain(&nodes) {
        node.tend(now(), Instant::now()).await;
    }
    for node in nodes.clone() {
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                node.tend(now(), Instant::now()).await;
            }
        });
    }
    Ok(Nodes::Bartizan(nodes, Quota::new(limit, WINDOW, limit)?))
}

async fn limitador(url: &str, limit: u32, about: About, kind: Kind) -> Result<Nodes, Box<dyn Error>> {
    let namespace = Namespace::from("acme");
    let mut nodes = Vec::new();
    for _ in 0..NODES {
        let storage: Box<dyn AsyncCounterStorage> = match kind {
            Kind::LimitadorCached => Box::new(CachedRedisStorageBuilder::new(url).build().await?),
            _ => Box::new(AsyncRedisStorage::new(url).await?),
        };
        let node = AsyncRateLimiter::new_with_storage(storage);
        let names: &[&str] = if about == About::Request { &["address", "user", "tenant"] } else { &["user"] };
        for name in names {
            let by = Expression::try_from(*name).map_err(|error| error.to_string())?;
            // With an id its keys are shorter and faster to write.
            node.add_limit(Limit::with_id(*name, namespace.clone(), limit.into(), WINDOW.as_secs(), [], [by]));
        }
        nodes.push(node);
    }
    Ok(Nodes::Limitador(nodes, namespace))
}
