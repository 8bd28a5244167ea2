//! One request, from the application to Cloudbeds and back.
//!
//! `Request → Identified → Authorized → Admitted → Credentialed → Outbound → Answer → Sanitized → Response`: every
//! stage consumes the value before it, and only its own file can make the next one, so none can be left out or faked.

pub mod authorize;
pub mod broken;
pub mod callers;
pub mod connection;
pub mod credential;
pub mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub mod identify;
pub mod limit;
pub mod pool;
pub mod respond;
pub mod rewrite;
pub mod sanitize;
pub mod trace;
pub mod transport;
pub mod upstream;
pub mod verdict;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::{Request, Response};
use http_body::Body as _;

use self::authorize::Policy;
use self::connection::Caller;
use self::error::ProxyError;
use self::limit::Limiter;
use self::respond::{Afterwards, Download};
use self::rewrite::Routes;
use self::sanitize::Sanitized;
use self::trace::Trace;
use self::upstream::{Timeouts, Upstream};
use self::verdict::ConnectLinks;
use crate::keys::{Key, KeyReader};
use crate::listen::Stream;
use crate::phase::{Phase, PhaseCell};
use crate::property::PropertyId;
use crate::telemetry::metrics::Recorder;
use crate::telemetry::{AccessLines, RequestIds, Sparing};
use crate::tls::{CertificateName, Shown};
use crate::wire::body::Stage;
use crate::wire::incoming::Incoming;
use crate::wire::problem::Problem;

/// Everything a core needs to serve requests. Nothing in it is shared with another core but the key set, which is
/// swapped whole, the budgets, and the process's phase.
pub struct Proxy {
    /// Which paths are let through.
    pub policy: Policy,
    /// Which origin serves which path.
    pub routes: Rc<Routes>,
    /// The keys.
    pub keys: RefCell<KeyReader>,
    /// The budgets, which all cores share; nothing when they are off.
    pub limiter: Option<Limiter>,
    /// The way to Cloudbeds.
    pub upstream: Upstream,
    /// Limits of an exchange.
    pub timeouts: Timeouts,
    /// Where hotels connect again.
    pub connect: ConnectLinks,
    /// This core's counters.
    pub recorder: Rc<Recorder>,
    /// This core's access lines.
    pub lines: Rc<AccessLines>,
    /// This core's request ids.
    pub ids: RequestIds,
    /// How far the process is.
    pub phase: Arc<PhaseCell>,
    /// How often failed handshakes of callers are told.
    pub refused_handshakes: Sparing,
}

/// What a request inherits from the connection it came on.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Where else a property may be named on this listener.
    pub identify: identify::Settings,
    /// The address the caller reached us at.
    pub local: Option<SocketAddr>,
    /// Whether it came over TLS.
    pub encrypted: bool,
    /// Who the caller is, where the connection tells; a request may show a token all the same.
    pub known: Option<Arc<callers::Caller>>,
    /// The certificate it was let in with, where one is asked for.
    pub shown: Option<Rc<Shown>>,
}

impl Arrival {
    /// On a connection without TLS.
    #[must_use]
    pub fn plain(identify: identify::Settings, stream: &Stream, policy: &Policy) -> Self {
        let known = policy.callers.as_ref().and_then(|callers| callers.connected(stream));
        Self { identify, local: stream.local_address(), encrypted: false, known, shown: None }
    }

    /// On a connection with TLS, whose caller has shown a certificate with these names, or none.
    #[must_use]
    pub fn encrypted(
        identify: identify::Settings,
        stream: &Stream,
        (names, shown): (&[CertificateName], Option<Shown>),
        policy: &Policy,
    ) -> Self {
        let known = policy.callers.as_ref().and_then(|callers| callers.certified(names));
        Self { identify, local: stream.local_address(), encrypted: true, known, shown: shown.map(Rc::new) }
    }
}

