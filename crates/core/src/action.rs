//! What can be done, and which roles may do it.
//!
//! An action is a unit type with a name; a permission is a value of type `Permit<Action>` that only the guard makes.
//! Which roles may is stated here and nowhere else. Rules about *one row* (own profile, not above one's rank) are the
//! plain functions at the end; they need the row, so the service asks them.

use crate::error::{Code, Refusal};
use crate::id::UserId;
use crate::principal::{Principal, Role};

/// Something a principal may or may not do. Applications implement it for their own actions.
pub trait Action: Send + Sync + 'static {
    /// Stable dotted name, such as `users.create`: what `bartizan routes`, metrics and the audit trail show.
    const NAME: &'static str;
    /// The roles that may.
    const ROLES: &'static [Role];
}

const EVERYONE: &[Role] = Role::ALL;
const ADMINS: &[Role] = &[Role::Owner, Role::Admin];
const OVERSIGHT: &[Role] = &[Role::Owner, Role::Admin, Role::Auditor];
const OWNERS: &[Role] = &[Role::Owner];

macro_rules! actions {
    ($($(#[$doc:meta])* $type:ident = $name:literal, $roles:ident;)+) => {
        $($(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $type;
        impl Action for $type {
            const NAME: &'static str = $name;
            const ROLES: &'static [Role] = $roles;
        })+

        /// Every built-in action with the roles that may: what the reference and the tests are made from.
        pub const ALL: &[(&str, &[Role])] = &[$(($name, $roles),)+];
    };
}

actions! {
    /// See who one is.
    ReadSelf = "self.read", EVERYONE;
    /// Change one's own password.
    ChangePassword = "self.password", EVERYONE;
    /// End one's own session, or all of them.
    Logout = "self.logout", EVERYONE;
    /// See one's own sessions.
    ListSessions = "sessions.list", EVERYONE;
    /// End one of one's own sessions.
    RevokeSession = "sessions.revoke", EVERYONE;
    /// See the users of the tenant.
    ReadUsers = "users.read", OVERSIGHT;
    /// Create a user.
    CreateUser = "users.create", ADMINS;
    /// Change a user's name, role or status.
    UpdateUser = "users.update", ADMINS;
    /// Delete a user.
    DeleteUser = "users.delete", ADMINS;
    /// See the tenant.
    ReadTenant = "tenant.read", EVERYONE;
    /// Change the tenant.
    UpdateTenant = "tenant.update", OWNERS;
    /// Read the audit trail. Reading it is itself recorded.
    ReadAudit = "audit.read", OVERSIGHT;
    /// Ask whether a token of one's tenant is live (RFC 7662).
    IntrospectToken = "tokens.introspect", EVERYONE;
}

/// Whether `principal` may act on a user of role `target`: never on someone who stands higher.
pub fn may_act_on(principal: &Principal, target: UserId, role: Role) -> Result<(), Refusal> {
    if principal.user == target || principal.role.rank() >= role.rank() { Ok(()) } else { Err(Code::RankTooLow.into()) }
}

/// Whether `principal` may give the role `wanted` to somebody: never one above his own.
pub fn may_grant(principal: &Principal, wanted: Role) -> Result<(), Refusal> {
    if principal.role.rank() >= wanted.rank() { Ok(()) } else { Err(Code::RankTooLow.into()) }
}
