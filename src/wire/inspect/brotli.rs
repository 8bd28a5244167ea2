//! Brotli (RFC 7932), decoded into a small buffer that is searched and written over.
//!
//! In: a chunk. Out: whether all of it was decoded within the budget. A command of a few bytes may copy 16 MiB, so it
//! is the output that is counted, not the input. Windows beyond the RFC's 16 MiB are refused: their format is another.

use std::io::Write as _;

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};

use super::{BUDGET, Refusal, Scanner};

/// Decoded bytes searched at a time.
const PIECE: usize = 16 * 1024;

type State = BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>;

/// The decoder of one body.
pub(super) struct Brotli {
    state: State,
    scanner: Scanner,
    ended: bool,
}

impl Default for Brotli {
    fn default() -> Self {
        let alloc = StandardAlloc::default;
        Self { state: State::new_strict(alloc(), alloc(), alloc()), scanner: Scanner::default(), ended: false }
    }
}

impl Brotli {
    /// Where the decoded bytes go.
    pub(super) fn scanner(&self) -> &Scanner {
        &self.scanner
    }

    /// Goes on with `chunk` from `done`; false when the budget is spent before its end.
    pub(super) fn decode(&mut self, chunk: &[u8], done: &mut usize) -> Result<bool, Refusal> {
        let start = self.scanner.decoded;
        let mut piece = [0; PIECE];
        loop {
            if self.ended {
                // Bytes behind the end of the coded stream are bytes nobody decoded.
                return if *done == chunk.len() { Ok(true) } else { Err(Refusal::Undecodable) };
            }
            let (mut left, mut room, mut written, mut total) = (chunk.len() - *done, PIECE, 0, 0);
            let result = BrotliDecompressStream(
                &mut left,
                done,
                chunk,
                &mut room,
                &mut written,
                &mut piece,
                &mut total,
                &mut self.state,
            );
            let _ = self.scanner.write(&piece[..written]); // It takes everything.
            self.scanner.verdict()?;
            match result {
                BrotliResult::ResultSuccess => self.ended = true,
                BrotliResult::NeedsMoreInput => return Ok(true),
                BrotliResult::NeedsMoreOutput if self.scanner.decoded - start > BUDGET => return Ok(false),
                BrotliResult::NeedsMoreOutput => {}
                BrotliResult::ResultFailure => return Err(Refusal::Undecodable),
            }
        }
    }
}
