//! The one way out for lines: masked, queued, written by a thread of its own.
//!
//! In: whole lines from any thread. Out: bytes in a file or a pipe. Whoever logs never waits: when the queue is full
//! or the disk is, lines are lost and [`LostLines`] counts them. No `cbat_` token passes, whoever wrote it.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt::MakeWriter;

use crate::wire::mask;

/// Messages that may wait for the writer. The queue's slots are allocated at once, 32 bytes each: the appender's
/// default of 128,000 would be 4 MiB in a sidecar that is to live in 10.
const QUEUE: usize = 4096;

/// Bytes that may wait for the writer. A message holds some 64 KiB of lines, so the number of messages alone would
/// let 256 MiB pile up behind an output that does not move.
const QUEUE_BYTES: usize = 4 * 1024 * 1024;

/// Bytes the writing thread collects before a write, while more are waiting.
const BATCH: usize = 64 * 1024;

/// How many lines never reached the output. Clones count the same.
#[derive(Clone, Debug)]
pub struct LostLines {
    queue: ErrorCounter,
    more: Arc<AtomicU64>,
}

impl LostLines {
    /// Lines lost since the start.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.queue.dropped_lines() as u64 + self.more.load(Ordering::Relaxed)
    }
}

/// A hand on the queue. Each `write` must hold whole lines.
#[derive(Clone, Debug)]
pub(super) struct Sink {
    queue: NonBlocking,
    waiting: Arc<Waiting>,
    lost: LostLines,
}

/// What is in the queue.
#[derive(Debug, Default)]
struct Waiting {
    messages: AtomicUsize,
    bytes: AtomicUsize,
}

impl Waiting {
    /// Takes room for a message, if there is room.
    fn enter(&self, bytes: usize) -> bool {
        let messages_before = self.messages.fetch_add(1, Ordering::Relaxed);
        let bytes_before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let room = messages_before < QUEUE && bytes_before + bytes <= QUEUE_BYTES;
        if !room {
            self.leave(bytes);
        }
        room
    }

    fn leave(&self, bytes: usize) {
        self.messages.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Sink {
    /// A queue, and the thread that empties it into `output`. The guard, when dropped, waits about a second at most
    /// for what is still queued.
    pub(super) fn start(output: impl Write + Send + 'static) -> (Self, WorkerGuard) {
        let more = Arc::new(AtomicU64::new(0));
        let waiting = Arc::<Waiting>::default();
        let batch =
            Batch { output, lines: Vec::with_capacity(BATCH), waiting: Arc::clone(&waiting), lost: Arc::clone(&more) };
        let (queue, guard) =
            NonBlockingBuilder::default().lossy(true).buffered_lines_limit(QUEUE).thread_name("log").finish(batch);
        let lost = LostLines { queue: queue.error_counter(), more };
        (Self { queue, waiting, lost }, guard)
    }

    pub(super) fn lost_lines(&self) -> LostLines {
        self.lost.clone()
    }
}

impl Write for Sink {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        (&*self).write(lines)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for &Sink {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        // Formatters write UTF-8; should one not, its line is made readable rather than let through unseen.
        let text = match std::str::from_utf8(lines) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => String::from_utf8_lossy(lines),
        };
        let masked: Cow<'_, str> = mask::text(&text);
        if self.waiting.enter(masked.len()) {
            self.queue.clone().write_all(masked.as_bytes())?;
        } else {
            self.lost.more.fetch_add(line_count(lines), Ordering::Relaxed);
        }
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// The writing thread's end: one write for all lines that are waiting. Failures are counted instead of returned, for
/// the appender would drop them silently.
struct Batch<W> {
    output: W,
    lines: Vec<u8>,
    waiting: Arc<Waiting>,
    lost: Arc<AtomicU64>,
}

impl<W: Write> Write for Batch<W> {
    /// One message of the queue.
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        if self.lines.len() + lines.len() > BATCH {
            self.flush()?;
        }
        self.waiting.leave(lines.len());
        self.lines.extend_from_slice(lines);
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.output.write_all(&self.lines).and_then(|()| self.output.flush()).is_err() {
            self.lost.fetch_add(line_count(&self.lines), Ordering::Relaxed);
        }
        self.lines.clear();
        Ok(())
    }
}

fn line_count(lines: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', lines).count() as u64
}

/// Where lines may go besides a file.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stream {
    Out,
    Err,
}

/// The stream without the buffer and the lock that `std` puts before it.
pub(super) fn unbuffered(stream: Stream) -> io::Result<File> {
    use std::os::fd::AsFd;
    let descriptor = match stream {
        Stream::Out => io::stdout().as_fd().try_clone_to_owned(),
        Stream::Err => io::stderr().as_fd().try_clone_to_owned(),
    };
    descriptor.map(File::from)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use super::*;

    /// An output that takes nothing until it is told to, and counts lines from then on.
    struct Stuck(mpsc::Receiver<()>, Arc<AtomicU64>);

    impl Write for Stuck {
        fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            self.1.fetch_add(line_count(lines), Ordering::Relaxed);
            Ok(lines.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_output_that_does_not_move_costs_lines_and_never_time() {
        let (release, gate) = mpsc::channel();
        let written = Arc::new(AtomicU64::new(0));
        let (mut sink, guard) = Sink::start(Stuck(gate, Arc::clone(&written)));
        let messages = QUEUE as u64 * 2;
        for _ in 0..messages {
            sink.write_all(b"one\ntwo\n").unwrap();
        }
        let lost = sink.lost_lines().count();
        assert!(lost > 0);
        drop(release);
        let all = || written.load(Ordering::Relaxed) + lost;
        let patience = Instant::now() + Duration::from_secs(10);
        while all() < 2 * messages && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(all(), 2 * messages, "every line is written or counted");
        drop(guard);
    }

    #[test]
    fn what_waits_is_bounded_in_bytes_too() {
        let (_release, gate) = mpsc::channel();
        let (mut sink, guard) = Sink::start(Stuck(gate, Arc::default()));
        let bundle = vec![b'\n'; 16 * 1024];
        let fit = (QUEUE_BYTES + 2 * BATCH) / bundle.len();
        for _ in 0..fit + 10 {
            sink.write_all(&bundle).unwrap();
        }
        assert!(sink.lost_lines().count() >= 10 * bundle.len() as u64);
        assert!(sink.waiting.bytes.load(Ordering::Relaxed) <= QUEUE_BYTES);
        std::mem::forget(guard); // It would wait for what can never be written.
    }

    #[test]
    fn lines_a_full_disk_refuses_are_counted() {
        let (mut sink, guard) = Sink::start(Full);
        sink.write_all(b"one\ntwo\n").unwrap();
        sink.write_all(b"three\n").unwrap();
        let lost = sink.lost_lines();
        drop(guard);
        assert_eq!(lost.count(), 3);
    }
}
