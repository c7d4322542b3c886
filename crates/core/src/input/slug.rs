//! The short name of a tenant, as it stands in addresses.

use schemars::{Schema, json_schema};

use super::InputFault;
use super::text::{print_as_text, read_by_parsing};

/// A tenant's short name: 3 to 40 characters of `a-z`, `0-9` and single hyphens inside, and no reserved word.
///
/// No double hyphen: `xn--…` would be read as another name by whatever turns it into a host name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TenantSlug(String);

const MALFORMED: InputFault = InputFault::new(
    "slug.malformed",
    "Must be 3 to 40 characters: lower-case letters, digits, and single hyphens between them.",
);
const IS_RESERVED: InputFault = InputFault::new("slug.reserved", "This name is reserved; choose another one.");

/// Names that an application needs for itself, or that would look like its operator.
pub const RESERVED: &[&str] = &[
    "abuse",
    "account",
    "accounts",
    "admin",
    "administrator",
    "api",
    "app",
    "assets",
    "auth",
    "bartizan",
    "billing",
    "blog",
    "cdn",
    "console",
    "dashboard",
    "docs",
    "download",
    "downloads",
    "email",
    "false",
    "forward-auth",
    "ftp",
    "health",
    "help",
    "host",
    "hostmaster",
    "imap",
    "info",
    "internal",
    "localhost",
    "login",
    "logout",
    "mail",
    "metrics",
    "news",
    "noreply",
    "no-reply",
    "null",
    "oauth",
    "openapi",
    "operator",
    "ops",
    "postmaster",
    "public",
    "root",
    "secure",
    "security",
    "server",
    "shop",
    "signin",
    "signup",
    "smtp",
    "sso",
    "static",
    "status",
    "store",
    "support",
    "sys",
    "sysadmin",
    "system",
    "tenant",
    "tenants",
    "true",
    "undefined",
    "user",
    "users",
    "webmaster",
    "well-known",
    "www",
];

impl TenantSlug {
    /// Reads a slug.
    pub fn parse(text: &str) -> Result<Self, InputFault> {
        let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if !(3..=40).contains(&text.len()) || !text.split('-').all(word) {
            return Err(MALFORMED);
        }
        if RESERVED.contains(&text) {
            return Err(IS_RESERVED);
        }
        Ok(Self(text.to_owned()))
    }

    fn schema() -> Schema {
        json_schema!({
            "type": "string",
            "description": "A tenant's short name",
            "pattern": "^[a-z0-9]+(?:-[a-z0-9]+)*$",
            "minLength": 3,
            "maxLength": 40,
            "not": { "enum": RESERVED }
        })
    }
}

read_by_parsing!(TenantSlug, "a tenant's short name");
print_as_text!(TenantSlug);
