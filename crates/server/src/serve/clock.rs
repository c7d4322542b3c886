//! The last time this installation was seen running, so that a clock set back is noticed.
//!
//! Tokens and limits are judged by the clock: set back, it makes what had expired valid again.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Small steps back are what time synchronisation does.
const TOLERATED: Duration = Duration::from_secs(60);

/// The file that remembers.
#[derive(Clone, Debug)]
pub struct LastSeen(PathBuf);

impl LastSeen {
    /// The one of the data directory.
    pub fn of(data: &Path) -> Self {
        Self(data.join("last-seen"))
    }

    /// How far `now` lies before the last time seen, when it is more than can be tolerated.
    pub fn set_back(&self, now: SystemTime) -> Option<Duration> {
        let text = fs::read_to_string(&self.0).ok()?;
        let seen = UNIX_EPOCH.checked_add(Duration::from_secs(text.trim().parse().ok()?))?;
        seen.duration_since(now).ok().filter(|back| *back > TOLERATED)
    }

    /// Remembers `now`, unless a later time was seen.
    pub fn remember(&self, now: SystemTime) -> io::Result<()> {
        if self.set_back(now).is_some() {
            return Ok(());
        }
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        // Written beside and renamed: a crash in between leaves the old one.
        let draft = self.0.with_extension("draft");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(format!("{seconds}\n").as_bytes())?;
        fs::rename(&draft, &self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_set_back_is_noticed_and_not_forgotten_by_remembering() {
        let temp = tempfile::tempdir().unwrap();
        let seen = LastSeen::of(temp.path());
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        assert_eq!(seen.set_back(now), None);
        seen.remember(now).unwrap();
        assert_eq!(seen.set_back(now - Duration::from_secs(30)), None);
        let hour = Duration::from_secs(3600);
        seen.remember(now - hour).unwrap();
        assert_eq!(seen.set_back(now - hour), Some(hour));
        fs::write(temp.path().join("last-seen"), "nonsense").unwrap();
        assert_eq!(seen.set_back(now - hour), None);
    }
}
