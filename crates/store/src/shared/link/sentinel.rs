//! Who the primary is, asked of the sentinels.
//!
//! All are asked. At least half of those in the address and one more must answer, and of their answers the one with the
//! highest configuration epoch counts: the epoch is what they agree upon when they promote a server (Redis Sentinel
//! documentation, "Configuration epochs"). A promotion needs a majority, and two majorities share a sentinel, so a
//! majority that was asked after a promotion knows of it: neither a sentinel that slept through it nor a part of the
//! network that was cut off together with the old primary can hold us there.
//!
//! A primary is trusted for [`TRUST`] after a majority last named it. So with `down-after-milliseconds` of 3 s or more
//! (30 s is Redis' own default) a node that is cut off from the majority has let go of the old primary before another
//! can be promoted. The price: without a majority of sentinels there is no link, although the primary may be well.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::{PushInfo, PushKind};
use tokio::sync::mpsc;

use super::Core;
use super::address::{Server, parse_server};
use super::connector::{Connection, answered};
use super::error::{Door, Refusal, Unavailable, failure};

/// How often the sentinels are asked while all is well.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long one sentinel may take.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long a primary is trusted after a majority has named it.
pub(super) const TRUST: Duration = Duration::from_secs(2);
/// How long the others may still take after a majority has answered.
const GRACE: Duration = Duration::from_millis(100);
/// After so many questions without an answer the connection is made anew.
const MISSES: u32 = 5;

/// The sentinels of one service.
pub(super) struct Sentinels {
    core: Arc<Core>,
    each: Vec<Sentinel>,
    heard: mpsc::UnboundedReceiver<PushInfo>,
}

struct Sentinel {
    server: Server,
    announce: mpsc::UnboundedSender<PushInfo>,
    connection: Option<Connection>,
    misses: u32,
}

/// What one sentinel believes.
struct Opinion {
    epoch: u64,
    primary: Server,
}

impl Sentinels {
    pub(super) fn new(core: &Arc<Core>) -> Self {
        let (announce, heard) = mpsc::unbounded_channel();
        let each = core.address.servers().iter().map(|server| Sentinel {
            server: server.clone(),
            announce: announce.clone(),
            connection: None,
            misses: 0,
        });
        Self { core: Arc::clone(core), each: each.collect(), heard }
    }

    /// Asks all of them now.
    ///
    /// # Errors
    /// When no majority answers, or none knows the service.
    pub(super) async fn primary(&mut self) -> Result<Server, Unavailable> {
        let (all, mut answered) = (self.each.len(), 0);
        let mut answers: FuturesUnordered<_> =
            self.each.iter_mut().map(|sentinel| sentinel.opinion(&self.core)).collect();
        let mut deadline = tokio::time::Instant::now() + PATIENCE;
        let mut best: Option<Opinion> = None;
        let mut why = None;
        while let Ok(Some(answer)) = tokio::time::timeout_at(deadline, answers.next()).await {
            match answer {
                Ok(opinion) => {
                    answered += 1;
                    if answered * 2 > all {
                        deadline = deadline.min(tokio::time::Instant::now() + GRACE);
                    }
                    if best.as_ref().is_none_or(|best| best.epoch < opinion.epoch) {
                        best = Some(opinion);
                    }
                }
                Err(refused) => why = Some(refused),
            }
        }
        match (best, why) {
            (Some(best), _) if answered * 2 > all => Ok(best.primary),
            (None, Some(why)) => Err(why),
            _ => Err(Unavailable::Disconnected(format!("only {answered} of {all} sentinels answer"))),
        }
    }

    /// Returns when they name another primary than `current`, or have not named it for [`TRUST`], and says which; tells
    /// `confirm` each time for how long it is trusted. Asks when one announces a failover, and every second.
    pub(super) async fn moved(&mut self, current: &Server, confirm: impl Fn(Duration) + Send) -> Unavailable {
        let mut confirmed = Instant::now();
        let mut pause = INTERVAL;
        loop {
            tokio::select! {
                () = self.announced() => {}
                () = tokio::time::sleep(pause) => {}
            }
            let asked = Instant::now();
            match self.primary().await {
                Ok(primary) if primary == *current => {
                    confirmed = asked;
                    pause = INTERVAL;
                    confirm(TRUST.saturating_sub(asked.elapsed()));
                }
                Ok(primary) => return Unavailable::Disconnected(format!("the primary is {primary} now")),
                Err(why) if confirmed.elapsed() >= TRUST => return why,
                Err(_) => pause = INTERVAL / 4,
            }
        }
    }

    /// Returns when one announces a failover.
    pub(super) async fn announced(&mut self) {
        while let Some(heard) = self.heard.recv().await {
            // Also heard: that a subscription was confirmed, that a connection ended.
            if heard.kind == PushKind::Message {
                // Each sentinel announces the same; one question answers them all.
                while self.heard.try_recv().is_ok() {}
                return;
            }
        }
    }
}

impl Sentinel {
    async fn opinion(&mut self, core: &Core) -> Result<Opinion, Unavailable> {
        let late = |_| Unavailable::Disconnected("no sentinel answers".into());
        if self.misses >= MISSES || self.connection.as_ref().is_some_and(Connection::is_over) {
            self.connection = None;
        }
        // Counted before it can be given up by the caller.
        self.misses = if self.connection.is_none() { 0 } else { self.misses + 1 };
        let opinion = tokio::time::timeout(PATIENCE, self.ask(core)).await.map_err(late).and_then(|answer| answer);
        match &opinion {
            Ok(_) => self.misses = 0,
            Err(Unavailable::Disconnected(_)) => self.connection = None,
            Err(_) => {}
        }
        opinion
    }

    async fn ask(&mut self, core: &Core) -> Result<Opinion, Unavailable> {
        if self.connection.is_none() {
            self.connection = Some(self.subscribe(core).await?);
        }
        let Some(connection) = &self.connection else { return Err(Unavailable::Open) };
        let mut question = redis::cmd("SENTINEL");
        question.arg("MASTER").arg(core.address.service());
        let answer = connection.pipe.clone().send_packed_command(&question).await;
        let answer =
            answered(answer, &self.server, Door::Sentinel).map_err(|refused| match Unavailable::from(refused) {
                Unavailable::Script(_) => Refusal::new(
                    format!("the sentinel {} knows no service {:?}", self.server, core.address.service()),
                    "write the name that `SENTINEL MASTERS` shows at the end of state.url",
                )
                .into(),
                why => why,
            })?;
        let nonsense = || Unavailable::Disconnected(format!("{}: not the answer of a sentinel", self.server));
        let fields: HashMap<String, String> = redis::from_redis_value(answer).map_err(|_| nonsense())?;
        let field = |name| fields.get(name).ok_or_else(nonsense);
        let place = Server { host: field("ip")?.clone(), port: field("port")?.parse().map_err(|_| nonsense())? };
        let primary = parse_server(&place.to_string(), 0).map_err(|_| nonsense())?;
        Ok(Opinion { epoch: field("config-epoch")?.parse().map_err(|_| nonsense())?, primary })
    }

    async fn subscribe(&self, core: &Core) -> Result<Connection, Unavailable> {
        let connection = core.connector()?.sentinel(&self.server, self.announce.clone()).await?;
        connection
            .pipe
            .clone()
            .subscribe("+switch-master")
            .await
            .map_err(|error| Unavailable::from(failure(&error, &self.server, Door::Sentinel)))?;
        Ok(connection)
    }
}
