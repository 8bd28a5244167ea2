//! Key files with anything in them.
//!
//! In: a file's bytes. Out: nothing; a broken promise is a panic. Asserted: they are keys, or faults that quote none of it;
//! the app a row names is judged the same whoever reads; and what a writer changes is changed, while every other property
//! keeps exactly what it had, or the writer says that it cannot change such a file.
#![allow(clippy::expect_used, clippy::panic, reason = "a broken promise is to end the process")]

use super::change::{Change, Fields};
use super::{KeySet, KeyStore, Lives, edit, file};
use crate::fault::{FAULTS_MAX, Fault};
use crate::property::PropertyId;
use crate::secret::ApiKey;
use crate::wire::mask;
use crate::yaml;

/// Reads a key file, and changes it.
pub fn key_file(data: &[u8]) {
    let text = yaml::text("keys.yaml", data);
    let apps = ["main".to_owned(), "second".to_owned()];
    let read = |apps| file::parse("keys.yaml", text.as_deref().map_err(Clone::clone)?, apps, &Lives::default());
    let (strict, free) = (read(Some(&apps)), read(None));
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
