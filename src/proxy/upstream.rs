//! The exchange with Cloudbeds.
//!
//! In: [`Outbound`]. Out: [`Answer`], whose body is still on its way; or the reason there is none. Redirects are passed
//! on, never followed. What may have been done is never sent twice, with two exceptions, both for a GET or HEAD
//! without a body, and once: when a connection that had been used before died without a byte of an answer, and when the
//! answer is 401 and the property has got a new key meanwhile. What the server says it has not acted on, by the rules of
//! HTTP/2, is no exception: it is sent elsewhere, whatever its method, as long as all of its body is still at hand.

use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::header::{HOST, TRANSFER_ENCODING};
use http::uri::Scheme;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use tokio::time::{Instant, sleep};

use super::error::ProxyError;
use super::pool::{Lease, Need, Pool, Protocol};
use super::rewrite::{self, Outbound};
use crate::budget::{Budget, Permit};
use crate::keys::Key;
use crate::wire::body::{Progress, Stage, Upload};
use crate::wire::deadline::Deadline;

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

/// What Cloudbeds answered; the lease ends with the body.
pub struct Answer {
    pub(super) response: Response<Incoming>,
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

/// The request without its body: what can be kept to send it once more.
#[derive(Clone)]
struct Head {
    method: Method,
    target: http::uri::PathAndQuery,
    headers: HeaderMap,
}

enum Failed {
    /// Nothing of it was sent.
    Unsent(Box<Request<Upload>>),
    /// It was; how sure it is that nothing came of it.
    Sent(ProxyError, Trail),
}

/// What is known of a request that was sent and not answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Trail {
    /// The server says that it did not act on it: REFUSED_STREAM, or GOAWAY with an earlier stream as the last
    /// (RFC 9113 8.7 and 6.8).
    Refused,
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
        let started = Instant::now();
        let mut upload = Upload::new(body, started).within(exchange.shared.then_some(self.timeouts.idle));
        let progress = upload.progress();
        exchange.progress = Some(Rc::clone(&progress));
        let repeatable = upload.is_absent() && matches!(method, Method::GET | Method::HEAD);
        let mut need = if repeatable { Need::Any } else { Need::JustUsed };
        let mut head = Head { method: method.clone(), target, headers };
        let (mut replayed, mut renewed, mut unsent) = (false, false, 0);
        loop {
            let mut lease = match self.pool.open(&origin, need) {
                Some(lease) => lease,
                None => {
                    // The start is when the request leaves, however long the handshake takes.
                    permit.iter_mut().for_each(Permit::keep);
                    self.pool.make(&origin, need).await?
                }
            };
            exchange.connection = Some((lease.reused, lease.protocol()));
            let http2 = lease.protocol() == Protocol::Http2;
            let spare = (repeatable || http2).then(|| head.clone());
            if http2 {
                progress.keep();
            }
            let request = head.request(upload, lease.protocol(), &origin);
            let mut sent = Instant::now();
            if let Some(permit) = &mut permit
                && !(lease.leaves_at_once() && permit.start(sent))
            {
                sent = Box::pin(in_time(permit, &lease)).await?;
                exchange.queued = Some(permit.waited()).filter(|waited| !waited.is_zero());
            }
            let outcome = self.attempt(&mut lease, request, &progress).await;
            if !matches!(outcome, Err(Failed::Unsent(_))) {
                // Cloudbeds' own time begins with the last byte of the request; a slow caller's upload is not theirs.
                let from = if progress.stage() == Stage::Done { progress.moved().max(sent) } else { sent };
                exchange.waited = Some(from.elapsed());
            }
            match outcome {
                Ok(response) => {
                    if let Some(permit) = &mut permit {
                        permit.heard(response.status(), response.headers());
                    }
                    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                        return Err(ProxyError::UpstreamSwitched);
                    }
                    progress.forget();
                    let refused = repeatable && !renewed && response.status() == StatusCode::UNAUTHORIZED;
                    let again = spare.filter(|_| refused).zip(successor(&key));
                    let again = again.and_then(|again| Some((again, Upload::again(&progress, Instant::now())?)));
                    let Some(((mut spare, newer), body)) = again else {
                        return Ok(Answer { response, lease, prefix, method, key });
                    };
                    rewrite::authorize(&mut spare.headers, &newer);
                    (head, key, renewed, upload) = (spare, newer, true, body);
                    drop((response, lease));
                    another(&mut permit).await?;
                    continue;
                }
                Err(Failed::Unsent(request)) if unsent < UNSENT_TRIES => {
                    unsent += 1;
                    (head, upload) = Head::from_request(*request);
                }
                Err(Failed::Unsent(_)) => return Err(ProxyError::UpstreamGone),
                Err(Failed::Sent(error, trail)) => {
                    let Some(spare) = spare else { return Err(error) };
                    match trail {
                        Trail::Refused if http2 && unsent < UNSENT_TRIES => unsent += 1,
                        Trail::Silent if repeatable && lease.reused && !replayed => replayed = true,
                        _ => return Err(error),
                    }
                    let Some(body) = Upload::again(&progress, Instant::now()) else { return Err(error) };
                    (head, upload) = (spare, body);
                }
            }
            drop(lease);
            another(&mut permit).await?;
            // All whose HTTP/2 connection ended can share the next one; whoever fails again has one to itself.
            need = if need == Need::Any { Need::Since(Instant::now()) } else { Need::Fresh };
        }
    }

    async fn attempt(
        &self,
        lease: &mut Lease,
        request: Request<Upload>,
        progress: &Progress,
    ) -> Result<Response<Incoming>, Failed> {
        let before = lease.received();
        let mut deadline = lease.take_deadline();
        let outcome = self.until_first_byte(lease.send(request), progress, &mut deadline).await;
        lease.keep_deadline(deadline);
        match outcome {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(mut error)) => match error.take_message() {
                Some(request) => Err(Failed::Unsent(Box::new(request))),
                None => {
                    let trail = match h2_cause(error.error()) {
                        Some(h2) if h2.is_remote() && h2.is_go_away() => Trail::Refused,
                        Some(h2) if h2.is_remote() && h2.reason() == Some(h2::Reason::REFUSED_STREAM) => Trail::Refused,
                        Some(h2) if h2.is_reset() => Trail::Unclear,
                        // A stream of a shared connection gets its head in one piece or not at all.
                        _ if lease.received() == before => Trail::Silent,
                        _ => Trail::Unclear,
                    };
                    Err(Failed::Sent(classify(error, progress), trail))
                }
            },
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
    async fn until_first_byte<T>(
        &self,
        mut sent: std::pin::Pin<Box<dyn Future<Output = T> + '_>>,
        progress: &Progress,
        deadline: &mut Deadline,
    ) -> Result<T, ProxyError> {
        let Timeouts { first_byte, idle } = self.timeouts;
        std::future::poll_fn(|cx| {
            if let Poll::Ready(done) = sent.as_mut().poll(cx) {
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
        .await
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

impl Head {
    /// The request for this connection's version.
    fn request(self, upload: Upload, protocol: Protocol, origin: &crate::origin::Origin) -> Request<Upload> {
        let Self { method, target, mut headers } = self;
        let mut parts = http::uri::Parts::default();
        parts.path_and_query = Some(target);
        let version = match protocol {
            Protocol::Http1 => {
                // hyper leaves the body of a GET out unless it is told how it is framed.
                if !upload.is_absent() && upload.size_hint().exact().is_none() {
                    headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
                }
                Version::HTTP_11
            }
            Protocol::Http2 => {
                // RFC 9113 8.3.1: `:authority` stands in for Host.
                headers.remove(HOST);
                parts.scheme = Some(Scheme::HTTPS);
                parts.authority = Some(origin.authority().clone());
                Version::HTTP_2
            }
        };
        let mut request = Request::new(upload);
        *request.method_mut() = method;
        // A path alone, or all three parts, always make a URI.
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
        *request.version_mut() = version;
        *request.headers_mut() = headers;
        request
    }

    /// Takes an unsent request apart again, for a connection that may speak another version.
    fn from_request(request: Request<Upload>) -> (Self, Upload) {
        let (parts, upload) = request.into_parts();
        let uri = parts.uri.into_parts();
        let mut headers = parts.headers;
        headers.remove(TRANSFER_ENCODING);
        if let (None, Some(authority)) = (headers.get(HOST), uri.authority)
            && let Ok(host) = HeaderValue::from_str(authority.as_str())
        {
            headers.insert(HOST, host);
        }
        let target = uri.path_and_query.unwrap_or_else(|| http::uri::PathAndQuery::from_static("/"));
        (Self { method: parts.method, target, headers }, upload)
    }
}

/// The request that [`Upstream::send`] would put on a new connection of this version.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn first_try(outbound: Outbound, protocol: Protocol) -> Request<Upload> {
    let Outbound { method, target, headers, body, origin, .. } = outbound;
    Head { method, target, headers }.request(Upload::new(body, Instant::now()), protocol, &origin)
}

/// Whose fault it is.
fn classify(error: TrySendError<Request<Upload>>, progress: &Progress) -> ProxyError {
    let error = error.into_error();
    if progress.stage() == Stage::Failed {
        ProxyError::RequestBody(error)
    } else if error.is_parse() || broke_http2(&error) {
        ProxyError::UpstreamInvalid(error)
    } else {
        ProxyError::UpstreamReset(error)
    }
}

/// Whether our side of HTTP/2 found a violation, as opposed to the server ending the stream.
fn broke_http2(error: &hyper::Error) -> bool {
    h2_cause(error).is_some_and(|h2| h2.is_library() && h2.reason() == Some(h2::Reason::PROTOCOL_ERROR))
}

/// What HTTP/2 says of it.
fn h2_cause(error: &hyper::Error) -> Option<&h2::Error> {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(h2) = inner.downcast_ref::<h2::Error>() {
            return Some(h2);
        }
        source = inner.source();
    }
    None
}
