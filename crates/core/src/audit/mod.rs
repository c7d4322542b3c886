//! What happened: the typed events of the audit trail, and what each of them brings about.
//!
//! A change and its event are one transaction. The *effects* of an event (which credentials end, which tier is in
//! force) are a pure function of it, so nobody can record one and forget the other.

mod application;
mod effects;
mod event;
#[cfg(test)]
mod page;
mod recorded;

pub(crate) use application::is_name as is_application_name;
pub use application::{AppEvent, AppEventFault, AppRecord, Detail};
pub use effects::{Effect, effects};
pub use event::{Actor, AuditEvent, EventKind, Origin, Outcome};
pub use recorded::{
    AuditRead, LoggedOut, PasswordChanged, Recorded, SessionRevoked, TenantUpdated, UserChanged, UserCreated,
    UserDeleted,
};
