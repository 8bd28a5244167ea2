//! A second, plain HPACK (RFC 7541), to compare h2's reading of heads with, and to write heads in every way there is.
//!
//! In: header blocks, in their order. Out: the fields as bytes, whatever is in them. It shares no code with h2. The judges
//! of `tests/it` read with it too.

use std::collections::VecDeque;

/// A name and a value.
pub(super) type Field = (Vec<u8>, Vec<u8>);

/// The bits of each byte's code (appendix B), and at last those of the end mark. The code is canonical: of the same
/// length, the smaller byte has the smaller code, and it follows from the lengths.
#[rustfmt::skip]
const BITS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12,
    10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6,
    5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22,
    22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20,
    22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28,
    27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28,
    27, 27, 27, 27, 27, 26, 30,
];

/// Appendix A.
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// The largest dynamic table, in bytes, which a listener that says nothing allows (RFC 9113 6.5.2).
const TABLE: usize = 4096;

/// Symbols with their codes, aligned to the left of 32 bits.
fn codes() -> Vec<(u32, u8, u16)> {
    let mut symbols: Vec<u16> = (0..257).collect();
    symbols.sort_by_key(|symbol| (BITS[usize::from(*symbol)], *symbol));
    let mut next = 0_u64;
    let code = |symbol| {
        let bits = BITS[usize::from(symbol)];
        let code = next;
        next += 1 << (32 - bits);
        (u32::try_from(code).unwrap_or(u32::MAX), bits, symbol)
    };
    symbols.into_iter().map(code).collect()
}

/// One direction of a connection.
pub(super) struct Decoder {
    codes: Vec<(u32, u8, u16)>,
    dynamic: VecDeque<Field>,
    /// What its writer has chosen of what it is allowed.
    most: usize,
    allowed: usize,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self::with_table(TABLE)
    }

    /// The same where so many bytes of dynamic table are allowed.
    pub(super) fn with_table(allowed: usize) -> Self {
        Self { codes: codes(), dynamic: VecDeque::new(), most: allowed, allowed }
    }

    /// The fields of a block; nothing where it is none, and then no later one can be read either.
    pub(super) fn decode(&mut self, mut block: &[u8]) -> Option<Vec<Field>> {
        let mut fields = Vec::new();
        while let Some(first) = block.first().copied() {
            if first & 0x80 != 0 {
                fields.push(self.entry(integer(&mut block, 7)?)?);
            } else if first & 0xe0 == 0x20 {
                // 4.2: only before the first field.
                let most = integer(&mut block, 5)?;
                if most > self.allowed || !fields.is_empty() {
                    return None;
                }
                self.most = most;
                self.evict();
            } else {
                let kept = first & 0x40 != 0;
                let name = match integer(&mut block, if kept { 6 } else { 4 })? {
                    0 => self.text(&mut block)?,
                    index => self.entry(index)?.0,
                };
                let field = (name, self.text(&mut block)?);
                fields.push(field.clone());
                if kept {
                    self.dynamic.push_front(field);
                    self.evict();
                }
            }
        }
        Some(fields)
    }

    fn entry(&self, index: usize) -> Option<Field> {
        let index = index.checked_sub(1)?;
        let fixed = STATIC.get(index).map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        fixed.or_else(|| self.dynamic.get(index - STATIC.len()).cloned())
    }

    fn evict(&mut self) {
        let mut size = 0;
        let mut fits = |(name, value): &Field| {
            size += name.len() + value.len() + 32;
            size <= self.most
        };
        let kept = self.dynamic.iter().map_while(|field| fits(field).then_some(())).count();
        self.dynamic.truncate(kept);
    }

    /// 5.2.
    fn text(&self, block: &mut &[u8]) -> Option<Vec<u8>> {
        let coded = block.first()? & 0x80 != 0;
        let length = integer(block, 7)?;
        let (text, rest) = block.split_at_checked(length)?;
        *block = rest;
        if coded { self.huffman(text) } else { Some(text.to_vec()) }
    }

    fn huffman(&self, coded: &[u8]) -> Option<Vec<u8>> {
        let (mut out, mut at, end) = (Vec::new(), 0, coded.len() * 8);
        let bit = |at: usize| at >= end || coded[at / 8] & (0x80 >> (at % 8)) != 0;
        while at < end {
            let window = (0..32).fold(0_u32, |window, next| window << 1 | u32::from(bit(at + next)));
            // The last one that is not greater.
            let found = self.codes.partition_point(|(code, ..)| *code <= window).checked_sub(1)?;
            let (_, bits, symbol) = self.codes[found];
            at += usize::from(bits);
            if at > end {
                // What is left is padding: fewer than eight bits, all of them set.
                let padding = end + usize::from(bits) - at;
                return (padding < 8 && (end - padding..end).all(bit)).then_some(out);
            }
            out.push(u8::try_from(symbol).ok()?);
        }
        Some(out)
    }
}

