//! A key file's text.
//!
//! In: YAML in three forms, which may stand in one file. Out: a [`KeySet`], or every bad row with line and column.
//! ```yaml
//! "1001": cbat_…                                            # a property and its key
//! "1002": { key: cbat_…, app: main, organization: org_1 }   # the same with more to say
//! keys:                                                     # one key for several properties
//!   - { key: cbat_…, properties: [1003, 1004], base_url: https://api.cloudbeds.com }
//!   - { key: cbat_…, properties: auto, organization: org_2, add_property_id: true }  # those Cloudbeds says it opens
//! ```
//! A file without a row is refused, since it may have been emptied by accident; `{}` says that there are no keys.
//! Rows are read one by one, so 100,000 of them take about a second. Faults name property ids at most: in a file with
//! its columns swapped, a name is a key. Our own copies of keys are wiped; the YAML parser, which wipes nothing, sees none
//! of the vendor's form where the file has no escapes ([`Veil`]).

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;

use serde::Deserializer;
use serde::de::{DeserializeSeed, MapAccess, Visitor};

use super::build::{Builder, Said};
use super::rows::{Place, Rows};
use super::{KeySet, Lives};
use crate::fault::{Fault, is_word, shown};
use crate::property::{NotAPropertyId, PropertyId};
use crate::secret::{ApiKey, NotAnApiKey};
use crate::yaml::{self, Budget, Grow, Text, Tree, Veil};

/// The set of a text. With `apps`, a row that names another one is a fault. Keys take up the lives they have in `lives`.
pub(super) fn parse(name: &str, text: &str, apps: Option<&[String]>, lives: &Lives) -> Result<KeySet, Vec<Fault>> {
    parse_under(Veil::over(text), name, apps, lives)
}

/// The same of a text with its veil.
pub(super) fn parse_under(
    veil: Veil<'_>,
    name: &str,
    apps: Option<&[String]>,
    lives: &Lives,
) -> Result<KeySet, Vec<Fault>> {
    let mut rows = Rows { set: Builder::new(), faults: Vec::new(), more: 0, apps };
    yaml::stream(name, veil.text(), File(&mut rows, &Budget::of(veil.text()), &veil))?;
    rows.finish(name, veil, lives)
}

/// The file as a whole: properties with their rows, and the list `keys:`.
struct File<'a, 'k>(&'a mut Rows<'k>, &'a Budget, &'a Veil<'a>);

impl<'de> DeserializeSeed<'de> for File<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for File<'_, '_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a mapping")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let (File(rows, budget, veil), mut number, mut listed) = (self, 0, false);
        while let Some(name) = entries.next_key_seed(Text)? {
            let place = Place::default().below(number);
            number += 1;
            if name == "keys" {
                if listed {
                    rows.fault_on_name(place, "keys", "stands here a second time", "join the two lists");
                }
                listed = true;
                let mut each = |item, row| rows.listed(place.below(item), &format!("keys[{item}]"), row);
                if !matches!(entries.next_value_seed(Grow { each: Some(&mut each), budget, veil })?, Tree::List(_)) {
                    let hint = "write `- { key: cbat_…, properties: [1001, 1002] }` lines below it";
                    rows.fault(place, "keys", "expected a list", hint);
                }
                continue;
            }
            let row = entries.next_value_seed(Grow { each: None, budget, veil })?;
            match name.parse() {
                Ok(property) => rows.plain(place, property, row),
                Err(NotAPropertyId) => {
                    // Not named: it may be a key.
                    let hint = "write a line such as \"1001\": cbat_…, or a list below `keys:`";
                    rows.fault_on_name(place, "", NotAPropertyId, hint);
                }
            }
        }
        Ok(())
    }
}

const PLAIN_FIELDS: [&str; 5] = ["key", "app", "organization", "base_url", "add_property_id"];
const LISTED_FIELDS: [&str; 6] = ["key", "properties", "app", "organization", "base_url", "add_property_id"];

/// What a row in its long form says.
#[derive(Default)]
struct Long {
    secret: Option<ApiKey>,
    organization: Option<Box<str>>,
    app: Option<Arc<str>>,
    base_url: Option<Arc<crate::origin::Origin>>,
    add_property_id: bool,
    auto: bool,
    properties: Vec<(PropertyId, Place)>,
}

