//! `healthcheck` and `wait`: a probe for images that have neither shell nor curl.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use clap::Args;
use http::Request;
use http::header::HOST;
use tokio::time::{Instant, sleep, timeout};

use super::local::call;
use super::{Failure, block_on, load, tcp_address};

/// One question must not take longer; a kubelet gives a probe a second by default.
const PATIENCE: Duration = Duration::from_secs(1);

/// Between two questions of `wait`.
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub(super) struct Healthcheck {
    /// Where its admin listener is; by default where the configuration says
    #[arg(long, value_name = "ADDRESS", value_parser = tcp_address)]
    admin: Option<SocketAddr>,
}

#[derive(Debug, Args)]
pub(super) struct Wait {
    /// Where its admin listener is; by default where the configuration says
    #[arg(long, value_name = "ADDRESS", value_parser = tcp_address)]
    admin: Option<SocketAddr>,
    /// Give up after this long, a day at most
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(..=86_400))]
    timeout: u64,
}

impl Healthcheck {
    pub(super) fn run(&self, path: Option<&Path>) -> Result<(), Failure> {
        let address = address(self.admin, path)?;
        block_on(async { ask(address).await.map_err(|why| Failure::Other(format!("not ready: {why}"))) })
    }
}

impl Wait {
    pub(super) fn run(&self, path: Option<&Path>) -> Result<(), Failure> {
        let address = address(self.admin, path)?;
        let limit = Duration::from_secs(self.timeout);
        block_on(async {
            let until = Instant::now() + limit;
            loop {
                let Err(why) = ask(address).await else { return Ok(()) };
                if Instant::now() + PAUSE >= until {
                    let seconds = self.timeout;
                    return Err(Failure::Other(format!("not ready within {seconds} s: {why}")));
                }
                sleep(PAUSE).await;
            }
        })
    }
}

/// Where to ask: a listener on all addresses is asked on loopback.
fn address(given: Option<SocketAddr>, path: Option<&Path>) -> Result<SocketAddr, Failure> {
    Ok(reachable(match given {
        Some(address) => address,
        None => load(path)?.admin.listen,
    }))
}

/// Where a listener can be reached from this host.
pub(super) fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

/// Asks once; the error says why the answer is no.
async fn ask(address: SocketAddr) -> Result<(), String> {
    let request =
        Request::get("/readyz").header(HOST, address.to_string()).body(()).map_err(|error| error.to_string())?;
    let answer = timeout(PATIENCE, call(address, request))
        .await
        .map_err(|_| format!("{address}: no answer within {PATIENCE:?}"))??;
    let status = answer.status();
    if status.is_success() { Ok(()) } else { Err(format!("{address} answers {status}")) }
}
