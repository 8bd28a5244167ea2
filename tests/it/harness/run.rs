//! Any command of the binary: what it prints while it runs, its signals, its end. No key is in what it prints.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{PATIENCE, assert_clean};

/// A running command. Dropped, it is killed, and what it printed is searched for the keys that were seen in its files.
pub struct Run {
    child: Child,
    directory: PathBuf,
    output: tempfile::TempDir,
    secrets: BTreeSet<String>,
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
        Self { child, directory: directory.to_owned(), output, secrets: BTreeSet::new() }
    }

    /// The keys, and secrets of apps, in the files of its directory, now and at each earlier look.
    pub fn secrets(&mut self) -> Vec<String> {
        look_for_keys(&self.directory, &mut self.secrets);
        self.secrets.iter().cloned().collect()
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
            self.secrets();
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
            self.secrets();
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
        let secrets = self.secrets();
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !std::thread::panicking() {
            assert_clean("what it printed", self.printed().as_bytes(), &secrets);
            assert_clean("what it said", self.said().as_bytes(), &secrets);
        }
    }
}

/// Whatever looks like one in any file: a demo makes its own keys and tells nobody.
fn look_for_keys(directory: &Path, found: &mut BTreeSet<String>) {
    for path in std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            look_for_keys(&path, found);
            continue;
        }
        // A file may go while this looks.
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        if path.ends_with("sandbox-client-secret") {
            found.insert(text.trim().to_owned());
        }
        for (at, _) in text.match_indices("cbat_") {
            let end =
                text[at + 5..].find(|letter: char| !letter.is_ascii_alphanumeric()).unwrap_or(text.len() - at - 5);
            if end >= 16 {
                found.insert(text[at..at + 5 + end].to_owned());
            }
        }
    }
}
