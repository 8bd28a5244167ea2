//! A change to a key file: which properties get which key, and what is said with it.
//!
//! In: properties, a key, [`Fields`]. Out: a [`Change`], and whether a text means the former set with some changes and
//! nothing else, which is how every edit is checked.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::{Key, KeySet};
use crate::origin::Origin;
use crate::property::PropertyId;
use crate::secret::ApiKey;

/// What a row says besides the key. Nothing given leaves what was there.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Fields {
    /// The partner app, by its name in the configuration.
    pub app: Option<String>,
    /// The organisation.
    pub organization: Option<String>,
    /// Another origin for this key.
    pub base_url: Option<Origin>,
}

impl Fields {
    /// Whether a key says all of this already.
    pub(super) fn are_said_by(&self, key: &Key) -> bool {
        self.app.as_deref().is_none_or(|app| key.app.as_deref() == Some(app))
            && self.organization.as_deref().is_none_or(|one| key.organization.as_deref() == Some(one))
            && self.base_url.as_ref().is_none_or(|origin| key.base_url.as_deref() == Some(origin))
    }
}

/// One change to the keys of some properties.
#[derive(Clone, Debug)]
pub struct Change {
    /// Whose key changes. Several share one.
    pub(super) properties: Vec<PropertyId>,
    /// The new key and what is said with it; nothing takes the properties out.
    pub(super) to: Option<(ApiKey, Fields)>,
}

impl Change {
    /// Gives these properties this key, whichever they had before.
    #[must_use]
    pub fn put(properties: &[PropertyId], key: &ApiKey, fields: &Fields) -> Self {
        Self { properties: properties.to_vec(), to: Some((key.clone(), fields.clone())) }
    }

    /// Takes these properties out.
    #[must_use]
    pub fn remove(properties: &[PropertyId]) -> Self {
        Self { properties: properties.to_vec(), to: None }
    }
}

/// Whether a text holds `old` with `changes`, and nothing else.
pub(super) fn means(text: &str, old: Option<&KeySet>, changes: &[Change]) -> bool {
    let Ok(new) = KeySet::parse("", text) else { return false };
    let changed: HashMap<PropertyId, &Change> =
        changes.iter().flat_map(|change| change.properties.iter().map(move |property| (*property, change))).collect();
    let kept = old.into_iter().flat_map(KeySet::iter).filter(|(property, _)| !changed.contains_key(property));
    let (mut count, mut right) = (0, true);
    for (property, key) in kept {
        count += 1;
        right &= new.get(property) == Some(key);
    }
    for (property, change) in &changed {
        let Some((secret, fields)) = &change.to else { continue };
        count += 1;
        let wanted = Said::of(change, fields, old);
        right &= new.get(*property).is_some_and(|key| key.secret == *secret && Said::by(key) == wanted);
    }
    right && count == new.properties()
}

/// What a row says besides the key, in the end.
#[derive(Eq, PartialEq)]
pub(super) struct Said {
    pub(super) fields: [(&'static str, Option<String>); 3],
}

impl Said {
    pub(super) fn by(key: &Key) -> Self {
        let text = |text: Option<&str>| text.map(str::to_owned);
        let base_url = key.base_url.as_ref().map(ToString::to_string);
        Self {
            fields: [
                ("app", text(key.app.as_deref())),
                ("organization", text(key.organization.as_deref())),
                ("base_url", base_url),
            ],
        }
    }

    /// What is asked for, and where nothing is, what the first of the properties had.
    pub(super) fn of(change: &Change, fields: &Fields, old: Option<&KeySet>) -> Self {
        let had = change.properties.iter().find_map(|property| old?.get(*property)).map(|key| Self::by(key));
        let mut said = had.unwrap_or(Self { fields: [("app", None), ("organization", None), ("base_url", None)] });
        let base_url = fields.base_url.as_ref().map(ToString::to_string);
        for ((_, value), asked) in
            said.fields.iter_mut().zip([fields.app.clone(), fields.organization.clone(), base_url])
        {
            if asked.is_some() {
                *value = asked;
            }
        }
        said
    }

    /// `app: main, organization: acme`
    pub(super) fn written(&self) -> String {
        let given = self.fields.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
        given.fold(String::new(), |mut text, (name, value)| {
            let _ = write!(text, ", {name}: {}", quoted(value));
            text
        })
    }
}

/// A word as YAML: in quotes where something else could be read into it.
pub(super) fn quoted(word: &str) -> String {
    let plain = word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte));
    let other = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&word);
    if plain && !other && word.starts_with(|first: char| first.is_ascii_lowercase()) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "''"))
}
