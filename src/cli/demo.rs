//! `demo`: the whole path in one command, without a configuration and without a key.
//!
//! In: four ports. Out: a stand-in Cloudbeds and a proxy with two hotels, one call shown before and after, curl lines that
//! work when pasted, and a third hotel to connect in a browser. What is printed is what was sent and what arrived, not a
//! picture of it; only the key is covered. Everything made for it, the keys too, is gone when it ends.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use bytes::Bytes;
use clap::Args;
use http::header::{AUTHORIZATION, HOST};
use http::{Request, Response};
use tracing_subscriber::filter::LevelFilter;

use super::local::call;
use super::serve::Signals;
use super::{Failure, block_on, say};
use crate::app::App;
use crate::config;
use crate::log_filter::LogFilter;
use crate::sandbox::{self, Sandbox, Seen};
use crate::telemetry::{self, AccessLog, LogSettings, Output};
use crate::wire::mask;
use crate::{listen, process};

/// The hotel that is not connected yet.
const THIRD: &str = "1003";

/// Its app, as registered with the stand-in.
const CLIENT: &str = "live1_1001_demoApp";

/// The call that is shown.
const TARGET: &str = "/api/v1.3/getReservations?pageSize=2";

#[derive(Debug, Args)]
pub(super) struct Options {
    /// End after the call instead of staying up
    #[arg(long)]
    once: bool,
    /// The proxy's port; 0 picks a free one, here and below
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    port: u16,
    /// The admin listener's port
    #[arg(long, value_name = "PORT", default_value_t = 9090)]
    admin_port: u16,
    /// The stand-in Cloudbeds' port
    #[arg(long, value_name = "PORT", default_value_t = 8443)]
    sandbox_port: u16,
    /// The port where hotels connect
    #[arg(long, value_name = "PORT", default_value_t = 8081)]
    connect_port: u16,
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    // Demo keys open nothing, but a demo that treats them otherwise would show something else than `serve`.
    let _ = process::harden();
    let filter = LogFilter::level(LevelFilter::WARN);
    let settings = LogSettings { json: false, filter, output: Output::Stderr, access: !options.once };
    let log = telemetry::init(&settings).map_err(|error| other("log", &error))?;
    let directory = tempfile::tempdir().map_err(|error| other("temporary directory", &error))?;
    block_on(show(options, directory.path(), log.access_log()))
}

