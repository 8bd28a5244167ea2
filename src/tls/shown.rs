//! A certificate that a caller has shown, and whether it still counts.
//!
//! In: the chain of a connection, and the settings its handshake was made with. Out: yes or no, asked before each of its
//! requests. A connection can outlive what it rests on: its certificate, the trust in its issuer, the list that does not
//! revoke it. The answer is found anew where the settings were replaced, and once a minute; else it costs a comparison.

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
    verified_by: RefCell<Arc<Settings>>,
    verified_at: Cell<u64>,
    counts: Cell<bool>,
}

impl Shown {
    /// Verified just now, by these settings.
    pub(super) fn new(
        acceptor: &Acceptor,
        verified_by: Arc<Settings>,
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
        if !holds || !Arc::ptr_eq(&self.verified_by.borrow(), &in_force) {
            self.counts.set(self.passes(&in_force, now));
            self.verified_by.replace(Arc::clone(&in_force));
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

    use super::super::{Pem, settings};
    use super::*;

    /// 2030-01-01, when the certificate ends.
    const END: u64 = 1_893_456_000;

    #[test]
    fn a_certificate_that_ends_counts_no_longer_than_a_minute_more() {
        let mut root = CertificateParams::default();
        root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let root = CertifiedIssuer::self_signed(root, KeyPair::generate().unwrap()).unwrap();
        let mut leaf = CertificateParams::new(["desk".to_owned()]).unwrap();
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        leaf.not_after = rcgen::date_time_ymd(2030, 1, 1);
        let leaf = leaf.signed_by(&KeyPair::generate().unwrap(), &root).unwrap();
        let key = KeyPair::generate().unwrap();
        let server = CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap().pem();
        let (key, root) = (key.serialize_pem(), root.pem());
        let made = || {
            let (certificate, key) = (server.as_bytes(), key.as_bytes());
            settings(Pem { certificate, key, client_ca: Some(root.as_bytes()), client_crl: None }, true).unwrap()
        };
        let acceptor = Acceptor::new(made());
        let at = |second: u64| UnixTime::since_unix_epoch(Duration::from_secs(second));
        let shown = Shown::new(&acceptor, acceptor.0.load_full(), &[leaf.der().clone()], at(END - 30));
        assert!(shown.counts_at(at(END - 30)) && shown.counts_at(at(END + 29)));
        assert!(!shown.counts_at(at(END + 30)) && !shown.counts_at(at(END + 1000)));
        // The clock was wrong.
        assert!(shown.counts_at(at(END - 30)));
        // New settings ask at once.
        acceptor.replace(made());
        assert!(!shown.counts_at(at(END + 1)));
    }
}
