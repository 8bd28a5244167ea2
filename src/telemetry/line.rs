//! The access line: an event of [`access`](super::access), formatted once.
//!
//! In: events with the target `access`. Out: one line of ASCII each, JSON or `name=value`, in a buffer the thread
//! keeps. Fields that are not on the list are left out, whoever sent them; no value can end the line or its own
//! quotes.

use std::cell::RefCell;
use std::fmt;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::clock;
use super::sink::Sink;

/// What may stand in an access line, besides the timestamp, the level and the target.
pub(super) const FIELDS: [&str; 14] = [
    "request_id",
    "property",
    "method",
    "path",
    "status",
    "code",
    "end",
    "bytes_up",
    "bytes_down",
    "duration_ms",
    "upstream_ms",
    "connection",
    "upstream_protocol",
    "upstream_request_id",
];

/// Collected lines are handed over at this size at the latest, in bytes.
const BUNDLE: usize = 16 * 1024;

/// Writes access events to the sink. It does not ask whether an event is one: its filter does.
#[derive(Debug)]
pub(super) struct AccessLayer {
    sink: Sink,
    json: bool,
    /// Tells the layers of a process apart: the lines a thread has collected belong to one of them.
    number: usize,
}

impl AccessLayer {
    pub(super) fn new(sink: Sink, json: bool) -> Self {
        static NUMBERS: AtomicUsize = AtomicUsize::new(0);
        Self { sink, json, number: NUMBERS.fetch_add(1, Ordering::Relaxed) }
    }
}

impl<S: Subscriber> Layer<S> for AccessLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        // An error means that the thread is ending, and there are no requests any more.
        let _ = PENDING.try_with(|pending| {
            let Ok(mut pending) = pending.try_borrow_mut() else { return };
            pending.belong_to(self);
            let line = &mut Line { out: &mut pending.lines, json: self.json };
            line.start();
            event.record(line);
            line.end();
            if !pending.collecting || pending.lines.len() >= BUNDLE {
                pending.hand_over();
            }
        });
    }
}

thread_local! {
    static PENDING: RefCell<Pending> = RefCell::default();
}

/// A thread's lines on their way to the sink, and the buffer they are formatted in.
#[derive(Default)]
struct Pending {
    lines: Vec<u8>,
    collecting: bool,
    // A clone per thread, since cloning touches counters that all threads share.
    sink: Option<(usize, Sink)>,
}

impl Pending {
    fn belong_to(&mut self, layer: &AccessLayer) {
        if self.sink.as_ref().is_none_or(|(number, _)| *number != layer.number) {
            self.hand_over();
            self.sink = Some((layer.number, layer.sink.clone()));
        }
    }

    fn hand_over(&mut self) {
        if let Some((_, sink)) = &mut self.sink
            && !self.lines.is_empty()
        {
            let _ = sink.write_all(&self.lines); // Never fails; it counts.
        }
        self.lines.clear();
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.hand_over();
    }
}

pub(super) fn collect_on_this_thread() {
    let _ = PENDING.try_with(|pending| pending.borrow_mut().collecting = true);
}

pub(super) fn flush() {
    let _ = PENDING.try_with(|pending| {
        if let Ok(mut pending) = pending.try_borrow_mut() {
            pending.hand_over();
        }
    });
}

/// One line being written.
struct Line<'a> {
    out: &'a mut Vec<u8>,
    json: bool,
}

impl Line<'_> {
    fn start(&mut self) {
        let now = clock::rfc3339(SystemTime::now());
        if self.json {
            self.out.extend_from_slice(b"{\"timestamp\":\"");
            self.out.extend_from_slice(&now);
            self.out.extend_from_slice(b"\",\"level\":\"INFO\",\"target\":\"access\"");
        } else {
            self.out.extend_from_slice(&now);
            self.out.extend_from_slice(b"  INFO access:");
        }
    }

    fn end(&mut self) {
        self.out.extend_from_slice(if self.json { b"}\n" } else { b"\n" });
    }

    /// The field's name and what separates it from its value, if it may stand here.
    fn name(&mut self, field: &Field) -> bool {
        let name = field.name();
        if !FIELDS.contains(&name) {
            return false;
        }
        self.out.extend_from_slice(if self.json { b",\"" } else { b" " });
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(if self.json { b"\":" } else { b"=" });
        true
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
                        let _ = write!(self.out, "\\u{unit:04x}");
                    }
                }
            }
        }
    }
}

impl Visit for Line<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if !self.name(field) {
            return;
        }
        // Without quotes only what no reader of `name=value` can misunderstand.
        let bare = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'=');
        if !self.json && !value.is_empty() && value.bytes().all(bare) {
            self.out.extend_from_slice(value.as_bytes());
        } else {
            self.quoted(value);
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if !self.name(field) {
            return;
        }
        // A property id is a name: as a number, readers of JSON would round it beyond 2^53.
        let quote = if self.json && field.name() == "property" { "\"" } else { "" };
        let _ = write!(self.out, "{quote}{value}{quote}"); // Writing to a Vec cannot fail.
    }

    /// Milliseconds, which stem from whole microseconds.
    fn record_f64(&mut self, field: &Field, value: f64) {
        if self.name(field) {
            let micros = (value * 1000.0).round() as u64;
            let _ = write!(self.out, "{}.{:03}", micros / 1000, micros % 1000);
        }
    }

    /// Nothing of ours comes this way, and what does could be anything.
    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}
