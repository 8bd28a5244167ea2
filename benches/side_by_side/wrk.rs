//! One run of wrk: the load of the CPU figures.
//!
//! In: a peer and a work. Out: how many requests were answered and what CPU time the peer had meanwhile. The properties
//! rotate, so that no peer can live off one hot key: each connection's next request is for another hotel. The requests
//! are written out before the clock starts; for bodies of 1 MiB that is sixteen, since ten thousand would not fit.
//!
//! h2load is not used: it cannot rotate a header, and callers of all peers speak HTTP/1.1.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::kit::Sentence;
use crate::kit::process::{Running, command};
use crate::options::Work;
use crate::peers::{FIRST, Place, Proxy, write};

/// What wrk needs beyond its run, at most.
const SLACK: Duration = Duration::from_secs(30);

/// The load of one work.
pub(crate) struct Load {
    method: &'static str,
    path: &'static str,
    body: usize,
    connections: usize,
}

/// What a run came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) requests: u64,
    pub(crate) per_second: f64,
    /// Of the peer, per answered request.
    pub(crate) cpu_micros: f64,
    /// How much of one core it used.
    pub(crate) busy: f64,
    /// Answers of 400 and above, and connections that failed.
    pub(crate) errors: u64,
}

impl Load {
    /// The load of a work that is measured in CPU time; none of the others.
    pub(crate) fn of(work: Work) -> Option<Self> {
        let (method, path, body, connections) = match work {
            Work::Json1k => ("GET", "/bench/1k", 0, 32),
            Work::Json16k => ("GET", "/bench/16k", 0, 16),
            Work::Down1m => ("GET", "/bench/1m", 0, 16),
            Work::Up1m => ("POST", "/bench/up", 1 << 20, 16),
            _ => return None,
        };
        Some(Self { method, path, body, connections })
    }

    /// Writes wrk's script for so many properties.
    pub(crate) fn script(&self, directory: &Path, keys: u64) -> Result<PathBuf, Sentence> {
        let Self { method, path, body, .. } = self;
        let keys = if *body > 0 { keys.min(16) } else { keys };
        let length = if *body > 0 { format!("Content-Length: {body}\\r\\n") } else { String::new() };
        // 7919 is a prime that divides neither number of keys, so every key has its turn, in no order.
        let text = format!(
            r#"local requests, at = {{}}, 0
function init(args)
  local body = string.rep("x", {body})
  for i = 0, {keys} - 1 do
    requests[i] = "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: app/1.0\r\nAccept: application/json\r\n"
      .. "X-Property-Id: " .. string.format("%.0f", {FIRST} + i) .. "\r\nAuthorization: Bearer unused\r\n{length}\r\n"
      .. body
  end
  at = tonumber(args[1]) % {keys}
end
function request()
  at = (at + 7919) % {keys}
  return requests[at]
end
function done(summary, latency)
  local e = summary.errors
  print(string.format("RESULT %d %d %d", summary.requests, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout))
end
"#
        );
        let file = directory.join(format!("{}-{keys}.lua", path.replace('/', "-")));
        write(&file, &text, 0o600)?;
        Ok(file)
    }

    /// Loads `proxy` for `duration` and measures it; `start` is where the rotation begins.
    pub(crate) fn run(
        &self,
        place: &Place<'_>,
        proxy: &Proxy,
        script: &Path,
        duration: Duration,
        start: u64,
    ) -> Result<Run, Sentence> {
        let wrk = place.machine.wrk.as_ref().ok_or("wrk is missing: apt-get install wrk")?;
        let threads = place.machine.load_threads.min(self.connections);
        let output = place.directory.join("wrk.out");
        let mut words = command(wrk, None);
        words.args(["-t", &threads.to_string(), "-c", &self.connections.to_string()]);
        words.args(["-d", &format!("{}s", duration.as_secs().max(1)), "--timeout", "20s", "-s"]).arg(script);
        words.arg(url(proxy.address)).arg("--").arg(start.to_string());
        let (cpu_before, clock) = (proxy.process.cpu(), Instant::now());
        Running::start("wrk", words, &output)?.wait_end(duration + SLACK)?;
        let (cpu, wall) = (proxy.process.cpu().saturating_sub(cpu_before), clock.elapsed());
        let text = std::fs::read_to_string(&output).map_err(|error| format!("{}: {error}", output.display()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("RESULT ")).ok_or("wrk gave no result")?;
        let numbers: Vec<u64> = line.split(' ').filter_map(|number| number.parse().ok()).collect();
        let [requests, micros, errors] = numbers[..] else { return Err(format!("wrk's result is odd: {line}")) };
        Ok(Run {
            requests,
            per_second: requests as f64 / (micros as f64 / 1e6),
            cpu_micros: cpu.as_secs_f64() * 1e6 / requests.max(1) as f64,
            busy: cpu.as_secs_f64() / wall.as_secs_f64(),
            errors,
        })
    }
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}/")
}
