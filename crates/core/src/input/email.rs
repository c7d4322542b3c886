//! E-mail addresses: the part of RFC 5321 that is in use.

use schemars::{Schema, json_schema};

use super::InputFault;
use super::text::{hide_in_debug, print_as_text, read_by_parsing};

/// An e-mail address: a dot-atom of ASCII at a domain of at least two labels, at most 254 characters.
///
/// The domain is lower-cased, since it means the same (RFC 5321 section 2.4). The local part stays as written, because
/// the receiving host alone knows; for look-up and uniqueness there is [`Email::index_form`].
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Email(String);

const MALFORMED: InputFault =
    InputFault::new("email.malformed", "Must be an e-mail address such as name@example.com, in ASCII.");
const TOO_LONG: InputFault = InputFault::new("string.too_long", "Must be at most 254 characters.");

/// Longest path (RFC 5321 section 4.5.3.1.3, less the brackets), local part and label (RFC 1035).
const LONGEST: usize = 254;
const LONGEST_LOCAL: usize = 64;
const LONGEST_LABEL: usize = 63;

impl Email {
    /// Reads an address.
    pub fn parse(text: &str) -> Result<Self, InputFault> {
        if text.chars().count() > LONGEST {
            return Err(TOO_LONG);
        }
        let (local, domain) = text.split_once('@').ok_or(MALFORMED)?;
        let (parents, top) = domain.rsplit_once('.').ok_or(MALFORMED)?;
        let valid = local.len() <= LONGEST_LOCAL
            && local.split('.').all(is_atom)
            && parents.split('.').chain([top]).all(is_label)
            && top.bytes().next().is_some_and(|first| first.is_ascii_alphabetic());
        if !valid {
            return Err(MALFORMED);
        }
        Ok(Self(format!("{local}@{}", domain.to_ascii_lowercase())))
    }

    /// The form for look-up and uniqueness: all lower case. `Ann@x.org` and `ann@X.org` are one account.
    pub fn index_form(&self) -> String {
        self.0.to_ascii_lowercase()
    }

    /// The part before the `@`.
    pub fn local_part(&self) -> &str {
        self.0.split_once('@').map_or("", |(local, _)| local)
    }

    fn schema() -> Schema {
        json_schema!({
            "type": "string",
            "description": "An e-mail address in ASCII",
            "pattern": concat!(
                "^(?![^@]{65})[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*",
                "@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\\.)+[A-Za-z](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?$"
            ),
            "minLength": 5,
            "maxLength": LONGEST
        })
    }
}

/// RFC 5322 section 3.2.3.
fn is_atom(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+/=?^_`{|}~-".contains(&b))
}

/// Letters, digits, hyphens; no hyphen at either end.
fn is_label(text: &str) -> bool {
    (1..=LONGEST_LABEL).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

read_by_parsing!(Email, "an e-mail address");
print_as_text!(Email);
hide_in_debug!(Email);
