//! The streams of one HTTP/2 connection that somebody waits for (RFC 9113 5).
//!
//! In: what a stream's frames say, as `frames.rs` reads them. Out: the same, to whoever has the stream. A stream stays until
//! its holder lets go of it; its place is then another one's, with the room that it had.

use std::collections::VecDeque;
use std::task::{Context, Waker};

use bytes::{Bytes, BytesMut};

use super::super::lease::Answered;
use super::STREAM_WINDOW;
use crate::proxy::broken::Failure;
use crate::wire::reply::BATCH;

/// Pieces of a body that are shorter, behind such a one, are put together, in bytes: each may be a part of a large buffer, and
/// holds all of it. One alone is not worth a copy while no more than two portions are held: the last bytes of a full frame come
/// so, when each frame is a little more than a record.
const SHORT: usize = 4 * 1024;

/// So much of a body is shown at a time while more of it is expected, in bytes: what is written to a caller at a time. With many
/// answers on a connection each comes in frames of 16 KiB by turns, and to write costs as much as what is written.
pub(super) const PORTION: usize = BATCH;

/// What the padding of one frame takes of a window at most, in bytes (RFC 9113 6.1). Behind that frame it is counted again.
const PADDING_MAX: i64 = 256;

/// One stream.
#[derive(Default)]
pub(super) struct State {
    /// The head of the answer, until it is taken.
    pub(super) answer: Option<Answered>,
    /// Whether it has come.
    pub(super) answered: bool,
    /// Whether it is not to be seen before some of the content that it announces is.
    pub(super) head_waits: bool,
    /// Whether no content can follow, whatever `Content-Length` says (RFC 9110 6.4.1), since it was asked for by HEAD.
    pub(super) head_alone: bool,
    /// How much content its head announces, where that is known.
    pub(super) length: Option<u64>,
    /// So much of it is still to come.
    pub(super) expected: Option<u64>,
    /// Its bytes, until they are taken.
    pieces: VecDeque<Bytes>,
    /// Short pieces behind them.
    short: BytesMut,
    /// Bytes in both.
    held: usize,
    /// So many of them may be seen, be they few.
    shown: usize,
    /// Whether the same was held back at the last tick.
    waited: bool,
    /// Whether the answer has come to its end.
    pub(super) ended: bool,
    /// Whether the request has been sent to its end.
    pub(super) sent: bool,
    /// Why there will be no more of it.
    pub(super) failed: Option<Failure>,
    /// Whether it was reset, by either side.
    pub(super) reset: bool,
    /// So many bytes may be sent (RFC 9113 6.9).
    pub(super) send_window: i64,
    /// So many may come.
    pub(super) window: i64,
    /// So many were taken, and the server has not been told.
    pub(super) taken: i64,
    /// Bytes queued on the connection before it: where no more than that was written, nothing of it was.
    pub(super) queued_before: u64,
    waker: Option<Waker>,
}

impl State {
    pub(super) fn wake(&mut self) {
        self.head_waits = false;
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// The head, if it has come, whoever gave its holder a turn. What is behind it waits for itself.
    pub(super) fn take_answer(&mut self) -> Option<Answered> {
        let answer = self.answer.take()?;
        (self.head_waits, self.waited) = (false, false);
        Some(answer)
    }

    /// Its holder is woken when there is more to see.
    pub(super) fn wait(&mut self, cx: &Context<'_>) {
        if self.waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
        }
    }

    /// Whether more of the answer is awaited.
    pub(super) fn goes_on(&self) -> bool {
        !self.ended && self.failed.is_none()
    }

    pub(super) fn fail(&mut self, failure: Failure) {
        if self.goes_on() {
            self.failed = Some(failure);
        }
        self.wake();
    }

    /// Whether the server is to be told that so many bytes or more were taken: its window does not do for what is still to come.
    pub(super) fn owes_window(&self, taken: i64) -> bool {
        let does = |left: u64| i64::try_from(left).is_ok_and(|left| left <= self.window - PADDING_MAX);
        self.taken >= taken && self.goes_on() && !self.expected.is_some_and(does)
    }

