//! `bartizan`: see [`bartizan_server`].

use std::process::ExitCode;

fn main() -> ExitCode {
    bartizan_server::cli::run(std::env::args_os(), std::env::vars_os())
}
