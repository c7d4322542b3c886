//! What is wrong with the secrets, for the person who has to mend it.

use std::fmt;
use std::path::{Path, PathBuf};

/// One thing wrong with one file or directory. It never shows what is in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretFault {
    /// Which file or directory.
    pub path: PathBuf,
    /// What is wrong, as the end of a sentence that begins with the path.
    pub flaw: String,
    /// What to do.
    pub mend: String,
}

impl SecretFault {
    pub(crate) fn new(path: &Path, flaw: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { path: path.to_owned(), flaw: flaw.into(), mend: mend.into() }
    }
}

impl fmt::Display for SecretFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}. {}.", shell(&self.path), self.flaw, self.mend)
    }
}

/// Everything that is wrong with the secrets; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretFaults(pub Vec<SecretFault>);

impl fmt::Display for SecretFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the secrets cannot be used:")?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl std::error::Error for SecretFaults {}

/// The path as a POSIX shell reads it back, so that the commands in the sentences can be pasted.
pub(crate) fn shell(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_alphanumeric() || "/._-+:@".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_can_be_pasted_into_a_shell() {
        for (path, shown) in [
            ("/a/root.key", "/a/root.key"),
            ("/a b/root.key", "'/a b/root.key'"),
            ("/d'or/root.key", r"'/d'\''or/root.key'"),
            ("/größe/root.key", "/größe/root.key"),
            ("/$(x)", "'/$(x)'"),
        ] {
            assert_eq!(shell(Path::new(path)), shown);
        }
    }

    #[test]
    fn faults_are_told_all_at_once() {
        let fault = |path| SecretFault::new(Path::new(path), "is missing", "Make it");
        assert_eq!(
            SecretFaults(vec![fault("/a"), fault("/b c")]).to_string(),
            "the secrets cannot be used:\n  /a is missing. Make it.\n  '/b c' is missing. Make it."
        );
    }
}
