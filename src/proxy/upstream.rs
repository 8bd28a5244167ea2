//! The exchange with Cloudbeds.
//!
//! In: [`Outbound`]. Out: [`Answer`], whose body is still on its way; or the reason there is none. Redirects are passed
//! on, never followed. What may have been done is never sent twice, with two exceptions, both for a GET or HEAD
//! without a body, and once: when a connection that had been used before died without a byte of an answer, and when the
//! answer is 401 and the property has got a new key meanwhile. What was never written to its HTTP/2 connection, or what the
//! server says it has not acted on, by the rules of HTTP/2, is no exception: it is sent elsewhere, whatever its method, as
//! long as all of its body is still at hand.

use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use h2::Reason;
use http::{HeaderMap, Method, StatusCode};
use tokio::time::{Instant, sleep};

use super::broken::{Broken, Failure};
use super::error::ProxyError;
use super::pool::{self, Answered, Head, Lease, Need, Pool, Protocol};
use super::rewrite::{self, Outbound};
use crate::budget::{Budget, Permit};
use crate::keys::Key;
use crate::wire::body::{Progress, Stage, Upload};
use crate::wire::spare;

/// How often a request that provably was not acted on is given another connection before the caller hears of it.
const UNSENT_TRIES: u32 = 3;

/// How long a new HTTP/2 connection has to say how many streams it takes, before they are sent all the same: a round trip
/// is what it takes.
const SETTLING: Duration = Duration::from_secs(1);

/// Limits of one exchange; connect and TLS have theirs in the dialer.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From the last byte of the request to the first of the answer.
    pub first_byte: Duration,
    /// Between two bytes of a body, in either direction.
    pub idle: Duration,
}

/// The way to Cloudbeds.
pub struct Upstream {
    pool: Rc<Pool>,
    timeouts: Timeouts,
}

/// What Cloudbeds answered; the body is still on the connection.
pub struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) lease: Lease,
    pub(super) prefix: Option<crate::property::PropertyId>,
    pub(super) method: Method,
    /// The key it was answered with.
    pub(super) key: Arc<Key>,
}

/// What the log wants to know of an exchange, also of one that failed.
#[derive(Debug, Default)]
pub struct Exchange {
    /// Whether the caller has other requests on the same connection (HTTP/2), where no gate sees a body that stalls.
    pub shared: bool,
    /// How far the request body got.
    pub progress: Option<Rc<Progress>>,
    /// From the end of the request to the head of the answer, or to the failure.
    pub waited: Option<Duration>,
    /// Whether the connection had been used before, and its version.
    pub connection: Option<(bool, Protocol)>,
    /// How long the request waited for its turn, if it had to.
    pub queued: Option<Duration>,
    /// The budget the answer is to tell of.
    pub budget: Option<Arc<Budget>>,
}

enum Failed {
    /// Nothing of it was sent; here is its body.
    Unsent(Upload),
    /// It was; how sure it is that nothing came of it.
    Sent(ProxyError, Trail),
}

/// What is known of a request that was sent and not answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Trail {
    /// None of it was written, or the server says that it did not act on it: REFUSED_STREAM, or GOAWAY with an earlier
    /// stream as the last (RFC 9113 8.7 and 6.8).
    Unprocessed,
    /// The connection died without a byte of an answer.
    Silent,
    /// There were bytes of an answer, or the server broke it off, or it took too long.
    Unclear,
}

impl Upstream {
    /// The way through `pool`.
    #[must_use]
    pub fn new(pool: Rc<Pool>, timeouts: Timeouts) -> Self {
        Self { pool, timeouts }
    }

