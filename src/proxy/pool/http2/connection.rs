//! The state of one HTTP/2 connection, and what moves it (RFC 9113).
//!
//! In: an encrypted stream, requests, and turns. Out: frames both ways. Nothing here waits: whoever has a stream is woken
//! when there is something for it, and whoever gives the turns when there is something to write.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use h2::Reason;

use super::super::socket::Socket;
use super::output::{Output, Request};
use super::streams::{Place, Streams};
use super::{CONNECTION_WINDOW, STREAM_WINDOW, STREAMS};
use crate::proxy::broken::Failure;
use crate::wire::frame::{self, kind, setting};
use crate::wire::hpack::Decoder;

/// The largest list of fields an answer may have, in bytes (RFC 9113 6.5.2).
pub(super) const LIST_MAX: u32 = 64 * 1024;

/// What is read in one turn, in bytes, before others have theirs.
const TURN: u64 = 256 * 1024;

/// So many of the streams that were reset last are known, so that frames that were on their way are no breach.
const RESETS: usize = 1024;

/// The last number that a stream may have, in RFC 9113 5.1.1.
const LAST_NUMBER: u32 = (1 << 31) - 1;

/// What the server allows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowed {
    /// Streams at once.
    pub(super) streams: usize,
    /// The window that a stream begins with.
    pub(super) window: i64,
    /// The longest payload of a frame.
    pub(super) frame: usize,
}

/// A header block that has not come to its end.
pub(super) struct Block {
    pub(super) stream: u32,
    pub(super) ends: bool,
    pub(super) bytes: Vec<u8>,
    pub(super) frames: usize,
}

/// The connection.
pub(super) struct Connection<S> {
    /// Nothing once it has ended.
    io: Option<S>,
    pub(super) input: BytesMut,
    /// What is still to come of a DATA frame, as a frame.
    pub(super) data: Option<frame::Head>,
    pub(super) output: Output,
    pub(super) decoder: Decoder,
    pub(super) block: Option<Block>,
    pub(super) streams: Streams,
    pub(super) allowed: Allowed,
    /// The number of the next stream.
    pub(super) next: u32,
    /// Those that were reset.
    pub(super) resets: VecDeque<u32>,
    /// Whether the server's settings have come.
    pub(super) greeted: bool,
    /// How many of our settings it has not acknowledged.
    pub(super) unacknowledged: u32,
    /// So many bytes may be sent, and may come; so many were taken, and the server has not been told.
    pub(super) send_window: i64,
    pub(super) window: i64,
    pub(super) taken: i64,
    /// Whether the server has said that it acts on no later stream.
    pub(super) goaway: bool,
    /// Whether the last ping was answered.
    pub(super) pong: bool,
    /// Decrypted bytes received.
    pub(super) received: u64,
    /// Whether there may be answers of which more has come than is shown, of the body or the head before it.
    pub(super) held_back: bool,
    /// Nobody asks any more.
    pub(super) deserted: bool,
    /// How many streams were open when it ended.
    at_the_end: usize,
    /// Who gives the turns, and whether another one has been asked for.
    waker: Option<Waker>,
    asked: bool,
    /// Who waits for a stream, a window or room.
    waiting: Vec<Waker>,
}

impl<S> Connection<S> {
    /// Speaks HTTP/2 on a stream that has just been opened.
    pub(super) fn new(io: S) -> Self {
        let mut output = Output::default();
        output.put(frame::PREFACE);
        let settings = [
            (setting::ENABLE_PUSH, 0),
            (setting::INITIAL_WINDOW_SIZE, STREAM_WINDOW),
            (setting::MAX_HEADER_LIST_SIZE, LIST_MAX),
        ];
        let settings = settings.map(|(name, value)| {
            let ([a, b], [c, d, e, f]) = (u16::to_be_bytes(name), u32::to_be_bytes(value));
            [a, b, c, d, e, f]
        });
        output.frame(kind::SETTINGS, 0, 0, settings.as_flattened());
        output.window(0, i64::from(CONNECTION_WINDOW) - frame::FIRST_WINDOW);
        Self {
            io: Some(io),
            input: BytesMut::new(),
            data: None,
            output,
            decoder: Decoder::default(),
            block: None,
            streams: Streams::default(),
            allowed: Allowed { streams: usize::MAX, window: frame::FIRST_WINDOW, frame: frame::PAYLOAD_MAX },
            next: 1,
            resets: VecDeque::new(),
            greeted: false,
            unacknowledged: 1,
            send_window: frame::FIRST_WINDOW,
            window: i64::from(CONNECTION_WINDOW),
            taken: 0,
            goaway: false,
            pong: false,
            received: 0,
            held_back: false,
            deserted: false,
            at_the_end: 0,
            waker: None,
            asked: false,
            waiting: Vec::new(),
        }
    }

    /// Whether nothing is read or written any more.
    pub(super) fn has_ended(&self) -> bool {
        self.io.is_none()
    }

    /// Whether it takes no request any more: it has ended, the server has said that it will, or there are no numbers left.
    pub(super) fn is_closed(&self) -> bool {
        self.has_ended() || self.goaway || self.next > LAST_NUMBER
    }

    /// Whether a request given to it leaves at once. Until the server has said how many streams it allows, only the first
    /// one does.
    pub(super) fn has_room(&self) -> bool {
        self.streams.open() < if self.greeted { self.allowed.streams.min(STREAMS) } else { 1 }
    }

    /// Whether it ended with a single request on it: what the server did wrong at last was about that one.
    pub(super) fn ended_with_one(&self) -> bool {
        self.at_the_end == 1
    }

