//! A notation for frames, in which a fuzzer gets behind the preface and a person can write a case.
//!
//! In: lines. Out: the pieces in which a caller's bytes arrive. A line is a frame: a letter for its type, a byte
//! whose low six bits are its flags, a byte that is its stream counted from `0`, and behind a space what is in it,
//! with `\hh` for any byte. What is in `h`, `c` and `u` is a header block: fields between bars, `*` for those of a
//! good request, `+` before one that the table is to keep, `~` in Huffman's code as well, `!` for one never to be
//! kept, `#n` an entry of the table, `%n` another size of it; or, behind `=`, bytes. Padding and priority are put in
//! as the flags say. `.` is a pause, and `xkn` the last k frames n times more, each on streams of their own.

use super::hpack::{put_integer, put_text};
use super::reading::{DATA, HEADERS, PADDED, PREFACE, PRIORITY};

/// The most that a program makes, in bytes.
const MOST: usize = 256 * 1024;

const GOOD: [(&str, &str); 5] = [
    (":method", "GET"),
    (":scheme", "https"),
    (":authority", "localhost"),
    (":path", "/api/v1.3/getHotelDetails"),
    ("x-property-id", "1001"),
];

#[derive(Clone)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

/// What a program sends.
pub(super) fn pieces(program: &[u8]) -> Vec<Vec<u8>> {
    let mut pieces = vec![PREFACE.to_vec()];
    let (mut frames, mut size): (Vec<Frame>, _) = (Vec::new(), 0);
    let lines = program.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    if !program.starts_with(b"s") {
        put(&mut pieces, &mut size, &Frame { kind: 4, flags: 0, stream: 0, payload: Vec::new() });
    }
    for line in lines {
        match line {
            [b'.', ..] => pieces.push(Vec::new()),
            [b'x', back, times, ..] => {
                let back = usize::from(back.saturating_sub(b'0')).min(frames.len());
                let again = frames.split_off(frames.len() - back);
                let span = again.iter().map(|frame| frame.stream).max().unwrap_or_default()
                    - again.iter().map(|frame| frame.stream).filter(|stream| *stream > 0).min().unwrap_or_default();
                for round in 1..=u32::from(times.saturating_sub(b' ')) {
                    for frame in &again {
                        let moved = if frame.stream > 0 { frame.stream + round * (span + 2) } else { 0 };
                        put(&mut pieces, &mut size, &Frame { stream: moved, ..frame.clone() });
                    }
                }
                frames.extend(again);
            }
            [kind, flags, stream, text @ ..] => {
                let text = text.strip_prefix(b" ").unwrap_or(text);
                let stream = u32::from(stream.saturating_sub(b'0'));
                let frame = frame(*kind, flags & 0x3f, stream, text);
                put(&mut pieces, &mut size, &frame);
                frames.push(frame);
            }
            _ => {}
        }
    }
    pieces
}

fn put(pieces: &mut [Vec<u8>], size: &mut usize, frame: &Frame) {
    let (Some(piece), Ok(length)) = (pieces.last_mut(), u32::try_from(frame.payload.len())) else { return };
    *size += 9 + frame.payload.len();
    if *size <= MOST {
        piece.extend_from_slice(&length.to_be_bytes()[1..]);
        piece.extend([frame.kind, frame.flags]);
        piece.extend(frame.stream.to_be_bytes());
        piece.extend_from_slice(&frame.payload);
    }
}

fn frame(letter: u8, flags: u8, stream: u32, text: &[u8]) -> Frame {
    let kind = b"dhprsuigwc".iter().position(|known| *known == letter).and_then(|kind| u8::try_from(kind).ok());
    let kind = kind.unwrap_or(letter);
    let fields = matches!(letter, b'h' | b'c' | b'u');
    let mut payload = match text {
        [b'=', raw @ ..] => return Frame { kind, flags, stream, payload: plain(raw) },
        text if fields => block(text),
        text => plain(text),
    };
    if kind == HEADERS && flags & PRIORITY != 0 {
        payload.splice(0..0, [0, 0, 0, 0, 16]);
    }
    if (kind == HEADERS || kind == DATA) && flags & PADDED != 0 {
        payload.insert(0, 3);
        payload.extend([0; 3]);
    }
    Frame { kind, flags, stream, payload }
}

/// Bytes, with `\hh` for those that cannot be written.
fn plain(mut text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    while let Some((first, rest)) = text.split_first() {
        let coded = rest.split_at_checked(2).filter(|_| *first == b'\\');
        let coded = coded.and_then(|(digits, rest)| {
            let byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
            Some((byte, rest))
        });
        let (byte, behind) = coded.unwrap_or((*first, rest));
        bytes.push(byte);
        text = behind;
    }
    bytes
}

fn block(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for field in text.split(|byte| *byte == b'|').filter(|field| !field.is_empty()) {
        if field == b"*" {
            for (name, value) in GOOD {
                out.push(0);
                put_text(&mut out, name.as_bytes(), false);
                put_text(&mut out, value.as_bytes(), false);
            }
            continue;
        }
        // A name may begin with a colon.
        let colon = field.iter().skip(1).position(|byte| *byte == b':').map(|at| at + 1);
        let (name, value) = field.split_at(colon.unwrap_or(field.len()));
        let value = value.strip_prefix(b":").map(|value| plain(value.strip_prefix(b" ").unwrap_or(value)));
        let number =
            |digits: &[u8]| std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).unwrap_or(0);
        match (name, value) {
            ([b'#', digits @ ..], None) => put_integer(&mut out, 0x80, 7, number(digits)),
            ([b'#', digits @ ..], Some(value)) => {
                put_integer(&mut out, 0x40, 6, number(digits));
                put_text(&mut out, &value, false);
            }
            ([b'%', digits @ ..], _) => put_integer(&mut out, 0x20, 5, number(digits)),
            (name, value) => {
                let (what, name) = match name {
                    [what @ (b'+' | b'~' | b'!'), name @ ..] => (*what, name),
                    name => (b' ', name),
                };
                out.push(match what {
                    b'+' | b'~' => 0x40,
                    b'!' => 0x10,
                    _ => 0,
                });
                put_text(&mut out, &plain(name), what == b'~');
                put_text(&mut out, &value.unwrap_or_default(), what == b'~');
            }
        }
    }
    out
}
