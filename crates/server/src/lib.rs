//! The one binary `bartizan`: configuration, command line, wiring, shutdown.
//!
//! It is the first user of the library's public interface and knows nothing that another application could not know.

pub mod admin;
pub mod cli;
pub mod config;
pub mod doctor;
pub mod exit;
pub mod install;
pub mod log;
pub mod serve;
pub mod wiring;
