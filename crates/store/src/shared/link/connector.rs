//! How a connection to one server is made: TCP, TLS, credentials.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::{AsyncPushSender, MultiplexedConnection};
use redis::{AsyncConnectionConfig, ProtocolVersion, RedisConnectionInfo};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, JoinHandle};
use tokio_rustls::TlsConnector;

use super::LinkOptions;
use super::address::{Address, Server};
use super::error::{Door, Failure, Refusal, Unavailable, failure};

/// Calls that may wait in front of one connection before senders wait themselves.
const QUEUE: usize = 1024;

/// Everything that is the same for each connection of a link.
pub(super) struct Connector {
    tls: Option<TlsConnector>,
    data: RedisConnectionInfo,
    sentinel: RedisConnectionInfo,
    within: Duration,
}

/// A connection and the task that carries it. The task ends with the connection, and the connection with this.
pub(super) struct Connection {
    pub(super) pipe: MultiplexedConnection,
    carrier: AbortHandle,
}

impl Connection {
    /// Breaks it: whoever waits for an answer is told so at once.
    pub(super) fn cut(&self) {
        self.carrier.abort();
    }

    /// Whether the other side, or [`Connection::cut`], has ended it.
    pub(super) fn is_over(&self) -> bool {
        self.carrier.is_finished()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.cut();
    }
}

impl Connector {
    /// Reads the certificates.
    ///
    /// # Errors
    /// [`Unavailable::Refused`] when TLS is asked for and there is nothing to trust.
    pub(super) fn new(address: &Address, options: &LinkOptions) -> Result<Self, Unavailable> {
        let credentials = |user: Option<&str>, password: Option<&str>| {
            let info = RedisConnectionInfo::default().set_lib_name("bartizan", env!("CARGO_PKG_VERSION"));
            let info = user.map_or(info.clone(), |user| info.set_username(user));
            password.map_or(info.clone(), |password| info.set_password(password))
        };
        let user = options.user.as_deref().or_else(|| address.user());
        let password = options.password.as_ref().or_else(|| address.password()).map(|word| word.expose().as_str());
        let sentinel_password = options.sentinel_password.as_ref().map(|word| word.expose().as_str());
        Ok(Self {
            tls: address.tls().then(|| trust(options.ca.as_deref())).transpose()?,
            data: credentials(user, password).set_db(i64::from(address.database())),
            // RESP3, because only then can one connection both ask and be told.
            sentinel: credentials(None, sentinel_password).set_protocol(ProtocolVersion::RESP3),
            within: options.connect,
        })
    }

    /// Whether connections are encrypted.
    pub(super) const fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// How long making a connection may take, all steps together.
    pub(super) const fn within(&self) -> Duration {
        self.within
    }

    /// Connects to a server that holds data. Unbounded in time: the caller holds the deadline.
    pub(super) async fn data(
        &self,
        server: &Server,
        ended: impl FnOnce() + Send + 'static,
    ) -> Result<Connection, Unavailable> {
        self.connect(server, Door::Data, config(), ended).await
    }

    /// Connects to a sentinel; what it announces goes to `heard`.
    pub(super) async fn sentinel(
        &self,
        server: &Server,
        heard: impl AsyncPushSender,
    ) -> Result<Connection, Unavailable> {
        self.connect(server, Door::Sentinel, config().set_push_sender(heard), || ()).await
    }

