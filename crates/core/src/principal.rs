//! Who is asking: roles, tiers, and the principal that a verified credential stands for.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{SessionId, TenantId, TokenId, UserId};
use crate::time::Millis;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "lowercase")]
        #[schemars(inline)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// Every value, in order of declaration.
            pub const ALL: &'static [$name] = &[$($name::$variant,)+];

            /// The word on the wire and in the database.
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;
            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                match text { $($word => Ok($name::$variant),)+ _ => Err(UnknownWord) }
            }
        }
    };
}

/// A word that is none of the allowed ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not one of the allowed words")]
pub struct UnknownWord;

words! {
    /// What a user is inside his tenant. What each role may do stands beside each action, in [`crate::action`].
    Role {
        /// Holds the tenant: everything an admin may, and the tenant itself.
        Owner = "owner",
        /// Manages users and sees the audit trail.
        Admin = "admin",
        /// Uses the product.
        Member = "member",
        /// Reads the audit trail and the users, changes nothing but himself.
        Auditor = "auditor",
    }
}

impl Role {
    /// Height in the tenant. Nobody may act on a user who stands higher, nor raise anyone above himself.
    pub const fn rank(self) -> u8 {
        match self {
            Role::Owner => 3,
            Role::Admin => 2,
            Role::Auditor | Role::Member => 1,
        }
    }
}

words! {
    /// What a tenant pays for; selects its rate limits.
    Tier {
        /// 60 requests a minute by default.
        Free = "free",
        /// 300 requests a minute by default.
        Pro = "pro",
        /// 1,000 requests a minute by default.
        Enterprise = "enterprise",
    }
}

/// A user of a tenant with a live credential, as the guard established it for this request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The tenant whose border this request may not cross.
    pub tenant: TenantId,
    /// The user.
    pub user: UserId,
    /// The session the credential belongs to.
    pub session: SessionId,
    /// The one token presented.
    pub token: TokenId,
    /// The role at the time the token was issued; a change of role ends the tokens that carry the old one.
    pub role: Role,
    /// The tier in force now: a change of tier overrides what an older token says.
    pub tier: Tier,
    /// When the presented token stops being valid.
    pub expires: Millis,
}