async fn show(options: &Options, directory: &Path, access: AccessLog) -> Result<(), Failure> {
    // Before anything is up, so that no moment is left in which a signal would leave the keys behind.
    let signals = Signals::new().map_err(|error| other("signals", &error))?;
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let ports = [
        ("--port", options.port),
        ("--admin-port", options.admin_port),
        ("--sandbox-port", options.sandbox_port),
        ("--connect-port", options.connect_port),
    ];
    for (index, (flag, port)) in ports.iter().enumerate() {
        if let Some((other, _)) = ports[..index].iter().find(|(_, other)| other == port && *port != 0) {
            return Err(Failure::Other(format!("{flag} and {other} both say {port}; give one of them another port")));
        }
    }
    let sandbox_listener = free(at(options.sandbox_port), "--sandbox-port")?;
    drop(free(at(options.port), "--port")?);
    drop(free(at(options.admin_port), "--admin-port")?);
    // Its number is needed before it is bound for good: the app's redirect URI is registered with it.
    let connect =
        at(free(at(options.connect_port), "--connect-port")?.local_addr().map_err(|e| other("port", &e))?.port());
    let demo = settings(connect)?;
    let (hotels, secret) = (demo.hotels.clone(), demo.apps.first().map(|app| app.client_secret.clone()));
    let cloudbeds = sandbox::start_on(sandbox_listener, demo).map_err(|error| other("sandbox", &error))?;
    let files =
        sandbox::write_files(directory, &hotels, cloudbeds.root_pem()).map_err(|error| other("keys", &error))?;
    write_private(&directory.join("client-secret"), &secret.unwrap_or_default())
        .map_err(|error| other("secret", &error))?;
    let url = cloudbeds.base_url();
    let yaml = format!(
        "listen: {}\nadmin: {{ listen: {} }}\nkeys: {{ file: {:?} }}\nupstream: {{ base_url: {url}, ca_file: {:?} }}\n\
         apps: {{ demo: {{ client_id: {CLIENT}, client_secret_file: client-secret, redirect_uri: \"http://{connect}/api_key\", \
         exchange_url: \"{url}/api/v1.1/access_token\", connect_url: \"{url}/connect\", marketplace: true }} }}\n\
         onboarding: {{ listen: \"{connect}\", public_url: \"http://{connect}\" }}\n\
         drain: {{ min: 0s }}\nworkers: 1\n",
        at(options.port),
        at(options.admin_port),
        files.keys,
        files.root
    );
    let config = config::parse(&yaml, "demo", directory, []).map_err(Failure::Configuration)?;
    let app = App::prepare(config, access)?;
    let address = app.addresses().first().and_then(|address| address.parse().ok()).unwrap_or(at(options.port));
    let admin = app.admin_address().map_err(|error| other("admin listener", &error))?;
    let handle = app.handle();
    let mut running = tokio::spawn(app.run());
    tokio::select! {
        () = handle.phase().reached(crate::phase::Phase::Ready) => {}
        ended = &mut running => {
            ended.map_err(|error| other("proxy", &error))?.map_err(|error| other("proxy", &error))?;
        }
    }

    let steering = tokio::spawn(signals.steer(handle.clone()));
    let shown = match one_call(address, &cloudbeds).await {
        Ok(()) if !options.once => invite(address, admin, connect, &cloudbeds),
        shown => shown,
    };
    if options.once || shown.is_err() {
        handle.hurry();
    }
    let ended = running.await;
    steering.abort();
    cloudbeds.stop().await;
    shown?;
    ended.map_err(|error| other("proxy", &error))?.map_err(|error| other("proxy", &error))
}

/// The two hotels that have keys, the third one without, and the app that all of them connect to.
fn settings(connect: SocketAddr) -> Result<sandbox::Settings, Failure> {
    let mut demo = sandbox::Settings::demo();
    let property = THIRD.parse().map_err(|error| other("hotel", &error as &dyn std::fmt::Display))?;
    demo.unconnected =
        vec![sandbox::Unconnected { property, name: "Lakeside Demo Inn".to_owned(), organization: None }];
    // A secret of its own for every run; what a key is known by is no part of it.
    let secret = sandbox::random_key().replace(crate::secret::KEY_PREFIX, "");
    let mut app = sandbox::App::new(CLIENT, &secret, &format!("http://{connect}/api_key"));
    app.name = "Demo Channel Manager".to_owned();
    app.marketplace = true;
    app.webhook = Some(format!("http://{connect}/webhook"));
    demo.apps = vec![app];
    Ok(demo)
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}

fn other(what: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::Other(format!("{what}: {error}"))
}

/// The listener, or a sentence with the flag that picks another port.
fn free(address: SocketAddr, flag: &str) -> Result<TcpListener, Failure> {
    let bound = listen::tcp(address, 1);
    let mut bound = bound.map_err(|error| match error.is_in_use() {
        true => Failure::Other(format!("port {} is taken; choose another with {flag} PORT", address.port())),
        false => Failure::Other(error.to_string()),
    })?;
    bound.pop().ok_or_else(|| Failure::Other(format!("{address}: no listener")))
}

/// Makes the call and prints both sides of it.
async fn one_call(address: SocketAddr, cloudbeds: &Sandbox) -> Result<(), Failure> {
    let request = Request::get(TARGET)
        .header(HOST, address.to_string())
        .header("X-Property-Id", "1001")
        .header(AUTHORIZATION, "Bearer unused")
        .body(())
        .map_err(|error| other("request", &error))?;
    let sent = lines(&request);
    let answer = call(address, request).await.map_err(Failure::Other)?;
    let seen = cloudbeds.requests();
    let arrived = seen.last().map(arrived).unwrap_or_default();
    let titles = (format!("The application → {address}"), format!("The proxy → {}", cloudbeds.base_url()));
    say(&beside((&titles.0, &sent), (&titles.1, &arrived)))?;
    print_answer(&answer)
}

