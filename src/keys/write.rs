//! The one place that writes keys.
//!
//! In: where the keys are, and what changes. Out: the file (or the files of a directory) with exactly that changed, all
//! of it on disk when this returns, or a [`WriteError`] and nothing changed. Every writer, the command line as well as
//! the server, holds the lock beside the keys meanwhile. A file is written to a temporary one in the same directory,
//! synced and renamed, so a reader sees the old or the new one and a crash leaves either. Owner, group and mode stay.
//! Everything blocks; in the server, call it where blocking is allowed.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Component, Path, PathBuf};

use tempfile::NamedTempFile;
use zeroize::Zeroizing;

use super::edit::edit;
pub use super::edit::{Change, Fields};
use super::read::{ONE_MAX, TOTAL_MAX, Unread, bytes};
use super::{KeySet, Lives, file, lock, refused};
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

/// Why nothing was written. `Display` says what to do; no variant holds a key.
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
}

fn lines(faults: &[Fault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "; nothing was changed: make room and try again",
        ErrorKind::PermissionDenied => "; run this as the user the keys belong to",
        ErrorKind::ReadOnlyFilesystem => "; keep the keys on a volume that can be written",
        ErrorKind::NotFound => "; make the directory first",
        _ => "",
    }
}

/// Gives `properties` the key, whichever they had. Several share one row of the file where it has that form.
///
/// # Errors
/// Any [`WriteError`]; nothing is changed then.
pub fn put(path: &Path, properties: &[PropertyId], key: &ApiKey, fields: &Fields) -> Result<Written, WriteError> {
    apply(path, &[Change::put(properties, key, fields)])
}

/// Takes `properties` out; those that are not there are no error.
///
/// # Errors
/// Any [`WriteError`]; nothing is changed then.
pub fn remove(path: &Path, properties: &[PropertyId]) -> Result<Written, WriteError> {
    apply(path, &[Change::remove(properties)])
}

/// All of `changes` in one step, or none. No property may be in two of them.
///
/// # Errors
/// Any [`WriteError`]; nothing is changed then.
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
/// Any [`WriteError`]; nothing is changed then.
pub fn forbid(path: &Path, keys: &[KeyDigest], note: &str) -> Result<(), WriteError> {
    let place = Place::of(path)?;
    let _lock = place.lock()?;
    place.forbid(keys, note)
}

/// Where the keys really are.
struct Place {
    path: PathBuf,
    /// Where its files are.
    directory: PathBuf,
    form: Form,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Form {
    File,
    Directory,
}

/// A key file as it was read.
struct Now {
    /// Nothing where there is no file.
    metadata: Option<Metadata>,
    bytes: Zeroizing<Vec<u8>>,
}

impl Place {
    /// Follows links, since a rename would put the file in the place of a link to it.
    fn of(path: &Path) -> Result<Self, WriteError> {
        let failed = |source| WriteError::Io { what: "be reached", path: path.to_owned(), source };
        let real = match path.canonicalize() {
            Ok(real) => real,
            Err(error) if error.kind() == ErrorKind::NotFound && !path.is_symlink() => {
                let parent = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
                let name = path.file_name().ok_or(ErrorKind::InvalidInput.into()).map_err(failed)?;
                parent.canonicalize().map_err(failed)?.join(name)
            }
            Err(error) => return Err(failed(error)),
        };
        let form = if real.is_dir() { Form::Directory } else { Form::File };
        // kubelet keeps what it mounts in directories such as `..2026_11_24_10_00_00.1`, behind the link `..data`.
        let hidden = |part: Component<'_>| part.as_os_str().as_encoded_bytes().starts_with(b"..");
        if real.components().any(hidden) || form == Form::Directory && real.join("..data").is_symlink() {
            return Err(WriteError::Mounted(path.to_owned()));
        }
        let directory = match form {
            Form::Directory => real.clone(),
            Form::File => real.parent().unwrap_or(Path::new("/")).to_owned(),
        };
        Ok(Self { path: real, directory, form })
    }

    fn io(&self, what: &'static str, source: io::Error) -> WriteError {
        WriteError::Io { what, path: self.directory.clone(), source }
    }

