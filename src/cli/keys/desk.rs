//! What every command about keys works with: the configuration, the keys that are there, the way to Cloudbeds.
//!
//! In: a configuration. Out: answers to "which app", "what keys", "whose key is this", in the words of the commands.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::app;
use crate::cli::{Failure, load};
use crate::cloudbeds::{Cloudbeds, Hotel, Unanswered};
use crate::config::{App, Config};
use crate::keys::names::Names;
use crate::keys::{Key, KeySet, KeyStore, write};
use crate::origin::Origin;
use crate::property::PropertyId;
use crate::secret::ApiKey;

/// A configuration and what follows from it.
pub(in crate::cli) struct Desk {
    pub(in crate::cli) config: Config,
}

impl Desk {
    pub(in crate::cli) fn open(path: Option<&Path>) -> Result<Self, Failure> {
        Ok(Self { config: load(path)? })
    }

    pub(in crate::cli) fn file(&self) -> &Path {
        &self.config.keys.file
    }

    /// The keys that are there, by the rules of `serve`.
    pub(in crate::cli) fn keys(&self) -> Result<Arc<KeySet>, Failure> {
        let apps = self.config.apps.iter().map(|app| app.name.clone()).collect();
        KeyStore::open_for(self.file(), Some(apps)).map(|store| store.current()).map_err(Failure::Configuration)
    }

    /// The same where it is no fault that there are none yet.
    pub(super) fn keys_or_none(&self) -> Result<Option<Arc<KeySet>>, Failure> {
        if write::is_empty(self.file()) { Ok(None) } else { self.keys().map(Some) }
    }

    /// An app by the name that was typed; the first one where none was, if there is any.
    pub(in crate::cli) fn app(&self, name: Option<&str>) -> Result<Option<&App>, Failure> {
        let Some(name) = name else { return Ok(self.config.apps.first()) };
        let known = || self.config.apps.iter().map(|app| app.name.as_str()).collect::<Vec<_>>().join(", ");
        match self.config.apps.iter().find(|app| app.name == name) {
            Some(app) => Ok(Some(app)),
            None if self.config.apps.is_empty() => {
                Err(Failure::Other("the configuration describes no apps; add yours below `apps:`".to_owned()))
            }
            None => Err(Failure::Other(format!("no such app in the configuration; there are: {}", known()))),
        }
    }

    pub(in crate::cli) fn calls(&self) -> Result<Cloudbeds, Failure> {
        app::dialer(&self.config)
            .map(|(dialer, _)| Cloudbeds::new(dialer))
            .map_err(|error| Failure::Other(error.to_string()))
    }

    /// Where calls with a key go.
    pub(in crate::cli) fn origin<'a>(&'a self, own: Option<&'a Origin>) -> &'a Origin {
        own.unwrap_or(&self.config.upstream.base_url)
    }

    /// Keeps the names of hotels that were found, for those that have a key here.
    pub(in crate::cli) fn learn<'a>(&self, hotels: impl IntoIterator<Item = &'a Hotel>) {
        let Ok(set) = self.keys() else { return };
        let found = hotels.into_iter().map(|hotel| (hotel.property, hotel.name.clone()));
        // A list without names is no reason for a command to fail.
        let _ = Names::learn(self.file(), found, |property| set.contains(property));
    }
}

/// What to do when Cloudbeds gave no good answer about a key.
pub(super) fn advice(why: &Unanswered) -> &'static str {
    match why {
        Unanswered::Rejected => "copy it again; if it was reset or the app disconnected since, a new one is needed",
        Unanswered::UserLeft => "a present user of the hotel must connect again",
        Unanswered::PropertyLeft => "ask the hotel, or leave its row out",
        Unanswered::Refused(_) => "the key may lack the scope read:hotel; --no-check takes it as it is",
        Unanswered::Unreachable(_) | Unanswered::Broken(_) | Unanswered::NoTurn(_) => {
            "try again, or take it unverified with --no-check"
        }
    }
}

/// Spreads calls of our own: Cloudbeds counts requests per app, and a proxy that runs needs most of them.
pub(super) struct Pace {
    next: Instant,
    gap: Duration,
}

impl Pace {
    /// At most half of what the smallest app of `config` may have, and five a second in any case.
    pub(super) fn of(config: &Config) -> Self {
        let default = config.limits.as_ref().map_or(10, |limits| limits.requests_per_second);
        let least = config.apps.iter().map(|app| app.requests_per_second).min().unwrap_or(default);
        let gap = Duration::from_millis((2000 / least.max(1)).max(200));
        Self { next: Instant::now(), gap }
    }

    pub(super) async fn wait(&mut self) {
        sleep_until(self.next).await;
        self.next = Instant::now() + self.gap;
    }
}

/// The different keys of a set, each with its properties in order; those of the smallest property first.
pub(in crate::cli) fn by_key(set: &KeySet, wanted: impl Fn(PropertyId) -> bool) -> Vec<(Arc<Key>, Vec<PropertyId>)> {
    let mut rows: Vec<_> = set.iter().filter(|(property, _)| wanted(*property)).collect();
    rows.sort_unstable_by_key(|(property, _)| *property);
    let mut at = std::collections::HashMap::new();
    let mut found: Vec<(Arc<Key>, Vec<PropertyId>)> = Vec::new();
    for (property, key) in rows {
        let place = *at.entry(Arc::as_ptr(key)).or_insert(found.len());
        match found.get_mut(place) {
            Some((_, properties)) => properties.push(property),
            None => found.push((Arc::clone(key), vec![property])),
        }
    }
    found
}

/// Asks whose a key is, at the pace.
pub(super) async fn whose(
    calls: &Cloudbeds,
    pace: &mut Pace,
    key: &ApiKey,
    origin: &Origin,
) -> Result<Vec<Hotel>, Unanswered> {
    pace.wait().await;
    calls.whose(key, origin).await
}
