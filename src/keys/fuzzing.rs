//! Key files, and state files beside them, with anything in them.
//!
//! In: a file's bytes. Out: nothing; a broken promise is a panic. Asserted of key files: they are keys, or faults
//! that quote none of it; the app a row names is judged the same whoever reads; and what a writer changes is changed,
//! while every other property keeps exactly what it had, or the writer says that it cannot change such a file.
#![allow(clippy::expect_used, clippy::panic, reason = "a broken promise is to end the process")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::change::{Change, Fields};
use super::record::{DAY, Record};
use super::state::{self, State, StateError};
use super::{KeySet, KeyStore, Lives, Time, edit, file};
use crate::fault::{FAULTS_MAX, Fault};
use crate::property::PropertyId;
use crate::secret::{ApiKey, Fingerprint};
use crate::wire::mask;
use crate::yaml;

/// The present of those who read state files.
const NOW: Time = Time(1_800_000_000);

/// Reads a key file, and changes it.
pub fn key_file(data: &[u8]) {
    let text = yaml::text("keys.yaml", data);
    let apps = ["main".to_owned(), "second".to_owned()];
    let read = |apps| file::parse("keys.yaml", text.as_deref().map_err(Clone::clone)?, apps, &Lives::default());
    let (strict, free) = (read(Some(&apps)), read(None));
    if let Ok(text) = &text {
        check_veil(text, &free);
    }
    for faults in [&strict, &free].into_iter().filter_map(|read| read.as_ref().err()) {
        check_faults(faults, data);
    }
    if strict.is_ok() {
        assert!(free.is_ok(), "more is refused where no app is known");
    }
    if let (Ok(text), Ok(set)) = (text, free) {
        change(text, &set);
    }
}

/// A file means the same whether or not its parser sees the keys.
pub(super) fn check_veil(text: &str, veiled: &Result<KeySet, Vec<Fault>>) {
    match (veiled, &file::parse_under(yaml::Veil::off(text), "keys.yaml", None, &Lives::default())) {
        (Ok(veiled), Ok(seen)) => {
            assert_eq!((veiled.properties(), veiled.keys()), (seen.properties(), seen.keys()));
            for (property, key) in seen.iter() {
                assert_eq!(veiled.get(property), Some(key), "{property} has something else");
            }
        }
        (Err(veiled), Err(seen)) => {
            let places = |faults: &[Fault]| faults.iter().map(|fault| (fault.line, fault.column)).collect::<Vec<_>>();
            assert_eq!(places(veiled), places(seen));
        }
        (veiled, seen) => panic!("{veiled:?} is not {seen:?}"),
    }
}

/// Whose keys the keeper was told of since the last time; it stands in for the keeper, who would hear of them again.
pub(crate) fn told(store: &KeyStore) -> Vec<Option<PropertyId>> {
    let told = store.lives().inbox().take();
    told.iter().for_each(|told| told.key.life().listen());
    told.into_iter().map(|told| told.property).collect()
}

/// Some, not too many, and none of them quotes a key.
pub(crate) fn check_faults(faults: &[Fault], data: &[u8]) {
    assert!(!faults.is_empty() && faults.len() <= FAULTS_MAX + 1, "{faults:?}");
    let shown = faults.iter().map(|fault| format!("{fault} {fault:?}")).collect::<Vec<_>>().join("\n");
    assert_eq!(mask::value(shown.as_bytes()), None, "{shown}");
    // Nor anything else that may be a key, or most of one: its prefix may have been lost on the way.
    let text = String::from_utf8_lossy(data);
    for run in text.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|run| run.len() >= 20) {
        let digits = run.bytes().filter(u8::is_ascii_digit).count();
        assert!(digits == 0 || digits == run.len() || !shown.contains(run), "{run} is quoted: {shown}");
    }
}

