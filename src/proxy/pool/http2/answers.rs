//! The answers in a server's frames (RFC 9113 8.1).
//!
//! In: HEADERS, CONTINUATION and DATA. Out: heads and content on their streams, each judged by what the RFC lets an answer be;
//! one that contradicts itself never looks whole. What is wrong with one answer ends its stream alone, unless later ones could
//! not be read either.

use bytes::Bytes;
use h2::Reason;
use http::StatusCode;

use super::super::lease::Answered;
use super::connection::{Block, Connection, LIST_MAX};
use super::frames::{flow, protocol, size, violation};
use super::streams::Place;
use crate::proxy::broken::Failure;
use crate::wire::answer::content_length;
use crate::wire::frame::{self, Head, flag};
use crate::wire::hpack::{Fault, Fields};

/// The longest header block, in bytes and in frames. Compressed it is shorter than the list; a flood of CONTINUATION ends
/// here (CVE-2024-27316 and its kin).
const BLOCK_MAX: usize = LIST_MAX as usize;
const BLOCK_FRAMES: usize = 64;

const TOO_LITTLE: Fault = "less content than its head says";

impl<S> Connection<S> {
    pub(super) fn headers(&mut self, head: Head, payload: Bytes) -> Result<(), Failure> {
        if head.stream == 0 {
            return Err(protocol("a head on no stream"));
        }
        let block = frame::unpadded(head.flags, &payload).ok_or(protocol("more padding than payload"))?;
        // 6.2: what was said of priorities is not heeded.
        let block = if head.has(flag::PRIORITY) {
            block.get(5..).ok_or(size("a head without the priority that it announces"))?
        } else {
            block
        };
        let ends = head.has(flag::END_STREAM);
        if head.has(flag::END_HEADERS) {
            return self.head(head.stream, ends, &payload.slice_ref(block));
        }
        self.block = Some(Block { stream: head.stream, ends, bytes: block.to_vec(), frames: 1 });
        Ok(())
    }

    pub(super) fn continuation(&mut self, head: Head, payload: &[u8]) -> Result<(), Failure> {
        let Some(mut block) = self.block.take() else { return Err(protocol("a continuation of nothing")) };
        block.bytes.extend_from_slice(payload);
        block.frames += 1;
        if block.bytes.len() > BLOCK_MAX || block.frames > BLOCK_FRAMES {
            return Err(violation(Reason::ENHANCE_YOUR_CALM, "a head is too large"));
        }
        if head.has(flag::END_HEADERS) {
            return self.head(block.stream, block.ends, &Bytes::from(block.bytes));
        }
        self.block = Some(block);
        Ok(())
    }

    /// A whole header block. It is read in any case, since those behind it may refer to it.
    fn head(&mut self, stream: u32, ends: bool, block: &Bytes) -> Result<(), Failure> {
        let fields = self.decoder.decode(block, LIST_MAX as usize);
        let fields = fields.map_err(|_| violation(Reason::COMPRESSION_ERROR, "a header block cannot be read"))?;
        let Some(place) = self.awaited(stream)? else { return Ok(()) };
        let judged =
            if self.streams.at(place).answered { trailers(&fields, ends) } else { self.answer(place, fields, ends) };
        if let Err(fault) = judged {
            self.malformed(place, fault, Reason::PROTOCOL_ERROR);
        } else if ends {
            self.end_of(place);
        }
        Ok(())
    }

    fn answer(&mut self, place: Place, fields: Fields, ends: bool) -> Result<(), Fault> {
        if let Some(fault) = fields.fault {
            return Err(fault);
        }
        let status = fields.status.ok_or("its head has no status")?;
        if status.is_informational() {
            // 8.1 and 8.6.
            let none = ends || status == StatusCode::SWITCHING_PROTOCOLS;
            return if none { Err("an interim answer that can be none") } else { Ok(()) };
        }
        let alone = self.streams.open() == 1;
        let state = self.streams.at(place);
        let length = if state.head_alone || is_without_content(status) {
            Some(0)
        } else {
            content_length(&fields.headers).map_err(|_| "its Content-Length is no length")?
        };
        if ends && length.is_some_and(|length| length > 0) {
            return Err(TOO_LITTLE);
        }
        (state.length, state.expected, state.answered) = (length, length, true);
        state.answer = Some(Answered { status, headers: fields.headers });
        // Servers send the heads of several answers before their content, and each would be a write of its own. What is a failure,
        // or comes before the request's end, must be known at once.
        let usual = status.is_success() && state.sent;
        state.head_waits = !alone && usual && length.is_some_and(|length| length > 0);
        if state.head_waits {
            self.held_back = true;
        } else {
            state.wake();
        }
        Ok(())
    }

