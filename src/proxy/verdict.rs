//! What an answer says about the key it was asked with.
//!
//! In: the key and the answer, as it passes. Out: a use, or a sign for the keeper, or nothing; a key that is known to be
//! dead is refused before anything is sent. The answer itself is not changed, delayed or kept. It costs a request a
//! load or two from the key's life, which is shared by the cores and written only when something changes.

use std::sync::Arc;

use http::StatusCode;

use super::error::ProxyError;
use crate::keys::life;
use crate::keys::verdict::Sign;
use crate::keys::{Key, Time, Verdict};
use crate::property::PropertyId;
use crate::wire::peek::Seen;
use crate::wire::problem::{About, Code, Problem};

/// Where a hotel connects again, by its key's app and its id; nothing where no app is known. Asked on refusals only.
pub type ConnectLinks = Arc<dyn Fn(Option<&str>, PropertyId) -> Option<String> + Send + Sync>;

/// A refusal on behalf of Cloudbeds.
#[derive(Debug)]
pub struct Rejected {
    /// For whom, where the request names a property.
    pub property: Option<PropertyId>,
    /// Why.
    pub verdict: Verdict,
    /// Seconds until Cloudbeds is asked again.
    pub retry_after: u64,
    /// Where the hotel connects again.
    pub link: Option<String>,
}

impl Rejected {
    /// In the words for the caller.
    pub(super) fn problem(&self) -> Problem {
        let detail = match self.verdict {
            Verdict::UserLeft => {
                "The user who connected this hotel is no longer active at Cloudbeds, so nothing was sent; a present user \
                 must connect the hotel again."
            }
            Verdict::PropertyLeft => {
                "Cloudbeds says that this property is no longer active, so nothing was sent; ask the hotel, or remove its \
                 key."
            }
            _ => "Cloudbeds refuses the key of this hotel, so nothing was sent; the hotel must be connected again.",
        };
        let about = About { verdict: self.verdict.as_str(), link: self.link.clone(), retry_after: self.retry_after };
        Problem::new(Code::KeyRejected, "http_request_denied", detail).about(about)
    }
}

/// Lets the request pass unless its key is dead.
///
/// # Errors
/// When Cloudbeds would refuse it.
pub(super) fn alive(key: &Key, property: Option<PropertyId>, links: &ConnectLinks) -> Result<(), ProxyError> {
    let Some(blocked) = key.life().blocked(property) else { return Ok(()) };
    Err(ProxyError::KeyRejected(Box::new(Rejected {
        property,
        verdict: blocked.verdict,
        retry_after: blocked.until.since(Time::now()).max(1),
        link: property.and_then(|property| links(key.app.as_deref(), property)),
    })))
}

/// The head of an answer.
pub(super) fn head(key: &Arc<Key>, property: Option<PropertyId>, status: StatusCode) {
    if status.is_success() || status == StatusCode::NOT_MODIFIED {
        key.life().used();
    } else if status == StatusCode::UNAUTHORIZED {
        life::tell(key, property, Sign::Unauthorized);
    }
}

/// The whole body of an answer that carried 200.
#[inline]
pub(super) fn body(key: &Arc<Key>, property: Option<PropertyId>, seen: Seen<'_>) {
    match seen {
        Seen::Other => key.life().succeeded(property),
        Seen::Failure(body) => failure(key, property, body),
        Seen::Nothing => {}
    }
}

#[cold]
fn failure(key: &Arc<Key>, property: Option<PropertyId>, body: &[u8]) {
    if let Some(sign) = Sign::in_body(body) {
        life::tell(key, property, sign);
    }
}

/// The key that has replaced `old` while a request with it was under way, if the request can be tried with it: to the
/// same host, and not known to be dead.
pub(super) fn successor(old: &Key, current: Option<&Arc<Key>>, property: Option<PropertyId>) -> Option<Arc<Key>> {
    let new = current?;
    let other = new.life().fingerprint() != old.life().fingerprint();
    let usable = new.base_url == old.base_url && new.life().blocked(property).is_none();
    (other && usable).then(|| Arc::clone(new))
}
