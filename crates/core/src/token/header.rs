//! The protected header of a token: three members, and no others.

use super::algorithm::Algorithm;
use super::key::MAX_KID;
use super::rejection::Rejection;
use super::strict_json::{Fault, Object, Value};

/// A header that was read, not yet believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the token says it was signed with. It never chooses the algorithm; the key does.
    pub algorithm: Algorithm,
    /// Which key signed it: something to look up in a map, and nothing else.
    pub kid: String,
    /// What kind of token it is.
    pub typ: Option<String>,
}

impl Header {
    /// Reads the decoded first part of a token (RFC 7515 section 4).
    pub(super) fn parse(json: &[u8]) -> Result<Self, Rejection> {
        let object = Object::parse(json)?;
        // Before the list is gone through: the graver reason, whatever the order of the members.
        if object.member("crit").is_some() {
            return Err(Rejection::Critical);
        }
        for name in object.names() {
            match name {
                "alg" | "kid" | "typ" => {}
                "jwk" | "jku" | "x5u" | "x5c" | "x5t" | "x5t#S256" => return Err(Rejection::KeyInToken),
                _ => return Err(Rejection::Header),
            }
        }
        let algorithm = match object.member("alg") {
            None => return Err(Rejection::Algorithm),
            Some(name) => Algorithm::parse(name.text().ok_or(Rejection::Malformed)?).ok_or(Rejection::Algorithm)?,
        };
        let kid = match object.member("kid") {
            None => return Err(Rejection::UnknownKey),
            Some(kid) => kid.text().ok_or(Rejection::Malformed)?,
        };
        if kid.is_empty() || kid.len() > MAX_KID {
            return Err(Rejection::UnknownKey);
        }
        let typ = match object.member("typ") {
            None => None,
            Some(Value::Text(typ)) => Some(typ.as_ref().to_owned()),
            Some(_) => return Err(Rejection::Malformed),
        };
        Ok(Self { algorithm, kid: kid.to_owned(), typ })
    }
}

impl From<Fault> for Rejection {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Malformed => Rejection::Malformed,
            Fault::Duplicate => Rejection::Duplicate,
        }
    }
}
