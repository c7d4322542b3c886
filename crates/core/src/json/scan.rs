//! The pre-scan: is this acceptable JSON? One pass, no recursion, no tree.

use std::borrow::Cow;

use super::Limits;
use super::fault::{JsonFault, JsonFaultKind as Kind};

/// Decides whether `bytes` are one acceptable JSON value within `limits`.
///
/// Cost: one pass over the bytes, plus a sort of the member names of each object; memory for the names of the open
/// objects and one small frame per open container. No input makes it panic or recurse.
pub fn scan(bytes: &[u8], limits: &Limits) -> Result<(), JsonFault> {
    acceptable(bytes, limits).map(drop)
}

/// The same decision, with the text it was made about.
pub(super) fn acceptable<'a>(bytes: &'a [u8], limits: &Limits) -> Result<&'a str, JsonFault> {
    let text =
        std::str::from_utf8(bytes).map_err(|error| JsonFault { kind: Kind::NotUtf8, offset: error.valid_up_to() })?;
    if text.starts_with('\u{feff}') {
        return Err(JsonFault { kind: Kind::ByteOrderMark, offset: 0 });
    }
    Scanner { cursor: Cursor::new(text), limits, nodes: 0, open: Vec::new(), names: Vec::new() }.document()?;
    Ok(text)
}

/// A container that is not closed yet.
enum Open {
    Array,
    /// Its names are `names[first..]`, as far as they were read.
    Object {
        first: usize,
    },
}

struct Scanner<'a> {
    cursor: Cursor<'a>,
    limits: &'a Limits,
    nodes: usize,
    open: Vec<Open>,
    names: Vec<(Cow<'a, str>, usize)>,
}

/// Whether a value ended or a container was opened that has content.
enum Step {
    Ended,
    Inside,
}

impl Scanner<'_> {
    fn document(&mut self) -> Result<(), JsonFault> {
        self.cursor.skip_space();
        if self.cursor.peek().is_none() {
            return self.cursor.fault(Kind::Empty);
        }
        loop {
            if let Step::Inside = self.value()? {
                continue;
            }
            if self.close()? {
                self.cursor.skip_space();
                return if self.cursor.peek().is_none() { Ok(()) } else { self.cursor.fault(Kind::Trailing) };
            }
        }
    }

    /// Reads a scalar whole, or the opening of a container up to its first value.
    fn value(&mut self) -> Result<Step, JsonFault> {
        self.cursor.skip_space();
        self.nodes += 1;
        if self.nodes > self.limits.nodes {
            return self.cursor.fault(Kind::TooManyValues);
        }
        match self.cursor.peek() {
            Some(b'{') => {
                self.enter(Open::Object { first: self.names.len() })?;
                if self.cursor.peek() == Some(b'}') {
                    return Ok(Step::Ended);
                }
                self.name()?;
                return Ok(Step::Inside);
            }
            Some(b'[') => {
                self.enter(Open::Array)?;
                return Ok(if self.cursor.peek() == Some(b']') { Step::Ended } else { Step::Inside });
            }
            Some(b'"') => {
                let (start, raw) = (self.cursor.offset(), self.cursor.string()?);
                self.bounded(raw, start)?;
            }
            Some(b'-' | b'0'..=b'9') => {
                self.cursor.number()?;
            }
            Some(_) => self.cursor.word()?,
            None => return self.cursor.fault(Kind::Unclosed),
        }
        Ok(Step::Ended)
    }

    fn enter(&mut self, container: Open) -> Result<(), JsonFault> {
        if self.open.len() >= self.limits.depth {
            return self.cursor.fault(Kind::TooDeep);
        }
        self.open.push(container);
        self.cursor.advance();
        self.cursor.skip_space();
        Ok(())
    }

    /// After a value: closes what ends here, goes on after a comma. True when the whole document ended.
    fn close(&mut self) -> Result<bool, JsonFault> {
        while let Some(container) = self.open.last() {
            self.cursor.skip_space();
            match (self.cursor.peek(), container) {
                (Some(b','), Open::Array) => {
                    self.cursor.advance();
                    return Ok(false);
                }
                (Some(b','), Open::Object { .. }) => {
                    self.cursor.advance();
                    self.cursor.skip_space();
                    self.name()?;
                    return Ok(false);
                }
                (Some(b']'), Open::Array) => {}
                (Some(b'}'), Open::Object { first }) => {
                    let first = *first;
                    self.refuse_duplicates(first)?;
                }
                (None, _) => return self.cursor.fault(Kind::Unclosed),
                _ => return self.cursor.fault(Kind::NoComma),
            }
            self.cursor.advance();
            self.open.pop();
        }
        Ok(true)
    }

    /// Reads a member name and its colon.
    fn name(&mut self) -> Result<(), JsonFault> {
        let start = self.cursor.offset();
        match self.cursor.peek() {
            Some(b'"') => {}
            Some(_) => return self.cursor.fault(Kind::NotAName),
            None => return self.cursor.fault(Kind::Unclosed),
        }
        let raw = self.cursor.string()?;
        self.bounded(raw, start)?;
        self.names.push((raw.unescaped(), start));
        self.cursor.skip_space();
        match self.cursor.peek() {
            Some(b':') => self.cursor.advance(),
            Some(_) => return self.cursor.fault(Kind::NoColon),
            None => return self.cursor.fault(Kind::Unclosed),
        }
        Ok(())
    }

    fn bounded(&self, raw: RawString<'_>, offset: usize) -> Result<(), JsonFault> {
        // Never fewer bytes than characters: most strings pass without being counted.
        if raw.text.len() > self.limits.string && raw.characters() > self.limits.string {
            return Err(JsonFault { kind: Kind::StringTooLong, offset });
        }
        Ok(())
    }

    /// Sorting needs no hash that an attacker could aim at, and reuses one allocation for all objects.
    fn refuse_duplicates(&mut self, first: usize) -> Result<(), JsonFault> {
        let names = self.names.get_mut(first..).unwrap_or_default();
        names.sort_unstable();
        let twice = names.windows(2).find_map(|pair| match pair {
            [(one, _), (other, offset)] if one == other => Some(*offset),
            _ => None,
        });
        self.names.truncate(first);
        twice.map_or(Ok(()), |offset| Err(JsonFault { kind: Kind::DuplicateMember, offset }))
    }
}

