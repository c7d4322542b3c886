//! Signed tokens: a strict reader of JSON Web Signatures, and the access tokens built on it.
//!
//! The cryptography is aws-lc-rs; everything around it is here, because that is where token libraries fail. The order
//! is fixed: size, characters, header, key by id, signature, claims. Nothing is decoded before the size is known, and
//! nothing of a payload can be seen before its signature was found good.
//!
//! # What is accepted
//! 1. Compact serialisation (RFC 7515 section 7.1) only: at most [`MAX_TOKEN`] bytes of `[A-Za-z0-9_.-]`, exactly two
//!    dots, base64url without padding and without stray bits in the last character.
//! 2. A header with `alg`, `kid` and `typ` and nothing else. `kid` names a key in the given [`KeySet`]; `alg` is the one
//!    algorithm of that key, compared byte by byte.
//! 3. JSON in which no object names a member twice, at any depth.
//! 4. For an access token: `typ` `at+jwt`, all of [`Claims`] with exact types and nothing else, issuer and audience of
//!    this installation, a life of at most [`MAX_LIFETIME`] that has begun and not ended.
//!
//! # What is refused
//! Everything else, with a [`Rejection`] that says why in one stable word. In particular: `alg` `none` in any spelling,
//! keys or key addresses inside the token (`jwk`, `jku`, `x5u`, `x5c`), any `crit`, MACs as access tokens, numbers written
//! as strings or with a fraction.
//!
//! # Deployment caveats
//! * Another node's clock may run ahead by [`CLOCK_SKEW`]; more, and its fresh tokens are refused here. An expiry is exact.
//! * A signature says who issued a token, not that it is still wanted: ask the revocation table after [`Verifier::verify`].
//! * An ECDSA signature has two valid forms, so a token's text is not its identity; `jti` is.
//!
//! # Exception to "no randomness in this crate"
//! [`SigningKey::generate_pkcs8`] and ECDSA signing draw from aws-lc's own generator. Handing randomness in would mean
//! deriving keys and nonces ourselves, which is the one place where a mistake is fatal.
//!
//! # Example
//! ```
//! use std::sync::Arc;
//! use bartizan_core::id::{SessionId, TenantId, TokenId, UserId};
//! use bartizan_core::principal::{Role, Tier};
//! use bartizan_core::time::Millis;
//! use bartizan_core::token::{Algorithm, Claims, KeySet, KeyState, Rejection, SigningKey, Verifier};
//!
//! let pkcs8 = SigningKey::generate_pkcs8(Algorithm::Ed25519)?;
//! let key = SigningKey::from_pkcs8(Algorithm::Ed25519, &pkcs8)?;
//! let keys = KeySet::new([key.verification_key(KeyState::Active)?])?;
//! let verifier = Verifier::new(Arc::new(keys), "https://api.example", "example")?;
//!
//! let now = Millis::from_seconds(1_700_000_000);
//! let claims = Claims {
//!     iss: "https://api.example".into(),
//!     aud: "example".into(),
//!     sub: UserId::new(now, [1; 10]),
//!     tid: TenantId::new(now, [2; 10]),
//!     sid: SessionId::new(now, [3; 10]),
//!     jti: TokenId::new(now, [4; 10]),
//!     iat: now,
//!     exp: Millis::from_seconds(1_700_000_300),
//!     role: Role::Member,
//!     tier: Tier::Free,
//!     ue: 0,
//!     te: 0,
//! };
//! let token = key.sign(&claims)?;
//! assert_eq!(verifier.verify(&token, now), Ok(claims));
//! assert_eq!(verifier.verify(&token, Millis::from_seconds(1_700_000_300)), Err(Rejection::Expired));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod algorithm;
mod claims;
mod header;
mod jose;
mod jwk;
mod key;
mod rejection;
mod rsa;
mod signing;
mod strict_json;
mod verify;

pub use algorithm::Algorithm;
pub use claims::Claims;
pub use header::Header;
pub use jose::{Jws, VerifiedJws};
pub use jwk::{PublicJwk, PublicJwks};
pub use key::{KeyError, KeySet, KeyState, VerificationKey};
pub use rejection::Rejection;
pub use signing::{SigningError, SigningKey};
pub use verify::Verifier;

use std::time::Duration;

/// Most bytes of an access token, checked before anything is decoded. Ours have about 600; headers of 8 KiB are what
/// proxies commonly allow.
pub const MAX_TOKEN: usize = 8 * 1024;

/// Longest life of an access token, from `iat` to `exp`. A revocation has to be remembered for this long.
pub const MAX_LIFETIME: Duration = Duration::from_secs(15 * 60);

/// How far ahead the clock of the node that issued a token may run: `iat` and `nbf` may lie this far in the future.
/// It is not applied to `exp`: a late node would otherwise lengthen every life, and a client renews in good time.
pub const CLOCK_SKEW: Duration = Duration::from_secs(5);
