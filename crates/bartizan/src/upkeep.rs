//! What has to be done while time passes: forget what is over, keep the counters, watch the clock and the store.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bartizan_core::net::BlockList;
use bartizan_keys::KeyProvider;
use bartizan_store::{blocks, meta};
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval};

use crate::api::Failure;
use crate::ground::Ground;
use crate::guard::Authenticator;
use crate::routes::Published;
use crate::signing::{Signing, Tended};

/// Effects are kept so much longer than any token can feel them, so that a clock set back by less does no harm.
pub(crate) const KEPT: Duration = Duration::from_secs(24 * 3600);

pub(crate) use bartizan_store::meta::LAST_SEEN;

/// What is needed to move the signing keys along.
pub(crate) struct Keys {
    pub(crate) signing: Signing,
    pub(crate) keyring: Arc<dyn KeyProvider>,
    pub(crate) authenticator: Authenticator,
    pub(crate) published: Published,
}

impl Keys {
    /// One step of the rotation, if it is time for one.
    pub(crate) async fn tend(&self, ground: &Ground) -> Result<(), Failure> {
        if self.signing.tend(ground, self.keyring.as_ref()).await? == Tended::Changed {
            self.authenticator.forget();
            self.published.publish_jwks(&self.signing.jwks()?).map_err(Failure::fault)?;
        }
        Ok(())
    }
}

/// Starts the once-a-second round; it ends when aborted.
pub(crate) fn start(ground: Ground, blocked: Arc<ArcSwap<BlockList>>, keys: Keys, snapshot: PathBuf) -> JoinHandle<()> {
    tokio::spawn(async move {
        let followed = ground.clone();
        // Ends with this task.
        let mut others = JoinSet::new();
        others.spawn(async move { followed.follow().await });
        if let Some(shared) = ground.shared.clone() {
            let tended = ground.clone();
            others.spawn(async move {
                let mut tick = interval(Duration::from_secs(1));
                tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    tick.tick().await;
                    shared.tend(tended.now(), Instant::now()).await;
                    tended.meet().await;
                }
            });
        }
        let mut tick = interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut round = 0u64;
        loop {
            tick.tick().await;
            watch_clock(&ground);
            keep_counters(&ground, &snapshot).await;
            if round.is_multiple_of(10) {
                let outcome = load_blocks(&ground, &blocked).await;
                ground.metrics.storage_up.set(i64::from(outcome.is_ok()));
            }
            if round.is_multiple_of(60) {
                forget(&ground).await;
                if let Err(cause) = keys.tend(&ground).await {
                    tracing::error!(%cause, "the signing keys could not be moved along; the ones in force stay");
                }
            }
            round = round.wrapping_add(1);
        }
    })
}

fn watch_clock(ground: &Ground) {
    let behind = ground.clock.reconcile();
    if behind > 2_000 && ground.metrics.clock_behind.get() <= 2_000 {
        tracing::warn!(
            behind_milliseconds = behind,
            "the system clock was set back: mend it (NTP?); time goes on from where it was"
        );
    }
    ground.metrics.clock_behind.set(behind);
}

/// Writes the counters to their file, on a thread that may wait.
pub(crate) async fn keep_counters(ground: &Ground, path: &std::path::Path) {
    let (kept, path) = (ground.clone(), path.to_owned());
    let written = spawn_blocking(move || {
        let now = kept.now();
        kept.state.sweep(now);
        kept.state.snapshot(&path, now)
    })
    .await;
    match written {
        Ok(Ok(_)) => {
            ground.metrics.snapshot_failing.set(0);
        }
        Ok(Err(cause)) => {
            if ground.metrics.snapshot_failing.set(1) == 0 {
                tracing::error!(%cause, "the counters of the limits cannot be written: free space in the data directory");
            }
        }
        Err(_) => {}
    }
}

/// Reads the block list anew.
pub(crate) async fn load_blocks(ground: &Ground, blocked: &ArcSwap<BlockList>) -> Result<(), Failure> {
    let mut reader = ground.read_platform("the block list is everybody's").await?;
    let rows = blocks::all(&mut reader, ground.now()).await?;
    let networks = rows.into_iter().filter_map(|row| Some((row.id, row.network.parse().ok()?)));
    blocked.store(Arc::new(BlockList::new(networks)));
    Ok(())
}

/// Deletes what is over, and notes the time.
async fn forget(ground: &Ground) {
    let now = ground.now();
    if let Err(cause) = ground.db.prune(now - KEPT).await {
        tracing::warn!(%cause, "what is over could not be deleted yet");
    }
    if let Err(cause) = note_time(ground).await {
        tracing::warn!(%cause, "the time could not be noted");
    }
}

/// Notes the latest moment seen, so that a start with a clock set back is noticed. Never an earlier one: steps back that
/// are each small enough would add up, past the time for which revocations are kept.
pub(crate) async fn note_time(ground: &Ground) -> Result<(), Failure> {
    let scope = bartizan_store::PlatformScope::granted("upkeep: the time belongs to everybody");
    let mut tx = ground.db.change_platform(&scope).await?;
    let seen = meta::find(&mut tx, LAST_SEEN).await?.and_then(|text| text.parse::<i64>().ok());
    let latest = seen.map_or(ground.now().0, |seen| seen.max(ground.now().0));
    meta::set(&mut tx, LAST_SEEN, &latest.to_string()).await?;
    Ok(tx.commit_quietly(()).await?)
}
