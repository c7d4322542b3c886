//! Passwords on their way in. What makes a *new* password acceptable is [`crate::password::PasswordPolicy`].

use schemars::{Schema, json_schema};

use super::InputFault;
use super::text::{hide_in_debug, normalised, read_by_parsing};
use crate::secret::Secret;

/// A password as somebody typed it: 1 to 256 characters, none of them a control character.
///
/// Prepared by the OpaqueString profile (RFC 8265 section 4.2) as far as it is stable between versions of Unicode:
/// other spaces become U+0020, then Normalization Form C. Nothing is trimmed, cut or changed in case.
#[derive(Clone, PartialEq)]
pub struct Password(Secret<String>);

const LONGEST: usize = 256;
const LONGEST_BYTES: usize = 1024;
const EMPTY: InputFault = InputFault::new("string.too_short", "Must not be empty.");
const TOO_LONG: InputFault = InputFault::new("string.too_long", "Must be at most 256 characters.");
const CONTROL: InputFault = InputFault::new("string.control_character", "Must not contain control characters.");
const TOO_SHORT: InputFault = InputFault::new("string.too_short", "Must be at least 8 characters.");

impl Password {
    /// Reads a password.
    pub fn parse(text: &str) -> Result<Self, InputFault> {
        if text.is_empty() {
            return Err(EMPTY);
        }
        // Bytes first: nobody counts the characters of a megabyte.
        if text.len() > LONGEST_BYTES || text.chars().count() > LONGEST {
            return Err(TOO_LONG);
        }
        if text.chars().any(char::is_control) {
            return Err(CONTROL);
        }
        let password = Secret::new(normalised(text));
        if password.expose().len() > LONGEST_BYTES {
            return Err(TOO_LONG);
        }
        Ok(Self(password))
    }

    /// The prepared text, for hashing and for the policy only.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    /// Length in characters of the prepared text.
    pub fn characters(&self) -> usize {
        self.expose().chars().count()
    }

    fn schema() -> Schema {
        json_schema!({
            "type": "string",
            "description": "A password, without control characters",
            "format": "password",
            "writeOnly": true,
            "pattern": "^[^\\u0000-\\u001F\\u007F-\\u009F]+$",
            "minLength": 1,
            "maxLength": LONGEST
        })
    }
}

/// A password that somebody wants from now on: as [`Password`], and never shorter than 8 characters.
///
/// The schema states the default policy's 15 characters and refuses one character repeated all along. An installation that
/// allows less may say so in its document; the policy decides, not the schema.
#[derive(Clone, PartialEq)]
pub struct NewPassword(Password);

impl NewPassword {
    /// Fewest characters that any installation may allow (ASVS 5.0, 6.2.1).
    pub const FLOOR: usize = 8;

    /// Reads a new password. The policy is asked later, because it needs to know whose it is.
    pub fn parse(text: &str) -> Result<Self, InputFault> {
        let password = Password::parse(text)?;
        if password.characters() < Self::FLOOR { Err(TOO_SHORT) } else { Ok(Self(password)) }
    }

    /// The password, for the policy and the hash.
    pub const fn password(&self) -> &Password {
        &self.0
    }

    fn schema() -> Schema {
        json_schema!({
            "type": "string",
            "description": "A new password of at least 15 characters that is not a common one",
            "format": "password",
            "writeOnly": true,
            "pattern": concat!(
                "^(?![^\\u0000-\\u001F\\u007F-\\u009F]?([^\\u0000-\\u001F\\u007F-\\u009F])\\1*[^\\u0000-\\u001F\\u007F-\\u009F]?$)",
                "[^\\u0000-\\u001F\\u007F-\\u009F]+$"
            ),
            "minLength": 15,
            "maxLength": LONGEST
        })
    }
}

read_by_parsing!(Password, "a password");
hide_in_debug!(Password);
read_by_parsing!(NewPassword, "a new password");
hide_in_debug!(NewPassword);
