//! What `init` writes: a configuration file, a directory for secrets and one for data.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::config;
use crate::exit::{Exit, Stop};
use crate::wiring;

/// The name of the configuration file in an installation.
pub const FILE: &str = "bartizan.toml";

/// Creates a directory, and those above it, that only its owner may enter. One that exists is left as it is.
pub fn private_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Whether others than the owner may enter or read.
pub fn open_to_others(path: &Path) -> io::Result<bool> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o077 != 0)
}

/// Creates an installation in `dir` and returns the path of its configuration; refuses to overwrite one.
///
/// The configuration is written last: an installation that has one is complete, one without is made again.
pub fn create(dir: &Path) -> Result<PathBuf, Stop> {
    let file = dir.join(FILE);
    if fs::exists(&file).map_err(|error| cannot("look for", &file, &error))? {
        let stop = Stop::new(Exit::Failed, format!("{} exists already; nothing was changed", file.display()));
        return Err(stop.hint("Choose another directory, or start it with `bartizan serve --config FILE`."));
    }
    for path in [dir.to_path_buf(), dir.join("secrets"), dir.join("data")] {
        private_directory(&path).map_err(|error| cannot("create", &path, &error))?;
    }
    wiring::create_secrets(&dir.join("secrets"))?;
    write_new(&file, config::initial().as_bytes()).map_err(|error| cannot("write", &file, &error))?;
    Ok(file)
}

/// Writes a file that appears whole or not at all, readable by its owner only.
pub fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let draft = path.with_extension(format!("draft-{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    // A link, unlike a rename, fails when the name is taken: of two at once, one wins and the other is told.
    let linked = written.and_then(|()| fs::hard_link(&draft, path));
    fs::remove_file(&draft)?;
    linked
}

fn cannot(verb: &str, path: &Path, error: &io::Error) -> Stop {
    let stop = Stop::new(Exit::Failed, format!("cannot {verb} {}: {error}", path.display()));
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            stop.hint("Choose a directory in which this user may write, with --dir.")
        }
        io::ErrorKind::StorageFull => stop.hint("The disk is full: make room and start again; nothing is lost."),
        _ => stop,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installation_is_closed_to_others_and_never_overwritten() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("größe mit leerzeichen");
        let file = create(&dir).unwrap();
        for path in [dir.clone(), dir.join("secrets"), dir.join("data"), file.clone()] {
            assert!(!open_to_others(&path).unwrap(), "{}", path.display());
        }
        fs::write(&file, "# mine").unwrap();
        assert!(create(&dir).unwrap_err().message.contains("exists already"));
        assert_eq!(fs::read_to_string(&file).unwrap(), "# mine");
    }

    #[test]
    fn an_installation_cut_short_is_completed() {
        let temp = tempfile::tempdir().unwrap();
        private_directory(&temp.path().join("secrets")).unwrap();
        create(temp.path()).unwrap();
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 3, "no draft is left behind");
    }
}
