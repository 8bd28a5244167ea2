//! A file of cases of HTTP/2, read as frames: README.md in the folder above describes the format.
//!
//! In: the text of a file. Out: its cases, and of each the frames to send, in order. Any frame can be said, right or wrong.

use std::time::Duration;

use super::super::case::{Act, Case, Says, act, read_as};
use crate::harness::frames::{CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, raw_fields};

type Field = (Vec<u8>, Vec<u8>);

/// What a caller does.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// A field of the head, or behind DATA of the trailers.
    Field(Field),
    Data(Vec<u8>),
    /// Any frame, on a given stream or the one of the request.
    Frame {
        kind: u8,
        flags: u8,
        stream: Option<u32>,
        payload: Vec<u8>,
    },
    /// What follows is another request, on the next stream.
    Next,
    /// The head goes on in a CONTINUATION.
    Split,
    /// What follows is another block of fields.
    Block,
    /// The request does not end.
    Open,
    /// RST_STREAM.
    Cancel,
    /// Until a head has come back on the stream.
    Wait,
    Pause(Duration),
}

/// The cases of a file.
pub fn read(file: &str, text: &str, filled: impl Fn(&str) -> String) -> Vec<Case<Step>> {
    read_as(file, text, filled, say)
}

fn say(sends: &mut Vec<Step>, Says { mark, rest, place, bytes }: Says<'_>) {
    let field = |text: &str| match text.split_once(": ").or_else(|| Some((text.strip_suffix(':')?, ""))) {
        Some((name, value)) => (bytes(name), bytes(value)),
        None => panic!("{place}: no field"),
    };
    let known = |sends: &[Step], name: &[u8]| {
        let at = sends.iter().rposition(|step| matches!(step, Step::Field((known, _)) if known == name));
        at.unwrap_or_else(|| panic!("{place}: no such field so far"))
    };
    match mark {
        ">" if rest.starts_with("@ ") => {
            let (method, path) = rest[2..].split_once(' ').unwrap_or_else(|| panic!("{place}: a method and a path"));
            let path = bytes(path);
            let pseudo =
                [(":method", method.as_bytes()), (":scheme", b"https"), (":authority", b"a"), (":path", &path)];
            let all = pseudo.into_iter().chain([("x-property-id", &b"1001"[..])]);
            sends.extend(all.map(|(name, value)| Step::Field((name.into(), value.to_vec()))));
        }
        ">" => sends.push(Step::Field(field(rest))),
        ">-" => {
            let at = known(sends, rest.as_bytes());
            sends.remove(at);
        }
        ">~" => {
            let changed = field(rest);
            let at = known(sends, &changed.0);
            sends[at] = Step::Field(changed);
        }
        ">=" => sends.push(Step::Data(bytes(rest))),
        ">>" => {
            let mut words = rest.splitn(4, ' ');
            let mut number = || words.next().unwrap_or_default();
            let (kind, flags, stream) = (number().parse(), number().parse(), number());
            let (Ok(kind), Ok(flags)) = (kind, flags) else { panic!("{place}: type, flags, stream, payload") };
            let stream = (stream != "-").then(|| stream.parse().unwrap_or_else(|_| panic!("{place}: a stream or -")));
            sends.push(Step::Frame { kind, flags, stream, payload: bytes(words.next().unwrap_or_default()) });
        }
        ">." => sends.push(match rest {
            "next" => Step::Next,
            "split" => Step::Split,
            "block" => Step::Block,
            "open" => Step::Open,
            "cancel" => Step::Cancel,
            "wait" => Step::Wait,
            _ => match act(rest, place) {
                Act::Pause(time) => Step::Pause(time),
                other => panic!("{place}: no act in HTTP/2: {other:?}"),
            },
        }),
        _ => panic!("{place}: an unknown mark: {mark}"),
    }
}

/// What there is to do, in order.
pub enum Work {
    Send { kind: u8, flags: u8, stream: u32, payload: Vec<u8> },
    Wait(u32),
    Pause(Duration),
}

