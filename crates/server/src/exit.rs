//! How a command ends: the exit codes, and an error that carries one.

use std::fmt;
use std::process::ExitCode;

use crate::config::Faults;

/// How a command ended. The codes are part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything went as asked.
    Done = 0,
    /// It did not, and the message says why.
    Failed = 1,
    /// The command line makes no sense (clap's own code).
    Usage = 2,
    /// The configuration has faults.
    Configuration = 3,
    /// No server answers on the administration socket.
    Unreachable = 4,
    /// Another server already uses the data directory or the port.
    InUse = 5,
}

/// What the help says about the codes.
pub const HELP: &str = "Exit codes: 0 done · 1 failed, the message says why · 2 wrong usage · 3 the configuration has faults · \
    4 no running server answers · 5 the port or the data directory is in use";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// Why a command did not do what it was asked to, for a person.
#[derive(Debug)]
pub struct Stop {
    /// The exit code.
    pub exit: Exit,
    /// What happened.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Stop {
    /// Fails with a plain sentence.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<Faults> for Stop {
    fn from(faults: Faults) -> Self {
        Stop::new(Exit::Configuration, faults.render())
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = if self.exit == Exit::Configuration { "" } else { "error: " };
        write!(f, "{label}{}", self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "\nhint: {hint}"))
    }
}

impl std::error::Error for Stop {}
