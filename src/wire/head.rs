//! A request head over HTTP/1 (RFC 9112), read byte by byte.
//!
//! In: the bytes of one head, line ends included. Out: the request, how the body behind it is framed and what it says of
//! its connection; or the refusal. Most parsers forgive what RFC 9112 lets a recipient forgive (a bare LF, a `#` in the
//! target, two equal `Content-Length` lines, codings before `chunked`); a process that holds keys refuses every head
//! that two parsers could read differently. This file decides syntax and framing only; what the request *asks for* is
//! judged in `proxy`.

pub mod http2;

use std::net::Ipv6Addr;

use bytes::Bytes;
use http::header::{self, CONNECTION, CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};
use memchr::{memchr, memmem};

use super::field::usual;
use super::incoming::Incoming;
use super::problem::{Code, Problem};
use super::spare;

/// The longest method accepted, in bytes. The longest registered one, UPDATEREDIRECTREF, has 17.
const METHOD_MAX: usize = 24;

/// The longest target and the longest header name that the http crate can hold, in bytes.
const TARGET_MAX: usize = 65_534;
const NAME_MAX: usize = 65_535;

/// How the bytes behind a head belong to it (RFC 9112 6.3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Framing {
    /// No body.
    None,
    /// Exactly so many bytes, at least one.
    Length(u64),
    /// The chunked coding.
    Chunked,
}

const REQUEST_ERROR: &str = "http_request_error";

/// What a head with more than `client.max_headers` lines is told.
pub(super) const TOO_MANY_LINES: Problem =
    too_large("The request has too many header lines; send fewer, or raise client.max_headers.");

pub(super) const fn malformed(detail: &'static str) -> Problem {
    Problem::new(Code::RequestInvalid, REQUEST_ERROR, detail).closing()
}

pub(super) const fn too_large(detail: &'static str) -> Problem {
    Problem::new(Code::HeadersTooLarge, REQUEST_ERROR, detail).closing()
}

/// A head that may be acted on.
#[derive(Debug)]
pub struct Head {
    /// The request: method, target, version and all fields, in their order; as yet without its body. In a box: it goes
    /// from hand to hand, and its two hundred bytes would be copied each time.
    pub request: Box<Request<Incoming>>,
    /// What follows.
    pub framing: Framing,
    /// Whether its caller wants to send another one on the connection (RFC 9112 9.3).
    pub keep_alive: bool,
    /// Whether its caller waits for a word before it sends the body (RFC 9110 10.1.1).
    pub expects: bool,
}

/// The lines of a head, found while it arrives.
#[derive(Debug, Default)]
pub struct Lines {
    /// Where each line's LF is.
    ends: Vec<usize>,
    /// So many bytes were searched.
    searched: usize,
}

impl Lines {
    /// Looks on in what has come of a head; how long it is, once its last line is there. A line that ends in a bare LF
    /// ends the search too: [`read`] refuses it, and waiting for a CRLF would be waiting for ever.
    pub fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut start = self.ends.last().map_or(0, |last| last + 1);
        while let Some(found) = memchr(b'\n', bytes.get(self.searched..)?) {
            let end = self.searched + found;
            self.ends.push(end);
            self.searched = end + 1;
            let line = &bytes[start..end];
            if line == b"\r" || line.last() != Some(&b'\r') {
                return Some(end + 1);
            }
            start = end + 1;
        }
        self.searched = bytes.len();
        None
    }

    /// How many lines there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.ends.len()
    }

    /// Whether nothing has been searched.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.searched == 0
    }

    /// Forgets all, for another head.
    pub fn clear(&mut self) {
        self.ends.clear();
        self.searched = 0;
    }
}

/// Reads a complete head: the request line, the header lines and the empty line behind them.
///
/// # Errors
/// A closing [`Problem`] in fixed words: after a head that cannot be trusted, neither can what follows it.
pub fn read(head: &Bytes, lines: &Lines, max_headers: usize) -> Result<Head, Problem> {
    let mut start = 0;
    let mut ends = lines.ends.iter().map(|end| {
        let line = &head[start..*end];
        start = end + 1;
        // RFC 9112 2.2: a bare LF may be accepted; parsers differ. A bare CR is part of no token, target or value.
        line.strip_suffix(b"\r")
            .ok_or_else(|| malformed("A line of the request head does not end in CRLF; end every line with CR LF."))
    });
    let (method, target, version) = request_line(ends.next().unwrap_or(Ok(b""))?, head)?;
    let count = lines.count().saturating_sub(2);
    if count > max_headers {
        return Err(TOO_MANY_LINES);
    }
    let (mut request, mut seen) = (Box::new(Request::new(Incoming::Absent)), Seen::default());
    *request.headers_mut() = spare::map(count).map_err(|_| TOO_MANY_LINES)?;
    for line in ends {
        let line = line?;
        if line.is_empty() {
            break;
        }
        header_line(line, head, request.headers_mut(), &mut seen)?;
    }
    let old = version == Version::HTTP_10;
    let (keep_alive, expects) = (if old { seen.keeps && !seen.closes } else { !seen.closes }, seen.expects && !old);
    let framing = seen.framing(old)?;
    (*request.method_mut(), *request.uri_mut(), *request.version_mut()) = (method, target, version);
    Ok(Head { request, framing, keep_alive, expects })
}

