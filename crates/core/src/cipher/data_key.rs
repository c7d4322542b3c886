//! Data keys as they are stored: wrapped under a root key.

use std::fmt;
use std::str::FromStr;

use super::{Aad, CipherError};
use crate::id::TenantId;
use crate::principal::UnknownWord;
use crate::time::Millis;

/// What a data key is for. A key has one purpose, and its wrap says which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Purpose {
    /// Seals fields with XAES-256-GCM.
    Field,
    /// Makes the tags of blind indexes.
    Index,
}

impl Purpose {
    /// Every purpose a tenant has a key for.
    pub const ALL: &'static [Purpose] = &[Purpose::Field, Purpose::Index];

    /// The word in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Purpose::Field => "field",
            Purpose::Index => "index",
        }
    }

    /// The algorithm that a key of this purpose is used with.
    const fn algorithm(self) -> &'static str {
        match self {
            Purpose::Field => "xaes-256-gcm",
            Purpose::Index => "hmac-sha256-128",
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Purpose {
    type Err = UnknownWord;
    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        Purpose::ALL.iter().copied().find(|purpose| purpose.as_str() == text).ok_or(UnknownWord)
    }
}

/// A data key as the table `data_keys` holds it. Useless without the root key; cannot be passed off as another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedKey {
    /// Whose data it seals.
    pub tenant: TenantId,
    /// Its name in sealed values; random, never zero.
    pub id: u32,
    /// What it is for.
    pub purpose: Purpose,
    /// Short id of the root key that wraps it.
    pub kek: String,
    /// When it was made. The youngest key of a purpose is the one that seals.
    pub created: Millis,
    /// The wrap.
    pub wrapped: Vec<u8>,
}

impl WrappedKey {
    /// The associated data of the wrap: tenant, purpose, algorithm, id and time of creation. A wrap put under another
    /// tenant, purpose or id does not open.
    ///
    /// # Errors
    /// None in practice; [`CipherError::TooLarge`] by type.
    pub fn binding(tenant: TenantId, purpose: Purpose, id: u32, created: Millis) -> Result<Aad, CipherError> {
        Aad::bind(
            *b"dk1",
            &[
                tenant.as_bytes(),
                purpose.as_str().as_bytes(),
                purpose.algorithm().as_bytes(),
                &id.to_be_bytes(),
                &created.0.to_be_bytes(),
            ],
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purposes_have_one_word_each() {
        for purpose in Purpose::ALL {
            assert_eq!(purpose.as_str().parse(), Ok(*purpose));
        }
        assert!("Field".parse::<Purpose>().is_err());
    }

    #[test]
    fn the_binding_names_every_part() {
        let tenant = TenantId::from_u128;
        let base = WrappedKey::binding(tenant(1), Purpose::Field, 7, Millis(5));
        for other in [
            WrappedKey::binding(tenant(2), Purpose::Field, 7, Millis(5)),
            WrappedKey::binding(tenant(1), Purpose::Index, 7, Millis(5)),
            WrappedKey::binding(tenant(1), Purpose::Field, 8, Millis(5)),
            WrappedKey::binding(tenant(1), Purpose::Field, 7, Millis(6)),
        ] {
            assert_ne!(other, base);
        }
    }
}
