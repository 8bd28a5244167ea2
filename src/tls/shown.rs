//! A certificate that a caller has shown, and whether it still counts.
//!
//! In: the chain of a connection, and the settings its handshake was made with. Out: yes or no, asked before each of its
//! requests. A connection can outlive what it rests on: its certificate, the trust in its issuer, the list that does not
//! revoke it. The answer is found anew where the settings were replaced, once a minute, and once for a session that was resumed; else it costs a comparison.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, UnixTime};

use super::{Acceptor, Settings};

/// How long an answer holds by the same settings, in seconds.
const HOLDS: u64 = 60;

/// What a caller has shown, of one connection.
pub struct Shown {
    acceptor: Acceptor,
    chain: Vec<CertificateDer<'static>>,
    /// The settings of the last answer; none until there is one.
    verified_by: RefCell<Option<Arc<Settings>>>,
    verified_at: Cell<u64>,
    counts: Cell<bool>,
}

impl Shown {
    /// Verified just now by these settings, if by any: a session that is resumed brings its chain along unverified.
    pub(super) fn new(
        acceptor: &Acceptor,
        verified_by: Option<Arc<Settings>>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Self {
        let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        let (verified_by, counts) = (RefCell::new(verified_by), Cell::new(true));
        Self { acceptor: acceptor.clone(), chain, verified_by, verified_at: Cell::new(now.as_secs()), counts }
    }

    /// Whether a handshake with it would succeed by the settings in force.
    pub fn counts(&self) -> bool {
        self.counts_at(UnixTime::now())
    }

    fn counts_at(&self, now: UnixTime) -> bool {
        let in_force = self.acceptor.0.load();
        // A clock that was set back says nothing of how long it holds.
        let holds = now.as_secs().checked_sub(self.verified_at.get()).is_some_and(|age| age < HOLDS);
        let same = self.verified_by.borrow().as_ref().is_some_and(|by| Arc::ptr_eq(by, &in_force));
        if !holds || !same {
            self.counts.set(self.passes(&in_force, now));
            self.verified_by.replace(Some(Arc::clone(&in_force)));
            self.verified_at.set(now.as_secs());
        }
        self.counts.get()
    }

    fn passes(&self, settings: &Settings, now: UnixTime) -> bool {
        let (Some(verifier), Some((first, rest))) = (&settings.verifier, self.chain.split_first()) else { return true };
        let verified = verifier.verify_client_cert(first, rest, now);
        // Told once for a connection, however often it asks.
        if let (Err(error), true) = (&verified, self.counts.get()) {
            tracing::warn!("the certificate of a connection counts no longer: {error}");
        }
        verified.is_ok()
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Shown").field("counts", &self.counts).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
    use rustls::pki_types::PrivateKeyDer;
    use rustls::pki_types::pem::PemObject as _;
    use rustls::version::{TLS12, TLS13};
    use rustls::{ClientConfig, HandshakeKind, RootCertStore};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_rustls::TlsConnector;

    use super::super::{Pem, settings};
    use super::*;

    /// 2030-01-01, when the certificate ends.
    const END: u64 = 1_893_456_000;

    /// A caller's certificate that ends at a second, what signed it, and a listener that asks for one of its kind.
    struct Scene {
        chain: CertificateDer<'static>,
        key: KeyPair,
        root: String,
        server: (String, String),
    }

    impl Scene {
        fn until(end: u64) -> Self {
            let mut root = CertificateParams::default();
            root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            let root = CertifiedIssuer::self_signed(root, KeyPair::generate().unwrap()).unwrap();
            let mut leaf = CertificateParams::new(["desk".to_owned()]).unwrap();
            leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            leaf.not_after = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(end);
            let key = KeyPair::generate().unwrap();
            let chain = leaf.signed_by(&key, &root).unwrap().der().clone();
            let of_server = KeyPair::generate().unwrap();
            let server =
                CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&of_server, &root).unwrap();
            Self { chain, key, root: root.pem(), server: (server.pem(), of_server.serialize_pem()) }
        }

        fn settings(&self) -> Settings {
            let (certificate, key) = (self.server.0.as_bytes(), self.server.1.as_bytes());
            let client_ca = Some(self.root.as_bytes());
            settings(Pem { certificate, key, client_ca, client_crl: None }, true).unwrap()
        }
    }

    fn at(second: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(second))
    }

    #[test]
    fn a_certificate_that_ends_counts_no_longer_than_a_minute_more() {
        let scene = Scene::until(END);
        let acceptor = Acceptor::new(scene.settings());
        let shown =
            Shown::new(&acceptor, Some(acceptor.0.load_full()), std::slice::from_ref(&scene.chain), at(END - 30));
        assert!(shown.counts_at(at(END - 30)) && shown.counts_at(at(END + 29)));
        assert!(!shown.counts_at(at(END + 30)) && !shown.counts_at(at(END + 1000)));
        // The clock was wrong.
        assert!(shown.counts_at(at(END - 30)));
        // New settings ask at once.
        acceptor.replace(scene.settings());
        assert!(!shown.counts_at(at(END + 1)));
    }

    #[tokio::test]
    async fn a_certificate_that_has_ended_does_not_come_back_with_a_resumed_session() {
        let now = UnixTime::now().as_secs();
        // Good for both handshakes, and at an end before their minute is over.
        let end = now + 40;
        let scene = Scene::until(end);
        let acceptor = Acceptor::new(scene.settings());
        for version in [&TLS12, &TLS13] {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(scene.root.as_bytes()).unwrap()).unwrap();
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let key = PrivateKeyDer::try_from(scene.key.serialize_der()).unwrap();
            let config = ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(&[version])
                .unwrap()
                .with_root_certificates(roots)
                .with_client_auth_cert(vec![scene.chain.clone()], key)
                .unwrap();
            let caller = TlsConnector::from(Arc::new(config));
            for resumed in [false, true] {
                let (near, far) = tokio::io::duplex(64 * 1024);
                let connecting = caller.connect("localhost".try_into().unwrap(), near);
                let (connected, accepted) = tokio::join!(connecting, async {
                    let (mut stream, shown) = acceptor.accept(far).await.unwrap();
                    // With it go the tickets.
                    stream.write_all(b"!").await.unwrap();
                    stream.flush().await.unwrap();
                    (stream, shown.unwrap())
                });
                let (mut near, (far, shown)) = (connected.unwrap(), accepted);
                near.read_exact(&mut [0]).await.unwrap();
                assert_eq!(far.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed), resumed, "{version:?}");
                assert_eq!(shown.counts_at(at(end + 1)), !resumed, "{version:?}");
                assert!(shown.counts_at(at(now)), "{version:?}");
            }
        }
    }
}
