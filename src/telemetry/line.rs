//! One access line, being written.
//!
//! In: names and values, in the order they are to stand. Out: ASCII, JSON or `name=value`, at the end of a buffer the
//! core keeps. No value can end the line or its own quotes.

use std::io::Write;

/// A field's name with what stands around it, in both forms.
pub(super) struct Name {
    json: &'static [u8],
    text: &'static [u8],
}

/// A [`Name`] from a literal, put together by the compiler.
macro_rules! name {
    ($name:literal) => {
        $crate::telemetry::line::Name::new(concat!(",\"", $name, "\":").as_bytes(), concat!(" ", $name, "=").as_bytes())
    };
}
pub(super) use name;

impl Name {
    pub(super) const fn new(json: &'static [u8], text: &'static [u8]) -> Self {
        Self { json, text }
    }
}

/// The line. Dropped without [`end`](Self::end), it stays open.
pub(super) struct Line<'a> {
    out: &'a mut Vec<u8>,
    json: bool,
}

impl<'a> Line<'a> {
    /// Begins like every other line of the log.
    pub(super) fn start(out: &'a mut Vec<u8>, json: bool, timestamp: &[u8]) -> Self {
        let (before, after): (&[u8], &[u8]) = match json {
            true => (b"{\"timestamp\":\"", b"\",\"level\":\"INFO\",\"target\":\"access\""),
            false => (b"", b"  INFO access:"),
        };
        for part in [before, timestamp, after] {
            out.extend_from_slice(part);
        }
        Self { out, json }
    }

    pub(super) fn end(self) {
        self.out.extend_from_slice(if self.json { b"}\n" } else { b"\n" });
    }

    fn name(&mut self, name: &Name) {
        self.out.extend_from_slice(if self.json { name.json } else { name.text });
    }

    /// A value from outside.
    pub(super) fn text(&mut self, name: &Name, value: &str) {
        self.name(name);
        // Without quotes only what no reader of `name=value` can misunderstand.
        let bare = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'=');
        if !self.json && !value.is_empty() && value.bytes().all(bare) {
            self.out.extend_from_slice(value.as_bytes());
        } else {
            self.quoted(value);
        }
    }

    /// A word of ours: letters, digits, `_`, `.`, `/`, `-`.
    pub(super) fn word(&mut self, name: &Name, value: &str) {
        self.name(name);
        if self.json {
            self.out.push(b'"');
        }
        self.out.extend_from_slice(value.as_bytes());
        if self.json {
            self.out.push(b'"');
        }
    }

    pub(super) fn number(&mut self, name: &Name, value: u64) {
        self.name(name);
        self.digits(value);
    }

    /// A number that is a name, such as a property's: as a number, readers of JSON would round it beyond 2^53.
    pub(super) fn numbered(&mut self, name: &Name, value: u64) {
        self.word(name, itoa::Buffer::new().format(value));
    }

    /// Milliseconds to the microsecond.
    pub(super) fn millis(&mut self, name: &Name, value: std::time::Duration) {
        self.name(name);
        let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        self.digits(micros / 1000);
        let rest = (micros % 1000) as u16;
        let digit = |value: u16| b'0' + (value % 10) as u8;
        self.out.extend_from_slice(&[b'.', digit(rest / 100), digit(rest / 10), digit(rest)]);
    }

    fn digits(&mut self, value: u64) {
        self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    fn quoted(&mut self, value: &str) {
        self.out.push(b'"');
        if value.bytes().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')) {
            self.out.extend_from_slice(value.as_bytes());
        } else {
            self.escaped(value);
        }
        self.out.push(b'"');
    }

    /// RFC 8259 7, with everything outside ASCII escaped too: what is invisible or turns the direction of reading
    /// would let a caller forge what an operator sees.
    #[cold]
    fn escaped(&mut self, value: &str) {
        let mut units = [0; 2];
        for character in value.chars() {
            match character {
                '"' | '\\' => self.out.extend([b'\\', character as u8]),
                ' '..='~' => self.out.push(character as u8),
                _ => {
                    for unit in character.encode_utf16(&mut units) {
                        let _ = write!(self.out, "\\u{unit:04x}"); // Writing to a Vec cannot fail.
                    }
                }
            }
        }
    }
}
