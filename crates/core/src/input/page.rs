//! Which part of a list is asked for.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, Visitor};

use super::InputFault;
use super::text::{is_base64url, print_as_text, read_by_parsing};

/// Where to go on in a list: 1 to 200 characters of base64url that only the server understands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cursor(String);

const MALFORMED: InputFault = InputFault::new("cursor.malformed", "Must be a cursor as it was returned.");

impl Cursor {
    /// Reads a cursor's text; what it means is for the list to say.
    pub fn parse(text: &str) -> Result<Self, InputFault> {
        let valid = (1..=200).contains(&text.len()) && is_base64url(text);
        if valid { Ok(Self(text.to_owned())) } else { Err(MALFORMED) }
    }

    fn schema() -> Schema {
        json_schema!({
            "type": "string",
            "description": "The cursor of the page before",
            "pattern": "^[A-Za-z0-9_-]+$",
            "minLength": 1,
            "maxLength": 200
        })
    }
}

read_by_parsing!(Cursor, "a cursor");
print_as_text!(Cursor);

/// How many entries a page has: 1 to 100, 50 unless said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageLimit(u8);

const OUT_OF_RANGE: InputFault = InputFault::new("number.out_of_range", "Must be an integer from 1 to 100.");

impl PageLimit {
    /// The largest page.
    pub const MAX: Self = Self(100);

    /// Reads a limit from the text of a query: digits only, no sign, no leading zero.
    pub fn parse(text: &str) -> Result<Self, InputFault> {
        let canonical = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
        text.parse().ok().filter(|_| canonical).ok_or(OUT_OF_RANGE).and_then(Self::new)
    }

    /// Takes a number.
    pub fn new(number: u64) -> Result<Self, InputFault> {
        u8::try_from(number).ok().filter(|n| (1..=100).contains(n)).map(Self).ok_or(OUT_OF_RANGE)
    }

    /// The number.
    pub const fn number(self) -> usize {
        self.0 as usize
    }
}

impl Default for PageLimit {
    fn default() -> Self {
        Self(50)
    }
}

impl fmt::Display for PageLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for PageLimit {
    /// An integer from JSON; a query has only texts, so a format without integers hands over the text.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = PageLimit;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an integer from 1 to 100")
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<PageLimit, E> {
                PageLimit::new(number).map_err(E::custom)
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<PageLimit, E> {
                u64::try_from(number).map_err(|_| OUT_OF_RANGE).and_then(PageLimit::new).map_err(E::custom)
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<PageLimit, E> {
                PageLimit::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_u64(Number)
    }
}

impl JsonSchema for PageLimit {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PageLimit".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "integer",
            "description": "Entries a page",
            "minimum": 1,
            "maximum": 100,
            "default": 50
        })
    }
}
