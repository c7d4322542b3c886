//! What an event brings about for the credentials and limits in force.

use super::event::EventKind;
use crate::id::{SessionId, TenantId, TokenId, UserId};
use crate::principal::Tier;
use crate::store_life::StoreLife;
use crate::time::Millis;

/// A change of what is hot: carried to every node after the event is durable, at least once, in order.
///
/// Applying an effect twice equals applying it once: epochs only rise, the rest are sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Access tokens of this session end.
    EndSession(SessionId),
    /// This one access token ends; it would have expired at the given time.
    EndToken(TokenId, Millis),
    /// Access tokens of this user with an epoch below the given one end.
    RaiseUserEpoch(UserId, u64),
    /// Access tokens of this tenant with an epoch below the given one end.
    RaiseTenantEpoch(TenantId, u64),
    /// From now on this tenant has this tier, whatever older tokens say.
    SetTier(TenantId, Tier),
    /// From now on the number in the shared store is believed in this life of it, and in no other.
    BelieveStore(StoreLife),
}

/// The effects of an event: a pure function of it, without a catch-all, so that a new event must answer the question.
pub fn effects(kind: &EventKind) -> Vec<Effect> {
    match kind {
        EventKind::TenantTierChanged { tenant, to, .. } => vec![Effect::SetTier(*tenant, *to)],
        EventKind::TenantSuspended { tenant, epoch } => vec![Effect::RaiseTenantEpoch(*tenant, *epoch)],
        EventKind::UserRoleChanged { user, epoch, .. }
        | EventKind::UserDisabled { user, epoch }
        | EventKind::UserDeleted { user, epoch }
        | EventKind::LoggedOutEverywhere { user, epoch } => vec![Effect::RaiseUserEpoch(*user, *epoch)],
        EventKind::PasswordChanged { ended, .. } => ended.iter().copied().map(Effect::EndSession).collect(),
        EventKind::LoggedOut { session }
        | EventKind::SessionRevoked { session, .. }
        | EventKind::RefreshReused { session, .. } => vec![Effect::EndSession(*session)],
        EventKind::TokenRevoked { token, expires } => vec![Effect::EndToken(*token, *expires)],
        EventKind::StateLifeBegan { life } => vec![Effect::BelieveStore(*life)],
        EventKind::ServerStarted
        | EventKind::ServerStopped
        | EventKind::ConfigReloaded
        // No server runs while the clock is accepted; the next one believes none of the old keys.
        | EventKind::ClockAccepted { .. }
        | EventKind::SigningKeyCreated { .. }
        | EventKind::SigningKeyRotated { .. }
        | EventKind::SigningKeyRemoved { .. }
        | EventKind::TenantCreated { .. }
        | EventKind::TenantUpdated { .. }
        | EventKind::TenantResumed { .. }
        | EventKind::UserCreated { .. }
        | EventKind::UserUpdated { .. }
        | EventKind::UserEnabled { .. }
        | EventKind::LoggedIn { .. }
        | EventKind::LoginFailed { .. }
        | EventKind::TokenRefreshed { .. }
        | EventKind::AccessDenied { .. }
        | EventKind::BlockAdded { .. }
        | EventKind::BlockRemoved { .. }
        | EventKind::AuditRead { .. }
        | EventKind::Application(_) => Vec::new(),
    }
}
