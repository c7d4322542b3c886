//! Bytes on a bare socket: for what no proper client would send.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::DEADLINE;

/// Sends `bytes` to the server at `base` (such as `http://127.0.0.1:8080`) and returns what comes back until it closes
/// the connection, as text. A request that should be answered needs `Connection: close`.
///
/// # Panics
/// When nobody listens there, or the connection is still open at the deadline.
pub async fn raw(base: &str, bytes: &[u8]) -> String {
    let address = base.split("://").last().unwrap_or(base).trim_end_matches('/');
    let mut socket = TcpStream::connect(address).await.expect("nobody listens");
    // A server that refuses early may close before everything is written: that is an answer, not an error.
    drop(socket.write_all(bytes).await);
    let mut answer = Vec::new();
    let read = async {
        let mut chunk = [0; 4096];
        while let Ok(n @ 1..) = socket.read(&mut chunk).await {
            answer.extend_from_slice(&chunk[..n]);
        }
    };
    tokio::time::timeout(DEADLINE, read).await.expect("the server left the connection open");
    String::from_utf8_lossy(&answer).into_owned()
}
