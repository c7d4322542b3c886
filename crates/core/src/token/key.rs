//! Keys that check signatures, and the set in which a token's `kid` is looked up.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{self, ParsedPublicKey, RsaParameters, RsaPublicKeyComponents, VerificationAlgorithm};

use super::algorithm::Algorithm;
use super::jwk::{PublicJwk, PublicJwks};
use super::rejection::Rejection;
use super::rsa;

/// Why a key was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Not a JWK, a JWK set or a PKCS#8 document.
    #[error("not a well-formed key")]
    Malformed,
    /// An object names a member twice.
    #[error("a member of the key appears twice")]
    Duplicate,
    /// More keys or more bytes than are read.
    #[error("the key set is too large")]
    TooLarge,
    /// No `kid`, or one that is empty or longer than 256 bytes.
    #[error("the key has no usable `kid`")]
    Kid,
    /// Two keys have the same `kid`.
    #[error("two keys have the same `kid`")]
    DuplicateKid,
    /// `alg` is missing where it is needed, unknown, or does not fit `kty` and `crv`.
    #[error("the key's `alg` is missing, unknown, or does not fit its type and curve")]
    Algorithm,
    /// `use` or `key_ops` speak of something other than signatures.
    #[error("the key is not meant for signatures")]
    Usage,
    /// A private key where a public one belongs.
    #[error("the key contains its private part")]
    PrivatePart,
    /// An RSA key under 2048 or over 8192 bit or with a bad exponent, or a MAC key shorter than its hash.
    #[error("the key is too weak")]
    Weak,
    /// An RSA key with the fingerprint of CVE-2017-15361.
    #[error("the key was made by the flawed generator of CVE-2017-15361 (ROCA)")]
    Roca,
    /// The public point is not on the curve, or generates a group of a few elements.
    #[error("the public key is not a sound point of its curve")]
    Point,
    /// MAC keys and public keys in one set, or a MAC key where only public keys may be.
    #[error("symmetric keys do not belong here")]
    Symmetric,
    /// The cryptographic library failed.
    #[error("the cryptographic library failed")]
    Crypto,
}

/// Where a key is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyState {
    /// Published, not signing yet. It verifies: another node may have been told to sign a moment earlier.
    Pending,
    /// Signs and verifies.
    Active,
    /// Verifies what it signed until that has expired.
    Retired,
    /// Believed by nobody from now on.
    Compromised,
}

/// A key that checks signatures of exactly one algorithm.
#[derive(Clone)]
pub struct VerificationKey {
    kid: String,
    algorithm: Algorithm,
    state: KeyState,
    material: Material,
}

/// The parsed key, made once: parsing costs about as much as an Ed25519 verification.
#[derive(Clone)]
pub(super) enum Material {
    Public { parsed: ParsedPublicKey, jwk: Box<PublicJwk> },
    Mac(Box<hmac::Key>),
}

impl VerificationKey {
    pub(super) fn new(kid: String, algorithm: Algorithm, material: Material) -> Self {
        Self { kid, algorithm, state: KeyState::Active, material }
    }

    /// The same key in another state.
    #[must_use]
    pub fn with_state(mut self, state: KeyState) -> Self {
        self.state = state;
        self
    }

    /// Its name; for our own keys the RFC 7638 thumbprint.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The one algorithm it is used with.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Where it is in its life.
    pub const fn state(&self) -> KeyState {
        self.state
    }

    /// The public key for others; nothing for a MAC key.
    pub fn public_jwk(&self) -> Option<PublicJwk> {
        match &self.material {
            Material::Public { jwk, .. } => Some(PublicJwk { kid: self.kid.clone(), ..jwk.as_ref().clone() }),
            Material::Mac(_) => None,
        }
    }

    /// Checks `signature` over `input`, made with `algorithm` as the token says.
    ///
    /// The binding of key and algorithm is checked here, where it is used, so that no caller can forget it.
    pub(super) fn verify(&self, algorithm: Algorithm, input: &[u8], signature: &[u8]) -> Result<(), Rejection> {
        if self.state == KeyState::Compromised {
            return Err(Rejection::KeyCompromised);
        }
        if algorithm != self.algorithm {
            return Err(Rejection::Algorithm);
        }
        match &self.material {
            Material::Public { parsed, .. } => parsed.verify_sig(input, signature),
            // In constant time, and only for a tag of full length.
            Material::Mac(key) => hmac::verify(key, input, signature),
        }
        .map_err(|_| Rejection::BadSignature)
    }
}

impl fmt::Debug for VerificationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerificationKey({}, {}, {:?})", self.kid, self.algorithm, self.state)
    }
}

impl Material {
    /// An Ed25519 public key: 32 bytes.
    pub(super) fn edwards(x: &[u8]) -> Result<Self, KeyError> {
        if x.len() != 32 || is_small_order(x) {
            return Err(KeyError::Point);
        }
        let parsed = ParsedPublicKey::new(&signature::ED25519, x).map_err(|_| KeyError::Point)?;
        Ok(Material::Public { parsed, jwk: Box::new(PublicJwk::edwards(x)) })
    }

