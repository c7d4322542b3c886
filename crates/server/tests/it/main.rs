//! The binary as its users meet it: transcripts that could have been typed.

// Clippy knows test functions, but not what they call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod command;
mod documents;
mod reference;
mod serving;

use std::path::Path;
use std::process::{Command, Output};

/// `bartizan` with a clean environment.
fn bartizan(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bartizan"));
    command.args(arguments).env_clear();
    command
}

/// Runs a command to its end.
fn run(arguments: &[&str]) -> (i32, String, String) {
    told(bartizan(arguments).output().unwrap())
}

/// Exit code, standard output, standard error.
fn told(output: Output) -> (i32, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
