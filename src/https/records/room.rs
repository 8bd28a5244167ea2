//! Where records are received: a buffer that is a core's, and a connection's only while bytes are in it.
//!
//! In: a stream that has something to say. Out: its bytes in a buffer with room for four full records. What is handed on of
//! them are slices of that buffer; once nobody holds one, the same room is used again, and until then another one is. Small
//! pieces are copied into a smaller one, one behind the other, so that the large one is soon free again.

use std::cell::RefCell;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::{FRAGMENT_MAX, HEADER};

/// Room for four full records as nearly all ciphers make them: behind the first full one that begins a buffer, each
/// buffer ends with a record, and no part of one has to be moved.
const ROOM: usize = 4 * (HEADER + FRAGMENT_MAX + 1 + 16);

/// With so much left of a buffer that somebody still holds slices of, another one is not worth its price, in bytes.
const ENOUGH: usize = 20 * 1024;

/// Room for small pieces, in bytes: those of some twenty answers of a KiB. Whoever holds one for long holds all of it.
const SMALL_ROOM: usize = 32 * 1024;

thread_local! {
    /// The buffer that has nothing in it at the moment.
    static SPARE: RefCell<BytesMut> = RefCell::default();
    /// What is left of the one for small pieces.
    static SMALL: RefCell<BytesMut> = RefCell::default();
}

/// Receives once, at least so many bytes if that many are here; `Ok(0)` is the end of the stream.
pub(super) fn poll_receive<S: AsyncRead + Unpin>(
    input: &mut BytesMut,
    missing: usize,
    io: &mut S,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    if input.is_empty() {
        *input = SPARE.take();
        if !input.try_reclaim(ROOM) && input.capacity() < ENOUGH {
            *input = BytesMut::with_capacity(ROOM);
        }
    } else if input.capacity() - input.len() < missing {
        // The record that has begun goes to the front, of this buffer or of another one.
        input.reserve(ROOM.saturating_sub(input.len()).max(missing));
    }
    let polled = pin!(io.read_buf(input)).poll(cx);
    if input.is_empty() {
        put_back(input);
    }
    polled
}

/// For whoever receives next.
pub(super) fn put_back(input: &mut BytesMut) {
    SPARE.set(std::mem::take(input));
}

/// An empty buffer with room for small pieces, so many bytes of them together, and no more than [`SMALL_ROOM`].
pub(super) fn for_small(most: usize) -> BytesMut {
    let mut room = SMALL.take();
    if room.capacity() < most && !room.try_reclaim(SMALL_ROOM) {
        room = BytesMut::with_capacity(SMALL_ROOM);
    }
    room
}

/// The pieces that were put there; what is left of the room is for the next ones.
pub(super) fn take_small(mut room: BytesMut) -> BytesMut {
    let pieces = room.split();
    SMALL.set(room);
    pieces
}
