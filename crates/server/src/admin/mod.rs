//! Administering a running server from the same machine: one JSON command in, one JSON value out, over HTTP/1.1 on a
//! Unix socket in the data directory.
//!
//! Who may: the user the server runs as, and root; the kernel says who asks, and the socket's mode says it again. It
//! works when login is broken, which is when it is needed most.

pub mod client;
pub mod socket;

use bartizan_core::principal::{Role, Tier};
use bartizan_core::secret::Secret;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The name of the socket in the data directory.
pub const SOCKET: &str = "admin.sock";

/// A password on its way over the socket: the one place where a secret is serialised, because the other end of the
/// socket is this same program.
#[derive(Clone, Debug)]
pub struct Password(pub Secret<String>);

impl Serialize for Password {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.expose())
    }
}

impl<'de> Deserialize<'de> for Password {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Secret::new(text)))
    }
}

/// What an operator can ask of a running server.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// All tenants.
    TenantLs {},
    /// A new tenant with its owner.
    TenantAdd {
        /// Its short name.
        slug: String,
        /// The owner's name.
        name: String,
        /// The owner's e-mail.
        email: String,
        /// The owner's password.
        password: Password,
    },
    /// Another tier for a tenant; acts on its next request.
    TenantSetTier {
        /// The tenant.
        slug: String,
        /// The tier.
        tier: Tier,
    },
    /// Ends every credential of a tenant and lets nobody of it in.
    TenantSuspend {
        /// The tenant.
        slug: String,
    },
    /// Lets a suspended tenant work again.
    TenantResume {
        /// The tenant.
        slug: String,
    },
    /// The users of a tenant.
    UserLs {
        /// The tenant.
        tenant: String,
    },
    /// A new user.
    UserAdd {
        /// The tenant.
        tenant: String,
        /// Its e-mail.
        email: String,
        /// Its name.
        name: String,
        /// What it may do.
        role: Role,
        /// Its password.
        password: Password,
    },
    /// Ends a user's sessions and refuses new ones.
    UserDisable {
        /// The tenant.
        tenant: String,
        /// Id or e-mail.
        user: String,
    },
    /// The live sessions of a user.
    SessionLs {
        /// The tenant.
        tenant: String,
        /// Id or e-mail.
        user: String,
    },
    /// Ends a session.
    SessionRevoke {
        /// The tenant.
        tenant: String,
        /// The session's id.
        session: String,
    },
    /// The blocked networks.
    BlockLs {},
    /// Blocks a network before authentication.
    BlockAdd {
        /// The network.
        cidr: ipnet::IpNet,
        /// For how many seconds; without, until it is removed.
        ttl: Option<u64>,
        /// Why, for whoever finds it later.
        reason: String,
    },
    /// Unblocks a network.
    BlockRm {
        /// The id that `block ls` shows.
        id: String,
    },
    /// The audit trail, oldest first.
    AuditTail {
        /// Only what came after this sequence number; without, the newest `limit`.
        after: Option<u64>,
        /// At most so many.
        limit: u32,
    },
}
