//! What the probes are told, by phase.
//!
//! In: a [`Phase`]. Out: a status and a sentence. Cloudbeds' health has no part in it.

use http::StatusCode;

use crate::phase::Phase;

/// A probe's answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Health {
    pub(super) status: StatusCode,
    pub(super) sentence: &'static str,
}

const fn yes(sentence: &'static str) -> Health {
    Health { status: StatusCode::OK, sentence }
}

const fn no(sentence: &'static str) -> Health {
    Health { status: StatusCode::SERVICE_UNAVAILABLE, sentence }
}

/// Whoever can answer lives. A drain is no reason for a restart.
pub(super) fn live() -> Health {
    yes("ok\n")
}

/// Whether new requests should come here.
pub(super) fn ready(phase: Phase) -> Health {
    match phase {
        Phase::Starting => no("starting: not everything is configured and listening yet\n"),
        Phase::Ready => yes("ready\n"),
        Phase::Draining | Phase::Closing => {
            no("draining: requests in flight are finished, new ones should go elsewhere\n")
        }
        Phase::Stopped => no("stopped: nothing is served any more\n"),
    }
}

/// Whether the start is over, however it went on.
pub(super) fn started(phase: Phase) -> Health {
    match phase {
        Phase::Starting => no("starting: not everything is configured and listening yet\n"),
        Phase::Ready | Phase::Draining | Phase::Closing | Phase::Stopped => yes("started\n"),
    }
}
