//! Fetches a page as a browser would, for grading: follows redirects, keeps every header, asks nobody else.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Time for one page.
const DEADLINE: Duration = Duration::from_secs(10);
/// Bytes of a page that are looked at.
const LARGEST: usize = 4 << 20;
/// Redirects that are followed.
const HOPS: usize = 8;
/// The origin from which no honest server expects to be called (RFC 6761 section 6.4).
pub(super) const STRANGER: &str = "https://stranger.invalid";

/// Why a page could not be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// Not a URL this can fetch.
    #[error("it is not an http or https URL")]
    Url,
    /// No list of certificate authorities.
    #[error("no certificate authorities: {0}")]
    Authorities(String),
    /// TLS was not to be had.
    #[error("TLS: {0}")]
    Tls(std::io::Error),
    /// Connecting or reading failed.
    #[error("{0}")]
    Exchange(String),
    /// It took too long.
    #[error("no answer within {} seconds", DEADLINE.as_secs())]
    Slow,
    /// It leads in circles.
    #[error("more than {HOPS} redirects")]
    Circle,
}

impl FetchError {
    /// What to try.
    pub(super) fn hint(&self) -> &'static str {
        match self {
            FetchError::Url => "Write it like https://app.example.com/.",
            FetchError::Authorities(_) | FetchError::Tls(_) => {
                "Name the authority that signed the server's certificate with --ca FILE."
            }
            _ => "See whether the server runs and can be reached from here.",
        }
    }
}

/// Whom to believe that a server is who it says.
#[derive(Clone, Debug)]
pub(super) struct Trust(Arc<ClientConfig>);

impl Trust {
    /// The authorities in `file`, or the system's.
    pub(super) fn load(file: Option<&Path>) -> Result<Self, FetchError> {
        let usual = [
            "/etc/ssl/certs/ca-certificates.crt",
            "/etc/pki/tls/certs/ca-bundle.crt",
            "/etc/ssl/ca-bundle.pem",
            "/etc/ssl/cert.pem",
        ];
        let path = file.map(Path::to_path_buf).or_else(|| usual.iter().map(PathBuf::from).find(|path| path.exists()));
        let mut roots = RootCertStore::empty();
        if let Some(path) = path {
            let pem =
                fs::read(&path).map_err(|error| FetchError::Authorities(format!("{}: {error}", path.display())))?;
            roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok));
        }
        if file.is_some() && roots.is_empty() {
            return Err(FetchError::Authorities("the file holds none in PEM form".into()));
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| FetchError::Authorities(error.to_string()))?;
        Ok(Self(Arc::new(builder.with_root_certificates(roots).with_no_client_auth())))
    }
}

/// One answer.
#[derive(Clone, Debug)]
pub(super) struct Page {
    /// Where it came from.
    pub(super) url: Uri,
    /// Its status.
    pub(super) status: StatusCode,
    /// Its headers, repeated ones too.
    pub(super) headers: HeaderMap,
    /// Its body, as far as it is text.
    pub(super) body: String,
}

/// What the plain-HTTP side of the host does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Plain {
    /// Nothing listens there, or the URL names a port of its own, so there is no other side.
    Closed,
    /// It sends on to these places, in order.
    Redirects(Vec<Uri>),
    /// It answers.
    Answers,
}

/// Everything the grade is made from.
#[derive(Clone, Debug)]
pub(super) struct Visit {
    /// The page after all redirects.
    pub(super) page: Page,
    /// The same host without TLS.
    pub(super) plain: Plain,
}

/// Fetches `url` and looks at the host's plain-HTTP side.
pub(super) async fn visit(url: &str, trust: &Trust) -> Result<Visit, FetchError> {
    let url: Uri = url.parse().map_err(|_| FetchError::Url)?;
    let (page, _) = follow(url.clone(), trust).await?;
    let plain = match (page.url.scheme_str(), page.url.port_u16(), page.url.host()) {
        (Some("https"), None | Some(443), Some(host)) => {
            let start: Uri = format!("http://{host}/").parse().map_err(|_| FetchError::Url)?;
            match follow(start, trust).await {
                Ok((_, hops)) if hops.is_empty() => Plain::Answers,
                Ok((_, hops)) => Plain::Redirects(hops),
                Err(_) => Plain::Closed,
            }
        }
        (Some("https"), ..) => Plain::Closed,
        _ => Plain::Answers,
    };
    Ok(Visit { page, plain })
}

async fn follow(mut url: Uri, trust: &Trust) -> Result<(Page, Vec<Uri>), FetchError> {
    let mut hops = Vec::new();
    while hops.len() < HOPS {
        let page = tokio::time::timeout(DEADLINE, get(&url, trust)).await.map_err(|_| FetchError::Slow)??;
        let location = page.headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
        match location.filter(|_| page.status.is_redirection()) {
            None => return Ok((page, hops)),
            Some(location) => {
                url = resolve(&url, location).ok_or(FetchError::Url)?;
                hops.push(url.clone());
            }
        }
    }
    Err(FetchError::Circle)
}

/// The target of a redirect: absolute, or a path on the same host. Others are rare enough to be left out.
fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    if location.contains("://") {
        return location.parse().ok();
    }
    let path = if location.starts_with('/') { location.to_owned() } else { format!("/{location}") };
    format!("{}://{}{path}", base.scheme_str()?, base.authority()?).parse().ok()
}

async fn get(url: &Uri, trust: &Trust) -> Result<Page, FetchError> {
    let exchange = |error: &dyn std::fmt::Display| FetchError::Exchange(error.to_string());
    let host = url.host().ok_or(FetchError::Url)?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let secure = match url.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err(FetchError::Url),
    };
    let port = url.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let stream = TcpStream::connect((bare, port)).await.map_err(|error| exchange(&error))?;
    if !secure {
        return converse(stream, url).await;
    }
    let name = ServerName::try_from(bare.to_owned()).map_err(|_| FetchError::Url)?;
    let stream = TlsConnector::from(trust.0.clone()).connect(name, stream).await.map_err(FetchError::Tls)?;
    converse(stream, url).await
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    url: &Uri,
) -> Result<Page, FetchError> {
    let exchange = |error: &dyn std::fmt::Display| FetchError::Exchange(error.to_string());
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| exchange(&error))?;
    let connection = tokio::spawn(connection);
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let authority = url.authority().map_or("", |authority| authority.as_str());
    let request = Request::get(path)
        .header(header::HOST, authority)
        .header(header::ORIGIN, STRANGER)
        .header(header::ACCEPT, "text/html,application/xhtml+xml,*/*;q=0.8")
        .header(header::USER_AGENT, concat!("bartizan-doctor/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new());
    let response = sender.send_request(request.map_err(|error| exchange(&error))?).await;
    let (head, body) = response.map_err(|error| exchange(&error))?.into_parts();
    // A page longer than we look at is graded by its headers alone.
    let body = Limited::new(body, LARGEST).collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    connection.abort();
    let body = String::from_utf8_lossy(&body).into_owned();
    Ok(Page { url: url.clone(), status: head.status, headers: head.headers, body })
}