fn lines(request: &Request<()>) -> Vec<String> {
    let target = request.uri().to_string();
    let mut lines = vec![format!("{} {target} HTTP/1.1", request.method())];
    lines.extend(request.headers().iter().map(|(name, value)| line(name.as_str(), value.as_bytes())));
    lines
}

fn arrived(seen: &Seen) -> Vec<String> {
    let mut lines = vec![format!("{} {} {:?}", seen.method, seen.target, seen.version)];
    // HTTP/2 carries the host beside the fields.
    if seen.header("host").is_empty() {
        lines.push(line("host", seen.authority.as_bytes()));
    }
    lines.extend(seen.headers.iter().map(|(name, value)| line(name, value)));
    lines
}

/// A field as people write it, with the key covered.
fn line(name: &str, value: &[u8]) -> String {
    let mut written = String::with_capacity(name.len());
    let mut start = true;
    for letter in name.chars() {
        written.push(if start { letter.to_ascii_uppercase() } else { letter });
        start = letter == '-';
    }
    format!("{written}: {}", mask::text(&String::from_utf8_lossy(value)))
}

/// Two columns, each a title over its lines.
fn beside(left: (&str, &[String]), right: (&str, &[String])) -> String {
    let columns = left.1.iter().map(String::as_str).chain([left.0]).map(|line| line.chars().count());
    let width = columns.max().unwrap_or_default();
    let row = |left: &str, right: &str| format!("  {}\n", format!("{left:<width$}   {right}").trim_end());
    let mut text = format!("\n{}{}", row(left.0, right.0), row(&"─".repeat(width), &"─".repeat(60)));
    for at in 0..left.1.len().max(right.1.len()) {
        let line = |lines: &[String]| lines.get(at).cloned().unwrap_or_default();
        text.push_str(&row(&line(left.1), &line(right.1)));
    }
    text
}

fn print_answer(answer: &Response<Bytes>) -> Result<(), Failure> {
    let body: serde_json::Value = serde_json::from_slice(answer.body()).map_err(|error| other("answer", &error))?;
    let mut text = format!("\n  Answer: {}\n", answer.status());
    for reservation in body["data"].as_array().into_iter().flatten() {
        let field = |name: &str| reservation[name].as_str().unwrap_or("?");
        text.push_str(&format!(
            "    reservation {}  {}  {} to {}  {}\n",
            field("reservationID"),
            field("guestName"),
            field("startDate"),
            field("endDate"),
            field("status")
        ));
    }
    say(&text)?;
    if answer.status().is_success() && body["success"] == true {
        return Ok(());
    }
    Err(Failure::Other(format!("the demo's call failed: {}", mask::text(&String::from_utf8_lossy(answer.body())))))
}

fn invite(proxy: SocketAddr, admin: SocketAddr, connect: SocketAddr, cloudbeds: &Sandbox) -> Result<(), Failure> {
    let mut text =
        "\n  Try it (the key never shows, not even where the stand-in repeats all it was sent):\n\n".to_owned();
    for (property, target) in [
        ("1001", "/api/v1.3/getHotelDetails"),
        ("1002", "/api/v1.3/getRooms"),
        ("1001", "/sandbox/echo"),
        ("1003", "/api/v1.3/getHotels"),
    ] {
        text.push_str(&format!("    curl -i -H 'X-Property-Id: {property}' http://{proxy}{target}\n"));
    }
    let url = cloudbeds.base_url();
    say(&format!(
        "{text}    curl http://{admin}/metrics\n\n  \
         Hotel {THIRD} is not connected yet. Connect it in a browser, which will warn of the stand-in's throw-away \
         certificate:\n\n    \
         http://{connect}/connect/{THIRD}\n\n  \
         and its calls work.\n\n  The stand-in Cloudbeds is {url}; Ctrl-C ends everything.\n\n"
    ))
}
