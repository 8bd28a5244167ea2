//! One request, as it is remembered: the same facts for the metrics and for the access line.
//!
//! In: a [`Finished`] at the end of each request, whatever its end. Out: one event with the target `access` and fixed
//! fields. No header, no query, no body, no error text: only what stands in [`Finished`].

use std::borrow::Cow;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use super::line;
use super::request_id::RequestId;
use crate::property::PropertyId;
use crate::wire::mask;
use crate::wire::problem::Code;

/// The target of access events, by which filters and layers know them.
pub const TARGET: &str = "access";

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
    /// What it rode on, if it went up.
    pub connection: Option<Connection>,
    /// `http/1.1` or `h2`.
    pub upstream_protocol: Option<&'static str>,
    /// Cloudbeds' own name for it, for their support.
    pub upstream_request_id: Option<&'a str>,
}

/// Writes the access line, if access lines are on. Absent facts leave their field out; durations are milliseconds.
pub fn emit(request: &Finished<'_>) {
    let path = shown_path(request.path);
    tracing::info!(
        target: TARGET,
        request_id = request.id.as_str(),
        property = request.property.map(PropertyId::get),
        method = &*mask::text(request.method),
        path = &*path,
        status = request.status,
        code = request.code.map(Code::as_str),
        end = request.end.as_str(),
        bytes_up = request.bytes_up,
        bytes_down = request.bytes_down,
        duration_ms = millis(request.total),
        upstream_ms = request.upstream.map(millis),
        connection = request.connection.map(Connection::as_str),
        upstream_protocol = request.upstream_protocol,
        upstream_request_id = request.upstream_request_id.map(vendor_text).as_deref(),
    );
}

/// Lets this thread collect its lines and hand them over at [`flush`], or every 16 KiB, instead of one by one: handing
/// over wakes the writing thread, which is a system call. Only for a thread that calls [`flush`] whenever it runs out
/// of work, as `tokio::runtime::Builder::on_thread_park` does.
pub fn collect_on_this_thread() {
    line::collect_on_this_thread();
}

/// Hands the lines over that this thread has collected. Cheap when there are none.
pub fn flush() {
    line::flush();
}

fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
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
