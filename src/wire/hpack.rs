//! Field compression of HTTP/2 (RFC 7541), from Cloudbeds to us and back.
//!
//! In: the header blocks of a connection's answers, in their order. Out: each one's status and fields, or what is wrong with
//! them (RFC 9113 8.2 and 8.3.2); a block that is none ends the connection, since no later one can be read either. And the
//! other way, the fields of a request as a block that refers to nothing that was sent before: no two hotels' requests
//! share a table, so the length of one says nothing of another's key (RFC 7541 7.1).

mod fixed;
mod huffman;

use std::collections::VecDeque;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use self::fixed::{FIXED, Fixed};
use super::head::is_token;
use super::spare;

/// The largest dynamic table that is kept, in bytes (RFC 9113 6.5.2).
const TABLE_MAX: usize = 4096;

/// What a field costs in a table, and of a header list, beside its bytes (RFC 7541 4.1).
const ENTRY: usize = 32;

/// Fields an answer usually has, and those that we add.
const USUAL: usize = 16;

/// What a field is called.
#[derive(Clone, Debug)]
enum Name {
    /// As all but a few are.
    Field(HeaderName),
    /// `:status`.
    Status,
    /// Another pseudo-field; no answer has one.
    Pseudo,
    /// Nothing that a name may be.
    Bad,
}

/// A field of the dynamic table.
#[derive(Debug)]
struct Entry {
    name: Name,
    /// How many bytes the name has.
    name_size: usize,
    /// Nothing where it is none that a field may have.
    value: Option<HeaderValue>,
    size: usize,
}

/// A field that an index stands for.
enum Known<'a> {
    Fixed(&'a Fixed),
    Kept(&'a Entry),
}

/// What is wrong with a header block that could be read.
pub type Fault = &'static str;

/// What a header block says.
#[derive(Debug)]
pub struct Fields {
    /// `:status`, where it is there.
    pub status: Option<StatusCode>,
    /// All fields, in their order, up to a fault.
    pub headers: HeaderMap,
    /// The first thing that is wrong.
    pub fault: Option<Fault>,
    /// So many bytes, as `SETTINGS_MAX_HEADER_LIST_SIZE` counts them.
    size: usize,
}

/// The block is none.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Undecodable;

/// One connection's answers.
#[derive(Debug)]
pub struct Decoder {
    table: VecDeque<Entry>,
    size: usize,
    /// What its writer has chosen of [`TABLE_MAX`].
    most: usize,
    scratch: Vec<u8>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { table: VecDeque::new(), size: 0, most: TABLE_MAX, scratch: Vec::new() }
    }
}

impl Decoder {
    /// The fields of a block; of those that are more than `limit` bytes nothing is kept.
    ///
    /// # Errors
    /// When it is none.
    pub fn decode(&mut self, block: &Bytes, limit: usize) -> Result<Fields, Undecodable> {
        let headers = spare::map(USUAL).unwrap_or_default();
        let mut fields = Fields { status: None, headers, fault: None, size: 0 };
        let mut rest = &block[..];
        let mut begun = false;
        while let Some(first) = rest.first().copied() {
            if first & 0x80 != 0 {
                match self.entry(integer(&mut rest, 7)?)? {
                    Known::Fixed(known) => {
                        fields.add(known.name.clone(), Some(known.value.clone()), known.size(), limit)
                    }
                    Known::Kept(known) => fields.add(known.name.clone(), known.value.clone(), known.size, limit),
                }
            } else if first & 0xe0 == 0x20 {
                // 4.2: only before the first field.
                self.most = integer(&mut rest, 5)?;
                if begun || self.most > TABLE_MAX {
                    return Err(Undecodable);
                }
                self.evict(0);
                continue;
            } else {
                let kept = first & 0x40 != 0;
                let (name, name_size) = match integer(&mut rest, if kept { 6 } else { 4 })? {
                    0 => {
                        let text = self.text(&mut rest)?;
                        let name = name(text.unwrap_or(&self.scratch));
                        (name, text.map_or(self.scratch.len(), <[u8]>::len))
                    }
                    index => match self.entry(index)? {
                        Known::Fixed(known) => (known.name.clone(), known.name.len()),
                        Known::Kept(known) => (known.name.clone(), known.name_size),
                    },
                };
                let text = self.text(&mut rest)?;
                let size = name_size + text.map_or(self.scratch.len(), <[u8]>::len) + ENTRY;
                // What is kept would hold all of the block that it is a part of.
                let value = match text {
                    Some(text) if !kept => HeaderValue::from_maybe_shared(block.slice_ref(text)),
                    text => HeaderValue::from_bytes(text.unwrap_or(&self.scratch)),
                };
                let value = value.ok();
                if kept {
                    self.keep(Entry { name: name.clone(), name_size, value: value.clone(), size });
                }
                fields.add(name, value, size, limit);
            }
            begun = true;
        }
        Ok(fields)
    }

