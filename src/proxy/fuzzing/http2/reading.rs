//! A second reading of HTTP/2 (RFC 9113), to compare h2's with, of callers, and ours, of servers.
//!
//! In: all bytes of a connection. Out: every head in them, with the body behind it. It follows frames and header
//! blocks and leaves out what a server may refuse besides: whatever h2 makes a request of must be among what is read
//! here, not the other way round.

use std::fmt;

use super::hpack::{Decoder, Field};

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The largest frame that a listener which says nothing takes, in bytes.
const FRAME_MAX: usize = 16 * 1024;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const PADDED: u8 = 8;
pub(super) const PRIORITY: u8 = 0x20;

/// A request as its caller has sent it.
pub(super) struct Asked {
    pub(super) stream: u32,
    pub(super) fields: Vec<Field>,
    pub(super) body: Vec<u8>,
    /// Whether the body has come to its end.
    pub(super) whole: bool,
}

impl Asked {
    /// The values of a field, in order.
    pub(super) fn values<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s [u8]> + 's {
        self.fields.iter().filter(move |(known, _)| known == name.as_bytes()).map(|(_, value)| &value[..])
    }

    fn is_interim(&self) -> bool {
        self.body.is_empty() && self.values(":status").any(|status| status.starts_with(b"1"))
    }
}

impl fmt::Debug for Asked {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let fields = self.fields.iter().map(|(name, value)| (text(name), text(value)));
        out.debug_map().entries(fields).finish()?;
        write!(out, " on {} and {} bytes", self.stream, self.body.len())
    }
}

struct Frame<'a> {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: &'a [u8],
}

/// Reads a connection, up to where nobody could go on.
pub(super) fn read(bytes: &[u8]) -> Vec<Asked> {
    let (mut all, mut decoder): (Vec<Asked>, _) = (Vec::new(), Decoder::new());
    let Some(mut rest) = bytes.strip_prefix(PREFACE) else { return all };
    while let Some(frame) = next(&mut rest) {
        let ended = frame.flags & END_STREAM != 0;
        match frame.kind {
            DATA => {
                let Some(data) = unpadded(&frame) else { return all };
                if let Some(asked) = open(&mut all, frame.stream) {
                    asked.body.extend_from_slice(data);
                    asked.whole = ended;
                }
            }
            HEADERS => {
                let Some(fields) = block(&frame, &mut rest).and_then(|block| decoder.decode(&block)) else {
                    return all;
                };
                // A second block is one of trailers, unless the first was no more than an interim answer.
                match open(&mut all, frame.stream) {
                    Some(asked) if asked.is_interim() => (asked.fields, asked.whole) = (fields, ended),
                    Some(asked) => asked.whole = ended,
                    None => all.push(Asked { stream: frame.stream, fields, body: Vec::new(), whole: ended }),
                }
            }
            _ => {}
        }
    }
    all
}

/// The request of a stream whose body goes on.
fn open(all: &mut [Asked], stream: u32) -> Option<&mut Asked> {
    all.iter_mut().rev().find(|asked| asked.stream == stream && !asked.whole)
}

/// 4.1.
fn next<'a>(rest: &mut &'a [u8]) -> Option<Frame<'a>> {
    let (head, behind) = rest.split_at_checked(9)?;
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number: u32, byte| number << 8 | u32::from(*byte));
    let length = usize::try_from(number(&head[..3])).ok().filter(|length| *length <= FRAME_MAX)?;
    let (payload, behind) = behind.split_at_checked(length)?;
    *rest = behind;
    Some(Frame { kind: head[3], flags: head[4], stream: number(&head[5..]) & 0x7fff_ffff, payload })
}

/// 6.1 and 6.2.
fn unpadded<'a>(frame: &Frame<'a>) -> Option<&'a [u8]> {
    if frame.flags & PADDED == 0 {
        return Some(frame.payload);
    }
    let (length, behind) = frame.payload.split_first()?;
    behind.len().checked_sub(usize::from(*length)).map(|data| &behind[..data])
}

/// A header block with what continues it (6.10).
fn block(first: &Frame<'_>, rest: &mut &[u8]) -> Option<Vec<u8>> {
    let mut fragment = unpadded(first)?;
    if first.flags & PRIORITY != 0 {
        fragment = fragment.get(5..)?;
    }
    let (mut block, mut ended) = (fragment.to_vec(), first.flags & END_HEADERS != 0);
    while !ended {
        let more = next(rest).filter(|more| more.kind == CONTINUATION && more.stream == first.stream)?;
        block.extend_from_slice(more.payload);
        ended = more.flags & END_HEADERS != 0;
    }
    Some(block)
}
