//! JSON from outside: read strictly, in bounded memory, into types that are right once they exist.
//!
//! What it allows:
//! 1. Exactly what RFC 8259 allows: any white space between tokens, every escape, all of Unicode, `-0`, exponents,
//!    scalars at the top.
//!
//! What it refuses, before anything is allocated for it:
//! 1. what RFC 8259 refuses, including bytes after the value, a byte-order mark, invalid UTF-8 and an empty body;
//! 2. what two parsers may read differently: a member name twice in one object (after unescaping, so `"a"` is
//!    `"\u0061"`), half a surrogate pair, a number that overflows a double;
//! 3. what is too large: nesting, number of values, length of one string ([`Limits`]).
//!
//! [`scan`] makes that decision and is linear (a sort of each object's names apart). [`parse`] then reads the very
//! same bytes into a type and tells *every* fault it finds, each with its JSON Pointer, a stable code and a sentence
//! that never contains the value.
//!
//! Deployment caveat: a proxy that parses and prints JSON again may have dropped duplicate members already; what it
//! dropped cannot be seen here.
//!
//! ```
//! use bartizan_core::json::{Limits, parse};
//!
//! #[derive(serde::Deserialize, Debug)]
//! #[serde(deny_unknown_fields)]
//! struct Greeting { to: String }
//!
//! let limits = Limits::default();
//! assert_eq!(parse::<Greeting>(br#"{"to": "you"}"#, &limits).map(|greeting| greeting.to), Ok("you".into()));
//! let refusal = parse::<Greeting>(br#"{"to": 1, "form": 2}"#, &limits).unwrap_err();
//! assert_eq!(refusal.errors[0].pointer, "/to");
//! assert_eq!(refusal.errors[1].pointer, "/form");
//! ```

mod fault;
mod parse;
mod read;
mod scan;

pub use fault::{JsonFault, JsonFaultKind};
pub use parse::{MAX_FAULTS, parse};
pub use scan::scan;

/// How much JSON is too much. All figures are inclusive: exactly so much is still accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Containers inside each other; `[[]]` has depth 2.
    pub depth: usize,
    /// Values in all: each scalar, array and object counts one.
    pub nodes: usize,
    /// Characters (code points after unescaping) in one string or member name.
    pub string: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { depth: 32, nodes: 10_000, string: 65_536 }
    }
}

#[cfg(test)]
mod tests;
