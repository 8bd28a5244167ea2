//! TLS towards callers.
//!
//! In: the PEM text of a certificate, of its key and, where callers must show certificates, of those who issue them and
//! of what they have revoked. Out: an [`Acceptor`] whose settings can be replaced while connections are open, the names
//! in a caller's certificate, and whether it still counts. It reads no file and binds no socket. Sessions of replaced
//! settings are not resumed: who issued a client's certificate, and whether it was revoked, is asked again.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod lists;
mod names;
mod shown;

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{HandshakeKind, RootCertStore, ServerConfig, ServerConnection};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

pub use self::lists::{Lists, called};
pub use self::names::{CertificateName, NotACertificateName};
pub use self::shown::Shown;
use crate::wire::ahead::ReadAhead;

/// An encrypted connection of a caller. What is under it is read in larger pieces than rustls asks for.
pub type Encrypted<S> = TlsStream<ReadAhead<S>>;

/// What files hold, as PEM.
#[derive(Clone, Copy, Debug)]
pub struct Pem<'a> {
    /// The certificate first, then those between it and its root.
    pub certificate: &'a [u8],
    /// Its private key: PKCS#8, PKCS#1 or SEC1.
    pub key: &'a [u8],
    /// Who issues the certificates callers must show; nothing asks for none.
    pub client_ca: Option<&'a [u8]>,
    /// What they have revoked; nothing asks about none.
    pub client_crl: Option<&'a [u8]>,
}

/// Which of them is to blame, and why; nothing is quoted.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unusable {
    /// The certificate.
    #[error("holds no certificate that can be shown: it must be PEM, the server's own CERTIFICATE first")]
    Certificate,
    /// The key.
    #[error("holds no private key that can be used: it must be PEM, without a passphrase")]
    Key,
    /// Each for itself is in order.
    #[error("is not the key of the certificate")]
    Pair,
    /// The issuers of callers' certificates.
    #[error("holds no certificate authority that can be trusted: it must be PEM with at least one CERTIFICATE")]
    ClientCa,
    /// What they have revoked.
    #[error(
        "holds no revocation list that can be used: it must be PEM with at least one X509 CRL, each complete and of its \
         issuer's own certificates, and one of each issuer"
    )]
    ClientCrl,
}

/// What handshakes go by.
#[derive(Debug)]
pub struct Settings {
    config: Arc<ServerConfig>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    lists: Option<Lists>,
}

impl Settings {
    /// What is known of the lists of revoked certificates, where there are any.
    #[must_use]
    pub fn lists(&self) -> Option<&Lists> {
        self.lists.as_ref()
    }
}

/// Settings for a listener: TLS 1.2 and 1.3, no early data (it can be replayed), ALPN as given.
///
/// Where there are lists, whoever no list speaks of is refused as well, and so is everybody of a list that should have been
/// replaced: what was revoked since is not known.
///
/// # Errors
/// Which of the files cannot be used.
pub fn settings(pem: Pem<'_>, http2: bool) -> Result<Settings, Unusable> {
    let chain = certificates(pem.certificate).ok_or(Unusable::Certificate)?;
    let key = PrivateKeyDer::from_pem_slice(pem.key).map_err(|_| Unusable::Key)?;
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|_| Unusable::Key)?;
    let asked = pem.client_ca.map(|authorities| verifier(authorities, pem.client_crl)).transpose()?;
    let (verifier, lists) = asked.map_or((None, None), |(verifier, lists)| (Some(verifier), lists));
    let builder = match &verifier {
        None => builder.with_no_client_auth(),
        Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => Unusable::Pair,
        rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => Unusable::Certificate,
        _ => Unusable::Key,
    })?;
    config.alpn_protocols = if http2 { vec![b"h2".to_vec(), b"http/1.1".to_vec()] } else { vec![b"http/1.1".to_vec()] };
    Ok(Settings { config: Arc::new(config), verifier, lists })
}

