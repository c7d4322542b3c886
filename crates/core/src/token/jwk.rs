//! JSON Web Keys (RFC 7517): reading verification keys, writing public ones.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schemars::JsonSchema;
use serde::Serialize;

use super::algorithm::Algorithm;
use super::key::{KeyError, KeySet, MAX_KEYS, MAX_KID, Material, VerificationKey};
use super::strict_json::{Fault, Object, Value};

/// Most bytes of a key set that are read: 64 RSA keys of 4096 bit fit.
const MAX_JSON: usize = 128 * 1024;

/// A public key as others read it (RFC 7517, RFC 7518 section 6, RFC 8037). It has no place for a private part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PublicJwk {
    /// `OKP`, `EC` or `RSA`.
    pub kty: &'static str,
    /// The curve, except for RSA.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crv: Option<&'static str>,
    /// The point, or its first coordinate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub x: Option<String>,
    /// The second coordinate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub y: Option<String>,
    /// The RSA modulus.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n: Option<String>,
    /// The RSA exponent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub e: Option<String>,
    /// The one algorithm.
    pub alg: &'static str,
    /// Always `sig`.
    #[serde(rename = "use")]
    pub usage: &'static str,
    /// Its name.
    pub kid: String,
}

/// A set of public keys: the body of `/.well-known/jwks.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PublicJwks {
    /// The keys.
    pub keys: Vec<PublicJwk>,
}

impl PublicJwk {
    const fn bare(kty: &'static str, algorithm: Algorithm) -> Self {
        let alg = algorithm.as_str();
        Self { kty, crv: None, x: None, y: None, n: None, e: None, alg, usage: "sig", kid: String::new() }
    }

    pub(super) fn edwards(x: &[u8]) -> Self {
        let x = Some(URL_SAFE_NO_PAD.encode(x));
        Self { crv: Some("Ed25519"), x, ..Self::bare("OKP", Algorithm::Ed25519) }
    }

    pub(super) fn curve(algorithm: Algorithm, crv: &'static str, x: &[u8], y: &[u8]) -> Self {
        let (x, y) = (Some(URL_SAFE_NO_PAD.encode(x)), Some(URL_SAFE_NO_PAD.encode(y)));
        Self { crv: Some(crv), x, y, ..Self::bare("EC", algorithm) }
    }

    pub(super) fn rsa(algorithm: Algorithm, n: &[u8], e: &[u8]) -> Self {
        let (n, e) = (Some(URL_SAFE_NO_PAD.encode(n)), Some(URL_SAFE_NO_PAD.encode(e)));
        Self { n, e, ..Self::bare("RSA", algorithm) }
    }

    /// The thumbprint of RFC 7638: SHA-256 over the members that make the key, in alphabetical order, as base64url.
    pub fn thumbprint(&self) -> String {
        let members = [("crv", self.crv), ("e", self.e.as_deref()), ("kty", Some(self.kty)), ("n", self.n.as_deref())];
        let members = members.into_iter().chain([("x", self.x.as_deref()), ("y", self.y.as_deref())]);
        // Values are our own words and base64url: nothing in them needs an escape.
        let canonical: Vec<String> =
            members.filter_map(|(name, value)| value.map(|value| format!("\"{name}\":\"{value}\""))).collect();
        let canonical = format!("{{{}}}", canonical.join(","));
        URL_SAFE_NO_PAD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, canonical.as_bytes()))
    }
}

impl VerificationKey {
    /// Reads one JWK as a verification key in the state `Active`.
    ///
    /// `kid` is required. `alg` is required for RSA and MAC keys, whose type leaves it open; elsewhere it must fit the
    /// curve. `use`, if present, is `sig`; `key_ops`, if present, contains `verify` and nothing but `verify` and `sign`.
    /// Members that mean nothing to a signature check are passed over, as RFC 7517 section 4 asks.
    ///
    /// # Errors
    /// A [`KeyError`] for everything that is not beyond doubt.
    pub fn from_jwk(json: &[u8]) -> Result<Self, KeyError> {
        if json.len() > MAX_JSON {
            return Err(KeyError::TooLarge);
        }
        read(&Object::parse(json)?)
    }
}

