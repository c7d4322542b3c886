//! The one binary `bartizan`: configuration, command line, wiring, shutdown.
//!
//! It is the first user of the library's public interface and knows nothing that another application could not know.

pub mod config;
