//! A script and its name on the server.

use std::fmt;
use std::sync::OnceLock;

use aws_lc_rs::digest;

/// A Lua script that one call runs atomically. Kept in a `static`, so that its digest is computed once.
///
/// A script declares `#!lua` on its first line: only then does the server refuse a key that was not declared, which on
/// a cluster would silently be another node's.
pub struct Script {
    name: &'static str,
    text: &'static str,
    digest: OnceLock<String>,
}

impl Script {
    /// A script called `name` in logs and metrics.
    ///
    /// # Panics
    /// When compiled, if `text` does not start with `#!lua`.
    pub const fn new(name: &'static str, text: &'static str) -> Self {
        assert!(matches!(text.as_bytes(), [b'#', b'!', b'l', b'u', b'a', ..]), "a script starts with #!lua");
        Self { name, text, digest: OnceLock::new() }
    }

    /// What it is called in logs and metrics.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The whole script.
    pub const fn text(&self) -> &'static str {
        self.text
    }

    /// What `EVALSHA` calls it: SHA-1 in hexadecimal. A name only: who may send scripts may send any.
    pub fn digest(&self) -> &str {
        self.digest.get_or_init(|| hex::encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, self.text.as_bytes())))
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Script").field(&self.name).finish()
    }
}
