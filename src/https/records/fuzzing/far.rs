//! A server in memory that says whatever a program says, behind a handshake by rustls.
//!
//! A program is made of steps: what, how long, and so many bytes.
//!
//! | what | is said |
//! |---|---|
//! | `d` `h` `a` | a record of data, of the handshake's kind, an alert |
//! | `D` | a record of data that is a hundred times so long |
//! | `i` | a record of the kind that the first of the bytes is |
//! | `u` | new keys; whether it asks for the client's says the last bit of the first byte |
//! | `p` | a record of data with the last of its bytes changed on the way |
//! | others | the bytes as they are |

use std::sync::{Arc, LazyLock};

use rustls::crypto::cipher::{
    InboundOpaqueMessage, MessageDecrypter, MessageEncrypter, OutboundChunks, OutboundPlainMessage,
};
use rustls::crypto::ring;
use rustls::kernel::KernelConnection;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{
    ClientConfig, ConnectionTrafficSecrets, ContentType, ProtocolVersion, RootCertStore, ServerConfig,
    SupportedCipherSuite, Tls13CipherSuite,
};

use super::super::{HEADER, key};

/// The longest content that is said, in bytes: more than there may be.
const LONGEST: usize = (1 << 14) + 300;

/// Both sides, and the root of trust between them.
static PEERS: LazyLock<(Arc<ClientConfig>, Arc<ServerConfig>)> = LazyLock::new(|| {
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("a name");
    let certificate = CertificateDer::from(certificate.self_signed(&key).expect("a certificate"));
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).expect("a root");
    let provider = Arc::new(ring::default_provider());
    let versions = &[&rustls::version::TLS13];
    let client = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions);
    let mut client = client.expect("a version").with_root_certificates(roots).with_no_client_auth();
    client.enable_secret_extraction = true;
    client.resumption = rustls::client::Resumption::disabled();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let server = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions);
    let server = server.expect("a version").with_no_client_auth().with_single_cert(vec![certificate], key);
    let mut server = server.expect("its key");
    server.enable_secret_extraction = true;
    server.send_tls13_tickets = 0;
    (Arc::new(client), Arc::new(server))
});

pub(super) fn client() -> Arc<ClientConfig> {
    Arc::clone(&PEERS.0)
}

/// The server.
pub(super) struct Far {
    /// What has come and what it says, on the line.
    pub(super) input: Vec<u8>,
    pub(super) output: Vec<u8>,
    state: State,
}

enum State {
    Shaking(Box<UnbufferedServerConnection>),
    Through(Box<Session>),
    Moving,
}

struct Session {
    kernel: KernelConnection<ServerConnectionData>,
    suite: &'static Tls13CipherSuite,
    encrypter: Box<dyn MessageEncrypter>,
    said: u64,
    decrypter: Box<dyn MessageDecrypter>,
    heard: u64,
}

impl Far {
    pub(super) fn new() -> Self {
        let server = UnbufferedServerConnection::new(Arc::clone(&PEERS.1)).expect("a good configuration");
        Self { input: Vec::new(), output: Vec::new(), state: State::Shaking(Box::new(server)) }
    }

    /// Goes on with the handshake, as far as what has come allows.
    pub(super) fn shake(&mut self) {
        while let State::Shaking(server) = &mut self.state {
            let UnbufferedStatus { discard, state } = server.process_tls_records(&mut self.input);
            let (mut blocked, mut through) = (false, false);
            match state.expect("a good handshake") {
                ConnectionState::EncodeTlsData(mut data) => {
                    let mut room = [0; 4096];
                    let count = data.encode(&mut room).expect("room enough");
                    self.output.extend_from_slice(&room[..count]);
                }
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::BlockedHandshake => blocked = true,
                _ => through = true,
            }
            self.input.drain(..discard);
            if blocked {
                return;
            }
            if through && let State::Shaking(server) = std::mem::replace(&mut self.state, State::Moving) {
                self.state = State::Through(Box::new(Session::new(*server)));
            }
        }
    }

    fn session(&mut self) -> &mut Session {
        let State::Through(session) = &mut self.state else { panic!("before the handshake's end") };
        session
    }

