//! Where the secret files are, who may read them, and how they are made.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use bartizan_core::secret::Secret;
use rustix::fs::OFlags;
use rustix::process::geteuid;
use zeroize::Zeroizing;

use crate::fault::{SecretFault, shell};
use crate::secret_file::MAX_FILE;

/// Where to look for secrets: a directory, and files that are somewhere else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretSource {
    /// The secrets directory: mode 0700, its files 0600.
    pub dir: PathBuf,
    /// By file name (`root.key`), the path of a secret that comes from elsewhere, such as a Docker secret below
    /// `/run/secrets` or a systemd credential below `$CREDENTIALS_DIRECTORY`. Such a file may also be readable by its
    /// group when it belongs to root, because that is how these systems hand a secret to a service.
    pub overrides: BTreeMap<String, PathBuf>,
}

impl SecretSource {
    /// Everything in `dir`.
    pub fn dir(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), overrides: BTreeMap::new() }
    }

    /// The path of the file `name`, and whether the directory's rules hold for it.
    pub(crate) fn locate(&self, name: &str) -> (PathBuf, Place) {
        match self.overrides.get(name) {
            Some(path) => (path.clone(), Place::Given),
            None => (self.dir.join(name), Place::Directory),
        }
    }
}

/// How a path came to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the secrets directory.
    Directory,
    /// Named one by one in the configuration.
    Given,
}

/// Checks that only its owner can enter `dir`, and that its owner is us.
pub(crate) fn check_directory(dir: &Path) -> Result<(), SecretFault> {
    let metadata = fs::metadata(dir).map_err(|error| unreadable(dir, &error))?;
    if !metadata.is_dir() {
        return Err(SecretFault::new(dir, "is not a directory", "Name a directory for the secrets"));
    }
    check_owner(dir, &metadata)?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        let flaw = format!("can be entered or read by other users (mode {mode:04o})");
        return Err(SecretFault::new(dir, flaw, format!("Run `chmod 700 {}`", shell(dir))));
    }
    Ok(())
}

/// Reads a secret file that only we can read. What is checked is the opened file, so that it cannot be exchanged between
/// check and reading; a symbolic link is followed and its target judged.
pub(crate) fn read(path: &Path, place: Place) -> Result<Zeroizing<Vec<u8>>, SecretFault> {
    // Without waiting: a named pipe in place of a file must not hang the start.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(flags).unwrap_or(0))
        .open(path)
        .map_err(|error| unreadable(path, &error))?;
    let metadata = file.metadata().map_err(|error| unreadable(path, &error))?;
    if !metadata.is_file() {
        return Err(SecretFault::new(path, "is not a file", "Name a regular file"));
    }
    check_file_mode(path, &metadata, place)?;
    // Room for everything at once: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(2 * MAX_FILE));
    let limit = u64::try_from(MAX_FILE + 1).unwrap_or(u64::MAX);
    file.take(limit).read_to_end(&mut bytes).map_err(|error| unreadable(path, &error))?;
    if bytes.len() > MAX_FILE {
        return Err(SecretFault::new(path, "is much longer than a secret", "Put the right file there"));
    }
    Ok(bytes)
}

/// A password or another text that lies in a file of its own, such as that of a database server. The file must be for us
/// alone, as those of the secrets directory; a newline at its end is not part of it.
///
/// # Errors
/// When it is missing, can be read by others, is empty, longer than a secret, or not text.
pub fn read_secret(path: &Path) -> Result<Secret<String>, SecretFault> {
    let bytes = read(path, Place::Given)?;
    let text =
        std::str::from_utf8(&bytes).map_err(|_| SecretFault::new(path, "is not text", "Put the right file there"))?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(SecretFault::new(path, "is empty", "Write the password into it"));
    }
    Ok(Secret::new(text.to_owned()))
}

fn check_file_mode(path: &Path, metadata: &fs::Metadata, place: Place) -> Result<(), SecretFault> {
    check_owner(path, metadata)?;
    let mode = metadata.mode() & 0o7777;
    // A credential that root hands to a group (0440) cannot be changed by that group and is meant for us.
    let by_group = match place {
        Place::Given if metadata.uid() == 0 => 0o030,
        Place::Given | Place::Directory => 0o070,
    };
    if mode & (0o007 | by_group) == 0 {
        return Ok(());
    }
    let who = if mode & 0o007 != 0 { "by every user" } else { "by its group" };
    let mend = match place {
        Place::Directory => format!("Run `chmod 600 {}`; if it was readable for long, replace the secret", shell(path)),
        Place::Given => {
            "Give it mode 0400 (Docker: `mode: 0400` and `uid` of the secret; Kubernetes: `defaultMode: 0400`; \
                         otherwise chmod)"
                .into()
        }
    };
    Err(SecretFault::new(path, format!("can be used {who} (mode {mode:04o})"), mend))
}

