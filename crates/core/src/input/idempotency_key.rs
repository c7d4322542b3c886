//! The key under which a request may be sent again.

use schemars::{Schema, json_schema};

use super::InputFault;
use super::text::{print_as_text, read_by_parsing};

/// An `Idempotency-Key`: 1 to 128 visible ASCII characters without `"` and `\`.
///
/// The draft wants a quoted string (RFC 9651 section 3.3.3), most clients send it bare: both are read, and mean the
/// same key. Without quotes and backslashes inside, one key has one spelling.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(String);

const MALFORMED: InputFault =
    InputFault::new("idempotency_key.malformed", "Must be 1 to 128 visible ASCII characters, in quotes or bare.");

impl IdempotencyKey {
    /// Reads the header's value.
    pub fn parse(text: &str) -> Result<Self, InputFault> {
        let bare = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
        let valid = (1..=128).contains(&bare.len())
            && bare.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\'));
        if valid { Ok(Self(bare.to_owned())) } else { Err(MALFORMED) }
    }

    fn schema() -> Schema {
        json_schema!({
            "type": "string",
            "description": "A key of the client's choice; the same key and request give the same answer",
            "pattern": "^(?:\"[!#-\\[\\]-~]{1,128}\"|[!#-\\[\\]-~]{1,128})$",
            "minLength": 1,
            "maxLength": 130
        })
    }
}

read_by_parsing!(IdempotencyKey, "an idempotency key");
print_as_text!(IdempotencyKey);
