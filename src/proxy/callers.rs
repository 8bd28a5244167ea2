//! Who asks, and what they may ask for.
//!
//! In: the token a request shows. Out: the caller it belongs to, whose properties, methods and paths are checked once
//! the request's are known. Tokens are held as digests and looked up by digest, so neither memory nor time tells one.
//! Every refusal is told to the operator with the caller's name; the token is told to nobody.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use http::{HeaderMap, HeaderName, Method};

use super::authorize::is_below;
use super::error::ProxyError;
use super::identify::Subject;
use crate::property::PropertyId;
use crate::secret::TokenDigest;
use crate::wire::field::is_twin;

/// The header that shows a caller's token. Like all of ours it stays here.
pub const X_PROXY_TOKEN: HeaderName = HeaderName::from_static("x-proxy-token");

/// What one caller may do.
#[derive(Debug)]
pub struct Caller {
    /// Its name in the configuration.
    pub name: Box<str>,
    /// The hotels it may ask about; nothing means all.
    pub properties: Option<HashSet<PropertyId>>,
    /// The methods it may use; nothing means all that are forwarded.
    pub methods: Option<Vec<Method>>,
    /// The paths it may use, and what is below them; nothing means all.
    pub paths: Option<Vec<Box<str>>>,
}

/// Who asks: one of the callers, or whoever reaches the listener where none are named. Only [`super::authorize::Policy`] makes one.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a>(pub(super) Option<&'a Caller>);

/// All callers there are.
#[derive(Clone, Debug)]
pub struct Callers(Arc<HashMap<TokenDigest, Arc<Caller>>>);

impl Callers {
    /// Each caller with its tokens; where two name the same token the later one has it.
    #[must_use]
    pub fn new(callers: impl IntoIterator<Item = (Caller, Vec<TokenDigest>)>) -> Self {
        let mut all = HashMap::new();
        for (caller, tokens) in callers {
            let caller = Arc::new(caller);
            all.extend(tokens.into_iter().map(|token| (token, Arc::clone(&caller))));
        }
        Self(Arc::new(all))
    }

    /// The caller whose token the request shows, in exactly one line.
    pub(super) fn who(&self, headers: &HeaderMap) -> Result<&Caller, ProxyError> {
        let mut lines = headers.get_all(X_PROXY_TOKEN).iter();
        let why = match (lines.next(), lines.next()) {
            _ if headers.keys().any(|name| is_twin(name.as_str(), X_PROXY_TOKEN.as_str())) => "an underscore twin",
            (None, _) => "no token",
            (Some(_), Some(_)) => "more than one token",
            (Some(token), None) => match TokenDigest::of(token.as_bytes()).and_then(|digest| self.0.get(&digest)) {
                Some(caller) => return Ok(caller),
                None => "a token that nobody has",
            },
        };
        tracing::warn!(reason = why, "a request was refused: its caller is not known");
        Err(ProxyError::CallerUnknown(why))
    }
}

impl Caller {
    /// Whether it may send this request. `path` is decoded.
    pub(super) fn may(&self, method: &Method, path: &[u8], subject: &Subject) -> Result<(), ProxyError> {
        let why = if !self.properties.as_ref().is_none_or(|own| subject.is_within(own)) {
            "property"
        } else if !self.methods.as_ref().is_none_or(|own| own.contains(method)) {
            "method"
        } else if !self.paths.as_ref().is_none_or(|own| own.iter().any(|prefix| is_below(path, prefix.as_bytes()))) {
            "path"
        } else {
            return Ok(());
        };
        let (caller, property) = (&*self.name, subject.first().map(PropertyId::get));
        tracing::warn!(caller, property, reason = why, "a request was refused: its caller may not ask for this");
        Err(ProxyError::CallerRefused { caller: self.name.clone(), why })
    }
}
