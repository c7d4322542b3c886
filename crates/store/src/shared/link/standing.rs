//! Keeps the wire to the one primary there is: a fixed server, or the one the sentinels name.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Core;
use super::address::{Kind, Server};
use super::error::Unavailable;
use super::routes::Routes;
use super::sentinel::{Sentinels, TRUST};
use super::wire::Wire;

/// Pauses between attempts: at once, then 100 ms, growing to 500 ms, and from the start again only after a connection
/// that held for five seconds.
#[derive(Debug, Default)]
pub(super) struct Pause {
    failures: u32,
}

impl Pause {
    /// How long to wait before the next attempt, after something that held for `held`.
    pub(super) fn next(&mut self, held: Duration) -> Duration {
        if held >= Duration::from_secs(5) {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        match self.failures {
            1 => Duration::ZERO,
            2 => Duration::from_millis(100),
            3 => Duration::from_millis(200),
            4 => Duration::from_millis(400),
            _ => Duration::from_millis(500),
        }
    }
}

/// Who says where the primary is.
enum Place {
    Fixed(Server),
    Named(Sentinels),
}

impl Place {
    fn new(core: &Arc<Core>) -> Option<Self> {
        match core.address.kind() {
            Kind::Sentinel => Some(Self::Named(Sentinels::new(core))),
            Kind::Single | Kind::Cluster => core.address.servers().first().cloned().map(Self::Fixed),
        }
    }

    async fn find(&mut self) -> Result<Server, Unavailable> {
        match self {
            Self::Fixed(server) => Ok(server.clone()),
            Self::Named(sentinels) => sentinels.primary().await,
        }
    }

    /// Returns when a sentinel announces a failover; never for a fixed server.
    async fn announced(&mut self) {
        match self {
            Self::Fixed(_) => std::future::pending().await,
            Self::Named(sentinels) => sentinels.announced().await,
        }
    }

    /// Returns when `current` is no longer to be trusted, with the reason; never for a fixed server. Until then
    /// `confirm` is told for how long it is.
    async fn moved(&mut self, current: &Server, confirm: impl Fn(Duration) + Send) -> Unavailable {
        match self {
            Self::Fixed(_) => std::future::pending().await,
            Self::Named(sentinels) => sentinels.moved(current, confirm).await,
        }
    }
}

/// Runs as long as the link.
pub(super) async fn keep(core: Arc<Core>) {
    let Some(mut place) = Place::new(&core) else { return };
    let kind = core.address.kind();
    let mut pause = Pause::default();
    loop {
        let held = match find(&core, &mut place, kind).await {
            Ok(wire) => {
                core.publish(Routes::one(Arc::clone(&wire)));
                let since = Instant::now();
                let why = tokio::select! {
                    why = wire.watch() => why,
                    why = place.moved(wire.server(), |trust| wire.trust(trust)) => {
                        // Not a failure of the server: the next is looked for without a pause.
                        pause = Pause::default();
                        why
                    }
                };
                wire.end(why.clone());
                core.publish(Routes::none(why));
                since.elapsed()
            }
            Err(why) => {
                core.publish(Routes::none(why));
                Duration::ZERO
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause.next(held)) => {}
            () = place.announced() => {}
        }
    }
}

async fn find(core: &Arc<Core>, place: &mut Place, kind: Kind) -> Result<Arc<Wire>, Unavailable> {
    let asked = Instant::now();
    let server = place.find().await?;
    let wire = tokio::select! {
        wire = Wire::open(core, &server, kind) => wire?,
        // The old primary may hang, and need not be waited for once there is another.
        why = place.moved(&server, |_| ()) => return Err(why),
    };
    if kind == Kind::Sentinel {
        wire.trust(TRUST.saturating_sub(asked.elapsed()));
    }
    Ok(wire)
}
