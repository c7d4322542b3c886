//! Keys that sign access tokens.

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, Signature};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::algorithm::Algorithm;
use super::claims::Claims;
use super::key::{KeyError, KeyState, Material, VerificationKey};
use super::{MAX_TOKEN, jwk::PublicJwk};
use crate::secret::Secret;

/// Why no token was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SigningError {
    /// The claims are not ones that [`super::Verifier`] would accept at any time: a fault of the caller.
    #[error("these claims would never be accepted")]
    Claims,
    /// The cryptographic library failed.
    #[error("the cryptographic library failed")]
    Crypto,
}

/// A private key that signs access tokens with Ed25519 or ES256. Its `kid` is the RFC 7638 thumbprint of its public part.
///
/// The private part is held by aws-lc, which wipes it when the key is dropped.
pub struct SigningKey {
    kid: String,
    /// The encoded header with its dot: the same for every token of this key.
    header: String,
    pair: Pair,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    Es256(EcdsaKeyPair),
}

impl SigningKey {
    /// Makes a new private key as a PKCS#8 document, to be kept as a secret. Draws randomness from aws-lc.
    ///
    /// # Errors
    /// `Algorithm` for anything but Ed25519 and ES256; `Crypto` when the generator fails.
    pub fn generate_pkcs8(algorithm: Algorithm) -> Result<Secret<Vec<u8>>, KeyError> {
        let document = match algorithm {
            Algorithm::Ed25519 => Ed25519KeyPair::generate().and_then(|pair| pair.to_pkcs8v1()),
            Algorithm::Es256 => {
                EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).and_then(|pair| pair.to_pkcs8v1())
            }
            _ => return Err(KeyError::Algorithm),
        };
        // The document wipes itself when dropped.
        document.map(|document| Secret::new(document.as_ref().to_vec())).map_err(|_| KeyError::Crypto)
    }

    /// Reads an unencrypted PKCS#8 document (RFC 5958). An enclosed public key must belong to the private one.
    ///
    /// # Errors
    /// `Algorithm` for anything but Ed25519 and ES256; `Malformed` when the document is not such a key.
    pub fn from_pkcs8(algorithm: Algorithm, pkcs8: &Secret<Vec<u8>>) -> Result<Self, KeyError> {
        let document = pkcs8.expose();
        let pair = match algorithm {
            Algorithm::Ed25519 => Ed25519KeyPair::from_pkcs8(document).map(Pair::Ed25519),
            Algorithm::Es256 => EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document).map(Pair::Es256),
            _ => return Err(KeyError::Algorithm),
        }
        .map_err(|_| KeyError::Malformed)?;
        let kid = public_jwk(&pair.material()?)?.thumbprint();
        // Both words are our own: nothing in them needs an escape.
        let header = format!(r#"{{"alg":"{}","typ":"at+jwt","kid":"{kid}"}}"#, algorithm.as_str());
        Ok(Self { header: URL_SAFE_NO_PAD.encode(header) + ".", kid, pair })
    }

    /// Its name in token headers.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The algorithm it signs with.
    pub const fn algorithm(&self) -> Algorithm {
        match self.pair {
            Pair::Ed25519(_) => Algorithm::Ed25519,
            Pair::Es256(_) => Algorithm::Es256,
        }
    }

    /// The key that checks what this one signs.
    ///
    /// # Errors
    /// `Crypto`, should the library not accept its own public key.
    pub fn verification_key(&self, state: KeyState) -> Result<VerificationKey, KeyError> {
        Ok(VerificationKey::new(self.kid.clone(), self.algorithm(), self.pair.material()?).with_state(state))
    }

    /// Makes an access token. Costs one signature; no IO.
    ///
    /// # Errors
    /// `Claims` when they are not sound: empty issuer or audience, a life that is not positive or longer than
    /// [`super::MAX_LIFETIME`], numbers out of range, or a text beyond [`MAX_TOKEN`]. `Crypto` when signing fails.
    pub fn sign(&self, claims: &Claims) -> Result<String, SigningError> {
        let payload = claims.to_json().ok_or(SigningError::Claims)?;
        let mut token = String::with_capacity(self.header.len() + payload.len() * 4 / 3 + 96);
        token.push_str(&self.header);
        URL_SAFE_NO_PAD.encode_string(payload, &mut token);
        let signature = self.pair.sign(token.as_bytes())?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        if token.len() > MAX_TOKEN { Err(SigningError::Claims) } else { Ok(token) }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({}, {})", self.kid, self.algorithm())
    }
}

impl Pair {
    fn material(&self) -> Result<Material, KeyError> {
        match self {
            Pair::Ed25519(pair) => Material::edwards(pair.public_key().as_ref()),
            Pair::Es256(pair) => {
                // Uncompressed point: 0x04, then two coordinates of 32 bytes (SEC 1 section 2.3.3).
                let point = pair.public_key().as_ref().strip_prefix(&[4]).ok_or(KeyError::Crypto)?;
                let (x, y) = point.split_at_checked(32).ok_or(KeyError::Crypto)?;
                Material::curve(Algorithm::Es256, x, y)
            }
        }
    }

    fn sign(&self, input: &[u8]) -> Result<Signature, SigningError> {
        match self {
            Pair::Ed25519(pair) => pair.try_sign(input),
            Pair::Es256(pair) => pair.sign(&SystemRandom::new(), input),
        }
        .map_err(|_| SigningError::Crypto)
    }
}

fn public_jwk(material: &Material) -> Result<&PublicJwk, KeyError> {
    match material {
        Material::Public { jwk, .. } => Ok(jwk),
        Material::Mac(_) => Err(KeyError::Symmetric),
    }
}
