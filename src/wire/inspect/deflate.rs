//! gzip and deflate (RFC 1952, 1950, 1951), decoded slice by slice into the scanner.
//!
//! In: a chunk. Out: whether all of it was decoded within the budget. flate2's decoders push what they decode; a slice
//! is small enough that what comes of it, at most 1032 times as much, is bounded.

use std::io::Write;

use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

use super::{BUDGET, Refusal, Scanner};

/// Encoded bytes decoded at a time: 1 MiB comes of them at the most.
const SLICE: usize = 1024;

/// The decoder of one body.
pub(super) enum Deflate {
    Gzip(MultiGzDecoder<Scanner>),
    /// Waits for the first byte, which tells zlib from bare deflate.
    Start,
    Zlib(ZlibDecoder<Scanner>),
    Bare(DeflateDecoder<Scanner>),
}

impl Deflate {
    /// The gzip coding.
    pub(super) fn gzip() -> Self {
        Self::Gzip(MultiGzDecoder::new(Scanner::default()))
    }

    /// Where the decoded bytes go; nowhere before the first one.
    pub(super) fn scanner(&self) -> Option<&Scanner> {
        match self {
            Self::Gzip(decoder) => Some(decoder.get_ref()),
            Self::Start => None,
            Self::Zlib(decoder) => Some(decoder.get_ref()),
            Self::Bare(decoder) => Some(decoder.get_ref()),
        }
    }

    /// Goes on with `chunk` from `done`; false when the budget is spent before its end.
    pub(super) fn decode(&mut self, chunk: &[u8], done: &mut usize) -> Result<bool, Refusal> {
        if let (Self::Start, Some(first)) = (&*self, chunk.first()) {
            // RFC 1950 2.2: the low half of a zlib stream's first byte is 8; a bare deflate stream that starts so
            // would have to begin with a stored block and padding that no encoder writes.
            *self = if first & 0x0f == 8 {
                Self::Zlib(ZlibDecoder::new(Scanner::default()))
            } else {
                Self::Bare(DeflateDecoder::new(Scanner::default()))
            };
        }
        match self {
            Self::Gzip(decoder) => slices(decoder, MultiGzDecoder::get_ref, chunk, done),
            Self::Zlib(decoder) => slices(decoder, ZlibDecoder::get_ref, chunk, done),
            Self::Bare(decoder) => slices(decoder, DeflateDecoder::get_ref, chunk, done),
            Self::Start => Ok(true),
        }
    }
}

fn slices<D: Write>(
    decoder: &mut D,
    scanner: fn(&D) -> &Scanner,
    chunk: &[u8],
    done: &mut usize,
) -> Result<bool, Refusal> {
    let start = scanner(decoder).decoded;
    while *done < chunk.len() {
        let end = chunk.len().min(*done + SLICE);
        while *done < end {
            match decoder.write(&chunk[*done..end]) {
                // Bytes behind the end of the coded stream are bytes nobody decoded.
                Ok(0) | Err(_) => return Err(Refusal::Undecodable),
                Ok(used) => *done += used,
            }
        }
        // The decoders keep a last piece of output back until they are asked for it.
        decoder.flush().map_err(|_| Refusal::Undecodable)?;
        scanner(decoder).verdict()?;
        if scanner(decoder).decoded - start > BUDGET && *done < chunk.len() {
            return Ok(false);
        }
    }
    Ok(true)
}
