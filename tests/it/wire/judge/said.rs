//! An answer of the table in HTTP/2 (RFC 9113 8).
//!
//! In: the bytes of HTTP/1.1 that a case gives. Out: the heads and pieces that say the same, and whether RFC 9113 calls
//! that malformed; nothing where it has no words for it (a status line that is none, a folded field, half a head).
//! Fields stay as they are, forbidden ones too; only what chunks alone need goes.

use std::time::Duration;

use super::{is_control, is_token};
use crate::wire::case::Act;

type Field = (Vec<u8>, Vec<u8>);

/// An answer.
#[derive(Debug)]
pub struct Said {
    pub acts: Vec<Do>,
    pub form: Form,
    /// It goes byte by byte.
    pub bytewise: bool,
    /// It comes before the request's body is read.
    pub early: bool,
}

/// What the upstream does on the stream, one after the other.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Do {
    /// A head, or trailers; whether it ends the stream.
    Head(Vec<Field>, bool),
    Data(Vec<u8>, bool),
    Pause(Duration),
    Close,
    Reset,
}

/// Whether RFC 9113 8.1.1 lets a client take it for an answer.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Form {
    Sound,
    /// Its head is right, and its body is not what that says.
    MalformedBody,
    MalformedHead,
}

/// Says it. `head_only` where it answers a HEAD.
pub fn said(answer: &[Act], head_only: bool) -> Option<Said> {
    let mut saying = Saying::default();
    let said = Said {
        acts: Vec::new(),
        form: Form::Sound,
        bytewise: answer.contains(&Act::Bytewise),
        early: answer.contains(&Act::Early),
    };
    for act in answer {
        match act {
            Act::Bytes(bytes) => saying.bytes.extend_from_slice(bytes),
            Act::Pause(time) => saying.pauses.push((saying.bytes.len(), *time)),
            Act::Close => saying.end = Some(Do::Close),
            Act::Reset => saying.end = Some(Do::Reset),
            Act::Bytewise | Act::Stop | Act::Early => {}
        }
    }
    let form = saying.heads(head_only)?;
    Some(Said { acts: saying.finish(), form, ..said })
}

#[derive(Default)]
struct Saying {
    bytes: Vec<u8>,
    /// Behind how many of the bytes.
    pauses: Vec<(usize, Duration)>,
    end: Option<Do>,
    acts: Vec<Do>,
}

impl Saying {
    fn heads(&mut self, head_only: bool) -> Option<Form> {
        let mut at = 0;
        while at < self.bytes.len() {
            let end = memchr::memmem::find(&self.bytes[at..], b"\r\n\r\n").map(|length| at + length + 4)?;
            let (status, mut fields) = head(&self.bytes[at..end - 4])?;
            // HTTP/1.0 has no chunks, so its coding is one that cannot be undone.
            if !self.bytes[at..].starts_with(b"HTTP/1.0 ")
                && values(&fields, b"transfer-encoding").collect::<Vec<_>>() == [b"chunked"]
                && values(&fields, b"content-length").next().is_none()
            {
                fields.retain(|(name, _)| name != b"transfer-encoding");
                let form = is_sound(&status, &fields);
                return Some(self.body(end, status, fields, head_only, true).max(form));
            }
            let form = is_sound(&status, &fields);
            if status.len() == 3 && status.starts_with(b"1") {
                self.put(end, Do::Head(with_status(status, fields), false));
                if form == Form::MalformedHead {
                    return Some(form);
                }
                at = end;
                continue;
            }
            return Some(self.body(end, status, fields, head_only, false).max(form));
        }
        Some(Form::Sound)
    }

