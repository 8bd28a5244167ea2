//! The head of an answer over HTTP/1.1 (RFC 9112), from Cloudbeds to us.
//!
//! In: bytes as they arrive. Out: status, fields, how the body behind them is framed, and whether the connection can
//! carry another request after it; or nothing yet; or that it is no such head. Reason phrases are not kept: they are text
//! of the server's that nobody would inspect. What fields say about credentials is for the stages behind.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use httparse::{ParserConfig, Response, Status};

use super::field::usual;
use super::spare;

/// The longest head accepted, in bytes.
pub const HEAD_MAX: usize = 64 * 1024;

/// The most field lines accepted.
pub const FIELDS_MAX: usize = 100;

/// A head.
#[derive(Debug)]
pub struct Head {
    /// The status; an interim one (1xx) stands for itself, and another head follows it.
    pub status: StatusCode,
    /// All fields, in their order.
    pub headers: HeaderMap,
    /// What follows.
    pub framing: Framing,
    /// Whether the connection stays open behind the body (RFC 9112 9.3).
    pub keep_alive: bool,
}

/// How the end of an answer's body is found (RFC 9112 6.3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Framing {
    /// So many bytes; none where the method or the status rules a body out.
    Length(u64),
    /// The chunked coding.
    Chunked,
    /// All that comes until the server closes.
    UntilClose,
}

/// The bytes are not the head of an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Malformed {
    /// Against the grammar.
    #[error("the head of the answer is malformed: {0}")]
    Grammar(httparse::Error),
    /// More than [`HEAD_MAX`] bytes.
    #[error("the head of the answer is longer than {HEAD_MAX} bytes")]
    TooLong,
    /// More than [`FIELDS_MAX`] fields, over HTTP/2.
    #[error("the answer has more than {FIELDS_MAX} fields")]
    TooMany,
    /// A name or value that no HTTP message may have.
    #[error("the answer has a field that is none")]
    Field,
    /// No status between 100 and 999.
    #[error("the answer has a status that is none")]
    Status,
    /// `Content-Length` is no number, or two of them differ (RFC 9112 6.3, rule 5).
    #[error("the answer's Content-Length is no length")]
    Length,
    /// HTTP/1.0 has no transfer codings (RFC 9112 6.1).
    #[error("an answer of HTTP/1.0 with Transfer-Encoding")]
    Coding,
}

/// Where one field is in the bytes of a head: a name's end and a value's, from their beginnings.
struct Place {
    name: (usize, usize),
    value: (usize, usize),
}

/// Takes the head of an answer to a request with this method out of `input`; nothing while it is not all there.
///
/// # Errors
/// [`Malformed`]; what `input` holds is of no use then.
pub fn take(input: &mut BytesMut, method: &Method) -> Result<Option<Head>, Malformed> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut parsed = Response::new(&mut []);
    let status = ParserConfig::default()
        .parse_response_with_uninit_headers(&mut parsed, input, &mut fields)
        .map_err(Malformed::Grammar)?;
    let end = match status {
        Status::Complete(end) if end <= HEAD_MAX => end,
        Status::Partial if input.len() < HEAD_MAX => return Ok(None),
        _ => return Err(Malformed::TooLong),
    };
    let base = input.as_ptr().addr();
    let within = |part: &[u8]| {
        let from = part.as_ptr().addr() - base;
        (from, from + part.len())
    };
    let (code, minor) = (parsed.code.unwrap_or_default(), parsed.version);
    let place =
        |field: &httparse::Header<'_>| Place { name: within(field.name.as_bytes()), value: within(field.value) };
    let places: Vec<Place> = parsed.headers.iter().map(place).collect();
    let status = StatusCode::from_u16(code).map_err(|_| Malformed::Status)?;
    let head = input.split_to(end).freeze();
    let (headers, of_connection) = headers(&head, &places)?;
    let framing = framing(method, status, minor == Some(0), &headers)?;
    let says = |option| of_connection && says(&headers, option);
    let stays = if minor == Some(0) { says("keep-alive") } else { !says("close") };
    // A 204 that announces a body may well send it (RFC 9112 6.3): what came then would be taken for the next answer.
    let clean = status != StatusCode::NO_CONTENT
        || !headers.contains_key(TRANSFER_ENCODING) && matches!(content_length(&headers), Ok(None | Some(0)));
    let keep_alive = stays && clean && framing != Framing::UntilClose && status != StatusCode::SWITCHING_PROTOCOLS;
    Ok(Some(Head { status, headers, framing, keep_alive }))
}

