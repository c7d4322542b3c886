//! Identifiers: a UUID version 7 (RFC 9562) behind a prefix that says what it names.
//!
//! The prefix makes a user's id unusable where a session's is asked for, in Rust by type and on the wire by text.
//! Ids exist before the row they name, because they are part of the associated data that seals the row.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::time::Millis;

/// Why a text is not an id of the kind that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an id of the form {prefix}_ followed by 32 lower-case hexadecimal digits")]
pub struct InvalidId {
    /// The prefix that was expected, without the underscore.
    pub prefix: &'static str,
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// The text before the underscore.
            pub const PREFIX: &'static str = $prefix;

            /// Makes an id that sorts by `now`; `random` must come from the system's generator.
            pub fn new(now: Millis, random: [u8; 10]) -> Self {
                let millis = u64::try_from(now.0).unwrap_or(0);
                Self(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
            }

            /// The id as a number: what the in-memory tables use as their key.
            pub const fn as_u128(self) -> u128 {
                self.0.as_u128()
            }

            /// The sixteen bytes, big-endian.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// Writes the text into `buffer` and lends it: without an allocation, for what is done on every request.
            pub fn write<'a>(&self, buffer: &'a mut IdText) -> &'a str {
                write($prefix, &self.0, buffer)
            }

            /// Reads the number back; the inverse of [`Self::as_u128`].
            pub const fn from_u128(value: u128) -> Self {
                Self(Uuid::from_u128(value))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.write(&mut IdText::default()))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                parse($prefix, text).map(Self)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.write(&mut IdText::default()))
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl serde::de::Visitor<'_> for Visitor {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str(concat!("an id of the form ", $prefix, "_…"))
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(|error: InvalidId| E::custom(format_args!("id.malformed: {error}")))
                    }
                }
                deserializer.deserialize_str(Visitor)
            }
        }

        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "type": "string",
                    "pattern": concat!("^", $prefix, "_[0-9a-f]{32}$"),
                    "minLength": $prefix.len() + 33,
                    "maxLength": $prefix.len() + 33
                })
            }
        }
    )+};
}

ids! {
    /// Names a tenant: one customer of the SaaS, the border no query may cross.
    TenantId = "ten";
    /// Names a person's account inside one tenant.
    UserId = "usr";
    /// Names a session: what a login begins and a logout ends. It is also the family of its refresh tokens.
    SessionId = "ses";
    /// Names one access token (`jti`).
    TokenId = "tok";
    /// Names one audit event.
    EventId = "evt";
    /// Names one request; it is the `instance` of a problem and the thread through the logs.
    RequestId = "req";
    /// Names one entry of the block list.
    BlockId = "blk";
}

/// Room for the text of any id.
#[derive(Clone, Debug)]
pub struct IdText([u8; 40]);

impl Default for IdText {
    fn default() -> Self {
        Self([0; 40])
    }
}

fn write<'a>(prefix: &str, id: &Uuid, IdText(buffer): &'a mut IdText) -> &'a str {
    let length = prefix.len() + 33;
    if let Some((head, digits)) = buffer.split_at_mut_checked(prefix.len() + 1) {
        if let Some((separator, name)) = head.split_last_mut() {
            name.copy_from_slice(prefix.as_bytes());
            *separator = b'_';
        }
        id.simple().encode_lower(digits);
    }
    // Prefix and digits are ASCII, and no prefix is longer than seven letters.
    buffer.get(..length).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default()
}

/// Only the canonical spelling is read: an id has one text, so a text can be compared and cached.
fn parse(prefix: &'static str, text: &str) -> Result<Uuid, InvalidId> {
    let invalid = InvalidId { prefix };
    let digits = text
        .strip_prefix(prefix)
        .and_then(|rest| rest.strip_prefix('_'))
        .filter(|digits| digits.len() == 32 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
        .ok_or(invalid)?;
    Uuid::try_parse(digits).map_err(|_| invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_one_spelling() {
        let id = UserId::new(Millis(1_700_000_000_000), [7; 10]);
        let text = id.to_string();
        assert_eq!(text.parse(), Ok(id));
        assert!(text.to_uppercase().parse::<UserId>().is_err());
        assert!(text.replace("usr_", "ses_").parse::<UserId>().is_err());
        assert!(text[..text.len() - 1].parse::<UserId>().is_err());
        assert_eq!(UserId::from_u128(id.as_u128()), id);
    }

    #[test]
    fn sorts_by_time() {
        assert!(UserId::new(Millis(1), [255; 10]) < UserId::new(Millis(2), [0; 10]));
    }
}
