//! Commands that end by themselves, run by the real binary in a directory with a configuration.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cloudbeds_auth_proxy::sandbox::{Hotel, Sandbox};
use cloudbeds_auth_proxy::secret::ApiKey;

use super::proxy::write_private;
use super::{Proxy, assert_clean};

/// A directory with `config.yaml`, `root.pem` and `keys.yaml`, and the keys that nothing printed may hold.
pub struct Desk {
    directory: tempfile::TempDir,
    pub secrets: Vec<String>,
}

/// What a command said and how it ended. No key is in it.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Desk {
    /// Before a sandbox; `yaml` adds sections to the configuration.
    pub fn before(cloudbeds: &Sandbox, hotels: &[Hotel], yaml: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = format!(
            "listen: 127.0.0.1:0\nadmin: {{ listen: 127.0.0.1:0 }}\n\
             upstream: {{ base_url: {}, ca_file: root.pem }}\n{yaml}\n",
            cloudbeds.base_url()
        );
        std::fs::write(directory.path().join("config.yaml"), config).unwrap();
        std::fs::write(directory.path().join("root.pem"), cloudbeds.root_pem()).unwrap();
        Self { directory, secrets: hotels.iter().map(|hotel| hotel.key.clone()).collect() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn write_keys(&self, text: &str) {
        write_private(&self.path("keys.yaml"), text);
    }

    pub fn keys(&self) -> String {
        std::fs::read_to_string(self.path("keys.yaml")).unwrap()
    }

    /// Leaves the state of a proxy under which a property's key was used last so many days ago.
    pub fn used_before(&self, property: &str, key: &str, days: u64) {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let then = now - days * 24 * 60 * 60;
        let record = serde_json::json!({ "properties": [property], "first_seen": then, "last_used": then });
        let name = ApiKey::parse(key).unwrap().fingerprint().to_string();
        let state = serde_json::json!({ "format": 1, "keys": { name: record } });
        std::fs::write(self.path("keys.state.json"), state.to_string()).unwrap();
    }

    /// Runs a command with this on standard input.
    pub async fn run(&self, arguments: &[&str], input: &str) -> Ran {
        run(self.directory.path(), arguments, input, &self.secrets).await
    }

    /// The command itself, for what is special about it.
    pub fn command(&self, arguments: &[&str]) -> Command {
        command(self.directory.path(), arguments)
    }

    /// Runs one that asks, and types the answer when it has asked.
    pub async fn run_typed(&self, mut command: Command, asked: &str, answer: &str) -> Ran {
        let (asked, answer, secrets) = (asked.to_owned(), answer.to_owned(), self.secrets.clone());
        let typed = tokio::task::spawn_blocking(move || {
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
            let mut said = Vec::new();
            let mut byte = [0];
            while !said.ends_with(asked.as_bytes()) && output.read(&mut byte).unwrap() > 0 {
                said.extend_from_slice(&byte);
            }
            input.write_all(answer.as_bytes()).unwrap();
            output.read_to_end(&mut said).unwrap();
            (child.wait().unwrap(), said)
        });
        let (status, said) = super::in_time(typed).await.unwrap();
        assert_clean("the terminal", &said, &secrets);
        Ran { code: status.code(), out: String::from_utf8(said).unwrap(), err: String::new() }
    }

    /// Runs a special one.
    pub async fn run_command(&self, command: Command, input: &str) -> Ran {
        ended(command, input, &self.secrets).await
    }
}

impl Proxy {
    /// Runs a command on this proxy's configuration while it serves.
    pub async fn run(&self, arguments: &[&str], input: &str) -> Ran {
        run(self.directory.path(), arguments, input, &self.secrets).await
    }
}

fn command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cloudbeds-auth-proxy"));
    command.arg("--config").arg("config.yaml").args(arguments).current_dir(directory);
    // Nothing of the tests' own environment that it would heed.
    command.env_clear().env("PATH", "/usr/bin:/bin");
    command
}

async fn run(directory: &Path, arguments: &[&str], input: &str, secrets: &[String]) -> Ran {
    ended(command(directory, arguments), input, secrets).await
}

/// On a thread of its own: the sandbox it calls runs on this one.
async fn ended(mut command: Command, input: &str, secrets: &[String]) -> Ran {
    let input = input.to_owned();
    let output = tokio::task::spawn_blocking(move || {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // It may end without reading it.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    });
    let output = super::in_time(output).await.unwrap();
    for (what, emitted) in [("standard output", &output.stdout), ("standard error", &output.stderr)] {
        assert_clean(what, emitted, secrets);
    }
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

impl Ran {
    /// Asserts an exit code, and words in what was said on both outputs together.
    #[track_caller]
    pub fn expect(&self, code: i32, words: &[&str]) -> &Self {
        let said = format!("{}{}", self.out, self.err);
        assert_eq!(self.code, Some(code), "{said}");
        for words in words {
            assert!(said.contains(words), "{words:?} is not in: {said}");
        }
        self
    }
}
