//! What people and programs send, as types that are right once they exist.
//!
//! Each type has one `parse(&str)`; reading it from JSON, a query or a header goes through that same function, and its
//! JSON Schema states that same rule, in code points as JSON Schema counts them. So nobody checks twice, nobody
//! forgets, and the published document does not promise what the server refuses.
//!
//! What a type normalises it says; what is stored and compared is the normalised form, and parsing what a type prints
//! gives the same value again. `Debug` never shows personal data or secrets.
//!
//! | type | normalises | refuses |
//! |---|---|---|
//! | [`Email`] | domain to lower case | quoted local parts, address literals, single-label domains, non-ASCII |
//! | [`TenantSlug`] | nothing | upper case, `--`, reserved words |
//! | [`HumanName`] | white space to spaces, trimmed, NFC | control, bidirectional, invisible, private-use characters |
//! | [`Password`], [`NewPassword`] | other spaces to spaces, NFC (RFC 8265) | control characters |
//! | [`RefreshToken`], [`Cursor`] | nothing | whatever has another shape |
//! | [`PageLimit`] | nothing | anything but 1..=100 |
//! | [`IdempotencyKey`] | takes off the quotes | spaces, quotes inside, backslashes |
//! | [`AuditActionFilter`] | nothing | unknown actions |

mod audit_action;
mod email;
mod fault;
mod idempotency_key;
mod name;
mod page;
mod password;
mod refresh_token;
mod slug;
mod text;
mod token_text;

pub use audit_action::AuditActionFilter;
pub use email::Email;
pub use fault::{InputFault, rule_of};
pub use idempotency_key::IdempotencyKey;
pub use name::HumanName;
pub use page::{Cursor, PageLimit};
pub use password::{NewPassword, Password};
pub use refresh_token::RefreshToken;
pub use slug::{RESERVED, TenantSlug};
pub use token_text::TokenText;

#[cfg(test)]
mod tests;