    /// Puts what a program says on the line.
    pub(super) fn say(&mut self, mut program: &[u8]) {
        let mut said = Vec::new();
        while let [what, length, rest @ ..] = program {
            let (content, behind) = rest.split_at(rest.len().min(usize::from(*length)));
            program = behind;
            let session = self.session();
            match what {
                b'd' => said.extend(session.record(ContentType::ApplicationData, content)),
                b'h' => said.extend(session.record(ContentType::Handshake, content)),
                b'a' => said.extend(session.record(ContentType::Alert, content)),
                b'D' => {
                    let mut long = content.repeat(100);
                    long.truncate(LONGEST);
                    said.extend(session.record(ContentType::ApplicationData, &long));
                }
                b'i' => {
                    let (kind, content) = content.split_first().unwrap_or((&0, &[]));
                    said.extend(session.record(ContentType::from(*kind), content));
                }
                b'u' => {
                    let asks = content.first().map_or(0, |first| first & 1);
                    said.extend(session.record(ContentType::Handshake, &[24, 0, 0, 1, asks]));
                    let (sequence, secrets) = session.kernel.update_tx_secret().expect("a secret");
                    (session.encrypter, session.said) = (session.encrypter(secrets), sequence);
                }
                b'p' => {
                    let mut record = session.record(ContentType::ApplicationData, content);
                    *record.last_mut().expect("a record") ^= 1;
                    said.extend(record);
                }
                _ => said.extend(content),
            }
        }
        self.output.extend(said);
    }

    /// What the client has said, to the last byte.
    pub(super) fn heard(&mut self) -> Vec<(u8, Vec<u8>)> {
        let mut input = std::mem::take(&mut self.input);
        let (mut rest, mut heard) = (&mut input[..], Vec::new());
        while !rest.is_empty() {
            let length = usize::from(u16::from_be_bytes([rest[3], rest[4]]));
            let (record, behind) = rest.split_at_mut(HEADER + length);
            assert_eq!(record[..3], [23, 3, 3]);
            rest = behind;
            heard.push(self.session().open(&mut record[HEADER..]));
        }
        heard
    }
}

impl Session {
    fn new(server: UnbufferedServerConnection) -> Self {
        let (secrets, kernel) = server.dangerous_into_kernel_connection().expect("its secrets");
        let SupportedCipherSuite::Tls13(suite) = kernel.negotiated_cipher_suite() else { panic!("not TLS 1.3") };
        let ((said, tx), (heard, rx)) = (secrets.tx, secrets.rx);
        let ((tx, tx_iv), (rx, rx_iv)) = (key(tx).expect("a key"), key(rx).expect("a key"));
        let (encrypter, decrypter) = (suite.aead_alg.encrypter(tx, tx_iv), suite.aead_alg.decrypter(rx, rx_iv));
        Self { kernel, suite, encrypter, said, decrypter, heard }
    }

    fn encrypter(&self, secrets: ConnectionTrafficSecrets) -> Box<dyn MessageEncrypter> {
        let (key, iv) = key(secrets).expect("a key");
        self.suite.aead_alg.encrypter(key, iv)
    }

    fn record(&mut self, typ: ContentType, content: &[u8]) -> Vec<u8> {
        let payload = OutboundChunks::Single(content);
        let plain = OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_3, payload };
        self.said += 1;
        self.encrypter.encrypt(plain, self.said - 1).expect("a record").encode()
    }

    /// A record of the client's without its protection. Where it has new keys the next one is read by those.
    fn open(&mut self, content: &mut [u8]) -> (u8, Vec<u8>) {
        let record = InboundOpaqueMessage::new(ContentType::ApplicationData, ProtocolVersion::TLSv1_2, content);
        let plain = self.decrypter.decrypt(record, self.heard).expect("a record with the next number");
        self.heard += 1;
        let (kind, content) = (u8::from(plain.typ), plain.payload.to_vec());
        if kind == u8::from(ContentType::Handshake) {
            let (sequence, secrets) = self.kernel.update_rx_secret().expect("a secret");
            let (key, iv) = key(secrets).expect("a key");
            (self.decrypter, self.heard) = (self.suite.aead_alg.decrypter(key, iv), sequence);
        }
        (kind, content)
    }
}
