//! The server's end of the administration socket.

use std::convert::Infallible;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use super::{Command, SOCKET};
use crate::exit::{Exit, Stop};
use crate::install;
use crate::wiring::{self, Engine};

/// Largest command in bytes.
const LARGEST: usize = 64 * 1024;

/// How long a command may take, hashing a password included.
const DEADLINE: Duration = Duration::from_secs(60);

/// The data directory, held by this process alone for as long as this lives.
#[derive(Debug)]
pub struct Claim {
    data: PathBuf,
    // The lock ends with the file description, hence with the process, however that ends.
    _lock: File,
}

/// Claims the data directory, creating it when missing. A second server on the same directory is refused.
pub fn claim(data: &Path) -> Result<Claim, Stop> {
    let cannot = |what: &str, error: &io::Error| {
        let stop = Stop::new(Exit::Failed, format!("{what} {}: {error}", data.display()));
        match error.kind() {
            io::ErrorKind::StorageFull => stop.hint("The disk is full: make room and start again; nothing is lost."),
            _ => stop.hint("The data directory must be writable by the user that runs the server: see `data.dir`."),
        }
    };
    install::private_directory(data).map_err(|error| cannot("cannot create", &error))?;
    if install::open_to_others(data).map_err(|error| cannot("cannot look at", &error))? {
        fs::set_permissions(data, Permissions::from_mode(0o700))
            .map_err(|error| cannot("others can enter, and nothing can be done about it:", &error))?;
        tracing::warn!(path = %data.display(), "the data directory was open to other users; it is closed now (0700)");
    }
    let path = data.join("lock");
    let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    let lock = lock.map_err(|error| cannot("cannot write into", &error))?;
    match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Claim { data: data.into(), _lock: lock }),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let stop = Stop::new(Exit::InUse, format!("another server already uses {}", data.display()));
            Err(stop.hint("Stop it first, or give this one its own `data.dir`."))
        }
        Err(error) => Err(cannot("cannot lock", &error.into())),
    }
}

/// The listening socket; its file goes away with it.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Claim {
    /// Opens the socket. One left behind by a crash is replaced: the claim proves that nobody listens on it.
    pub fn open(&self) -> Result<Socket, Stop> {
        let path = self.data.join(SOCKET);
        let cannot = |error: io::Error| {
            Stop::new(Exit::Failed, format!("cannot open the administration socket {}: {error}", path.display()))
                .hint("Unix sockets need a local file system; choose another `data.dir`.")
        };
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(cannot(error)),
            _ => {}
        }
        // The directory is closed to others, so nobody can connect between these two lines.
        let listener = reach(&path, |short| UnixListener::bind(short)).map_err(cannot)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(cannot)?;
        Ok(Socket { listener, path })
    }
}

/// Calls `with` on a path that fits into a socket address, which holds about a hundred bytes.
///
/// A longer one is reached through a descriptor of its directory, which Linux shows as a short path.
pub(super) fn reach<T>(path: &Path, with: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return with(path) };
    if path.as_os_str().len() <= 100 {
        return with(path);
    }
    let directory = File::open(directory)?;
    with(&Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name))
}

impl Socket {
    /// Answers commands until `stop` says true.
    pub async fn serve(self, engine: Arc<Engine>, mut stop: watch::Receiver<bool>) {
        loop {
            let accepted = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) if may_administer(&stream) => {
                    tokio::spawn(converse(stream, engine.clone()));
                }
                Ok(_) => tracing::warn!("another user of this machine tried the administration socket; refused"),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept on the administration socket");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// Whether the process at the other end runs as our own user or as root.
fn may_administer(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}

async fn converse(stream: UnixStream, engine: Arc<Engine>) {
    let service = hyper::service::service_fn(move |request| {
        let engine = engine.clone();
        async move { Ok::<_, Infallible>(answer(request, &engine).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(10)).keep_alive(false);
    let connection = http.serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(error)) = tokio::time::timeout(DEADLINE, connection).await {
        tracing::debug!(%error, "administration connection ended early");
    }
}

async fn answer(request: Request<Incoming>, engine: &Engine) -> Response<Full<Bytes>> {
    if request.method() != Method::POST || request.uri().path() != "/v1/command" {
        return say(
            StatusCode::NOT_FOUND,
            br#"{"code":"admin.unknown","detail":"Only POST /v1/command is known here."}"#,
        );
    }
    let Ok(body) = Limited::new(request.into_body(), LARGEST).collect().await else {
        return say(
            StatusCode::PAYLOAD_TOO_LARGE,
            br#"{"code":"admin.too_large","detail":"The command is too large."}"#,
        );
    };
    let Ok(command) = serde_json::from_slice::<Command>(&body.to_bytes()) else {
        // The text of a parse error may quote what was sent, and that may be a password.
        let detail: &[u8] =
            br#"{"code":"admin.unknown","detail":"The server does not know this command: is it of the same version?"}"#;
        return say(StatusCode::BAD_REQUEST, detail);
    };
    match wiring::carry_out(engine, command).await {
        Ok(value) => say(StatusCode::OK, &serde_json::to_vec(&value).unwrap_or_default()),
        Err(refusal) => {
            let status = StatusCode::from_u16(refusal.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let errors = serde_json::json!(refusal.errors);
            let problem =
                serde_json::json!({"code": refusal.code.as_str(), "detail": refusal.detail, "errors": errors});
            say(status, problem.to_string().as_bytes())
        }
    }
}

fn say(status: StatusCode, body: &[u8]) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_socket_is_for_its_owner_and_replaces_a_stale_one_but_never_a_live_one() {
        let temp = tempfile::tempdir().unwrap();
        let data = temp.path().join("data");
        let claimed = claim(&data).unwrap();
        drop(std::os::unix::net::UnixListener::bind(data.join(SOCKET)).unwrap());
        let socket = claimed.open().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&data), mode(&data.join(SOCKET))), (0o700, 0o600));
        assert_eq!(claim(&data).unwrap_err().exit, Exit::InUse);
        drop((socket, claimed));
        assert!(!data.join(SOCKET).exists());
        claim(&data).unwrap();
    }

    #[tokio::test]
    async fn a_data_directory_open_to_others_is_closed_before_anything_is_put_there() {
        let temp = tempfile::tempdir().unwrap();
        fs::set_permissions(temp.path(), Permissions::from_mode(0o755)).unwrap();
        claim(temp.path()).unwrap();
        assert!(!install::open_to_others(temp.path()).unwrap());
    }

    #[tokio::test]
    async fn a_path_longer_than_a_socket_address_works() {
        let temp = tempfile::tempdir().unwrap();
        let data = temp.path().join("ü".repeat(100)).join("data");
        let claimed = claim(&data).unwrap();
        let _socket = claimed.open().unwrap();
        reach(&data.join(SOCKET), |path| std::os::unix::net::UnixStream::connect(path)).unwrap();
    }
}