/// The owner of a file can read it and change its mode, so it must be us or root. Root itself may read anybody's: the
/// operator who looks after a service user's installation.
fn check_owner(path: &Path, metadata: &fs::Metadata) -> Result<(), SecretFault> {
    let us = geteuid();
    if us.is_root() || metadata.uid() == 0 || metadata.uid() == us.as_raw() {
        return Ok(());
    }
    let flaw = format!("belongs to user {}, but Bartizan runs as user {}", metadata.uid(), us.as_raw());
    Err(SecretFault::new(path, flaw, format!("Run `chown {} {}` as root", us.as_raw(), shell(path))))
}

fn unreadable(path: &Path, error: &io::Error) -> SecretFault {
    match error.kind() {
        ErrorKind::NotFound => SecretFault::new(
            path,
            "is missing",
            "Restore it from your backup; only for a new installation, `bartizan init` makes it",
        ),
        ErrorKind::PermissionDenied => {
            let us = geteuid().as_raw();
            SecretFault::new(
                path,
                format!("cannot be read by user {us}, as whom Bartizan runs"),
                format!("Run `chown {us} {}` as root, or start Bartizan as the owner", shell(path)),
            )
        }
        _ => SecretFault::new(path, format!("cannot be read ({error})"), "Check the disk and the path"),
    }
}

/// Makes `dir` with mode 0700, whatever the umask says, unless it is there.
pub(crate) fn make_directory(dir: &Path) -> Result<(), SecretFault> {
    let failed = |error: &io::Error| unwritable(dir, error);
    if fs::metadata(dir).is_ok() {
        return Ok(());
    }
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        fs::create_dir_all(parent).map_err(|error| failed(&error))?;
    }
    match DirBuilder::new().mode(0o700).create(dir) {
        // The umask may have taken bits away; it cannot have added any.
        Ok(()) => fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(|error| failed(&error))?,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(failed(&error)),
    }
    sync_directory(parent.unwrap_or(Path::new("."))).map_err(|error| failed(&error))
}

/// What became of a file that was to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Made {
    /// It is new.
    New,
    /// Somebody else had made it; theirs counts.
    Already,
}

/// Makes the file `name` in `dir` with mode 0600: complete or not at all, on disk when this returns, and never over an
/// existing file. Of two processes that do this at once, one makes the file and both go on with that one.
pub(crate) fn make_file(dir: &Path, name: &str, unique: &str, content: &[u8]) -> Result<Made, SecretFault> {
    let path = dir.join(name);
    let temporary = dir.join(format!(".{name}.{unique}.tmp"));
    let made = write_new(&temporary, content).and_then(|()| publish(&temporary, &path));
    // Gone already when it was renamed; when it was linked or the disk is full, it must go.
    let _ = fs::remove_file(&temporary);
    made.and_then(|made| sync_directory(dir).map(|()| made)).map_err(|error| unwritable(&path, &error))
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(content)?;
    file.sync_all()
}

/// Gives the finished file its name. A plain rename would replace a key that another process has just made and used.
fn publish(temporary: &Path, path: &Path) -> io::Result<Made> {
    let linked = match fs::hard_link(temporary, path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => rename_new(temporary, path, error),
        other => other,
    };
    match linked {
        Ok(()) => Ok(Made::New),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(Made::Already),
        Err(error) => Err(error),
    }
}

/// For file systems without hard links.
#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
fn rename_new(temporary: &Path, path: &Path, _: io::Error) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, temporary, CWD, path, RenameFlags::NOREPLACE)?)
}

/// Elsewhere there is no other way that cannot overwrite.
#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
fn rename_new(_: &Path, _: &Path, error: io::Error) -> io::Result<()> {
    Err(error)
}

fn sync_directory(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn unwritable(path: &Path, error: &io::Error) -> SecretFault {
    SecretFault::new(path, format!("cannot be made ({error})"), "Check the disk, the path and the permissions above it")
}
