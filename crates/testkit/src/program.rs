//! The program run to its end, as a command-line user sees it.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use crate::DEADLINE;

/// What a run left behind.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Everything it printed as data.
    pub stdout: String,
    /// Everything it said to the person.
    pub stderr: String,
}

impl Finished {
    /// Demands success.
    ///
    /// # Panics
    /// When the program failed.
    pub fn success(self) -> Self {
        assert_eq!(self.code, Some(0), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// Demands a failure that says what is wrong: a code other than 0, nothing on stdout, `words` on stderr, and no
    /// trace of a panic.
    ///
    /// # Panics
    /// When the program succeeded, or failed in a way that does not help.
    pub fn refused(self, words: &[&str]) -> Self {
        assert!(matches!(self.code, Some(1..)), "code {:?}\nstderr: {}", self.code, self.stderr);
        assert_eq!(self.stdout, "", "a failure prints no data");
        assert!(!self.stderr.contains("panicked at"), "{}", self.stderr);
        let said = self.stderr.to_lowercase();
        for word in words {
            assert!(said.contains(&word.to_lowercase()), "no {word:?} in: {}", self.stderr);
        }
        self
    }

    /// The data as JSON.
    ///
    /// # Panics
    /// When stdout is not one JSON value.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}", self.stdout))
    }
}

/// Runs `binary` with `args` in directory `cwd` until it ends; stdin is empty and no `BARTIZAN__…` variable is
/// inherited.
///
/// # Panics
/// When it cannot be started or does not end within [`DEADLINE`].
pub async fn run<A: AsRef<OsStr>>(
    binary: impl AsRef<Path>,
    args: impl IntoIterator<Item = A>,
    env: &[(String, String)],
    cwd: &Path,
) -> Finished {
    let mut command = clean(binary.as_ref());
    command.args(args).envs(env.iter().map(|(k, v)| (k, v))).current_dir(cwd);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = tokio::time::timeout(DEADLINE, command.output())
        .await
        .expect("the program did not end in time")
        .expect("the program could not be started");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Finished { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

/// A command that inherits nothing that could configure the program, and dies with the test.
pub(crate) fn clean(binary: &Path) -> Command {
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("BARTIZAN_") {
            command.env_remove(name);
        }
    }
    command.env("NO_COLOR", "1").kill_on_drop(true);
    command
}
