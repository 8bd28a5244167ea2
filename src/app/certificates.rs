//! The certificate of the proxy's listener, and its replacement while it runs.
//!
//! In: paths. Out: settings for handshakes, or faults that name the file; later, other settings whenever the content of
//! a file has changed. Content that cannot be used leaves the last good settings where they are. The private key is held
//! to the rules of a key file: nobody but its owner and one group may read it.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio::time::interval;
use zeroize::Zeroizing;

use super::watching::{self, Renewed, Words};
use crate::config::Tls;
use crate::fault::Fault;
use crate::keys;
use crate::telemetry::metrics::Metrics;
use crate::tls::{self, Acceptor, Pem, Settings, Unusable};

/// The largest file read, in bytes: a bundle of all public authorities is a quarter of it.
const FILE_MAX: u64 = 1 << 20;

/// The largest file of revocation lists: a hundred thousand revoked certificates take 4 MiB.
const LISTS_MAX: u64 = 16 << 20;

const WORDS: Words = Words {
    kept: "the listener keeps its certificate and all that belongs to it, what is new cannot be used",
    again: "the files of the listener's certificate hold the one in force again",
};

/// What the files hold at one moment.
pub struct Files {
    /// The certificate's file.
    pub certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
    client_ca: Option<Vec<u8>>,
    /// The lists of revoked certificates.
    pub client_crl: Option<Vec<u8>>,
}

impl Files {
    /// Reads them all.
    ///
    /// # Errors
    /// Everything that keeps one from being read.
    pub fn read(tls: &Tls) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let mut kept =
            |read: Result<Vec<u8>, Vec<Fault>>| read.map_err(|wrong| faults.extend(wrong)).unwrap_or_default();
        let certificate = kept(public(&tls.certificate_file, "tls.certificate_file"));
        let client_ca = tls.client_ca_file.as_deref().map(|path| kept(public(path, "tls.client_ca_file")));
        let client_crl =
            tls.client_crl_file.as_deref().map(|path| kept(public_up_to(LISTS_MAX, path, "tls.client_crl_file")));
        let key = keys::private_file(&tls.key_file, "tls.key_file").map_err(|wrong| faults.extend(wrong));
        match key {
            Ok(key) if faults.is_empty() => Ok(Self { certificate, key, client_ca, client_crl }),
            _ => Err(faults),
        }
    }

    /// Settings for handshakes with them.
    ///
    /// # Errors
    /// The file that cannot be used.
    pub fn settings(&self, tls: &Tls) -> Result<Settings, Vec<Fault>> {
        let pem = Pem {
            certificate: &self.certificate,
            key: &self.key,
            client_ca: self.client_ca.as_deref(),
            client_crl: self.client_crl.as_deref(),
        };
        tls::settings(pem, tls.http2).map_err(|unusable| {
            let hint = match unusable {
                Unusable::Pair => "put the two that were made together beside each other",
                _ => "put the right file there, or correct the option",
            };
            let (path, option) = match unusable {
                Unusable::Certificate => (&tls.certificate_file, "tls.certificate_file"),
                Unusable::Key | Unusable::Pair => (&tls.key_file, "tls.key_file"),
                Unusable::ClientCa => (tls.client_ca_file.as_ref().unwrap_or(&tls.key_file), "tls.client_ca_file"),
                Unusable::ClientCrl => return vec![of_lists(tls, unusable.to_string(), hint)],
            };
            vec![Fault::new(path.display().to_string(), unusable.to_string(), hint).about(option)]
        })
    }
}

/// What is wrong with the lists of revoked certificates.
fn of_lists(tls: &Tls, message: String, hint: &str) -> Fault {
    let path = tls.client_crl_file.as_ref().unwrap_or(&tls.key_file);
    Fault::new(path.display().to_string(), message, hint).about("tls.client_crl_file")
}

/// What keeps callers out although it can be used.
pub fn warnings(tls: &Tls, settings: &Settings, now: SystemTime) -> Vec<Fault> {
    let warnings = settings.lists().map(|lists| lists.warnings(now)).unwrap_or_default();
    warnings.into_iter().map(|(message, hint)| of_lists(tls, message, hint)).collect()
}

/// A file that anybody may read.
pub(super) fn public(path: &Path, option: &str) -> Result<Vec<u8>, Vec<Fault>> {
    public_up_to(FILE_MAX, path, option)
}

/// The same up to so many bytes.
fn public_up_to(most: u64, path: &Path, option: &str) -> Result<Vec<u8>, Vec<Fault>> {
    let fault = |message: String| {
        let hint = "put the file there, or correct the option";
        vec![Fault::new(path.display().to_string(), message, hint).about(option)]
    };
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(most + 1).read_to_end(&mut bytes)).map_err(|error| {
        match error.kind() {
            std::io::ErrorKind::NotFound => fault("is not there".to_owned()),
            _ => fault(format!("cannot be read: {error}")),
        }
    })?;
    if bytes.len() as u64 > most {
        return Err(fault(format!("is larger than {} MiB, which no such file is", most >> 20)));
    }
    Ok(bytes)
}

