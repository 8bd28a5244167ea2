//! The state file: what is known of the keys' lives, kept across restarts and shared by replicas.
//!
//! In: records. Out: a JSON file that names keys by fingerprint and never holds one. Whoever writes takes a lock beside
//! it, reads what others wrote, merges, and replaces the file as a whole, so it is never half written and no replica's
//! knowledge is lost. A damaged file is set aside, one of a newer format is left alone; neither keeps the proxy from
//! serving. File operations block.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::life::Time;
use super::lock::{self, Lock};
use super::record::{DAY, Record};
use crate::secret::Fingerprint;

/// The format this version writes.
const FORMAT: u64 = 1;

/// The largest state file read, in bytes: 100,000 keys take a tenth of it.
const SIZE_MAX: u64 = 256 * 1024 * 1024;

/// How long a key that is gone is remembered, in seconds, so that one put back is known again.
const REMEMBERED: u64 = 90 * DAY;

/// The file's content.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct State {
    format: u64,
    /// What is known, by the key's fingerprint.
    #[serde(default)]
    pub keys: BTreeMap<String, Record>,
    #[serde(flatten)]
    more: serde_json::Map<String, serde_json::Value>,
}

/// Why the file was not read or written. It names the file and what to do, and quotes nothing of it.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It is of a version after this one.
    #[error("{}: was written by a newer version of this program; use that, or choose another keys.state_file", .0.display())]
    Newer(PathBuf),
    /// It is no state file.
    #[error("{}: is damaged", .0.display())]
    Damaged(PathBuf),
    /// Another process holds the lock.
    #[error("{}: is locked by another process for too long", .0.display())]
    Busy(PathBuf),
    /// The system refuses.
    #[error("{}: {source}; make its directory writable for this process, or choose another keys.state_file", .path.display())]
    System {
        /// The file.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
}

impl State {
    /// A state of these records.
    #[must_use]
    pub fn new(records: impl IntoIterator<Item = (Fingerprint, Record)>) -> Self {
        let keys = records.into_iter().map(|(name, record)| (name.to_string(), record)).collect();
        Self { format: FORMAT, keys, more: serde_json::Map::default() }
    }

    /// What is known of a key.
    #[must_use]
    pub fn get(&self, key: Fingerprint) -> Option<&Record> {
        self.keys.get(&key.to_string())
    }

    /// Every record whose name is a fingerprint.
    pub fn records(&self) -> impl Iterator<Item = (Fingerprint, &Record)> {
        self.keys.iter().filter_map(|(name, record)| Some((name.parse().ok()?, record)))
    }

    /// Adds what `own` knows. Which keys are in force, and for whom, `own` knows best.
    fn merge(&mut self, own: Self) {
        for (name, mut record) in own.keys {
            if let Some(found) = self.keys.get(&name) {
                record.merge(found);
            }
            self.keys.insert(name, record);
        }
    }

    fn parse(bytes: &[u8], path: &Path) -> Result<Self, StateError> {
        // The format first: a newer one may look altogether different.
        #[derive(Deserialize)]
        struct Format {
            format: u64,
        }
        let damaged = |_| StateError::Damaged(path.to_owned());
        let Format { format } = serde_json::from_slice(bytes).map_err(damaged)?;
        if format > FORMAT {
            return Err(StateError::Newer(path.to_owned()));
        }
        serde_json::from_slice(bytes).map_err(damaged)
    }
}

/// The state as the file has it now; an empty one where there is none. For commands that only look; it takes no lock,
/// since the file is only ever replaced as a whole.
///
/// # Errors
/// When the file is damaged, of a newer format, or cannot be read.
pub fn read(path: &Path) -> Result<State, StateError> {
    let system = |source| StateError::System { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(State::new([])),
        Err(error) => return Err(system(error)),
    };
    let mut bytes = Vec::new();
    file.take(SIZE_MAX + 1).read_to_end(&mut bytes).map_err(system)?;
    if bytes.len() as u64 > SIZE_MAX {
        return Err(StateError::Damaged(path.to_owned()));
    }
    State::parse(&bytes, path)
}

/// Where the state of a key file or directory lies when nothing else is said: beside it, `keys.yaml` and
/// `keys.state.json`. Not inside a directory of keys, where every file stands for a property.
#[must_use]
pub fn beside(keys: &Path) -> PathBuf {
    keys.with_extension("state.json")
}

/// Merges `own` into the file under the lock, lets `change` have a look and a say, and writes the result.
///
/// # Errors
/// When the file is of a newer format, locked for too long, or cannot be written. A damaged one is set aside.
pub fn update<T>(
    path: &Path,
    own: State,
    now: Time,
    change: impl FnOnce(&mut State) -> T,
) -> Result<(State, T), StateError> {
    let system = |source| StateError::System { path: path.to_owned(), source };
    let lock = hold(path)?;
    let mut state = match read(path) {
        Ok(state) => state,
        Err(StateError::Damaged(_)) => {
            let aside = path.with_extension(format!("damaged-{}", now.0));
            fs::rename(path, &aside).map_err(system)?;
            tracing::warn!(
                keys.state = %path.display(),
                "the state file is damaged and was set aside as {}: idle days are counted anew from here",
                aside.display()
            );
            State::new([])
        }
        Err(error) => return Err(error),
    };
    state.format = FORMAT;
    state.merge(own);
    let done = change(&mut state);
    state.keys.retain(|_, record| record.gone.is_none_or(|gone| now.since(gone.at) < REMEMBERED));
    replace(path, &state).map_err(system)?;
    drop(lock);
    Ok((state, done))
}

