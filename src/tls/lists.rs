//! Lists of revoked certificates: whose each one is, from when it is, and until when it counts.
//!
//! In: the lists of one file, and the authorities that callers' certificates end at. Out: whether they can be used
//! together, and sentences about those that let nobody in or know less than others did. rustls decides about certificates,
//! and verifies who signed a list; nothing here lets anybody in or keeps anybody out.

use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::oid_registry::OID_X509_EXT_ISSUER_DISTRIBUTION_POINT;
use x509_parser::prelude::{
    ASN1Time, CertificateRevocationList, FromDer as _, ParsedExtension, X509Certificate, X509Extension, X509Name,
};

use crate::wire::mask;

/// The lists of a file, and those who should have one there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lists {
    lists: Vec<List>,
    authorities: Vec<Issuer>,
}

/// Who issues certificates, or lists of them.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Issuer {
    subject: Vec<u8>,
    /// Which of its keys; it may have had others, and somebody else the same name.
    key: Option<Vec<u8>>,
    called: String,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct List {
    issuer: Issuer,
    /// Of which of its certificates, where it has several lists.
    part: Option<Vec<u8>>,
    since: ASN1Time,
    until: Option<ASN1Time>,
}

impl Lists {
    /// Reads them; nothing where one is malformed, or where two speak of the same certificates: rustls looks into the
    /// first of them alone, which may be the older one. Lists of one issuer may be parts of one (RFC 5280 5.2.5).
    pub(super) fn read(lists: &[CertificateRevocationListDer<'_>], authorities: &[CertificateDer<'_>]) -> Option<Self> {
        let lists = lists.iter().map(|list| List::read(list)).collect::<Option<Vec<_>>>()?;
        let alone = |(at, list): (usize, &List)| !lists[..at].iter().any(|before| before.is_about_the_same(list));
        let different = lists.iter().enumerate().all(alone);
        let authorities = authorities.iter().filter_map(|authority| Issuer::read(authority)).collect();
        different.then_some(Self { lists, authorities })
    }

    /// What keeps callers out whose certificates are in order, each with what to do about it.
    #[must_use]
    pub fn warnings(&self, now: SystemTime) -> Vec<(String, &'static str)> {
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        let missing = self.authorities.iter().filter(|authority| !self.has(authority)).map(|authority| {
            let words = format!("holds no list of {}: nobody with a certificate of it is let in", authority.called);
            (words, "put its list there as well")
        });
        let late = self.lists.iter().filter_map(|list| {
            let until = list.until.filter(|until| until.timestamp() <= now)?;
            let (called, date) = (&list.issuer.called, until.to_datetime().date());
            let words = format!(
                "holds a list of {called} that was good until {date}: nobody with a certificate of it is let in"
            );
            Some((words, "put its next one there"))
        });
        missing.chain(late).collect()
    }

    /// Lists in here that are older than those before them: whoever was revoked in between is let in again. What to do
    /// about it stands with each. They count all the same, since the file is the operator's word, and to keep what was before
    /// would be to leave out what is new beside it: other issuers' lists, the removal of an issuer, another certificate.
    #[must_use]
    pub fn older_than(&self, before: &Self) -> Vec<(String, &'static str)> {
        let older = |old: &List| {
            let same = |new: &&List| new.issuer.subject == old.issuer.subject;
            let new = self.lists.iter().filter(same).map(|new| new.since).min().filter(|since| *since < old.since)?;
            let [new, since] = [new, old.since].map(|since| since.to_datetime());
            let words = format!(
                "holds a list that {} made on {new}, older than the one before, of {since}: what was revoked since counts \
                 no longer",
                old.issuer.called
            );
            Some((words, "put the newest one there"))
        };
        before.lists.iter().filter_map(older).collect()
    }

    fn has(&self, authority: &Issuer) -> bool {
        self.lists.iter().any(|list| list.issuer.may_be(authority))
    }
}

impl List {
    fn read(der: &[u8]) -> Option<Self> {
        let (_, list) = CertificateRevocationList::from_der(der).ok()?;
        let (mut key, mut part) = (None, None);
        for extension in list.extensions() {
            if extension.oid == OID_X509_EXT_ISSUER_DISTRIBUTION_POINT {
                part = Some(extension.value.to_vec());
            }
            if let ParsedExtension::AuthorityKeyIdentifier(id) = extension.parsed_extension() {
                key = id.key_identifier.as_ref().map(|id| id.0.to_vec());
            }
        }
        let issuer = Issuer { subject: list.issuer().as_raw().to_vec(), key, called: called(list.issuer()) };
        Some(Self { issuer, part, since: list.last_update(), until: list.next_update() })
    }

    fn is_about_the_same(&self, other: &Self) -> bool {
        self.issuer.subject == other.issuer.subject && self.part == other.part
    }
}

impl Issuer {
    fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let id = |extension: &X509Extension<'_>| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        };
        let key = certificate.extensions().iter().find_map(id);
        let subject = certificate.subject();
        Some(Self { subject: subject.as_raw().to_vec(), key, called: called(subject) })
    }

    fn may_be(&self, other: &Self) -> bool {
        let same_key = self.key.as_ref().zip(other.key.as_ref()).is_none_or(|(one, other)| one == other);
        self.subject == other.subject && same_key
    }
}

/// What somebody is called, for a person.
#[must_use]
pub fn called(name: &X509Name<'_>) -> String {
    let name = name.iter_common_name().chain(name.iter_organization()).find_map(|name| name.as_str().ok());
    let plain: String = name.unwrap_or("somebody without a name").chars().filter(|c| !c.is_control()).collect();
    mask::text(&plain).chars().take(64).collect()
}
