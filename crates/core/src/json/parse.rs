//! From acceptable JSON to a type, with every fault named.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeOwned, Expected, Unexpected};

use super::Limits;
use super::read::Reader;
use super::scan::acceptable;
use crate::error::{Code, FieldError, Refusal};
use crate::input::rule_of;

/// Most faults that one refusal names; it bounds the work that a body made of faults can cause.
pub const MAX_FAULTS: usize = 8;

/// Reads `bytes` into a type.
///
/// A text that is not acceptable JSON is [`Code::JsonInvalid`]. One that is, but does not fit the type, is
/// [`Code::InputInvalid`] with one error for each member that is wrong, in order of appearance, up to
/// [`MAX_FAULTS`]. Of the members that are missing, the first is named, and only when nothing hides it.
///
/// Stricter than other readers of derived types: an object is never read from an array, and numbers are never read
/// from strings. `5.0` is an integer, as in JSON Schema. Enumerations are read from strings only.
///
/// Cost: the scan and one more pass; after a fault, one more pass per fault.
pub fn parse<T: DeserializeOwned>(bytes: &[u8], limits: &Limits) -> Result<T, Refusal> {
    let text = acceptable(bytes, limits)?;
    let mut faults: Vec<(usize, FieldError)> = Vec::new();
    let mut omitted: Vec<usize> = Vec::new();
    // A faulty member is noted and left out; then the rest is read again until nothing new turns up.
    while faults.len() < MAX_FAULTS && omitted.len() < 2 * MAX_FAULTS {
        let mismatch = match T::deserialize(&mut Reader::new(text, &omitted)) {
            Ok(value) if faults.is_empty() => return Ok(value),
            Ok(_) => break,
            Err(mismatch) => mismatch,
        };
        let member = mismatch.member;
        let error = mismatch.into_field_error();
        // What was left out is then missing: our doing, not the caller's fault.
        if !faults.iter().any(|(_, known)| known.pointer == error.pointer) {
            faults.push((member.unwrap_or(usize::MAX), error));
        }
        match member {
            Some(offset) if !omitted.contains(&offset) => omitted.push(offset),
            _ => break,
        }
    }
    faults.sort_by_key(|(offset, _)| *offset);
    let errors = faults.into_iter().map(|(_, error)| error);
    Err(Refusal { errors: errors.collect(), ..Refusal::new(Code::InputInvalid) })
}

/// Why a value does not fit the type, and where. The path grows while the error travels outwards.
#[derive(Debug)]
pub(super) struct Mismatch {
    code: Cow<'static, str>,
    message: Cow<'static, str>,
    /// Innermost segment first.
    path: Vec<String>,
    /// Where the member or element begins that would have to go for the rest to be read.
    pub(super) member: Option<usize>,
}

/// The longest excerpt of a member name, and the longest pointer, that an answer repeats.
const LONGEST_SEGMENT: usize = 40;
const LONGEST_POINTER: usize = 1024;

impl Mismatch {
    pub(super) fn new(code: impl Into<Cow<'static, str>>, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code: code.into(), message: message.into(), path: Vec::new(), member: None }
    }

    /// The value is of another kind than the type: `wanted` is such as `a string`.
    pub(super) fn kind(wanted: &str) -> Self {
        Self::new("type.mismatch", format!("Must be {wanted}."))
    }

    /// Puts the mismatch inside the member `name` that begins at byte `member`.
    pub(super) fn within(mut self, name: &str, member: usize) -> Self {
        // An unknown name came from outside: what is not plainly harmless is not repeated.
        let plain = |c: char| if c.is_ascii_alphanumeric() || "_-.".contains(c) { c } else { '?' };
        let mut segment: String = name.chars().take(LONGEST_SEGMENT).map(plain).collect();
        if name.chars().nth(LONGEST_SEGMENT).is_some() {
            segment.push('…');
        }
        self.path.push(segment);
        self.member.get_or_insert(member);
        self
    }

    fn into_field_error(self) -> FieldError {
        let mut pointer = String::new();
        for segment in self.path.iter().rev() {
            if pointer.len() + segment.len() >= LONGEST_POINTER {
                break;
            }
            pointer.push('/');
            pointer.push_str(segment);
        }
        FieldError { pointer, code: self.code, message: self.message }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Mismatch {}

/// What serde's derived code and the semantic types say. Values that serde hands along are dropped here.
impl serde::de::Error for Mismatch {
    fn custom<M: fmt::Display>(message: M) -> Self {
        let (code, message) = rule_of(&message.to_string());
        Self::new(code, message)
    }

    fn invalid_type(_: Unexpected<'_>, _: &dyn Expected) -> Self {
        Self::new("type.mismatch", "Must be of another type.")
    }

    fn invalid_value(unexpected: Unexpected<'_>, _: &dyn Expected) -> Self {
        match unexpected {
            Unexpected::Signed(_) | Unexpected::Unsigned(_) | Unexpected::Float(_) => {
                Self::new("number.out_of_range", "The number is out of range.")
            }
            _ => Self::new("value.invalid", "The value is not acceptable here."),
        }
    }

    fn invalid_length(_: usize, _: &dyn Expected) -> Self {
        Self::new("array.wrong_length", "The array has a wrong number of elements.")
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self::new("value.not_allowed", format!("Must be one of: {}.", expected.join(", ")))
    }

    fn unknown_field(_: &str, _: &'static [&'static str]) -> Self {
        Self::new("member.unknown", "This member is not known here.")
    }

    fn missing_field(field: &'static str) -> Self {
        let mut missing = Self::new("member.missing", "This member is required.");
        missing.path.push(field.to_owned());
        missing
    }

    fn duplicate_field(_: &'static str) -> Self {
        Self::new("member.duplicate", "This member is there twice.")
    }
}