/// RFC 9112 3: method SP request-target SP HTTP-version.
fn request_line(line: &[u8], head: &Bytes) -> Result<(Method, Uri, Version), Problem> {
    let bad = || malformed("The request line is malformed; send `METHOD /path HTTP/1.1` with single spaces.");
    let Some(first) = memchr(b' ', line) else { return Err(bad()) };
    let (method, rest) = (&line[..first], &line[first + 1..]);
    let Some(second) = memchr(b' ', rest) else { return Err(bad()) };
    let (target, version) = (&rest[..second], &rest[second + 1..]);
    let known = if method.len() <= METHOD_MAX && all(method, TOKEN) { Method::from_bytes(method).ok() } else { None };
    let method = known.ok_or_else(|| {
        malformed("The method is not a valid HTTP method; use GET, POST, PUT, PATCH, DELETE or HEAD.")
    })?;
    let version = match version {
        b"HTTP/1.1" => Version::HTTP_11,
        b"HTTP/1.0" => Version::HTTP_10,
        _ => return Err(malformed("This listener speaks HTTP/1.1 and HTTP/1.0; switch the client to HTTP/1.1.")),
    };
    if target.is_empty() {
        return Err(bad());
    }
    check_target(method.as_str().as_bytes(), target)?;
    let target = Uri::from_maybe_shared(head.slice_ref(target)).map_err(|_| no_url())?;
    Ok((method, target, version))
}

const fn no_url() -> Problem {
    let words = "The request target is not a URL; percent-encode bytes such as \", <, > and ` in it.";
    Problem::new(Code::PathInvalid, REQUEST_ERROR, words).closing()
}

/// The target's bytes. What it means is judged elsewhere.
fn check_target(method: &[u8], target: &[u8]) -> Result<(), Problem> {
    let invalid = |detail| Err(Problem::new(Code::PathInvalid, REQUEST_ERROR, detail).closing());
    if target.len() > TARGET_MAX {
        return Err(too_large("The request target is longer than 65534 bytes; send what is long in the body."));
    }
    if target.first() == Some(&b'/') && all(target, PLAIN) {
        return Ok(());
    }
    // RFC 9112 3.2: no fragment in a request target. The http crate would cut it off without a word.
    if target.contains(&b'#') {
        return invalid("The request target contains `#`; a fragment is never sent, and a literal one is written %23.");
    }
    if target.iter().any(|byte| *byte <= b' ' || *byte == 0x7f) {
        return invalid("The request target contains a control character; percent-encode it.");
    }
    if Uri::try_from(target).is_err() {
        return Err(no_url());
    }
    // RFC 9112 3.2.4: in absolute form, OPTIONS without a path means `*`; the http crate makes it `/`.
    let whole_server = method == b"OPTIONS"
        && memmem::find(target, b"://").is_some_and(|at| !target[at + 3..].iter().any(|byte| b"/?".contains(byte)));
    if whole_server {
        return invalid("OPTIONS for the whole server is not forwarded; name a path.");
    }
    Ok(())
}

/// What a byte may be part of: [`TOKEN`], [`PLAIN`], [`HOST`]. A table, since three comparisons for every byte of every
/// head are a tenth of what a request costs here.
static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let at = byte as u8;
        classes[byte] = if is_token(at) { TOKEN } else { 0 }
            | if is_plain(at) { PLAIN } else { 0 }
            | if is_host_byte(at) { HOST } else { 0 };
        byte += 1;
    }
    classes
};

const TOKEN: u8 = 1;
const PLAIN: u8 = 2;
const HOST: u8 = 4;

/// Whether every byte is of a class. All are looked at, without a branch for each.
fn all(bytes: &[u8], class: u8) -> bool {
    bytes.iter().fold(class, |classes, byte| classes & CLASSES[usize::from(*byte)]) != 0
}

