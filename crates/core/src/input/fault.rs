//! Which rule a value broke.

use std::borrow::Cow;
use std::fmt;

use crate::error::FieldError;

/// The rule that a value broke. It never contains the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputFault {
    /// Stable dotted code, such as `string.too_long`.
    pub code: &'static str,
    /// A sentence for people.
    pub message: &'static str,
}

impl InputFault {
    pub(super) const fn new(code: &'static str, message: &'static str) -> Self {
        Self { code, message }
    }

    /// The fault at its place: a JSON Pointer, or `query:name`, `path:name`, `header:name`.
    pub fn at(self, pointer: impl Into<String>) -> FieldError {
        FieldError::new(pointer, self.code, self.message)
    }
}

impl fmt::Display for InputFault {
    /// `code: message`; [`rule_of`] reads it back. It is how a fault travels through serde, which carries text only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for InputFault {}

/// Splits the text of an error that travelled through serde into code and message.
///
/// A text that is not of the form `code: message` comes from somebody else and may contain the value: it is replaced
/// by a sentence that says nothing.
pub fn rule_of(text: &str) -> (Cow<'static, str>, Cow<'static, str>) {
    let word = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    match text.split_once(": ") {
        Some((code, message)) if code.contains('.') && code.split('.').all(word) => {
            (Cow::Owned(code.to_owned()), Cow::Owned(message.to_owned()))
        }
        _ => (Cow::Borrowed("value.invalid"), Cow::Borrowed("The value is not acceptable here.")),
    }
}