/// 5.1.
fn integer(block: &mut &[u8], prefix: u8) -> Option<usize> {
    let mask = usize::from(u8::MAX >> (8 - prefix));
    let mut value = usize::from(take(block)?) & mask;
    if value < mask {
        return Some(value);
    }
    for shift in (0..28).step_by(7) {
        let byte = usize::from(take(block)?);
        value += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn take(block: &mut &[u8]) -> Option<u8> {
    let (first, rest) = block.split_first()?;
    *block = rest;
    Some(*first)
}

/// An integer behind the bits that say what it is.
pub(super) fn put_integer(out: &mut Vec<u8>, what: u8, prefix: u8, value: usize) {
    let mask = usize::from(u8::MAX >> (8 - prefix));
    let byte = |value: usize| u8::try_from(value).unwrap_or(u8::MAX);
    if value < mask {
        return out.push(what | byte(value));
    }
    out.push(what | byte(mask));
    let mut rest = value - mask;
    while rest >= 128 {
        out.push(byte(rest % 128) | 128);
        rest /= 128;
    }
    out.push(byte(rest));
}

/// A text, plain or in Huffman's code.
pub(super) fn put_text(out: &mut Vec<u8>, text: &[u8], coded: bool) {
    if !coded {
        put_integer(out, 0, 7, text.len());
        return out.extend_from_slice(text);
    }
    let mut of = [(0_u32, 0_u8); 257];
    for (code, bits, symbol) in codes() {
        of[usize::from(symbol)] = (code, bits);
    }
    let (mut bytes, mut free) = (Vec::new(), 0);
    for byte in text {
        let (code, bits) = of[usize::from(*byte)];
        for at in 0..bits {
            if free == 0 {
                bytes.push(0);
                free = 8;
            }
            free -= 1;
            if let (Some(last), true) = (bytes.last_mut(), code & (0x8000_0000 >> at) != 0) {
                *last |= 1 << free;
            }
        }
    }
    if let Some(last) = bytes.last_mut() {
        *last |= (1 << free) - 1;
    }
    put_integer(out, 0x80, 7, bytes.len());
    out.extend_from_slice(&bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_rfc_are_read_and_written() {
        // RFC 7541 C.4.1 and C.4.2: two requests of one connection, with Huffman's code.
        let first = b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff";
        let second = b"\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf";
        let mut decoder = Decoder::new();
        let own = |list: &[(&str, &str)]| {
            Some(list.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect())
        };
        let mut fields =
            vec![(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")];
        assert_eq!(decoder.decode(first), own(&fields));
        fields.push(("cache-control", "no-cache"));
        assert_eq!(decoder.decode(second), own(&fields));
        let mut out = Vec::new();
        put_text(&mut out, b"www.example.com", true);
        assert_eq!(out, first[4..]);
        assert_eq!(decoder.decode(b"\x00\x01a"), None);
        assert_eq!(decoder.decode(b"\xbf\x80"), None);
    }

    #[test]
    fn a_table_that_is_full_forgets_its_oldest_entries() {
        let mut decoder = Decoder::new();
        // Room for one of them.
        assert!(decoder.decode(b"\x3f\x03\x40\x01a\x01b\x40\x01c\x01d").is_some());
        assert_eq!(decoder.decode(b"\xbe"), Some(vec![(b"c".to_vec(), b"d".to_vec())]));
        assert_eq!(decoder.decode(b"\xbf"), None);
        let mut without = Decoder::with_table(0);
        assert!(without.decode(b"\x20\x40\x01a\x01b").is_some());
        assert_eq!(without.decode(b"\xbe"), None);
        assert_eq!(without.decode(b"\x21"), None);
        let mut out = Vec::new();
        put_integer(&mut out, 0x20, 5, 1337);
        assert_eq!(out, b"\x3f\x9a\x0a");
    }
}
