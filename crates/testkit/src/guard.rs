//! What cleans up after a test that was killed.

use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

/// A shell that waits for this process to end, and runs a script when it ended without having dropped this.
pub(crate) struct Guard(Child);

impl Guard {
    /// Will run `script` with `args`. It is not in the test's group, so that a signal to that does not reach it.
    pub(crate) fn start<A: AsRef<OsStr>>(script: &str, args: impl IntoIterator<Item = A>) -> Self {
        let script = format!("read -r word; [ \"$word\" = done ] && exit; exec 2>/dev/null; {script}");
        let mut shell = Command::new("sh");
        shell.args(["-c", &script, "guard"]).args(args).process_group(0);
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(shell.spawn().expect("sh"))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // All is well: the ids it knows may soon be those of others.
        let _ = self.0.stdin.take().map(|mut stdin| stdin.write_all(b"done\n"));
        let _ = self.0.wait();
    }
}
