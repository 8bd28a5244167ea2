//! Certificates of every quality, and the server settings that show them.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// How good the certificate is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Certificate {
    Good,
    WrongName,
    Expired,
    NotYetValid,
    SelfSigned,
}

/// The one protocol that ALPN offers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Alpn {
    Http1,
    Http2,
}

/// The root to trust, and a server whose certificate that root has signed, unless it is self-signed.
pub fn config(certificate: Certificate, alpn: Alpn) -> (String, ServerConfig) {
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let root = CertifiedIssuer::self_signed(root, KeyPair::generate().unwrap()).unwrap();
    let name = if certificate == Certificate::WrongName { "elsewhere.test" } else { "localhost" };
    let mut leaf = CertificateParams::new(vec![name.to_owned()]).unwrap();
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    match certificate {
        Certificate::Expired => leaf.not_after = date_time_ymd(2020, 1, 1),
        Certificate::NotYetValid => leaf.not_before = date_time_ymd(2200, 1, 1),
        _ => {}
    }
    let key = KeyPair::generate().unwrap();
    let leaf = match certificate {
        Certificate::SelfSigned => leaf.self_signed(&key).unwrap(),
        _ => leaf.signed_by(&key, &root).unwrap(),
    };
    let chain: Vec<CertificateDer<'static>> = vec![leaf.der().clone()];
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![match alpn {
        Alpn::Http1 => b"http/1.1".to_vec(),
        Alpn::Http2 => b"h2".to_vec(),
    }];
    (root.pem(), config)
}

/// The root to trust, and the files of a Redis whose certificate that root has signed.
pub fn redis() -> (String, [(&'static str, String); 2]) {
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let root = CertifiedIssuer::self_signed(root, KeyPair::generate().unwrap()).unwrap();
    let mut leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate().unwrap();
    let leaf = leaf.signed_by(&key, &root).unwrap();
    (root.pem(), [("cert.pem", leaf.pem()), ("key.pem", key.serialize_pem())])
}
