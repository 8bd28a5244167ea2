//! The section `callers`: who may use the proxy, and for what.
//!
//! In: names, digests of tokens, properties, methods and paths as they are typed. Out: [`Caller`]s. A caller without a
//! token, and a word that could never match a request, are faults: both would be a door that looks open and is shut.

use http::Method;

use super::check::Check;
use super::{Caller, raw};
use crate::property::NotAPropertyId;
use crate::secret::TokenDigest;

/// The methods that are ever forwarded.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

impl Check<'_, '_> {
    /// Nothing when there is a fault.
    pub(super) fn callers(&mut self, typed: &raw::Callers) -> Option<Vec<Caller>> {
        let (mut callers, mut whole) = (Vec::<Caller>::new(), true);
        for (name, typed) in &typed.0 {
            let Some(caller) = self.caller(name, typed) else {
                whole = false;
                continue;
            };
            let taken = |other: &Caller| other.tokens.iter().any(|token| caller.tokens.contains(token));
            if callers.iter().any(taken) {
                self.caller_fault(name, "token_sha256", "another caller has the same token", "make one of its own");
            }
            callers.push(caller);
        }
        whole.then_some(callers)
    }

    fn caller(&mut self, name: &str, typed: &raw::Caller) -> Option<Caller> {
        self.entry_name("callers", name)?;
        let hint = "printf %s \"$TOKEN\" | sha256sum prints it";
        if typed.token_sha256.is_empty() {
            self.caller_fault(name, "token_sha256", "expected the digests of the caller's tokens", hint);
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
        Some(Caller {
            name: name.to_owned(),
            tokens: tokens.ok()?,
            properties: properties.ok()?,
            methods: typed.methods.as_ref().map(|_| methods.filter_map(|name| name.parse::<Method>().ok()).collect()),
            paths: typed.paths.clone(),
        })
    }

    fn caller_fault(&mut self, caller: &str, option: &str, message: &str, hint: &str) {
        self.entry_fault("callers", caller, option, message, hint);
    }
}
