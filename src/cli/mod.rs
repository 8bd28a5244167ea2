//! The command line: what was typed becomes one command, and the command's end an exit code.
//!
//! In: arguments and environment. Out: 0 done, 64 usage, 78 bad configuration, 1 anything else. Messages for people go
//! to standard error, results to standard output.
mod check;
mod connect;
mod demo;
mod doctor;
mod keys;
mod life;
mod local;
mod probe;
mod progress;
mod sandbox;
mod serve;
mod table;

use std::borrow::Cow;
use std::io::{ErrorKind as IoErrorKind, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use crate::address::Address;
use crate::app::StartError;
use crate::config::{self, Config};
use crate::fault::Fault;
use crate::telemetry;
use crate::wire::mask;

/// sysexits.h: EX_USAGE.
const USAGE: u8 = 64;
/// sysexits.h: EX_CONFIG.
const CONFIG: u8 = 78;

/// Calls the Cloudbeds API for applications that hold no key: they name the property, the proxy adds the credential.
#[derive(Debug, Parser)]
#[command(name = "cloudbeds-auth-proxy", version, arg_required_else_help = true)]
#[command(after_help = "Start with `cloudbeds-auth-proxy demo`; it needs no configuration and no key.\n\
    Exit codes: 0 done, 64 usage, 78 bad configuration, 1 anything else.")]
struct Arguments {
    /// Configuration file; without one, the defaults [env: CLOUDBEDS_AUTH_PROXY_CONFIG]
    // Not clap's `env`: it takes an empty variable for a mistake, and shows the variable's value in the help.
    #[arg(long, global = true, value_name = "FILE", display_order = 100)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy
    #[command(
        after_help = "Without a configuration: apps reach it at 127.0.0.1:8080, operators at 127.0.0.1:9090, and \
        the keys are in keys.yaml, one line `\"<property id>\": <key>` per hotel, mode 0600.\n\n\
        SIGHUP reads the keys again; SIGTERM ends it once the calls under way are answered, a second one at once."
    )]
    Serve,
    /// Check configuration, keys and certificates without starting, and name every fault
    CheckConfig,
    /// Put keys into the key file, look at them, take them out
    #[command(subcommand)]
    Keys(keys::Command),
    /// Look for everything that may be wrong, and say what to do about it
    Doctor(doctor::Options),
    /// Print the link that a hotel connects by
    ConnectLink(connect::Options),
    /// Show the proxy at work: two made-up hotels, one call, curl lines to try
    Demo(demo::Options),
    /// Run a stand-in Cloudbeds, with keys and certificate written for a proxy to use
    Sandbox(sandbox::Options),
    /// Ask a running proxy whether it is ready (exit code 0) or not (1)
    Healthcheck(probe::Healthcheck),
    /// Wait until a proxy is ready
    Wait(probe::Wait),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Why a command did not do what it was asked; printed as it is.
#[derive(Debug)]
enum Failure {
    Configuration(Vec<Fault>),
    Start(StartError),
    Other(String),
    /// The result has been printed and says it all; only the exit code is left.
    Told(u8),
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Self::Configuration(_) => CONFIG,
            Self::Start(error) if error.is_configuration() => CONFIG,
            Self::Start(_) | Self::Other(_) => 1,
            Self::Told(code) => *code,
        }
    }

    fn print(&self) {
        let text = match self {
            Self::Configuration(faults) => faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
            Self::Start(error) => error.to_string(),
            Self::Other(sentence) => sentence.clone(),
            Self::Told(_) => return,
        };
        // With standard error closed there is nobody left to tell.
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self::Start(error)
    }
}

/// Runs the command that was typed.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Where to print and whether it was asked for, clap knows; the code for a mistake is ours. It repeats what
            // was typed, which must not be a key that somebody took for an argument.
            let said = error.render().to_string();
            let _ = match mask::text(&said) {
                Cow::Borrowed(_) => error.print(),
                Cow::Owned(masked) => std::io::stderr().write_all(masked.as_bytes()),
            };
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return ExitCode::from(if asked { 0 } else { USAGE });
        }
    };
    telemetry::panic::install();
    // Two crates of the tree use rustls' bare builders, which take the process's default.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let named = || std::env::var_os("CLOUDBEDS_AUTH_PROXY_CONFIG").filter(|path| !path.is_empty());
    let config = arguments.config.or_else(|| named().map(PathBuf::from));
    let done = match arguments.command {
        Command::Serve => serve::run(config.as_deref()),
        Command::CheckConfig => check::run(config.as_deref()),
        Command::Keys(command) => command.run(config.as_deref()),
        Command::Doctor(options) => options.run(config.as_deref()),
        Command::ConnectLink(options) => options.run(config.as_deref()),
        Command::Demo(options) => demo::run(&options),
        Command::Sandbox(options) => sandbox::run(&options),
        Command::Healthcheck(options) => options.run(config.as_deref()),
        Command::Wait(options) => options.run(config.as_deref()),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "cloudbeds-auth-proxy", &mut script);
            say(&String::from_utf8_lossy(&script))
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print();
            ExitCode::from(failure.code())
        }
    }
}

/// Prints a result. Whoever closed the pipe, such as `head`, has read enough.
fn say(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != IoErrorKind::BrokenPipe => {
            Err(Failure::Other(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Prints a result for programs.
fn json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::Other(error.to_string()))?;
    say(&format!("{text}\n"))
}

/// An argument that is an address to connect to or to listen on.
fn tcp_address(text: &str) -> Result<SocketAddr, String> {
    match text.parse() {
        Ok(Address::Tcp(address)) => Ok(address),
        _ => Err("expected an IP address and a port, such as 127.0.0.1:9090 or localhost:9090".to_owned()),
    }
}

fn load(path: Option<&std::path::Path>) -> Result<Config, Failure> {
    config::load(path, std::env::vars_os()).map_err(Failure::Configuration)
}

/// The control plane's runtime.
///
/// Whatever blocks in the background at the end, a key file on a mount that hangs for instance, is left behind.
fn block_on<T>(command: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime =
        crate::process::runtime().build().map_err(|error| Failure::Other(format!("cannot start: {error}")))?;
    let done = runtime.block_on(command);
    runtime.shutdown_background();
    done
}
