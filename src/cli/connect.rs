//! `connect-link`: what to send to a hotel that is to connect.
//!
//! In: a property, an app. Out: a link, and where wanted a drawing of it for a telephone's camera. With onboarding on,
//! it is the one that starts here, since a hotel that starts at Cloudbeds comes back without anything to know it by.

use std::path::Path;

use clap::Args;
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

use super::keys::{Desk, property};
use super::{Failure, say};
use crate::config::{Config, Delivery};
use crate::property::PropertyId;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The property that is to connect
    #[arg(value_name = "PROPERTY", value_parser = property)]
    property: PropertyId,
    /// The partner app, by its name in the configuration; by default the first
    #[arg(long, value_name = "NAME")]
    app: Option<String>,
    /// Cloudbeds' own link, also where onboarding is on
    #[arg(long)]
    vendor: bool,
    /// Draw it as a QR code as well
    #[arg(long)]
    qr: bool,
}

impl Options {
    pub(super) fn run(&self, path: Option<&Path>) -> Result<(), Failure> {
        let desk = Desk::open(path)?;
        let link = link(&desk, self.property, self.app.as_deref(), self.vendor)?;
        let mut text = format!("{link}\n");
        if self.qr {
            text.push_str(&drawn(&link)?);
        }
        say(&text)
    }
}

fn link(desk: &Desk, property: PropertyId, app: Option<&str>, vendor: bool) -> Result<String, Failure> {
    let Config { apps, onboarding, .. } = &desk.config;
    let app = desk.app(app)?.ok_or_else(|| {
        Failure::Other("the configuration describes no apps; add yours below `apps:`, with its client_id".to_owned())
    })?;
    match onboarding {
        Some(onboarding) if !vendor && app.delivery == Delivery::Automatic => {
            let base = onboarding.public_url.as_str().trim_end_matches('/');
            let first = apps.first().is_some_and(|first| first.name == app.name);
            let which = if first { String::new() } else { format!("?app={}", app.name) };
            Ok(format!("{base}/connect/{property}{which}"))
        }
        _ => Ok(app.connect_link(property)),
    }
}

/// Dark on light whatever the terminal's colours are: a camera needs that, so both are set.
fn drawn(link: &str) -> Result<String, Failure> {
    let code = QrCode::with_error_correction_level(link, EcLevel::L)
        .map_err(|error| Failure::Other(format!("the link cannot be drawn: {error}")))?;
    let drawing = code.render::<Dense1x2>().dark_color(Dense1x2::Dark).light_color(Dense1x2::Light).build();
    Ok(format!("\n{drawing}\n"))
}
