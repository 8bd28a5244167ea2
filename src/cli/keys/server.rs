//! Whether a running proxy has taken new keys over.
//!
//! In: where its admin listener is. Out: a sentence. What is compared is its own count of reloads, so nothing has to be
//! told to it; a proxy elsewhere that reads the same file takes it over as well, but is not asked.

use std::net::SocketAddr;
use std::time::Duration;

use http::Request;
use http::header::HOST;
use tokio::time::{Instant, sleep, timeout};

use crate::cli::local::call;
use crate::cli::probe;
use crate::config::Config;

/// One question must not take longer.
const PATIENCE: Duration = Duration::from_secs(1);

const PAUSE: Duration = Duration::from_millis(50);

/// Longer than a poll of the file takes at most, on top of its interval.
const MARGIN: Duration = Duration::from_secs(3);

/// Who waits longer than this for a command believes that it hangs.
const LONGEST: Duration = Duration::from_secs(15);

/// A proxy as it was before the keys were written.
pub(super) struct Server {
    address: SocketAddr,
    reloads: Option<f64>,
    patience: Duration,
}

/// What became of it.
pub(super) enum Followed {
    Yes(String),
    No(String),
}

impl Server {
    /// Looks whether one runs, before the keys are written.
    pub(super) async fn look(config: &Config, admin: Option<SocketAddr>) -> Self {
        let address = probe::reachable(admin.unwrap_or(config.admin.listen));
        let patience = (config.keys.poll + MARGIN).min(LONGEST);
        Self { address, reloads: reloads(address).await, patience }
    }

    /// Waits until it has read the keys again.
    pub(super) async fn follow(&self) -> Followed {
        let address = self.address;
        let Some(before) = self.reloads else {
            return Followed::Yes(format!(
                "No proxy answers at {address}; one that runs elsewhere takes it over by itself."
            ));
        };
        let until = Instant::now() + self.patience;
        loop {
            if reloads(address).await.is_some_and(|now| now > before) {
                return Followed::Yes(format!("The proxy at {address} has taken it over."));
            }
            if Instant::now() >= until {
                return Followed::No(format!(
                    "The proxy at {address} has not taken it over within {} s: read its log, or send it SIGHUP.",
                    self.patience.as_secs()
                ));
            }
            sleep(PAUSE).await;
        }
    }
}

/// How often it has taken keys over; nothing when nobody of ours answers.
async fn reloads(address: SocketAddr) -> Option<f64> {
    const SERIES: &str = "cloudbeds_auth_proxy_key_reloads_total{result=\"ok\"} ";
    let request = Request::get("/metrics").header(HOST, address.to_string()).body(()).ok()?;
    let answer = timeout(PATIENCE, call(address, request)).await.ok()?.ok()?;
    let page = String::from_utf8_lossy(answer.body());
    page.lines().find_map(|line| line.strip_prefix(SERIES)?.parse().ok())
}
