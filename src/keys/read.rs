//! The key file's bytes, or those of a directory of them.
//!
//! In: a path. Out: a [`Snapshot`]: everything read at one moment, with a hash of it. Refused: what others than the
//! owner and one group may read, or anyone but the owner may write, and what is too large or no regular file. A
//! directory is what Kubernetes mounts for a Secret, one file per property; it is replaced by moving the link `..data`,
//! so a reading during which that link moved is thrown away.

use std::fs::{self, File, Metadata};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use zeroize::Zeroizing;

use super::build::{Builder, Said};
use super::{KeySet, Lives, file};
use crate::fault::{FAULTS_MAX, Fault, shown};
use crate::property::PropertyId;
use crate::secret::ApiKey;
use crate::yaml;

/// The largest file or directory read, in bytes.
pub(super) const TOTAL_MAX: u64 = 256 * 1024 * 1024;

/// The largest file of a directory, in bytes. It holds one key.
pub(super) const ONE_MAX: u64 = 64 * 1024;

/// What a path held at one moment.
pub(super) struct Snapshot {
    /// The same for the same content, within this process.
    pub(super) hash: u64,
    content: Content,
}

enum Content {
    File(Zeroizing<Vec<u8>>),
    Directory(Files),
}

/// The files of a directory, by property id.
type Files = Vec<(PropertyId, Zeroizing<Vec<u8>>)>;

/// Why there is no snapshot.
pub(super) enum Unread {
    /// Nothing is there. Between two steps of a replacement that is normal for a moment.
    Gone(Vec<Fault>),
    /// It must not be used.
    Bad(Vec<Fault>),
}

/// Reads a path as it is now.
pub(super) fn read(path: &Path, hashes: &RandomState) -> Result<Snapshot, Unread> {
    let content = match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => directory(path)?,
        Ok(_) => Content::File(bytes(path, TOTAL_MAX)?),
        Err(error) => return Err(unread(path, &error)),
    };
    let mut hasher = hashes.build_hasher();
    match &content {
        Content::File(bytes) => hasher.write(bytes),
        Content::Directory(files) => {
            for (property, bytes) in files {
                hasher.write_u64(property.get());
                hasher.write_usize(bytes.len());
                hasher.write(bytes);
            }
        }
    }
    Ok(Snapshot { hash: hasher.finish(), content })
}

/// The keys that are at a path now, refused ones and all.
pub(super) fn set(path: &Path) -> Result<KeySet, Vec<Fault>> {
    match read(path, &RandomState::new()) {
        Ok(snapshot) => snapshot.parse(path, None, &Lives::default()),
        Err(Unread::Gone(faults) | Unread::Bad(faults)) => Err(faults),
    }
}

impl Snapshot {
    /// The keys in it. With `apps`, a row that names another one is a fault.
    pub(super) fn parse(&self, path: &Path, apps: Option<&[String]>, lives: &Lives) -> Result<KeySet, Vec<Fault>> {
        let name = path.display().to_string();
        match &self.content {
            Content::File(bytes) => file::parse(&name, yaml::text(&name, bytes)?, apps, lives),
            Content::Directory(files) => {
                let (mut set, mut faults) = (Builder::new(), Vec::new());
                for (property, bytes) in files {
                    let key = std::str::from_utf8(bytes).ok().and_then(|text| ApiKey::parse(text).ok());
                    let Some(secret) = key else {
                        let one = path.join(property.to_string()).display().to_string();
                        faults.push(Fault::new(one, crate::secret::NotAnApiKey.to_string(), "copy the key again"));
                        continue;
                    };
                    let (organization, app, base_url) = (None, None, None);
                    let said = Said { secret, organization, app, base_url, add_property_id: false, auto: false };
                    let key = set.key(said);
                    // A directory cannot hold one name twice.
                    let _ = set.row(*property, key, ());
                }
                faults.truncate(FAULTS_MAX);
                match set.finish(lives) {
                    Some(set) if faults.is_empty() => Ok(set),
                    None if faults.is_empty() => {
                        Err(vec![Fault::new(name, "holds no keys", "put a file in it named by each property id")])
                    }
                    _ => Err(faults),
                }
            }
        }
    }
}