    /// The last head, and what stands behind it.
    fn body(&mut self, at: usize, status: Vec<u8>, fields: Vec<Field>, head_only: bool, chunked: bool) -> Form {
        let total = self.bytes.len();
        let none = head_only || matches!(&status[..], b"204" | b"304");
        let length = length(&fields).ok().flatten();
        let last = at == total && (none || length == Some(0) || (length, chunked) == (None, false));
        self.put(at, Do::Head(with_status(status, fields), last));
        if last {
            return Form::Sound;
        }
        if none {
            self.data(at, total, true);
            return Form::MalformedBody;
        }
        if chunked {
            return self.chunks(at);
        }
        let Some(length) = length else {
            // Its end is the connection's.
            self.data(at, total, self.end == Some(Do::Close));
            return Form::Sound;
        };
        let end = at + length;
        if total < end {
            // Who closes says that this is all; who waits, and who resets, does not.
            self.data(at, total, self.end == Some(Do::Close));
            return if self.end == Some(Do::Close) { Form::MalformedBody } else { Form::Sound };
        }
        if total > end && self.pauses.iter().any(|(behind, _)| *behind >= end) {
            self.data(at, end, true);
            self.data(end, total, true);
        } else {
            self.data(at, total, true);
        }
        if total > end { Form::MalformedBody } else { Form::Sound }
    }

    /// A piece for each chunk, as far as they can be read.
    fn chunks(&mut self, mut at: usize) -> Form {
        loop {
            let rest = &self.bytes[at..];
            let Some(line) = memchr::memmem::find(rest, b"\r\n") else { return Form::Sound };
            let size = rest[..line].split(|byte| *byte == b';').next().unwrap_or_default();
            let size = std::str::from_utf8(size).ok().and_then(|digits| usize::from_str_radix(digits, 16).ok());
            let start = at + line + 2;
            match size {
                Some(0) => return self.trailers(start),
                Some(size) if start + size <= self.bytes.len() => {
                    self.data(start, start + size, false);
                    if !self.bytes[start + size..].starts_with(b"\r\n") {
                        return Form::Sound;
                    }
                    at = start + size + 2;
                }
                _ => return Form::Sound,
            }
        }
    }

    /// Behind the last chunk.
    fn trailers(&mut self, at: usize) -> Form {
        let rest = &self.bytes[at..];
        let end = if rest.starts_with(b"\r\n") {
            self.put(at + 2, Do::Data(Vec::new(), true));
            at + 2
        } else {
            let Some(length) = memchr::memmem::find(rest, b"\r\n\r\n") else { return Form::Sound };
            let Some(list) = fields(&rest[..length]) else { return Form::MalformedBody };
            self.put(at + length + 4, Do::Head(list, true));
            at + length + 4
        };
        if end == self.bytes.len() {
            return Form::Sound;
        }
        self.data(end, self.bytes.len(), true);
        Form::MalformedBody
    }

    fn data(&mut self, from: usize, to: usize, last: bool) {
        if from < to || last {
            self.put(to, Do::Data(self.bytes[from..to].to_vec(), last));
        }
    }

    /// Adds what stands in the bytes up to there, behind the pauses before it.
    fn put(&mut self, to: usize, act: Do) {
        let later = self.pauses.iter().position(|(behind, _)| *behind >= to).unwrap_or(self.pauses.len());
        self.acts.extend(self.pauses.drain(..later).map(|(_, time)| Do::Pause(time)));
        self.acts.push(act);
    }

    fn finish(mut self) -> Vec<Do> {
        self.acts.extend(self.pauses.drain(..).map(|(_, time)| Do::Pause(time)));
        self.acts.extend(self.end);
        self.acts
    }
}

/// Status and fields, names in lower case.
fn head(bytes: &[u8]) -> Option<(Vec<u8>, Vec<Field>)> {
    let line = memchr::memmem::find(bytes, b"\r\n").unwrap_or(bytes.len());
    let rest = bytes[..line].strip_prefix(b"HTTP/1.1 ").or_else(|| bytes[..line].strip_prefix(b"HTTP/1.0 "))?;
    let status = rest.split(|byte| *byte == b' ').next()?.to_vec();
    Some((status, fields(bytes.get(line + 2..).unwrap_or_default())?))
}

