//! Names and values as text (query, path, form) into typed structs: decoded once, one spelling, nothing extra.

use std::collections::HashSet;
use std::fmt;

use bartizan_core::error::{Code, FieldError, Refusal};
use serde::de::{self, DeserializeOwned, IntoDeserializer, Visitor};

/// Most pairs read from one query or form.
const MAX_PAIRS: usize = 64;
/// Most characters of a client's own name for something that are said back to him.
const MAX_ECHO: usize = 64;

/// Where the names and values stand; the first half of a [`FieldError`] pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Query,
    Path,
    Form,
}

impl Place {
    const fn as_str(self) -> &'static str {
        match self {
            Place::Query => "query",
            Place::Path => "path",
            Place::Form => "form",
        }
    }

    /// `place:name`, with a name from outside cut short and stripped of what could confuse a terminal.
    pub(super) fn pointer(self, name: &str) -> String {
        let name: String = name.chars().take(MAX_ECHO).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        format!("{}:{name}", self.as_str())
    }
}

/// Names and values, decoded.
pub(super) type Pairs = Vec<(String, String)>;

/// Splits `a=1&b=2` and decodes each name and value exactly once (WHATWG URL section 5.1, read strictly).
///
/// Errors: 400 for a broken percent escape, bytes that are not UTF-8, a NUL, or too many pairs; 422 for a name given twice.
pub(super) fn pairs(place: Place, text: &[u8]) -> Result<Pairs, Refusal> {
    let mut pairs = Pairs::new();
    let mut seen = HashSet::new();
    for piece in text.split(|byte| *byte == b'&').filter(|piece| !piece.is_empty()) {
        if pairs.len() == MAX_PAIRS {
            return Err(Refusal::new(Code::EncodingInvalid).detail("Too many names and values."));
        }
        let mut halves = piece.splitn(2, |byte| *byte == b'=');
        let name = decode(halves.next().unwrap_or_default())?;
        let value = decode(halves.next().unwrap_or_default())?;
        if !seen.insert(name.clone()) {
            let error = FieldError::new(place.pointer(&name), "field.duplicate", "Given more than once.");
            return Err(Refusal::new(Code::InputInvalid).error(error));
        }
        pairs.push((name, value));
    }
    Ok(pairs)
}

fn decode(text: &[u8]) -> Result<String, Refusal> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(&byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => match (rest.next().and_then(hex), rest.next().and_then(hex)) {
                (Some(high), Some(low)) => bytes.push(high << 4 | low),
                _ => return Err(Code::EncodingInvalid.into()),
            },
            other => bytes.push(other),
        }
    }
    // However it was written: what reads the value after us may end at it.
    if bytes.contains(&0) {
        return Err(Code::EncodingInvalid.into());
    }
    String::from_utf8(bytes).map_err(|_| Code::EncodingInvalid.into())
}

fn hex(byte: &u8) -> Option<u8> {
    char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Reads `pairs` into `T`: a struct by name, or, for a single pair, that value alone.
///
/// Stops at the first fault, as serde does. The message never contains the value.
pub(super) fn read<T: DeserializeOwned>(place: Place, pairs: Pairs) -> Result<T, FieldError> {
    let only = match pairs.as_slice() {
        [(name, _)] => Some(name.clone()),
        _ => None,
    };
    T::deserialize(Record { pairs }).map_err(|error| {
        let name = error.field.or(only).unwrap_or_default();
        FieldError::new(place.pointer(&name), error.code, error.message)
    })
}

/// What is wrong with which field.
#[derive(Debug)]
struct Wrong {
    field: Option<String>,
    code: String,
    message: String,
}

impl Wrong {
    fn new(code: &str, message: impl Into<String>) -> Self {
        Self { field: None, code: code.to_owned(), message: message.into() }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Wrong {}

impl de::Error for Wrong {
    /// Semantic types say `rule.code: Sentence.`; anything else might repeat the value, so it is not passed on.
    fn custom<T: fmt::Display>(text: T) -> Self {
        let text = text.to_string();
        match text.split_once(": ") {
            Some((code, message))
                if code.contains('.') && code.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_')) =>
            {
                Wrong::new(code, message)
            }
            _ => Wrong::new("value.invalid", "The value is not acceptable."),
        }
    }

    fn invalid_type(_: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Wrong::new("value.invalid", format!("Expected {expected}."))
    }

    fn invalid_value(_: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Wrong::new("value.invalid", format!("Expected {expected}."))
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Wrong::new("value.unknown", format!("Expected one of: {}.", expected.join(", ")))
    }

    fn unknown_field(field: &str, _: &'static [&'static str]) -> Self {
        Self { field: Some(field.to_owned()), ..Wrong::new("field.unknown", "There is no such name here.") }
    }

    fn missing_field(field: &'static str) -> Self {
        Self { field: Some(field.to_owned()), ..Wrong::new("field.missing", "Must be given.") }
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self { field: Some(field.to_owned()), ..Wrong::new("field.duplicate", "Given more than once.") }
    }
}

/// All pairs.
struct Record {
    pairs: Pairs,
}

impl Record {
    fn single(self) -> Result<Value, Wrong> {
        let mut pairs = self.pairs.into_iter();
        match (pairs.next(), pairs.next()) {
            (Some((_, value)), None) => Ok(Value(value)),
            _ => Err(Wrong::new("value.invalid", "Expected exactly one value.")),
        }
    }

    fn visit_fields<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_map(Fields { pairs: self.pairs.into_iter(), current: None })
    }
}

macro_rules! to_single {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
            self.single()?.$method(visitor)
        }
    )*};
}

