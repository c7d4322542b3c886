//! Reads a text that the scan accepted, for serde. It knows where it is, so that a fault has a pointer.

use std::borrow::Cow;

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::fault::JsonFault;
use super::parse::Mismatch;
use super::scan::Cursor;

/// Integers up to here are exact in a double (IEEE 754): `5.0` is then 5 and nothing else.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// A reader of one accepted text that behaves as if the members and elements at the `omitted` offsets were not there.
pub(super) struct Reader<'de, 'o> {
    cursor: Cursor<'de>,
    omitted: &'o [usize],
}

impl From<JsonFault> for Mismatch {
    /// Cannot happen after the scan; if it did, the value would be refused like any other.
    fn from(fault: JsonFault) -> Self {
        Mismatch::new(fault.kind.code(), fault.kind.message())
    }
}

impl<'de, 'o> Reader<'de, 'o> {
    pub(super) const fn new(text: &'de str, omitted: &'o [usize]) -> Self {
        Self { cursor: Cursor::new(text), omitted }
    }

    /// The first byte of the next token.
    fn next(&mut self) -> Option<u8> {
        self.cursor.skip_space();
        self.cursor.peek()
    }

    /// Passes over a whole value, however deep, without recursion.
    fn skip_value(&mut self) -> Result<(), Mismatch> {
        let mut depth = 0usize;
        while let Some(byte) = self.next() {
            match byte {
                b'"' => drop(self.cursor.string()?),
                b'-' | b'0'..=b'9' => drop(self.cursor.number()?),
                b'{' | b'[' => {
                    depth += 1;
                    self.cursor.advance();
                }
                b'}' | b']' => {
                    depth = depth.saturating_sub(1);
                    self.cursor.advance();
                }
                b',' | b':' => self.cursor.advance(),
                _ => self.cursor.word()?,
            }
            if depth == 0 {
                break;
            }
        }
        Ok(())
    }

    fn string<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.cursor.string()?.unescaped() {
            Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
            Cow::Owned(text) => visitor.visit_string(text),
        }
    }

    /// A number as whatever fits it best.
    fn number<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Mismatch> {
        let text = self.cursor.number()?;
        if text == "-0" {
            return visitor.visit_f64(-0.0);
        }
        if let Ok(number) = text.parse() {
            return visitor.visit_u64(number);
        }
        if let Ok(number) = text.parse() {
            return visitor.visit_i64(number);
        }
        visitor.visit_f64(text.parse().map_err(|_| Mismatch::kind("a number"))?)
    }

    fn integer<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Mismatch> {
        let Some(b'-' | b'0'..=b'9') = self.next() else { return Err(Mismatch::kind("an integer")) };
        let text = self.cursor.number()?;
        if let Ok(number) = text.parse() {
            return visitor.visit_u64(number);
        }
        if let Ok(number) = text.parse() {
            return visitor.visit_i64(number);
        }
        let number: f64 = text.parse().map_err(|_| Mismatch::kind("an integer"))?;
        if number.fract() != 0.0 {
            return Err(Mismatch::kind("an integer"));
        }
        if number.abs() > EXACT {
            return Err(Mismatch::new("number.out_of_range", "The number is out of range."));
        }
        // In range by the line above; the cast is exact.
        let number = number as i64;
        visitor.visit_i64(number)
    }

    fn object<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Mismatch> {
        self.cursor.advance();
        let value = visitor.visit_map(Members { reader: self, name: Cow::Borrowed(""), start: 0 })?;
        self.finish(b'}')?;
        Ok(value)
    }

    fn array<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Mismatch> {
        self.cursor.advance();
        let value = visitor.visit_seq(Elements { reader: self, index: 0 })?;
        self.finish(b']')?;
        Ok(value)
    }

    /// A visitor that stops early, as for a tuple, must have seen everything.
    fn finish(&mut self, bracket: u8) -> Result<(), Mismatch> {
        if self.next() != Some(bracket) {
            return Err(Mismatch::new("array.wrong_length", "The array has a wrong number of elements."));
        }
        self.cursor.advance();
        Ok(())
    }

    /// Reads what `first` begins with `read`, or says what was wanted.
    fn expect<T>(
        &mut self,
        first: u8,
        wanted: &str,
        read: impl FnOnce(&mut Self) -> Result<T, Mismatch>,
    ) -> Result<T, Mismatch> {
        if self.next() == Some(first) { read(self) } else { Err(Mismatch::kind(wanted)) }
    }
}

macro_rules! by_kind {
    ($($method:ident)+ => $read:expr) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
            $read(self, visitor)
        }
    )+};
}

