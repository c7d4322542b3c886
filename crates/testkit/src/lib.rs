//! Starts the real `bartizan` program in a temporary directory and talks to it as a stranger would: over HTTP, by
//! signals, through its command line. It knows the program's outside only, so it depends on no other room.
//!
//! Everything here panics with the server's own log when the outside does not behave: in a test that is the best
//! message. Nothing waits for a fixed time; everything that waits has a deadline.
//!
//! ```no_run
//! # async fn example() {
//! let server = bartizan_testkit::Launch::new("target/debug/bartizan").start().await;
//! let owner = server.owner().await;
//! assert_eq!(owner.client.get("/v1/whoami").await.expect(200).text("role"), "owner");
//! # }
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "code of tests: to panic with a clear message is its purpose"
)]

mod client;
mod fleet;
mod guard;
mod jwt;
mod old;
mod postgres;
mod program;
mod proxy;
mod raw;
mod redis;
mod server;
mod stack;

pub use client::{Answer, Client};
pub use fleet::{Fleet, FleetPlan, Hot, Node};
pub use jwt::{claims, header, tampered};
pub use old::{old_postgres, old_redis};
pub use postgres::PostgresServer;
pub use program::{Finished, run};
pub use proxy::Proxy;
pub use raw::raw;
pub use redis::{ClusterSet, RedisServer, SERVICE, SentinelSet, free_port, until};
pub use server::{Home, Launch, Server, Session, passphrase};
pub use stack::{Stack, StackKind};

use std::time::Duration;

/// How long anything may take before a test gives up: generous, because machines that run tests are busy.
pub const DEADLINE: Duration = Duration::from_secs(60);
