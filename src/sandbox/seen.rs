//! What arrived, for tests to look at afterwards.
//!
//! In: request heads, and their bodies as they stream by. Out: [`Seen`], a bounded history. Bodies are counted, not kept.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use http::{Method, Request, Version};
use http_body::{Body, Frame, SizeHint};

/// How many requests are remembered.
const KEPT: usize = 10_000;

/// One request as the sandbox saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The method.
    pub method: Method,
    /// Path and query, byte for byte.
    pub target: String,
    /// `Host` in HTTP/1.1, `:authority` in HTTP/2.
    pub authority: String,
    /// The HTTP version it came by.
    pub version: Version,
    /// Every header line in order of arrival by name; names are in lower case.
    pub headers: Vec<(String, Vec<u8>)>,
    /// How much of its body has been read so far.
    pub body_bytes: u64,
    /// Whether trailers came behind its body.
    pub trailers: bool,
    /// The number of its connection, counted from 1.
    pub connection: u64,
}

impl Seen {
    /// The values of one header, in order.
    #[must_use]
    pub fn header(&self, name: &str) -> Vec<&[u8]> {
        self.headers.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_slice()).collect()
    }
}

/// The history, and the number of connections.
pub(super) struct Recorder {
    on: bool,
    connections: AtomicU64,
    history: Mutex<VecDeque<(Seen, Arc<Progress>)>>,
}

impl Recorder {
    pub(super) fn new(on: bool) -> Self {
        Self { on, connections: AtomicU64::new(0), history: Mutex::default() }
    }

    /// Counts a connection and gives it its number.
    pub(super) fn connected(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    pub(super) fn requests(&self) -> Vec<Seen> {
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = |(seen, body): &(Seen, Arc<Progress>)| {
            let mut seen = seen.clone();
            seen.body_bytes = body.bytes.load(Ordering::Relaxed);
            seen.trailers = body.trailers.load(Ordering::Relaxed);
            seen
        };
        history.iter().map(counted).collect()
    }

    /// Notes the head and counts the body from here on.
    pub(super) fn record<B>(&self, connection: u64, request: Request<B>) -> Request<Counted<B>> {
        let count = self.on.then(|| {
            let count = Arc::<Progress>::default();
            let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
            if history.len() == KEPT {
                history.pop_front();
            }
            history.push_back((head(connection, &request), Arc::clone(&count)));
            count
        });
        request.map(|body| Counted { body, count })
    }
}

fn head<B>(connection: u64, request: &Request<B>) -> Seen {
    let owned = |(name, value): (&http::HeaderName, &http::HeaderValue)| (name.to_string(), value.as_bytes().to_vec());
    Seen {
        method: request.method().clone(),
        target: request.uri().path_and_query().map_or_else(String::new, ToString::to_string),
        authority: authority(request),
        version: request.version(),
        headers: request.headers().iter().map(owned).collect(),
        body_bytes: 0,
        trailers: false,
        connection,
    }
}

/// The host the request is for, wherever its HTTP version puts that.
pub(super) fn authority<B>(request: &Request<B>) -> String {
    let host = || request.headers().get(http::header::HOST).and_then(|host| host.to_str().ok());
    request.uri().authority().map(http::uri::Authority::as_str).or_else(host).unwrap_or_default().to_owned()
}

/// How much of a body has come by.
#[derive(Default)]
struct Progress {
    bytes: AtomicU64,
    trailers: AtomicBool,
}

/// A request body that is counted while it is read.
pub(super) struct Counted<B> {
    body: B,
    count: Option<Arc<Progress>>,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Counted<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let (Poll::Ready(Some(Ok(frame))), Some(count)) = (&polled, &self.count) {
            match frame.data_ref() {
                Some(data) => {
                    count.bytes.fetch_add(data.remaining() as u64, Ordering::Relaxed);
                }
                None => count.trailers.store(true, Ordering::Relaxed),
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
