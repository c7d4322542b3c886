//! What can be chosen when a database server is spoken to.

use std::time::Duration;

use bartizan_core::secret::Secret;

/// How to reach a database server and how many connections to keep. SQLite needs none of it.
#[derive(Clone, Debug)]
pub struct DbOptions {
    /// Connections of this node, at least 2: half of them to read, half to change. The server must allow for all nodes
    /// together, and a few more.
    pub pool: u32,
    /// How long a request waits for a connection, and a new connection for the server.
    pub acquire: Duration,
    /// How long the server may work on one statement. The caller waits a little longer and then takes the server for
    /// gone.
    pub answer: Duration,
    /// The password, when the address has none. A newline at its end is not part of it.
    pub password: Option<Secret<String>>,
}

impl Default for DbOptions {
    /// 16 connections, 5 seconds, 10 seconds, no password.
    fn default() -> Self {
        Self { pool: 16, acquire: Duration::from_secs(5), answer: Duration::from_secs(10), password: None }
    }
}
