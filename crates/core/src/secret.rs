//! Values that must not leak: not printable, not serialisable, compared in constant time, wiped when dropped.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// Wraps a value that is never printed, never serialised and zeroised on drop.
///
/// The content is reached only through [`Secret::expose`], a word a reviewer can search for.
#[derive(Clone)]
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// Takes the value into custody. Copies made before stay where they were: read secrets straight into this.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// Lends the content. Never log, format or store what this returns.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize + AsRef<[u8]>> PartialEq for Secret<T> {
    /// In constant time for equal lengths; the length itself is not secret.
    fn eq(&self, other: &Self) -> bool {
        self.0.as_ref().ct_eq(other.0.as_ref()).into()
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn does_not_print_its_content() {
        let secret = Secret::new(String::from("tower"));
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        assert!(secret == Secret::new(String::from("tower")));
        assert!(secret != Secret::new(String::from("Tower")));
    }
}
