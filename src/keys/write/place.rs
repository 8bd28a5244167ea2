//! Where the keys really are, and how a file is put there.
//!
//! In: a path. Out: a [`Place`] that locks, reads, and puts files in the place of others: written to a temporary file in
//! the same directory, synced, given the owner and mode of the one it replaces, renamed, and the directory synced. What
//! is written, `write` decides.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, fchown};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use tempfile::NamedTempFile;
use zeroize::Zeroizing;

use super::WriteError;
use crate::keys::read::{self, ONE_MAX, TOTAL_MAX, Unread, bytes};
use crate::keys::{KeySet, Lives, file, leftover, lock};
use crate::yaml;

/// How files begin that are not finished.
const UNFINISHED: &str = ".key-";

/// Where the keys really are.
pub(super) struct Place {
    pub(super) path: PathBuf,
    /// Where its files are.
    directory: PathBuf,
    pub(super) form: Form,
}

#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Form {
    File,
    Directory,
}

/// A key file as it was read.
pub(super) struct Now {
    /// Nothing where there is no file.
    pub(super) metadata: Option<Metadata>,
    pub(super) bytes: Zeroizing<Vec<u8>>,
}

impl Place {
    /// Follows links, since a rename would put the file in the place of a link to it.
    pub(super) fn of(path: &Path) -> Result<Self, WriteError> {
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

    pub(super) fn io(&self, what: &'static str, source: io::Error) -> WriteError {
        WriteError::Io { what, path: self.directory.clone(), source }
    }

    /// The lock, and with it the certainty that what an ended writer left behind can go.
    pub(super) fn lock(&self) -> Result<lock::Lock, WriteError> {
        let path = match self.form {
            Form::Directory => self.path.join(".lock"),
            Form::File => behind(&self.path, ".lock"),
        };
        let held = lock::hold(&path).map_err(|error| match error.kind() {
            ErrorKind::TimedOut => WriteError::Locked(self.path.clone()),
            _ => self.io("write a file in it", error),
        })?;
        if let Some(owner) = self.heir() {
            // A lock that root made must not keep the server out.
            let _ = chown(&path, Some(owner.uid()), Some(owner.gid()));
        }
        leftover::clear(&self.directory, UNFINISHED, Duration::ZERO);
        Ok(held)
    }

    /// Whose a new file shall be, where root makes it: the key file's owner, or the directory's. Otherwise the server,
    /// which is hardly ever root, could not read it.
    fn heir(&self) -> Option<Metadata> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        fs::metadata(&self.path).or_else(|_| fs::metadata(&self.directory)).ok()
    }

    /// The keys that are there.
    pub(super) fn read(&self) -> Result<Option<KeySet>, WriteError> {
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
                read::set(&self.path).map(Some).map_err(WriteError::Bad)
            }
        }
    }

    pub(super) fn read_file(&self) -> Result<Now, WriteError> {
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
    pub(super) fn staged(&self, path: &Path, text: &str, old: Option<&Metadata>) -> Result<NamedTempFile, WriteError> {
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
        let mut staged =
            tempfile::Builder::new().prefix(UNFINISHED).suffix(leftover::END).tempfile_in(&self.directory)?;
        staged.write_all(text.as_bytes())?;
        if let Some(owner) = old.cloned().or_else(|| self.heir()) {
            let new = staged.as_file().metadata()?;
            let changed = |old: u32, new: u32| (old != new).then_some(old);
            let (owner, group) = (changed(owner.uid(), new.uid()), changed(owner.gid(), new.gid()));
            if owner.is_some() || group.is_some() {
                fchown(staged.as_file(), owner, group)?;
            }
        }
        if let Some(old) = old {
            // Last, because a change of owner may clear bits. What was read has no bit that a key file must not have.
            staged.as_file().set_permissions(fs::Permissions::from_mode(old.mode() & 0o7777))?;
        }
        staged.as_file().sync_all()?;
        Ok(staged)
    }

    pub(super) fn replace(&self, staged: NamedTempFile, path: &Path) -> Result<(), WriteError> {
        staged.persist(path).map(drop).map_err(|error| self.io("replace a file in it", error.error))
    }

    /// Makes renames durable.
    pub(super) fn sync(&self) -> Result<(), WriteError> {
        File::open(&self.directory)
            .and_then(|directory| directory.sync_all())
            .map_err(|source| WriteError::Unsynced { path: self.directory.clone(), source })
    }
}

/// The keys of a text; none where it is empty or holds nothing but comments.
pub(super) fn parsed(name: &str, text: &str) -> Result<Option<KeySet>, WriteError> {
    let blank = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
    if text.lines().all(|line| blank(line) || line.trim_end() == "---") {
        return Ok(None);
    }
    file::parse(name, text, None, &Lives::default()).map(Some).map_err(WriteError::Bad)
}

fn behind(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}
