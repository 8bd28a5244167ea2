//! The one place that writes keys.
//!
//! In: where the keys are, and what changes. Out: the file (or the files of a directory) with exactly that changed, all
//! of it on disk when this returns, or a [`WriteError`] and, but for [`WriteError::Unsynced`], nothing changed. Every
//! writer, the command line as well as the server, holds the lock beside the keys meanwhile. A file is written to a
//! temporary one in the same directory, synced and renamed, so a reader sees the old or the new one and a crash leaves
//! either. Owner, group and mode stay. Everything blocks; in the server, call it where blocking is allowed.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

mod place;

use self::place::{Form, Now, Place, parsed};
pub use super::change::{Change, Fields};
use super::edit::edit;
use super::{KeySet, lock, refused};
use crate::fault::Fault;
use crate::property::PropertyId;
use crate::secret::{ApiKey, KeyDigest};
use crate::yaml;

/// How often a file that somebody without the lock keeps changing is read again.
const ATTEMPTS: u32 = 5;

/// What a writing came to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Written {
    /// Properties that had no key before.
    pub added: usize,
    /// Properties that had another key, or the same with something else said.
    pub replaced: usize,
    /// Properties that were taken out.
    pub removed: usize,
}

/// What a revocation came to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Revoked {
    /// The keys that are refused from now on.
    pub keys: Vec<KeyDigest>,
    /// Every property that had one of them.
    pub properties: Vec<PropertyId>,
}