/// RFC 3986's unreserved and reserved characters and `%`, with which every path and query can be written.
const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'.'
                | b'_'
                | b'~'
                | b'%'
                | b':'
                | b'/'
                | b'?'
                | b'['
                | b']'
                | b'@'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b';'
                | b'='
        )
}

/// What the header lines said about framing, host and connection.
#[derive(Default)]
struct Seen {
    hosts: u8,
    length: Option<u64>,
    chunked: bool,
    closes: bool,
    keeps: bool,
    expects: bool,
}

impl Seen {
    fn framing(self, old: bool) -> Result<Framing, Problem> {
        if !old && self.hosts == 0 {
            return Err(malformed("An HTTP/1.1 request needs exactly one Host header (RFC 9112 3.2); send one."));
        }
        if old && (self.chunked || self.length.is_some_and(|length| length > 0)) {
            // Request smuggling by way of HTTP/1.0 bodies: RUSTSEC-2026-0034 and its kin.
            return Err(malformed("An HTTP/1.0 request cannot carry a body here; switch the client to HTTP/1.1."));
        }
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(malformed(
                "The request has both Content-Length and Transfer-Encoding (RFC 9112 6.1); send one of them.",
            )),
            (true, None) => Ok(Framing::Chunked),
            (false, Some(length)) if length > 0 => Ok(Framing::Length(length)),
            (false, _) => Ok(Framing::None),
        }
    }
}

fn header_line(line: &[u8], head: &Bytes, headers: &mut HeaderMap, seen: &mut Seen) -> Result<(), Problem> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        // RFC 9112 5.2: a server must refuse folded lines or replace them; we do not guess.
        return Err(malformed("A header line starts with white space; folded headers are not accepted."));
    }
    let Some(colon) = line.iter().position(|byte| *byte == b':') else {
        return Err(malformed("A header line has no colon; write `Name: value`."));
    };
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.len() > NAME_MAX {
        return Err(too_large("A header name is longer than 65535 bytes; send what is long in the body."));
    }
    // The http crate takes `"` for a part of a name, which RFC 9110 5.6.2 does not.
    let known = usual(name).or_else(|| if all(name, TOKEN) { HeaderName::from_bytes(name).ok() } else { None });
    let known = known
        .ok_or_else(|| malformed("A header name contains white space or another character that names cannot have."))?;
    let value = without_space(value);
    let held = HeaderValue::from_maybe_shared(head.slice_ref(value))
        .map_err(|_| malformed("A header value contains a control character; remove it."))?;
    match known {
        header::HOST => host(value, seen)?,
        EXPECT => seen.expects = value.eq_ignore_ascii_case(b"100-continue"),
        CONNECTION => {
            for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                seen.closes |= option.eq_ignore_ascii_case(b"close");
                seen.keeps |= option.eq_ignore_ascii_case(b"keep-alive");
            }
        }
        CONTENT_LENGTH => length(value, seen)?,
        TRANSFER_ENCODING => coding(value, seen)?,
        // Proxies that fold `_` to `-` would frame the message by these (RFC 3875 4.1.18 and its fruits).
        _ if is_framing_twin(name) => {
            return Err(malformed("A header name is an underscore twin of a framing header; spell it with hyphens."));
        }
        _ => {}
    }
    headers.try_append(known, held).map(drop).map_err(|_| TOO_MANY_LINES)
}

/// RFC 9110 5.5: white space around a value is no part of it. No other byte is white space there.
fn without_space(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

fn is_framing_twin(name: &[u8]) -> bool {
    let folded = |twin: &[u8]| {
        name.len() == twin.len()
            && name
                .iter()
                .zip(twin)
                .all(|(byte, plain)| byte.eq_ignore_ascii_case(plain) || (*plain == b'-' && *byte == b'_'))
    };
    folded(b"content-length") || folded(b"transfer-encoding")
}

/// RFC 9112 3.2: exactly one, and it must be a host with an optional port.
fn host(value: &[u8], seen: &mut Seen) -> Result<(), Problem> {
    seen.hosts += 1;
    if seen.hosts > 1 {
        return Err(malformed("The request has more than one Host header; send exactly one."));
    }
    if is_host(value) {
        return Ok(());
    }
    Err(malformed("The Host header is not a host name with an optional port; send one such as localhost:8080."))
}

/// RFC 3986 3.2.2 and 3.2.3: a name or an address, with an optional port. It may be empty (RFC 9110 7.2), but a port
/// alone may not. A comma, which RFC 3986 allows in a name, makes a list of it for some servers.
fn is_host(value: &[u8]) -> bool {
    let (name, port) = match value {
        [b'[', rest @ ..] => {
            let Some(end) = memchr(b']', rest) else { return false };
            let address = std::str::from_utf8(&rest[..end]).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok());
            if !address {
                return false;
            }
            match &rest[end + 1..] {
                [] => return true,
                [b':', port @ ..] => (&b"-"[..], port),
                _ => return false,
            }
        }
        _ => match memchr(b':', value) {
            Some(colon) => (&value[..colon], &value[colon + 1..]),
            None => (value, &b""[..]),
        },
    };
    let number = port.iter().try_fold(0_u32, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u32::from(byte - b'0'))?;
        Some(number * 10 + digit).filter(|number| *number <= 65_535)
    });
    number.is_some() && all(name, HOST) && !(name.is_empty() && name.len() != value.len())
}