    async fn connect(
        &self,
        server: &Server,
        door: Door,
        config: AsyncConnectionConfig,
        ended: impl FnOnce() + Send + 'static,
    ) -> Result<Connection, Unavailable> {
        let broken = |error: std::io::Error| Unavailable::Disconnected(format!("{server}: {error}"));
        let tcp = TcpStream::connect((server.host.as_str(), server.port)).await.map_err(broken)?;
        // A call is small and somebody waits for it.
        tcp.set_nodelay(true).map_err(broken)?;
        let refused = |error: &redis::RedisError| Unavailable::from(failure(error, server, door));
        let info = match door {
            Door::Data => &self.data,
            Door::Sentinel => &self.sentinel,
        };
        let (pipe, carrier) = match &self.tls {
            None => {
                let (pipe, carrier) = MultiplexedConnection::new_with_config(info, tcp, config)
                    .await
                    .map_err(|error| closed_unasked(refused(&error)))?;
                (pipe, carry(carrier, ended))
            }
            Some(tls) => {
                let name = ServerName::try_from(server.host.clone())
                    .map_err(|_| Refusal::new(format!("{server}: no name a certificate could have"), NAMES))?;
                let stream = tls.connect(name, tcp).await.map_err(|error| untrusted(server, &error))?;
                let (pipe, carrier) =
                    MultiplexedConnection::new_with_config(info, stream, config).await.map_err(|e| refused(&e))?;
                (pipe, carry(carrier, ended))
            }
        };
        Ok(Connection { pipe, carrier: carrier.abort_handle() })
    }
}

fn config() -> AsyncConnectionConfig {
    // Our own deadline covers a whole call; a second clock would only cut it differently.
    AsyncConnectionConfig::new().set_response_timeout(None).set_pipeline_buffer_size(QUEUE)
}

fn carry(carrier: impl Future<Output = ()> + Send + 'static, ended: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(async move {
        carrier.await;
        ended();
    })
}

/// A server that ends a connection before it has said anything often expects TLS.
fn closed_unasked(why: Unavailable) -> Unavailable {
    match why {
        Unavailable::Disconnected(why) => {
            Unavailable::Disconnected(format!("{why}; if it expects TLS, write rediss in place of redis in state.url"))
        }
        why => why,
    }
}

/// A certificate that is not trusted stays so; a connection that merely broke is tried again.
fn untrusted(server: &Server, error: &std::io::Error) -> Unavailable {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidMessage(_)) => {
            let mend = "name its TLS port, or write redis in place of rediss in state.url";
            Refusal::new(format!("{server} does not speak TLS there"), mend).into()
        }
        Some(fault) => Refusal::new(format!("{server}: TLS: {fault}"), distrusted(fault)).into(),
        None => Unavailable::Disconnected(format!("{server}: TLS: {error}")),
    }
}

/// What helps against a host that its certificate does not name.
const NAMES: &str = "write the host in state.url as it stands in the certificate; sentinels and clusters give out their \
                     own addresses, usually IP addresses, so certificates must name those";
/// What helps against an authority that nobody trusts.
const AUTHORITY: &str =
    "name a PEM file with the certificate of the authority that signed the server's in state.ca_file";

fn distrusted(fault: &rustls::Error) -> &'static str {
    use rustls::CertificateError as Certificate;
    match fault {
        rustls::Error::InvalidCertificate(
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. },
        ) => NAMES,
        rustls::Error::InvalidCertificate(
            Certificate::Expired
            | Certificate::ExpiredContext { .. }
            | Certificate::NotValidYet
            | Certificate::NotValidYetContext { .. },
        ) => "renew the server's certificate, or set the clocks right",
        rustls::Error::InvalidCertificate(_) => AUTHORITY,
        _ => "see which versions and keys of TLS the server allows: 1.2 and 1.3 are spoken here",
    }
}

/// Trusts the certificates in `ca` and no others; without it, those of the system.
fn trust(ca: Option<&Path>) -> Result<TlsConnector, Unavailable> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca {
        let unreadable = |error: &dyn std::fmt::Display| {
            Refusal::new(format!("the CA certificates in {} cannot be read: {error}", path.display()), AUTHORITY)
        };
        for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unreadable(&error))? {
            let certificate = certificate.map_err(|error| unreadable(&error))?;
            roots.add(certificate).map_err(|error| unreadable(&error))?;
        }
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if roots.is_empty() {
        return Err(Refusal::new("TLS to Redis needs CA certificates and there are none", AUTHORITY).into());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Refusal::new(format!("TLS: {error}"), distrusted(&error)))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The answer within the values a driver returns: an error of the server is an error, wherever it stands.
pub(super) fn answered(
    answer: redis::RedisResult<redis::Value>,
    from: &Server,
    door: Door,
) -> Result<redis::Value, Failure> {
    answer.and_then(redis::Value::extract_error).map_err(|error| failure(&error, from, door))
}
