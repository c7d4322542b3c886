//! Statements that say which border they respect, checked while compiling.
//!
//! 1. [`scoped`]: touches tenant-owned tables, and only rows of the tenant bound as `$1`. The façade binds `$1` from
//!    the [`Scope`]; callers bind `$2…` and so cannot name a tenant at all.
//! 2. [`global`]: names no tenant-owned table.
//! 3. [`platform`]: looks across tenants, says why, and runs only through a [`PlatformScope`].
//!
//! There is no call that runs a plain `&str`. The check of the text is a seat belt, not a proof: behind it stand
//! primary keys `(tenant_id, id)`, foreign keys that carry the tenant, and a contract test that runs every scoped
//! statement beside a second tenant with the same ids.
//!
//! One text serves SQLite and PostgreSQL: `$n` parameters, `ON CONFLICT`, `RETURNING`, no functions of one vendor.
//!
//! ```
//! use bartizan_store::{Scoped, scoped};
//! const DISABLE: Scoped = scoped("UPDATE users SET status = 'disabled' WHERE tenant_id = $1 AND id = $2");
//! ```
//! ```compile_fail
//! use bartizan_store::{Scoped, scoped};
//! const LEAK: Scoped = scoped("SELECT id FROM users WHERE id = $2");
//! ```
//! ```compile_fail
//! use bartizan_store::{Global, global};
//! const LEAK: Global = global("SELECT id FROM users");
//! ```

use crate::scope::{PlatformScope, Scope};
use crate::value::Value;

/// The tables whose rows belong to a tenant: a [`global`] statement may not name one.
pub const TENANT_TABLES: &[&str] = &[
    "tenants",
    "users",
    "blind_index",
    "data_keys",
    "sessions",
    "refresh_tokens",
    "audit",
    "audit_heads",
    "idempotency",
];

/// Whether a change made by the statement may be kept without a row in the audit trail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trail {
    /// It may not: only `commit` with an event keeps it.
    Recorded,
    /// It may: bookkeeping such as "last seen", which would drown the trail.
    Quiet,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name {
            text: &'static str,
            trail: Trail,
        }

        impl $name {
            /// Marks bookkeeping: what it changes may be kept by `commit_quietly`, without an audit row. Never for
            /// anything a person decided or a credential depends on.
            #[must_use]
            pub const fn quiet(self) -> Self {
                Self { text: self.text, trail: Trail::Quiet }
            }

            /// The text.
            pub const fn text(&self) -> &'static str {
                self.text
            }
        }
    )+};
}

kinds! {
    /// A statement inside one tenant. Made by [`scoped`].
    Scoped;
    /// A statement on tables that belong to no tenant. Made by [`global`].
    Global;
    /// A statement across tenants. Made by [`platform`].
    Platform;
}

/// A statement inside the tenant bound as `$1`.
///
/// # Panics
/// While compiling, when used in a `const`: unless the text has `tenant_id = $1` outside parentheses or inserts
/// `(tenant_id, …) VALUES ($1, …`; and when it has an `OR` outside parentheses, a `UNION`, a comment, a second
/// statement, or compares `tenant_id` with another parameter.
#[must_use]
pub const fn scoped(text: &'static str) -> Scoped {
    one_statement(text);
    let bytes = text.as_bytes();
    let inserts = starts_with(bytes, b"INSERT INTO")
        && contains(bytes, b"(tenant_id,", Depth::Any)
        && contains(bytes, b"VALUES ($1,", Depth::Any);
    assert!(
        inserts || contains(bytes, b"tenant_id = $1", Depth::Outside),
        "a scoped statement needs `tenant_id = $1` outside parentheses, or inserts `(tenant_id, …) VALUES ($1, …`"
    );
    assert!(
        count(bytes, b"tenant_id = $") == count(bytes, b"tenant_id = $1"),
        "a scoped statement compares `tenant_id` with `$1` only: the façade binds it from the scope"
    );
    assert!(
        !contains(bytes, b"OR", Depth::Outside),
        "put parentheses around OR: outside them it undoes `tenant_id = $1`"
    );
    assert!(!contains(bytes, b"UNION", Depth::Any), "a UNION can escape the tenant: write two statements");
    Scoped { text, trail: Trail::Recorded }
}