/// RFC 3986's reg-name without its percent-encodings and its comma.
const fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b'=' | b';'
        )
}

fn length(value: &[u8], seen: &mut Seen) -> Result<(), Problem> {
    if seen.length.is_some() {
        return Err(malformed("The request has more than one Content-Length; send exactly one."));
    }
    let bad = || malformed("Content-Length is not a plain decimal number; send the body's size in bytes.");
    // 19 digits always fit; no body is as large as what needs more. A leading zero is octal to some.
    if value.is_empty() || value.len() > 19 || (value.len() > 1 && value[0] == b'0') {
        return Err(bad());
    }
    let mut length: u64 = 0;
    for byte in value {
        if !byte.is_ascii_digit() {
            return Err(bad());
        }
        length = length * 10 + u64::from(byte - b'0');
    }
    // 2^62 bytes are out of anybody's reach, and sums of such lengths still fit.
    if length > 1 << 62 {
        return Err(bad());
    }
    seen.length = Some(length);
    Ok(())
}

fn coding(value: &[u8], seen: &mut Seen) -> Result<(), Problem> {
    if seen.chunked || !value.eq_ignore_ascii_case(b"chunked") {
        // RFC 9112 6.1 wants `chunked` last; any other coding would reach Cloudbeds undecoded or not at all.
        return Err(malformed("Transfer-Encoding must be `chunked` and nothing else, in one line."));
    }
    seen.chunked = true;
    Ok(())
}

/// RFC 9110 5.6.2's tchar.
pub(crate) const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framing(head: &str) -> Result<Framing, Code> {
        let mut lines = Lines::default();
        assert!(lines.find(head.as_bytes()).is_some(), "{head:?}");
        read(&Bytes::copy_from_slice(head.as_bytes()), &lines, 100)
            .map(|head| head.framing)
            .map_err(|problem| problem.code)
    }

    #[test]
    fn framing_follows_rfc_9112() {
        assert_eq!(framing("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), Ok(Framing::None));
        assert_eq!(framing("GET / HTTP/1.0\r\n\r\n"), Ok(Framing::None));
        assert_eq!(framing("POST / HTTP/1.1\r\nHost: a:80\r\ncontent-LENGTH:\t 12 \r\n\r\n"), Ok(Framing::Length(12)));
        assert_eq!(framing("POST / HTTP/1.1\r\nHost:\r\nContent-Length: 0\r\n\r\n"), Ok(Framing::None));
        assert_eq!(framing("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n"), Ok(Framing::Chunked));
    }

    #[test]
    fn heads_two_parsers_could_read_differently_are_refused() {
        for head in [
            "GET / HTTP/1.1\nHost: a\n\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
            "GET / http/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
            "GET /\r\nHost: a\r\n\r\n",
            "G@T / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 05\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent_Length: 1\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer_Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.0\r\nContent-Length: 1\r\n\r\n",
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            assert_eq!(framing(head), Err(Code::RequestInvalid), "{head:?}");
        }
        for head in [
            "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a\u{7f} HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a<b HTTP/1.1\r\nHost: a\r\n\r\n",
        ] {
            assert_eq!(framing(head), Err(Code::PathInvalid), "{head:?}");
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_address_and_perhaps_a_port() {
        for host in
            ["", "a", "a:", "a:80", "a:65535", "[::1]", "[::1]:80", "[::ffff:1.2.3.4]:", "my_app~1.x", "1.2.3.4:1"]
        {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in [
            ":80",
            "a:b",
            "a:65536",
            "a:99999999999999999999",
            "a:1:2",
            "::1",
            "[",
            "[]",
            "[a]",
            "[::1",
            "[::1]a",
            "::1]",
            "[::1]:b",
            "a,b",
            "a@b",
            "a%20b",
            "a b",
            "a[",
            "a/b",
        ] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn too_many_header_lines_are_refused() {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(100));
        assert_eq!(framing(&head), Err(Code::HeadersTooLarge));
    }
}
