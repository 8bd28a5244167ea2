//! `sandbox`: the stand-in Cloudbeds alone, for trying a configuration, a deployment, an application, or the life of a
//! key; and `sandbox do` and `sandbox show`, which speak to its control listener.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use http::Request;
use http::header::HOST;
use tokio::signal::unix::{SignalKind, signal};

use super::local::call;
use super::{Failure, block_on, say, tcp_address};
use crate::listen;
use crate::property::PropertyId;
use crate::sandbox::{self, Hotel, Unconnected, random_key};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Options {
    /// Where it listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8443", value_parser = tcp_address)]
    listen: SocketAddr,
    /// Where its control page and `sandbox do` reach it, such as 127.0.0.1:8444; loopback only
    #[arg(long, value_name = "ADDRESS", value_parser = tcp_address)]
    control: Option<SocketAddr>,
    /// Where keys.yaml, sandbox-root.pem and sandbox-client-secret are written; those of an earlier run are replaced
    #[arg(long, value_name = "DIR", default_value = "sandbox")]
    dir: PathBuf,
    /// How many hotels have a key; their properties count up from 1001
    #[arg(long, value_name = "NUMBER", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    hotels: u32,
    /// How many further hotels are there to be connected
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=1000))]
    unconnected: u32,
    /// Where its app is sent authorization codes
    #[arg(long, value_name = "URI", default_value = "http://127.0.0.1:8081/api_key")]
    redirect_uri: String,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Do something to a running sandbox
    #[command(after_help = "Acts: clock by=31d; approve, disconnect, regenerate, revoke, user_left, property_left, \
        property_back (each property=ID); fail room=ROOM times=N (property=ID, path=END); clear; budget per_second=10; \
        reinstate; webhooks copies=2 reversed=yes; resources on=no; cut how=reset; app redirect_uri=URI email=ADDRESS \
        webhook=URI.\n\nThe control page has a button for each; the answer is JSON.")]
    Do {
        #[command(flatten)]
        at: At,
        /// The act
        act: String,
        /// What it needs, as name=value
        #[arg(value_name = "NAME=VALUE")]
        values: Vec<String>,
    },
    /// Show a running sandbox's state, or what arrived; keys are covered
    Show {
        #[command(flatten)]
        at: At,
        /// What to show
        what: What,
    },
}

#[derive(Debug, Args)]
struct At {
    /// The sandbox's control listener
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8444", value_parser = tcp_address)]
    control: SocketAddr,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    State,
    Requests,
    Webhooks,
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    match &options.command {
        None => block_on(serve(options)),
        Some(Command::Do { at, act, values }) => {
            let mut query = form_urlencoded::Serializer::new(String::new());
            query.append_pair("do", act);
            for value in values {
                let (name, value) = value.split_once('=').ok_or_else(|| {
                    Failure::Other("sandbox do: after the act come values such as property=1001".to_owned())
                })?;
                query.append_pair(name, value);
            }
            block_on(ask(at.control, Request::post(format!("/do?{}", query.finish()))))
        }
        Some(Command::Show { at, what }) => {
            let path = match what {
                What::State => "/state",
                What::Requests => "/requests",
                What::Webhooks => "/webhooks",
            };
            block_on(ask(at.control, Request::get(path)))
        }
    }
}

/// Asks the control listener, and prints its answer.
async fn ask(control: SocketAddr, request: http::request::Builder) -> Result<(), Failure> {
    let failed = |error: String| Failure::Other(format!("sandbox: {error}; was it started with --control {control}?"));
    let request = request.header(HOST, control.to_string()).body(()).map_err(|error| failed(error.to_string()))?;
    let answer = call(control, request).await.map_err(failed)?;
    let body: serde_json::Value =
        serde_json::from_slice(answer.body()).map_err(|_| failed("it did not answer as a sandbox does".to_owned()))?;
    if !answer.status().is_success() {
        let why = body["error"].as_str().unwrap_or("it did not do it");
        return Err(Failure::Other(format!("sandbox: {why}")));
    }
    say(&format!("{body:#}\n"))
}

async fn serve(options: &Options) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::Other(format!("sandbox: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let settings = settings(options);
    let hotels = settings.hotels.clone();
    let vacant = settings.unconnected.first().map(|hotel| hotel.property);
    let apps = settings.apps.clone();
    let listener = listen::tcp(options.listen, 1).map_err(|error| Failure::Other(error.to_string()))?.pop();
    let listener = listener.ok_or_else(|| Failure::Other("sandbox: no listener".into()))?;
    let cloudbeds = sandbox::start_on(listener, settings).map_err(failed)?;
    std::fs::create_dir_all(&options.dir)
        .map_err(|error| Failure::Other(format!("{}: {error}", options.dir.display())))?;
    let files = sandbox::write_files(&options.dir, &hotels, cloudbeds.root_pem()).map_err(failed)?;
    let mut text = format!(
        "Stand-in Cloudbeds at {url}; a proxy for it:\n\n  \
         CLOUDBEDS_AUTH_PROXY__UPSTREAM__BASE_URL={url} \\\n  \
         CLOUDBEDS_AUTH_PROXY__UPSTREAM__CA_FILE={} \\\n  \
         CLOUDBEDS_AUTH_PROXY__KEYS__FILE={} \\\n  \
         cloudbeds-auth-proxy serve\n\n",
        quoted(&files.root),
        quoted(&files.keys),
        url = cloudbeds.base_url(),
    );
    if let Some(app) = apps.first() {
        let secret = sandbox::write_secret(&options.dir, &app.client_secret).map_err(failed)?;
        text.push_str(&format!(
            "Its app is {}, with the secret in {} and the redirect URI {}.\n",
            app.client_id,
            quoted(&secret),
            app.redirect_uri
        ));
        if let Some(property) = vacant {
            let link = cloudbeds.connect_link(property, &app.client_id);
            text.push_str(&format!("Property {property} has not connected it yet: {link}\n"));
        }
    }
    if let Some(control) = cloudbeds.control_address() {
        text.push_str(&format!("Control it at http://{control}/ or with `cloudbeds-auth-proxy sandbox do`.\n"));
    }
    say(&format!("{text}Ctrl-C ends it.\n"))?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    cloudbeds.stop().await;
    Ok(())
}

fn settings(options: &Options) -> sandbox::Settings {
    let mut settings = sandbox::Settings::demo();
    settings.control = options.control;
    for app in &mut settings.apps {
        app.redirect_uri.clone_from(&options.redirect_uri);
    }
    let given = settings.hotels.len() as u64;
    settings.hotels.truncate(options.hotels as usize);
    let property = |number: u64| NonZeroU64::new(1001 + number).map(PropertyId::from);
    let with_key = u64::from(options.hotels);
    for property in (given..with_key).filter_map(property) {
        settings.hotels.push(Hotel { property, name: format!("Demo Hotel {property}"), key: random_key() });
    }
    let vacant = (with_key..with_key + u64::from(options.unconnected)).filter_map(property);
    let vacant =
        vacant.map(|property| Unconnected { property, name: format!("New Hotel {property}"), organization: None });
    settings.unconnected = vacant.collect();
    settings
}

/// A path as a shell takes it for one word.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+=:@".contains(&byte);
    if text.bytes().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}
