//! The right to start one request.
//!
//! In: a place in the window. Out: a start, dated when the request leaves; or the place back, whatever becomes of its
//! holder. A place that is only kept counts until it is given back, and a start that is dated later than it happened
//! counts for longer than it must: whichever way a request ends, Cloudbeds never sees more than were allowed.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{DATE, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use tokio::time::Instant;

use super::local::Local;
use super::pause::Trial;
use super::{Ask, Exhausted};

/// A request that leaves within this time of its permit's date need not be dated anew.
const DRIFT: Duration = Duration::from_millis(2);

/// The right to start one request. Dropped before the start, it goes back.
#[derive(Debug)]
pub struct Permit {
    local: Arc<Local>,
    ask: Ask,
    at: At,
    /// Cloudbeds has paused us, and this one goes to see whether that is over.
    trial: Option<Trial>,
    waited: Duration,
}

/// How far it is.
#[derive(Clone, Copy, Debug)]
enum At {
    /// Dated when it was given out.
    Dated(Instant),
    /// To be dated when it starts. Until then its hotel's others may be held.
    Kept { holds: bool },
    /// Started, or its date has passed.
    Over,
}

impl Permit {
    pub(super) fn dated(local: Arc<Local>, ask: Ask, at: Instant, trial: Option<Trial>) -> Self {
        Self { local, ask, at: At::Dated(at), trial, waited: Duration::ZERO }
    }

    pub(super) fn kept(local: Arc<Local>, ask: Ask, holds: bool, trial: Option<Trial>) -> Self {
        Self { local, ask, at: At::Kept { holds }, trial, waited: Duration::ZERO }
    }

    pub(super) fn after(mut self, waited: Duration) -> Self {
        self.waited = waited;
        self
    }

    /// How long it had to be waited for.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// Whatever is still to be done before the start may take a while: the date is not known yet.
    pub fn keep(&mut self) {
        if let At::Dated(at) = self.at {
            self.at = if self.local.keep(at) { At::Kept { holds: false } } else { At::Over };
        }
    }

    /// The request leaves now. False when the permit is too old for that, and another one must be taken.
    #[must_use]
    pub fn start(&mut self, now: Instant) -> bool {
        match std::mem::replace(&mut self.at, At::Over) {
            At::Dated(at) if now.saturating_duration_since(at) <= DRIFT => true,
            At::Dated(at) => self.local.date_anew(at, now),
            At::Kept { holds } => self.local.start_kept(now, holds.then_some(self.ask.flow)),
            At::Over => false,
        }
    }

    /// One more, for the same request: another try is another start. What it has waited for already is taken off the
    /// longest wait.
    ///
    /// # Errors
    /// As for [`super::Budget::take`].
    pub async fn again(&mut self) -> Result<Self, Exhausted> {
        // A trial that has to be sent anew must not wait for itself.
        if let Some(trial) = self.trial.take() {
            self.local.trial_over(trial);
        }
        self.local.take(self.ask, Instant::now(), self.waited).await
    }

    /// What Cloudbeds answered. A 429 stops the app's requests for a while, and so does a 403 or 503 that says when to
    /// come back.
    pub fn heard(&mut self, status: StatusCode, headers: &HeaderMap) {
        let wait = match status {
            StatusCode::TOO_MANY_REQUESTS => Some(retry_after(headers)),
            StatusCode::FORBIDDEN | StatusCode::SERVICE_UNAVAILABLE => retry_after(headers).map(Some),
            _ => None,
        };
        let trial = self.trial.take();
        match (wait, trial) {
            (Some(asked), trial) => self.local.refused(trial, asked),
            (None, Some(trial)) => self.local.welcome(trial),
            (None, None) => {}
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        match (self.at, self.trial) {
            (At::Dated(at), trial) => self.local.give_back(Some(at), None, trial),
            (At::Kept { holds }, trial) => self.local.give_back(None, holds.then_some(self.ask.flow), trial),
            (At::Over, Some(trial)) => self.local.trial_over(trial),
            (At::Over, None) => {}
        }
    }
}

/// The wait that `Retry-After` asks for, in seconds or as a date (RFC 9110 10.2.3); the answer's own `Date` is the clock
/// for that, where it has one.
#[must_use]
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(value).ok()?;
    let date = headers.get(DATE).and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
    Some(until.duration_since(date.unwrap_or_else(SystemTime::now)).unwrap_or_default())
}
