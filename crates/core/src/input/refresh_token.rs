//! The text of a refresh token.

use schemars::{Schema, json_schema};

use super::InputFault;
use super::text::{hide_in_debug, is_base64url, read_by_parsing};
use crate::secret::Secret;

/// A text with the shape of a refresh token: `btr_` and 43 characters of base64url, which is 256 bits.
///
/// The shape only. Whether it is one is for the sessions to say; what has another shape never reaches the database.
#[derive(Clone, PartialEq)]
pub struct RefreshToken(Secret<String>);

const MALFORMED: InputFault = InputFault::new("refresh_token.malformed", "Must be a refresh token as it was issued.");

impl RefreshToken {
    /// What every refresh token begins with; secret scanners look for it.
    pub const PREFIX: &'static str = "btr_";

    /// Reads a token's text.
    pub fn parse(text: &str) -> Result<Self, InputFault> {
        let body = text.strip_prefix(Self::PREFIX).ok_or(MALFORMED)?;
        if body.len() != 43 || !is_base64url(body) {
            return Err(MALFORMED);
        }
        Ok(Self(Secret::new(text.to_owned())))
    }

    /// The whole text, for hashing.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    fn schema() -> Schema {
        json_schema!({
            "type": "string",
            "description": "A refresh token as it was issued",
            "pattern": "^btr_[A-Za-z0-9_-]{43}$",
            "minLength": 47,
            "maxLength": 47
        })
    }
}

read_by_parsing!(RefreshToken, "a refresh token");
hide_in_debug!(RefreshToken);