/// One property gets a key, another one goes, several get one together.
fn change(text: &str, set: &KeySet) {
    let key = ApiKey::parse("cbat_FuzzingNew").expect("a good key");
    let id = |id: u64| -> PropertyId { id.to_string().parse().expect("a good id") };
    let first = set.iter().map(|(property, _)| property).min().unwrap_or(id(1001));
    let fields = Fields { app: Some("main".to_owned()), ..Fields::default() };
    for change in [
        Change::put(&[id(1001)], &key, &Fields::default()),
        Change::put(&[first], &key, &fields),
        Change::put(&[first, id(987_654_321)], &key, &Fields::default()),
        Change::remove(&[first]),
    ] {
        let Some(new) = edit::edit(text, Some(set), std::slice::from_ref(&change)) else { continue };
        let new = KeySet::parse("keys.yaml", &new).unwrap_or_else(|faults| panic!("{faults:?}"));
        let concerned = |property: PropertyId| change.properties.contains(&property);
        for (property, key) in set.iter().filter(|(property, _)| !concerned(*property)) {
            assert_eq!(new.get(property), Some(key), "{property} has something else now");
        }
        let put = change.to.is_some();
        for property in &change.properties {
            assert_eq!(new.get(*property).map(|found| *found.secret() == key), put.then_some(true), "{property}");
        }
        let others = new.iter().filter(|(property, _)| !concerned(*property) && !set.contains(*property)).count();
        assert_eq!(others, 0, "properties came from nowhere");
    }
}

/// What is known of the keys' lives, as a file with anything in it.
///
/// Asserted: it is read, and then a process that adds what it knows loses nothing of it, and a third one reads the
/// same; or it is of a newer version and stays as it is; or it is damaged, is kept aside byte for byte and begun
/// anew. Whoever reads records one by one sees the same. No words about it quote anything.
pub fn state(data: &[u8]) {
    thread_local! {
        // In memory where the system has such a place: each file is synced.
        static DIRECTORY: TempDir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("room");
    }
    DIRECTORY.with(|directory| state_in(directory.path(), data));
}

fn state_in(directory: &Path, data: &[u8]) {
    let path = directory.join("keys.state.json");
    let aside = path.with_extension(format!("damaged-{}", NOW.0));
    fs::write(&path, data).expect("room for a file");
    let own = ApiKey::parse("cbat_FuzzingOwn").expect("a good key").fingerprint();
    let ours = Record { first_seen: Time(7), ..Record::default() };
    // What a process has is not gone, whatever the file says.
    let join = || {
        state::update(&path, &[own], NOW, |name, other| {
            let record = other.unwrap_or_else(|| ours.clone());
            if name == own { Record { gone: None, ..record } } else { record }
        })
    };
    let silent = |error: &StateError| {
        let shown = format!("{error} {error:?}");
        assert!(shown.len() < 512 && mask::value(shown.as_bytes()).is_none(), "{shown}");
    };
    let (before, joined) = (state::read(&path), join());
    let mut expected = match before {
        Ok(state) => state,
        Err(StateError::Newer(_)) => {
            assert!(matches!(joined, Err(StateError::Newer(_))), "{joined:?}");
            assert_eq!(fs::read(&path).ok().as_deref(), Some(data), "it was changed");
            return joined.as_ref().err().into_iter().for_each(silent);
        }
        Err(error) => {
            silent(&error);
            assert!(matches!(error, StateError::Damaged(_)), "{error}");
            assert_eq!(fs::read(&aside).ok().as_deref(), Some(data), "it was not kept aside");
            fs::remove_file(&aside).expect("it is ours");
            State::default()
        }
    };
    joined.unwrap_or_else(|error| panic!("{error}"));
    assert!(!aside.exists(), "it was set aside");
    expected.keys.entry(own.to_string()).or_insert_with(|| ours.clone()).gone = None;
    expected.keys.retain(|_, record| record.gone.is_none_or(|gone| NOW.since(gone.at) < 90 * DAY));
    for _ in 0..2 {
        assert_eq!(state::read(&path).expect("it was just written"), expected);
        join().unwrap_or_else(|error| panic!("{error}"));
    }
    let mut each = BTreeMap::new();
    let seen = state::each(&path, |name, record| drop(each.insert(name.to_string(), record)));
    seen.unwrap_or_else(|error| panic!("{error}"));
    let named = expected.keys.into_iter().filter(|(name, _)| name.parse::<Fingerprint>().is_ok());
    assert_eq!(each, named.collect());
    let other = |name: &str| !name.starts_with("keys.state.");
    let left = fs::read_dir(directory).expect("it is ours").filter_map(Result::ok);
    let left: Vec<_> =
        left.map(|entry| entry.file_name().to_string_lossy().into_owned()).filter(|name| other(name)).collect();
    assert!(left.is_empty(), "{left:?} was left behind");
}