impl KeySet {
    /// Reads a JWK set (RFC 7517 section 5). One bad key refuses the whole set: a half-read set hides a mistake.
    ///
    /// # Errors
    /// As [`VerificationKey::from_jwk`] and [`KeySet::new`].
    pub fn from_jwks(json: &[u8]) -> Result<Self, KeyError> {
        if json.len() > MAX_JSON {
            return Err(KeyError::TooLarge);
        }
        let object = Object::parse(json)?;
        let Some(Value::Array(members)) = object.member("keys") else { return Err(KeyError::Malformed) };
        if members.len() > MAX_KEYS {
            return Err(KeyError::TooLarge);
        }
        let mut keys = Vec::with_capacity(members.len());
        for member in members {
            let Value::Object(jwk) = member else { return Err(KeyError::Malformed) };
            keys.push(read(jwk)?);
        }
        Self::new(keys)
    }
}

fn read(jwk: &Object<'_>) -> Result<VerificationKey, KeyError> {
    check_usage(jwk)?;
    let kid = match jwk.member("kid") {
        None => return Err(KeyError::Kid),
        Some(kid) => kid.text().ok_or(KeyError::Malformed)?,
    };
    if kid.is_empty() || kid.len() > MAX_KID {
        return Err(KeyError::Kid);
    }
    let kty = text(jwk, "kty")?;
    if kty != "oct" && ["d", "p", "q", "dp", "dq", "qi", "oth", "k"].iter().any(|name| jwk.member(name).is_some()) {
        return Err(KeyError::PrivatePart);
    }
    let algorithm = algorithm(jwk, kty)?;
    let material = match kty {
        "OKP" => Material::edwards(&bytes(jwk, "x")?),
        "EC" => Material::curve(algorithm, &bytes(jwk, "x")?, &bytes(jwk, "y")?),
        "RSA" => Material::rsa(algorithm, &bytes(jwk, "n")?, &bytes(jwk, "e")?),
        "oct" => Material::mac(algorithm, &zeroize::Zeroizing::new(bytes(jwk, "k")?)),
        _ => Err(KeyError::Algorithm),
    }?;
    Ok(VerificationKey::new(kid.to_owned(), algorithm, material))
}

/// The one algorithm of a key: what `alg` says, if type and curve allow it; where they leave no choice it may be left out.
fn algorithm(jwk: &Object<'_>, kty: &str) -> Result<Algorithm, KeyError> {
    let implied = match kty {
        "OKP" => match text(jwk, "crv")? {
            "Ed25519" => Some(Algorithm::Ed25519),
            _ => return Err(KeyError::Algorithm),
        },
        "EC" => match text(jwk, "crv")? {
            "P-256" => Some(Algorithm::Es256),
            "P-384" => Some(Algorithm::Es384),
            _ => return Err(KeyError::Algorithm),
        },
        "RSA" | "oct" => None,
        _ => return Err(KeyError::Algorithm),
    };
    let named = match jwk.member("alg") {
        None => None,
        Some(name) => Some(Algorithm::parse(name.text().ok_or(KeyError::Malformed)?).ok_or(KeyError::Algorithm)?),
    };
    match (implied, named) {
        (Some(implied), Some(named)) if implied != named => Err(KeyError::Algorithm),
        // Whether an RSA or MAC algorithm fits the type is decided where the key is made.
        (implied, named) => named.or(implied).ok_or(KeyError::Algorithm),
    }
}

fn check_usage(jwk: &Object<'_>) -> Result<(), KeyError> {
    if let Some(usage) = jwk.member("use")
        && usage.text().ok_or(KeyError::Malformed)? != "sig"
    {
        return Err(KeyError::Usage);
    }
    let operations = match jwk.member("key_ops") {
        None => return Ok(()),
        Some(Value::Array(operations)) => operations,
        Some(_) => return Err(KeyError::Malformed),
    };
    let verify = operations.iter().filter(|operation| operation.text() == Some("verify")).count();
    let sign = operations.iter().filter(|operation| operation.text() == Some("sign")).count();
    if verify == 1 && sign <= 1 && verify + sign == operations.len() { Ok(()) } else { Err(KeyError::Usage) }
}

fn text<'o>(jwk: &'o Object<'_>, name: &str) -> Result<&'o str, KeyError> {
    jwk.member(name).and_then(Value::text).ok_or(KeyError::Malformed)
}

fn bytes(jwk: &Object<'_>, name: &str) -> Result<Vec<u8>, KeyError> {
    URL_SAFE_NO_PAD.decode(text(jwk, name)?).map_err(|_| KeyError::Malformed)
}

impl From<Fault> for KeyError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Malformed => KeyError::Malformed,
            Fault::Duplicate => KeyError::Duplicate,
        }
    }
}
