//! What a server's frames say (RFC 9113 6).
//!
//! In: bytes. Out: what they change in the connection and its streams. What breaks the rules ends the connection, or the one
//! stream that it is about, as the RFC has it; an answer that contradicts itself never looks whole.

use bytes::{Buf as _, Bytes, BytesMut};
use h2::Reason;
use http::StatusCode;

use super::super::lease::Answered;
use super::connection::{Block, Connection, LIST_MAX, is_without_content};
use super::streams::Place;
use crate::proxy::broken::Failure;
use crate::wire::answer::content_length;
use crate::wire::frame::{self, Head, flag, kind, number, setting};
use crate::wire::hpack::{Fault, Fields};

/// The longest header block, in bytes and in frames. Compressed it is shorter than the list; a flood of CONTINUATION ends
/// here (CVE-2024-27316 and its kin).
const BLOCK_MAX: usize = LIST_MAX as usize;
const BLOCK_FRAMES: usize = 64;

const TOO_LITTLE: Fault = "less content than its head says";

const fn violation(reason: Reason, words: &'static str) -> Failure {
    Failure::Violation(reason, words)
}

const fn protocol(words: &'static str) -> Failure {
    violation(Reason::PROTOCOL_ERROR, words)
}

const fn size(words: &'static str) -> Failure {
    violation(Reason::FRAME_SIZE_ERROR, words)
}

const fn flow(words: &'static str) -> Failure {
    violation(Reason::FLOW_CONTROL_ERROR, words)
}

impl<S> Connection<S> {
    /// Acts on all frames that have come whole.
    pub(super) fn frames(&mut self) -> Result<(), Failure> {
        loop {
            self.rest_of_data();
            if self.data.is_some() {
                break;
            }
            let Some(head) = Head::read(&self.input) else { break };
            if head.length > frame::PAYLOAD_MAX {
                return Err(size("a frame is longer than it may be"));
            }
            if !self.greeted && (head.kind != kind::SETTINGS || head.has(flag::ACK)) {
                return Err(protocol("it does not begin with its settings"));
            }
            let expected =
                self.block.as_ref().is_none_or(|block| head.kind == kind::CONTINUATION && head.stream == block.stream);
            if !expected {
                return Err(protocol("a header block is interrupted"));
            }
            if head.kind == kind::DATA && !head.has(flag::PADDED) {
                self.input.advance(frame::HEAD);
                self.begin_data(head, head.length)?;
                self.data = Some(head);
                continue;
            }
            if self.input.len() < frame::HEAD + head.length {
                break;
            }
            self.input.advance(frame::HEAD);
            let payload = self.input.split_to(head.length).freeze();
            self.frame(head, payload)?;
        }
        if self.input.is_empty() {
            // Keeps no part of a buffer that nothing is left in: others receive there.
            self.input = BytesMut::new();
        }
        Ok(())
    }

    /// A frame of content is handed on as it comes, and judged as soon as its length is known.
    fn rest_of_data(&mut self) {
        let Some(head) = self.data.take() else { return };
        let there = head.length.min(self.input.len());
        let (last, length) = (there == head.length, head.length - there);
        let content = self.input.split_to(there).freeze();
        self.content(head.stream, content, 0, last && head.has(flag::END_STREAM));
        self.data = (!last).then_some(Head { length, ..head });
    }

    fn frame(&mut self, head: Head, payload: Bytes) -> Result<(), Failure> {
        match head.kind {
            kind::DATA => self.data(head, &payload),
            kind::HEADERS => self.headers(head, payload),
            kind::CONTINUATION => self.continuation(head, &payload),
            kind::SETTINGS => self.settings(head, &payload),
            kind::WINDOW_UPDATE => self.window_update(head, &payload),
            kind::RST_STREAM => self.rst_stream(head, &payload),
            kind::GOAWAY => self.goaway(head, &payload),
            kind::PING => self.ping_frame(head, &payload),
            kind::PRIORITY if head.stream == 0 => Err(protocol("a priority of no stream")),
            kind::PRIORITY if head.length != 5 => Err(size("a priority has five bytes")),
            kind::PUSH_PROMISE => Err(protocol("a push, which was not asked for")),
            // 5.5: unknown ones mean nothing.
            _ => Ok(()),
        }
    }

