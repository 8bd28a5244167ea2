//! Lists of revoked certificates with anything in them.
//!
//! In: a file's bytes as PEM; what does not begin like PEM is taken for one list in DER. Out: nothing; a broken
//! promise is a panic. Asserted: there is somebody who decides about callers' certificates, or the lists are to
//! blame; what is told of them is short, printable and holds no key; lists may take their own place; and whatever
//! they hold, a caller that every list of its authority revokes is refused, and another one is let in only where
//! nothing was told.
#![allow(clippy::expect_used, clippy::panic, reason = "a broken promise is to end the process")]

use std::borrow::Cow;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::{CertificateDer, UnixTime};

use super::{Unusable, certificates, verifier};
use crate::wire::mask;

/// An authority, whose key is gone, a caller of it, and one that it has revoked in every list it ever made. They are
/// good for ever.
const AUTHORITY: &[u8] = include_bytes!("fuzzing/authority.pem");
const DESK: &[u8] = include_bytes!("fuzzing/desk.pem");
const LOST: &[u8] = include_bytes!("fuzzing/lost.pem");

/// Beginning, present and end of time, in seconds of Unix.
const TIMES: [u64; 4] = [0, 1_700_000_000, 1_800_000_000, 253_402_300_799];

struct Callers {
    desk: CertificateDer<'static>,
    lost: CertificateDer<'static>,
}

/// Reads the lists.
pub fn crl(data: &[u8]) {
    thread_local! {
        static CALLERS: Callers = Callers { desk: one(DESK), lost: one(LOST) };
    }
    let pem = if data.starts_with(b"-----") || data.is_empty() { Cow::Borrowed(data) } else { in_pem(data).into() };
    let (verifier, lists) = match verifier(AUTHORITY, Some(&pem)) {
        Ok((verifier, lists)) => (verifier, lists.expect("there were some")),
        Err(unusable) => return assert_eq!(unusable, Unusable::ClientCrl),
    };
    // Of its own age is not older.
    let older = lists.older_than(&lists);
    assert!(older.len() < 2 || older.iter().all(|(words, _)| mask::value(words.as_bytes()).is_none()), "{older:?}");
    CALLERS.with(|callers| {
        for seconds in TIMES.map(Duration::from_secs) {
            let told = lists.warnings(UNIX_EPOCH + seconds);
            for (words, _) in &told {
                let plain = words.len() <= 512 && !words.contains(char::is_control);
                assert!(plain && mask::value(words.as_bytes()).is_none(), "{words:?}");
            }
            let now = UnixTime::since_unix_epoch(seconds);
            let passes = |caller: &CertificateDer<'_>| verifier.verify_client_cert(caller, &[], now).is_ok();
            assert!(!passes(&callers.lost), "a revoked certificate counts");
            assert!(
                !passes(&callers.desk) || !told.iter().any(|(words, _)| words.contains("fuzzed authority")),
                "{told:?}"
            );
        }
    });
}

fn one(pem: &[u8]) -> CertificateDer<'static> {
    certificates(pem).and_then(|all| all.into_iter().next()).expect("a good certificate")
}

fn in_pem(der: &[u8]) -> Vec<u8> {
    format!("-----BEGIN X509 CRL-----\n{}\n-----END X509 CRL-----\n", STANDARD.encode(der)).into_bytes()
}