impl Rows<'_> {
    /// A row that starts with its property.
    fn plain(&mut self, place: Place, property: PropertyId, row: Tree) {
        let about = property.to_string();
        let long = match row {
            Tree::Text(text) => Some(Long { secret: self.secret(place, &about, &text), ..Long::default() }),
            Tree::Map(fields) => Some(self.fields(place, &about, &fields, &PLAIN_FIELDS)),
            _ => {
                self.fault(place, &about, NotAnApiKey, "write the key, or a mapping with `key:`");
                None
            }
        };
        if let Some(mut long) = long {
            long.properties.push((property, place));
            self.add(long);
        }
    }

    /// A row of the list `keys:`.
    fn listed(&mut self, place: Place, about: &str, row: Tree) {
        let Tree::Map(fields) = row else {
            return self.fault(place, about, "expected a mapping", "write `key:` and `properties:`");
        };
        let long = self.fields(place, about, &fields, &LISTED_FIELDS);
        self.add(long);
    }

    fn add(&mut self, long: Long) {
        let Long { secret: Some(secret), organization, app, base_url, add_property_id, auto, properties } = long else {
            return;
        };
        let key = self.set.key(Said { secret, organization, app, base_url, add_property_id, auto });
        for (property, place) in properties {
            self.row(property, key, place);
        }
    }

    fn fields(&mut self, row: Place, about: &str, fields: &[(impl AsRef<str>, Tree)], known: &[&str]) -> Long {
        let mut long = Long::default();
        for (number, (name, value)) in fields.iter().enumerate() {
            let (name, place) = (name.as_ref(), row.below(number));
            let about = format!("{about}.{}", shown(name));
            if fields.iter().take(number).any(|(earlier, _)| earlier.as_ref() == name) {
                self.fault_on_name(place, &about, "stands here a second time", "keep one of them");
                continue;
            }
            match name {
                "properties" if known.contains(&name) && value.as_text() == "auto" => long.auto = true,
                "properties" if known.contains(&name) => long.properties = self.properties(place, &about, value),
                "key" => long.secret = self.secret(place, &about, value.as_text()),
                "app" => {
                    let app = self.word(place, &about, value);
                    self.known_app(place, &about, app.as_deref());
                    long.app = app.map(|app| self.set.app(&app));
                }
                "organization" => long.organization = self.word(place, &about, value),
                "add_property_id" => match value {
                    Tree::Flag(on) => long.add_property_id = *on,
                    _ => self.fault(place, &about, "expected true or false", ""),
                },
                "base_url" => match self.set.origin(value.as_text()) {
                    Ok(origin) => long.base_url = Some(origin),
                    Err(error) => self.fault(place, &about, error, ""),
                },
                _ => self.fault_on_name(place, &about, format!("unknown field; known here: {}", known.join(", ")), ""),
            }
        }
        for wanted in ["key", "properties"] {
            if known.contains(&wanted) && !fields.iter().any(|(name, _)| name.as_ref() == wanted) {
                self.fault(row, about, format!("`{wanted}` is missing"), "add it");
            }
        }
        long
    }

    fn secret(&mut self, place: Place, about: &str, text: &str) -> Option<ApiKey> {
        ApiKey::parse(text).map_err(|error| self.fault(place, about, error, "copy the key again")).ok()
    }

    /// A name that will be shown in logs and metrics, so it must not be a key that slipped into the wrong field.
    fn word(&mut self, place: Place, about: &str, value: &Tree) -> Option<Box<str>> {
        match value {
            Tree::Text(text) if !text.is_empty() && is_word(text) => return Some(text.as_str().into()),
            Tree::Number(number) => return Some(number.to_string().into()),
            _ => self.fault(place, about, "expected a name of at most 64 characters, without spaces", ""),
        }
        None
    }

    fn known_app(&mut self, place: Place, about: &str, app: Option<&str>) {
        if let (Some(apps), Some(app)) = (self.apps, app)
            && !apps.iter().any(|known| known == app)
        {
            self.fault(place, about, "no such app in the configuration", "add it there below `apps:`, or name another");
        }
    }

    fn properties(&mut self, place: Place, about: &str, value: &Tree) -> Vec<(PropertyId, Place)> {
        let mut found = Vec::new();
        let items = if let Tree::List(items) = value { items.as_slice() } else { &[] };
        if items.is_empty() {
            self.fault(place, about, "expected a list of property ids", "write [1001, 1002], or auto");
        }
        for (number, item) in items.iter().enumerate() {
            let property = match item {
                Tree::Number(number) => NonZeroU64::new(*number).map(PropertyId::from).ok_or(NotAPropertyId),
                other => other.as_text().parse(),
            };
            let place = place.below(number);
            match property {
                Ok(property) => found.push((property, place)),
                Err(error) => self.fault(place, about, error, ""),
            }
        }
        found
    }
}