/// By name: with two providers in a build every bare builder would panic.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Decides about the certificates that callers show, by their issuers and what these have revoked.
fn verifier(
    authorities: &[u8],
    lists: Option<&[u8]>,
) -> Result<(Arc<dyn ClientCertVerifier>, Option<Lists>), Unusable> {
    let (mut roots, authorities) = (RootCertStore::empty(), certificates(authorities).ok_or(Unusable::ClientCa)?);
    for authority in &authorities {
        roots.add(authority.clone()).map_err(|_| Unusable::ClientCa)?;
    }
    let (mut verifier, mut known) = (WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()), None);
    if let Some(lists) = lists {
        let lists = revocations(lists).ok_or(Unusable::ClientCrl)?;
        known = Some(Lists::read(&lists, &authorities).ok_or(Unusable::ClientCrl)?);
        verifier = verifier.with_crls(lists).enforce_revocation_expiration();
    }
    let verifier = verifier.build().map_err(|error| match error {
        VerifierBuilderError::InvalidCrl(_) => Unusable::ClientCrl,
        _ => Unusable::ClientCa,
    })?;
    Ok((verifier, known))
}

/// All lists of revoked certificates, or nothing where one is malformed or there is none.
#[must_use]
pub fn revocations(pem: &[u8]) -> Option<Vec<CertificateRevocationListDer<'static>>> {
    all(pem)
}

/// All certificates, or nothing where one is malformed or there is none.
#[must_use]
pub fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    all(pem)
}

fn all<T: PemObject>(pem: &[u8]) -> Option<Vec<T>> {
    let all: Vec<_> = T::pem_slice_iter(pem).collect::<Result<_, _>>().ok()?;
    (!all.is_empty()).then_some(all)
}

/// Takes part in handshakes; all cores share it.
#[derive(Clone)]
pub struct Acceptor(Arc<ArcSwap<Settings>>);

impl Acceptor {
    /// With these settings, until others replace them.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(settings)))
    }

    /// Other settings for the handshakes to come; connections that are open go on with theirs while what their callers have
    /// shown still counts.
    pub fn replace(&self, settings: Settings) {
        self.0.store(Arc::new(settings));
    }

    /// Those in force.
    #[must_use]
    pub fn in_force(&self) -> Arc<Settings> {
        self.0.load_full()
    }

    /// The handshake, and the certificate that the caller has shown in it. It has no deadline of its own.
    ///
    /// # Errors
    /// Why there is no encrypted connection, in rustls' words, which quote nothing.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> io::Result<(Encrypted<S>, Option<Shown>)> {
        let settings = self.0.load_full();
        let stream = TlsAcceptor::from(Arc::clone(&settings.config)).accept(ReadAhead::new(stream)).await?;
        let connection = stream.get_ref().1;
        // rustls verifies in full handshakes; what has ended since the first one would stay good for as long as its
        // caller comes back.
        let verified_by = (connection.handshake_kind() != Some(HandshakeKind::Resumed)).then_some(settings);
        let shown = connection.peer_certificates().map(|chain| Shown::new(self, verified_by, chain, UnixTime::now()));
        Ok((stream, shown))
    }
}

/// The names in the certificate the caller has shown; none where it was not asked for one.
#[must_use]
pub fn names(connection: &ServerConnection) -> Vec<CertificateName> {
    let shown = connection.peer_certificates().and_then(<[_]>::first);
    shown.map(|certificate| names::of(certificate)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    #[test]
    fn of_files_that_cannot_be_used_the_right_one_is_blamed() {
        let ((certificate, key), (_, other)) = (pair(), pair());
        let with = |certificate: &str, key: &str, client_ca: Option<&str>, client_crl: Option<&str>| {
            let pem = Pem {
                certificate: certificate.as_bytes(),
                key: key.as_bytes(),
                client_ca: client_ca.map(str::as_bytes),
                client_crl: client_crl.map(str::as_bytes),
            };
            settings(pem, true).map(|settings| settings.config.alpn_protocols.len())
        };
        let made = |certificate: &str, key: &str, client_ca: Option<&str>| with(certificate, key, client_ca, None);
        assert_eq!(made(&certificate, &key, Some(&certificate)), Ok(2));
        for bad in ["", "x", &certificate, "-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n"] {
            assert_eq!(with(&certificate, &key, Some(&certificate), Some(bad)), Err(Unusable::ClientCrl), "{bad}");
        }
        let broken = certificate.replace("MII", "AAA");
        for bad in ["", "x", &key, &broken] {
            assert_eq!(made(bad, &key, None), Err(Unusable::Certificate), "{bad}");
            assert_eq!(made(&certificate, &key, Some(bad)), Err(Unusable::ClientCa), "{bad}");
        }
        for bad in ["", "x", &certificate] {
            assert_eq!(made(&certificate, bad, None), Err(Unusable::Key), "{bad}");
        }
        assert_eq!(made(&certificate, &other, None), Err(Unusable::Pair));
    }
}
