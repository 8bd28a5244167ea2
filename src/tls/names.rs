//! What a caller's certificate calls its owner.
//!
//! In: a certificate that was verified, or a name as the configuration spells it. Out: [`CertificateName`]s, which are
//! compared whole and kind by kind: a DNS name that looks like a URI is no URI. Names are what an issuer vouches for;
//! nothing here decides whether the issuer is trusted.

use std::str::FromStr;

use x509_parser::prelude::{FromDer as _, GeneralName, ParsedExtension, X509Certificate};

/// One name.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum CertificateName {
    /// The subject's one common name; spelled `CN=front-desk`.
    Common(Box<str>),
    /// A URI among the alternative names; spelled as it is, such as `spiffe://example.org/front-desk`.
    Uri(Box<str>),
    /// A DNS name among them, in small letters; spelled as it is.
    Dns(Box<str>),
}

/// The text is no name of a certificate. The error does not quote it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("expected names such as CN=front-desk, spiffe://example.org/front-desk or front-desk.example.org")]
pub struct NotACertificateName;

impl FromStr for CertificateName {
    type Err = NotACertificateName;

    fn from_str(text: &str) -> Result<Self, NotACertificateName> {
        if let Some(name) = text.strip_prefix("CN=") {
            let plain = !name.is_empty() && name == name.trim() && !name.contains(char::is_control);
            return if plain { Ok(Self::Common(name.into())) } else { Err(NotACertificateName) };
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            let plain = text.bytes().all(|byte| byte.is_ascii_graphic());
            return if plain && !scheme.is_empty() && !rest.is_empty() {
                Ok(Self::Uri(text.into()))
            } else {
                Err(NotACertificateName)
            };
        }
        let letters = |label: &str| label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        if text.split('.').all(|label| !label.is_empty() && letters(label)) {
            return Ok(Self::Dns(text.to_ascii_lowercase().into()));
        }
        Err(NotACertificateName)
    }
}

/// The names in a certificate. A subject with several common names has none: which one is meant is anybody's guess.
pub(super) fn of(certificate: &[u8]) -> Vec<CertificateName> {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let mut names = Vec::new();
    let mut common = certificate.subject().iter_common_name();
    if let (Some(Ok(name)), None) = (common.next().map(x509_parser::x509::AttributeTypeAndValue::as_str), common.next())
    {
        names.push(CertificateName::Common(name.into()));
    }
    for extension in certificate.extensions() {
        let ParsedExtension::SubjectAlternativeName(alternative) = extension.parsed_extension() else { continue };
        names.extend(alternative.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(CertificateName::Uri((*uri).into())),
            GeneralName::DNSName(name) => Some(CertificateName::Dns(name.to_ascii_lowercase().into())),
            _ => None,
        }));
    }
    names
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    #[test]
    fn a_name_is_spelled_by_its_kind() {
        let (common, uri, dns) = (CertificateName::Common, CertificateName::Uri, CertificateName::Dns);
        assert_eq!("CN=Front Desk".parse(), Ok(common("Front Desk".into())));
        assert_eq!("spiffe://a/b".parse(), Ok(uri("spiffe://a/b".into())));
        assert_eq!("Desk.Example".parse(), Ok(dns("desk.example".into())));
        for bad in
            ["", "CN=", "CN= a", "CN=a\n", "cn=a", "O=x", "://a", "spiffe://", "spiffe://a b", "a..b", "a b", "*.a"]
        {
            assert_eq!(bad.parse::<CertificateName>(), Err(NotACertificateName), "{bad:?}");
        }
    }

    #[test]
    fn a_certificate_is_read_kind_by_kind() {
        let mut params = CertificateParams::new(["Desk.Example".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "front-desk");
        params.subject_alt_names.push(SanType::URI("spiffe://hotel/desk".try_into().unwrap()));
        params.subject_alt_names.push(SanType::DnsName("CN=admin".try_into().unwrap()));
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let names = of(certificate.der());
        let spelled = |text: &str| names.contains(&text.parse().unwrap());
        assert!(spelled("CN=front-desk") && spelled("spiffe://hotel/desk") && spelled("desk.example"));
        assert!(!spelled("CN=admin") && !spelled("front-desk"), "{names:?}");
        assert_eq!(of(b"\x30\x03\x02\x01\x01"), []);
    }
}
