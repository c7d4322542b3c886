//! The file keyring from outside: what it makes, what it refuses, what it wraps.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod files;
mod modes;
mod wrapping;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bartizan_keys::{FileKeyring, SecretSource};
use tempfile::TempDir;

/// A directory of its own with new secrets in it.
fn installation() -> (TempDir, SecretSource) {
    let temp = TempDir::new().unwrap();
    let source = SecretSource::dir(temp.path().join("secrets"));
    FileKeyring::create(&source).unwrap();
    (temp, source)
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn root_key(source: &SecretSource) -> PathBuf {
    source.dir.join("root.key")
}

/// The faults as text, after checking that there are so many.
fn faults(source: &SecretSource, count: usize) -> String {
    let faults = FileKeyring::open(source).expect_err("opened");
    assert_eq!(faults.0.len(), count, "{faults}");
    faults.to_string()
}
