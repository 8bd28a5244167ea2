//! A real Redis that runs the script of shared budgets at the time it is told.
//!
//! In: what replicas send. Out: what the script answers in a `redis-server` on loopback. Only its clock is ours: the call
//! of TIME is replaced by an argument. It ends with this.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cloudbeds_auth_proxy::shared::{self, Answering, Failure, Stand};
use tokio::time::{Instant, sleep};

use crate::kit::Sentence;

/// A server, and the connection to it.
#[derive(Debug)]
pub(crate) struct Redis {
    child: Mutex<Child>,
    connection: Mutex<BufReader<TcpStream>>,
    digests: [String; 2],
    way: Duration,
    begun: Instant,
    reports: AtomicU64,
    spent: AtomicU64,
}

impl Drop for Redis {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Redis {
    /// Starts one, so far away.
    ///
    /// # Errors
    /// When there is no `redis-server`, or it does not listen.
    pub(crate) fn start(way: Duration) -> Result<Self, Sentence> {
        let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let address = address.map_err(|error| format!("no port: {error}"))?;
        let port = address.port().to_string();
        let child = Command::new(std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into()))
            .args(["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("redis-server is needed (Debian's package): {error}"))?;
        let mut redis = Self {
            child: Mutex::new(child),
            connection: Mutex::new(BufReader::new(connect(address)?)),
            digests: Default::default(),
            way,
            begun: Instant::now(),
            reports: AtomicU64::new(0),
            spent: AtomicU64::new(0),
        };
        let load = |script: &str| redis.call(&["SCRIPT", "LOAD", script]).map_err(|error| format!("Redis: {error}"));
        redis.digests = [load(&shared::timed_script())?, load(shared::sign_script())?];
        Ok(redis)
    }

    /// What the script answers, so long after the beginning.
    ///
    /// # Errors
    /// When it fails.
    pub(crate) fn ask(&self, key: &str, argument: &str, since: Duration) -> Result<String, Failure> {
        let [seconds, micros] = shared::time(since);
        let asked = std::time::Instant::now();
        let answer = self.call(&["EVALSHA", &self.digests[0], "1", key, argument, &seconds, &micros]);
        self.reports.fetch_add(1, Ordering::Relaxed);
        self.spent.fetch_add(u64::try_from(asked.elapsed().as_nanos()).unwrap_or(0), Ordering::Relaxed);
        answer.map_err(|error| Failure::Refused(error.to_string()))
    }

    /// What it answers to a look whether it is there.
    ///
    /// # Errors
    /// When it fails, as it does before the first report.
    pub(crate) fn look(&self, key: &str) -> Result<String, Failure> {
        let answer = self.call(&["EVALSHA", &self.digests[1], "1", key]);
        answer.map_err(|error| Failure::Refused(error.to_string()))
    }

    /// How many reports there were, and what they took.
    pub(crate) fn reports(&self) -> (u64, Duration) {
        (self.reports.load(Ordering::Relaxed), Duration::from_nanos(self.spent.load(Ordering::Relaxed)))
    }

    /// One command that answers with a text. This thread waits for it, so that the paused clock does too.
    fn call(&self, words: &[&str]) -> std::io::Result<String> {
        let mut command = format!("*{}\r\n", words.len());
        for word in words {
            command.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        connection.get_mut().write_all(command.as_bytes())?;
        let mut line = String::new();
        connection.read_line(&mut line)?;
        let length = line.strip_prefix('$').and_then(|length| length.trim().parse::<usize>().ok());
        let mut text = vec![0; length.ok_or_else(|| std::io::Error::other(line))? + 2];
        connection.read_exact(&mut text)?;
        text.truncate(text.len() - 2);
        String::from_utf8(text).map_err(std::io::Error::other)
    }
}

fn connect(address: SocketAddr) -> Result<TcpStream, Sentence> {
    let begun = std::time::Instant::now();
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => {
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) if begun.elapsed() > Duration::from_secs(5) => {
                return Err(format!("redis-server does not listen: {error}"));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

impl Stand for Redis {
    fn run(&self) -> &str {
        "simulation"
    }

    fn answer<'a>(&'a self, key: &'a str, argument: &'a str) -> Answering<'a> {
        Box::pin(async move {
            sleep(self.way).await;
            let answer = self.ask(key, argument, self.begun.elapsed());
            sleep(self.way).await;
            answer
        })
    }

    fn sign<'a>(&'a self, key: &'a str) -> Answering<'a> {
        Box::pin(async move {
            sleep(self.way).await;
            let answer = self.look(key);
            sleep(self.way).await;
            answer
        })
    }
}
