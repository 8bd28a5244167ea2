//! The section `callers`: who may use the proxy, and for what.
//!
//! In: names, digests of tokens, certificates' names, users, properties, methods and paths as they are typed. Out:
//! [`Caller`]s. A caller that nothing could be known by, and a word that could never match a request, are faults: both
//! would be a door that looks open and is shut.

use std::collections::HashSet;
use std::hash::Hash;

use http::Method;

use super::check::Check;
use super::{Caller, Listener, raw};
use crate::address::Address;
use crate::property::NotAPropertyId;
use crate::secret::TokenDigest;
use crate::tls::NotACertificateName;

/// The methods that are ever forwarded.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// What Linux shows instead of a user that has no number in one's own user namespace.
const OVERFLOW_UID: u32 = 65_534;

/// What callers are known by, of one kind. There may be tens of thousands, so none is compared with all others.
struct Taken<T>(HashSet<T>);

impl<T: Clone + Eq + Hash> Taken<T> {
    fn new() -> Self {
        Self(HashSet::new())
    }

    /// Adds a caller's, and says whether a caller before it has one of them.
    fn by_another(&mut self, own: &[T]) -> bool {
        let taken = own.iter().any(|one| self.0.contains(one));
        self.0.extend(own.iter().cloned());
        taken
    }
}

impl Check<'_, '_> {
    /// Nothing when there is a fault.
    pub(super) fn callers(&mut self, raw: &raw::Raw, listeners: &[Listener]) -> Option<Vec<Caller>> {
        let (mut callers, mut whole) = (Vec::new(), true);
        let (mut tokens, mut certificates, mut uids) = (Taken::new(), Taken::new(), Taken::new());
        for (name, typed) in &raw.callers.0 {
            let Some(caller) = self.caller(name, typed) else {
                whole = false;
                continue;
            };
            if !caller.certificates.is_empty() && raw.tls.client_ca_file.is_none() {
                let hint = "name who issues them as tls.client_ca_file";
                self.caller_fault(name, "certificates", "no listener asks for certificates", hint);
            }
            let unix = |listener: &Listener| matches!(listener.address, Address::Unix(_));
            if !caller.uids.is_empty() && !listeners.iter().any(unix) {
                self.caller_fault(name, "uids", "there is no unix socket to tell them by", "add one to `listen:`");
            }
            if tokens.by_another(&caller.tokens) {
                self.caller_fault(name, "token_sha256", "another caller has the same token", "make one of its own");
            }
            if certificates.by_another(&caller.certificates) {
                self.caller_fault(name, "certificates", "another caller has the same name", "each has its own");
            }
            if uids.by_another(&caller.uids) {
                self.caller_fault(name, "uids", "another caller has the same user", "each has its own");
            }
            callers.push(caller);
        }
        whole.then_some(callers)
    }

    fn caller(&mut self, name: &str, typed: &raw::Caller) -> Option<Caller> {
        self.entry_name("callers", name)?;
        let hint = "printf %s \"$TOKEN\" | sha256sum prints it";
        if typed.token_sha256.is_empty()
            && typed.tokens_file.is_none()
            && typed.certificates.is_empty()
            && typed.uids.is_empty()
        {
            let hint = "name token_sha256, tokens_file, certificates or uids";
            self.caller_fault(name, "token_sha256", "expected something the caller is known by", hint);
        }
        let certificates = typed.certificates.iter().map(|name| name.parse()).collect::<Result<Vec<_>, _>>();
        if let Err(error) = &certificates {
            let error: &NotACertificateName = error;
            self.caller_fault(
                name,
                "certificates",
                &error.to_string(),
                "as `openssl x509 -noout -subject -ext subjectAltName` shows it",
            );
        }
        if typed.uids.contains(&OVERFLOW_UID) {
            let message = "65534 stands for every user that this container does not know";
            self.caller_fault(name, "uids", message, "let the application run as a user of its own");
        }
        let tokens = typed.token_sha256.iter().map(|digest| digest.parse()).collect::<Result<Vec<_>, _>>();
        if tokens.is_err() {
            self.caller_fault(name, "token_sha256", "expected 64 hexadecimal digits for each token", hint);
        }
        if tokens.as_ref().is_ok_and(|tokens: &Vec<TokenDigest>| tokens.iter().any(TokenDigest::is_of_nothing)) {
            self.caller_fault(name, "token_sha256", "is the digest of nothing: TOKEN was not set", hint);
        }
        let ids = typed.properties.as_ref().map(|ids| ids.iter().map(|id| id.0.parse()).collect::<Result<_, _>>());
        let properties = ids.transpose();
        if let Err(NotAPropertyId) = &properties {
            self.caller_fault(name, "properties", "expected property ids", "without the option it may use them all");
        }
        for (option, empty) in [
            ("properties", typed.properties.as_ref().is_some_and(Vec::is_empty)),
            ("methods", typed.methods.as_ref().is_some_and(Vec::is_empty)),
            ("paths", typed.paths.as_ref().is_some_and(Vec::is_empty)),
        ] {
            if empty {
                self.caller_fault(name, option, "allows nothing", "without the option everything is allowed");
            }
        }
        let methods = typed.methods.iter().flatten();
        if methods.clone().any(|method| !METHODS.contains(&method.as_str())) {
            let hint = format!("there are {}", METHODS.join(", "));
            self.caller_fault(name, "methods", "names a method that is never forwarded", &hint);
        }
        let odd = |text: &String| !text.starts_with('/') || text.contains(['%', '?', '#', ' ', '*']);
        if typed.paths.iter().flatten().any(odd) {
            let hint = "a path stands for itself and all below it";
            self.caller_fault(name, "paths", "expected paths such as /api/v1.3/getRooms, not encoded", hint);
        }
        let tokens_file = match typed.tokens_file.as_deref() {
            Some("") => {
                self.caller_fault(name, "tokens_file", "expected the path of a file", "");
                None
            }
            file => file.map(|file| self.base_dir.join(file)),
        };
        Some(Caller {
            name: name.to_owned(),
            tokens: tokens.ok()?,
            tokens_file,
            certificates: certificates.ok()?,
            uids: typed.uids.clone(),
            properties: properties.ok()?,
            methods: typed.methods.as_ref().map(|_| methods.filter_map(|name| name.parse::<Method>().ok()).collect()),
            paths: typed.paths.clone(),
        })
    }

    fn caller_fault(&mut self, caller: &str, option: &str, message: &str, hint: &str) {
        self.entry_fault("callers", caller, option, message, hint);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::hash::Hasher;

    use super::*;

    thread_local! {
        static COMPARED: Cell<usize> = const { Cell::new(0) };
    }

    #[derive(Clone, Copy, Eq)]
    struct Counted(usize);

    impl PartialEq for Counted {
        fn eq(&self, other: &Self) -> bool {
            COMPARED.set(COMPARED.get() + 1);
            self.0 == other.0
        }
    }

    impl Hash for Counted {
        fn hash<H: Hasher>(&self, state: &mut H) {
            self.0.hash(state);
        }
    }

    #[test]
    fn ten_thousand_callers_are_not_each_compared_with_all_others() {
        let mut taken = Taken::new();
        for number in 0..10_000 {
            assert!(!taken.by_another(&[Counted(2 * number), Counted(2 * number + 1)]), "{number}");
        }
        assert!(!taken.by_another(&[Counted(20_000), Counted(20_000)]), "its own, twice");
        assert!(taken.by_another(&[Counted(20_001), Counted(7)]));
        assert!(COMPARED.get() < 200_000, "{} comparisons", COMPARED.get());
    }
}