/// The caller has broken off while its request waited.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the caller is gone")]
pub struct CallerGone;

impl Proxy {
    /// Answers one request.
    ///
    /// # Errors
    /// When its caller is gone, and nobody is there to be answered.
    pub async fn serve(
        &self,
        request: Box<Request<Incoming>>,
        arrival: &Arrival,
        caller: &Caller,
    ) -> Result<Response<Download>, CallerGone> {
        let mut trace = Trace::start(self, &request);
        let (method, has_body) = (request.method().clone(), !request.body().is_end_stream());
        let result = self.forward(request, arrival, caller, &mut trace).await;
        let afterwards = if self.phase.get() >= Phase::Draining { Afterwards::Close } else { Afterwards::KeepAlive };
        // Where the answer comes before the whole body, nobody is going to read the rest; and what a caller sends after
        // `Expect` and a refusal may be the body or the next request (RFC 9110 10.1.1). The connection ends, so say so.
        let whole = !has_body || trace.exchange().progress.as_ref().is_some_and(|body| body.stage() == Stage::Done);
        let afterwards = if whole { afterwards } else { Afterwards::Close };
        let budget = trace.exchange().budget.take();
        let mut response = match result {
            Ok(sanitized) => respond::answer(sanitized, trace, self.timeouts.idle, afterwards),
            Err(ProxyError::CallerGone) => return Err(CallerGone),
            Err(error) => respond::failure(&error, &method, trace, afterwards),
        };
        if let Some(budget) = budget {
            limit::announce(&budget, response.headers_mut());
        }
        Ok(response)
    }

    /// Answers a request whose head is against the rules.
    #[must_use]
    pub fn refuse<B>(&self, request: &Request<B>, problem: Problem) -> Response<Download> {
        let trace = Trace::start(self, request);
        respond::failure(&ProxyError::Head(Box::new(problem)), request.method(), trace, Afterwards::KeepAlive)
    }

    async fn forward(
        &self,
        request: Box<Request<Incoming>>,
        arrival: &Arrival,
        caller: &Caller,
        trace: &mut Trace,
    ) -> Result<Sanitized, ProxyError> {
        if self.phase.get() >= Phase::Closing {
            return Err(ProxyError::Draining);
        }
        let known = self.policy.who(request.headers(), arrival, || caller.peer())?;
        trace.asked_by(known.name());
        let identified = identify::property(request, arrival.identify)?;
        let authorized = self.policy.authorize(identified, known, arrival)?;
        let admitted = limit::admit(authorized, self.limiter.as_ref(), &self.keys, caller, trace).await?;
        // With many hotels all of this one's is far away in memory; it is better asked for at once.
        if let Some(first) = admitted.property() {
            self.recorder.fetch(first);
        }
        let attached = credential::attach(admitted, self.keys.borrow_mut().load(), &self.connect);
        let credentialed = attached.inspect_err(|error| trace.about(error.dead_property()))?;
        let property = credentialed.property();
        trace.about(property);
        let outbound = rewrite::for_cloudbeds(credentialed, &self.routes);
        let origin = Arc::clone(&outbound.origin);
        let answer = self.upstream.send(outbound, trace.exchange(), |old| self.successor(old, property)).await?;
        sanitize::answer(answer, &origin, self.policy.unreadable_codings, self.timeouts.idle).await
    }

    /// The key that is in force for the property now, where it is another one than a request went with, and requests with
    /// it are counted for the same app.
    fn successor(&self, old: &Key, property: Option<PropertyId>) -> Option<Arc<Key>> {
        let mut keys = self.keys.borrow_mut();
        let new = verdict::successor(old, keys.load().get(property?), property)?;
        let elsewhere = self.limiter.as_ref().is_some_and(|limiter| {
            let of = |key: &Key| limiter.budgets.of(key.app.as_deref()).map(Arc::as_ptr);
            of(&new) != of(old)
        });
        (!elsewhere).then_some(new)
    }
}