    fn entry(&self, index: usize) -> Result<Known<'_>, Undecodable> {
        let at = index.checked_sub(1).ok_or(Undecodable)?;
        if let Some(fixed) = FIXED.get(at) {
            return Ok(Known::Fixed(fixed));
        }
        self.table.get(at - FIXED.len()).map(Known::Kept).ok_or(Undecodable)
    }

    /// 4.4: a field that has no room in an empty table empties it, and is no error.
    fn keep(&mut self, entry: Entry) {
        self.evict(entry.size);
        if entry.size <= self.most {
            self.size += entry.size;
            self.table.push_front(entry);
        }
    }

    /// Forgets the oldest until there is room for so much.
    fn evict(&mut self, room: usize) {
        while self.size + room > self.most
            && let Some(oldest) = self.table.pop_back()
        {
            self.size -= oldest.size;
        }
    }

    /// 5.2: a text as it stands, or nothing where it was coded and is in `scratch` now.
    fn text<'a>(&mut self, rest: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Undecodable> {
        let coded = rest.first().ok_or(Undecodable)? & 0x80 != 0;
        let length = integer(rest, 7)?;
        let (text, behind) = rest.split_at_checked(length).ok_or(Undecodable)?;
        *rest = behind;
        if !coded {
            return Ok(Some(text));
        }
        self.scratch.clear();
        if huffman::decode(text, &mut self.scratch) { Ok(None) } else { Err(Undecodable) }
    }
}

impl Name {
    fn len(&self) -> usize {
        match self {
            Self::Field(name) => name.as_str().len(),
            // Of the pseudo-fields in the fixed table; about right is enough.
            Self::Status | Self::Pseudo => 7,
            Self::Bad => 0,
        }
    }
}

/// RFC 9113 8.2.1: lower case, and otherwise as RFC 9110 5.6.2 has it.
fn name(text: &[u8]) -> Name {
    match text {
        b":status" => Name::Status,
        [b':', ..] => Name::Pseudo,
        _ if text.iter().all(|byte| is_token(*byte)) => HeaderName::from_lowercase(text).map_or(Name::Bad, Name::Field),
        _ => Name::Bad,
    }
}

impl Fields {
    fn add(&mut self, name: Name, value: Option<HeaderValue>, size: usize, limit: usize) {
        if self.fault.is_some() {
            return;
        }
        let Some(value) = value else {
            self.fault = Some("its head has a value that is none");
            return;
        };
        self.size += size;
        if self.size > limit {
            self.fault = Some("its head is too large");
            return;
        }
        self.fault = match name {
            // RFC 9113 8.2.2.
            Name::Field(name) if is_of_connection(&name) => Some("its head has a field of the connection"),
            Name::Field(name) => self.headers.try_append(name, value).err().map(|_| "its head has too many fields"),
            // RFC 9113 8.3: once, and before all others.
            Name::Status if self.status.is_some() => Some("its head has two statuses"),
            Name::Status if !self.headers.is_empty() => Some("its head has a status behind fields"),
            Name::Status => {
                // Three digits; other numbers of them say nothing.
                let status = Some(value.as_bytes()).filter(|digits| digits.len() == 3);
                self.status = status.and_then(|digits| StatusCode::from_bytes(digits).ok());
                self.status.is_none().then_some("its status is none")
            }
            Name::Pseudo => Some("its head has a pseudo-field that no answer has"),
            Name::Bad => Some("its head has a field that is none"),
        };
    }
}

fn is_of_connection(name: &HeaderName) -> bool {
    matches!(name.as_str(), "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade")
}

/// 5.1, up to 2^28.
fn integer(rest: &mut &[u8], prefix: u8) -> Result<usize, Undecodable> {
    let mask = usize::from(u8::MAX >> (8 - prefix));
    let mut value = usize::from(byte(rest)?) & mask;
    if value < mask {
        return Ok(value);
    }
    for shift in [0, 7, 14, 21] {
        let next = usize::from(byte(rest)?);
        value += (next & 0x7f) << shift;
        if next & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Undecodable)
}

