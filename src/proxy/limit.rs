//! Whether Cloudbeds may be asked now.
//!
//! In: [`Authorized`]. Out: [`Admitted`], when it is its turn within the budget of its key's app; or the refusal of one
//! whose turn would not come in time. While a request waits, nothing of its body is read, no connection to Cloudbeds is
//! held for it, and a caller that breaks off is noticed. What has no key, or a dead one, spends nothing: the next stage
//! refuses it.

use std::cell::RefCell;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

use super::authorize::Authorized;
use super::connection::Caller;
use super::error::ProxyError;
use super::identify::Subject;
use super::trace::Trace;
use crate::budget::{Ask, Budget, Budgets, Flow, Permit, Priority};
use crate::keys::{KeyReader, KeySet};
use crate::property::PropertyId;

/// By which a batch job lets others go first: `X-Proxy-Priority: low`.
const X_PROXY_PRIORITY: HeaderName = HeaderName::from_static("x-proxy-priority");

/// What is left, as draft-ietf-httpapi-ratelimit-headers-10 spells it.
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The budgets, when they are on.
#[derive(Clone)]
pub struct Limiter {
    /// Of each app.
    pub budgets: Arc<Budgets>,
    /// Whether answers say what is left.
    pub announce: bool,
}

/// A request whose turn has come.
#[derive(Debug)]
pub struct Admitted {
    pub(super) authorized: Authorized,
    pub(super) pass: Pass,
}

impl Admitted {
    /// The property that stands for the request, whether or not it is ours.
    #[must_use]
    pub fn property(&self) -> Option<PropertyId> {
        self.authorized.identified.subject.first()
    }
}

/// By what right a request starts.
#[derive(Debug)]
pub(super) enum Pass {
    /// Budgets are off.
    Free,
    Permit(Permit),
    /// It has no key that could be used; should it have one by now, it has no permit.
    None,
}

/// Waits for the request's turn.
///
/// # Errors
/// When the turn does not come in time, or the caller does not wait for it.
pub async fn admit(
    authorized: Authorized,
    limiter: Option<&Limiter>,
    keys: &RefCell<KeyReader>,
    caller: &Caller,
    trace: &mut Trace,
) -> Result<Admitted, ProxyError> {
    let Some(limiter) = limiter else { return Ok(unlimited(authorized)) };
    let find = || purse(&authorized.identified.subject, keys.borrow_mut().load(), &limiter.budgets);
    let mut found = find();
    let mut waited = Duration::ZERO;
    let low = |value: &HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"low");
    let low = authorized.identified.request.headers().get(X_PROXY_PRIORITY).is_some_and(low);
    let priority = if low { Priority::Low } else { Priority::Normal };
    let is_unsafe = !authorized.identified.request.method().is_safe();
    while let Some((budget, flow)) = found {
        trace.about(flow.property());
        if limiter.announce {
            trace.exchange().budget = Some(Arc::clone(budget));
        }
        let ask = Ask { flow, priority, is_unsafe };
        let now = Instant::from_std(trace.started()) + waited;
        let taken = tokio::select! {
            biased;
            taken = budget.take_after(waited, ask, now) => taken,
            // Asked for only once there is something to wait for.
            () = caller.gone() => return Err(ProxyError::CallerGone),
        };
        let before = waited;
        waited = taken.as_ref().map_or_else(|exhausted| before + exhausted.waited, Permit::waited);
        trace.exchange().queued = (!waited.is_zero()).then_some(waited);
        let permit = taken?;
        // Its key may be another app's by now, whose requests are counted elsewhere.
        if waited > before {
            found = find();
        }
        if found.is_some_and(|(other, _)| Arc::ptr_eq(other, budget)) {
            return Ok(Admitted { authorized, pass: Pass::Permit(permit) });
        }
    }
    Ok(Admitted { authorized, pass: Pass::None })
}

/// Lets a request pass where budgets are off; the benches of later stages begin here too.
#[must_use]
pub fn unlimited(authorized: Authorized) -> Admitted {
    Admitted { authorized, pass: Pass::Free }
}

/// Whose budget a request is spent from, and for whom.
fn purse<'a>(subject: &Subject, keys: &KeySet, budgets: &'a Budgets) -> Option<(&'a Arc<Budget>, Flow)> {
    let (key, flow) = match subject {
        Subject::Properties(properties) => (keys.get(properties.first())?, Flow::Property(properties.first())),
        Subject::Organization { name, .. } => {
            let number = BuildHasherDefault::<DefaultHasher>::default().hash_one(name);
            (keys.of_organization(name).ok()?, Flow::Organization(number))
        }
    };
    if key.life().blocked(subject.first()).is_some() {
        return None;
    }
    budgets.of(key.app.as_deref()).map(|budget| (budget, flow))
}

/// Says what is left of a budget.
pub(super) fn announce(budget: &Budget, headers: &mut HeaderMap) {
    let plain = |letter: char| if letter.is_ascii_alphanumeric() || "-_.".contains(letter) { letter } else { '_' };
    let name: String = budget.name().chars().map(plain).collect();
    let left = budget.left();
    let reset = left.reset.as_secs() + u64::from(left.reset.subsec_nanos() > 0);
    let fields = [
        (RATELIMIT_POLICY, format!("\"{name}\";q={};w=1", left.allowed)),
        (RATELIMIT, format!("\"{name}\";r={};t={reset}", left.remaining)),
    ];
    for (field, value) in fields {
        // Lists: Cloudbeds' own members, should there be any, stay beside ours.
        headers.extend(HeaderValue::try_from(value).ok().map(|value| (field, value)));
    }
}
