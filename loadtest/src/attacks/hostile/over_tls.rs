//! Crowds over TLS. Whom they speak to is not verified: that is no cost of the edge's.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::crowds::request;
use super::wire::Wire;

const READ_BYTES: usize = 512;

pub(super) async fn http1(mut wire: Wire) -> io::Result<()> {
    let request = request(&wire.attacker.key);
    let attacker = Rc::clone(&wire.attacker);
    let mut stream = connect(&mut wire.stream, b"http/1.1").await?;
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    attacker.tally.requests(1);
    attacker.tally.bytes(request.len());
    // The answer, and then nothing until the edge ends the connection.
    let mut some = [0; READ_BYTES];
    while stream.read(&mut some).await? > 0 {
        attacker.tally.answer("HTTP/1.1".to_owned());
        drop(wire.arriving.take());
    }
    Ok(())
}

pub(super) async fn http2(mut wire: Wire) -> io::Result<()> {
    let attacker = Rc::clone(&wire.attacker);
    let stream = connect(&mut wire.stream, b"h2").await?;
    let (send, connection) = h2::client::handshake(stream)
        .await
        .map_err(io::Error::other)?;
    let head = http::Request::post("https://edge/v1/traces")
        .version(http::Version::HTTP_2)
        .header("content-type", "application/x-protobuf")
        .header("authorization", format!("Bearer {}", attacker.key))
        .body(())
        .map_err(io::Error::other)?;
    let export = async {
        let mut send = send.ready().await?;
        let (answer, _) = send.send_request(head, true)?;
        attacker.tally.requests(1);
        attacker.tally.bytes(1);
        answer.await?;
        attacker.tally.answer("HTTP/2".to_owned());
        drop(wire.arriving.take());
        // A connection that nobody can send on any more would end.
        std::future::pending::<Result<(), h2::Error>>().await
    };
    let ended = tokio::try_join!(connection, export);
    ended.map(|_| ()).map_err(io::Error::other)
}

async fn connect<'a>(
    stream: &'a mut TcpStream,
    protocol: &[u8],
) -> io::Result<TlsStream<&'a mut TcpStream>> {
    let provider = Arc::new(default_provider());
    let anybody = Arc::new(Anybody(provider.signature_verification_algorithms));
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let builder = builder
        .dangerous()
        .with_custom_certificate_verifier(anybody);
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    config.resumption = Resumption::disabled();
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

/// Takes any certificate, but not any signature by its key.
#[derive(Debug)]
struct Anybody(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