/// The fields, and whether `Connection` is among them.
fn headers(head: &Bytes, places: &[Place]) -> Result<(HeaderMap, bool), Malformed> {
    let (mut headers, mut of_connection) = (spare::map(places.len()).unwrap_or_default(), false);
    for place in places {
        let name = &head[place.name.0..place.name.1];
        let name = usual(name).map_or_else(|| HeaderName::from_bytes(name), Ok).map_err(|_| Malformed::Field)?;
        of_connection |= name == CONNECTION;
        let value = HeaderValue::from_maybe_shared(head.slice(place.value.0..place.value.1));
        headers.try_append(name, value.map_err(|_| Malformed::Field)?).map_err(|_| Malformed::Field)?;
    }
    Ok((headers, of_connection))
}

/// RFC 9112 6.3. An answer with a coding that nobody here undoes ends with the connection; it is refused further on.
fn framing(method: &Method, status: StatusCode, old: bool, headers: &HeaderMap) -> Result<Framing, Malformed> {
    if method == Method::HEAD
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
    {
        return Ok(Framing::Length(0));
    }
    if let Some(last) = headers.get_all(TRANSFER_ENCODING).iter().next_back() {
        if old {
            return Err(Malformed::Coding);
        }
        let last = last.as_bytes().rsplit(|byte| *byte == b',').next().unwrap_or_default();
        let chunked = last.trim_ascii().eq_ignore_ascii_case(b"chunked");
        return Ok(if chunked { Framing::Chunked } else { Framing::UntilClose });
    }
    Ok(content_length(headers)?.map_or(Framing::UntilClose, Framing::Length))
}

/// What `Content-Length` says: once, or the same each time.
///
/// # Errors
/// [`Malformed::Length`].
pub fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Malformed> {
    let mut length = None;
    for line in headers.get_all(CONTENT_LENGTH) {
        for member in line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            let number = digits(member).ok_or(Malformed::Length)?;
            if length.is_some_and(|length| length != number) {
                return Err(Malformed::Length);
            }
            length = Some(number);
        }
    }
    Ok(length)
}

/// `str::parse` would take a sign.
fn digits(bytes: &[u8]) -> Option<u64> {
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| u64::from(byte - b'0'));
    let first = digit(bytes.first()?)?;
    bytes[1..].iter().try_fold(first, |sum, byte| sum.checked_mul(10)?.checked_add(digit(byte)?))
}

