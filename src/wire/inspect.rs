//! A coded answer, looked at in a decoded copy before it is let go.
//!
//! In: the chunks of a body with a content coding. Out: the same chunks, byte for byte, each only after its decoded
//! form was searched for keys; or the refusal that ends the stream. The decoded copy passes through small buffers and
//! is not kept, but for a small failure of Cloudbeds, so a body that decodes to gigabytes costs time, not memory, and the time is cut into slices so that
//! other connections of the core are not kept waiting.

use std::io::{self, Write};

use self::brotli::Brotli;
use self::deflate::Deflate;
use self::zstd::Zstd;
use super::mask::Mask;
use super::peek::{Peek, Seen};
use bytes::Bytes;

mod brotli;
mod deflate;
mod zstd;

/// Decoded bytes after which the inspector asks for a pause.
const BUDGET: u64 = 256 * 1024;

/// The codings whose content can be inspected.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Coding {
    /// RFC 1952.
    Gzip,
    /// RFC 1950, or RFC 1951 as some servers send it.
    Deflate,
    /// RFC 7932.
    Brotli,
    /// RFC 8878.
    Zstd,
}

impl Coding {
    /// From a `Content-Encoding` member; `None` for what cannot be inspected.
    #[must_use]
    pub fn parse(name: &[u8]) -> Option<Self> {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is("gzip") || is("x-gzip") {
            Some(Self::Gzip)
        } else if is("deflate") {
            Some(Self::Deflate)
        } else if is("br") {
            Some(Self::Brotli)
        } else if is("zstd") {
            Some(Self::Zstd)
        } else {
            None
        }
    }
}

/// Why the stream must end here.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// The decoded copy holds a key.
    #[error("a key was found in the decoded copy of a coded answer")]
    Leak,
    /// The bytes do not decode, so nobody knows what is in them.
    #[error("the coded answer does not decode")]
    Undecodable,
}

/// What to do next with a chunk.
#[derive(Debug, Eq, PartialEq)]
pub enum Step {
    /// Inspected in full: pass it on. Empty when the bytes are held until the end.
    Release(Bytes),
    /// Let other work of this core run, then call again.
    Pause,
}

/// The inspection of one body.
pub struct Inspector {
    decoder: Decoder,
    /// Follows the coded bytes themselves: a gzip header has room for a name and a comment, and a body may not be
    /// coded at all although its head says so.
    coded: Mask,
    /// The chunk under inspection, and how much of it is done.
    chunk: Bytes,
    done: usize,
}

enum Decoder {
    Deflate(Box<Deflate>),
    Brotli(Box<Brotli>),
    Zstd(Box<Zstd>),
}

/// Where decoded bytes go: searched, counted, dropped.
#[derive(Default)]
struct Scanner {
    mask: Mask,
    peek: Peek,
    decoded: u64,
}

impl Scanner {
    fn verdict(&self) -> Result<(), Refusal> {
        if self.mask.found() > 0 { Err(Refusal::Leak) } else { Ok(()) }
    }
}

