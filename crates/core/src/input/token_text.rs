//! A token of whatever kind, as it is handed in to be revoked or asked about.

use schemars::{Schema, json_schema};

use super::InputFault;
use super::text::{hide_in_debug, read_by_parsing};
use crate::secret::Secret;

/// A text that may be an access or a refresh token: visible ASCII, at most 8 KiB. What it is, is found out later; RFC
/// 7009 and RFC 7662 want an answer for tokens nobody knows too.
#[derive(Clone, PartialEq)]
pub struct TokenText(Secret<String>);

const MALFORMED: InputFault =
    InputFault::new("token.malformed", "Must be a token: 1 to 8192 visible ASCII characters.");

impl TokenText {
    /// Reads a token's text.
    pub fn parse(text: &str) -> Result<Self, InputFault> {
        let fits = (1..=8192).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        if fits { Ok(Self(Secret::new(text.to_owned()))) } else { Err(MALFORMED) }
    }

    /// The text.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    fn schema() -> Schema {
        json_schema!({
            "type": "string",
            "description": "An access or refresh token",
            "pattern": "^[!-~]+$",
            "minLength": 1,
            "maxLength": 8192
        })
    }
}

read_by_parsing!(TokenText, "a token");
hide_in_debug!(TokenText);
