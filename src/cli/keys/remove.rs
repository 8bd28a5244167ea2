//! `keys remove` and `keys revoke`: out of the file, and out of use for good.
//!
//! In: property ids. Out: the file without them. A revoked key is also put on the list of refused ones, first of all, so
//! that it stays out whatever file or backup it turns up in, and a running proxy is waited for.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;

use clap::Args;

use super::desk::Desk;
use super::server::{Followed, Server};
use super::{listed, property};
use crate::cli::{Failure, block_on, say, tcp_address};
use crate::config::{App, Delivery};
use crate::keys::{self, KeySet, write};
use crate::property::PropertyId;

#[derive(Debug, Args)]
pub(in crate::cli) struct Remove {
    /// The properties
    #[arg(required = true, value_name = "PROPERTY", value_parser = property)]
    properties: Vec<PropertyId>,
    /// Where a running proxy's admin listener is; by default where the configuration says
    #[arg(long, value_name = "ADDRESS", value_parser = tcp_address)]
    admin: Option<SocketAddr>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Whoever has the key can still use it at Cloudbeds until it is disabled there; what to do about that \
    is printed. The list of refused keys holds their SHA-256 and is kept beside the key file."
)]
pub(in crate::cli) struct Revoke {
    /// The properties; others that share their keys lose them too
    #[arg(required = true, value_name = "PROPERTY", value_parser = property)]
    properties: Vec<PropertyId>,
    /// Do not ask whether it is meant
    #[arg(long)]
    yes: bool,
    /// Where a running proxy's admin listener is; by default where the configuration says
    #[arg(long, value_name = "ADDRESS", value_parser = tcp_address)]
    admin: Option<SocketAddr>,
}

impl Remove {
    pub(super) fn run(&self, path: Option<&Path>) -> Result<(), Failure> {
        let desk = Desk::open(path)?;
        present(&desk, &*desk.keys()?, &self.properties)?;
        block_on(async {
            let server = Server::look(&desk.config, self.admin).await;
            write::remove(desk.file(), &self.properties).map_err(|error| Failure::Other(error.to_string()))?;
            let file = desk.file().display();
            say(&format!("{file}: property {} is no longer in it.\n", listed(&self.properties)))?;
            if desk.file().is_dir() && desk.keys().is_err() {
                return say(
                    "It was the last one. A directory without keys is taken for an accident: a proxy that runs keeps the \
                     key until it is restarted. To have it out at once, use `keys revoke`.\n",
                );
            }
            match server.follow().await {
                Followed::Yes(sentence) => say(&format!("{sentence}\n")),
                Followed::No(sentence) => Err(Failure::Other(sentence)),
            }
        })
    }
}

impl Revoke {
    pub(super) fn run(&self, path: Option<&Path>) -> Result<(), Failure> {
        let desk = Desk::open(path)?;
        let set = desk.keys()?;
        present(&desk, &set, &self.properties)?;
        let app = self.properties.iter().find_map(|property| set.get(*property)?.app.as_deref());
        let app = desk.app(app)?;
        self.confirmed()?;
        block_on(async {
            let server = Server::look(&desk.config, self.admin).await;
            let revoked = write::revoke(desk.file(), &self.properties, "keys revoke");
            let revoked = revoked.map_err(|error| Failure::Other(error.to_string()))?;
            let names: Vec<_> = revoked.keys.iter().map(|key| key.short()).collect();
            say(&format!(
                "{}: property {} is no longer in it; the key {} is refused from now on, in whatever file it turns up.\n",
                desk.file().display(),
                listed(&revoked.properties),
                names.join(", ")
            ))?;
            let followed = server.follow().await;
            if let Followed::Yes(sentence) = &followed {
                say(&format!("{sentence}\n"))?;
            }
            say(&at_cloudbeds(app, &revoked.properties))?;
            match followed {
                Followed::Yes(_) => Ok(()),
                Followed::No(sentence) => Err(Failure::Other(sentence)),
            }
        })
    }

    /// A key that is revoked cannot be brought back, so a person is asked, and a script must say it.
    fn confirmed(&self) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        if !std::io::stdin().is_terminal() {
            return Err(Failure::Other("nothing was done: a revoked key cannot be brought back; add --yes".to_owned()));
        }
        let ids = listed(&self.properties);
        let mut out = std::io::stderr().lock();
        let _ = write!(out, "The key of property {ids} can never be used here again. Type yes to go on: ");
        let _ = out.flush();
        let mut line = String::new();
        let read = std::io::stdin().lock().read_line(&mut line);
        if read.is_ok() && line.trim().eq_ignore_ascii_case("yes") {
            return Ok(());
        }
        Err(Failure::Other("nothing was done".to_owned()))
    }
}

fn present(desk: &Desk, set: &KeySet, properties: &[PropertyId]) -> Result<(), Failure> {
    // Rows with revoked keys are in the file and in no set.
    let revoked = keys::revoked(desk.file()).unwrap_or_default();
    let there = |property: &PropertyId| set.contains(*property) || revoked.contains(property);
    let missing: Vec<_> = properties.iter().copied().filter(|property| !there(property)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let file = desk.file().display();
    Err(Failure::Other(format!("{file}: no key for property {}; nothing was done, see `keys list`", listed(&missing))))
}

/// What is left to do where the key was made (API Keys Authentication Guide, "Can I reset an API key?"; API security
/// standards, which ask for a report within 24 hours).
fn at_cloudbeds(app: Option<&App>, properties: &[PropertyId]) -> String {
    let mut text = "At Cloudbeds the key works until it is disabled there:\n".to_owned();
    match app.map(|app| app.delivery) {
        Some(Delivery::Email) => text.push_str(
            "  - in the partner account, App Details, API Keys: regenerate the key of each property, which ends the old one;\n  \
             - add the new one with `cloudbeds-auth-proxy keys add PROPERTY`;\n",
        ),
        _ => text.push_str(
            "  - the hotel disconnects the app in Cloudbeds' Marketplace and connects it again, which ends the old key;\n",
        ),
    }
    for property in properties {
        match app {
            Some(app) => text.push_str(&format!("    {property}: {}\n", app.connect_link(*property))),
            None => text.push_str(&format!(
                "    {property}: https://hotels.cloudbeds.com/connect/{property}#/app/CLIENT_ID (describe the app below `apps:`)\n"
            )),
        }
    }
    text.push_str("  - if others may have had the key, report it to Cloudbeds within 24 hours.\n");
    text
}
