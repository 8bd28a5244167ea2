//! The names of hotels, as Cloudbeds last told them, so that lists can show them without asking.
//!
//! In: hotels that a call of our own found. Out: a small JSON file beside the keys, by property id. It is a
//! convenience: one that is missing, damaged or cannot be written costs names in a list, nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::leftover;
use crate::property::PropertyId;

/// The largest file read, in bytes.
const FILE_MAX: u64 = 64 * 1024 * 1024;

/// How files begin that are not finished.
const UNFINISHED: &str = ".names-";

/// Names by property.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Names(BTreeMap<u64, String>);

/// Where the names for the keys at `keys` are.
fn path_of(keys: &Path) -> PathBuf {
    if keys.is_dir() {
        return keys.join(".names.json");
    }
    let mut name = keys.as_os_str().to_owned();
    name.push(".names.json");
    name.into()
}

impl Names {
    /// What is known; nothing where the file is missing or no such file.
    #[must_use]
    pub fn read(keys: &Path) -> Self {
        let path = path_of(keys);
        if !fs::metadata(&path).is_ok_and(|file| file.is_file() && file.len() <= FILE_MAX) {
            return Self::default();
        }
        let text = fs::read(path).unwrap_or_default();
        Self(serde_json::from_slice(&text).unwrap_or_default())
    }

    /// The name of a hotel, where it is known.
    #[must_use]
    pub fn get(&self, property: PropertyId) -> Option<&str> {
        self.0.get(&property.get()).map(String::as_str)
    }

    /// Adds what was learnt, and forgets who has no key any more; the last writer wins.
    ///
    /// # Errors
    /// What the system says.
    pub fn learn(
        keys: &Path,
        found: impl IntoIterator<Item = (PropertyId, String)>,
        kept: impl Fn(PropertyId) -> bool,
    ) -> io::Result<()> {
        let mut names = Self::read(keys);
        let before = names.clone();
        names.0.extend(found.into_iter().filter(|(_, name)| !name.is_empty()).map(|(id, name)| (id.get(), name)));
        names.0.retain(|id, _| std::num::NonZeroU64::new(*id).is_some_and(|id| kept(id.into())));
        if names == before {
            return Ok(());
        }
        let path = path_of(keys);
        let directory = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
        leftover::clear(directory, UNFINISHED, leftover::NO_LONGER_WRITTEN);
        let mut file = tempfile::Builder::new().prefix(UNFINISHED).suffix(leftover::END).tempfile_in(directory)?;
        file.write_all(&serde_json::to_vec_pretty(&names.0)?)?;
        file.persist(path).map(drop).map_err(|error| error.error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_learnt_and_forgotten_and_a_damaged_file_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let keys = directory.path().join("keys.yaml");
        let id = |id: &str| id.parse::<PropertyId>().unwrap();
        assert_eq!(Names::read(&keys), Names::default());
        let found = [(id("1"), "One".to_owned()), (id("2"), "Two".to_owned()), (id("3"), String::new())];
        Names::learn(&keys, found, |_| true).unwrap();
        let names = Names::read(&keys);
        assert_eq!((names.get(id("1")), names.get(id("2")), names.get(id("3"))), (Some("One"), Some("Two"), None));
        Names::learn(&keys, [(id("1"), "Uno".to_owned())], |property| property == id("1")).unwrap();
        let names = Names::read(&keys);
        assert_eq!((names.get(id("1")), names.get(id("2"))), (Some("Uno"), None));
        fs::write(directory.path().join("keys.yaml.names.json"), "{").unwrap();
        assert_eq!(Names::read(&keys), Names::default());
    }
}