/// Whether `Connection` names this option.
fn says(headers: &HeaderMap, option: &str) -> bool {
    let options = headers.get_all(CONNECTION).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    options.map(<[u8]>::trim_ascii).any(|member| member.eq_ignore_ascii_case(option.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(head: &str) -> Result<Head, Malformed> {
        let mut input = BytesMut::from(head);
        // However little there is of it, it is not there yet; and no byte behind it is taken.
        for end in 0..head.len() {
            let mut part = BytesMut::from(&head[..end]);
            match take(&mut part, &Method::GET) {
                Ok(None) => {}
                Ok(Some(_)) => panic!("{:?} is a head", &head[..end]),
                Err(_) => break,
            }
        }
        input.extend_from_slice(b"body");
        let taken = take(&mut input, &Method::GET)?;
        assert_eq!(&input[..], b"body");
        Ok(taken.unwrap())
    }

    fn framed(head: &str) -> Result<(Framing, bool), Malformed> {
        whole(head).map(|head| (head.framing, head.keep_alive))
    }

    #[test]
    fn a_head_is_taken_whole_with_its_fields_in_order() {
        let head = whole("HTTP/1.1 200 Fine cbat_x\r\nB: 2\r\na: 1\r\nb:  3 \r\nContent-Length: 4\r\n\r\n").unwrap();
        assert_eq!((head.status, head.framing, head.keep_alive), (StatusCode::OK, Framing::Length(4), true));
        let lines: Vec<_> = head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(lines, [("b", &b"2"[..]), ("b", b"3"), ("a", b"1"), ("content-length", b"4")]);
    }

    #[test]
    fn the_end_of_the_body_is_found_as_the_rules_say() {
        let with = |fields: &str| framed(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n"));
        assert_eq!(with("Content-Length: 0\r\n"), Ok((Framing::Length(0), true)));
        assert_eq!(with("Content-Length: 7\r\nContent-Length: 7, 7\r\n"), Ok((Framing::Length(7), true)));
        assert_eq!(with("Transfer-Encoding: Chunked\r\n"), Ok((Framing::Chunked, true)));
        assert_eq!(with("Transfer-Encoding: gzip, chunked\r\n"), Ok((Framing::Chunked, true)));
        assert_eq!(with("Transfer-Encoding: chunked, gzip\r\n"), Ok((Framing::UntilClose, false)));
        assert_eq!(with(""), Ok((Framing::UntilClose, false)));
        assert_eq!(framed("HTTP/1.1 204 No Content\r\n\r\n"), Ok((Framing::Length(0), true)));
        for announced in ["Content-Length: 3", "Transfer-Encoding: chunked"] {
            let head = format!("HTTP/1.1 204 No Content\r\n{announced}\r\n\r\n");
            assert_eq!(framed(&head), Ok((Framing::Length(0), false)), "{announced}");
        }
        for bodiless in ["304 Not Modified", "100 Continue", "103 Early Hints"] {
            let head = format!("HTTP/1.1 {bodiless}\r\nContent-Length: what\r\n\r\n");
            assert_eq!(framed(&head), Ok((Framing::Length(0), true)), "{bodiless}");
        }
        let mut input = BytesMut::from("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n");
        let to_head = take(&mut input, &Method::HEAD).unwrap().unwrap();
        assert_eq!(to_head.framing, Framing::Length(0));
    }

    #[test]
    fn a_length_that_is_none_is_malformed() {
        for length in ["", "+1", "-1", "1 2", "0x1", "1, 2", "1,", "18446744073709551616"] {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            assert_eq!(framed(&head), Err(Malformed::Length), "{length:?}");
        }
        let twice = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n";
        assert_eq!(framed(twice), Err(Malformed::Length));
    }

    #[test]
    fn the_connection_stays_as_version_and_connection_say() {
        let with = |version: &str, connection: &str| {
            let head = format!("{version} 200 OK\r\nContent-Length: 1\r\nConnection: {connection}\r\n\r\n");
            framed(&head).unwrap().1
        };
        assert!(with("HTTP/1.1", "x") && with("HTTP/1.0", "Keep-Alive"));
        assert!(!with("HTTP/1.1", "x, Close") && !with("HTTP/1.0", "x"));
        assert_eq!(framed("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), Err(Malformed::Coding));
    }

    #[test]
    fn what_is_no_head_is_malformed() {
        for head in [
            "HTTP/2.0 200 OK\r\n\r\n",
            "ICY 200 OK\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 099 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA : 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: 1\r\n folded\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: \0\r\n\r\n",
        ] {
            assert!(whole(head).is_err(), "{head:?}");
        }
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(FIELDS_MAX + 1));
        assert!(whole(&many).is_err());
        let mut endless = BytesMut::from("HTTP/1.1 200 OK\r\na: ");
        endless.resize(HEAD_MAX, b'x');
        assert_eq!(take(&mut endless, &Method::GET).unwrap_err(), Malformed::TooLong);
    }
}