impl Write for Scanner {
    fn write(&mut self, decoded: &[u8]) -> io::Result<usize> {
        self.mask.inspect(decoded);
        self.peek.pass(decoded);
        self.decoded += decoded.len() as u64;
        Ok(decoded.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Inspector {
    /// At the start of a body.
    #[must_use]
    pub fn new(coding: Coding) -> Self {
        let decoder = match coding {
            Coding::Gzip => Decoder::Deflate(Box::new(Deflate::gzip())),
            Coding::Deflate => Decoder::Deflate(Box::new(Deflate::Start)),
            Coding::Brotli => Decoder::Brotli(Box::default()),
            Coding::Zstd => Decoder::Zstd(Box::default()),
        };
        Self { decoder, coded: Mask::default(), chunk: Bytes::new(), done: 0 }
    }

    /// Takes the next chunk; [`step`](Self::step) until it is released before handing in another one.
    pub fn push(&mut self, chunk: Bytes) {
        // Once, here: `step` may look at the same chunk again and again.
        self.coded.inspect(&chunk);
        self.chunk = chunk;
        self.done = 0;
    }

    /// Inspects for a while.
    ///
    /// # Errors
    /// A [`Refusal`]: nothing of the chunk may be passed on.
    pub fn step(&mut self) -> Result<Step, Refusal> {
        if self.coded.found() > 0 {
            return Err(Refusal::Leak);
        }
        let whole = match &mut self.decoder {
            Decoder::Deflate(deflate) => deflate.decode(&self.chunk, &mut self.done)?,
            Decoder::Brotli(brotli) => brotli.decode(&self.chunk, &mut self.done)?,
            Decoder::Zstd(zstd) => {
                zstd.hold(&self.chunk)?;
                return Ok(Step::Release(Bytes::new()));
            }
        };
        Ok(if whole { Step::Release(std::mem::take(&mut self.chunk)) } else { Step::Pause })
    }

    /// What the decoded body so far is ([`Peek`]).
    #[must_use]
    pub fn seen(&self) -> Seen<'_> {
        let scanner = match &self.decoder {
            Decoder::Deflate(deflate) => deflate.scanner(),
            Decoder::Brotli(brotli) => Some(brotli.scanner()),
            Decoder::Zstd(zstd) => Some(zstd.scanner()),
        };
        scanner.map_or(Seen::Nothing, |scanner| scanner.peek.seen())
    }

    /// The end of the body: what was held back, once it is inspected. To be called again after a [`Step::Pause`].
    ///
    /// # Errors
    /// A [`Refusal`] when what was held holds a key or does not decode.
    pub fn finish(&mut self) -> Result<Step, Refusal> {
        match &mut self.decoder {
            Decoder::Zstd(zstd) => zstd.finish(),
            Decoder::Deflate(_) | Decoder::Brotli(_) => Ok(Step::Release(Bytes::new())),
        }
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;

    fn encode(coding: Coding, bare: bool, body: &[u8]) -> Vec<u8> {
        match coding {
            Coding::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(body).unwrap();
                encoder.finish().unwrap()
            }
            Coding::Deflate if bare => {
                let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(body).unwrap();
                encoder.finish().unwrap()
            }
            Coding::Deflate => {
                let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(body).unwrap();
                encoder.finish().unwrap()
            }
            Coding::Zstd => ruzstd::encoding::compress_to_vec(body, ruzstd::encoding::CompressionLevel::Fastest),
            Coding::Brotli => brotli_stored(body),
        }
    }

    #[test]
    fn a_failure_of_cloudbeds_can_be_read_in_the_decoded_copy_and_nothing_else_is_kept() {
        let failure = br#"{"success":false,"message":"User who approved this connection is not active anymore"}"#;
        let success = br#"{"success":true,"data":[]}"#;
        for coding in [Coding::Gzip, Coding::Deflate, Coding::Brotli, Coding::Zstd] {
            for (body, seen) in [(&failure[..], Seen::Failure(failure)), (&success[..], Seen::Other)] {
                let mut inspector = Inspector::new(coding);
                for chunk in encode(coding, false, body).chunks(7) {
                    inspector.push(Bytes::copy_from_slice(chunk));
                    inspector.step().unwrap();
                }
                inspector.finish().unwrap();
                assert_eq!(inspector.seen(), seen, "{coding:?}");
            }
        }
    }

    /// RFC 7932 9.2: a stream of uncompressed meta-blocks, since no encoder is among our crates.
    fn brotli_stored(body: &[u8]) -> Vec<u8> {
        let (mut out, mut bits, mut fill) = (Vec::new(), 0u64, 0u32);
        let mut put = |out: &mut Vec<u8>, value: u64, count: u32, align: bool| {
            bits |= value << fill;
            fill += count;
            while fill >= 8 || (align && fill > 0) {
                out.push(bits as u8);
                bits >>= 8;
                fill = fill.saturating_sub(8);
            }
        };
        put(&mut out, 0, 1, false); // WBITS = 16
        for block in body.chunks(1 << 16) {
            put(&mut out, 0, 1, false); // ISLAST
            put(&mut out, 0, 2, false); // MNIBBLES = 4
            put(&mut out, block.len() as u64 - 1, 16, false);
            put(&mut out, 1, 1, true); // ISUNCOMPRESSED, then to the byte boundary
            out.extend_from_slice(block);
        }
        put(&mut out, 0b11, 2, true); // ISLAST, ISLASTEMPTY
        out
    }

    fn inspect(coding: Coding, encoded: &[u8], chunk: usize) -> Result<Vec<u8>, Refusal> {
        let (mut inspector, mut out) = (Inspector::new(coding), Vec::new());
        for piece in encoded.chunks(chunk) {
            inspector.push(Bytes::copy_from_slice(piece));
            loop {
                match inspector.step()? {
                    Step::Release(bytes) => break out.extend_from_slice(&bytes),
                    Step::Pause => {}
                }
            }
        }
        loop {
            match inspector.finish()? {
                Step::Release(bytes) => break out.extend_from_slice(&bytes),
                Step::Pause => {}
            }
        }
        Ok(out)
    }

    const CODINGS: [(Coding, bool); 5] = [
        (Coding::Gzip, false),
        (Coding::Deflate, false),
        (Coding::Deflate, true),
        (Coding::Brotli, false),
        (Coding::Zstd, false),
    ];

    #[test]
    fn a_clean_body_passes_byte_for_byte_however_it_is_cut() {
        let body: Vec<u8> = (0..200_000u32).flat_map(|n| n.to_string().into_bytes()).collect();
        for (coding, bare) in CODINGS {
            let encoded = encode(coding, bare, &body);
            for chunk in [1, 7, 1000, encoded.len()] {
                assert_eq!(inspect(coding, &encoded, chunk).as_deref(), Ok(&encoded[..]), "{coding:?} {chunk}");
            }
        }
    }

    #[test]
    fn a_key_in_the_decoded_copy_ends_the_stream_before_its_bytes_leave() {
        for (coding, bare) in CODINGS {
            for before in [0, 10, 70_000] {
                let body = [&b"x".repeat(before)[..], b" cbat_9T01SlwIQGq8HC56LYL8kXcBBp "].concat();
                let encoded = encode(coding, bare, &body);
                for chunk in [1, 13, encoded.len()] {
                    assert_eq!(inspect(coding, &encoded, chunk), Err(Refusal::Leak), "{coding:?} {before} {chunk}");
                }
            }
        }
    }

    #[test]
    fn what_does_not_decode_does_not_pass() {
        for (coding, bare) in CODINGS {
            let mut encoded = encode(coding, bare, b"hello hello hello");
            assert_eq!(inspect(coding, &[0xfe; 20], 20), Err(Refusal::Undecodable), "{coding:?}");
            assert_eq!(
                inspect(coding, b"cbat_plain although the head says coded", 3),
                Err(Refusal::Leak),
                "{coding:?}"
            );
            encoded.extend_from_slice(b"and more of the same");
            assert_eq!(inspect(coding, &encoded, 1000), Err(Refusal::Undecodable), "{coding:?} with a tail");
        }
    }

    #[test]
    fn a_bomb_is_taken_in_slices() {
        let encoded = encode(Coding::Gzip, false, &vec![0; 64 << 20]);
        let mut inspector = Inspector::new(Coding::Gzip);
        inspector.push(Bytes::from(encoded));
        let mut pauses = 0;
        while inspector.step() == Ok(Step::Pause) {
            pauses += 1;
        }
        assert!(pauses >= 16, "{pauses}");
    }

    #[test]
    fn a_brotli_bomb_is_taken_in_slices() {
        // 16 MiB of zeros, as the reference encoder writes them at quality 9 with the largest window.
        let encoded: &[u8] = &[0xcf, 0xff, 0xff, 0x7f, 0x00, 0x24, 0x00, 0xe2, 0xb1, 0x40, 0x72, 0xef, 0xff, 0x07];
        let mut inspector = Inspector::new(Coding::Brotli);
        inspector.push(Bytes::from_static(encoded));
        let mut pauses = 0;
        while inspector.step() == Ok(Step::Pause) {
            pauses += 1;
        }
        assert!(pauses >= 32, "{pauses}");
    }

    #[test]
    fn a_large_brotli_window_is_refused() {
        // The 14 bits that announce a window of 2^30, which the ordinary format does not have.
        assert_eq!(inspect(Coding::Brotli, &[0x11, 0x9e, 0, 0, 0, 0, 0, 0], 8), Err(Refusal::Undecodable));
    }

    #[test]
    fn a_zstd_bomb_is_taken_in_slices_and_has_an_end() {
        // A frame of run-length blocks (RFC 8878 3.1.1.2.2): four bytes say 128 KiB.
        let frame = |blocks: u32| {
            let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58];
            for block in 1..=blocks {
                let header = u32::from(block == blocks) | (1 << 1) | ((128 << 10) << 3);
                frame.extend_from_slice(&header.to_le_bytes()[..3]);
                frame.push(b'x');
            }
            frame
        };
        let mut inspector = Inspector::new(Coding::Zstd);
        inspector.push(Bytes::from(frame(256)));
        assert_eq!(inspector.step(), Ok(Step::Release(Bytes::new())));
        let mut pauses = 0;
        while inspector.finish() == Ok(Step::Pause) {
            pauses += 1;
        }
        assert!(pauses >= 32, "{pauses}");
        assert_eq!(inspect(Coding::Zstd, &frame(4096), 1 << 20), Err(Refusal::Undecodable));
    }
}
