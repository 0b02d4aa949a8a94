//! A sender that speaks TLS, and the edge with a listener for it.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, ProtocolVersion, RootCertStore};
use testkit::certificates::{Authority, Issued, Pair};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::harness::{Answer, DEADLINE, Setup, World, connect, head, read_answer};
use crate::upstream::{Reply, Script};

pub(crate) const HOST: &str = "otlp.example.com";

/// What a sender is set to.
#[derive(Clone)]
pub(crate) struct Client {
    roots: RootCertStore,
    versions: Vec<&'static rustls::SupportedProtocolVersion>,
    protocols: Vec<&'static str>,
    certificate: Option<Issued>,
    /// Of one that takes up sessions again: those of another configuration it would not.
    lasting: Option<Arc<ClientConfig>>,
}

impl Client {
    /// One that trusts `authority`, and offers both versions of HTTP and of TLS.
    pub(crate) fn new(authority: &Authority) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(authority.der())).unwrap();
        Self {
            roots,
            versions: vec![&rustls::version::TLS13, &rustls::version::TLS12],
            protocols: vec!["h2", "http/1.1"],
            certificate: None,
            lasting: None,
        }
    }

    pub(crate) fn only_tls12(self) -> Self {
        let versions = vec![&rustls::version::TLS12];
        Self { versions, ..self }
    }

    pub(crate) fn offering(self, protocols: &[&'static str]) -> Self {
        let protocols = protocols.to_vec();
        Self { protocols, ..self }
    }

    pub(crate) fn showing(self, certificate: Issued) -> Self {
        let certificate = Some(certificate);
        Self {
            certificate,
            ..self
        }
    }

    /// One that takes up sessions again, over HTTP/1.1. Nothing else about it can be changed.
    pub(crate) fn resuming(self) -> Self {
        let client = self.offering(&["http/1.1"]);
        let mut config = client.config();
        config.resumption = Resumption::in_memory_sessions(8);
        let lasting = Some(Arc::new(config));
        Self { lasting, ..client }
    }

    fn config(&self) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&self.versions)
            .unwrap()
            .with_root_certificates(self.roots.clone());
        let mut config = match &self.certificate {
            None => config.with_no_client_auth(),
            Some(issued) => {
                let chain = CertificateDer::pem_slice_iter(issued.chain.as_bytes());
                let chain = chain.collect::<Result<_, _>>().unwrap();
                let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
                config.with_client_auth_cert(chain, key).unwrap()
            }
        };
        let protocols = self.protocols.iter();
        config.alpn_protocols = protocols.map(|it| it.as_bytes().to_vec()).collect();
        config.resumption = Resumption::disabled();
        config
    }

    /// Connects to a listener under a host name.
    pub(crate) async fn connect(
        &self,
        address: SocketAddr,
        host: &str,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        self.connect_over(connect(address).await, host).await
    }

    /// Begins TLS on a connection that is there.
    pub(crate) async fn connect_over(
        &self,
        stream: TcpStream,
        host: &str,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let lasting = self.lasting.clone();
        let config = lasting.unwrap_or_else(|| Arc::new(self.config()));
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let connecting = TlsConnector::from(config).connect(name, stream);
        tokio::time::timeout(DEADLINE, connecting)
            .await
            .expect("a handshake that ends")
    }

    /// Connects, and asks something over HTTP/1.1: with TLS 1.3 a server may refuse a client after that believes itself
    /// connected.
    pub(crate) async fn ask(
        &self,
        world: &World,
        address: SocketAddr,
        host: &str,
    ) -> Result<(Answer, TlsStream<TcpStream>), String> {
        let client = self.clone().offering(&["http/1.1"]);
        let connected = client.connect(address, host).await;
        let mut stream = connected.map_err(|error| error.to_string())?;
        let answer = ask(world, &mut stream).await;
        let answer = answer.ok_or_else(|| "the connection was closed".to_owned())?;
        Ok((answer, stream))
    }
}

/// Sends a request with the valid key over HTTP/1.1.
pub(crate) async fn ask(world: &World, stream: &mut TlsStream<TcpStream>) -> Option<Answer> {
    let headers = [
        ("content-type", "application/x-protobuf"),
        ("x-api-key", world.keys.valid.reveal()),
    ];
    let request = [head("/v1/traces", &headers, 4).as_bytes(), b"four"].concat();
    stream.write_all(&request).await.ok()?;
    read_answer(stream).await
}

/// HTTP/2 on a connection over TLS.
pub(crate) async fn http2_over(stream: TlsStream<TcpStream>) -> h2::client::SendRequest<Bytes> {
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    send
}

pub(crate) fn alpn(stream: &TlsStream<TcpStream>) -> Option<&str> {
    let protocol = stream.get_ref().1.alpn_protocol()?;
    Some(str::from_utf8(protocol).unwrap())
}

pub(crate) fn version(stream: &TlsStream<TcpStream>) -> ProtocolVersion {
    stream.get_ref().1.protocol_version().unwrap()
}

pub(crate) fn resumed(stream: &TlsStream<TcpStream>) -> bool {
    stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed)
}

/// The certificate that the edge showed.
pub(crate) fn shown(stream: &TlsStream<TcpStream>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

/// The edge with a listener `secure`, whose section has these lines.
pub(crate) async fn start(section: impl FnOnce(&World) -> String) -> (World, SocketAddr) {
    start_with(Setup::PATIENT, section).await
}

pub(crate) async fn start_with(
    setup: Setup,
    section: impl FnOnce(&World) -> String,
) -> (World, SocketAddr) {
    let script = Script::Answer(Reply::new(200).body("ok"));
    let mut world = World::start_with(script, setup).await;
    let section = section(&world);
    reload(&mut world, &section).await.unwrap();
    let address = world.listener("secure").unwrap();
    (world, address)
}

/// Sets the listener `secure` otherwise.
pub(crate) async fn reload(world: &mut World, section: &str) -> Result<(), String> {
    let listener = "[listeners.secure]\naddress = '127.0.0.1:0'\n[listeners.secure.tls]\n";
    world
        .reload(|text| format!("{text}{listener}{section}\n"))
        .await
}

/// The line that names certificates.
pub(crate) fn certificates(pairs: &[&Pair]) -> String {
    let pairs = pairs.iter().map(|pair| {
        let (certificate, key) = (pair.certificate.display(), pair.key.display());
        format!("{{ cert_file = '{certificate}', key_file = '{key}' }}")
    });
    format!(
        "certificates = [{}]\n",
        pairs.collect::<Vec<_>>().join(", ")
    )
}

/// The value of a metric that counts.
#[expect(clippy::cast_possible_truncation, reason = "a whole number")]
pub(crate) async fn count(world: &World, name: &str, labels: &str) -> i64 {
    world.metric(name, labels).await as i64
}
