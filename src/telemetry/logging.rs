//! The set-up of the log: who may speak, in which form, where to.
//!
//! In: [`LogSettings`]. Out: tracing's global subscriber, and a [`Guard`] to hold until the process ends, which also
//! knows the [`AccessLog`]. Ordinary events are tracing-subscriber's lines; both kinds leave through one masking sink.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use tracing::Subscriber;
use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, Registry, fmt};

use super::access::{AccessLog, Form};
use super::clock::Utc;
use super::sink::{LostLines, Sink, Stream, unbuffered};
use crate::log_filter::{LogFilter, NotALogFilter};

/// Where the lines go.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, made with mode 0600 when it is not there, and only ever appended to: a rotation by copy and truncate
    /// works, one by rename does not.
    File(PathBuf),
}

/// How the log is to be.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// JSON or text, for all lines alike.
    pub json: bool,
    /// Which ordinary events. `RUST_LOG` takes precedence.
    pub filter: LogFilter,
    /// Where to.
    pub output: Output,
    /// Whether each request writes an access line; the filter has no say in that.
    pub access: bool,
}

/// Holds the log open. Dropped, it waits about a second at most for the lines still queued.
#[derive(Debug)]
pub struct Guard {
    lost: LostLines,
    access: AccessLog,
    _writing: WorkerGuard,
}

impl Guard {
    /// The count of lost lines, for [`Control::watch_log`](super::metrics::Control::watch_log).
    #[must_use]
    pub fn lost_lines(&self) -> LostLines {
        self.lost.clone()
    }

    /// Where access lines go.
    #[must_use]
    pub fn access_log(&self) -> AccessLog {
        self.access.clone()
    }
}

/// Sets the process's log up, once.
///
/// # Errors
/// When a filter directive cannot be read, the output not opened, or the log is set up already.
pub fn init(settings: &LogSettings) -> io::Result<Guard> {
    let (output, terminal) = match &settings.output {
        Output::Stdout => (unbuffered(Stream::Out)?, io::stdout().is_terminal()),
        Output::Stderr => (unbuffered(Stream::Err)?, io::stderr().is_terminal()),
        Output::File(path) => {
            let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
            let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
            (file.map_err(named)?, false)
        }
    };
    let override_ = std::env::var("RUST_LOG").ok().filter(|directives| !directives.is_empty());
    let filter = match &override_ {
        Some(directives) => rust_log(directives)?,
        None => settings.filter.clone(),
    };
    let (subscriber, guard) = subscriber(settings, &filter, terminal, output);
    tracing::subscriber::set_global_default(subscriber).map_err(io::Error::other)?;
    Ok(guard)
}

fn rust_log(directives: &str) -> io::Result<LogFilter> {
    directives.parse().map_err(|error: NotALogFilter| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("the variable RUST_LOG: {error}"))
    })
}

fn subscriber(
    settings: &LogSettings,
    filter: &LogFilter,
    terminal: bool,
    output: impl Write + Send + 'static,
) -> (impl Subscriber + Send + Sync, Guard) {
    let (sink, writing) = Sink::start(output);
    let form = if settings.json { Form::Json } else { Form::Text };
    let access = if settings.access { AccessLog::new(sink.clone(), form) } else { AccessLog::off() };
    let guard = Guard { lost: sink.lost_lines(), access, _writing: writing };
    let lines = fmt::layer().with_timer(Utc).with_ansi(terminal).with_writer(sink);
    let lines = match settings.json {
        // Flat, so that a reader finds the fields of all lines in the same place.
        true => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
        false => lines.boxed(),
    };
    (Registry::default().with(lines.with_filter(filter.targets())), guard)
}

#[cfg(test)]
mod tests;