fn byte(rest: &mut &[u8]) -> Result<u8, Undecodable> {
    let (first, behind) = rest.split_first().ok_or(Undecodable)?;
    *rest = behind;
    Ok(*first)
}

/// What a connection's first block begins with: the writer's dynamic table is empty, and stays so, whatever the other side
/// allows (RFC 7541 4.2, RFC 9113 4.3.1).
pub const NO_TABLE: u8 = 0x20;

/// Writes `:method`, `:scheme`, `:authority` and `:path`.
pub fn put_request(out: &mut Vec<u8>, method: &str, authority: &str, path: &str) {
    match method {
        "GET" => out.push(0x82),
        "POST" => out.push(0x83),
        _ => put_literal(out, 0x00, 2, method.as_bytes()),
    }
    out.push(0x87);
    put_literal(out, 0x00, 1, authority.as_bytes());
    put_literal(out, 0x00, 4, path.as_bytes());
}

/// Writes a field. A credential is marked as one that no one on the way may put into a table (RFC 7541 7.1.3).
pub fn put_field(out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue, credential: bool) {
    let (mark, index) = (if credential { 0x10 } else { 0x00 }, fixed::index(name.as_str()));
    if index > 0 {
        return put_literal(out, mark, index, value.as_bytes());
    }
    out.push(mark);
    put_text(out, name.as_str().as_bytes());
    put_text(out, value.as_bytes());
}

fn put_literal(out: &mut Vec<u8>, mark: u8, index: usize, value: &[u8]) {
    put_integer(out, mark, 4, index);
    put_text(out, value);
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    put_integer(out, 0x00, 7, text.len());
    out.extend_from_slice(text);
}

