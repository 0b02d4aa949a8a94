//! Opens connections to upstreams, plain or TLS. Decides nothing about their use.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use metrics::Counter;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::UpstreamError;
use crate::config::{Speaks, UpstreamSettings};

/// Why the TLS side of an upstream cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("{file}: cannot be read as PEM certificates: {reason}")]
    CaFile { file: String, reason: String },
    #[error("the machine's own certificates cannot be read; set ca_file")]
    NoRoots,
    #[error("{0:?} is not a host name that TLS can verify")]
    ServerName(String),
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
}

/// What all workers share about one upstream's connections.
pub(crate) struct Shared {
    /// `host:port` as the URL has it.
    pub(crate) authority: String,
    pub(crate) https: bool,
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    timeout: Duration,
}

impl Shared {
    pub(crate) fn new(settings: &UpstreamSettings) -> Result<Self, TlsError> {
        let url = &settings.url;
        Ok(Self {
            authority: url.authority(),
            https: url.https,
            host: url.host.clone(),
            port: url.port,
            tls: if url.https {
                Some(tls(settings)?)
            } else {
                None
            },
            timeout: settings.connect_timeout,
        })
    }
}

fn tls(settings: &UpstreamSettings) -> Result<(TlsConnector, ServerName<'static>), TlsError> {
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
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = match settings.speaks {
        Speaks::Http1 => vec![b"http/1.1".to_vec()],
        Speaks::Grpc | Speaks::Http2 => vec![b"h2".to_vec()],
    };
    let host = &settings.url.host;
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
        .map_err(|_| TlsError::ServerName(host.clone()))?;
    Ok((TlsConnector::from(Arc::new(config)), name))
}

/// Opens one worker's connections to one upstream.
#[derive(Clone)]
pub(crate) struct Connector {
    pub(crate) shared: Arc<Shared>,
    opened: Counter,
}

impl Connector {
    pub(super) fn new(shared: Arc<Shared>, opened: Counter) -> Self {
        Self { shared, opened }
    }

    /// Opens a connection, within the upstream's time for it.
    pub(super) async fn connect(&self) -> Result<Io, UpstreamError> {
        let shared = &self.shared;
        let connecting = async {
            let host = shared.host.trim_matches(['[', ']']);
            let stream = TcpStream::connect((host, shared.port)).await?;
            stream.set_nodelay(true)?;
            Ok(match &shared.tls {
                None => Io::Plain(stream),
                Some((connector, name)) => {
                    Io::Tls(Box::new(connector.connect(name.clone(), stream).await?))
                }
            })
        };
        let io = tokio::time::timeout(shared.timeout, connecting)
            .await
            .map_err(|_| {
                UpstreamError::Unreachable(format!(
                    "{}: connecting took too long",
                    shared.authority
                ))
            })?
            .map_err(|error: io::Error| {
                UpstreamError::Unreachable(format!("{}: {error}", shared.authority))
            })?;
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
