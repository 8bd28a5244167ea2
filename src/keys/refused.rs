//! The keys that must never be used again.
//!
//! In: a list of digests beside the key file, one `sha256:…` per line. Out: whether a key is one of them. A key comes
//! onto the list by `keys revoke`, which is for keys that somebody else may have; from then on it is neither written nor
//! used, whatever file or backup it turns up in. Nothing here can be turned back into a key.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::fault::Fault;
use crate::secret::{ApiKey, KeyDigest};

/// The largest list read, in bytes; a line has about a hundred.
const LIST_MAX: u64 = 16 * 1024 * 1024;

/// How a new list begins.
pub(super) const HEAD: &str = "# SHA-256 of every key that was revoked. None of them is used again, in whatever file it turns up: keep the lines.\n";

const MARK: &str = "sha256:";

/// Digests of refused keys.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Refused(HashSet<KeyDigest>);

impl Refused {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn holds(&self, key: &ApiKey) -> bool {
        !self.0.is_empty() && self.0.contains(&key.digest())
    }

    /// Adds those of another list; whether there were new ones.
    pub(super) fn extend(&mut self, other: Self) -> bool {
        let before = self.0.len();
        self.0.extend(other.0);
        self.0.len() > before
    }
}

/// Where the list of the keys at `keys` is: inside a directory of keys, else beside the file.
pub(super) fn path_of(keys: &Path) -> PathBuf {
    if keys.is_dir() {
        return keys.join(".refused");
    }
    let mut name = keys.as_os_str().to_owned();
    name.push(".refused");
    name.into()
}

/// The list of the keys at `keys`; empty where there is none.
pub(super) fn read(keys: &Path) -> Result<Refused, Vec<Fault>> {
    let path = path_of(&keys.canonicalize().unwrap_or_else(|_| keys.to_owned()));
    let name = path.display().to_string();
    let fault = |message: String, hint: &str| vec![Fault::new(&name, message, hint)];
    let text = match text(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Refused::default()),
        Err(error) => return Err(fault(format!("cannot be read: {error}"), "it lists the keys that were revoked")),
    };
    let mut refused = Refused::default();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let digest = line.strip_prefix(MARK).and_then(|digest| digest.trim().parse().ok());
        let Some(digest) = digest else {
            let hint = "write `sha256:` and the 64 digits that `printf %s KEY | sha256sum` prints";
            return Err(vec![Fault::new(&name, "not a digest", hint).at(Some((number + 1, 1)))]);
        };
        refused.0.insert(digest);
    }
    Ok(refused)
}

/// The list as text; whoever adds to it keeps what was there.
pub(super) fn text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(LIST_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LIST_MAX {
        return Err(io::Error::other("larger than 16 MiB"));
    }
    Ok(text)
}

/// A line for one key; `note` is for people.
pub(super) fn line(digest: KeyDigest, note: &str) -> String {
    format!("{MARK}{digest}  # {note}\n")
}