    /// Wakes `waker` when there may be room, or when the connection has ended.
    pub(super) fn wait(&mut self, waker: &Waker) {
        if !self.waiting.iter().any(|known| known.will_wake(waker)) {
            self.waiting.push(waker.clone());
        }
    }

    pub(super) fn wake_waiting(&mut self) {
        self.waiting.drain(..).for_each(Waker::wake);
    }

    /// Asks for a turn.
    pub(super) fn ask(&mut self) {
        if !std::mem::replace(&mut self.asked, true)
            && let Some(waker) = &self.waker
        {
            waker.wake_by_ref();
        }
    }

    /// Puts a request on a stream of its own.
    pub(super) fn open(&mut self, request: &Request<'_>) -> Place {
        let place = self.streams.add(self.next, self.allowed.window);
        let state = self.streams.at(place);
        (state.queued_before, state.head_alone, state.sent) = (self.output.queued(), request.is_head(), request.ends);
        self.output.request(self.next, request, self.allowed.frame);
        self.next += 2;
        self.ask();
        place
    }

    /// Its holder lets go of a stream.
    pub(super) fn leave(&mut self, place: Place) {
        let number = self.streams.number(place);
        let state = self.streams.at(place);
        let held = state.held() as i64;
        let finished = state.reset || state.ended && state.sent;
        self.streams.remove(place);
        if !self.has_ended() {
            self.release(held);
            if !finished {
                self.reset(number, Reason::CANCEL);
            }
        }
        self.wake_waiting();
        if self.goaway || self.deserted {
            self.ask();
        }
    }

    /// Resets a stream.
    pub(super) fn reset(&mut self, number: u32, reason: Reason) {
        self.output.reset(number, reason);
        self.note_reset(number);
        self.ask();
    }

    /// Of a stream that was reset, frames may still be on their way.
    pub(super) fn note_reset(&mut self, number: u32) {
        if self.resets.len() == RESETS {
            self.resets.pop_front();
        }
        self.resets.push_back(number);
    }

    /// Sends a piece of a request's body, no more than [`may_send`](Self::may_send).
    pub(super) fn send(&mut self, place: Place, data: &[u8], last: bool) {
        self.output.content(self.streams.number(place), data, last, self.allowed.frame);
        let state = self.streams.at(place);
        state.send_window -= data.len() as i64;
        state.sent |= last;
        self.send_window -= data.len() as i64;
        self.ask();
    }

    /// Asks whether the server is still there.
    pub(super) fn ping(&mut self) {
        self.pong = false;
        self.output.frame(kind::PING, 0, 0, b"still up");
        self.ask();
    }

    /// It is over: all that wait are told why.
    pub(super) fn end(&mut self, why: &Failure) {
        self.io = None;
        self.at_the_end = self.streams.open();
        self.streams.all().for_each(|(_, state)| state.fail(why.clone()));
        self.input = BytesMut::new();
        self.output.discard();
        self.wake_waiting();
    }
}

impl<S: Socket> Connection<S> {
    /// See [`Socket::set_low_water`].
    pub(super) fn set_low_water(&self, bytes: u32) {
        if let Some(io) = &self.io {
            io.set_low_water(bytes);
        }
    }

    /// A turn: reads and writes what there is. Ready when the connection has ended.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
        }
        self.asked = false;
        let Some(mut io) = self.io.take() else { return Poll::Ready(()) };
        let outcome = self.turn(&mut io, cx);
        self.io = Some(io);
        let Err(why) = outcome else { return Poll::Pending };
        tracing::debug!(error = %why, "h2 ended");
        self.end(&why);
        Poll::Ready(())
    }

    /// First what has come, since it may say that what waits is better sent elsewhere.
    fn turn(&mut self, io: &mut S, cx: &mut Context<'_>) -> Result<(), Failure> {
        let (was_full, was_flooded) = (self.output.is_full(), self.output.is_flooded());
        if let Err(why) = self.read(io, false, cx) {
            if let Failure::Violation(reason, _) = why {
                self.output.goaway(reason);
                let _ = self.output.poll_write(io, cx);
            }
            return Err(why);
        }
        let written = match self.output.poll_write(io, cx) {
            Poll::Ready(Err(error)) => {
                // What the server has said before it went counts.
                self.read(io, true, cx)?;
                return Err(error.into());
            }
            polled => polled.is_ready(),
        };
        if was_full && !self.output.is_full() {
            self.wake_waiting();
        }
        if was_flooded && !self.output.is_flooded() {
            self.ask();
        }
        if self.streams.open() == 0 && (self.goaway || self.deserted) && written {
            if self.deserted {
                self.output.goaway(Reason::NO_ERROR);
                let _ = self.output.poll_write(io, cx);
            }
            let _ = Pin::new(io).poll_shutdown(cx);
            return Err(Failure::Closed);
        }
        Ok(())
    }

    /// Reads and acts on what is read, until there is no more; at the `last`, whatever waits to be written.
    fn read(&mut self, io: &mut S, last: bool, cx: &mut Context<'_>) -> Result<(), Failure> {
        let before = self.received;
        // What a server does not read, it cannot make us answer.
        while last || !self.output.is_flooded() {
            if self.received - before > TURN {
                // Others have their turns first.
                self.ask();
                break;
            }
            match io.poll_piece(cx) {
                Poll::Pending => break,
                Poll::Ready(Ok(None)) => return Err(Failure::Closed),
                Poll::Ready(Ok(Some(piece))) => {
                    self.received += piece.len() as u64;
                    // Most often all frames of the piece before have come whole, so nothing is copied.
                    if self.input.is_empty() {
                        self.input = piece;
                    } else {
                        self.input.extend_from_slice(&piece);
                    }
                    self.frames()?;
                }
                Poll::Ready(Err(error)) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