    /// How much of what has come of the body is to be seen: portions, or the last of it, or be it little.
    fn due(&self) -> usize {
        let more = self.goes_on() && self.expected.is_some_and(|left| left > 0);
        if more { self.shown } else { self.held }
    }

    /// Whether some of it is.
    pub(super) fn is_due(&self) -> bool {
        self.due() > 0
    }

    /// Whether some of it has come that is not due, or a head that waits for it.
    pub(super) fn is_held_back(&self) -> bool {
        self.head_waits || self.held > self.due()
    }

    /// Shows what has been held back for two ticks.
    pub(super) fn tick(&mut self) {
        if !self.is_held_back() {
            self.waited = false;
        } else if std::mem::replace(&mut self.waited, true) {
            self.show();
        }
    }

    /// Shows what has come.
    pub(super) fn show(&mut self) {
        (self.shown, self.waited) = (self.held, false);
        self.wake();
    }

    pub(super) fn push(&mut self, data: Bytes) {
        self.held += data.len();
        let hidden = self.held - self.shown;
        if hidden >= PORTION {
            (self.shown, self.waited) = (self.shown + hidden / PORTION * PORTION, false);
        }
        let behind_short = self.pieces.back().is_some_and(|last| last.len() < SHORT);
        let alone = self.short.is_empty() && !behind_short && self.held <= 2 * PORTION;
        if data.len() < SHORT && !alone {
            self.short.extend_from_slice(&data);
        } else if !data.is_empty() {
            if !self.short.is_empty() {
                self.pieces.push_back(self.short.split().freeze());
            }
            self.pieces.push_back(data);
        }
    }

    /// The next piece, as far as it is due, and the rest of its portion comes with it.
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let due = self.due();
        if due == 0 {
            return None;
        }
        let first = self.pieces.pop_front();
        let mut data = first.or_else(|| (!self.short.is_empty()).then(|| std::mem::take(&mut self.short).freeze()))?;
        if data.len() > due {
            self.pieces.push_front(data.split_off(due));
        }
        self.held -= data.len();
        self.shown = due - data.len();
        Some(data)
    }

    /// Whether all that has come was taken.
    pub(super) fn is_drained(&self) -> bool {
        self.held == 0
    }

    /// Bytes that have come and were not taken.
    pub(super) fn held(&self) -> usize {
        self.held
    }
}

/// The place of a stream among the others.
pub(super) type Place = usize;

/// All of a connection.
#[derive(Default)]
pub(super) struct Streams {
    /// The number of the one in each place; 0 is none.
    numbers: Vec<u32>,
    states: Vec<State>,
    open: usize,
}