/// A statement on tables that belong to no tenant.
///
/// # Panics
/// While compiling, when used in a `const` and the text names a table of [`TENANT_TABLES`], has a comment or a second
/// statement.
#[must_use]
pub const fn global(text: &'static str) -> Global {
    one_statement(text);
    let mut tables = TENANT_TABLES;
    while let [table, rest @ ..] = tables {
        assert!(
            !contains(text.as_bytes(), table.as_bytes(), Depth::Any),
            "a global statement may not name a tenant's table: use `scoped`, or `platform` with a reason"
        );
        tables = rest;
    }
    Global { text, trail: Trail::Recorded }
}

/// A statement that looks across tenants, with the reason why it must.
///
/// # Panics
/// While compiling, when used in a `const` and the reason is empty or the text has a comment or a second statement.
#[must_use]
pub const fn platform(why: &'static str, text: &'static str) -> Platform {
    assert!(!why.is_empty(), "say why this statement crosses tenants");
    one_statement(text);
    Platform { text, trail: Trail::Recorded }
}

/// A statement that may run inside the border `S`. Sealed: the three kinds are all there are.
pub trait Statement<S>: sealed::Sealed + Copy + Send {
    /// The text.
    fn sql(&self) -> &'static str;
    /// What the façade binds as `$1`, if anything.
    fn first(&self, scope: &S) -> Option<Value>;
    /// Whether running it makes an audit row necessary.
    fn must_be_recorded(&self) -> bool;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Scoped {}
    impl Sealed for super::Global {}
    impl Sealed for super::Platform {}
}

impl Statement<Scope> for Scoped {
    fn sql(&self) -> &'static str {
        self.text
    }
    fn first(&self, scope: &Scope) -> Option<Value> {
        Some(scope.bound())
    }
    fn must_be_recorded(&self) -> bool {
        writes(self.text) && matches!(self.trail, Trail::Recorded)
    }
}

impl<S> Statement<S> for Global {
    fn sql(&self) -> &'static str {
        self.text
    }
    fn first(&self, _: &S) -> Option<Value> {
        None
    }
    fn must_be_recorded(&self) -> bool {
        writes(self.text) && matches!(self.trail, Trail::Recorded)
    }
}

impl Statement<PlatformScope> for Platform {
    fn sql(&self) -> &'static str {
        self.text
    }
    fn first(&self, _: &PlatformScope) -> Option<Value> {
        None
    }
    fn must_be_recorded(&self) -> bool {
        writes(self.text) && matches!(self.trail, Trail::Recorded)
    }
}

fn writes(text: &str) -> bool {
    !text.starts_with("SELECT")
}

const fn one_statement(text: &str) {
    let bytes = text.as_bytes();
    assert!(
        !contains(bytes, b";", Depth::Any)
            && !contains(bytes, b"--", Depth::Any)
            && !contains(bytes, b"/*", Depth::Any),
        "one statement, without comments"
    );
}

/// Where a word counts.
#[derive(Clone, Copy)]
enum Depth {
    Any,
    Outside,
}

const fn contains(text: &[u8], word: &[u8], depth: Depth) -> bool {
    occurrences(text, word, depth) > 0
}

const fn count(text: &[u8], word: &[u8]) -> usize {
    occurrences(text, word, Depth::Any)
}

/// How often `word` stands in `text` as a whole word, in any case: `$1` is not found in `$10`, nor `audit` in
/// `audited`. A word that ends in a sign, such as `$`, may be continued.
const fn occurrences(text: &[u8], word: &[u8], depth: Depth) -> usize {
    let mut found = 0;
    let mut nesting = 0i32;
    let mut before = b' ';
    let mut rest = text;
    let joins_left = matches!(word, [first, ..] if is_word(*first));
    while let [head, tail @ ..] = rest {
        let counts = match depth {
            Depth::Any => true,
            Depth::Outside => nesting == 0,
        };
        if counts && starts_with(rest, word) && !(joins_left && is_word(before)) {
            found += 1;
        }
        match *head {
            b'(' => nesting += 1,
            b')' => nesting -= 1,
            _ => {}
        }
        before = *head;
        rest = tail;
    }
    found
}

