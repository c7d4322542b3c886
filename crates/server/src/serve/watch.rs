//! Notices changed files without polling: the directories are watched, since editors, certificate tools and container
//! platforms replace files rather than write into them.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

/// A change is often several events: they are waited for.
const SETTLE: Duration = Duration::from_millis(250);

/// What identifies the content of a file without reading it.
type Mark = Option<(u64, u64, i64, i64)>;

fn mark(path: &Path) -> Mark {
    let file = std::fs::metadata(path).ok()?;
    Some((file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
}

/// Watches files.
pub(super) struct Watch {
    files: Vec<(PathBuf, Mark)>,
    events: mpsc::Receiver<()>,
    /// Whether something happened since the files were last looked at.
    due: bool,
    watcher: RecommendedWatcher,
}

impl Watch {
    /// Watches nothing yet. Fails when the system has no watches left; SIGHUP works all the same.
    pub(super) fn new() -> notify::Result<Self> {
        let (sender, events) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |_| {
            // Full means that a look is due already.
            let _ = sender.try_send(());
        })?;
        Ok(Self { files: Vec::new(), events, due: false, watcher })
    }

    /// Watches `file` too. Call it before reading the file, or a change in between goes unnoticed.
    pub(super) fn add(&mut self, file: &Path) -> notify::Result<()> {
        let directory = file.parent().filter(|directory| !directory.as_os_str().is_empty());
        self.watcher.watch(directory.unwrap_or(Path::new(".")), RecursiveMode::NonRecursive)?;
        self.files.push((file.into(), mark(file)));
        Ok(())
    }

    /// Waits until at least one of the files is different from what it was.
    ///
    /// Cancel safe: an event that was received is remembered until the files were looked at.
    pub(super) async fn changed(&mut self) {
        loop {
            if !self.due {
                if self.events.recv().await.is_none() {
                    // The watcher is gone; there is nothing to wait for any more.
                    std::future::pending::<()>().await;
                }
                self.due = true;
            }
            tokio::time::sleep(SETTLE).await;
            while self.events.try_recv().is_ok() {}
            self.due = false;
            if self.look() {
                return;
            }
        }
    }

    fn look(&mut self) -> bool {
        let mut changed = false;
        for (path, before) in &mut self.files {
            let now = mark(path);
            changed |= now != *before;
            *before = now;
        }
        changed
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("files", &self.files).finish_non_exhaustive()
    }
}
