//! `serve`: the proxy itself, steered by signals.

use std::path::Path;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Failure, block_on, load};
use crate::app::{App, Handle};
use crate::config::{Config, LogFormat, LogOutput};
use crate::fault::Fault;
use crate::process;
use crate::telemetry::{self, LogSettings, Output};

pub(super) fn run(path: Option<&Path>) -> Result<(), Failure> {
    let config = load(path)?;
    // Who writes the log has a thread of its own.
    process::another_thread().map_err(|error| Failure::Other(format!("cannot start: {error}")))?;
    // The log first: a hardened process may no longer open /dev/stdout by its path.
    let log = telemetry::init(&log_settings(&config)).map_err(|error| {
        let hint = "check the option `log`, and the variable RUST_LOG if it is set";
        Failure::Configuration(vec![Fault::new("log", error.to_string(), hint)])
    })?;
    // Before any key is read.
    for warning in process::harden().into_iter().chain(process::raise_open_files()) {
        tracing::warn!(cause = std::error::Error::source(&warning).map(tracing::field::display), "{warning}");
    }
    block_on(async {
        // From here on a SIGHUP does not end the process, however long the keys take to read.
        let signals = Signals::new().map_err(|error| Failure::Other(format!("signals: {error}")))?;
        let app = App::prepare(config, log.access_log())?;
        app.metrics().control().watch_log(log.lost_lines());
        let steering = tokio::spawn(signals.steer(app.handle()));
        let done = app.run().await.map_err(|error| Failure::Other(format!("cannot serve: {error}")));
        steering.abort();
        done
    })
}

fn log_settings(config: &Config) -> LogSettings {
    LogSettings {
        json: config.log.format == LogFormat::Json,
        filter: config.log.level.clone(),
        output: match &config.log.output {
            LogOutput::Stdout => Output::Stdout,
            LogOutput::Stderr => Output::Stderr,
            LogOutput::File(path) => Output::File(path.clone()),
        },
        access: config.log.access,
    }
}

/// The signals a running proxy heeds, caught from before it is ready.
pub(super) struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// SIGHUP reloads; SIGTERM drains; Ctrl-C drains without the minimum, since a person is waiting; a second one of
    /// these ends the process at once.
    pub(super) async fn steer(mut self, handle: Handle) {
        let mut ending = false;
        loop {
            let (end, person) = tokio::select! {
                _ = self.hangup.recv() => (false, false),
                _ = self.terminate.recv() => (true, false),
                _ = self.interrupt.recv() => (true, true),
            };
            match (end, ending, person) {
                (false, ..) => handle.reload(),
                (true, true, _) => handle.cut(),
                (true, false, true) => handle.hurry(),
                (true, false, false) => handle.drain(),
            }
            ending |= end;
        }
    }
}
