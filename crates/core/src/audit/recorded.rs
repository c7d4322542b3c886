//! Which event belongs to which action. A change made under a permit for `A` can only be kept with an `A::Event`, so
//! "changed, but not recorded" and "recorded as something else" do not compile.

use super::event::EventKind;
use crate::action::{
    Action, ChangePassword, CreateUser, DeleteUser, Logout, ReadAudit, RevokeSession, UpdateTenant, UpdateUser,
};
use crate::id::{SessionId, UserId};
use crate::principal::Role;

/// An action that leaves a row in the audit trail.
pub trait Recorded: Action {
    /// What is recorded.
    type Event: Into<EventKind> + Send;
}

/// A user came into being.
#[derive(Clone, Debug)]
pub struct UserCreated {
    /// The user.
    pub user: UserId,
    /// His role.
    pub role: Role,
}

/// Something about a user changed. One request may cause several.
#[derive(Clone, Debug)]
pub enum UserChanged {
    /// Plain fields.
    Fields {
        /// The user.
        user: UserId,
        /// Their names.
        fields: Vec<&'static str>,
    },
    /// The role.
    Role {
        /// The user.
        user: UserId,
        /// Until now.
        from: Role,
        /// From now on.
        to: Role,
        /// The epoch live tokens must carry.
        epoch: u64,
    },
    /// He may no longer log in.
    Disabled {
        /// The user.
        user: UserId,
        /// The epoch live tokens must carry.
        epoch: u64,
    },
    /// He may log in again.
    Enabled {
        /// The user.
        user: UserId,
    },
}

/// A user is gone.
#[derive(Clone, Debug)]
pub struct UserDeleted {
    /// The user.
    pub user: UserId,
    /// The epoch live tokens must carry: none does.
    pub epoch: u64,
}

/// The tenant's own data changed.
#[derive(Clone, Debug)]
pub struct TenantUpdated {
    /// Names of the changed fields.
    pub fields: Vec<&'static str>,
}

/// A password was changed by its owner.
#[derive(Clone, Debug)]
pub struct PasswordChanged {
    /// The user.
    pub user: UserId,
    /// The other sessions, which ended.
    pub ended: Vec<SessionId>,
}

/// Sessions ended at the wish of their user.
#[derive(Clone, Debug)]
pub enum LoggedOut {
    /// This one.
    Session {
        /// The session.
        session: SessionId,
    },
    /// All of them.
    Everywhere {
        /// The user.
        user: UserId,
        /// The epoch live tokens must carry.
        epoch: u64,
    },
}

/// One session was ended from another.
#[derive(Clone, Debug)]
pub struct SessionRevoked {
    /// The session.
    pub session: SessionId,
    /// Its user.
    pub user: UserId,
}

/// The trail was read.
#[derive(Clone, Debug)]
pub struct AuditRead {
    /// Number of rows shown.
    pub rows: usize,
}

macro_rules! recorded {
    ($($action:ty => $event:ty, |$value:ident| $kind:expr;)+) => {$(
        impl Recorded for $action {
            type Event = $event;
        }
        impl From<$event> for EventKind {
            fn from($value: $event) -> EventKind {
                $kind
            }
        }
    )+};
}

recorded! {
    CreateUser => UserCreated, |e| EventKind::UserCreated { user: e.user, role: e.role };
    UpdateUser => UserChanged, |e| match e {
        UserChanged::Fields { user, fields } => EventKind::UserUpdated { user, fields },
        UserChanged::Role { user, from, to, epoch } => EventKind::UserRoleChanged { user, from, to, epoch },
        UserChanged::Disabled { user, epoch } => EventKind::UserDisabled { user, epoch },
        UserChanged::Enabled { user } => EventKind::UserEnabled { user },
    };
    DeleteUser => UserDeleted, |e| EventKind::UserDeleted { user: e.user, epoch: e.epoch };
    UpdateTenant => TenantUpdated, |e| EventKind::TenantUpdated { fields: e.fields };
    ChangePassword => PasswordChanged, |e| EventKind::PasswordChanged { user: e.user, ended: e.ended };
    Logout => LoggedOut, |e| match e {
        LoggedOut::Session { session } => EventKind::LoggedOut { session },
        LoggedOut::Everywhere { user, epoch } => EventKind::LoggedOutEverywhere { user, epoch },
    };
    RevokeSession => SessionRevoked, |e| EventKind::SessionRevoked { session: e.session, user: e.user };
    ReadAudit => AuditRead, |e| EventKind::AuditRead { rows: e.rows };
}
