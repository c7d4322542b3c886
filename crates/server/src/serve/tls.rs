//! TLS 1.2 and 1.3 by rustls on aws-lc-rs, with a certificate that can be replaced while serving.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;

/// Why certificate and key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The key can be read by users of the machine who are not its owner or group.
    #[error("{0} can be read by everybody on this machine: chmod 640 it")]
    KeyOpen(PathBuf),
    /// The file holds no PEM section of the kind asked for.
    #[error("{0} holds no {1} in PEM form")]
    Empty(PathBuf, &'static str),
    /// The certificate is not one, or does not belong to the key.
    #[error("{0} and {1} do not make a pair: {2}")]
    Unsuitable(PathBuf, PathBuf, rustls::Error),
}

/// The certificate in force, and where the next one comes from.
#[derive(Clone, Debug)]
pub struct Tls {
    files: Arc<(PathBuf, PathBuf)>,
    current: Arc<watch::Sender<Arc<ServerConfig>>>,
}

impl Tls {
    /// Reads certificate chain and key.
    pub fn load(cert: PathBuf, key: PathBuf) -> Result<Self, TlsError> {
        let config = read(&cert, &key)?;
        Ok(Self { files: Arc::new((cert, key)), current: Arc::new(watch::Sender::new(config)) })
    }

    /// Reads both again. On an error the old pair stays in force.
    pub fn reload(&self) -> Result<(), TlsError> {
        let config = read(&self.files.0, &self.files.1)?;
        self.current.send_replace(config);
        Ok(())
    }

    /// What the next handshake is made with.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.current.borrow().clone()
    }
}

fn read(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let unreadable = |path: &Path| {
        let path = path.to_path_buf();
        move |source| TlsError::Unreadable { path, source }
    };
    let mode = fs::metadata(key).map_err(unreadable(key))?.permissions().mode();
    if mode & 0o007 != 0 {
        return Err(TlsError::KeyOpen(key.into()));
    }
    let chain = fs::read(cert).map_err(unreadable(cert))?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&chain).filter_map(Result::ok).collect();
    if chain.is_empty() {
        return Err(TlsError::Empty(cert.into(), "certificate"));
    }
    let pem = bartizan_core::secret::Secret::new(fs::read(key).map_err(unreadable(key))?);
    let private =
        PrivateKeyDer::from_pem_slice(pem.expose()).map_err(|_| TlsError::Empty(key.into(), "private key"))?;
    let unsuitable = |error| TlsError::Unsuitable(cert.into(), key.into(), error);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config =
        builder.map_err(unsuitable)?.with_no_client_auth().with_single_cert(chain, private).map_err(unsuitable)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