    /// Sends the request and waits for the head of the answer. A GET or HEAD answered 401 is sent once more with the
    /// key that `successor` gives for the one it went with, if it gives one.
    ///
    /// # Errors
    /// Each deadline, each kind of broken connection and each unusable answer has its own [`ProxyError`].
    pub async fn send(
        &self,
        outbound: Outbound,
        exchange: &mut Exchange,
        successor: impl Fn(&Key) -> Option<Arc<Key>>,
    ) -> Result<Answer, ProxyError> {
        let Outbound { method, target, headers, body, origin, prefix, mut key, mut permit } = outbound;
        #[cfg(debug_assertions)]
        crate::telemetry::panic::if_a_test_asks(target.path(), || {
            headers.values().map(|value| String::from_utf8_lossy(value.as_bytes())).collect()
        });
        // The clock is asked again only where something was waited for.
        let mut now = Instant::now();
        let mut upload = Upload::new(body, now).over_http2(exchange.shared.then_some(self.timeouts.idle));
        let progress = upload.progress();
        exchange.progress = Some(Rc::clone(&progress));
        let repeatable = upload.is_absent() && matches!(method, Method::GET | Method::HEAD);
        let mut need = if repeatable { Need::Any } else { Need::JustUsed };
        let mut head = Head { method, target, headers };
        let (mut replayed, mut renewed, mut unsent) = (false, false, 0);
        loop {
            let mut lease = match self.pool.open(&origin, need, now) {
                Some(lease) => lease,
                None => {
                    // The start is when the request leaves, however long the handshake takes.
                    permit.iter_mut().for_each(Permit::keep);
                    let made = self.pool.make(&origin, need).await?;
                    now = Instant::now();
                    made
                }
            };
            exchange.connection = Some((lease.reused, lease.protocol()));
            let http2 = lease.protocol() == Protocol::Http2;
            if http2 {
                progress.keep();
            }
            let mut sent = now;
            if let Some(permit) = &mut permit
                && !(lease.leaves_at_once() && permit.start(sent))
            {
                sent = Box::pin(in_time(permit, &lease)).await?;
                exchange.queued = Some(permit.waited()).filter(|waited| !waited.is_zero());
            }
            lease.start(&head, upload, &origin);
            let outcome = self.attempt(&mut lease, &progress).await;
            if !matches!(outcome, Err(Failed::Unsent(_))) {
                // Cloudbeds' own time begins with the last byte of the request; a slow caller's upload is not theirs.
                let from = if progress.stage() == Stage::Done { progress.moved().max(sent) } else { sent };
                exchange.waited = Some(from.elapsed());
            }
            match outcome {
                Ok(Answered { status, headers }) => {
                    if let Some(permit) = &mut permit {
                        permit.heard(status, &headers);
                    }
                    if status == StatusCode::SWITCHING_PROTOCOLS {
                        return Err(ProxyError::UpstreamSwitched);
                    }
                    progress.forget();
                    let refused = repeatable && !renewed && status == StatusCode::UNAUTHORIZED;
                    let newer = if refused { successor(&key) } else { None };
                    let again = newer.and_then(|newer| Some((newer, Upload::again(&progress, Instant::now())?)));
                    let Some((newer, body)) = again else {
                        if !exchange.shared {
                            // Those of HTTP/2 are made by h2, and nothing here bounds how many lines one name had.
                            spare::give_back(head.headers);
                        }
                        return Ok(Answer { status, headers, lease, prefix, method: head.method, key });
                    };
                    rewrite::authorize(&mut head.headers, &newer);
                    (key, renewed, upload) = (newer, true, body);
                    drop(lease);
                    another(&mut permit).await?;
                    now = Instant::now();
                    continue;
                }
                Err(Failed::Unsent(body)) if unsent < UNSENT_TRIES => {
                    unsent += 1;
                    upload = body;
                }
                Err(Failed::Unsent(_)) => return Err(ProxyError::UpstreamGone),
                Err(Failed::Sent(error, trail)) => {
                    match trail {
                        Trail::Unprocessed if http2 && unsent < UNSENT_TRIES => unsent += 1,
                        Trail::Silent if repeatable && lease.reused && !replayed => replayed = true,
                        _ => return Err(error),
                    }
                    let Some(body) = Upload::again(&progress, Instant::now()) else { return Err(error) };
                    upload = body;
                }
            }
            drop(lease);
            another(&mut permit).await?;
            now = Instant::now();
            // All whose HTTP/2 connection ended can share the next one; whoever fails again has one to itself.
            need = if need == Need::Any { Need::Since(now) } else { Need::Fresh };
        }
    }

