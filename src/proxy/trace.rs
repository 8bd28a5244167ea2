//! What one request leaves behind in log and metrics.
//!
//! In: facts, as the stages learn them. Out: exactly one record, written when the answer ends, however it ends: a
//! request whose future is dropped because its caller went away is recorded by that very drop.

use std::rc::Rc;
use std::time::Instant;

use http::{HeaderMap, Method, Request, StatusCode, Uri, Version};

use super::Proxy;
use super::pool::Protocol;
use super::upstream::Exchange;
use crate::property::PropertyId;
use crate::telemetry::RequestId;
use crate::telemetry::access::{AccessLines, Connection, End, Finished};
use crate::telemetry::metrics::{Leak, Recorder};
use crate::wire::body::Progress;
use crate::wire::field::X_REQUEST_ID;
use crate::wire::problem::Code;

/// The record in the making.
pub struct Trace {
    recorder: Rc<Recorder>,
    lines: Rc<AccessLines>,
    id: RequestId,
    method: Method,
    uri: Uri,
    started: Instant,
    caller: Option<&'static str>,
    property: Option<PropertyId>,
    status: Option<StatusCode>,
    code: Option<Code>,
    end: End,
    bytes_down: u64,
    exchange: Exchange,
    vendor_id: Option<Box<str>>,
}

impl Trace {
    /// The record of a request that has just arrived. In a box, since it is handed on until the answer has ended.
    #[must_use]
    pub fn start<B>(proxy: &Proxy, request: &Request<B>) -> Box<Self> {
        Box::new(Self {
            recorder: Rc::clone(&proxy.recorder),
            lines: Rc::clone(&proxy.lines),
            id: proxy.ids.next(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            started: Instant::now(),
            caller: None,
            property: None,
            status: None,
            code: None,
            // Until something else is known: dropped now, the caller is gone.
            end: End::ClientGone,
            bytes_down: 0,
            exchange: Exchange { shared: request.version() == Version::HTTP_2, ..Exchange::default() },
            vendor_id: None,
        })
    }

    /// Our name for the request.
    #[must_use]
    pub fn id(&self) -> RequestId {
        self.id
    }

    /// When the request's head was there.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.started
    }

    /// The caller's name, once it is known who asks.
    pub fn asked_by(&mut self, caller: Option<&'static str>) {
        self.caller = caller;
    }

    /// The property, if the request is about one; only ids in the key set may be named here, since they become metric
    /// labels.
    pub fn about(&mut self, property: Option<PropertyId>) {
        self.property = property;
    }

    /// The property, once it is known to be ours.
    #[must_use]
    pub fn property(&self) -> Option<PropertyId> {
        self.property
    }

    /// Where the exchange with Cloudbeds notes what it learns.
    pub fn exchange(&mut self) -> &mut Exchange {
        &mut self.exchange
    }

    /// The request body's record, once there is one.
    #[must_use]
    pub fn upload(&self) -> Option<&Progress> {
        self.exchange.progress.as_deref()
    }

    /// The head of the answer, as it is about to be written.
    pub fn answered(&mut self, status: StatusCode, code: Option<Code>, headers: &HeaderMap) {
        self.status = Some(status);
        self.code = code;
        // Not on answers of our own. A copy: the field is a part of a buffer, which would be held until the answer's end.
        let vendor_id = headers.get(X_REQUEST_ID).filter(|_| code.is_none());
        self.vendor_id = vendor_id.and_then(|id| id.to_str().ok()).map(Box::from);
    }

    /// Bytes of the answer's body that were handed to the connection.
    pub fn sent(&mut self, bytes: usize) {
        self.bytes_down += bytes as u64;
    }

    /// Keys that were covered, or that ended the stream.
    pub fn leaks(&self, place: Leak, count: u32) {
        for _ in 0..count {
            self.recorder.leak_stopped(place);
        }
    }

    /// The whole answer was handed over.
    pub fn complete(&mut self) {
        self.end = End::Complete;
    }

    /// The answer ends before its end, and we know why.
    pub fn cut(&mut self, code: Code) {
        self.end = End::Cut;
        self.code = Some(code);
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let connection = self.exchange.connection;
        let finished = Finished {
            id: self.id,
            caller: self.caller,
            property: self.property,
            method: self.method.as_str(),
            path: self.uri.path(),
            status: self.status.map_or(0, |status| status.as_u16()),
            code: self.code,
            end: self.end,
            bytes_up: self.exchange.progress.as_ref().map_or(0, |progress| progress.bytes()),
            bytes_down: self.bytes_down,
            total: self.started.elapsed(),
            upstream: self.exchange.waited,
            queued: self.exchange.queued,
            connection: connection.map(|(reused, _)| if reused { Connection::Reused } else { Connection::New }),
            upstream_protocol: connection.map(|(_, protocol)| match protocol {
                Protocol::Http1 => "http/1.1",
                Protocol::Http2 => "h2",
            }),
            upstream_request_id: self.vendor_id.as_deref(),
        };
        self.recorder.finished(&finished);
        self.lines.write(&finished);
    }
}