impl<'de> de::Deserializer<'de> for Record {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        self.visit_fields(visitor)
    }
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        self.visit_fields(visitor)
    }
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        self.visit_fields(visitor)
    }
    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_newtype_struct(self)
    }
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        self.single()?.deserialize_enum(name, variants, visitor)
    }
    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_unit()
    }
    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Wrong> {
        self.visit_fields(visitor)
    }
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        self.visit_fields(visitor)
    }
    to_single! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64
        deserialize_char deserialize_str deserialize_string deserialize_bytes deserialize_byte_buf deserialize_option
        deserialize_unit deserialize_seq deserialize_identifier deserialize_ignored_any
    }
}

/// The pairs as a map; an error in a value is put down to its name.
struct Fields {
    pairs: std::vec::IntoIter<(String, String)>,
    current: Option<(String, String)>,
}

impl<'de> de::MapAccess<'de> for Fields {
    type Error = Wrong;

    fn next_key_seed<K: de::DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Wrong> {
        self.current = self.pairs.next();
        match &self.current {
            Some((name, _)) => seed.deserialize(Value(name.clone())).map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<T: de::DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Wrong> {
        let (name, value) = self.current.take().unwrap_or_default();
        seed.deserialize(Value(value)).map_err(|error| Wrong { field: error.field.or(Some(name)), ..error })
    }
}

/// One value.
struct Value(String);

macro_rules! numbers {
    ($($method:ident $visit:ident $type:ty;)*) => {$(
        /// One spelling: what the number prints as is what is read, so no `+5`, no `007`, no blanks.
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
            match self.0.parse::<$type>() {
                Ok(number) if number.to_string() == self.0 => visitor.$visit(number),
                _ => Err(Wrong::new("value.invalid", "Expected an integer in range, in plain decimal digits.")),
            }
        }
    )*};
}

impl<'de> de::Deserializer<'de> for Value {
    type Error = Wrong;

    numbers! {
        deserialize_i8 visit_i8 i8;
        deserialize_i16 visit_i16 i16;
        deserialize_i32 visit_i32 i32;
        deserialize_i64 visit_i64 i64;
        deserialize_u8 visit_u8 u8;
        deserialize_u16 visit_u16 u16;
        deserialize_u32 visit_u32 u32;
        deserialize_u64 visit_u64 u64;
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_string(self.0)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.0.as_str() {
            "true" => visitor.visit_bool(true),
            "false" => visitor.visit_bool(false),
            _ => Err(Wrong::new("value.invalid", "Expected true or false.")),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let plain = self.0.bytes().all(|b| matches!(b, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'));
        match self.0.parse::<f64>() {
            Ok(number) if plain && number.is_finite() => visitor.visit_f64(number),
            _ => Err(Wrong::new("value.invalid", "Expected a number.")),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        visitor.visit_enum(self.0.into_deserializer())
    }

    serde::forward_to_deserialize_any! {
        i128 u128 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Search {
        text: Option<String>,
        #[serde(default)]
        limit: u8,
        order: Option<Order>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "lowercase")]
    enum Order {
        Up,
        Down,
    }

    fn search(query: &str) -> Result<Search, (Code, String, String)> {
        let told = |refusal: Refusal| {
            let error = refusal.errors.first().cloned();
            let (pointer, code) = error.map(|e| (e.pointer, e.code.into_owned())).unwrap_or_default();
            (refusal.code, pointer, code)
        };
        let pairs = pairs(Place::Query, query.as_bytes()).map_err(told)?;
        read(Place::Query, pairs).map_err(|error| told(Refusal::new(Code::InputInvalid).error(error)))
    }

    #[test]
    fn reads_each_name_once_and_decodes_once() {
        let found = search("text=a%2527+b&limit=7&order=down").unwrap();
        assert_eq!(found, Search { text: Some("a%27 b".into()), limit: 7, order: Some(Order::Down) });
        assert_eq!(search("").unwrap(), Search { text: None, limit: 0, order: None });
    }

    #[test]
    fn names_the_guilty_field_and_its_rule() {
        for (query, pointer, rule) in [
            ("nope=1", "query:nope", "field.unknown"),
            ("limit=1&limit=1", "query:limit", "field.duplicate"),
            ("limit=256", "query:limit", "value.invalid"),
            ("limit=%2B7", "query:limit", "value.invalid"),
            ("limit=007", "query:limit", "value.invalid"),
            ("limit=", "query:limit", "value.invalid"),
            ("order=sideways", "query:order", "value.unknown"),
        ] {
            assert_eq!(search(query), Err((Code::InputInvalid, pointer.into(), rule.into())), "{query}");
        }
    }

    #[test]
    fn what_is_not_text_is_refused_before_it_is_looked_at() {
        let many = "x&".repeat(65);
        for query in
            ["text=%", "text=%2", "text=%zz", "text=%ff", "text=%c0%af", "%ed%a0%80=1", "text=\0", "text=a%00b"]
        {
            assert_eq!(search(query).unwrap_err().0, Code::EncodingInvalid, "{query}");
        }
        assert!(search(&many).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(pairs) = pairs(Place::Form, &bytes) {
                let _ = read::<Search>(Place::Form, pairs);
            }
        }

        #[test]
        fn what_is_encoded_is_what_is_read(text in "\\PC{0,20}") {
            let encoded: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
            let query = format!("text={encoded}");
            prop_assert_eq!(search(&query).unwrap().text, Some(text));
        }
    }
}