/// A lock beside the file: the file itself is replaced, and a lock on it would go with the old one.
fn hold(path: &Path) -> Result<Lock, StateError> {
    lock::hold(&path.with_extension("lock")).map_err(|error| match error.kind() {
        ErrorKind::TimedOut => StateError::Busy(path.to_owned()),
        _ => StateError::System { path: path.to_owned(), source: error },
    })
}

/// A file that is complete on the disk before it has its name. It is written as it is made: with many keys its text is
/// as large as all that this process holds besides.
fn replace(path: &Path, state: &State) -> io::Result<()> {
    let directory = super::read::directory_of(path);
    let mut new = tempfile::Builder::new().permissions(Permissions::from_mode(0o600)).tempfile_in(&directory)?;
    let mut out = BufWriter::new(&mut new);
    serde_json::to_writer(&mut out, state)?;
    out.flush()?;
    drop(out);
    new.as_file().sync_all()?;
    new.persist(path)?;
    File::open(&directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::ApiKey;

    fn name(key: &str) -> Fingerprint {
        ApiKey::parse(key).unwrap().fingerprint()
    }

    fn used(at: u64) -> Record {
        Record { first_seen: Time(1), last_used: Some(Time(at)), ..Record::default() }
    }

    fn write(path: &Path, key: &str, at: u64) -> State {
        update(path, State::new([(name(key), used(at))]), Time(1000), |_| ()).unwrap().0
    }

    #[test]
    fn two_writers_lose_nothing_of_each_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.state.json");
        assert_eq!(read(&path).unwrap(), State::new([]));
        std::thread::scope(|scope| {
            for writer in 0..4u64 {
                let path = &path;
                scope.spawn(move || {
                    for round in 0..10 {
                        write(path, &format!("cbat_{writer}"), 100 + round);
                        write(path, "cbat_shared", 100 * writer + round);
                    }
                });
            }
        });
        let state = read(&path).unwrap();
        assert_eq!(state.keys.len(), 5);
        assert_eq!(state.get(name("cbat_2")).unwrap().last_used, Some(Time(109)));
        assert_eq!(state.get(name("cbat_shared")).unwrap().last_used, Some(Time(309)), "the latest use counts");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains("cbat"), "{text}");
    }

    #[test]
    fn what_a_newer_version_added_stays_and_a_newer_format_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let shown = name("cbat_a").to_string();
        let text =
            format!(r#"{{"format":1,"colour":"blue","keys":{{"{shown}":{{"last_used":5,"mood":[1]}},"x":{{}}}}}}"#);
        fs::write(&path, text).unwrap();
        write(&path, "cbat_a", 3);
        let value: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!((&value["colour"], &value["keys"][&shown]["mood"]), (&"blue".into(), &serde_json::json!([1])));
        assert_eq!(value["keys"][&shown]["last_used"], 5);

        fs::write(&path, r#"{"format":2,"keys":[]}"#).unwrap();
        let error = update(&path, State::new([]), Time(1), |_| ()).unwrap_err();
        assert!(error.to_string().contains("newer version"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), r#"{"format":2,"keys":[]}"#);
    }

    #[test]
    fn a_damaged_file_is_set_aside_whatever_is_in_it() {
        for damage in ["", "{", "[]", "{\"format\":1,\"keys\":7}", "{\"keys\":{}}", "\u{0}\u{1}"] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("keys.state.json");
            fs::write(&path, damage).unwrap();
            assert!(matches!(read(&path), Err(StateError::Damaged(_))), "{damage:?}");
            let state = write(&path, "cbat_a", 7);
            assert_eq!(state, read(&path).unwrap());
            assert_eq!(fs::read_to_string(directory.path().join("keys.state.damaged-1000")).unwrap(), damage);
        }
    }

    #[test]
    fn where_nothing_can_be_written_the_error_says_what_to_do() {
        let nowhere = Path::new("/proc/keys.state.json");
        let error = update(nowhere, State::new([]), Time(1), |_| ()).unwrap_err().to_string();
        assert!(
            error.contains("/proc/keys.state.json: ") && error.contains("choose another keys.state_file"),
            "{error}"
        );
    }

    #[test]
    fn a_key_that_is_gone_is_forgotten_after_90_days() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let gone = Record { gone: Some(super::super::record::Gone { at: Time(50), replaced: true }), ..used(7) };
        let kept = |now| update(&path, State::new([(name("cbat_a"), gone.clone())]), now, |_| ()).unwrap().0.keys.len();
        assert_eq!((kept(Time(60)), kept(Time(50 + REMEMBERED))), (1, 0));
    }
}