/// 5.1, behind the bits that say what it is.
fn put_integer(out: &mut Vec<u8>, mark: u8, prefix: u8, value: usize) {
    let mask = usize::from(u8::MAX >> (8 - prefix));
    let low = |value: usize| (value & 0xff) as u8;
    if value < mask {
        return out.push(mark | low(value));
    }
    out.push(mark | low(mask));
    let mut rest = value - mask;
    while rest >= 0x80 {
        out.push(low(rest) | 0x80);
        rest >>= 7;
    }
    out.push(low(rest));
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 64 * 1024;

    fn fields(decoder: &mut Decoder, block: &'static [u8]) -> Fields {
        decoder.decode(&Bytes::from_static(block), LIMIT).unwrap()
    }

    fn lines(fields: &Fields) -> Vec<(&str, &[u8])> {
        fields.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect()
    }

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        // RFC 7541 C.6.1 and C.6.2, with a table as small as there.
        let mut decoder = Decoder { most: 256, ..Decoder::default() };
        let first = fields(
            &mut decoder,
            b"\x48\x82\x64\x02\x58\x85\xae\xc3\x77\x1a\x4b\x61\x96\xd0\x7a\xbe\x94\x10\x54\xd4\x44\xa8\x20\x05\x95\x04\
              \x0b\x81\x66\xe0\x82\xa6\x2d\x1b\xff\x6e\x91\x9d\x29\xad\x17\x18\x63\xc7\x8f\x0b\x97\xc8\xe9\xae\x82\xae\
              \x43\xd3",
        );
        let (date, at) = (&b"Mon, 21 Oct 2013 20:13:21 GMT"[..], &b"https://www.example.com"[..]);
        assert_eq!(first.status, Some(StatusCode::FOUND));
        assert_eq!(lines(&first), [("cache-control", &b"private"[..]), ("date", date), ("location", at)]);
        assert_eq!((decoder.size, decoder.table.len()), (222, 4));
        let second = fields(&mut decoder, b"\x48\x83\x64\x0e\xff\xc1\xc0\xbf");
        assert_eq!((second.status, second.fault), (Some(StatusCode::TEMPORARY_REDIRECT), None));
        assert_eq!(lines(&second), lines(&first));
        assert_eq!((decoder.size, decoder.table.len()), (222, 4));
    }

    #[test]
    fn a_block_that_is_none_is_not_read() {
        let blocks: [&[u8]; 9] = [
            // No such entry; entry 0.
            b"\xbe",
            b"\x80",
            // A text, an integer, a name cut off.
            b"\x08\x03ab",
            b"\xff",
            b"\x00",
            // An integer that is too long.
            b"\xff\x80\x80\x80\x80\x00",
            // A table larger than it may be; one that changes behind a field.
            b"\x3f\xe2\x1f",
            b"\x88\x20",
            // Huffman's end mark.
            b"\x08\x84\xff\xff\xff\xff",
        ];
        for block in blocks {
            assert_eq!(
                Decoder::default().decode(&Bytes::from_static(block), LIMIT).err(),
                Some(Undecodable),
                "{block:?}"
            );
        }
        assert!(Decoder::default().decode(&Bytes::from_static(b"\x3f\xe1\x1f\x88"), LIMIT).is_ok());
    }

    #[test]
    fn what_no_answer_may_have_is_a_fault_and_the_table_stays_true() {
        let faulty: [&[u8]; 11] = [
            // Upper case, white space, a quotation mark, nothing at all.
            b"\x88\x40\x02Ab\x01c",
            b"\x88\x40\x02a \x01c",
            b"\x88\x40\x02a\"\x01c",
            b"\x88\x40\x00\x01c",
            // A line end in a value.
            b"\x88\x40\x01a\x01\n",
            // A field of the connection.
            b"\x88\x40\x0aconnection\x05close",
            // Two statuses; one behind a field; one that is none; one with four digits; another pseudo-field.
            b"\x88\x40\x07:status\x03201",
            b"\x40\x01a\x01b\x88",
            b"\x48\x03abc",
            b"\x48\x042000",
            b"\x88\x40\x05:path\x01/",
        ];
        for block in faulty {
            let mut decoder = Decoder::default();
            assert!(fields(&mut decoder, block).fault.is_some(), "{block:?}");
            assert!(fields(&mut decoder, b"\x40\x01x\x01y").fault.is_none());
            assert_eq!(lines(&fields(&mut decoder, b"\xbe")), [("x", &b"y"[..])]);
            assert_eq!(decoder.size, decoder.table.iter().map(|entry| entry.size).sum::<usize>());
        }
    }

    #[test]
    fn of_a_head_that_is_too_large_nothing_is_kept_beyond_the_limit() {
        let mut decoder = Decoder::default();
        let block = [&b"\x88\x40\x01x\x7f\x00"[..], &[b'y'; 127], &[0xbe; 1000]].concat();
        let fields = decoder.decode(&Bytes::from(block), 1000).unwrap();
        assert!(fields.fault.is_some());
        assert!(fields.headers.len() < 10);
    }

    #[test]
    fn a_table_that_is_full_forgets_its_oldest_entries() {
        let mut decoder = Decoder::default();
        // Room for one of them, and then for none.
        fields(&mut decoder, b"\x3f\x03\x40\x01a\x01b\x40\x01c\x01d");
        assert_eq!(lines(&fields(&mut decoder, b"\xbe")), [("c", &b"d"[..])]);
        assert_eq!(decoder.table.len(), 1);
        // A value that is none takes as much room as it takes its writer, and its name is as good as any.
        fields(&mut decoder, b"\x3f\x80\x01\x40\x01a\x03b\x7fc");
        assert_eq!(decoder.size, 34 + 36);
        assert_eq!(lines(&fields(&mut decoder, b"\x7e\x01d")), [("a", &b"d"[..])]);
        assert_eq!(decoder.size, 34 + 36 + 34);
        fields(&mut decoder, b"\x3f\x03\x40\x03too\x05large");
        assert_eq!((decoder.size, decoder.table.len()), (0, 0));
    }

    #[test]
    fn a_request_is_written_so_that_nothing_of_it_stays_in_a_table() {
        let mut out = vec![NO_TABLE];
        put_request(&mut out, "GET", "api.example", "/a?b");
        put_field(&mut out, &http::header::ACCEPT, &HeaderValue::from_static("*/*"), false);
        put_field(&mut out, &http::header::AUTHORIZATION, &HeaderValue::from_static("Bearer x"), true);
        put_field(&mut out, &HeaderName::from_static("x-property-id"), &HeaderValue::from_static("7"), false);
        let written =
            b"\x20\x82\x87\x01\x0bapi.example\x04\x04/a?b\x0f\x04\x03*/*\x1f\x08\x08Bearer x\x00\x0dx-property-id\x017";
        assert_eq!(out, written);
        let mut long = Vec::new();
        put_request(&mut long, "PATCH", "a", &"/".repeat(300));
        assert_eq!(&long[..16], b"\x02\x05PATCH\x87\x01\x01a\x04\x7f\xad\x01/");
    }
}
