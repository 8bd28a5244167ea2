//! Records against a real server of rustls', and against one that says what no server should.

mod faults;
mod older;
mod streams;

use std::io;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, Iv, MessageDecrypter, MessageEncrypter, OutboundChunks, OutboundPlainMessage,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{
    ClientConfig, ConnectionTrafficSecrets, ContentType, ProtocolVersion, RootCertStore, ServerConfig,
    SupportedCipherSuite, SupportedProtocolVersion,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, duplex};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::super::encrypted::Encrypted;
use super::super::handshake::shake;
use super::{HEADER, key};

/// What a client and a server have of each other.
struct Peers {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl Peers {
    fn new(version: &'static SupportedProtocolVersion, resumption: Resumption) -> Self {
        Self::with(rustls::crypto::ring::default_provider(), version, resumption)
    }

    /// With a server that can do no more than this.
    fn with(server: CryptoProvider, version: &'static SupportedProtocolVersion, resumption: Resumption) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        let certificate = CertificateDer::from(certificate);
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.enable_secret_extraction = true;
        client.resumption = resumption;
        client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut server = ServerConfig::builder_with_provider(Arc::new(server))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        server.enable_secret_extraction = true;
        server.send_half_rtt_data = true;
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { client: Arc::new(client), server: Arc::new(server) }
    }

    fn tls13() -> Self {
        Self::new(&rustls::version::TLS13, Resumption::default())
    }

    /// A connection through a pipe that holds so much.
    async fn meet(&self, pipe: usize) -> (Encrypted<DuplexStream>, TlsStream<DuplexStream>) {
        self.meet_over(duplex(pipe)).await
    }

    async fn meet_over<S: AsyncRead + AsyncWrite + Unpin>(&self, (near, far): (S, S)) -> (Encrypted<S>, TlsStream<S>) {
        let (near, far) = tokio::join!(
            shake(&self.client, localhost(), near),
            TlsAcceptor::from(Arc::clone(&self.server)).accept(far)
        );
        let (near, protocol) = near.unwrap();
        assert_eq!(protocol.as_deref(), Some(&b"http/1.1"[..]));
        (near, far.unwrap())
    }

    fn without_tickets(mut self) -> Self {
        if let Some(server) = Arc::get_mut(&mut self.server) {
            server.send_tls13_tickets = 0;
        }
        self
    }

    /// The same with a server that is the test itself.
    async fn meet_test(self) -> (Encrypted<DuplexStream>, Far) {
        let (near, far) = self.without_tickets().meet(1 << 20).await;
        let (io, connection) = far.into_inner();
        let Some(SupportedCipherSuite::Tls13(suite)) = connection.negotiated_cipher_suite() else { panic!() };
        let secrets = connection.dangerous_extract_secrets().unwrap();
        let with = |secrets: ConnectionTrafficSecrets| -> (AeadKey, Iv) { key(secrets).unwrap() };
        let (tx, rx) = (with(secrets.tx.1), with(secrets.rx.1));
        let far = Far {
            io,
            encrypter: suite.aead_alg.encrypter(tx.0, tx.1),
            said: secrets.tx.0,
            decrypter: suite.aead_alg.decrypter(rx.0, rx.1),
            heard: secrets.rx.0,
        };
        (near, far)
    }
}

fn localhost() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}

/// A server behind its handshake, which says whatever it likes.
struct Far {
    io: DuplexStream,
    encrypter: Box<dyn MessageEncrypter>,
    said: u64,
    decrypter: Box<dyn MessageDecrypter>,
    heard: u64,
}

impl Far {
    fn record(&mut self, typ: ContentType, content: &[u8]) -> Vec<u8> {
        let payload = OutboundChunks::Single(content);
        let plain = OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_3, payload };
        self.said += 1;
        self.encrypter.encrypt(plain, self.said - 1).unwrap().encode()
    }

    async fn say(&mut self, typ: ContentType, content: &[u8]) {
        let record = self.record(typ, content);
        self.io.write_all(&record).await.unwrap();
    }

    /// The next record of the client's, without its protection.
    async fn hear(&mut self) -> (ContentType, Vec<u8>) {
        let mut header = [0; HEADER];
        self.io.read_exact(&mut header).await.unwrap();
        assert_eq!(header[..3], [23, 3, 3]);
        let mut content = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
        self.io.read_exact(&mut content).await.unwrap();
        let record = InboundOpaqueMessage::new(ContentType::ApplicationData, ProtocolVersion::TLSv1_2, &mut content);
        self.heard += 1;
        let plain = self.decrypter.decrypt(record, self.heard - 1).unwrap();
        (plain.typ, plain.payload.to_vec())
    }
}

/// All pieces until the stream ends, one way or another.
async fn pieces(near: &mut Encrypted<DuplexStream>) -> (Vec<u8>, io::Result<()>) {
    let mut all = Vec::new();
    loop {
        match std::future::poll_fn(|cx| near.poll_piece(cx)).await {
            Ok(Some(piece)) => {
                assert!(!piece.is_empty());
                all.extend_from_slice(&piece);
            }
            Ok(None) => return (all, Ok(())),
            Err(error) => return (all, Err(error)),
        }
    }
}

fn reason(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}
