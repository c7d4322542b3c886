//! Names of people and of organisations.

use schemars::{Schema, json_schema};

use super::InputFault;
use super::text::{hide_in_debug, is_other_space, normalised, pattern, print_as_text, read_by_parsing};

/// A name that people read: 1 to 100 characters, at least one of them visible. Also the display name of a tenant.
///
/// All spaces become U+0020, those at the ends go, and the rest is in Normalization Form C. Refused is what would not
/// be seen or would change what is seen around it: control and bidirectional characters, other invisible and blank
/// ones, private use. The two joiners are allowed between characters beyond ASCII, where scripts and emoji need them.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct HumanName(String);

const LONGEST: usize = 100;
const EMPTY: InputFault = InputFault::new("string.too_short", "Must have at least one visible character.");
const TOO_LONG: InputFault = InputFault::new("string.too_long", "Must be at most 100 characters.");
const UNPRINTABLE: InputFault =
    InputFault::new("name.unprintable", "Contains a control, bidirectional or invisible character.");

/// What a character is, for a name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Space,
    Ascii,
    /// A visible character beyond ASCII.
    Beyond,
    /// ZERO WIDTH (NON-)JOINER.
    Joiner,
    /// A variation selector: changes the look of the character before.
    Selector,
    Refused,
}

// The same classes as parts of a pattern that ECMA-262 (with the u flag, as JSON Schema wants it), Python and Rust
// read alike. The two characters beyond the basic plane stand for themselves, for want of a common escape.
const SPACE: &str = r" \u00A0\u1680\u2000-\u200A\u202F\u205F\u3000";
const BEYOND: &str = concat!(
    r"[^\u0000-\u00A0\u00AD\u034F\u061C\u115F\u1160\u1680\u17B4\u17B5\u180B-\u180F\u2000-\u200F\u2028-\u202F",
    r"\u205F-\u206F\u2800\u3000\u3164\uE000-\uF8FF\uFE00-\uFE0F\uFEFF\uFFA0\uFFF0-\uFFFF",
    "\u{E0000}-\u{10FFFF}]"
);
const AFTER_BEYOND: &str = r"(?:[\uFE00-\uFE0F]|[\u200C\u200D]";

const fn class(c: char) -> Class {
    match c {
        ' ' => Class::Space,
        '!'..='~' => Class::Ascii,
        c if is_other_space(c) => Class::Space,
        '\u{200c}' | '\u{200d}' => Class::Joiner,
        '\u{fe00}'..='\u{fe0f}' => Class::Selector,
        '\0'..='\u{9f}'
        | '\u{ad}'
        | '\u{34f}'
        | '\u{61c}'
        | '\u{115f}'
        | '\u{1160}'
        | '\u{17b4}'
        | '\u{17b5}'
        | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{2800}'
        | '\u{3164}'
        | '\u{e000}'..='\u{f8ff}'
        | '\u{feff}'
        | '\u{ffa0}'
        | '\u{fff0}'..='\u{ffff}'
        | '\u{e0000}'..='\u{10ffff}' => Class::Refused,
        _ => Class::Beyond,
    }
}

/// Whether the characters stand where they may: the pattern of the schema, by hand.
fn check(text: &str) -> Result<(), InputFault> {
    let mut visible = false;
    let mut before = Class::Space;
    for c in text.chars() {
        let this = class(c);
        let allowed = match this {
            Class::Refused => false,
            Class::Joiner | Class::Selector => matches!(before, Class::Beyond | Class::Selector),
            Class::Space | Class::Ascii => before != Class::Joiner,
            Class::Beyond => true,
        };
        if !allowed {
            return Err(UNPRINTABLE);
        }
        visible |= this != Class::Space;
        before = this;
    }
    if before == Class::Joiner {
        return Err(UNPRINTABLE);
    }
    if visible { Ok(()) } else { Err(EMPTY) }
}

impl HumanName {
    /// Reads a name.
    pub fn parse(text: &str) -> Result<Self, InputFault> {
        if text.chars().count() > LONGEST {
            return Err(TOO_LONG);
        }
        check(text)?;
        let name = normalised(text).trim_matches(' ').to_owned();
        // A few characters become several or others under normalisation: what is kept obeys the same rule.
        if name.chars().count() > LONGEST {
            return Err(TOO_LONG);
        }
        check(&name)?;
        Ok(Self(name))
    }

    fn schema() -> Schema {
        let beyond = pattern(&[BEYOND, AFTER_BEYOND, BEYOND, ")*"]);
        let visible = pattern(&["(?:[!-~]|", &beyond, ")"]);
        json_schema!({
            "type": "string",
            "description": "A name without control, bidirectional or invisible characters",
            "pattern": pattern(&["^[", SPACE, "]*", &visible, "(?:[", SPACE, "]|", &visible, ")*$"]),
            "minLength": 1,
            "maxLength": LONGEST
        })
    }
}

read_by_parsing!(HumanName, "a name");
print_as_text!(HumanName);
hide_in_debug!(HumanName);
