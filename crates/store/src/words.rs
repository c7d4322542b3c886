//! The states a row can be in, as the words stored in the database.

use std::fmt;
use std::str::FromStr;

use bartizan_core::principal::UnknownWord;
use serde::Serialize;

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
        #[serde(rename_all = "lowercase")]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// The word in the database and on the wire.
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
    )+};
}

words! {
    /// Whether a tenant may work. Moves: active ⇄ suspended.
    TenantStatus {
        /// May work.
        Active = "active",
        /// Every credential of it is refused.
        Suspended = "suspended",
    }
    /// Whether a user may log in. Moves: active ⇄ disabled.
    UserStatus {
        /// May log in.
        Active = "active",
        /// Every credential of his is refused.
        Disabled = "disabled",
    }
    /// What a refresh token is worth. Move: live → spent, once.
    RefreshState {
        /// The newest of its session; may be spent.
        Live = "live",
        /// Already exchanged; seeing it again is the sign of a stolen copy.
        Spent = "spent",
    }
    /// The life of a signing key. Moves: pending → active → retired, and from each to compromised.
    KeyState {
        /// Published, so that verifiers know it, but not yet used.
        Pending = "pending",
        /// Signs.
        Active = "active",
        /// Verifies what it signed, signs nothing more.
        Retired = "retired",
        /// Neither signs nor verifies.
        Compromised = "compromised",
    }
}
