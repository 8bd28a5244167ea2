//! What the proxy says of itself when a run fails, for whoever reads of it: its metrics, its standard error and the end of
//! its log.
//!
//! In: a running proxy. Out: text on standard error, when it is dropped by a panic. It waits for no runtime, since that is
//! what unwinds, and panics nowhere.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::harness::Proxy;

/// So many bytes of the log's end are shown.
const TAIL: usize = 8000;

/// Speaks up when the test fails. To be declared after the proxy, so that it is dropped before.
pub struct Witness {
    admin: SocketAddr,
    log: PathBuf,
    stderr: PathBuf,
    since: Instant,
}

impl Witness {
    pub fn of(proxy: &Proxy) -> Self {
        let (log, stderr) = (proxy.path("log"), proxy.path("stderr"));
        Self { admin: proxy.admin, log, stderr, since: Instant::now() }
    }

    /// What counts something; lines of zero and of distributions would hide it.
    fn metrics(&self) -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&self.admin, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        let mut page = Vec::new();
        stream.read_to_end(&mut page)?;
        let page = String::from_utf8_lossy(&page);
        let tells = |line: &&str| {
            line.starts_with("cloudbeds_")
                && !line.ends_with(" 0")
                && !line.ends_with(" 0.0")
                && !line.contains("_bucket{")
        };
        Ok(page.lines().filter(tells).collect::<Vec<_>>().join("\n"))
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let text = |path| std::fs::read_to_string(path).unwrap_or_else(|error| error.to_string());
        let (log, stderr) = (text(&self.log), text(&self.stderr));
        let tail = &log[log.floor_char_boundary(log.len().saturating_sub(TAIL))..];
        let metrics = self.metrics().unwrap_or_else(|error| error.to_string());
        let since = self.since.elapsed();
        eprintln!("The proxy, {since:?} after its start\nmetrics:\n{metrics}\nstderr: {stderr}\nlog: …{tail}");
    }
}
