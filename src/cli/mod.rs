//! The command line: what was typed becomes one command, and the command's end an exit code.
//!
//! In: arguments and environment. Out: 0 done, 64 usage, 78 bad configuration, 1 anything else. Messages for people go
//! to standard error, results to standard output.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is where the process talks to people")]

mod check;
mod demo;
mod local;
mod probe;
mod sandbox;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use crate::app::StartError;
use crate::config::{self, Config};
use crate::fault::Fault;

/// sysexits.h: EX_USAGE.
const USAGE: u8 = 64;
/// sysexits.h: EX_CONFIG.
const CONFIG: u8 = 78;

/// Calls the Cloudbeds API for applications that hold no key: they name the property, the proxy adds the credential.
#[derive(Debug, Parser)]
#[command(name = "cloudbeds-auth-proxy", version, about, arg_required_else_help = true)]
#[command(after_help = "Start with `cloudbeds-auth-proxy demo`; it needs no configuration and no key.")]
struct Arguments {
    /// The configuration file; without one, defaults and environment variables apply
    #[arg(long, global = true, value_name = "FILE", env = "CLOUDBEDS_AUTH_PROXY_CONFIG")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy: SIGHUP reloads the keys, SIGTERM drains, a second SIGTERM ends at once
    Serve,
    /// Check configuration, key file and roots, and name every fault at once
    CheckConfig,
    /// Show the proxy at work: two demo hotels, a stand-in Cloudbeds, one call, and curl lines to try
    Demo(demo::Options),
    /// Run the stand-in Cloudbeds alone, with a throw-away root and keys written to a directory
    Sandbox(sandbox::Options),
    /// Ask a running proxy whether it is ready: exit code 0 or 1, for images without a shell
    Healthcheck(probe::Healthcheck),
    /// Wait until a proxy is ready, for applications that start before it
    Wait(probe::Wait),
    /// Print shell completions
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
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Self::Configuration(_) => CONFIG,
            Self::Start(error) if error.is_configuration() => CONFIG,
            Self::Start(_) | Self::Other(_) => 1,
        }
    }

    fn print(&self) {
        match self {
            Self::Configuration(faults) => faults.iter().for_each(|fault| eprintln!("{fault}")),
            Self::Start(error) => eprintln!("{error}"),
            Self::Other(sentence) => eprintln!("{sentence}"),
        }
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
            // Where to print and whether it was asked for, clap knows; the code for a mistake is ours.
            let _ = error.print();
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return ExitCode::from(if asked { 0 } else { USAGE });
        }
    };
    // Two crates of the tree use rustls' bare builders, which take the process's default.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = arguments.config;
    let done = match arguments.command {
        Command::Serve => serve::run(config.as_deref()),
        Command::CheckConfig => check::run(config.as_deref()),
        Command::Demo(options) => demo::run(&options),
        Command::Sandbox(options) => sandbox::run(&options),
        Command::Healthcheck(options) => options.run(config.as_deref()),
        Command::Wait(options) => options.run(config.as_deref()),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "cloudbeds-auth-proxy", &mut std::io::stdout());
            Ok(())
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

fn load(path: Option<&std::path::Path>) -> Result<Config, Failure> {
    config::load(path, std::env::vars_os()).map_err(Failure::Configuration)
}

/// The control plane's runtime.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Other(format!("cannot start: {error}")))
}