fn fields(mut bytes: &[u8]) -> Option<Vec<Field>> {
    let mut list = Vec::new();
    while !bytes.is_empty() {
        let end = memchr::memmem::find(bytes, b"\r\n").unwrap_or(bytes.len());
        let line = &bytes[..end];
        let colon = line.iter().position(|byte| *byte == b':')?;
        if line[0] == b' ' || line[0] == b'\t' {
            return None;
        }
        list.push((line[..colon].to_ascii_lowercase(), line[colon + 1..].trim_ascii().to_vec()));
        bytes = bytes.get(end + 2..).unwrap_or_default();
    }
    Some(list)
}

fn with_status(status: Vec<u8>, fields: Vec<Field>) -> Vec<Field> {
    std::iter::once((b":status".to_vec(), status)).chain(fields).collect()
}

fn values<'a>(fields: &'a [Field], name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    fields.iter().filter(move |(known, _)| known == name).map(|(_, value)| &value[..])
}

/// The one length that there is; an error where there are more, or it is none.
fn length(fields: &[Field]) -> Result<Option<usize>, ()> {
    let mut lengths = values(fields, b"content-length");
    let (Some(first), None) = (lengths.next(), lengths.next()) else {
        return if values(fields, b"content-length").next().is_none() { Ok(None) } else { Err(()) };
    };
    let digits = !first.is_empty() && first.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(first).ok().and_then(|text| text.parse().ok());
    number.filter(|_| digits).map(Some).ok_or(())
}

/// RFC 9113 8.2 and 8.3.2; 101 has no meaning there (8.6).
fn is_sound(status: &[u8], fields: &[Field]) -> Form {
    let of_the_hop: [&[u8]; 5] = [b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"];
    let sound = status.len() == 3
        && status.iter().all(u8::is_ascii_digit)
        && (b"100"..=b"999").contains(&&[status[0], status[1], status[2]])
        && status != b"101"
        && length(fields).is_ok()
        && fields.iter().all(|(name, value)| {
            is_token(name) && !of_the_hop.contains(&&name[..]) && !value.iter().copied().any(is_control)
        });
    if sound { Form::Sound } else { Form::MalformedHead }
}

#[test]
fn an_answer_is_said_as_it_is_meant() {
    let act = |text: &str| Act::Bytes(text.as_bytes().to_vec());
    let field = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
    let is = |answer: &[Act], form, acts: &[Do]| {
        let said = said(answer, false).unwrap();
        assert_eq!((said.form, &said.acts[..]), (form, acts));
    };
    let head = Do::Head(vec![field(":status", "200"), field("content-length", "2")], false);
    let whole = Do::Data(b"ok".to_vec(), true);
    let bytes = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";
    is(&[act(bytes), act("ok")], Form::Sound, &[head.clone(), whole.clone()]);
    is(&[act(bytes), Act::Close], Form::MalformedBody, &[head.clone(), Do::Data(Vec::new(), true), Do::Close]);
    let pause = Duration::from_millis(5);
    let late = [act(bytes), act("ok"), Act::Pause(pause), act("x")];
    let behind = Do::Data(b"x".to_vec(), true);
    is(&late, Form::MalformedBody, &[head, whole, Do::Pause(pause), behind]);
    let chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\nX-A: b\r\n\r\n";
    let [status, trailer] = [field(":status", "200"), field("x-a", "b")];
    let (o, k) = (Do::Data(b"o".to_vec(), false), Do::Data(b"k".to_vec(), false));
    is(&[act(chunks)], Form::Sound, &[Do::Head(vec![status], false), o, k, Do::Head(vec![trailer], true)]);
    let early = "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
    let heads = [vec![field(":status", "103")], vec![field(":status", "204"), field("connection", "close")]];
    let [first, second] = heads;
    is(&[act(early)], Form::MalformedHead, &[Do::Head(first, false), Do::Head(second, true)]);
    for none in ["SSH-2.0-OpenSSH_9.2\r\n\r\n", "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", "HTTP/1.1 200 OK\r\n"] {
        assert!(said(&[act(none)], false).is_none(), "{none}");
    }
}
