//! What a server's frames say (RFC 9113 6).
//!
//! In: bytes. Out: what they change in the connection and its streams; what belongs to an answer goes to `answers.rs`. What
//! breaks the rules ends the connection, or the one stream that it is about, as the RFC has it.

use bytes::{Buf as _, Bytes, BytesMut};
use h2::Reason;

use super::connection::Connection;
use crate::proxy::broken::Failure;
use crate::wire::frame::{self, Head, flag, kind, number, setting};

pub(super) const fn violation(reason: Reason, words: &'static str) -> Failure {
    Failure::Violation(reason, words)
}

pub(super) const fn protocol(words: &'static str) -> Failure {
    violation(Reason::PROTOCOL_ERROR, words)
}

pub(super) const fn size(words: &'static str) -> Failure {
    violation(Reason::FRAME_SIZE_ERROR, words)
}

pub(super) const fn flow(words: &'static str) -> Failure {
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
