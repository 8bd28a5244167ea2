//! Answers with any bytes in them.
//!
//! In: what Cloudbeds might answer. Out: nothing; a broken promise is a panic. `mask`: what comes out of the mask has the
//! same length, holds no key, and differs from what went in by nothing else; `inspect`: nothing that decodes to a key is let
//! go, whatever the coding, and what holds none passes byte for byte. Both for any way to cut the bytes.
#![allow(clippy::expect_used, reason = "a broken promise is to end the process")]

use std::io::{Read as _, Write as _};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

use super::inspect::{Coding, Inspector, Refusal, Step};
use super::mask::{self, Mask};

/// Whether a byte belongs to a key behind `cbat_`, said once more.
fn is_key_letter(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' | b'~')
}

/// The masked bytes and how many keys were in them, the plain way.
fn covered(bytes: &[u8]) -> (Vec<u8>, u32) {
    let (mut out, mut keys, mut at) = (bytes.to_vec(), 0, 0);
    while at < bytes.len() {
        if !bytes[at..].starts_with(b"cbat_") {
            at += 1;
            continue;
        }
        at += 5;
        keys += u32::from(bytes.get(at).is_some_and(|byte| is_key_letter(*byte)));
        while at < bytes.len() && is_key_letter(bytes[at]) {
            out[at] = b'*';
            at += 1;
        }
    }
    (out, keys)
}

/// Pieces of a body. Where it is cut follows from `seed`, which with zero leaves it whole.
fn pieces(bytes: &[u8], seed: u8) -> Vec<Bytes> {
    let (mut pieces, mut rest, mut state) = (Vec::new(), bytes, u32::from(seed));
    while !rest.is_empty() {
        // Numerical Recipes' generator; its upper bits are good enough to cut by.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let most = if seed == 0 { rest.len() } else { 1 + (state >> 24) as usize % usize::from(seed.max(2)) };
        let (piece, behind) = rest.split_at(most.min(rest.len()));
        pieces.push(Bytes::copy_from_slice(piece));
        rest = behind;
    }
    pieces
}

/// A plain body: one byte that says how it is cut, then the body.
pub fn mask(data: &[u8]) {
    let Some((seed, body)) = data.split_first() else { return };
    let (expected, keys) = covered(body);
    let (mut mask, mut silent, mut out) = (Mask::default(), Mask::default(), Vec::new());
    for piece in pieces(body, *seed) {
        let before = silent.found();
        assert_eq!(silent.inspect(&piece), silent.found() > before);
        let length = piece.len();
        let shown = mask.chunk(piece);
        assert_eq!(shown.len(), length);
        out.extend_from_slice(&shown);
    }
    assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(&expected));
    assert_eq!((mask.found(), silent.found()), (keys, keys), "{}", String::from_utf8_lossy(body));
    // Once more is once too often: nothing is left to cover, in whatever way it is read.
    assert_eq!(covered(&out), (out.clone(), 0));
    assert_eq!(mask::value(&out), None);
    assert_eq!(mask::value(body).is_some(), keys > 0);
    assert_eq!(mask::value(body).unwrap_or_else(|| body.to_vec()), expected);
    if let Ok(text) = std::str::from_utf8(body) {
        assert_eq!(mask::text(text).as_bytes(), expected);
    }
}

/// A coded body: a letter for the coding (`g`, `d`, `r` for bare deflate, `b`, `z`), in upper case where what follows is
/// coded already, else it is coded here; one byte that says how it is cut; then the body.
pub fn inspect(data: &[u8]) {
    let [letter, seed, body @ ..] = data else { return };
    let (coding, bare) = match letter.to_ascii_lowercase() {
        b'g' => (Coding::Gzip, false),
        b'd' => (Coding::Deflate, false),
        b'r' => (Coding::Deflate, true),
        b'b' => (Coding::Brotli, false),
        b'z' => (Coding::Zstd, false),
        _ => return,
    };
    let coded = if letter.is_ascii_uppercase() { body.to_vec() } else { encode(coding, bare, body) };
    let whole = released(coding, &coded, 0);
    let (out, end) = released(coding, &coded, *seed);
    // Which of two reasons is found first may depend on it; whether there is one may not.
    assert_eq!(whole.1.is_ok(), end.is_ok(), "the verdict depends on where bytes are cut");
    assert_eq!(out, coded[..out.len()], "bytes were changed");
    for released in [&whole.0, &out] {
        assert_eq!(covered(released).1, 0, "a key was let go as it is");
        let decoded = decode(coding, released);
        assert_eq!(covered(&decoded).1, 0, "a key was let go in its coding: {}", String::from_utf8_lossy(&decoded));
    }
    if end.is_ok() {
        assert_eq!(out, coded, "not all of a good body was let go");
    }
    if letter.is_ascii_lowercase() {
        let keys = covered(body).1 + covered(&coded).1;
        assert_eq!(end, if keys > 0 { Err(Refusal::Leak) } else { Ok(()) }, "{}", String::from_utf8_lossy(body));
    }
}

