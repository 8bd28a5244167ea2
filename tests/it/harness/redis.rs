//! A real Redis: Debian's `redis-server`, on loopback, without anything on disk that outlives it.
//!
//! In: options of its command line. Out: a [`Redis`] that answers, or nothing where it is not installed: with `CI=true`
//! that is a failure, else the test says that it skips. It can be killed, frozen, and started again empty. The environment
//! variable `REDIS_SERVER` names another program in its place, such as `valkey-server`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::PATIENCE;

/// A fresh password, with characters that every coding writes in another way.
pub fn password() -> String {
    let key = super::key();
    format!("{}+/{}=", &key[5..21], &key[21..])
}

/// A running server. Dropped, it is killed.
pub struct Redis {
    child: Child,
    pub address: SocketAddr,
    options: Vec<String>,
    directory: tempfile::TempDir,
}

impl Redis {
    /// Starts one.
    pub fn start() -> Option<Self> {
        Self::with_files(&[], &[])
    }

    /// Starts one with further options, and files in its directory. `PORT` stands for the port.
    pub fn with_files(options: &[&str], files: &[(&str, String)]) -> Option<Self> {
        // Whoever else takes the port in between makes the test fail loudly, not wrongly.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        match spawn(address, &options, directory.path()) {
            Ok(child) => Some(Self { child, address, options, directory }),
            Err(error) => {
                super::skipped(&format!("no redis-server ({error}); install Debian's redis-server"));
                None
            }
        }
    }

    /// The URL of it.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// The section that makes a proxy share its budgets here.
    pub fn config(&self) -> String {
        format!("shared: {{ redis: '{}' }}", self.url())
    }

    /// One command, in words without spaces, and the beginning of its answer as it stands on the wire.
    pub fn command(&self, words: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(format!("{words}\r\n").as_bytes()).unwrap();
        let mut answer = [0; 4096];
        let length = stream.read(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..length]).into_owned()
    }

    /// One command, whatever is in its words, and the text it answers with.
    pub fn call(&self, words: &[&str]) -> String {
        let mut command = format!("*{}\r\n", words.len());
        for word in words {
            command.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(command.as_bytes()).unwrap();
        let mut answer = [0; 4096];
        let length = stream.read(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
        answer.split_once("\r\n").map_or(answer.clone(), |(_, text)| text.trim_end().to_owned())
    }

    /// It stops in the middle of whatever it does, and keeps its connections.
    pub fn freeze(&self) {
        kill_process(Pid::from_child(&self.child), Signal::STOP).unwrap();
    }

    /// And goes on.
    pub fn thaw(&self) {
        kill_process(Pid::from_child(&self.child), Signal::CONT).unwrap();
    }

    /// It is gone, with all it knew.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// An empty one, in the same place.
    pub fn start_again(&mut self) {
        self.kill();
        self.child = spawn(self.address, &self.options, self.directory.path()).unwrap();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Debian's `redis-server`, or what the environment names in its place: a Valkey, say.
fn program() -> std::ffi::OsString {
    std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into())
}

fn spawn(address: SocketAddr, options: &[String], directory: &std::path::Path) -> std::io::Result<Child> {
    let port = address.port().to_string();
    let plain = !options.iter().any(|option| option == "--tls-port");
    let mut child = Command::new(program())
        .args(["--bind", "127.0.0.1", "--port", if plain { &port } else { "0" }, "--save", "", "--appendonly", "no"])
        .args(options.iter().map(|option| if option == "PORT" { &port } else { option }))
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(directory.join("redis.log")).unwrap())
        .stderr(Stdio::null())
        .spawn()?;
    let started = Instant::now();
    while TcpStream::connect(address).is_err() {
        let log = || std::fs::read_to_string(directory.join("redis.log")).unwrap_or_default();
        assert!(child.try_wait().unwrap().is_none(), "redis-server ended: {}", log());
        assert!(started.elapsed() < PATIENCE, "redis-server does not listen: {}", log());
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(child)
}