/// What stands between the quotes, already known to be well formed.
#[derive(Clone, Copy)]
pub(super) struct RawString<'a> {
    text: &'a str,
    escaped: bool,
}

impl<'a> RawString<'a> {
    /// The string that is meant; borrowed unless there is an escape.
    pub(super) fn unescaped(self) -> Cow<'a, str> {
        if !self.escaped {
            return Cow::Borrowed(self.text);
        }
        let mut meant = String::with_capacity(self.text.len());
        let mut rest = self.text;
        while let Some(at) = rest.find('\\') {
            let (before, escape) = rest.split_at(at);
            meant.push_str(before);
            let (character, length) = escape_of(escape).unwrap_or((char::REPLACEMENT_CHARACTER, escape.len()));
            meant.push(character);
            rest = escape.get(length..).unwrap_or_default();
        }
        meant.push_str(rest);
        Cow::Owned(meant)
    }

    fn characters(self) -> usize {
        self.unescaped().chars().count()
    }
}

/// The character that the escape at the start of `text` means, and the escape's length in bytes.
fn escape_of(text: &str) -> Result<(char, usize), Kind> {
    let character = match text.as_bytes().get(1) {
        Some(b'"') => '"',
        Some(b'\\') => '\\',
        Some(b'/') => '/',
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => return unicode_escape(text),
        Some(_) => return Err(Kind::BadEscape),
        None => return Err(Kind::Unclosed),
    };
    Ok((character, 2))
}

/// `\uXXXX`, or two of them that make a surrogate pair.
fn unicode_escape(text: &str) -> Result<(char, usize), Kind> {
    let high = code_unit(text, 0).ok_or(Kind::BadEscape)?;
    if let Some(character) = char::from_u32(high) {
        return Ok((character, 6));
    }
    let low = code_unit(text, 6).filter(|low| (0xdc00..0xe000).contains(low));
    match (high, low) {
        (0xd800..0xdc00, Some(low)) => {
            let point = 0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00);
            char::from_u32(point).map(|character| (character, 12)).ok_or(Kind::LoneSurrogate)
        }
        _ => Err(Kind::LoneSurrogate),
    }
}

/// The number in the `\uXXXX` that begins at byte `at`.
fn code_unit(text: &str, at: usize) -> Option<u32> {
    let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
    // `from_str_radix` would take a sign.
    digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, 16).ok()).flatten()
}

/// A place in the text, and how to read tokens from there.
pub(super) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    pub(super) const fn offset(&self) -> usize {
        self.at
    }

    #[inline]
    pub(super) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    pub(super) fn advance(&mut self) {
        self.at += 1;
    }

    pub(super) fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn fault<T>(&self, kind: Kind) -> Result<T, JsonFault> {
        Err(JsonFault { kind, offset: self.at })
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Reads a string; the cursor is on its opening quote.
    pub(super) fn string(&mut self) -> Result<RawString<'a>, JsonFault> {
        self.at += 1;
        let start = self.at;
        let mut escaped = false;
        loop {
            let plain = self.rest().bytes().position(|byte| byte == b'"' || byte == b'\\' || byte < 0x20);
            self.at = plain.map_or(self.text.len(), |length| self.at + length);
            match self.peek() {
                Some(b'"') => {
                    let text = self.text.get(start..self.at).unwrap_or_default();
                    self.at += 1;
                    return Ok(RawString { text, escaped });
                }
                Some(b'\\') => {
                    escaped = true;
                    match escape_of(self.rest()) {
                        Ok((_, length)) => self.at += length,
                        Err(kind) => return self.fault(kind),
                    }
                }
                Some(_) => return self.fault(Kind::ControlCharacter),
                None => return self.fault(Kind::Unclosed),
            }
        }
    }

    /// Reads a number and returns its text; the cursor is on its first byte.
    pub(super) fn number(&mut self) -> Result<&'a str, JsonFault> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
            if let Some(b'0'..=b'9') = self.peek() {
                return self.fault(Kind::BadNumber);
            }
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        let text = self.text.get(start..self.at).unwrap_or_default();
        // Up to here every number is below 1e300, whatever its digits: no need to compute it.
        let small = text.len() <= 300 && !text.bytes().any(|byte| byte | 0x20 == b'e');
        if small || text.parse::<f64>().is_ok_and(f64::is_finite) {
            return Ok(text);
        }
        Err(JsonFault { kind: Kind::NumberTooLarge, offset: start })
    }

    /// At least one digit.
    fn digits(&mut self) -> Result<(), JsonFault> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == start { self.fault(Kind::BadNumber) } else { Ok(()) }
    }

    /// Reads `true`, `false` or `null`.
    pub(super) fn word(&mut self) -> Result<(), JsonFault> {
        for word in ["true", "false", "null"] {
            if self.rest().starts_with(word) {
                self.at += word.len();
                return Ok(());
            }
        }
        self.fault(Kind::NotAValue)
    }
}
