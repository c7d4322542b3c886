//! The log: one event a line on standard error, as text or JSON. Standard output belongs to data.

use std::io::IsTerminal;

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use crate::config::keys::Log;
use crate::config::setting::{LogFormat, LogLevel};

/// Changes the level of a running log.
#[derive(Clone, Debug)]
pub struct Level(reload::Handle<LevelFilter, Registry>);

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    }
}

impl Level {
    /// Sets the level from now on.
    pub fn set(&self, level: LogLevel) {
        // Fails only when the log itself is gone, and then there is nothing to say it with.
        let _ = self.0.reload(filter(level));
    }
}

/// Starts the log. A log that an earlier call of the same process set up stays as it is.
pub fn start(log: &Log) -> Level {
    let (level, handle) = reload::Layer::new(filter(log.level));
    let terminal = std::io::stderr().is_terminal();
    let json = match log.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !terminal,
    };
    let lines: Box<dyn Layer<_> + Send + Sync> = if json {
        Box::new(fmt::layer().json().flatten_event(true).with_writer(std::io::stderr))
    } else {
        Box::new(fmt::layer().with_target(false).with_ansi(terminal).with_writer(std::io::stderr))
    };
    let _ = tracing_subscriber::registry().with(level).with(lines).try_init();
    report_panics();
    Level(handle)
}

/// Logs a panic with its place. A message made at run time may hold what a client sent, so only fixed ones are shown.
fn report_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let message = info.payload().downcast_ref::<&'static str>().copied().unwrap_or("(message withheld)");
        tracing::error!(place, message, "panic: this is a mistake in the program, please report it");
    }));
}
