//! What all types that are read from a text share.

/// Implements for a type with `parse(&str)` and `schema()`: reading by serde and the JSON Schema.
macro_rules! read_by_parsing {
    ($type:ident, $expecting:literal) => {
        impl std::str::FromStr for $type {
            type Err = $crate::input::InputFault;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::parse(text)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl serde::de::Visitor<'_> for Text {
                    type Value = $type;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str($expecting)
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        $type::parse(text).map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }

        impl schemars::JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                Self::schema()
            }
        }
    };
}

/// Implements for a type around a `String`: reading it as text, printing, serialising. Not for secrets.
macro_rules! print_as_text {
    ($type:ident) => {
        impl $type {
            /// The normalised text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
    };
}

/// `Debug` that names the type and hides the content: personal data and secrets do not belong in logs.
macro_rules! hide_in_debug {
    ($type:ident) => {
        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($type), "(…)"))
            }
        }
    };
}

pub(super) use {hide_in_debug, print_as_text, read_by_parsing};

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization;

/// The separators (Zs) of Unicode besides U+0020; RFC 8265 section 4.2.2 maps them to it. A closed set by policy of
/// the standard, apart from additions of whole new spaces.
pub(super) const fn is_other_space(c: char) -> bool {
    matches!(c, '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}')
}

/// Other spaces to U+0020, then Normalization Form C. Makes one allocation, so a secret leaves no copies behind.
pub(super) fn normalised(text: &str) -> String {
    // UTF-8 grows by at most three under NFC (Unicode Standard Annex 15).
    let mut result = String::with_capacity(text.len().saturating_mul(3));
    result.extend(text.chars().map(|c| if is_other_space(c) { ' ' } else { c }).nfc());
    result
}

/// Whether `text` is `base64url` characters (RFC 4648 section 5, without padding).
pub(super) fn is_base64url(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// Joins the parts of a long pattern.
pub(super) fn pattern(parts: &[&str]) -> Cow<'static, str> {
    Cow::Owned(parts.concat())
}
