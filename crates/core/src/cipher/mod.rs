//! What must not be readable in the database: the format of sealed fields, blind indexes and wrapped keys.
//!
//! 1. A field is sealed with XAES-256-GCM under a data key of its tenant ([`SealingKey`]), in the byte layout that Tink
//!    uses, so that another implementation can read it: `0x01 | key id (u32, big-endian) | nonce (24) | ciphertext | tag
//!    (16)`.
//! 2. A sealed value opens only where it was sealed: tenant, table, column, row and schema revision are its associated
//!    data ([`Aad::field`]). There is no call without them.
//! 3. What must be found again without being readable goes through [`index_tag`]: a keyed hash of the normalised value.
//! 4. Data keys are stored wrapped ([`WrappedKey`]); the wrap names tenant, purpose and id, so that two wrapped keys
//!    cannot be swapped.
//!
//! **Refused**, all with the same [`CipherError::Refused`]: a wrong key, place, tag, format byte, key id or length. Who
//! can tell these apart has an oracle. No key is tried that the value does not name.
//!
//! **Caveats.** The length of a value shows (ciphertext is 45 bytes longer). Equal values of a column have equal index
//! tags inside one tenant. An old sealed value put back in its own place opens: freshness is the database's business.
//! Neither AES-GCM nor XAES-256-GCM commits to its key; that matters only where an attacker supplies keys, which nobody
//! can here.

mod aad;
mod data_key;
mod derive;
mod index;
mod seal;
mod xaes;

#[cfg(test)]
mod shake;

pub use aad::{Aad, FieldRef};
pub use data_key::{Purpose, WrappedKey};
pub use derive::derive_key;
pub use index::index_tag;
pub use seal::{SealingKey, key_id};
pub use xaes::{MAX_PLAINTEXT, NONCE_LEN, TAG_LEN, Xaes};

/// Why sealing or opening did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CipherError {
    /// The value does not open here: wrong key, wrong place, damaged, or not a sealed value. Deliberately one answer.
    #[error("the sealed value does not open with this key in this place")]
    Refused,
    /// Too much to seal: more than [`MAX_PLAINTEXT`] bytes, or a part of the associated data above 65,535.
    #[error("the value is too large to be sealed (at most {MAX_PLAINTEXT} bytes)")]
    TooLarge,
}