    fn headers(&mut self, head: Head, payload: Bytes) -> Result<(), Failure> {
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

    fn continuation(&mut self, head: Head, payload: &[u8]) -> Result<(), Failure> {
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
        let Some(place) = self.streams.find(stream) else { return self.unknown(stream) };
        let state = self.streams.at(place);
        if state.ended {
            self.behind_the_end(place);
            return Ok(());
        }
        if state.failed.is_some() {
            return Ok(());
        }
        let judged = if state.answered { trailers(&fields, ends) } else { self.answer(place, fields, ends) };
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
        let state = self.streams.at(place);
        state.expected = if state.head_alone || is_without_content(status) {
            Some(0)
        } else {
            content_length(&fields.headers).map_err(|_| "its Content-Length is no length")?
        };
        if ends && state.expected.is_some_and(|length| length > 0) {
            return Err(TOO_LITTLE);
        }
        state.answered = true;
        state.answer = Some(Answered { status, headers: fields.headers });
        state.wake();
        Ok(())
    }

    /// Padded content.
    fn data(&mut self, head: Head, payload: &Bytes) -> Result<(), Failure> {
        let data = frame::unpadded(head.flags, payload).ok_or(protocol("more padding than payload"))?;
        self.begin_data(head, data.len())?;
        let padding = head.length - data.len();
        self.content(head.stream, payload.slice_ref(data), padding, head.has(flag::END_STREAM));
        Ok(())
    }

    /// Judges a frame with so much content.
    fn begin_data(&mut self, head: Head, content: usize) -> Result<(), Failure> {
        if head.stream == 0 {
            return Err(protocol("content on no stream"));
        }
        self.window -= head.length as i64;
        if self.window < 0 {
            return Err(flow("more content than the connection's window has room for"));
        }
        let Some(place) = self.streams.find(head.stream) else { return self.unknown(head.stream) };
        let state = self.streams.at(place);
        if state.ended {
            self.behind_the_end(place);
            return Ok(());
        }
        if state.failed.is_some() {
            return Ok(());
        }
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
    fn content(&mut self, stream: u32, data: Bytes, padding: usize, ends: bool) {
        let place = self.streams.find(stream);
        let Some(place) = place.filter(|place| self.streams.at(*place).goes_on()) else {
            return self.release((data.len() + padding) as i64);
        };
        let state = self.streams.at(place);
        if !data.is_empty() {
            state.push(data);
            state.wake();
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
    fn malformed(&mut self, place: Place, fault: Fault, reason: Reason) {
        let number = self.streams.number(place);
        let state = self.streams.at(place);
        state.fail(Failure::Malformed(fault));
        if !std::mem::replace(&mut state.reset, true) {
            self.reset(number, reason);
        }
    }

    /// 5.1, half-closed (remote): nothing that counts comes behind the end. The answer is whole all the same.
    fn behind_the_end(&mut self, place: Place) {
        let number = self.streams.number(place);
        if !std::mem::replace(&mut self.streams.at(place).reset, true) {
            self.reset(number, Reason::STREAM_CLOSED);
        }
    }

    /// A frame for a stream that nobody has: one that was given up, one that has ended, or one that never was.
    fn unknown(&mut self, stream: u32) -> Result<(), Failure> {
        if self.is_idle(stream) {
            return Err(protocol("a frame on a stream that nobody opened"));
        }
        if !self.resets.contains(&stream) {
            self.reset(stream, Reason::STREAM_CLOSED);
        }
        Ok(())
    }

    /// Ours are odd, and each is greater than the one before.
    fn is_idle(&self, stream: u32) -> bool {
        stream % 2 == 0 || stream >= self.next
    }

    fn rst_stream(&mut self, head: Head, payload: &[u8]) -> Result<(), Failure> {
        let Ok(code) = payload.try_into() else { return Err(size("a reset has four bytes")) };
        if self.is_idle(head.stream) {
            return Err(protocol("a reset of a stream that nobody opened"));
        }
        if let Some(place) = self.streams.find(head.stream) {
            let state = self.streams.at(place);
            let first = !std::mem::replace(&mut state.reset, true);
            state.fail(Failure::Reset(number(code).into()));
            if first {
                self.note_reset(head.stream);
            }
        }
        Ok(())
    }

    fn settings(&mut self, head: Head, payload: &[u8]) -> Result<(), Failure> {
        if head.stream != 0 {
            return Err(protocol("settings of a stream"));
        }
        if head.has(flag::ACK) {
            let left =
                self.unacknowledged.checked_sub(1).ok_or(protocol("settings acknowledged that were not made"))?;
            self.unacknowledged = left;
            return if payload.is_empty() { Ok(()) } else { Err(size("an acknowledgement has no payload")) };
        }
        let (settings, []) = payload.as_chunks::<6>() else { return Err(size("a setting has six bytes")) };
        for [a, b, value @ ..] in settings {
            self.setting(u16::from_be_bytes([*a, *b]), number(value))?;
        }
        self.greeted = true;
        self.output.frame(kind::SETTINGS, flag::ACK, 0, b"");
        self.ask();
        self.wake_waiting();
        Ok(())
    }

    fn setting(&mut self, name: u16, value: u32) -> Result<(), Failure> {
        match name {
            setting::ENABLE_PUSH if value != 0 => Err(protocol("a server that takes pushes")),
            setting::MAX_CONCURRENT_STREAMS => {
                self.allowed.streams = value as usize;
                Ok(())
            }
            setting::INITIAL_WINDOW_SIZE if i64::from(value) > frame::WINDOW_MAX => {
                Err(flow("a window larger than any may be"))
            }
            setting::INITIAL_WINDOW_SIZE => {
                // 6.9.2: for the streams there are, too.
                let more = i64::from(value) - self.allowed.window;
                self.allowed.window = i64::from(value);
                for (_, state) in self.streams.all() {
                    state.send_window += more;
                    if state.send_window > frame::WINDOW_MAX {
                        return Err(flow("a window larger than any may be"));
                    }
                    state.wake();
                }
                Ok(())
            }
            setting::MAX_FRAME_SIZE => {
                let size = value as usize;
                if !(frame::PAYLOAD_MAX..1 << 24).contains(&size) {
                    return Err(protocol("a frame size that none may be"));
                }
                // Longer ones would only keep others waiting.
                self.allowed.frame = frame::PAYLOAD_MAX;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn window_update(&mut self, head: Head, payload: &[u8]) -> Result<(), Failure> {
        let Ok(more) = payload.try_into() else { return Err(size("a window update has four bytes")) };
        let more = i64::from(number(more) & !(1 << 31));
        if head.stream == 0 {
            self.send_window += more;
            if more == 0 {
                return Err(protocol("a window update of nothing"));
            }
            if self.send_window > frame::WINDOW_MAX {
                return Err(flow("a window larger than any may be"));
            }
            self.wake_waiting();
            return Ok(());
        }
        if self.is_idle(head.stream) {
            return Err(protocol("a window of a stream that nobody opened"));
        }
        let Some(place) = self.streams.find(head.stream) else { return Ok(()) };
        let state = self.streams.at(place);
        state.send_window += more;
        if more == 0 {
            self.malformed(place, "a window update of nothing", Reason::PROTOCOL_ERROR);
        } else if state.send_window > frame::WINDOW_MAX {
            self.malformed(place, "a window larger than any may be", Reason::FLOW_CONTROL_ERROR);
        } else {
            state.wake();
        }
        Ok(())
    }

    fn ping_frame(&mut self, head: Head, payload: &[u8]) -> Result<(), Failure> {
        if head.stream != 0 {
            return Err(protocol("a ping of a stream"));
        }
        if payload.len() != 8 {
            return Err(size("a ping has eight bytes"));
        }
        if head.has(flag::ACK) {
            self.pong = true;
        } else {
            self.output.frame(kind::PING, flag::ACK, 0, payload);
            self.ask();
        }
        Ok(())
    }

    /// 6.8: streams beyond the last one were not acted on.
    fn goaway(&mut self, head: Head, payload: &[u8]) -> Result<(), Failure> {
        if head.stream != 0 {
            return Err(protocol("a goodbye on a stream"));
        }
        let (Some(last), Some(code)) = (payload.first_chunk(), payload.get(4..).and_then(|rest| rest.first_chunk()))
        else {
            return Err(size("a goodbye has eight bytes"));
        };
        let (last, reason) = (number(last) & !(1 << 31), Reason::from(number(code)));
        self.goaway = true;
        let mut excluded = Vec::new();
        for (number, state) in self.streams.all().filter(|(number, _)| *number > last) {
            state.fail(Failure::GoAway(reason));
            if !std::mem::replace(&mut state.reset, true) {
                excluded.push(number);
            }
        }
        excluded.into_iter().for_each(|number| self.note_reset(number));
        self.wake_waiting();
        self.ask();
        Ok(())
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
