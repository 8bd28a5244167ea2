//! One request, as it is remembered: the same facts for the metrics and for the access line.
//!
//! In: a [`Finished`] at the end of each request, whatever its end. Out: one line with fixed fields. No header, no
//! query, no body, no error text: only what stands in [`Finished`]. Lines do not go through tracing: they are written
//! once, into a buffer their core keeps, and a tenth of a request's time would go into finding out how.

use std::borrow::Cow;
use std::cell::RefCell;
use std::io::Write;
use std::time::{Duration, SystemTime};

use percent_encoding::percent_decode_str;
use tokio::sync::Notify;

use super::clock::Stamp;
use super::line::{Line, Name, name};
use super::request_id::RequestId;
use super::sink::Sink;
use crate::property::PropertyId;
use crate::wire::mask;
use crate::wire::problem::Code;

/// How long a core collects lines before it hands them to the writing thread: handing over wakes that thread, which
/// costs as much as a request's whole line. A process that is killed loses the lines of this time.
const COLLECT: Duration = Duration::from_millis(50);

/// Lines are handed over at this size at the latest, in bytes: with the line that reaches it, unless that is a long one, less
/// than 64 KiB, which is what the writing thread writes at a time.
const BUNDLE: usize = 62 * 1024;

/// The longest text of Cloudbeds' own that is written, in bytes.
const VENDOR_TEXT_MAX: usize = 64;

/// How an answer ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// The caller has been given all of it.
    Complete,
    /// It was cut short, by us or by the upstream; [`Finished::code`] says why.
    Cut,
    /// The caller went away before its end.
    ClientGone,
}

impl End {
    fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Cut => "cut",
            Self::ClientGone => "client_gone",
        }
    }
}

/// What a request rode on to the upstream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Connection {
    /// A connection made for it.
    New,
    /// A connection that was there.
    Reused,
}

impl Connection {
    fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Reused => "reused",
        }
    }
}

/// A request that is over.
#[derive(Clone, Copy, Debug)]
pub struct Finished<'a> {
    /// Our name for it.
    pub id: RequestId,
    /// Who asked, where callers are named and it is one of them.
    pub caller: Option<&'a str>,
    /// The property it was for, if that has a key.
    pub property: Option<PropertyId>,
    /// As sent.
    pub method: &'a str,
    /// As sent, without the query.
    pub path: &'a str,
    /// The status answered.
    pub status: u16,
    /// What went wrong, if we say that something did.
    pub code: Option<Code>,
    /// How the answer ended.
    pub end: End,
    /// Bytes of the request's body that went up.
    pub bytes_up: u64,
    /// Bytes of the answer's body that came down.
    pub bytes_down: u64,
    /// From the request's head to the end of the answer.
    pub total: Duration,
    /// From the end of the request to the head of Cloudbeds' answer, or to the failure that came instead.
    pub upstream: Option<Duration>,
    /// How long it waited for its turn, if it had to.
    pub queued: Option<Duration>,
    /// What it rode on, if it went up.
    pub connection: Option<Connection>,
    /// `http/1.1` or `h2`.
    pub upstream_protocol: Option<&'static str>,
    /// Cloudbeds' own name for it, for their support.
    pub upstream_request_id: Option<&'a str>,
}

/// Where access lines go; each core gets its [`AccessLines`] from it.
#[derive(Clone, Debug)]
pub struct AccessLog(Option<(Sink, Form)>);

/// How a line looks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Form {
    Json,
    Text,
}

impl AccessLog {
    /// No access lines.
    #[must_use]
    pub fn off() -> Self {
        Self(None)
    }

    pub(super) fn new(sink: Sink, form: Form) -> Self {
        Self(Some((sink, form)))
    }

    /// The lines of one core.
    #[must_use]
    pub fn lines(&self) -> AccessLines {
        let pending = Pending { bytes: Vec::new(), stamp: Stamp::default() };
        AccessLines { log: self.clone(), pending: RefCell::new(pending), begun: Notify::new() }
    }
}

impl AccessLog {
    /// Writes one line at once, for a listener that is not a core's.
    pub fn write(&self, request: &Finished<'_>) {
        // Dropped, it hands over what it has.
        self.lines().write(request);
    }
}

/// One core's lines on their way. They stay on its thread.
#[derive(Debug)]
pub struct AccessLines {
    log: AccessLog,
    pending: RefCell<Pending>,
    begun: Notify,
}

#[derive(Debug)]
struct Pending {
    bytes: Vec<u8>,
    stamp: Stamp,
}

