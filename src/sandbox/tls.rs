//! The sandbox's certificates, made anew at every start.
//!
//! In: how good the certificate should be. Out: a root in PEM and a leaf it signed. The root's private key never leaves
//! [`identity`], so trusting the root later lets nobody sign anything else.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::calendar::Day;
use super::{Certificate, Protocols};

/// Long enough for a demo that somebody forgot to stop; some clients refuse leaves that live for more than 398 days.
const LIFE_DAYS: i64 = 365;

/// What the server needs to prove itself, and its clients to believe it.
pub(super) struct Identity {
    pub(super) root_pem: String,
    leaf: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

pub(super) fn identity(certificate: Certificate) -> io::Result<Identity> {
    make(certificate).map_err(io::Error::other)
}

fn make(certificate: Certificate) -> Result<Identity, rcgen::Error> {
    let today = Day::of(SystemTime::now());
    let mut root = CertificateParams::default();
    root.distinguished_name.push(DnType::CommonName, "cloudbeds-auth-proxy sandbox root");
    root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_life(&mut root, today.plus(-40), today.plus(LIFE_DAYS));
    let root = CertifiedIssuer::self_signed(root, KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)?;

    let names: &[&str] = match certificate {
        Certificate::Good | Certificate::Expired => &["localhost", "sandbox.test", "127.0.0.1", "::1"],
        Certificate::WrongName => &["elsewhere.test"],
    };
    let mut leaf = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    leaf.distinguished_name.push(DnType::CommonName, "cloudbeds-auth-proxy sandbox");
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.use_authority_key_identifier_extension = true;
    match certificate {
        Certificate::Expired => set_life(&mut leaf, today.plus(-30), today.plus(-1)),
        // From yesterday on, so that neither midnight nor a clock a little behind matters.
        Certificate::Good | Certificate::WrongName => set_life(&mut leaf, today.plus(-1), today.plus(LIFE_DAYS)),
    }
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let leaf = leaf.signed_by(&key, &root)?;
    Ok(Identity {
        root_pem: root.pem(),
        leaf: leaf.der().clone(),
        key: PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
    })
}

fn set_life(params: &mut CertificateParams, from: Day, to: Day) {
    let at = |day: Day| {
        let (year, month, day) = day.civil();
        date_time_ymd(year, month, day)
    };
    (params.not_before, params.not_after) = (at(from), at(to));
}

pub(super) fn config(identity: Identity, protocols: Protocols, tls12_only: bool) -> io::Result<ServerConfig> {
    let versions = if tls12_only { &[&rustls::version::TLS12][..] } else { rustls::DEFAULT_VERSIONS };
    // The provider by name: with two of them in the tree a bare builder would panic.
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(vec![identity.leaf], identity.key)
        .map_err(io::Error::other)?;
    config.alpn_protocols = match protocols {
        Protocols::Both => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        Protocols::Http1 => vec![b"http/1.1".to_vec()],
        Protocols::Http2 => vec![b"h2".to_vec()],
    };
    Ok(config)
}
