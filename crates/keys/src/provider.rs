//! What the rest of Bartizan asks of a place where keys live.

use std::fmt::Debug;
use std::sync::Arc;

use bartizan_core::password::Peppers;
use bartizan_core::secret::Secret;

/// Holds a root key ("key-encryption key") and works with it.
///
/// `aad` names what is wrapped; the same bytes must be given to unwrap it. Calls may take as long as a hardware module
/// does: never make one on a thread that serves requests without a time-out.
pub trait KeyProvider: Debug + Send + Sync + 'static {
    /// Short id of the root key that wraps now: 16 hexadecimal digits that depend on the key alone, and tell nothing of it.
    fn kek_id(&self) -> &str;

    /// Checks that what was wrapped under root key `kek` can be unwrapped here. Ask at start for every id the database
    /// knows: a lost or foreign root key must stop the start, not the first request.
    ///
    /// # Errors
    /// [`KeyError::ForeignRoot`].
    fn require(&self, kek: &str) -> Result<(), KeyError>;

    /// Wraps a key under the current root key.
    ///
    /// # Errors
    /// [`KeyError::Unavailable`], [`KeyError::TooLarge`].
    fn wrap(&self, aad: &[u8], key: &Secret<[u8; 32]>) -> Result<Vec<u8>, KeyError>;

    /// Unwraps a key that root key `kek` wrapped.
    ///
    /// # Errors
    /// [`KeyError::ForeignRoot`], [`KeyError::Refused`], [`KeyError::Unavailable`].
    fn unwrap(&self, kek: &str, aad: &[u8], wrapped: &[u8]) -> Result<Secret<[u8; 32]>, KeyError>;

    /// Wraps key material of any length, such as the PKCS#8 form of a signing key.
    ///
    /// # Errors
    /// [`KeyError::Unavailable`], [`KeyError::TooLarge`].
    fn wrap_bytes(&self, aad: &[u8], bytes: &Secret<Vec<u8>>) -> Result<Vec<u8>, KeyError>;

    /// Unwraps what [`KeyProvider::wrap_bytes`] wrapped.
    ///
    /// # Errors
    /// As [`KeyProvider::unwrap`].
    fn unwrap_bytes(&self, kek: &str, aad: &[u8], wrapped: &[u8]) -> Result<Secret<Vec<u8>>, KeyError>;

    /// A key for the use `label`, always the same for one root key `kek`, current or older: for the MAC of cursors, the
    /// hashing of limiter keys.
    ///
    /// # Errors
    /// [`KeyError::ForeignRoot`], [`KeyError::Unavailable`].
    fn derive(&self, kek: &str, label: &str) -> Result<Secret<[u8; 32]>, KeyError>;

    /// The peppers of password hashes.
    fn peppers(&self) -> Arc<Peppers>;
}

/// Whether asking again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transience {
    /// The same call may succeed later: answer 503 and try again.
    Transient,
    /// It will not succeed until somebody mends something.
    Permanent,
}

/// Why a provider did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The root key it was sealed under is not here.
    #[error(
        "this database was sealed under root key {wanted}, the keyring holds {held}: put the file of that key back (as \
         root.key, or as root.{wanted}.key to only read with it); without it the data cannot be opened"
    )]
    ForeignRoot {
        /// The root key that would be needed.
        wanted: String,
        /// Those that are here, separated by commas.
        held: String,
    },
    /// The wrap does not open: damaged, or it was moved from somewhere else. Somebody may have changed the database.
    #[error("a wrapped key does not open: it is damaged or was put in another key's place")]
    Refused,
    /// More than can be wrapped.
    #[error("the key material or its description is too large to be wrapped")]
    TooLarge,
    /// The provider cannot work now.
    #[error("the key provider is not available: {0}")]
    Unavailable(String),
}

impl KeyError {
    /// Whether asking again can help.
    pub const fn transience(&self) -> Transience {
        match self {
            KeyError::Unavailable(_) => Transience::Transient,
            KeyError::ForeignRoot { .. } | KeyError::Refused | KeyError::TooLarge => Transience::Permanent,
        }
    }
}
