//! Who asks, and what they may ask for.
//!
//! In: the token a request shows, or else the certificate or the user its connection came with. Out: the caller it
//! belongs to, whose properties, methods and paths are checked once the request's are known. Tokens are held as digests,
//! so neither memory nor time tells one. Refusals are told to the operator, with the caller's name or the address of
//! somebody unknown, so many at a time of each caller and of all unknown ones; a token is told to nobody.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderName, Method};

use super::Arrival;
use super::authorize::is_below;
use super::error::ProxyError;
use super::identify::{Subject, X_ORGANIZATION_ID};
use crate::listen::{Peer, Stream};
use crate::property::PropertyId;
use crate::secret::TokenDigest;
use crate::telemetry::Sparing;
use crate::tls::CertificateName;
use crate::wire::field::{folded, is_twin};

/// The header that shows a caller's token. Like all of ours it stays here.
pub const X_PROXY_TOKEN: HeaderName = HeaderName::from_static("x-proxy-token");

/// The headers in which frameworks take another method than the request's: Microsoft's, Google's and IBM's.
const METHOD_OVERRIDES: [&str; 3] = ["x-http-method", "x-http-method-override", "x-method-override"];

/// What one caller may do.
#[derive(Debug)]
pub struct Caller {
    /// Its name in the configuration, which lives as long as the process: each request's record has it, and a count of
    /// who holds it would be one thing more that all cores write to.
    pub name: &'static str,
    /// The hotels it may ask about; nothing means all.
    pub properties: Option<HashSet<PropertyId>>,
    /// The methods it may use, and no header that asks for another; nothing means all that are forwarded.
    pub methods: Option<Vec<Method>>,
    /// The paths it may use, and what is below them; nothing means all.
    pub paths: Option<Vec<Box<str>>>,
    /// How often the log has been told that it asked for something else: a caller in a loop must not fill a disk, nor keep
    /// lines about others away.
    pub refused: Sparing,
}

/// Who asks: one of the callers, or whoever reaches the listener where none are named. Only [`super::authorize::Policy`] makes one.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a>(pub(super) Option<&'a Caller>);

impl Known<'_> {
    /// The caller's name, where callers are named.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        self.0.map(|caller| caller.name)
    }
}

/// What a caller is known by.
#[derive(Clone, Debug, Default)]
pub struct KnownBy {
    /// Digests of its tokens.
    pub tokens: Vec<TokenDigest>,
    /// Further ones, which are replaced now and then.
    pub file: Option<TokenSet>,
    /// Names in its certificates.
    pub certificates: Vec<CertificateName>,
    /// The users it runs as.
    pub uids: Vec<u32>,
}

/// Digests of one caller's tokens that are replaced as a whole while requests are served.
#[derive(Clone, Debug)]
pub struct TokenSet(Arc<ArcSwap<HashSet<TokenDigest>>>);

impl TokenSet {
    /// With these, until others replace them.
    #[must_use]
    pub fn new(tokens: HashSet<TokenDigest>) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(tokens)))
    }

    /// Other ones for the requests to come.
    pub fn replace(&self, tokens: HashSet<TokenDigest>) {
        self.0.store(Arc::new(tokens));
    }
}

/// All callers there are.
#[derive(Clone, Debug)]
pub struct Callers(Arc<All>);

#[derive(Debug, Default)]
struct All {
    tokens: HashMap<TokenDigest, Arc<Caller>>,
    files: Vec<(TokenSet, Arc<Caller>)>,
    certificates: HashMap<CertificateName, Arc<Caller>>,
    uids: HashMap<u32, Arc<Caller>>,
    unknown: Sparing,
}

impl Callers {
    /// Each caller with what it is known by; where two name the same the later one has it.
    #[must_use]
    pub fn new(callers: impl IntoIterator<Item = (Caller, KnownBy)>) -> Self {
        let mut all = All::default();
        for (caller, by) in callers {
            let caller = Arc::new(caller);
            all.tokens.extend(by.tokens.into_iter().map(|token| (token, Arc::clone(&caller))));
            all.files.extend(by.file.map(|set| (set, Arc::clone(&caller))));
            all.certificates.extend(by.certificates.into_iter().map(|name| (name, Arc::clone(&caller))));
            all.uids.extend(by.uids.into_iter().map(|uid| (uid, Arc::clone(&caller))));
        }
        Self(Arc::new(all))
    }