/// A listener's certificate in force.
pub(super) struct Certificates {
    tls: Tls,
    acceptor: Acceptor,
    hashes: RandomState,
    in_force: Parts,
}

impl Certificates {
    /// The first ones.
    pub(super) fn load(tls: &Tls) -> Result<Self, Vec<Fault>> {
        let files = Files::read(tls)?;
        let (acceptor, hashes) = (Acceptor::new(files.settings(tls)?), RandomState::new());
        let in_force = Parts::of(&files, &hashes);
        Ok(Self { tls: tls.clone(), acceptor, hashes, in_force })
    }

    /// Takes part in handshakes with those in force.
    pub(super) fn acceptor(&self) -> Acceptor {
        self.acceptor.clone()
    }

    /// What keeps callers out by those in force.
    pub(super) fn warnings(&self) -> Vec<Fault> {
        warnings(&self.tls, &self.acceptor.in_force(), SystemTime::now())
    }

    /// Looks at the files every `poll` and whenever `look_now` says so, until dropped.
    pub(super) async fn watch(self, poll: Duration, look_now: Arc<Notify>, metrics: Metrics) {
        let Self { tls, acceptor, hashes, mut in_force } = self;
        let number = hashes.hash_one(&in_force);
        let read = {
            let (tls, hashes) = (tls.clone(), hashes.clone());
            move || {
                let files = Files::read(&tls)?;
                let number = hashes.hash_one(Parts::of(&files, &hashes));
                Ok((files, number))
            }
        };
        let counted = |warnings: Vec<Fault>| {
            metrics.control().set_revocation_lists_due(warnings.len());
            warnings
        };
        let accept = |files: Files| {
            let settings = files.settings(&tls)?;
            let mut but = counted(warnings(&tls, &settings, SystemTime::now()));
            if let (Some(new), Some(old)) = (settings.lists(), acceptor.in_force().lists()) {
                but.extend(new.older_than(old).into_iter().map(|(message, hint)| of_lists(&tls, message, hint)));
            }
            acceptor.replace(settings);
            let before = std::mem::replace(&mut in_force, Parts::of(&files, &hashes));
            Ok(Renewed { words: in_force.other_than(&before), but })
        };
        let watching = watching::watch((poll, look_now), WORDS, number, read, accept);
        // A list also goes out of date while nothing changes.
        let ageing = async {
            let (mut ticks, mut before) = (interval(poll), SystemTime::now());
            loop {
                ticks.tick().await;
                let (now, settings) = (SystemTime::now(), acceptor.in_force());
                let told = warnings(&tls, &settings, before);
                let due = counted(warnings(&tls, &settings, now));
                due.iter().filter(|fault| !told.contains(fault)).for_each(|fault| tracing::warn!("{fault}"));
                before = now;
            }
        };
        tokio::join!(watching, ageing);
    }
}

/// What the log tells apart of the files, by hashes of it.
#[derive(Eq, Hash, PartialEq)]
struct Parts {
    certificate: u64,
    client_ca: u64,
    client_crl: u64,
}

impl Parts {
    fn of(files: &Files, hashes: &RandomState) -> Self {
        Self {
            certificate: hashes.hash_one((&files.certificate, &*files.key)),
            client_ca: hashes.hash_one(&files.client_ca),
            client_crl: hashes.hash_one(&files.client_crl),
        }
    }

    /// What is new since those before.
    fn other_than(&self, before: &Self) -> String {
        let new: Vec<_> = [
            (self.certificate != before.certificate, "a new certificate"),
            (self.client_ca != before.client_ca, "other issuers of callers' certificates"),
            (self.client_crl != before.client_crl, "new revocation lists"),
        ]
        .into_iter()
        .filter_map(|(is, words)| is.then_some(words))
        .collect();
        format!("the listener has {}", new.join(" and "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_files_those_that_are_new_are_named() {
        let hashes = RandomState::new();
        let parts = |certificate: &str, ca: &str, crl: &str| {
            let bytes = |text: &str| text.as_bytes().to_vec();
            let (client_ca, client_crl) = (Some(bytes(ca)), Some(bytes(crl)));
            let key = Zeroizing::new(bytes("key"));
            Parts::of(&Files { certificate: bytes(certificate), key, client_ca, client_crl }, &hashes)
        };
        let before = parts("one", "one", "one");
        for (now, words) in [
            (parts("two", "one", "one"), "the listener has a new certificate"),
            (parts("one", "one", "two"), "the listener has new revocation lists"),
            (
                parts("one", "two", "two"),
                "the listener has other issuers of callers' certificates and new revocation lists",
            ),
        ] {
            assert_eq!(now.other_than(&before), words);
        }
    }
}
