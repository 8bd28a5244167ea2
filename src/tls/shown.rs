//! A certificate that a caller has shown, and whether it still counts.
//!
//! In: the chain of a connection, and the settings its handshake was made with. Out: yes or no, asked before each of its
//! requests. A connection can outlive what it rests on: a list that revokes its certificate, or the trust in its issuer.
//! Only settings that were replaced are looked at anew, so that the question costs a comparison.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, UnixTime};

use super::{Acceptor, Settings};

/// What a caller has shown, of one connection.
pub struct Shown {
    acceptor: Acceptor,
    chain: Vec<CertificateDer<'static>>,
    verified_by: RefCell<Arc<Settings>>,
    counts: Cell<bool>,
}

impl Shown {
    pub(super) fn new(acceptor: &Acceptor, verified_by: Arc<Settings>, chain: &[CertificateDer<'_>]) -> Self {
        let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        let (verified_by, counts) = (RefCell::new(verified_by), Cell::new(true));
        Self { acceptor: acceptor.clone(), chain, verified_by, counts }
    }

    /// Whether a handshake with it would succeed by the settings in force.
    pub fn counts(&self) -> bool {
        let in_force = self.acceptor.0.load();
        if !Arc::ptr_eq(&self.verified_by.borrow(), &in_force) {
            self.counts.set(self.passes(&in_force));
            self.verified_by.replace(Arc::clone(&in_force));
        }
        self.counts.get()
    }

    fn passes(&self, settings: &Settings) -> bool {
        let (Some(verifier), Some((first, rest))) = (&settings.verifier, self.chain.split_first()) else { return true };
        let verified = verifier.verify_client_cert(first, rest, UnixTime::now());
        if let Err(error) = &verified {
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
