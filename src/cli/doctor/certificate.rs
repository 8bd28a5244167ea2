//! `doctor` on a certificate that Cloudbeds or the listener shows, and on lists of revoked ones: who issued them, and until
//! when they are good.
//!
//! In: one that has been read already. Out: a sentence, and whether it is about to expire. It decides about no connection.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use x509_parser::prelude::{CertificateRevocationList, FromDer as _, X509Certificate};

use crate::tls::called;

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
    let name = called(certificate.issuer());
    let end = certificate.validity().not_after;
    let left = u64::try_from(end.timestamp()).unwrap_or(0);
    let left = (UNIX_EPOCH + Duration::from_secs(left)).duration_since(now).unwrap_or_default();
    let (date, days) = (end.to_datetime().date(), left.as_secs() / (24 * 60 * 60));
    Some(Told { words: format!("issued by {name}, good until {date} ({days} days)"), ends_soon: left < SOON })
}

/// Reads a list of revoked certificates: how many it holds, whose it is, and until when it counts.
pub(super) fn list(der: &[u8]) -> Option<String> {
    let (_, list) = CertificateRevocationList::from_der(der).ok()?;
    let (name, count) = (called(list.issuer()), list.iter_revoked_certificates().count());
    let end = list.next_update().map(|end| format!("good until {}", end.to_datetime().date()));
    let end = end.unwrap_or_else(|| "without an end".to_owned());
    Some(format!("{count} certificates revoked by {name}, {end}"))
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