fn directory(path: &Path) -> Result<Content, Unread> {
    const ATTEMPTS: u32 = 5;
    let link = path.join("..data");
    let mut outcome = Err(Unread::Gone(vec![Fault::new(path.display().to_string(), "keeps changing", "")]));
    for _ in 0..ATTEMPTS {
        let before = fs::read_link(&link).ok();
        outcome = files(path);
        let moved = fs::read_link(&link).ok() != before;
        if !moved && !matches!(outcome, Err(Unread::Gone(_))) {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    outcome.map(Content::Directory)
}

fn files(path: &Path) -> Result<Files, Unread> {
    let (mut files, mut faults, mut total) = (Vec::new(), Vec::new(), 0);
    for entry in fs::read_dir(path).map_err(|error| unread(path, &error))? {
        let name = entry.map_err(|error| unread(path, &error))?.file_name();
        let name = name.to_string_lossy();
        if name.starts_with('.') {
            continue; // `..data` and the directories it has pointed to.
        }
        let Ok(property) = name.parse::<PropertyId>() else {
            let fault =
                Fault::new(path.display().to_string(), "a file in it is not named by a property id", "remove it");
            faults.push(fault.about(shown(&name)));
            continue;
        };
        match bytes(&path.join(&*name), ONE_MAX) {
            Ok(bytes) => {
                total += bytes.len() as u64;
                files.push((property, bytes));
            }
            Err(Unread::Bad(bad)) => faults.extend(bad),
            Err(gone @ Unread::Gone(_)) => return Err(gone),
        }
        if total > TOTAL_MAX {
            return Err(Unread::Bad(vec![too_large(path, TOTAL_MAX)]));
        }
    }
    files.sort_by_key(|(property, _)| *property);
    if faults.is_empty() { Ok(files) } else { Err(Unread::Bad(faults.into_iter().take(FAULTS_MAX).collect())) }
}

/// The bytes of one file. They are wiped when dropped, and read into one allocation so that no copy stays behind.
pub(super) fn bytes(path: &Path, most: u64) -> Result<Zeroizing<Vec<u8>>, Unread> {
    // Looked at before it is opened, since opening a pipe waits for its writer, and again when it is open.
    let regular = |metadata: &Metadata| if metadata.is_file() { Ok(()) } else { Err(ErrorKind::InvalidInput.into()) };
    let opened = fs::metadata(path).and_then(|metadata| regular(&metadata)).and_then(|()| File::open(path));
    let file = opened.map_err(|error: io::Error| unread(path, &error))?;
    let metadata = file.metadata().map_err(|error| unread(path, &error))?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o027 != 0 {
        let hint = format!("run: chmod 600 {} (for a mounted Secret: defaultMode: 0440)", path.display());
        let message = format!("has mode {mode:04o}, so others may read or write the keys");
        return Err(Unread::Bad(vec![Fault::new(path.display().to_string(), message, hint)]));
    }
    let room = metadata.len().min(most) + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(room).unwrap_or_default()));
    file.take(most + 1).read_to_end(&mut bytes).map_err(|error| unread(path, &error))?;
    if bytes.len() as u64 > most {
        return Err(Unread::Bad(vec![too_large(path, most)]));
    }
    Ok(bytes)
}

fn too_large(path: &Path, most: u64) -> Fault {
    Fault::new(path.display().to_string(), format!("is larger than {} KiB", most / 1024), "is it the right one?")
}

fn unread(path: &Path, error: &io::Error) -> Unread {
    let fault = |message: String, hint: &str| vec![Fault::new(path.display().to_string(), message, hint)];
    match error.kind() {
        ErrorKind::NotFound => {
            Unread::Gone(fault("is not there".to_owned(), "check `keys: file:`, or put the file there"))
        }
        ErrorKind::InvalidInput => Unread::Bad(fault("is not a regular file".to_owned(), "")),
        ErrorKind::PermissionDenied => {
            Unread::Bad(fault(format!("cannot be read: {error}"), "make the user of this process its owner"))
        }
        _ => Unread::Bad(fault(format!("cannot be read: {error}"), "")),
    }
}

/// The directory whose changes tell about `path`: itself, or the one it is in.
pub(super) fn directory_of(path: &Path) -> PathBuf {
    if path.is_dir() {
        return path.to_owned();
    }
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}
