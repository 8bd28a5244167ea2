//! `doctor` on a certificate that Cloudbeds shows: who issued it, and until when it is good.
//!
//! In: a certificate that has been verified already. Out: a sentence, and whether it is about to expire. It decides about
//! no connection.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use x509_parser::prelude::{FromDer as _, X509Certificate};

/// So near to its end a certificate should have been replaced: public ones are renewed a month ahead.
const SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// A certificate's issuer and end, for a person.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Told {
    pub(super) words: String,
    /// Whether it ends within two weeks.
    pub(super) ends_soon: bool,
}

/// Reads a certificate; nothing where it is none.
pub(super) fn told(der: &[u8], now: SystemTime) -> Option<Told> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let issuer = certificate.issuer();
    let name = issuer.iter_common_name().chain(issuer.iter_organization()).find_map(|name| name.as_str().ok());
    let name: String = name.unwrap_or("somebody without a name").chars().filter(|c| !c.is_control()).take(64).collect();
    let end = certificate.validity().not_after;
    let left = u64::try_from(end.timestamp()).unwrap_or(0);
    let left = (UNIX_EPOCH + Duration::from_secs(left)).duration_since(now).unwrap_or_default();
    let (date, days) = (end.to_datetime().date(), left.as_secs() / (24 * 60 * 60));
    Some(Told { words: format!("issued by {name}, good until {date} ({days} days)"), ends_soon: left < SOON })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_tells_its_issuer_and_its_end() {
        let mut root = rcgen::CertificateParams::default();
        root.distinguished_name.push(rcgen::DnType::CommonName, "Demo\u{7} Root");
        root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer = rcgen::CertifiedIssuer::self_signed(root, rcgen::KeyPair::generate().unwrap()).unwrap();
        let mut leaf = rcgen::CertificateParams::new(["api.example".to_owned()]).unwrap();
        leaf.not_after = rcgen::date_time_ymd(2027, 1, 31);
        let leaf = leaf.signed_by(&rcgen::KeyPair::generate().unwrap(), &issuer).unwrap();
        // 2027-01-31T00:00:00Z
        let end = UNIX_EPOCH + Duration::from_secs(1_801_353_600);
        let at = |days: u64| told(leaf.der(), end - Duration::from_secs(days * 24 * 60 * 60)).unwrap();
        assert_eq!(at(30).words, "issued by Demo Root, good until 2027-01-31 (30 days)");
        assert_eq!([30, 14, 13, 0].map(|days| at(days).ends_soon), [false, false, true, true]);
        assert_eq!(told(b"\x30\x03\x02\x01\x01", end), None);
    }
}