/// Whether `text` begins with the whole word `word`, in any case.
const fn starts_with(text: &[u8], word: &[u8]) -> bool {
    let (mut text, mut word) = (text, word);
    let mut last = b' ';
    while let [w, more_word @ ..] = word {
        let [t, more_text @ ..] = text else { return false };
        if !t.eq_ignore_ascii_case(w) {
            return false;
        }
        last = *w;
        (text, word) = (more_text, more_word);
    }
    !matches!(text, [next, ..] if is_word(last) && is_word(*next))
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Declares the statements of one noun, and lists the scoped ones so that the contract test can run every one.
///
/// `scoped NAME = "…";`, `global NAME = "…";`, `platform("why") NAME = "…";`, each with `quiet` in front when what it
/// changes is bookkeeping.
macro_rules! statements {
    ($($(#[$doc:meta])* $kind:ident $(($why:literal))? $(@$quiet:ident)? $name:ident = $text:expr;)+) => {
        $($(#[$doc])* $crate::sql::statement!($kind $(($why))? $(@$quiet)? $name = $text);)+

        /// The scoped statements of this file, by name.
        pub(crate) const SCOPED: &[&[(&str, $crate::sql::Scoped)]] =
            &[$($crate::sql::listed!($kind $name),)+];
    };
}

macro_rules! statement {
    (scoped $name:ident = $text:expr) => {
        const $name: $crate::sql::Scoped = $crate::sql::scoped($text);
    };
    (scoped @quiet $name:ident = $text:expr) => {
        const $name: $crate::sql::Scoped = $crate::sql::scoped($text).quiet();
    };
    (global $name:ident = $text:expr) => {
        const $name: $crate::sql::Global = $crate::sql::global($text);
    };
    (global @quiet $name:ident = $text:expr) => {
        const $name: $crate::sql::Global = $crate::sql::global($text).quiet();
    };
    (platform($why:literal) $name:ident = $text:expr) => {
        const $name: $crate::sql::Platform = $crate::sql::platform($why, $text);
    };
    (platform($why:literal) @quiet $name:ident = $text:expr) => {
        const $name: $crate::sql::Platform = $crate::sql::platform($why, $text).quiet();
    };
}

macro_rules! listed {
    (scoped $name:ident) => {
        &[(concat!(module_path!(), "::", stringify!($name)), $name)]
    };
    ($kind:ident $name:ident) => {
        &[]
    };
}

pub(crate) use {listed, statement, statements};

#[cfg(test)]
mod tests {
    use super::*;

    fn refuses<T>(make: impl FnOnce() -> T + std::panic::UnwindSafe) -> bool {
        std::panic::catch_unwind(make).is_err()
    }

    #[test]
    fn scoped_demands_the_tenant_outside_parentheses() {
        let _ = scoped("SELECT id FROM users WHERE tenant_id = $1 AND id = $2");
        let _ = scoped("SELECT id FROM users u WHERE u.tenant_id = $1 AND (role = $2 OR role = $3)");
        let _ = scoped("INSERT INTO users (tenant_id, id) VALUES ($1, $2)");
        for text in [
            "SELECT id FROM users",
            "SELECT id FROM users WHERE id = $2",
            "SELECT id FROM users WHERE tenant_id = $10",
            "SELECT id FROM users WHERE my_tenant_id = $1",
            "SELECT id FROM users WHERE tenant_id = $1 AND tenant_id = $2",
            "SELECT id FROM users WHERE tenant_id = $1 or 1 = 1",
            "SELECT id FROM users WHERE id IN (SELECT user_id FROM sessions WHERE tenant_id = $1)",
            "SELECT id FROM users WHERE tenant_id = $1 UNION SELECT id FROM users",
            "SELECT id FROM users WHERE tenant_id = $1; DELETE FROM users",
            "SELECT id FROM users -- WHERE tenant_id = $1",
            "SELECT id FROM users /* WHERE tenant_id = $1 */",
            "INSERT INTO users (id, tenant_id) VALUES ($2, $1)",
            "INSERT INTO users (tenant_id, id) VALUES ($2, $1)",
            "INSERT INTO users (tenant_id, id) SELECT tenant_id, id FROM users",
        ] {
            assert!(refuses(|| scoped(text)), "accepted: {text}");
        }
    }

    #[test]
    fn global_refuses_every_tenant_table_in_any_case() {
        let _ = global("SELECT name FROM meta");
        let _ = global("SELECT audited FROM meta");
        for table in TENANT_TABLES {
            let text: &'static str = Box::leak(format!("SELECT 1 FROM {}", table.to_uppercase()).into_boxed_str());
            assert!(refuses(|| global(text)), "accepted: {text}");
            let quoted: &'static str = Box::leak(format!("SELECT 1 FROM main.\"{table}\"").into_boxed_str());
            assert!(refuses(|| global(quoted)), "accepted: {quoted}");
        }
    }

    #[test]
    fn platform_demands_a_reason() {
        assert!(refuses(|| platform("", "SELECT 1")));
    }
}
