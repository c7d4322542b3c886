//! What can be wrong with a text that claims to be JSON.

use crate::error::{Code, FieldError, Refusal};

/// Why a text was refused, and at which byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} At byte {offset}.", kind.message())]
pub struct JsonFault {
    /// What is wrong.
    pub kind: JsonFaultKind,
    /// Bytes before the place where it was noticed.
    pub offset: usize,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $message:literal;)+) => {
        /// The kinds of fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum JsonFaultKind { $($(#[$doc])* $variant,)+ }

        impl JsonFaultKind {
            /// Every kind, in order of declaration.
            pub const ALL: &'static [JsonFaultKind] = &[$(JsonFaultKind::$variant,)+];

            /// The stable code of the rule.
            pub const fn code(self) -> &'static str {
                match self { $(JsonFaultKind::$variant => $code,)+ }
            }

            /// A sentence for people.
            pub const fn message(self) -> &'static str {
                match self { $(JsonFaultKind::$variant => $message,)+ }
            }
        }
    };
}

kinds! {
    /// Nothing, or white space only.
    Empty = "json.empty", "The body is empty; send one JSON value.";
    /// Bytes that are not UTF-8.
    NotUtf8 = "json.not_utf8", "The body is not UTF-8.";
    /// A byte-order mark in front (RFC 8259 section 8.1 forbids to send one).
    ByteOrderMark = "json.byte_order_mark", "The body begins with a byte-order mark; send it without.";
    /// Something else than a value where a value belongs, such as `NaN`, a comment or a single quote.
    NotAValue = "json.not_a_value", "A JSON value was expected here.";
    /// A member name is missing or not a string, as after a trailing comma.
    NotAName = "json.not_a_name", "A member name in double quotes was expected here.";
    /// No colon after a member name.
    NoColon = "json.no_colon", "A colon was expected after the member name.";
    /// Neither comma nor closing bracket.
    NoComma = "json.no_comma", "A comma or a closing bracket was expected here.";
    /// The text ends inside a value.
    Unclosed = "json.unclosed", "The text ends before its value does.";
    /// Something after the value.
    Trailing = "json.trailing", "There is something after the value; send one value.";
    /// A leading zero, a bare point, a plus sign, an exponent without digits.
    BadNumber = "json.bad_number", "A number is not written as RFC 8259 says.";
    /// A number beyond the range of a double.
    NumberTooLarge = "json.number_too_large", "A number is too large to be represented.";
    /// A backslash followed by something that is no escape.
    BadEscape = "json.bad_escape", "A backslash in a string begins no known escape.";
    /// Half of a surrogate pair: no character.
    LoneSurrogate = "json.lone_surrogate", "An escape in a string is half a surrogate pair.";
    /// A control character that was not escaped.
    ControlCharacter = "json.control_character", "A control character in a string must be escaped.";
    /// The same member name twice in one object.
    DuplicateMember = "json.duplicate_member", "An object has the same member twice.";
    /// More than [`super::Limits::depth`].
    TooDeep = "json.too_deep", "Arrays and objects are nested too deeply.";
    /// More than [`super::Limits::nodes`].
    TooManyValues = "json.too_many_values", "The body holds too many values.";
    /// More than [`super::Limits::string`].
    StringTooLong = "json.string_too_long", "A string or member name is too long.";
}

impl From<JsonFault> for Refusal {
    fn from(fault: JsonFault) -> Self {
        let message = fault.to_string();
        Refusal::new(Code::JsonInvalid).detail(message.clone()).error(FieldError::new("", fault.kind.code(), message))
    }
}
