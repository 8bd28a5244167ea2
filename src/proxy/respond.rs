//! The answer as the caller gets it.
//!
//! In: [`Sanitized`], or an error. Out: a response with Cloudbeds' status and body, or an unmistakable failure of our
//! own; either with our request id on it. A body that has to end early ends visibly: the connection breaks off before
//! the announced length or the last chunk.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH};
use http::{HeaderName, HeaderValue, Method, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::task::spawn_local;
use tokio::time::{Instant, timeout};

use super::error::ProxyError;
use super::pool::Lease;
use super::sanitize::{Clean, Cut, Sanitized};
use super::trace::Trace;
use super::verdict;
use crate::keys::Key;
use crate::telemetry::metrics::Leak;
use crate::wire::body::Progress;
use crate::wire::deadline::Deadline;
use crate::wire::inspect::Refusal;
use crate::wire::problem::Code;

/// Our name for the request; Cloudbeds' own `X-Request-Id` passes beside it.
pub const X_PROXY_REQUEST_ID: HeaderName = HeaderName::from_static("x-proxy-request-id");

/// How long the end of a body may come after its last byte.
const END_PATIENCE: Duration = Duration::from_secs(1);

/// Whether the connection stays open behind this answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Afterwards {
    /// As HTTP says.
    KeepAlive,
    /// The process is ending: the caller is told to connect anew.
    Close,
}

/// Cloudbeds' answer.
#[must_use]
pub fn answer(
    sanitized: Sanitized,
    mut trace: Box<Trace>,
    idle: Duration,
    afterwards: Afterwards,
) -> Response<Download> {
    let Sanitized { status, headers, body, key, leaks } = sanitized;
    verdict::head(&key, trace.property(), status);
    trace.leaks(Leak::Header, leaks);
    trace.answered(status, None, &headers);
    let id = trace.id();
    let source = Source::Upstream { body, key, masked: 0, idle: Idle::new(idle) };
    let mut response = Response::new(Download::new(source, trace));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    finish(&mut response, id.header_value(), afterwards);
    response
}

/// A failure of our own, as the answer to a request with this method.
#[must_use]
pub fn failure(
    error: &ProxyError,
    method: &Method,
    mut trace: Box<Trace>,
    afterwards: Afterwards,
) -> Response<Download> {
    if let ProxyError::UpstreamRefused(Refusal::Leak) = error {
        trace.leaks(Leak::Coded, 1);
    }
    let problem = error.problem();
    // The cause goes to the operator; the caller gets fixed words. What a caller did wrong is in the access line.
    if matches!(problem.code.status(), StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT) {
        let source = std::error::Error::source(error).map(Sources);
        tracing::warn!(
            request_id = trace.id().as_str(),
            code = problem.code.as_str(),
            cause = source.map(tracing::field::display),
            "{error}"
        );
    }
    let mut own = problem.response();
    if *method == Method::HEAD {
        // RFC 9110 9.3.2: the head of what GET would be answered with, and no body.
        let length = HeaderValue::from(own.body().len());
        own.headers_mut().insert(CONTENT_LENGTH, length);
        *own.body_mut() = Bytes::new();
    }
    trace.answered(own.status(), Some(problem.code), own.headers());
    let id = trace.id();
    let mut response = own.map(|body| Download::new(Source::Own(body), trace));
    finish(&mut response, id.header_value(), afterwards);
    response
}