    async fn attempt(&self, lease: &mut Lease, progress: &Progress) -> Result<Answered, Failed> {
        match self.until_first_byte(lease, progress).await {
            Ok(Ok(answered)) => Ok(answered),
            Ok(Err(pool::Failed::Unsent(upload))) => Err(Failed::Unsent(upload)),
            Ok(Err(pool::Failed::Unwritten(broken))) => {
                Err(Failed::Sent(classify(broken, progress), Trail::Unprocessed))
            }
            Ok(Err(pool::Failed::Sent(broken))) => {
                let trail = match &broken {
                    Broken::Http2(Failure::GoAway(_) | Failure::Reset(Reason::REFUSED_STREAM)) => Trail::Unprocessed,
                    Broken::Http2(Failure::Reset(_) | Failure::Malformed(_)) => Trail::Unclear,
                    _ if lease.heard(&broken) => Trail::Unclear,
                    _ => Trail::Silent,
                };
                Err(Failed::Sent(classify(broken, progress), trail))
            }
            Err(timeout) => {
                if matches!(timeout, ProxyError::UploadTimeout(_)) {
                    lease.distrust();
                }
                Err(Failed::Sent(timeout, Trail::Unclear))
            }
        }
    }

    /// The answer's head, or the deadline that passed: `first_byte` once the request is out, `idle` while its body
    /// moves. While the caller is what is waited for, its own connection keeps the time.
    async fn until_first_byte(
        &self,
        lease: &mut Lease,
        progress: &Progress,
    ) -> Result<Result<Answered, pool::Failed>, ProxyError> {
        let Timeouts { first_byte, idle } = self.timeouts;
        let mut deadline = lease.take_deadline();
        let outcome = std::future::poll_fn(|cx| {
            if let Poll::Ready(done) = lease.poll_head(cx) {
                return Poll::Ready(Ok(done));
            }
            loop {
                // Nobody wakes this task when the stage changes, so it looks again within the shorter limit.
                let soon = || Instant::now() + first_byte.min(idle);
                let (due, look) = match progress.stage() {
                    Stage::Done => (progress.moved() + first_byte, progress.moved() + first_byte),
                    Stage::Upstream => (progress.moved() + idle, soon().min(progress.moved() + idle)),
                    Stage::Caller | Stage::Failed | Stage::Abandoned => (Instant::now() + idle, soon()),
                };
                if !deadline.passed(look, cx) {
                    return Poll::Pending;
                }
                if Instant::now() >= due && progress.stage() == Stage::Done {
                    return Poll::Ready(Err(ProxyError::FirstByteTimeout(first_byte)));
                }
                if Instant::now() >= due && progress.stage() == Stage::Upstream {
                    return Poll::Ready(Err(ProxyError::UploadTimeout(idle)));
                }
            }
        })
        .await;
        lease.keep_deadline(deadline);
        outcome
    }
}

/// Another try is another start.
async fn another(permit: &mut Option<Permit>) -> Result<(), ProxyError> {
    if let Some(last) = permit {
        *last = Box::pin(last.again()).await?;
    }
    Ok(())
}

/// Starts a request that could not start right away: its connection is not ready for it, or its permit is too old. Out:
/// when it did.
async fn in_time(permit: &mut Permit, lease: &Lease) -> Result<Instant, ProxyError> {
    if !lease.leaves_at_once() {
        permit.keep();
        let until = Instant::now() + SETTLING;
        while !lease.leaves_at_once() && Instant::now() < until {
            sleep(Duration::from_millis(1)).await;
        }
    }
    loop {
        let now = Instant::now();
        if permit.start(now) {
            return Ok(now);
        }
        *permit = permit.again().await?;
    }
}

/// The request as [`Upstream::send`] would send it.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn first_try(outbound: Outbound, over_http2: Option<Duration>) -> (Head, Upload) {
    let Outbound { method, target, headers, body, .. } = outbound;
    (Head { method, target, headers }, Upload::new(body, Instant::now()).over_http2(over_http2))
}

/// Whose fault it is.
fn classify(broken: Broken, progress: &Progress) -> ProxyError {
    if progress.stage() == Stage::Failed || matches!(broken, Broken::Length) {
        ProxyError::RequestBody(broken)
    } else if broken.is_violation() {
        ProxyError::UpstreamInvalid(broken)
    } else {
        ProxyError::UpstreamReset(broken)
    }
}