    /// The lock, and with it the certainty that what an ended writer left behind can go.
    fn lock(&self) -> Result<lock::Lock, WriteError> {
        let path = match self.form {
            Form::Directory => self.path.join(".lock"),
            Form::File => behind(&self.path, ".lock"),
        };
        let held = lock::hold(&path).map_err(|error| match error.kind() {
            ErrorKind::TimedOut => WriteError::Locked(self.path.clone()),
            _ => self.io("write a file in it", error),
        })?;
        let left_behind = |name: &str| name.starts_with(".key-") && name.ends_with(".new");
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(left_behind) {
                // It may hold a key, so it should not stay; where it must, it is as private as the keys.
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(held)
    }

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

    /// The keys that are there.
    fn read(&self) -> Result<Option<KeySet>, WriteError> {
        match self.form {
            Form::File => {
                let (now, name) = (self.read_file()?, self.path.display().to_string());
                parsed(&name, yaml::text(&name, &now.bytes).map_err(WriteError::Bad)?)
            }
            Form::Directory => {
                let empty = fs::read_dir(&self.path).map_err(|error| self.io("be read", error))?.flatten();
                if empty.map(|entry| entry.file_name()).all(|name| name.as_encoded_bytes().starts_with(b".")) {
                    return Ok(None);
                }
                super::read::set(&self.path).map(Some).map_err(WriteError::Bad)
            }
        }
    }

    fn read_file(&self) -> Result<Now, WriteError> {
        let metadata = match fs::metadata(&self.path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(Now { metadata: None, bytes: Zeroizing::default() });
            }
            Err(error) => return Err(self.io("be read", error)),
        };
        match bytes(&self.path, TOTAL_MAX) {
            Ok(bytes) => Ok(Now { metadata: Some(metadata), bytes }),
            Err(Unread::Gone(_)) => Ok(Now { metadata: None, bytes: Zeroizing::default() }),
            Err(Unread::Bad(faults)) => Err(WriteError::Bad(faults)),
        }
    }

    /// A file with this text beside `path`, on disk, with the owner and mode of the one it will replace.
    fn staged(&self, path: &Path, text: &str, old: Option<&Metadata>) -> Result<NamedTempFile, WriteError> {
        let most = if self.form == Form::File { TOTAL_MAX } else { ONE_MAX };
        if text.len() as u64 > most {
            return Err(self.io("write a file in it", io::Error::other("it would be larger than is read")));
        }
        self.stage(text, old).map_err(|error| match error.kind() {
            // Of all steps only the change of owner is refused with EPERM rather than EACCES.
            _ if rustix::io::Errno::from_io_error(&error) == Some(rustix::io::Errno::PERM) => {
                WriteError::Owner(path.to_owned())
            }
            _ => self.io("write a file in it", error),
        })
    }

    fn stage(&self, text: &str, old: Option<&Metadata>) -> io::Result<NamedTempFile> {
        // Created 0600, whatever the umask.
        let mut staged = tempfile::Builder::new().prefix(".key-").suffix(".new").tempfile_in(&self.directory)?;
        staged.write_all(text.as_bytes())?;
        if let Some(old) = old {
            let new = staged.as_file().metadata()?;
            let changed = |old: u32, new: u32| (old != new).then_some(old);
            let (owner, group) = (changed(old.uid(), new.uid()), changed(old.gid(), new.gid()));
            if owner.is_some() || group.is_some() {
                fchown(staged.as_file(), owner, group)?;
            }
            // Last, because a change of owner may clear bits. What was read has no bit that a key file must not have.
            staged.as_file().set_permissions(fs::Permissions::from_mode(old.mode() & 0o7777))?;
        }
        staged.as_file().sync_all()?;
        Ok(staged)
    }

    fn replace(&self, staged: NamedTempFile, path: &Path) -> Result<(), WriteError> {
        staged.persist(path).map(drop).map_err(|error| self.io("replace a file in it", error.error))
    }

    /// Makes renames durable.
    fn sync(&self) -> Result<(), WriteError> {
        File::open(&self.directory)
            .and_then(|directory| directory.sync_all())
            .map_err(|error| self.io("be synced", error))
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

/// The keys of a text; none where it is empty or holds nothing but comments.
fn parsed(name: &str, text: &str) -> Result<Option<KeySet>, WriteError> {
    let blank = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
    if text.lines().all(|line| blank(line) || line.trim_end() == "---") {
        return Ok(None);
    }
    file::parse(name, text, None, &Lives::default()).map(Some).map_err(WriteError::Bad)
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

fn behind(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}
