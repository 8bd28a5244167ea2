//! `sandbox`: the stand-in Cloudbeds alone, for trying a configuration, a deployment or an application.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::{Failure, runtime, say, tcp_address};
use crate::listen;
use crate::property::PropertyId;
use crate::sandbox::{self, Hotel, random_key};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Where it listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8443", value_parser = tcp_address)]
    listen: SocketAddr,
    /// Where keys.yaml and sandbox-root.pem are written; those of an earlier run are replaced
    #[arg(long, value_name = "DIR", default_value = "sandbox")]
    dir: PathBuf,
    /// How many hotels; their properties count up from 1001
    #[arg(long, value_name = "NUMBER", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    hotels: u32,
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    runtime()?.block_on(serve(options))
}

async fn serve(options: &Options) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::Other(format!("sandbox: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut settings = sandbox::Settings::demo();
    let given = settings.hotels.len() as u64;
    settings.hotels.truncate(options.hotels as usize);
    for number in given..u64::from(options.hotels) {
        let Some(id) = NonZeroU64::new(1001 + number) else { continue };
        let property = PropertyId::from(id);
        settings.hotels.push(Hotel { property, name: format!("Demo Hotel {property}"), key: random_key() });
    }
    let hotels = settings.hotels.clone();
    let listener = listen::tcp(options.listen, 1).map_err(|error| Failure::Other(error.to_string()))?.pop();
    let listener = listener.ok_or_else(|| Failure::Other("sandbox: no listener".into()))?;
    let cloudbeds = sandbox::start_on(listener, settings).map_err(failed)?;
    std::fs::create_dir_all(&options.dir)
        .map_err(|error| Failure::Other(format!("{}: {error}", options.dir.display())))?;
    let files = sandbox::write_files(&options.dir, &hotels, cloudbeds.root_pem()).map_err(failed)?;
    say(&format!(
        "Stand-in Cloudbeds at {url}; a proxy for it:\n\n  \
         CLOUDBEDS_AUTH_PROXY__UPSTREAM__BASE_URL={url} \\\n  \
         CLOUDBEDS_AUTH_PROXY__UPSTREAM__CA_FILE={} \\\n  \
         CLOUDBEDS_AUTH_PROXY__KEYS__FILE={} \\\n  \
         cloudbeds-auth-proxy serve\n\nCtrl-C ends it.\n",
        quoted(&files.root),
        quoted(&files.keys),
        url = cloudbeds.base_url(),
    ))?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    cloudbeds.stop().await;
    Ok(())
}

/// A path as a shell takes it for one word.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+=:@".contains(&byte);
    if text.bytes().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}