impl<'de> Deserializer<'de> for &mut Reader<'de, '_> {
    type Error = Mismatch;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.next() {
            Some(b'"') => self.string(visitor),
            Some(b'{') => self.object(visitor),
            Some(b'[') => self.array(visitor),
            Some(b'-' | b'0'..=b'9') => self.number(visitor),
            Some(word) => {
                self.cursor.word()?;
                match word {
                    b't' => visitor.visit_bool(true),
                    b'f' => visitor.visit_bool(false),
                    _ => visitor.visit_unit(),
                }
            }
            None => Err(Mismatch::kind("a value")),
        }
    }

    by_kind! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 => Reader::integer
    }

    by_kind! {
        deserialize_str deserialize_string deserialize_char deserialize_identifier =>
            |reader: Self, visitor| reader.expect(b'"', "a string", |reader| reader.string(visitor))
    }

    by_kind! {
        deserialize_f32 deserialize_f64 => |reader: Self, visitor| match reader.next() {
            Some(b'-' | b'0'..=b'9') => reader.number(visitor),
            _ => Err(Mismatch::kind("a number")),
        }
    }

    by_kind! {
        deserialize_bool => |reader: Self, visitor| match reader.next() {
            Some(b't' | b'f') => reader.deserialize_any(visitor),
            _ => Err(Mismatch::kind("true or false")),
        }
    }

    by_kind! {
        deserialize_unit => |reader: Self, visitor| match reader.next() {
            Some(b'n') => reader.deserialize_any(visitor),
            _ => Err(Mismatch::kind("null")),
        }
    }

    by_kind! {
        deserialize_map => |reader: Self, visitor| reader.expect(b'{', "an object", |reader| reader.object(visitor))
    }

    by_kind! {
        deserialize_seq => |reader: Self, visitor| reader.expect(b'[', "an array", |reader| reader.array(visitor))
    }

    by_kind! {
        deserialize_option => |reader: Self, visitor: V| match reader.next() {
            Some(b'n') => {
                reader.cursor.word()?;
                visitor.visit_none()
            }
            _ => visitor.visit_some(reader),
        }
    }

    by_kind! {
        deserialize_ignored_any => |reader: Self, visitor: V| {
            reader.skip_value()?;
            visitor.visit_unit()
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Mismatch> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Mismatch> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Mismatch> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        self.expect(b'"', "a string", |reader| {
            let word = reader.cursor.string()?.unescaped();
            visitor.visit_enum(Word(&word))
        })
    }

    forward_to_deserialize_any! { bytes byte_buf }
}

/// The members of an object.
struct Members<'r, 'de, 'o> {
    reader: &'r mut Reader<'de, 'o>,
    /// The member being read, and where it begins.
    name: Cow<'de, str>,
    start: usize,
}

impl<'de> MapAccess<'de> for Members<'_, 'de, '_> {
    type Error = Mismatch;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Mismatch> {
        loop {
            match self.reader.next() {
                Some(b',') => {
                    self.reader.cursor.advance();
                    continue;
                }
                Some(b'"') => {}
                _ => return Ok(None),
            }
            self.start = self.reader.cursor.offset();
            self.name = self.reader.cursor.string()?.unescaped();
            self.reader.next();
            // Past the colon.
            self.reader.cursor.advance();
            if !self.reader.omitted.contains(&self.start) {
                break;
            }
            self.reader.skip_value()?;
        }
        seed.deserialize(Word(&self.name)).map(Some).map_err(|mismatch| mismatch.within(&self.name, self.start))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Mismatch> {
        seed.deserialize(&mut *self.reader).map_err(|mismatch| mismatch.within(&self.name, self.start))
    }
}

/// The elements of an array.
struct Elements<'r, 'de, 'o> {
    reader: &'r mut Reader<'de, 'o>,
    index: usize,
}

impl<'de> SeqAccess<'de> for Elements<'_, 'de, '_> {
    type Error = Mismatch;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Mismatch> {
        loop {
            match self.reader.next() {
                Some(b',') => {
                    self.reader.cursor.advance();
                    continue;
                }
                Some(b']') | None => return Ok(None),
                Some(_) => {}
            }
            let start = self.reader.cursor.offset();
            let index = self.index;
            self.index += 1;
            if self.reader.omitted.contains(&start) {
                self.reader.skip_value()?;
                continue;
            }
            let element = seed.deserialize(&mut *self.reader).map(Some);
            return element.map_err(|mismatch| mismatch.within(&index.to_string(), start));
        }
    }
}

/// A member name, or the word that chooses a variant.
struct Word<'w>(&'w str);

impl<'de> Deserializer<'de> for Word<'_> {
    type Error = Mismatch;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        visitor.visit_str(self.0)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Mismatch> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        visitor.visit_enum(self)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        visitor.visit_some(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

impl<'de> EnumAccess<'de> for Word<'_> {
    type Error = Mismatch;
    type Variant = Alone;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Alone), Mismatch> {
        let word: StrDeserializer<'_, Mismatch> = self.0.into_deserializer();
        Ok((seed.deserialize(word)?, Alone))
    }
}

/// A variant that is only its word.
struct Alone;

impl<'de> VariantAccess<'de> for Alone {
    type Error = Mismatch;

    fn unit_variant(self) -> Result<(), Mismatch> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, _: S) -> Result<S::Value, Mismatch> {
        Err(Mismatch::kind("another variant"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Mismatch> {
        Err(Mismatch::kind("another variant"))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, Mismatch> {
        Err(Mismatch::kind("another variant"))
    }
}
