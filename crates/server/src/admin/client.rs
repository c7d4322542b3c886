//! The command line's end of the administration socket.

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::Value;
use tokio::net::UnixStream;

use super::{Command, SOCKET};
use crate::exit::{Exit, Stop};

/// Longer than the server allows itself, so that its answer arrives.
const DEADLINE: Duration = Duration::from_secs(70);

/// Largest answer in bytes.
const LARGEST: usize = 64 * 1024 * 1024;

#[derive(Deserialize)]
struct Problem {
    code: String,
    detail: String,
    #[serde(default)]
    errors: Vec<FieldProblem>,
}

#[derive(Deserialize)]
struct FieldProblem {
    pointer: String,
    message: String,
}

/// Sends one command to the server that uses `data`, and returns its answer.
pub async fn ask(data: &Path, command: &Command) -> Result<Value, Stop> {
    match tokio::time::timeout(DEADLINE, exchange(data, command)).await {
        Ok(answer) => answer,
        Err(_) => {
            Err(Stop::new(Exit::Failed, "the server did not answer in time").hint("Its log says what it is doing."))
        }
    }
}

async fn exchange(data: &Path, command: &Command) -> Result<Value, Stop> {
    let path = data.join(SOCKET);
    let connect = super::socket::reach(&path, |short| std::os::unix::net::UnixStream::connect(short));
    let stream = connect.and_then(|stream| {
        stream.set_nonblocking(true)?;
        UnixStream::from_std(stream)
    });
    let stream = stream.map_err(|error| unreachable(&path, &error))?;
    let failed = |error: &dyn std::fmt::Display| Stop::new(Exit::Failed, format!("the server broke off: {error}"));
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| failed(&error))?;
    let connection = tokio::spawn(connection);
    let body = serde_json::to_vec(command).map_err(|error| failed(&error))?;
    let request = Request::post("/v1/command").header(header::HOST, "bartizan").body(Full::new(Bytes::from(body)));
    let response = sender.send_request(request.map_err(|error| failed(&error))?).await.map_err(|error| {
        failed(&error).hint("Was it run by the user that runs the server, or by root? Nobody else is answered.")
    })?;
    let status = response.status();
    let body = Limited::new(response.into_body(), LARGEST).collect().await.map_err(|error| failed(&error))?.to_bytes();
    connection.abort();
    if status == StatusCode::OK {
        return serde_json::from_slice(&body).map_err(|error| failed(&error));
    }
    let problem: Problem = serde_json::from_slice(&body).map_err(|error| failed(&error))?;
    let fields = problem.errors.iter().map(|field| format!("\n  {}: {}", field.pointer, field.message));
    Err(Stop::new(Exit::Failed, format!("{} ({}){}", problem.detail, problem.code, fields.collect::<String>())))
}

fn unreachable(path: &Path, error: &io::Error) -> Stop {
    let stop = Stop::new(Exit::Unreachable, format!("no running server answers at {}: {error}", path.display()));
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            stop.hint("Run this as the user that runs the server, or as root.")
        }
        _ => stop.hint(
            "Start one with `bartizan serve --config FILE` or `bartizan dev`, and name the same file here with --config.",
        ),
    }
}
