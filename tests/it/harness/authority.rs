//! Certificates of callers and of the proxy's listener, as files, and a caller that speaks TLS.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, RevokedCertParams, SanType, date_time_ymd,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::proxy::write_private;
use super::{PATIENCE, Proxy, Wire};

/// The next certificate's number.
static SERIAL: AtomicU64 = AtomicU64::new(1000);

/// One that signs.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub struct Identity {
    pub certificate: String,
    pub key: String,
    pub serial: u64,
}

impl Authority {
    pub fn new() -> Self {
        Self::of(CertificateParams::default())
    }

    /// One that is not called like the others.
    pub fn called(common: &str) -> Self {
        Self::of(named(common))
    }

    fn of(mut root: CertificateParams) -> Self {
        root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        Self(CertifiedIssuer::self_signed(root, KeyPair::generate().unwrap()).unwrap())
    }

    /// Its own certificate.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// For the proxy's listener.
    pub fn server(&self) -> Identity {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        self.sign(CertificateParams::new(names).unwrap(), ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// For a caller, with a common name and alternative names: what has a `:` is a URI.
    pub fn caller(&self, common: &str, alternative: &[&str]) -> Identity {
        let mut leaf = named(common);
        leaf.subject_alt_names.extend(alternative.iter().map(|name| match name.contains(':') {
            true => SanType::URI((*name).try_into().unwrap()),
            false => SanType::DnsName((*name).try_into().unwrap()),
        }));
        self.sign(leaf, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// For a caller that should have renewed it.
    pub fn expired_caller(&self, common: &str) -> Identity {
        let mut leaf = named(common);
        leaf.not_after = date_time_ymd(2020, 1, 1);
        self.sign(leaf, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// For a caller that is not yet to use it.
    pub fn early_caller(&self, common: &str) -> Identity {
        let mut leaf = named(common);
        leaf.not_before = date_time_ymd(2200, 1, 1);
        self.sign(leaf, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(&self, mut leaf: CertificateParams, usage: ExtendedKeyUsagePurpose) -> Identity {
        leaf.extended_key_usages = vec![usage];
        let (key, serial) = (KeyPair::generate().unwrap(), SERIAL.fetch_add(1, Ordering::Relaxed));
        leaf.serial_number = Some(serial.into());
        let certificate = leaf.signed_by(&key, &self.0).unwrap().pem();
        Identity { certificate, key: key.serialize_pem(), serial }
    }

    /// The list of what it has revoked, as PEM, good until a year.
    pub fn revoked(&self, certificates: &[&Identity], year: i32) -> String {
        self.revoked_between(certificates, (2020, year))
    }

    /// The same, made in one year and good until another.
    pub fn revoked_between(&self, certificates: &[&Identity], (since, until): (i32, i32)) -> String {
        let revoked = |identity: &&Identity| RevokedCertParams {
            serial_number: identity.serial.into(),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(since, 1, 1),
            next_update: date_time_ymd(until, 1, 1),
            crl_number: 1_u64.into(),
            issuing_distribution_point: None,
            revoked_certs: certificates.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.0).unwrap().pem().unwrap()
    }
}

fn named(common: &str) -> CertificateParams {
    let mut leaf = CertificateParams::default();
    leaf.distinguished_name.push(DnType::CommonName, common);
    leaf
}

impl Identity {
    /// Puts it into a directory as `listener.pem` and `listener.key`, each in one step.
    pub fn place(&self, directory: &Path) {
        let at = |name: &str| directory.join(name);
        std::fs::write(at("listener.pem.new"), &self.certificate).unwrap();
        write_private(&at("listener.key.new"), &self.key);
        std::fs::rename(at("listener.pem.new"), at("listener.pem")).unwrap();
        std::fs::rename(at("listener.key.new"), at("listener.key")).unwrap();
    }
}

/// The section that makes the listener use what [`Identity::place`] wrote.
pub const TLS: &str = "tls: { certificate_file: listener.pem, key_file: listener.key }";

/// How a caller speaks TLS.
pub struct Speaker<'a> {
    pub root: &'a str,
    pub identity: Option<&'a Identity>,
    pub alpn: &'a [&'a str],
    pub tls12: bool,
}

impl<'a> Speaker<'a> {
    pub fn new(root: &'a str) -> Self {
        Self { root, identity: None, alpn: &[], tls12: false }
    }

    fn connector(&self) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.root.as_bytes()).unwrap()).unwrap();
        let versions = if self.tls12 { [&TLS12] } else { [&TLS13] };
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match self.identity {
            None => builder.with_no_client_auth(),
            Some(Identity { certificate, key, .. }) => {
                let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
            }
        };
        config.alpn_protocols = self.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }

    /// A connection after its handshake.
    pub async fn connect(&self, address: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("localhost").unwrap();
        tokio::time::timeout(PATIENCE, self.connector().connect(name, stream)).await.expect("a handshake in time")
    }

    /// The same, to speak HTTP/1.1 over it.
    pub async fn wire(&self, proxy: &Proxy) -> Wire {
        Wire::over(self.connect(proxy.address).await.unwrap(), &proxy.secrets)
    }
}
