//! zstd (RFC 8878), held whole and inspected at its end.
//!
//! In: the chunks of a body. Out: all of them at once, after their decoded form was searched. The decoder at hand shows
//! nothing of the last window until the frame is complete, so the body cannot be let go piece by piece.
//! `Accept-Encoding` never offers zstd; this is for an upstream that sends it all the same, and small bodies.

use bytes::{Bytes, BytesMut};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::{BUDGET, Refusal, Scanner, Step};

/// The largest window accepted, in bytes (RFC 9659: 8 MiB for content coding).
const WINDOW: u64 = 8 * 1024 * 1024;

/// The largest body accepted, in encoded bytes, and in decoded ones: four bytes may stand for 128 KiB.
const HELD: usize = 8 * 1024 * 1024;
const DECODED: u64 = 256 * 1024 * 1024;

/// One body.
#[derive(Default)]
pub(super) struct Zstd {
    held: BytesMut,
    scanner: Scanner,
    run: Option<Run>,
}

/// The inspection under way.
struct Run {
    bytes: Bytes,
    done: usize,
    frame: Option<FrameDecoder>,
}

impl Zstd {
    /// Where the decoded bytes go.
    pub(super) fn scanner(&self) -> &Scanner {
        &self.scanner
    }

    /// Takes a chunk.
    pub(super) fn hold(&mut self, chunk: &[u8]) -> Result<(), Refusal> {
        if self.held.len() + chunk.len() > HELD {
            return Err(Refusal::Undecodable);
        }
        self.held.extend_from_slice(chunk);
        Ok(())
    }

    /// Inspects for a while; the whole body once that is done.
    pub(super) fn finish(&mut self) -> Result<Step, Refusal> {
        let Self { held, scanner, run } = self;
        let run = run.get_or_insert_with(|| Run { bytes: std::mem::take(held).freeze(), done: 0, frame: None });
        let start = scanner.decoded;
        while run.done < run.bytes.len() || run.frame.is_some() {
            run.block(scanner).ok_or(Refusal::Undecodable)?;
            scanner.verdict()?;
            if scanner.decoded > DECODED {
                return Err(Refusal::Undecodable);
            }
            if scanner.decoded - start > BUDGET {
                return Ok(Step::Pause);
            }
        }
        Ok(Step::Release(std::mem::take(&mut run.bytes)))
    }
}

impl Run {
    /// Decodes the next block, or the head of the next frame.
    fn block(&mut self, scanner: &mut Scanner) -> Option<()> {
        let mut rest = &self.bytes[self.done..];
        match &mut self.frame {
            None => {
                let mut decoder = FrameDecoder::new();
                decoder.set_max_window_size(WINDOW);
                decoder.init(&mut rest).ok()?;
                self.frame = Some(decoder);
            }
            Some(decoder) => {
                decoder.decode_blocks(&mut rest, BlockDecodingStrategy::UptoBlocks(1)).ok()?;
                decoder.collect_to_writer(&mut *scanner).ok()?;
                if decoder.is_finished() {
                    self.frame = None;
                }
            }
        }
        self.done = self.bytes.len() - rest.len();
        Some(())
    }
}