    /// The caller whose user connected to this unix socket.
    pub(super) fn connected(&self, stream: &Stream) -> Option<Arc<Caller>> {
        if self.0.uids.is_empty() {
            return None;
        }
        match stream.peer() {
            Some(Peer::User(uid)) => self.0.uids.get(&uid).cloned(),
            _ => None,
        }
    }

    /// The one caller to whom a certificate with these names belongs. One that several could claim is nobody's.
    pub(super) fn certified(&self, names: &[CertificateName]) -> Option<Arc<Caller>> {
        let mut found = names.iter().filter_map(|name| self.0.certificates.get(name));
        let first = found.next()?;
        found.all(|other| Arc::ptr_eq(first, other)).then(|| Arc::clone(first))
    }

    /// The caller whose token the request shows, in exactly one line; where it shows none, the one that the connection
    /// is known to come from. A wrong token is refused whatever the connection is.
    pub(super) fn who<'a>(
        &'a self,
        headers: &HeaderMap,
        arrival: &'a Arrival,
        peer: impl FnOnce() -> Option<Peer>,
    ) -> Result<&'a Caller, ProxyError> {
        let mut lines = headers.get_all(X_PROXY_TOKEN).iter();
        let why = match (lines.next(), lines.next()) {
            _ if headers.keys().any(|name| is_twin(name.as_str(), X_PROXY_TOKEN.as_str())) => "an underscore twin",
            (None, _) => match &arrival.known {
                Some(caller) => return Ok(caller),
                None => "no token",
            },
            (Some(_), Some(_)) => "more than one token",
            (Some(token), None) => match self.0.by_token(token.as_bytes()) {
                Some(caller) => return Ok(caller),
                None => "a token that nobody has",
            },
        };
        if let Some(silent) = self.0.unknown.turn(Instant::now()) {
            let peer = peer().map(tracing::field::display);
            tracing::warn!(reason = why, peer, not_told = silent, "a request was refused: its caller is not known");
        }
        Err(ProxyError::CallerUnknown(why))
    }
}

impl All {
    /// The map compares digests as it likes, and its time may tell how much of one digest another has in common. That
    /// is worth nothing: whoever wanted to choose a digest would have to turn SHA-256 back. The comparison that decides
    /// takes the same time for every digest all the same.
    fn by_token(&self, token: &[u8]) -> Option<&Caller> {
        let shown = TokenDigest::of(token)?;
        if let Some((known, caller)) = self.tokens.get_key_value(&shown) {
            return known.is(&shown).then_some(&**caller);
        }
        let has = |set: &TokenSet| set.0.load().get(&shown).is_some_and(|known| known.is(&shown));
        self.files.iter().find(|(set, _)| has(set)).map(|(_, caller)| &**caller)
    }
}

impl Caller {
    /// Whether it may send this request. `path` is decoded.
    ///
    /// Some of Cloudbeds' endpoints go by `X-Organization-Id` alone, whatever property stands beside it, and answer for
    /// all hotels of the organisation.
    pub(super) fn may(
        &self,
        method: &Method,
        path: &[u8],
        headers: &HeaderMap,
        subject: &Subject,
    ) -> Result<(), ProxyError> {
        let why = if !self.properties.as_ref().is_none_or(|own| subject.is_within(own)) {
            "property"
        } else if self.properties.is_some() && headers.contains_key(X_ORGANIZATION_ID) {
            // Its twins were refused to everybody when the property was looked for.
            "organization"
        } else if let Some(own) = &self.methods
            && (!own.contains(method) || headers.keys().any(is_method_override))
        {
            "method"
        } else if !self.paths.as_ref().is_none_or(|own| own.iter().any(|prefix| is_below(path, prefix.as_bytes()))) {
            "path"
        } else {
            return Ok(());
        };
        if let Some(silent) = self.refused.turn(Instant::now()) {
            let (caller, property) = (self.name, subject.first().map(PropertyId::get));
            let told = "a request was refused: its caller may not ask for this";
            tracing::warn!(caller, property, reason = why, not_told = silent, "{told}");
        }
        Err(ProxyError::CallerRefused { caller: self.name, why })
    }
}

/// Whether some server would take the method from this field instead of from the request.
fn is_method_override(name: &HeaderName) -> bool {
    METHOD_OVERRIDES.contains(&&*folded(name.as_str()))
}
