//! One access line, being written.
//!
//! In: names and values, in the order they are to stand. Out: ASCII, JSON or `name=value`, at the end of a buffer the
//! core keeps. No value can end the line or its own quotes. The form is a part of the type, and what is ours is put
//! together inline: copying three bytes by a call takes ten times as long as the three bytes.

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

/// The line, as JSON or as text. Dropped without [`end`](Self::end), it stays open.
pub(super) struct Line<'a, const JSON: bool>(&'a mut Vec<u8>);

impl<'a, const JSON: bool> Line<'a, JSON> {
    /// Begins like every other line of the log.
    pub(super) fn start(out: &'a mut Vec<u8>, timestamp: &[u8; 24]) -> Self {
        if JSON {
            out.extend_from_slice(b"{\"timestamp\":\"");
            out.extend_from_slice(timestamp);
            out.extend_from_slice(b"\",\"level\":\"INFO\",\"target\":\"access\"");
        } else {
            out.extend_from_slice(timestamp);
            out.extend_from_slice(b"  INFO access:");
        }
        Self(out)
    }

    pub(super) fn end(self) {
        self.0.extend_from_slice(if JSON { b"}\n" } else { b"\n" });
    }

    #[inline(always)]
    fn name(&mut self, name: &Name) {
        self.0.extend_from_slice(if JSON { name.json } else { name.text });
    }

    /// A value from outside.
    #[inline(always)]
    pub(super) fn text(&mut self, name: &Name, value: &str) {
        self.name(name);
        if !JSON && is_bare(value) {
            self.0.extend_from_slice(value.as_bytes());
        } else {
            self.quoted(value);
        }
    }

    /// A word of ours: letters, digits, `_`, `.`, `/`, `-`.
    #[inline(always)]
    pub(super) fn word(&mut self, name: &Name, value: impl AsRef<[u8]>) {
        self.name(name);
        if JSON {
            self.0.push(b'"');
        }
        self.0.extend_from_slice(value.as_ref());
        if JSON {
            self.0.push(b'"');
        }
    }

    #[inline(always)]
    pub(super) fn number(&mut self, name: &Name, value: u64) {
        self.name(name);
        self.digits(value);
    }

    /// A number that is a name, such as a property's: as a number, readers of JSON would round it beyond 2^53.
    pub(super) fn numbered(&mut self, name: &Name, value: u64) {
        self.word(name, itoa::Buffer::new().format(value));
    }

    /// Milliseconds to the microsecond.
    #[inline(always)]
    pub(super) fn millis(&mut self, name: &Name, value: std::time::Duration) {
        self.name(name);
        let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        self.digits(micros / 1000);
        let rest = (micros % 1000) as u16;
        let digit = |value: u16| b'0' + (value % 10) as u8;
        self.0.extend_from_slice(&[b'.', digit(rest / 100), digit(rest / 10), digit(rest)]);
    }

    fn digits(&mut self, value: u64) {
        self.0.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    fn quoted(&mut self, value: &str) {
        self.0.push(b'"');
        // Here as in `is_bare` every byte is looked at, so that many are at a time.
        if value.bytes().fold(true, |plain, byte| plain & matches!(byte, b' '..=b'~') & !matches!(byte, b'"' | b'\\')) {
            self.0.extend_from_slice(value.as_bytes());
        } else {
            self.escaped(value);
        }
        self.0.push(b'"');
    }

    /// RFC 8259 7, with everything outside ASCII escaped too: what is invisible or turns the direction of reading
    /// would let a caller forge what an operator sees.
    #[cold]
    fn escaped(&mut self, value: &str) {
        let mut units = [0; 2];
        for character in value.chars() {
            match character {
                '"' | '\\' => self.0.extend([b'\\', character as u8]),
                ' '..='~' => self.0.push(character as u8),
                _ => {
                    for unit in character.encode_utf16(&mut units) {
                        let _ = write!(self.0, "\\u{unit:04x}"); // Writing to a Vec cannot fail.
                    }
                }
            }
        }
    }
}

/// Whether a value can stand without quotes: only what no reader of `name=value` can misunderstand.
fn is_bare(value: &str) -> bool {
    let bare = |byte: u8| byte.is_ascii_graphic() & !matches!(byte, b'"' | b'\\' | b'=');
    value.bytes().fold(!value.is_empty(), |all, byte| all & bare(byte))
}