fn finish(response: &mut Response<Download>, id: HeaderValue, afterwards: Afterwards) {
    let headers = response.headers_mut();
    headers.insert(X_PROXY_REQUEST_ID, id);
    if afterwards == Afterwards::Close {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

/// An error's chain of causes on one line.
struct Sources<'a>(&'a (dyn std::error::Error + 'static));

impl std::fmt::Display for Sources<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut cause = Some(self.0);
        while let Some(error) = cause {
            write!(out, "{error}")?;
            cause = error.source();
            if cause.is_some() {
                out.write_str(": ")?;
            }
        }
        Ok(())
    }
}

/// The body of an answer; the record of the request ends with it. In a box, as all that is handed on with an answer.
pub struct Download(Box<Rest>);

/// What is still to come of an answer.
struct Rest {
    source: Source,
    trace: Box<Trace>,
    /// Why the body ends early, once that is known. It is said one poll later: h2 drops what it has not written
    /// yet, head included, when a body fails, and writes it out when a body has nothing to give.
    ending: Option<Cut>,
}

enum Source {
    Own(Bytes),
    Upstream { body: Box<Clean>, key: Arc<Key>, masked: u32, idle: Idle },
}

/// The limit between two bytes.
struct Idle {
    limit: Duration,
    since: Option<Instant>,
    deadline: Deadline,
}

impl Idle {
    fn new(limit: Duration) -> Self {
        Self { limit, since: None, deadline: Deadline::default() }
    }

    fn passed(&mut self, cx: &mut Context<'_>) -> bool {
        let since = *self.since.get_or_insert_with(Instant::now);
        self.deadline.passed(since + self.limit, cx)
    }
}

impl Download {
    fn new(source: Source, trace: Box<Trace>) -> Self {
        Self(Box::new(Rest { source, trace, ending: None }))
    }
}

impl Rest {
    /// Everything was handed over. Only where it was `polled` is there a runtime to see the rest through.
    fn end(&mut self, polled: bool) {
        if let Source::Upstream { body, key, .. } = &mut self.source
            && let Some(lease) = body.take_lease()
        {
            verdict::body(key, self.trace.property(), body.seen());
            // Cloudbeds answered in full without waiting for the rest of the request: neither side needs it. Were it
            // kept, an upstream that reads no further would hold its connection, and a caller's stream, for ever.
            let unfinished = self.trace.upload().is_some_and(Progress::abandon);
            if unfinished {
                drop(lease);
            } else if lease.is_end() || !polled {
                lease.give_back();
            } else {
                drop(spawn_local(see_end(lease)));
            }
        }
        self.trace.complete();
    }

    fn is_end(&self) -> bool {
        match &self.source {
            Source::Own(bytes) => bytes.is_empty(),
            Source::Upstream { body, .. } => body.is_end(),
        }
    }

    fn cut(&mut self, cut: Cut, cx: &mut Context<'_>) {
        let code = match &cut {
            Cut::Broken(_) => Code::UpstreamReset,
            Cut::Stalled => Code::UpstreamTimeout,
            Cut::Refused(_) => Code::UpstreamInvalid,
        };
        if let Cut::Refused(Refusal::Leak) = &cut {
            self.trace.leaks(Leak::Coded, 1);
        }
        tracing::warn!(
            request_id = self.trace.id().as_str(),
            code = code.as_str(),
            cause = std::error::Error::source(&cut).map(|source| Sources(source).to_string()),
            "{cut}"
        );
        self.trace.cut(code);
        self.ending = Some(cut);
        cx.waker().wake_by_ref();
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let this = &mut *self.get_mut().0;
        if let Some(cut) = this.ending.take() {
            return Poll::Ready(Some(Err(cut)));
        }
        let polled = match &mut this.source {
            Source::Own(bytes) => {
                let bytes = std::mem::take(bytes);
                Poll::Ready((!bytes.is_empty()).then_some(Ok(bytes)))
            }
            Source::Upstream { body, masked, idle, .. } => {
                let polled = body.poll_chunk(cx);
                let found = body.masked();
                this.trace.leaks(Leak::Body, found - *masked);
                *masked = found;
                match polled {
                    Poll::Pending if idle.passed(cx) => Poll::Ready(Some(Err(Cut::Stalled))),
                    Poll::Pending => Poll::Pending,
                    ready => {
                        idle.since = None;
                        ready
                    }
                }
            }
        };
        match polled {
            Poll::Ready(Some(Ok(bytes))) => {
                this.trace.sent(bytes.len());
                // Nobody polls for an end that is already visible.
                if this.is_end() {
                    this.end(true);
                }
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Poll::Ready(Some(Err(cut))) => {
                this.cut(cut, cx);
                Poll::Pending
            }
            Poll::Ready(None) => {
                this.end(true);
                Poll::Ready(None)
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0.source {
            Source::Own(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Upstream { body, .. } => body.size_hint(),
        }
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        // An answer without a body is never polled.
        if self.0.is_end() {
            self.0.end(false);
        }
    }
}

/// Waits for the end of a body of which all bytes have come: HTTP/2 may say it in a frame of its own, and giving the
/// stream up before would reset it. A server that counts resets would close a connection that others share.
async fn see_end(mut lease: Lease) {
    // Whatever comes, the answer is complete already.
    let _ = timeout(END_PATIENCE, std::future::poll_fn(|cx| lease.poll_data(cx))).await;
    lease.give_back();
}
