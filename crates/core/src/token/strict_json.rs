//! JSON in which nothing is said twice.
//!
//! Two readers that disagree on which of two equal members counts can be made to see two different tokens. So a repeated
//! name is an error at every depth, after escapes are resolved. The lexing is serde_json's, with its limit of 128 levels.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// Most members of one object. The search for a repeated name is quadratic, so it is given a bound.
const MAX_MEMBERS: usize = 64;

/// Why a text was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Not JSON in UTF-8, or not an object on top, or beyond the limits.
    Malformed,
    /// An object names a member twice.
    Duplicate,
}

/// A JSON value that borrows what it can from the text.
#[derive(Debug, PartialEq)]
pub(super) enum Value<'a> {
    Null,
    Bool,
    Integer(i64),
    /// A number with a fraction or an exponent, or one beyond 64 bits: never a valid claim.
    Fraction,
    Text(Cow<'a, str>),
    Array(Vec<Value<'a>>),
    Object(Object<'a>),
}

impl Value<'_> {
    /// The text, if it is one.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// An object with distinct names, in order of appearance.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Object<'a>(Vec<(Cow<'a, str>, Value<'a>)>);

impl<'a> Object<'a> {
    /// Reads a text that is one object and nothing after it.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, Fault> {
        let duplicate = Cell::new(false);
        let text = std::str::from_utf8(bytes).map_err(|_| Fault::Malformed)?;
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let value = Strict { duplicate: &duplicate }.deserialize(&mut deserializer);
        match value.and_then(|value| deserializer.end().map(|()| value)) {
            Ok(Value::Object(object)) => Ok(object),
            _ if duplicate.get() => Err(Fault::Duplicate),
            _ => Err(Fault::Malformed),
        }
    }

    /// The value of a member.
    pub(super) fn member(&self, name: &str) -> Option<&Value<'a>> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// The names, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_ref())
    }
}

#[derive(Clone, Copy)]
struct Strict<'c> {
    /// Set when a name repeats: serde's error type cannot carry the difference without matching on its text.
    duplicate: &'c Cell<bool>,
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value<'de>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without repeated names")
    }
    fn visit_unit<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, _: bool) -> Result<Value<'de>, E> {
        Ok(Value::Bool)
    }
    fn visit_i64<E>(self, number: i64) -> Result<Value<'de>, E> {
        Ok(Value::Integer(number))
    }
    fn visit_u64<E>(self, number: u64) -> Result<Value<'de>, E> {
        Ok(i64::try_from(number).map_or(Value::Fraction, Value::Integer))
    }
    fn visit_f64<E>(self, _: f64) -> Result<Value<'de>, E> {
        Ok(Value::Fraction)
    }
    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }
    fn visit_str<E>(self, text: &str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value<'de>, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value<'de>, A::Error> {
        let mut object = Object(Vec::with_capacity(12));
        while let Some(name) = members.next_key_seed(self)? {
            let Value::Text(name) = name else { return Err(A::Error::custom("name is not a string")) };
            if object.member(&name).is_some() {
                self.duplicate.set(true);
                return Err(A::Error::custom("repeated name"));
            }
            if object.0.len() == MAX_MEMBERS {
                return Err(A::Error::custom("too many members"));
            }
            object.0.push((name, members.next_value_seed(self)?));
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_names_are_found_at_every_depth_and_behind_escapes() {
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"b":{"a":1,"a":1}}"#,
            r#"{"b":[0,[{"a":1,"a":1}]]}"#,
            r#"{"":1,"":2}"#,
        ] {
            assert_eq!(Object::parse(text.as_bytes()), Err(Fault::Duplicate), "{text}");
        }
        assert!(Object::parse(br#"{"a":{"a":1},"A":2}"#).is_ok());
    }

    #[test]
    fn anything_but_one_object_is_malformed() {
        for text in [
            "",
            " ",
            "1",
            "[]",
            "null",
            "\"a\"",
            "{",
            "{}x",
            "{}{}",
            "\u{feff}{}",
            "{'a':1}",
            "{\"a\":1,}",
            "{\"a\":01}",
            "{\"a\":NaN}",
            "{\"a\":\"\n\"}",
            "{\"a\":\"\\ud800\"}",
            "{1:2}",
            "{\"a\":1}//",
        ] {
            assert_eq!(Object::parse(text.as_bytes()), Err(Fault::Malformed), "{text:?}");
        }
        assert_eq!(Object::parse(b"{\"a\":\"\xff\"}"), Err(Fault::Malformed));
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(5000), "]".repeat(5000));
        assert_eq!(Object::parse(deep.as_bytes()), Err(Fault::Malformed));
        let wide: Vec<String> = (0..=MAX_MEMBERS).map(|n| format!("\"{n}\":0")).collect();
        assert_eq!(Object::parse(format!("{{{}}}", wide.join(",")).as_bytes()), Err(Fault::Malformed));
    }

    #[test]
    fn only_plain_integers_of_64_bits_are_integers() {
        let number = |text: &str| {
            let json = format!("{{\"n\":{text}}}");
            match Object::parse(json.as_bytes()).unwrap().member("n") {
                Some(Value::Integer(number)) => Some(*number),
                _ => None,
            }
        };
        assert_eq!(number("1700000000"), Some(1_700_000_000));
        assert_eq!(number("-5"), Some(-5));
        assert_eq!(number("9223372036854775807"), Some(i64::MAX));
        for text in ["1.0", "1e3", "-0", "9223372036854775808", "1e400".get(..4).unwrap(), "\"1\"", "true", "null"] {
            assert_eq!(number(text), None, "{text}");
        }
    }
}