    /// Padded content.
    pub(super) fn data(&mut self, head: Head, payload: &Bytes) -> Result<(), Failure> {
        let data = frame::unpadded(head.flags, payload).ok_or(protocol("more padding than payload"))?;
        self.begin_data(head, data.len())?;
        let padding = head.length - data.len();
        self.content(head.stream, payload.slice_ref(data), padding, head.has(flag::END_STREAM));
        Ok(())
    }

    /// Judges a frame with so much content.
    pub(super) fn begin_data(&mut self, head: Head, content: usize) -> Result<(), Failure> {
        if head.stream == 0 {
            return Err(protocol("content on no stream"));
        }
        self.window -= head.length as i64;
        if self.window < 0 {
            return Err(flow("more content than the connection's window has room for"));
        }
        let Some(place) = self.awaited(head.stream)? else { return Ok(()) };
        let state = self.streams.at(place);
        state.window -= head.length as i64;
        let left = state.expected.map(|left| left.checked_sub(content as u64));
        if state.window < 0 {
            self.malformed(place, "more content than its window has room for", Reason::FLOW_CONTROL_ERROR);
        } else if !state.answered {
            self.malformed(place, "content before its head", Reason::PROTOCOL_ERROR);
        } else if left == Some(None) {
            self.malformed(place, "more content than its head says", Reason::PROTOCOL_ERROR);
        } else {
            state.expected = left.flatten();
        }
        Ok(())
    }

    /// A part of a frame that was judged. What nobody takes is free again at once, as padding is.
    pub(super) fn content(&mut self, stream: u32, data: Bytes, padding: usize, ends: bool) {
        let place = self.streams.find(stream);
        let Some(place) = place.filter(|place| self.streams.at(*place).goes_on()) else {
            return self.release((data.len() + padding) as i64);
        };
        let alone = self.streams.open() == 1;
        let state = self.streams.at(place);
        if !data.is_empty() {
            state.push(data);
        }
        // Without any too: with the head of the last frame what has come before it is due.
        if !state.is_drained() {
            if alone {
                state.show();
            } else if state.is_due() {
                state.wake();
            }
            self.held_back |= state.is_held_back();
        }
        self.took(place, padding);
        if ends {
            self.end_of(place);
        }
    }

    /// An answer's end.
    fn end_of(&mut self, place: Place) {
        let state = self.streams.at(place);
        if state.expected.is_some_and(|left| left > 0) {
            return self.malformed(place, TOO_LITTLE, Reason::PROTOCOL_ERROR);
        }
        state.ended = true;
        state.wake();
    }

    /// An answer that breaks the rules (RFC 9113 8.1.1).
    pub(super) fn malformed(&mut self, place: Place, fault: Fault, reason: Reason) {
        self.streams.at(place).fail(Failure::Malformed(fault));
        self.reset_once(place, reason);
    }

    fn reset_once(&mut self, place: Place, reason: Reason) {
        if !std::mem::replace(&mut self.streams.at(place).reset, true) {
            self.reset(self.streams.number(place), reason);
        }
    }

    /// The stream that a frame of an answer is for, where more of that is awaited. There is none for one that was given up,
    /// one that has ended (5.1, half-closed (remote): nothing that counts comes behind the end, and the answer is whole all
    /// the same), or one that never was.
    fn awaited(&mut self, stream: u32) -> Result<Option<Place>, Failure> {
        let Some(place) = self.streams.find(stream) else {
            if self.is_idle(stream) {
                return Err(protocol("a frame on a stream that nobody opened"));
            }
            if !self.resets.contains(&stream) {
                self.reset(stream, Reason::STREAM_CLOSED);
            }
            return Ok(None);
        };
        if self.streams.at(place).ended {
            self.reset_once(place, Reason::STREAM_CLOSED);
        }
        Ok(Some(place).filter(|place| self.streams.at(*place).goes_on()))
    }

    /// Ours are odd, and each is greater than the one before.
    pub(super) fn is_idle(&self, stream: u32) -> bool {
        stream.is_multiple_of(2) || stream >= self.next
    }
}

/// RFC 9113 8.1: they end the answer, and have no pseudo-fields. What else is in them is of no interest.
fn trailers(fields: &Fields, ends: bool) -> Result<(), Fault> {
    if !ends {
        return Err("a second head");
    }
    fields.fault.map_or(Ok(()), Err)?;
    if fields.status.is_some() { Err("trailers with a status") } else { Ok(()) }
}

/// Whether an answer with this status has no content (RFC 9110 15.3.5 and 15.4.5).
fn is_without_content(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}