/// What the inspector lets go, and how it ends.
fn released(coding: Coding, coded: &[u8], seed: u8) -> (Vec<u8>, Result<(), Refusal>) {
    let (mut inspector, mut out) = (Inspector::new(coding), Vec::new());
    for piece in pieces(coded, seed) {
        inspector.push(piece);
        loop {
            match inspector.step() {
                Ok(Step::Release(bytes)) => break out.extend_from_slice(&bytes),
                Ok(Step::Pause) => {}
                Err(refusal) => return (out, Err(refusal)),
            }
        }
    }
    loop {
        match inspector.finish() {
            Ok(Step::Release(bytes)) => break out.extend_from_slice(&bytes),
            Ok(Step::Pause) => {}
            Err(refusal) => return (out, Err(refusal)),
        }
    }
    (out, Ok(()))
}

fn encode(coding: Coding, bare: bool, body: &[u8]) -> Vec<u8> {
    /// `write` and `finish` have nowhere to fail: they write to memory.
    macro_rules! through {
        ($encoder:ident) => {{
            let mut encoder = $encoder::new(Vec::new(), Compression::fast());
            encoder.write_all(body).and_then(|()| encoder.finish()).expect("memory takes everything")
        }};
    }
    match coding {
        Coding::Gzip => through!(GzEncoder),
        Coding::Deflate if bare => through!(DeflateEncoder),
        Coding::Deflate => through!(ZlibEncoder),
        Coding::Zstd => ruzstd::encoding::compress_to_vec(body, ruzstd::encoding::CompressionLevel::Fastest),
        Coding::Brotli => stored(body),
    }
}

/// Brotli without compression: the window, then uncompressed meta-blocks at byte boundaries (RFC 7932 9.2).
fn stored(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, block) in body.chunks(1 << 16).enumerate() {
        // ISLAST 0, MNIBBLES 4, MLEN - 1, ISUNCOMPRESSED 1; the first has WBITS 16 before it.
        let header = ((block.len() as u32 - 1) << 3) | 1 << 19;
        let header = if number == 0 { header << 1 } else { header };
        out.extend_from_slice(&header.to_le_bytes()[..3]);
        out.extend_from_slice(block);
    }
    // ISLAST, ISLASTEMPTY, behind WBITS where there is nothing else.
    out.push(if body.is_empty() { 0b110 } else { 0b11 });
    out
}

/// The most that is decoded to look for keys, in bytes.
const MOST: u64 = 1 << 22;

/// What a reader of the bytes would have of them, up to where they break off.
fn decode(coding: Coding, coded: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    // Errors are expected: bytes end early or are none of the coding. What came before counts.
    let _ = match coding {
        Coding::Gzip => flate2::read::MultiGzDecoder::new(coded).take(MOST).read_to_end(&mut out),
        Coding::Deflate => {
            let _ = flate2::read::ZlibDecoder::new(coded).take(MOST).read_to_end(&mut out);
            // Readers that try bare deflate when zlib fails, and the other way round.
            out.push(b'\n');
            flate2::read::DeflateDecoder::new(coded).take(MOST).read_to_end(&mut out)
        }
        Coding::Brotli => brotli_decompressor::Decompressor::new(coded, 4096).take(MOST).read_to_end(&mut out),
        Coding::Zstd => match ruzstd::decoding::StreamingDecoder::new(coded) {
            Ok(decoder) => decoder.take(MOST).read_to_end(&mut out),
            Err(_) => Ok(0),
        },
    };
    out
}
