//! Opens connections to upstreams' endpoints, plain or TLS, and holds what all workers share for that. Decides nothing about their
//! use.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll};

use metrics::Counter;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::task::AbortOnDropHandle;

use super::endpoints::{Endpoint, Endpoints};
use super::{UpstreamError, watch};
use crate::config::{Speaks, UpstreamSettings};
use crate::metrics::Metrics;

/// Why the TLS side of an upstream cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("{file}: cannot be read as PEM certificates: {reason}")]
    CaFile { file: String, reason: String },
    #[error("{file}: cannot be used as client certificate or key: {reason}")]
    ClientFile { file: String, reason: String },
    #[error("the machine's own certificates cannot be read; set ca_file")]
    NoRoots,
    #[error("{0:?} is not a host name that TLS can verify")]
    ServerName(String),
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
}

/// What all workers share about one upstream: its settings, its endpoints, and the tasks that watch them.
pub(crate) struct Shared {
    pub(crate) name: String,
    pub(crate) settings: UpstreamSettings,
    pub(crate) endpoints: Endpoints,
    tls: Option<TlsConnector>,
    /// What certificates have to be for, in place of the host.
    server_name: Option<ServerName<'static>>,
    watching: OnceLock<[AbortOnDropHandle<()>; 2]>,
}

impl Shared {
    /// Reads the files that `settings` name. Addresses in URLs are endpoints at once; names have to be resolved.
    pub(crate) fn new(
        name: &str,
        settings: &UpstreamSettings,
        metrics: &Metrics,
    ) -> Result<Arc<Self>, TlsError> {
        let is_https = settings.urls.first().is_some_and(|url| url.https);
        let tls = is_https.then(|| tls(settings)).transpose()?;
        let server_name = settings.server_name.as_deref().map(server_name);
        let mut known = Vec::new();
        for url in &settings.urls {
            if is_https && settings.server_name.is_none() {
                server_name_of(&url.host)?;
            }
            if let Some(address) = url.address() {
                let metrics = metrics.endpoint(name, address);
                known.push(Arc::new(Endpoint::new(name, url, address, metrics)));
            }
        }
        Ok(Arc::new(Self {
            name: name.to_owned(),
            settings: settings.clone(),
            endpoints: Endpoints::new(known, settings.requests_max),
            tls,
            server_name: server_name.transpose()?,
            watching: OnceLock::new(),
        }))
    }

    pub(crate) fn is_https(&self) -> bool {
        self.tls.is_some()
    }

    /// Resolves the names once.
    pub(crate) async fn resolve(&self, metrics: &Metrics) {
        if self.has_names() {
            watch::resolve(self, metrics).await;
        }
    }

    /// Watches the endpoints in the background from now on.
    pub(crate) fn watch(self: &Arc<Self>, metrics: &Arc<Metrics>) {
        self.watching.get_or_init(|| {
            let resolving = if self.has_names() {
                Arc::downgrade(self)
            } else {
                Weak::new()
            };
            [
                tokio::spawn(watch::keep_resolving(resolving, Arc::clone(metrics))),
                tokio::spawn(watch::keep_probing(Arc::downgrade(self))),
            ]
            .map(AbortOnDropHandle::new)
        });
    }

    fn has_names(&self) -> bool {
        self.settings.urls.iter().any(|url| url.address().is_none())
    }
}

fn server_name(name: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(name.to_owned()).map_err(|_| TlsError::ServerName(name.to_owned()))
}

fn server_name_of(host: &str) -> Result<ServerName<'static>, TlsError> {
    server_name(host.trim_matches(['[', ']']))
}

fn tls(settings: &UpstreamSettings) -> Result<TlsConnector, TlsError> {
    let mut roots = RootCertStore::empty();
    if let Some(file) = &settings.ca_file {
        let bad = |reason: String| TlsError::CaFile {
            file: file.display().to_string(),
            reason,
        };
        for certificate in
            CertificateDer::pem_file_iter(file).map_err(|error| bad(error.to_string()))?
        {
            roots.add(certificate.map_err(|error| bad(error.to_string()))?)?;
        }
        if roots.is_empty() {
            return Err(bad("no certificate in it".to_owned()));
        }
    } else {
        // Certificates that do not parse are left out, as everywhere: old stores have some.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(TlsError::NoRoots);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let mut config = match &settings.client_files {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let (chain, key) = client_certificate(certificate, key)?;
            config.with_client_auth_cert(chain, key)?
        }
    };
    config.alpn_protocols = match settings.speaks {
        Speaks::Http1 => vec![b"http/1.1".to_vec()],
        Speaks::Grpc | Speaks::Http2 => vec![b"h2".to_vec()],
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

fn client_certificate(
    certificate: &Path,
    key: &Path,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let bad = |file: &Path, reason: String| TlsError::ClientFile {
        file: file.display().to_string(),
        reason,
    };
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
    let chain = chain.map_err(|error| bad(certificate, error.to_string()))?;
    if chain.is_empty() {
        return Err(bad(certificate, "no certificate in it".to_owned()));
    }
    let parsed = PrivateKeyDer::from_pem_file(key);
    Ok((chain, parsed.map_err(|error| bad(key, error.to_string()))?))
}

/// Opens a connection, within the upstream's time for it.
pub(super) async fn open(shared: &Shared, endpoint: &Endpoint) -> Result<Io, UpstreamError> {
    let failed = |reason: &dyn std::fmt::Display| {
        UpstreamError::NoConnection(format!("{}: {reason}", endpoint.address))
    };
    let connecting = async {
        let stream = TcpStream::connect(endpoint.address).await?;
        stream.set_nodelay(true)?;
        let Some(connector) = &shared.tls else {
            return Ok(Io::Plain(stream));
        };
        let name = match &shared.server_name {
            Some(name) => name.clone(),
            None => server_name_of(&endpoint.host).map_err(io::Error::other)?,
        };
        Ok(Io::Tls(Box::new(connector.connect(name, stream).await?)))
    };
    tokio::time::timeout(shared.settings.connect_timeout, connecting)
        .await
        .map_err(|_| failed(&"connecting took too long"))?
        .map_err(|error: io::Error| failed(&error))
}

/// Opens one worker's connections to one endpoint.
pub(crate) struct Connector {
    pub(crate) shared: Arc<Shared>,
    pub(crate) endpoint: Arc<Endpoint>,
    opened: Counter,
}

impl Connector {
    pub(super) fn new(shared: &Arc<Shared>, endpoint: &Arc<Endpoint>, opened: Counter) -> Self {
        Self {
            shared: Arc::clone(shared),
            endpoint: Arc::clone(endpoint),
            opened,
        }
    }

    /// Opens a connection, within the upstream's time for it.
    pub(super) async fn connect(&self) -> Result<Io, UpstreamError> {
        let io = open(&self.shared, &self.endpoint).await?;
        self.opened.increment(1);
        Ok(io)
    }
}

/// A connection to an upstream.
pub(super) enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Io {
    /// Whether a read would tell something at once.
    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => stream.poll_read_ready(cx),
            // What the TLS layer holds back cannot be asked for; reading finds out.
            Self::Tls(_) => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