    /// A point on the curve of `algorithm`, in coordinates of full length. The library checks that it lies on the curve.
    pub(super) fn curve(algorithm: Algorithm, x: &[u8], y: &[u8]) -> Result<Self, KeyError> {
        let (curve, parameters, len): (_, &'static dyn VerificationAlgorithm, _) = match algorithm {
            Algorithm::Es256 => ("P-256", &signature::ECDSA_P256_SHA256_FIXED, 32),
            Algorithm::Es384 => ("P-384", &signature::ECDSA_P384_SHA384_FIXED, 48),
            _ => return Err(KeyError::Algorithm),
        };
        if x.len() != len || y.len() != len {
            return Err(KeyError::Point);
        }
        let point = [&[4], x, y].concat();
        let parsed = ParsedPublicKey::new(parameters, point).map_err(|_| KeyError::Point)?;
        Ok(Material::Public { parsed, jwk: Box::new(PublicJwk::curve(algorithm, curve, x, y)) })
    }

    /// An RSA key, big-endian without leading zeros.
    pub(super) fn rsa(algorithm: Algorithm, n: &[u8], e: &[u8]) -> Result<Self, KeyError> {
        let parameters: &'static RsaParameters = match algorithm {
            Algorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Algorithm::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            Algorithm::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            Algorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
            Algorithm::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
            Algorithm::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
            _ => return Err(KeyError::Algorithm),
        };
        rsa::check(n, e)?;
        let parsed =
            RsaPublicKeyComponents { n, e }.to_parsed_public_key(parameters).map_err(|_| KeyError::Malformed)?;
        Ok(Material::Public { parsed, jwk: Box::new(PublicJwk::rsa(algorithm, n, e)) })
    }

    /// A MAC key at least as long as the hash (RFC 7518 section 3.2).
    pub(super) fn mac(algorithm: Algorithm, key: &[u8]) -> Result<Self, KeyError> {
        let parameters = match algorithm {
            Algorithm::Hs256 => hmac::HMAC_SHA256,
            Algorithm::Hs384 => hmac::HMAC_SHA384,
            Algorithm::Hs512 => hmac::HMAC_SHA512,
            _ => return Err(KeyError::Algorithm),
        };
        if key.len() < parameters.digest_algorithm().output_len() {
            return Err(KeyError::Weak);
        }
        Ok(Material::Mac(Box::new(hmac::Key::new(parameters, key))))
    }
}

/// Longest `kid` that is looked at, in bytes.
pub(super) const MAX_KID: usize = 256;
/// Most keys in a set.
pub(super) const MAX_KEYS: usize = 64;

/// The keys that are believed, by `kid`. Immutable: a rotation makes a new set.
#[derive(Clone, Debug, Default)]
pub struct KeySet {
    keys: HashMap<String, VerificationKey>,
}

impl KeySet {
    /// Gathers keys.
    ///
    /// # Errors
    /// `DuplicateKid`, since a name must mean one key; `Symmetric` when MAC keys and public keys are mixed, since then a
    /// public key could be mistaken for a MAC key; `TooLarge` beyond 64 keys.
    pub fn new(keys: impl IntoIterator<Item = VerificationKey>) -> Result<Self, KeyError> {
        let mut set = Self::default();
        for key in keys {
            if set.keys.len() == MAX_KEYS {
                return Err(KeyError::TooLarge);
            }
            if set.keys.values().any(|known| known.algorithm.is_symmetric() != key.algorithm.is_symmetric()) {
                return Err(KeyError::Symmetric);
            }
            match set.keys.entry(key.kid.clone()) {
                Entry::Occupied(_) => return Err(KeyError::DuplicateKid),
                Entry::Vacant(place) => place.insert(key),
            };
        }
        Ok(set)
    }

    /// The key of that name. One hash look-up; the name is never used for anything else.
    pub fn key(&self, kid: &str) -> Option<&VerificationKey> {
        self.keys.get(kid)
    }

    /// Every key, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &VerificationKey> {
        self.keys.values()
    }

    /// What `/.well-known/jwks.json` publishes, ordered by `kid`: the public part of every key that is not compromised.
    pub fn public_jwks(&self) -> PublicJwks {
        let mut keys: Vec<PublicJwk> = self
            .iter()
            .filter(|key| key.state != KeyState::Compromised)
            .filter_map(VerificationKey::public_jwk)
            .collect();
        keys.sort_by(|a, b| a.kid.cmp(&b.kid));
        PublicJwks { keys }
    }
}

/// Whether an Ed25519 public key generates a group of at most eight elements. Under such a key one signature fits many
/// messages. Compared without the sign bit; the last two are the non-canonical spellings of 0 and 1.
fn is_small_order(x: &[u8]) -> bool {
    const POINTS: [[u8; 32]; 7] = [
        little_endian(0),
        little_endian(1),
        near_prime(-1),
        [
            0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf,
            0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
        ],
        [
            0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20,
            0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
        ],
        near_prime(0),
        near_prime(1),
    ];
    let Ok(mut point) = <[u8; 32]>::try_from(x) else { return true };
    let [.., last] = &mut point;
    *last &= 0x7f;
    POINTS.contains(&point)
}

/// A small number in 32 bytes.
const fn little_endian(number: u8) -> [u8; 32] {
    let mut bytes = [0; 32];
    let [first, ..] = &mut bytes;
    *first = number;
    bytes
}

/// The field's prime, 2^255 - 19, plus a small number, in 32 bytes.
const fn near_prime(offset: i8) -> [u8; 32] {
    let mut bytes = [0xff; 32];
    let [first, .., last] = &mut bytes;
    *first = 0xed_u8.wrapping_add_signed(offset);
    *last = 0x7f;
    bytes
}