impl AccessLines {
    /// Writes the line of a request. Absent facts leave their field out; durations are milliseconds.
    pub fn write(&self, request: &Finished<'_>) {
        let AccessLog(Some((_, form))) = self.log else { return };
        let mut pending = self.pending.borrow_mut();
        let Pending { bytes, stamp } = &mut *pending;
        if bytes.is_empty() {
            self.begun.notify_one();
        }
        let now = stamp.at(SystemTime::now());
        match form {
            Form::Json => write_line(Line::<true>::start(bytes, now), request),
            Form::Text => write_line(Line::<false>::start(bytes, now), request),
        }
        if bytes.len() >= BUNDLE {
            drop(pending);
            self.flush();
        }
    }

    /// Hands over what was collected.
    pub fn flush(&self) {
        let mut pending = self.pending.borrow_mut();
        if let AccessLog(Some((sink, _))) = &self.log
            && !pending.bytes.is_empty()
        {
            let _ = (&*sink).write_all(&pending.bytes); // Never fails; it counts.
        }
        pending.bytes.clear();
    }

    /// Hands over what was collected, again and again; to be run on the core's runtime for as long as it serves.
    pub async fn keep_flushing(&self) {
        loop {
            self.begun.notified().await;
            tokio::time::sleep(COLLECT).await;
            self.flush();
        }
    }
}

impl Drop for AccessLines {
    fn drop(&mut self) {
        self.flush();
    }
}

const REQUEST_ID: Name = name!("request_id");
const CALLER: Name = name!("caller");
const PROPERTY: Name = name!("property");
const METHOD: Name = name!("method");
const PATH: Name = name!("path");
const STATUS: Name = name!("status");
const CODE: Name = name!("code");
const END: Name = name!("end");
const BYTES_UP: Name = name!("bytes_up");
const BYTES_DOWN: Name = name!("bytes_down");
const DURATION_MS: Name = name!("duration_ms");
const QUEUED_MS: Name = name!("queued_ms");
const UPSTREAM_MS: Name = name!("upstream_ms");
const CONNECTION: Name = name!("connection");
const UPSTREAM_PROTOCOL: Name = name!("upstream_protocol");
const UPSTREAM_REQUEST_ID: Name = name!("upstream_request_id");

fn write_line<const JSON: bool>(mut line: Line<'_, JSON>, request: &Finished<'_>) {
    line.word(&REQUEST_ID, request.id.as_bytes());
    if let Some(caller) = request.caller {
        line.text(&CALLER, caller);
    }
    if let Some(property) = request.property {
        line.numbered(&PROPERTY, property.get());
    }
    line.text(&METHOD, &mask::text(request.method));
    line.text(&PATH, &shown_path(request.path));
    line.number(&STATUS, request.status.into());
    if let Some(code) = request.code {
        line.word(&CODE, code.as_str());
    }
    line.word(&END, request.end.as_str());
    line.number(&BYTES_UP, request.bytes_up);
    line.number(&BYTES_DOWN, request.bytes_down);
    line.millis(&DURATION_MS, request.total);
    if let Some(queued) = request.queued {
        line.millis(&QUEUED_MS, queued);
    }
    if let Some(upstream) = request.upstream {
        line.millis(&UPSTREAM_MS, upstream);
    }
    if let Some(connection) = request.connection {
        line.word(&CONNECTION, connection.as_str());
    }
    if let Some(protocol) = request.upstream_protocol {
        line.word(&UPSTREAM_PROTOCOL, protocol);
    }
    if let Some(id) = request.upstream_request_id {
        line.text(&UPSTREAM_REQUEST_ID, &vendor_text(id));
    }
    line.end();
}

/// The path with any key masked. A key that is percent-encoded in part would escape the mask, so a path that decodes
/// to one is not shown at all.
fn shown_path(path: &str) -> Cow<'_, str> {
    if path.contains('%') {
        let decoded: Vec<u8> = percent_decode_str(path).collect();
        if memchr::memmem::find(&decoded, crate::secret::KEY_PREFIX.as_bytes()).is_some() {
            return Cow::Borrowed("*");
        }
    }
    mask::text(path)
}

fn vendor_text(text: &str) -> Cow<'_, str> {
    mask::text(&text[..text.floor_char_boundary(VENDOR_TEXT_MAX)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_in_a_path_is_never_shown_in_whatever_spelling() {
        assert_eq!(shown_path("/api/v1.3/getHotels"), "/api/v1.3/getHotels");
        assert_eq!(shown_path("/a%20b"), "/a%20b");
        assert_eq!(shown_path("/k/cbat_blue/x"), "/k/cbat_****/x");
        assert_eq!(shown_path("/k/%63bat_blue"), "*");
        assert_eq!(shown_path("/k/cbat%5Fblue"), "*");
        assert_eq!(shown_path("/k/cbat_%62lue"), "*");
    }

    #[test]
    fn what_cloudbeds_names_a_request_is_kept_short() {
        assert_eq!(vendor_text("abc-1"), "abc-1");
        assert_eq!(vendor_text(&"é".repeat(40)), "é".repeat(32));
        assert_eq!(vendor_text("cbat_blue"), "cbat_****");
    }
}
