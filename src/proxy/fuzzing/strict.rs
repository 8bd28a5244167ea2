//! A second, strict reading of requests (RFC 9112), to compare ours with.
//!
//! In: the bytes of a connection, all of them. Out: the first request in them, or why there is none. It is written the
//! plain way, with everything in memory, and shares no code with `wire/head.rs` and `wire/chunks.rs`: what both get wrong,
//! they would have to get wrong twice. Targets are opaque: what they mean is not a matter of parsing.

/// What stands at the beginning of some bytes.
#[derive(Debug)]
pub(super) enum Reading<'a> {
    Request(Request<'a>),
    /// Nothing, or a head that has not ended.
    Unfinished,
    /// No head that RFC 9112 knows.
    Malformed(#[allow(dead_code, reason = "for whoever reads of a failure")] &'static str),
}

/// One request.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    pub(super) target: &'a [u8],
    /// HTTP/1.`minor`.
    pub(super) minor: u8,
    pub(super) fields: Vec<(&'a str, &'a [u8])>,
    pub(super) body: Body,
    /// What follows it; nothing where its body is not whole.
    pub(super) rest: &'a [u8],
}

/// What follows a head.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Body {
    Whole(Vec<u8>),
    /// At least so many bytes are still to come.
    Unfinished(usize),
    Malformed,
}

impl<'a> Request<'a> {
    /// The values of a field, in order.
    pub(super) fn values<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'a [u8]> + 's {
        self.fields.iter().filter(move |(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }

    /// The body, if it is whole.
    pub(super) fn whole(&self) -> Option<&[u8]> {
        if let Body::Whole(body) = &self.body { Some(body) } else { None }
    }
}

/// Reads one request.
pub(super) fn read(mut bytes: &[u8]) -> Reading<'_> {
    // 2.2: empty lines before a request line are ignored.
    while let Some(rest) = bytes.strip_prefix(b"\r\n") {
        bytes = rest;
    }
    let Some(end) = find(bytes, b"\r\n\r\n") else { return Reading::Unfinished };
    let (head, behind) = (&bytes[..end], &bytes[end + 4..]);
    head_of(head).map_or_else(Reading::Malformed, |(method, target, minor, fields)| {
        let mut request = Request { method, target, minor, fields, body: Body::Malformed, rest: &[] };
        match body_of(&request, behind) {
            Err(why) => Reading::Malformed(why),
            Ok((body, rest)) => {
                (request.body, request.rest) = (body, rest);
                Reading::Request(request)
            }
        }
    })
}

type Head<'a> = (&'a str, &'a [u8], u8, Vec<(&'a str, &'a [u8])>);

fn head_of(head: &[u8]) -> Result<Head<'_>, &'static str> {
    let mut lines = split(head, b"\r\n").into_iter();
    let line = lines.next().unwrap_or_default();
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let [method, target, version] = words[..] else { return Err("the request line has not three words") };
    let method = token(method).ok_or("the method is no token")?;
    if target.is_empty() || target.iter().any(|byte| byte.is_ascii_control() || *byte == b'#') {
        return Err("the target has a control character or a fragment");
    }
    let minor = match version {
        b"HTTP/1.0" => 0,
        b"HTTP/1.1" => 1,
        _ => return Err("the version is another one"),
    };
    let fields = lines.map(field).collect::<Result<_, _>>()?;
    Ok((method, target, minor, fields))
}

/// 5: field-name ":" OWS field-value OWS, and no folding.
fn field(line: &[u8]) -> Result<(&str, &[u8]), &'static str> {
    let colon = find(line, b":").ok_or("a field line has no colon")?;
    let name = token(&line[..colon]).ok_or("a field's name is no token")?;
    let value = &line[colon + 1..];
    if value.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
        return Err("a field's value has a control character");
    }
    Ok((name, trim(value)))
}

/// 6.3, of which only what nobody can misunderstand is accepted.
fn body_of<'a>(head: &Request<'a>, behind: &'a [u8]) -> Result<(Body, &'a [u8]), &'static str> {
    let codings: Vec<&[u8]> = head.values("transfer-encoding").collect();
    let lengths: Vec<&[u8]> = head.values("content-length").collect();
    match (&codings[..], &lengths[..]) {
        ([], []) => Ok((Body::Whole(Vec::new()), behind)),
        ([], [length]) => {
            let digits = std::str::from_utf8(length).unwrap_or_default();
            let good = !digits.is_empty() && digits.chars().all(|digit| digit.is_ascii_digit());
            let length: u64 = digits.parse().ok().filter(|_| good).ok_or("Content-Length is no number")?;
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            Ok(match behind.split_at_checked(length) {
                Some((body, rest)) => (Body::Whole(body.to_vec()), rest),
                None => (Body::Unfinished(length - behind.len()), &[]),
            })
        }
        ([coding], []) if coding.eq_ignore_ascii_case(b"chunked") && head.minor == 1 => Ok(chunked(behind)),
        _ => Err("its framing has a second reading"),
    }
}

/// 7.1. Extensions and trailers are read and left out.
fn chunked(mut rest: &[u8]) -> (Body, &[u8]) {
    let (unfinished, malformed) = ((Body::Unfinished(1), &[][..]), (Body::Malformed, &[][..]));
    let mut body = Vec::new();
    loop {
        let Some(end) = find(rest, b"\r\n") else { return unfinished };
        let line = &rest[..end];
        rest = &rest[end + 2..];
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (size, extension) = line.split_at(digits);
        let extension_is_one = extension.is_empty() || trim(extension).starts_with(b";");
        let good = extension_is_one && !extension.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t');
        let size = std::str::from_utf8(size).ok().and_then(|size| u64::from_str_radix(size, 16).ok());
        let Some(size) = size.filter(|_| good) else { return malformed };
        if size == 0 {
            break;
        }
        let Some((data, behind)) = rest.split_at_checked(usize::try_from(size).unwrap_or(usize::MAX)) else {
            return unfinished;
        };
        body.extend_from_slice(data);
        rest = match behind {
            [b'\r', b'\n', rest @ ..] => rest,
            [] | [b'\r'] => return unfinished,
            _ => return malformed,
        };
    }
    loop {
        let Some(end) = find(rest, b"\r\n") else { return unfinished };
        let line = &rest[..end];
        rest = &rest[end + 2..];
        if line.is_empty() {
            return (Body::Whole(body), rest);
        }
        if field(line).is_err() {
            return malformed;
        }
    }
}

/// RFC 9110 5.6.2.
fn token(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    let good = |letter: char| letter.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(letter);
    (!text.is_empty() && text.chars().all(good)).then_some(text)
}

/// Without the white space of RFC 9110 5.6.3 around it.
fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn split<'a>(mut bytes: &'a [u8], by: &[u8]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    while let Some(at) = find(bytes, by) {
        parts.push(&bytes[..at]);
        bytes = &bytes[at + by.len()..];
    }
    parts.push(bytes);
    parts
}
