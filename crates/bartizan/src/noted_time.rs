//! The latest moment an installation has seen, taken back on the operator's word.
//!
//! A start is refused while the clock is further behind that moment than revocations are kept, since the list of them
//! could have holes. When it was the *earlier* clock that was wrong, waiting for it may take years. [`accept`] makes the
//! holes harmless instead: no access token that exists is believed any more, whatever clock it was issued by, so that
//! none is left that a lost revocation could have ended. What ended sessions, users and tenants is in their own rows,
//! which no time removes. Everybody else goes on with his refresh token.

use std::time::Duration;

use bartizan_core::audit::{Actor, AuditEvent, EventKind, Origin};
use bartizan_core::id::EventId;
use bartizan_core::time::Millis;
use bartizan_store::words::KeyState;
use bartizan_store::{Db, PlatformScope, meta, sessions, signing_keys};

use crate::api::Failure;
use crate::clock::Clock;
use crate::engine::StartError;
use crate::entropy::random;
use crate::settings::Settings;
use crate::upkeep::{KEPT, LAST_SEEN};

/// What accepting the clock brought about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// Nothing: the clock is not so far behind that a start would be refused.
    Unneeded,
    /// The noted moment is now.
    Yes {
        /// How far the moment noted before was ahead.
        ahead: Duration,
        /// Sessions begun or renewed by the clock that was ahead, which ended.
        ended: u64,
        /// Signing keys that are not believed any more.
        distrusted: usize,
    },
}

/// Takes `clock` for right where the database has seen a later moment. All of it or nothing, with its row in the trail.
///
/// # Errors
/// When the database cannot be opened, as while a server runs on it, or written.
pub async fn accept(settings: &Settings, clock: &Clock) -> Result<Acceptance, StartError> {
    let db = Db::open(&settings.database, &settings.data).await.map_err(StartError::new)?;
    let accepted = take_back(&db, clock.now()).await;
    db.close().await;
    Ok(accepted?)
}

async fn take_back(db: &Db, now: Millis) -> Result<Acceptance, Failure> {
    let mut tx = db.change_platform(&PlatformScope::granted("the operator accepts the clock")).await?;
    let seen = meta::find(&mut tx, LAST_SEEN).await?.and_then(|text| text.parse().ok()).map(Millis);
    let ahead = seen.map(|seen| seen.since(now)).unwrap_or_default();
    if ahead <= KEPT {
        tx.cancel().await?;
        return Ok(Acceptance::Unneeded);
    }
    let mut distrusted = 0;
    for key in signing_keys::all(&mut tx).await? {
        distrusted += usize::from(signing_keys::advance(&mut tx, &key.kid, KeyState::Compromised, now).await?);
    }
    let ended = sessions::end_of_future(&mut tx, now).await?;
    meta::set(&mut tx, LAST_SEEN, &now.0.to_string()).await?;
    let event = AuditEvent {
        id: EventId::new(now, random()?),
        at: now,
        tenant: None,
        actor: Actor::Operator,
        origin: Origin::default(),
        kind: EventKind::ClockAccepted { ahead: ahead.as_secs(), ended, distrusted },
    };
    // It has no effects, and no server runs that they would have to be applied to.
    let _ = tx.commit(event, ()).await?;
    Ok(Acceptance::Yes { ahead, ended, distrusted })
}
