//! `keys add`: one key, for one property or several.
//!
//! In: property ids; the key from a hidden prompt or standard input. Out: the key in the key file, after Cloudbeds has
//! said whose it is. Until then nothing is written, so the former key goes on serving.

use std::io::{IsTerminal as _, Read as _};
use std::net::SocketAddr;
use std::path::Path;

use clap::Args;
use zeroize::Zeroizing;

use super::desk::{Desk, Pace, advice, whose};
use super::server::{Followed, Server};
use super::{listed, property, rows};
use crate::cli::{Failure, block_on, say, tcp_address};
use crate::cloudbeds::{Hotel, opens};
use crate::fault::is_word;
use crate::keys::paste::{self, PASTE_MAX};
use crate::keys::write::{self, Fields};
use crate::origin::Origin;
use crate::property::PropertyId;
use crate::secret::ApiKey;

#[derive(Debug, Args)]
#[command(after_help = "The key is never an argument: other users of this host could read it there.\n\n\
    cloudbeds-auth-proxy keys add 1001                   asks for the key and does not show it\n\
    pass show hotel-1001 | cloudbeds-auth-proxy keys add 1001")]
pub(in crate::cli) struct Options {
    /// The property; several where one key opens them all
    #[arg(required = true, value_name = "PROPERTY", value_parser = property)]
    properties: Vec<PropertyId>,
    /// The partner app the key was made for, by its name in the configuration
    #[arg(long, value_name = "NAME")]
    app: Option<String>,
    /// The organisation the properties belong to
    #[arg(long, value_name = "ID")]
    organization: Option<String>,
    /// Another origin than upstream.base_url for calls with this key
    #[arg(long, value_name = "URL")]
    base_url: Option<Origin>,
    /// Do not ask Cloudbeds whose key it is
    #[arg(long)]
    no_check: bool,
    /// Where a running proxy's admin listener is; by default where the configuration says
    #[arg(long, value_name = "ADDRESS", value_parser = tcp_address)]
    admin: Option<SocketAddr>,
}

impl Options {
    pub(super) fn run(&self, path: Option<&Path>) -> Result<(), Failure> {
        let desk = Desk::open(path)?;
        if self.app.is_some() {
            desk.app(self.app.as_deref())?;
        }
        if self.organization.as_deref().is_some_and(|word| word.is_empty() || !is_word(word)) {
            let words = "--organization: expected an id of at most 64 characters, without spaces";
            return Err(Failure::Other(words.to_owned()));
        }
        let mut properties = self.properties.clone();
        properties.sort_unstable();
        properties.dedup();
        let fields =
            Fields { app: self.app.clone(), organization: self.organization.clone(), base_url: self.base_url.clone() };
        let before = desk.keys_or_none()?;
        // Before a person looks for the key, and before Cloudbeds is asked.
        for property in &properties {
            write::try_put(desk.file(), *property, &fields).map_err(|error| Failure::Other(error.to_string()))?;
        }
        let key = read(&properties)?;
        block_on(async {
            let origin = fields.base_url.clone().or_else(|| {
                let had = properties.iter().find_map(|property| before.as_ref()?.get(*property))?;
                had.base_url.as_deref().cloned()
            });
            let hotels =
                if self.no_check { None } else { Some(verified(&desk, &key, origin.as_ref(), &properties).await?) };
            let server = Server::look(&desk.config, self.admin).await;
            let written = write::put(desk.file(), &properties, &key, &fields);
            let written = written.map_err(|error| Failure::Other(error.to_string()))?;
            desk.learn(hotels.iter().flatten());
            let what = match (written.added, written.replaced) {
                (0, 0) => "was there already",
                (_, 0) => "is added",
                (0, _) => "replaces the former one",
                _ => "is added where there was none, and replaces the former ones",
            };
            let (ids, name) = (listed(&properties), key.digest().short());
            say(&format!("{}Property {ids}: the key {name} {what}.\n", rows::told(hotels.as_deref(), &properties)))?;
            if written == write::Written::default() {
                return Ok(());
            }
            match server.follow().await {
                Followed::Yes(sentence) => say(&format!("{sentence}\n")),
                Followed::No(sentence) => Err(Failure::Other(sentence)),
            }
        })
    }
}

/// Asks Cloudbeds whose the key is.
async fn verified(
    desk: &Desk,
    key: &ApiKey,
    origin: Option<&Origin>,
    properties: &[PropertyId],
) -> Result<Vec<Hotel>, Failure> {
    let calls = desk.calls()?;
    let hotels = whose(&calls, &mut Pace::of(&desk.config), key, desk.origin(origin)).await.map_err(|why| {
        Failure::Other(format!("nothing was written, and a former key stays: {why}; {}", advice(&why)))
    })?;
    opens(&hotels, properties).map_err(|why| {
        let hint = "compare the property's id with the hotel, or give the key to the property it belongs to";
        Failure::Other(format!("nothing was written: {why}; {hint}"))
    })?;
    let others: Vec<_> = hotels.iter().filter(|hotel| !properties.contains(&hotel.property)).collect();
    if !others.is_empty() {
        let shown: Vec<_> = others.iter().take(5).map(ToString::to_string).collect();
        let more = if others.len() > 5 { format!(" and {} more", others.len() - 5) } else { String::new() };
        say(&format!("The key also opens {}{more}; name them too where apps call for them.\n", shown.join(", ")))?;
    }
    Ok(hotels)
}

/// The key from a hidden prompt, or from standard input where that is no terminal.
fn read(properties: &[PropertyId]) -> Result<ApiKey, Failure> {
    let failed = |error: std::io::Error| Failure::Other(format!("cannot read the key: {error}"));
    let text = if std::io::stdin().is_terminal() {
        let prompt = format!("API key for property {} (it is not shown): ", listed(properties));
        Zeroizing::new(rpassword::prompt_password(prompt).map_err(failed)?)
    } else {
        // One allocation, so that no copy stays behind when it grows.
        let mut text = Zeroizing::new(String::with_capacity(PASTE_MAX + 1));
        std::io::stdin().lock().take(PASTE_MAX as u64 + 1).read_to_string(&mut text).map_err(failed)?;
        text
    };
    paste::key(&text).map_err(|error| Failure::Other(error.to_string()))
}
