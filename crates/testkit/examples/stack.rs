//! Starts the servers that tests share, runs a command whose tests use them, and ends them:
//! `stack redis-cluster cargo nextest run …`. Its exit code is the command's.
#![allow(clippy::print_stderr, reason = "a tool of the tests: it speaks to whoever runs them")]

use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitCode, ExitStatus};
use std::time::Instant;

use bartizan_testkit::{Stack, StackKind};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let kind = words.next().and_then(|word| word.to_str().and_then(StackKind::parse));
    let (Some(kind), Some(program)) = (kind, words.next()) else {
        eprintln!("usage: stack embedded|redis|redis-cluster COMMAND…");
        return ExitCode::from(2);
    };
    let began = Instant::now();
    let stack = Stack::start(kind).await;
    if stack.is_some() {
        eprintln!("the servers of {kind:?} started in {:.1} s", began.elapsed().as_secs_f64());
    }
    let mut command = Command::new(&program);
    command.args(words).envs(stack.iter().flat_map(Stack::variables));
    let ended = match command.spawn() {
        Ok(mut child) => end_of(&mut child).await,
        Err(error) => {
            eprintln!("{}: {error}", program.display());
            return ExitCode::from(127);
        }
    };
    drop(stack);
    let code = |ended: ExitStatus| ended.code().or_else(|| ended.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(ended.map_or(1, |ended| u8::try_from(code(ended)).unwrap_or(1)))
}

/// Waits for it. Whoever ends this ends the command, and then the servers; a terminal has told both.
async fn end_of(child: &mut Child) -> std::io::Result<ExitStatus> {
    let (mut told, mut interrupted) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let id = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    loop {
        tokio::select! {
            ended = child.wait() => return ended,
            _ = interrupted.recv() => {}
            _ = told.recv() => {
                // It may just have ended by itself.
                let _ = id.map(|id| kill_process(id, Signal::TERM));
            }
        }
    }
}
