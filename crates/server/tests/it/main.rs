//! The binary as its users meet it: transcripts that could have been typed.

// Clippy knows test functions, but not what they call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod command;
mod documents;
mod reference;
mod serving;

use std::path::Path;
use std::process::{Command, Output};

use bartizan_core::time::Millis;
use bartizan_store::{Db, PlatformScope, meta};

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

/// Lets the database of the installation in `dir` have seen the moment `at`. No server may be using it.
#[tokio::main(flavor = "current_thread")]
async fn note_last_seen(dir: &Path, at: Millis) {
    let db = Db::open("sqlite:bartizan.db", &dir.join("data")).await.unwrap();
    let mut tx = db.change_platform(&PlatformScope::granted("a test sets the clock")).await.unwrap();
    meta::set(&mut tx, meta::LAST_SEEN, &at.0.to_string()).await.unwrap();
    tx.commit_quietly(()).await.unwrap();
    db.close().await;
}

/// The latest moment the database of the installation in `dir` has seen.
#[tokio::main(flavor = "current_thread")]
async fn last_seen(dir: &Path) -> Option<Millis> {
    let db = Db::open("sqlite:bartizan.db", &dir.join("data")).await.unwrap();
    let mut reader = db.read_platform(&PlatformScope::granted("a test looks at the clock")).await.unwrap();
    let seen = meta::find(&mut reader, meta::LAST_SEEN).await.unwrap()?.parse().ok().map(Millis);
    drop(reader);
    db.close().await;
    seen
}