/// The frames of a case, and the stream after its last. Each request ends with its last frame, unless it is left open.
pub fn frames(steps: &[Step]) -> (Vec<Work>, u32) {
    let mut frames = Frames { work: Vec::new(), stream: 1, block: Vec::new(), split: false, last: None, open: false };
    for step in steps {
        if !matches!(step, Step::Field(_) | Step::Split | Step::Open) {
            frames.end_block(END_HEADERS);
        }
        match step.clone() {
            Step::Field(field) => frames.block.push(field),
            Step::Split => frames.end_block(0),
            Step::Block => {}
            Step::Open => frames.open = true,
            Step::Data(payload) => {
                frames.last = Some(frames.work.len());
                frames.send(DATA, 0, None, payload);
            }
            Step::Frame { kind, flags, stream, payload } => frames.send(kind, flags, stream, payload),
            Step::Next => {
                frames.end();
                frames.stream += 2;
            }
            Step::Cancel => frames.send(RST_STREAM, 0, None, 8_u32.to_be_bytes().to_vec()),
            Step::Wait => frames.work.push(Work::Wait(frames.stream)),
            Step::Pause(time) => frames.work.push(Work::Pause(time)),
        }
    }
    frames.end_block(END_HEADERS);
    frames.end();
    (frames.work, frames.stream + 2)
}

/// Frames under way to a list.
struct Frames {
    work: Vec<Work>,
    /// The stream of the request.
    stream: u32,
    /// Fields that are in no frame yet.
    block: Vec<Field>,
    /// Their block has begun in an earlier frame.
    split: bool,
    /// Where the request's last frame is of those that can end it.
    last: Option<usize>,
    /// The request does not end.
    open: bool,
}

impl Frames {
    fn send(&mut self, kind: u8, flags: u8, stream: Option<u32>, payload: Vec<u8>) {
        self.work.push(Work::Send { kind, flags, stream: stream.unwrap_or(self.stream), payload });
    }

    /// Puts the fields so far into a frame; without END_HEADERS their block goes on in the next one.
    fn end_block(&mut self, flags: u8) {
        if self.block.is_empty() {
            return;
        }
        let payload = raw_fields(self.block.iter().map(|(name, value)| (&name[..], &value[..])));
        self.block.clear();
        let kind = if std::mem::replace(&mut self.split, flags == 0) { CONTINUATION } else { HEADERS };
        if kind == HEADERS {
            self.last = Some(self.work.len());
        }
        self.send(kind, flags, None, payload);
    }

    /// Ends the request with its last frame.
    fn end(&mut self) {
        if let (Some(at), false) = (self.last.take(), std::mem::take(&mut self.open))
            && let Work::Send { flags, .. } = &mut self.work[at]
        {
            *flags |= END_STREAM;
        }
    }
}

#[test]
fn a_case_becomes_the_frames_that_it_means() {
    let text = "== a sentence [RFC 9113 8]\n> @ POST /a\n>~ :scheme: http\n>- :authority\n>. split\n> a\\x41: b\n>= one\n>= two\n\
                > t: r\n>. next\n> @ GET /\n>. open\n>> 8 0 - \\0\\0\\0\\x05\n< nothing reset PROTOCOL_ERROR\n< 200\n";
    let cases = read("f", text, |name| name.to_owned());
    let (work, after) = frames(&cases[0].sends);
    let seen: Vec<_> = work
        .iter()
        .map(|work| match work {
            Work::Send { kind, flags, stream, .. } => (*kind, *flags, *stream),
            Work::Wait(_) | Work::Pause(_) => panic!("neither waits nor pauses"),
        })
        .collect();
    assert_eq!(seen, [(1, 0, 1), (9, 4, 1), (0, 0, 1), (0, 0, 1), (1, 5, 1), (1, 4, 3), (8, 0, 3)]);
    assert_eq!((after, cases[0].comes_back[0].reset, cases[0].comes_back[1].reset), (5, Some(1), None));
    let Work::Send { payload, .. } = &work[0] else { panic!("a frame") };
    assert_eq!(
        payload,
        &raw_fields(
            [(":method", "POST"), (":scheme", "http"), (":path", "/a"), ("x-property-id", "1001")]
                .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
        )
    );
}