/// Why nothing was written, or not for certain. `Display` says what to do; no variant holds a key.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Somebody else is writing.
    #[error("{}: another process has been writing keys for {:?}; try again, or end it", .0.display(), lock::PATIENCE)]
    Locked(PathBuf),
    /// What is there cannot be read, so it cannot be added to.
    #[error("{}", lines(.0))]
    Bad(Vec<Fault>),
    /// Kubernetes mounts it and replaces it as a whole.
    #[error(
        "{}: is a mounted Secret or ConfigMap, which cannot be written from inside; change the Secret itself (kubectl), \
         or keep the keys on a volume",
        .0.display()
    )]
    Mounted(PathBuf),
    /// The key was revoked.
    #[error(
        "the key for property {property} was revoked and is refused for good; get a new one from Cloudbeds \
         (the list is {})",
        list.display()
    )]
    Refused {
        /// For which property it was meant.
        property: PropertyId,
        /// The list it stands on.
        list: PathBuf,
    },
    /// The file is YAML of a kind that is read but not edited.
    #[error(
        "{}: is written in a way that only a person can change safely (anchors, aliases, several rows on one line); \
         write each row as `\"1001\": cbat_…` on a line of its own",
        .0.display()
    )]
    Form(PathBuf),
    /// A directory has room for keys only.
    #[error(
        "{}: is a directory with one key per file, which has no room for an app, organisation or base_url; \
         use a key file",
        .0.display()
    )]
    Fields(PathBuf),
    /// Somebody without the lock keeps changing it.
    #[error("{}: keeps changing while it is written; end whatever else writes it, and try again", .0.display())]
    Changing(PathBuf),
    /// The owner of the file cannot be kept, and whoever reads it could not read the new one.
    #[error("{}: belongs to another user or group, which cannot be kept; run this as its owner or as root", .0.display())]
    Owner(PathBuf),
    /// The system refuses.
    #[error("{}: cannot {what}: {source}{}", path.display(), hint(source))]
    Io {
        /// What was tried, such as `write a file in it`.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The one case in which something was written: whether it would outlive a crash is not known.
    #[error("{}: the change is made, but may be lost if the machine stops now: {source}", path.display())]
    Unsynced {
        /// Where.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

fn lines(faults: &[Fault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "; nothing was changed: make room and try again",
        ErrorKind::FileTooLarge => "; nothing was changed: a file may not be as large as that here (ulimit -f)",
        ErrorKind::PermissionDenied => "; run this as the user the keys belong to",
        ErrorKind::ReadOnlyFilesystem => "; keep the keys on a volume that can be written",
        ErrorKind::NotFound => "; make the directory first",
        _ => "",
    }
}

/// Gives `properties` the key, whichever they had. Several share one row of the file where it has that form.
///
/// # Errors
/// Any [`WriteError`]; nothing is changed then, but for [`WriteError::Unsynced`].
pub fn put(path: &Path, properties: &[PropertyId], key: &ApiKey, fields: &Fields) -> Result<Written, WriteError> {
    apply(path, &[Change::put(properties, key, fields)])
}

/// Takes `properties` out; those that are not there are no error.
///
/// # Errors
/// Any [`WriteError`]; nothing is changed then, but for [`WriteError::Unsynced`].
pub fn remove(path: &Path, properties: &[PropertyId]) -> Result<Written, WriteError> {
    apply(path, &[Change::remove(properties)])
}

/// All of `changes` in one step, or none. No property may be in two of them.
///
/// # Errors
/// Any [`WriteError`]; nothing is changed then, but for [`WriteError::Unsynced`].
pub fn apply(path: &Path, changes: &[Change]) -> Result<Written, WriteError> {
    let place = Place::of(path)?;
    let _lock = place.lock()?;
    place.apply(changes)
}

/// Whether a key could be written for `property` now: everything is done but the last step. For whoever is about to get
/// a key that cannot be had twice.
///
/// # Errors
/// Any [`WriteError`], as [`put`] would give it.
pub fn try_put(path: &Path, property: PropertyId, fields: &Fields) -> Result<(), WriteError> {
    let Ok(key) = ApiKey::parse("cbat_notAKeyOnlyATrial") else { return Ok(()) };
    let place = Place::of(path)?;
    let _lock = place.lock()?;
    let changes = [Change::put(&[property], &key, fields)];
    match &place.form {
        Form::File => {
            let now = place.read_file()?;
            let text = place.edited(&now, &changes)?.0;
            place.staged(&place.path, &text, now.metadata.as_ref()).map(drop)
        }
        Form::Directory => {
            place.check_fields(&changes)?;
            let one = place.path.join(property.to_string());
            place.staged(&one, key.for_key_file(), fs::metadata(&one).ok().as_ref()).map(drop)
        }
    }
}

/// Whether there is no key yet at `path`, as opposed to something that cannot be read.
#[must_use]
pub fn is_empty(path: &Path) -> bool {
    Place::of(path).and_then(|place| place.read()).is_ok_and(|set| set.is_none())
}

/// Puts the keys of `properties` on the list of refused ones, and takes every property out that has one of them.
///
/// The list is written first: killed in between, the keys are refused all the same.
///
/// # Errors
/// Any [`WriteError`]. When the keys are on the list but still in the file, they are refused nevertheless.
pub fn revoke(path: &Path, properties: &[PropertyId], note: &str) -> Result<Revoked, WriteError> {
    let place = Place::of(path)?;
    let _lock = place.lock()?;
    let set = place.read()?;
    let mut keys: Vec<KeyDigest> = Vec::new();
    for key in properties.iter().filter_map(|property| set.as_ref()?.get(*property)) {
        let digest = key.secret.digest();
        if !keys.contains(&digest) {
            keys.push(digest);
        }
    }
    place.forbid(&keys, note)?;
    let theirs = |key: &super::Key| keys.contains(&key.secret.digest());
    let mut all: Vec<PropertyId> =
        set.iter().flat_map(KeySet::iter).filter(|(_, key)| theirs(key)).map(|(property, _)| property).collect();
    all.sort_unstable();
    place.apply(&[Change::remove(&all)])?;
    Ok(Revoked { keys, properties: all })
}

/// Puts keys on the list of refused ones by their digests; whatever holds one from now on, it is not used.
///
/// # Errors
/// Any [`WriteError`]; nothing is changed then, but for [`WriteError::Unsynced`].
pub fn forbid(path: &Path, keys: &[KeyDigest], note: &str) -> Result<(), WriteError> {
    let place = Place::of(path)?;
    let _lock = place.lock()?;
    place.forbid(keys, note)
}

impl Place {
    fn apply(&self, changes: &[Change]) -> Result<Written, WriteError> {
        let keys = refused::read(&self.path).map_err(WriteError::Bad)?;
        for change in changes {
            if let (Some((key, _)), Some(property)) = (&change.to, change.properties.first())
                && keys.holds(key)
            {
                return Err(WriteError::Refused { property: *property, list: refused::path_of(&self.path) });
            }
        }
        match self.form {
            Form::File => self.apply_to_file(changes),
            Form::Directory => self.apply_to_directory(changes),
        }
    }

    fn apply_to_file(&self, changes: &[Change]) -> Result<Written, WriteError> {
        for _ in 0..ATTEMPTS {
            let now = self.read_file()?;
            let (text, written) = self.edited(&now, changes)?;
            if text.as_bytes() == now.bytes.as_slice() {
                return Ok(written);
            }
            let staged = self.staged(&self.path, &text, now.metadata.as_ref())?;
            // Editors do not know our lock.
            if *self.read_file()?.bytes != *now.bytes {
                continue;
            }
            self.replace(staged, &self.path)?;
            self.sync()?;
            return Ok(written);
        }
        Err(WriteError::Changing(self.path.clone()))
    }

    /// The whole new file, and what it changes.
    fn edited(&self, now: &Now, changes: &[Change]) -> Result<(Zeroizing<String>, Written), WriteError> {
        let name = self.path.display().to_string();
        let text = yaml::text(&name, &now.bytes).map_err(WriteError::Bad)?;
        let old = parsed(&name, text)?;
        let written = count(old.as_ref(), changes);
        if written == Written::default() {
            return Ok((Zeroizing::new(String::from_utf8_lossy(&now.bytes).into_owned()), written));
        }
        let edited = edit(text, old.as_ref(), changes).ok_or_else(|| WriteError::Form(self.path.clone()))?;
        // A byte order mark is no part of the text, but of the file.
        let mark = now.bytes.len() - text.len();
        let mut whole = Zeroizing::new(String::with_capacity(mark + edited.len()));
        whole.push_str(if mark > 0 { "\u{feff}" } else { "" });
        whole.push_str(&edited);
        Ok((whole, written))
    }

    fn apply_to_directory(&self, changes: &[Change]) -> Result<Written, WriteError> {
        self.check_fields(changes)?;
        let old = self.read()?;
        let written = count(old.as_ref(), changes);
        // Everything that can fail comes before the first file is replaced.
        let mut ready = Vec::new();
        for change in changes {
            for property in &change.properties {
                let one = self.path.join(property.to_string());
                let had = old.as_ref().and_then(|old| old.get(*property));
                match &change.to {
                    Some((key, _)) if had.is_none_or(|had| had.secret != *key) => {
                        let text = Zeroizing::new(format!("{}\n", key.for_key_file()));
                        let staged = self.staged(&one, &text, fs::metadata(&one).ok().as_ref())?;
                        ready.push((one, Some(staged)));
                    }
                    None if had.is_some() => ready.push((one, None)),
                    _ => {}
                }
            }
        }
        for (one, staged) in ready {
            match staged {
                Some(staged) => self.replace(staged, &one)?,
                None => fs::remove_file(&one).map_err(|error| self.io("remove a file of it", error))?,
            }
        }
        self.sync()?;
        Ok(written)
    }

    fn check_fields(&self, changes: &[Change]) -> Result<(), WriteError> {
        let said = |change: &Change| change.to.as_ref().is_some_and(|(_, fields)| *fields != Fields::default());
        if changes.iter().any(said) { Err(WriteError::Fields(self.path.clone())) } else { Ok(()) }
    }

    fn forbid(&self, keys: &[KeyDigest], note: &str) -> Result<(), WriteError> {
        let path = refused::path_of(&self.path);
        let (mut text, old) = match refused::text(&path) {
            Ok(text) => (text, fs::metadata(&path).ok()),
            Err(error) if error.kind() == ErrorKind::NotFound => (refused::HEAD.to_owned(), None),
            Err(error) => return Err(self.io("read the list of refused keys in it", error)),
        };
        let before = text.len();
        for key in keys {
            if !text.contains(&key.to_string()) {
                text.push_str(if text.is_empty() || text.ends_with('\n') { "" } else { "\n" });
                text.push_str(&refused::line(*key, note));
            }
        }
        if text.len() == before {
            return Ok(());
        }
        // The server that reads the keys must be able to read this as well.
        let like = old.or_else(|| fs::metadata(&self.path).ok().filter(Metadata::is_file));
        let staged = self.staged(&path, &text, like.as_ref())?;
        self.replace(staged, &path)?;
        self.sync()
    }
}

fn count(old: Option<&KeySet>, changes: &[Change]) -> Written {
    let mut written = Written::default();
    for change in changes {
        for property in &change.properties {
            match (old.and_then(|old| old.get(*property)), &change.to) {
                (None, Some(_)) => written.added += 1,
                (Some(had), Some((key, fields))) if had.secret != *key || !fields.are_said_by(had) => {
                    written.replaced += 1;
                }
                (Some(_), None) => written.removed += 1,
                (Some(_), Some(_)) | (None, None) => {}
            }
        }
    }
    written
}
