//! The compact serialisation of a JSON Web Signature (RFC 7515 section 7.1), read strictly.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::header::Header;
use super::key::KeySet;
use super::rejection::Rejection;

/// A token that has the right form and is not believed yet. Its payload cannot be reached before [`Jws::verify`].
pub struct Jws<'a> {
    header: Header,
    signing_input: &'a str,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

/// A token whose signature was found good.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifiedJws {
    /// Its header.
    pub header: Header,
    /// Its payload: any bytes, possibly none.
    pub payload: Vec<u8>,
}

impl<'a> Jws<'a> {
    /// Reads `text`, refusing more than `limit` bytes before anything is decoded.
    ///
    /// Costs three allocations no larger than the text and the parsing of a small JSON object; no cryptography.
    ///
    /// # Errors
    /// `TooLarge`, `Malformed`, `Duplicate`, `Critical`, `KeyInToken`, `Header`, `Algorithm`, `UnknownKey`.
    pub fn parse(text: &'a str, limit: usize) -> Result<Self, Rejection> {
        if text.len() > limit {
            return Err(Rejection::TooLarge);
        }
        // Our own look at the characters, so that the rule does not hang on how a decoder treats what it does not know.
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.')) {
            return Err(Rejection::Malformed);
        }
        let (signing_input, signature) = text.rsplit_once('.').ok_or(Rejection::Malformed)?;
        let (header, payload) = signing_input.split_once('.').ok_or(Rejection::Malformed)?;
        if header.is_empty() || signature.is_empty() || payload.contains('.') {
            return Err(Rejection::Malformed);
        }
        Ok(Self {
            header: Header::parse(&decode(header)?)?,
            signing_input,
            payload: decode(payload)?,
            signature: decode(signature)?,
        })
    }

    /// The header, which anyone may have written.
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// Checks the signature with the key that the header names.
    ///
    /// # Errors
    /// `UnknownKey`, `KeyCompromised`, `Algorithm`, `BadSignature`.
    pub fn verify(self, keys: &KeySet) -> Result<VerifiedJws, Rejection> {
        let key = keys.key(&self.header.kid).ok_or(Rejection::UnknownKey)?;
        key.verify(self.header.algorithm, self.signing_input.as_bytes(), &self.signature)?;
        Ok(VerifiedJws { header: self.header, payload: self.payload })
    }
}

impl fmt::Debug for Jws<'_> {
    /// Only the header: the rest is a credential, should the signature turn out to be good.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jws").field("header", &self.header).finish_non_exhaustive()
    }
}

/// Decodes base64url without padding; the engine refuses set bits beyond the last byte, so each value has one spelling.
fn decode(part: &str) -> Result<Vec<u8>, Rejection> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Rejection::Malformed)
}
