//! What one machine counted, taken along when an installation moves to many nodes.
//!
//! The accounts, sessions and everything else that is true move with the database. Counters and bans are in
//! `data/limits.snapshot` of the old machine, and go into the shared state of the new nodes under the names by which they
//! look for them: those come from the root key the database began with, so all of them must have its secrets. Failed
//! logins are in the database too, to the last one before a `kill -9`; whichever is stricter counts.

use std::time::Duration;

use bartizan_core::limit::{Key, Tat};
use bartizan_keys::FileKeyring;
use bartizan_store::db::Progress;
use bartizan_store::shared::link::Link;
use bartizan_store::shared::{CarryError, Load, carry};
use bartizan_store::state::{Flaw, Found, Kept};
use bartizan_store::{PlatformScope, login_failures};

use crate::clock::Clock;
use crate::engine::{self, StartError};
use crate::settings::{Settings, State};

/// To take along is not to serve: a slow answer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// A connection to the shared state that will take the counters in.
#[derive(Debug)]
pub struct Carrier {
    link: Link,
    evicting: Vec<String>,
}

/// What is in the shared state now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    /// Counters that are not over.
    pub counters: u64,
    /// Bans in force, and refusals that may lead to one.
    pub bans: u64,
    /// How many of both were not there already.
    pub written: u64,
    /// What the old machine's file was like.
    pub snapshot: Snapshot,
}

/// The old machine's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snapshot {
    /// There is none: failed logins came along, nothing else had been counted.
    Missing,
    /// It cannot be used: only failed logins came along.
    Flawed(Flaw),
    /// It came along.
    Read {
        /// How old it is.
        age: Duration,
    },
}

impl Carrier {
    /// Connects to the shared state of `state`, as a node does at its start.
    ///
    /// # Errors
    /// What is wrong with it, and how to mend that.
    pub async fn reach(state: &State) -> Result<Self, StartError> {
        let link = engine::connect(state, state.timeout.max(PATIENCE)).await?;
        // Who may not ask about them is told nothing, as at the start of a node.
        let servers = link.survey().await.unwrap_or_default();
        let evicting =
            servers.iter().filter(|server| server.evicts()).map(|server| server.server.to_string()).collect();
        Ok(Self { link, evicting })
    }

    /// The servers that may forget what is in force when their memory is full.
    pub fn evicting(&self) -> &[String] {
        &self.evicting
    }

    /// Takes along what the machine with this data directory counted. `settings` name the database of the new nodes, which
    /// holds the old one's rows already. Of what is there and what comes the stricter stays, so it may be repeated.
    ///
    /// # Errors
    /// Secrets of another installation; a database or a shared state that does not answer; a file that cannot be read.
    pub async fn carry(
        &self,
        settings: &Settings,
        clock: &Clock,
        progress: impl FnMut(Progress),
    ) -> Result<Carried, StartError> {
        let keyring = FileKeyring::open(&settings.secrets).map_err(StartError::new)?;
        let db = engine::open_database(settings).await?;
        let read = async {
            let first_root = engine::check_root_key(&db, &keyring).await?;
            let scope = PlatformScope::granted("moving: failed logins of every tenant");
            let mut reader = db.read_platform(&scope).await.map_err(StartError::new)?;
            let rows = login_failures::all(&mut reader, clock.now()).await.map_err(StartError::new)?;
            Ok::<_, StartError>((first_root, rows))
        };
        let read = read.await;
        db.close().await;
        let (first_root, rows) = read?;
        let keys = engine::limit_keys(&keyring, &first_root)?;
        let failures: Vec<(Key, Tat)> = rows.iter().filter_map(login_failures::FailureRow::counter).collect();

        let path = settings.data.join(engine::SNAPSHOT);
        let found = Kept::open(&path, &keys, clock.now());
        let found = found.map_err(|cause| StartError::new(format!("{} cannot be read: {cause}", path.display())))?;
        let (kept, snapshot) = match &found {
            Found::Nothing => (None, Snapshot::Missing),
            Found::Flawed(flaw) => (None, Snapshot::Flawed(*flaw)),
            Found::Whole(kept) => (Some(kept), Snapshot::Read { age: kept.age() }),
        };
        let load = Load { snapshot: kept, failures: &failures };
        let carried = carry(&self.link, &keys, &settings.state.prefix, &load, progress).await.map_err(explained)?;
        Ok(Carried { counters: carried.counters, bans: carried.bans, written: carried.written, snapshot })
    }
}

fn explained(error: CarryError) -> StartError {
    match error {
        CarryError::Store(cause) => {
            let (found, mend) = cause.explain();
            StartError::new(format!("the shared state does not take the counters: {found}. To mend it, {mend}"))
        }
        CarryError::Missing { .. } => StartError::new(format!(
            "{error}: it forgot them, as when it fails over, is restarted, or evicts; or nodes gave some of them back"
        )),
        CarryError::File(_) | CarryError::Names(_) => StartError::new(error),
    }
}
