//! What is loaded, and whether it may be.
//!
//! In: an address, or nothing. Out: a [`Target`] that is known to end in a sandbox, or that was asked for in words.
//! A sandbox shows itself through the proxy: its `/sandbox/echo` hands back a word that was made up a moment ago, where
//! Cloudbeds answers a path it does not know with 404 and a page.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::kit::client::Client;
use crate::kit::process::{Running, command};
use crate::kit::{Sentence, free_address};
use crate::options::Options;

/// How long starting may take.
const READY: Duration = Duration::from_secs(20);

/// Where the calls go.
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) described: String,
    /// Ended when this is dropped: the proxy first.
    _started: Vec<Running>,
}

/// What a proxy's upstream turned out to be.
enum Upstream {
    Sandbox,
    /// Why it cannot be told, or what else it is.
    Other(String),
}

impl Target {
    /// A proxy that runs already.
    pub(crate) fn at(address: SocketAddr, options: &Options) -> Result<Self, Sentence> {
        let described = match (ask(address, options)?, options.real) {
            (Upstream::Sandbox, _) => format!("Loading {address}, whose upstream is a sandbox."),
            (Upstream::Other(what), false) => {
                return Err(format!(
                    "{address} is not loaded: {what}. Only a sandbox is loaded without further words, since too many \
                     calls get an account of Cloudbeds suspended. If the load is meant for it: \
                     --load-real-accounts-of-real-hotels --rate NUMBER"
                ));
            }
            (Upstream::Other(_), true) if options.rate.is_none() => {
                return Err("real accounts are only loaded at a --rate; Cloudbeds allows 10 a second".to_owned());
            }
            (Upstream::Other(_), true) if !options.mix.is_safe() => {
                return Err("real accounts are only loaded with GET and HEAD; choose another --mix".to_owned());
            }
            (Upstream::Other(what), true) => format!("Loading {address}, as told ({what})."),
        };
        Ok(Self { address, described, _started: Vec::new() })
    }

    /// A sandbox and a proxy of this build.
    pub(crate) fn start(directory: &Path, options: &Options) -> Result<Self, Sentence> {
        let program = Path::new(env!("CARGO_BIN_EXE_cloudbeds-auth-proxy"));
        let (cloudbeds, address, admin) = (free_address()?, free_address()?, free_address()?);
        let most = options.properties.iter().max().copied().unwrap_or(1001);
        let mut words = command(program, None);
        words.args(["sandbox", "--listen", &cloudbeds.to_string(), "--hotels", &(most - 1000).to_string(), "--dir"]);
        let mut sandbox = Running::start(
            "the sandbox",
            {
                words.arg(directory);
                words
            },
            &directory.join("sandbox.out"),
        )?;
        let keys = directory.join("keys.yaml");
        sandbox.wait_ready(READY, |own| keys.exists() && own.listens(cloudbeds))?;
        // Elsewhere than the keys: the proxy watches their directory, and would hear of every line of its log.
        let logs = directory.join("logs");
        std::fs::create_dir(&logs).map_err(|error| format!("{}: {error}", logs.display()))?;
        let log = logs.join("proxy.log");
        let text = format!(
            "listen: {address}\nadmin: {{ listen: {admin} }}\nkeys: {{ file: {keys:?} }}\nlimits: null\n\
             upstream: {{ base_url: \"https://localhost:{}\", ca_file: {:?} }}\n\
             log: {{ output: {log:?} }}\ndrain: {{ min: 0s, max: 1s }}\n",
            cloudbeds.port(),
            directory.join("sandbox-root.pem"),
        );
        let config = directory.join("config.yaml");
        std::fs::write(&config, text).map_err(|error| format!("{}: {error}", config.display()))?;
        let mut words = command(program, None);
        words.args(["serve", "--config"]).arg(&config);
        let mut proxy = Running::start("the proxy", words, &directory.join("proxy.out"))?;
        proxy.wait_ready(READY, |own| own.listens(address))?;
        let described = format!("Loading a proxy at {address} and a sandbox at {cloudbeds}, both started for this.");
        Ok(Self { address, described, _started: vec![proxy, sandbox] })
    }
}

/// Asks through the proxy what is behind it.
fn ask(address: SocketAddr, options: &Options) -> Result<Upstream, Sentence> {
    let nonce = format!("{:x}-{:?}", std::process::id(), std::time::Instant::now());
    let word: String = nonce.chars().filter(char::is_ascii_alphanumeric).collect();
    let property = options.properties.first().copied().unwrap_or_default();
    let request = format!(
        "GET /sandbox/echo?{word} HTTP/1.1\r\nHost: localhost\r\nX-Property-Id: {property}\r\nX-Load-Word: {word}\r\n{}\r\n",
        options.headers
    );
    let failed = |error| format!("{address} does not answer: {error}");
    let mut client = Client::connect(address, options.timeout).map_err(failed)?;
    let answer = client.call(request.as_bytes()).map_err(failed)?;
    let body: Value = serde_json::from_slice(client.body()).unwrap_or_default();
    let echoed = body["headers"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|field| field[0].as_str() == Some("x-load-word") && field[1].as_str() == Some(&word));
    if answer.status == 200 && echoed && client.field("x-echo-x-load-word") == Some(&word) {
        return Ok(Upstream::Sandbox);
    }
    Ok(Upstream::Other(match body["code"].as_str() {
        Some(code) => format!("the proxy itself answered {} {code} for property {property}", answer.status),
        None => format!("its upstream is not a sandbox, which would not answer {} to /sandbox/echo", answer.status),
    }))
}