impl Streams {
    /// How many there are.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    pub(super) fn find(&self, number: u32) -> Option<Place> {
        self.numbers.iter().position(|known| *known == number && number > 0)
    }

    /// The one in a place that is taken.
    pub(super) fn at(&mut self, place: Place) -> &mut State {
        &mut self.states[place]
    }

    pub(super) fn number(&self, place: Place) -> u32 {
        self.numbers[place]
    }

    pub(super) fn add(&mut self, number: u32, send_window: i64) -> Place {
        let place = self.numbers.iter().position(|known| *known == 0).unwrap_or_else(|| {
            self.numbers.push(0);
            self.states.push(State::default());
            self.numbers.len() - 1
        });
        self.numbers[place] = number;
        self.open += 1;
        let state = &mut self.states[place];
        state.send_window = send_window;
        state.window = i64::from(STREAM_WINDOW);
        place
    }

    /// Empties a place.
    pub(super) fn remove(&mut self, place: Place) {
        let mut pieces = std::mem::take(&mut self.states[place].pieces);
        pieces.clear();
        self.states[place] = State { pieces, ..State::default() };
        self.numbers[place] = 0;
        self.open -= 1;
    }

    /// All that there are, with their numbers.
    pub(super) fn all(&mut self) -> impl Iterator<Item = (u32, &mut State)> {
        self.numbers.iter().copied().zip(&mut self.states).filter(|(number, _)| *number > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_out_in_their_order_however_short_they_are() {
        let mut state = State::default();
        let (long, sizes) = (vec![7_u8; SHORT], [1, SHORT, 1, 1, SHORT, 2, SHORT - 1, 1]);
        let mut held = Vec::new();
        for (at, size) in sizes.into_iter().enumerate() {
            let data: Vec<u8> = long[..size].iter().map(|byte| byte + at as u8).collect();
            held.extend_from_slice(&data);
            state.push(Bytes::from(data));
        }
        assert_eq!(state.held(), held.len());
        let pieces: Vec<Bytes> = std::iter::from_fn(|| state.pop()).collect();
        assert_eq!(pieces.concat(), held);
        assert!(state.is_drained() && pieces.len() == 7);
    }

    #[test]
    fn short_pieces_behind_a_short_one_are_put_together_and_one_alone_is_not_copied() {
        let pieces: Vec<Bytes> = [SHORT, 9, SHORT, 1, 2, 3, SHORT].map(|size| Bytes::from(vec![7; size])).into();
        let mut state = State::default();
        pieces.iter().cloned().for_each(|piece| state.push(piece));
        let out: Vec<Bytes> = std::iter::from_fn(|| state.pop()).collect();
        assert_eq!(out.iter().map(Bytes::len).collect::<Vec<_>>(), [SHORT, 9, SHORT, 1, 5, SHORT]);
        let same = |out: &Bytes| pieces.iter().any(|piece| piece.as_ptr() == out.as_ptr());
        assert_eq!(out.iter().map(same).collect::<Vec<_>>(), [true, true, true, true, false, true]);

        // Of the short ones that nobody takes only the first are held where they came.
        let frames: Vec<Bytes> = [16_375, 9].repeat(16).into_iter().map(|size| Bytes::from(vec![7; size])).collect();
        frames.iter().cloned().for_each(|piece| state.push(piece));
        let out: Vec<Bytes> = std::iter::from_fn(|| state.pop()).collect();
        let uncopied = |out: &&Bytes| out.len() < SHORT && frames.iter().any(|piece| piece.as_ptr() == out.as_ptr());
        assert_eq!(out.iter().filter(uncopied).count(), 2 * PORTION / 16_384);
        assert_eq!(out.concat(), frames.concat());
    }

    #[test]
    fn bytes_come_out_in_their_order_wherever_portions_end() {
        for size in [1, 100, SHORT, 16_384, PORTION - 1, PORTION, PORTION + 1, 3 * PORTION] {
            let sent: Vec<u8> = (0..5 * PORTION + size).map(|at| (at % 251) as u8).collect();
            let mut state = State { expected: Some(sent.len() as u64), ..State::default() };
            let mut came = Vec::new();
            for piece in sent.chunks(size) {
                state.expected = state.expected.map(|left| left - piece.len() as u64);
                state.push(Bytes::copy_from_slice(piece));
                let before = came.len();
                let popped = std::iter::from_fn(|| state.pop());
                came.extend(popped.flatten());
                let whole = came.len() == sent.len() || (came.len() - before).is_multiple_of(PORTION);
                assert!(whole && state.held() < PORTION, "{size}: {} and {}", came.len() - before, state.held());
            }
            assert!(came == sent && state.is_drained(), "{size}");
        }
    }

    #[test]
    fn a_head_waits_for_two_ticks_and_then_nothing_is_held_back_any_more() {
        let mut state = State { head_waits: true, expected: Some(5), ..State::default() };
        state.tick();
        assert!(state.is_held_back());
        state.tick();
        assert!(!state.is_held_back());
        // And what comes behind it has its own two.
        state.push(Bytes::from_static(b"four"));
        state.tick();
        assert!(state.is_held_back() && !state.is_due());
        state.tick();
        assert!(!state.is_held_back() && state.is_due());
    }

    #[test]
    fn a_place_is_given_again_and_nothing_of_its_last_stream_is_left() {
        let mut streams = Streams::default();
        let (first, second) = (streams.add(1, 10), streams.add(3, 10));
        streams.at(first).push(Bytes::from_static(b"left"));
        streams.remove(first);
        assert_eq!((streams.find(1), streams.find(0), streams.find(3)), (None, None, Some(second)));
        assert_eq!(streams.add(5, 20), first);
        assert!(streams.at(first).is_drained() && streams.at(first).send_window == 20);
        assert_eq!(streams.all().map(|(number, _)| number).collect::<Vec<_>>(), [5, 3]);
    }
}
