//! Any command of the binary: what it prints while it runs, its signals, its end.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::PATIENCE;

/// A running command. Dropped, it is killed.
pub struct Run {
    child: Child,
    output: tempfile::TempDir,
}

impl Run {
    /// Starts the binary in `directory`, which is also where it makes temporary files.
    pub fn start(directory: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let output = tempfile::tempdir().unwrap();
        let file = |name| Stdio::from(File::create(output.path().join(name)).unwrap());
        let child = Command::new(env!("CARGO_BIN_EXE_cloudbeds-auth-proxy"))
            .args(arguments)
            .current_dir(directory)
            .env("TMPDIR", directory)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(file("stdout"))
            .stderr(file("stderr"))
            .spawn()
            .unwrap();
        Self { child, output }
    }

    /// What it has printed so far.
    pub fn printed(&self) -> String {
        std::fs::read_to_string(self.output.path().join("stdout")).unwrap()
    }

    /// What it has said on standard error so far.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.output.path().join("stderr")).unwrap()
    }

    /// Waits until it has printed `words`.
    pub async fn prints(&mut self, words: &str) {
        let started = Instant::now();
        while !self.printed().contains(words) {
            let ended = self.child.try_wait().unwrap();
            let hopeless = ended.is_some() || started.elapsed() > PATIENCE;
            assert!(!hopeless, "never printed {words:?}: {ended:?} {} {}", self.printed(), self.said());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(!self.said().contains("panicked"), "{}", self.said());
                return status;
            }
            assert!(started.elapsed() < PATIENCE, "it does not end: {} {}", self.printed(), self.said());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
