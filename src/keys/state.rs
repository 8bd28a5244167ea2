//! The state file: what is known of the keys' lives, kept across restarts and shared by replicas.
//!
//! In: records. Out: a JSON file that names keys by fingerprint and never holds one. Whoever writes takes a lock beside
//! it, joins what it knows with what others wrote, and replaces the file as a whole, so it is never half written and no
//! replica's knowledge is lost. It is read and written record by record, since the text of a large one is more than all
//! that the process holds besides. A damaged file is set aside, one of a newer format is left alone; neither keeps the
//! proxy from serving. File operations block.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::fs::{self, File, Permissions};
use std::io::{self, BufReader, BufWriter, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use tempfile::NamedTempFile;

use super::leftover;
use super::life::Time;
use super::lock::{self, Lock};
use super::record::{DAY, Foreign, Record};
use crate::secret::Fingerprint;

/// The format this version writes.
const FORMAT: u64 = 1;

/// The largest state file read, in bytes: 100,000 keys take a tenth of it.
const SIZE_MAX: u64 = 256 * 1024 * 1024;

/// How long a key that is gone is remembered, in seconds, so that one put back is known again.
const REMEMBERED: u64 = 90 * DAY;

/// What is written besides the records: fields of other versions.
type More = BTreeMap<String, Foreign>;

/// All records of a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// What is known, by the key's fingerprint.
    pub keys: BTreeMap<String, Record>,
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
    #[error("{}: {source}; {}, or choose another keys.state_file", .path.display(), advice(source))]
    System {
        /// The file.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => "make room on its disk",
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem | ErrorKind::NotFound => {
            "make its directory writable for this process"
        }
        _ => "see to its disk",
    }
}

impl State {
    /// What is known of a key.
    #[must_use]
    pub fn get(&self, key: Fingerprint) -> Option<&Record> {
        self.keys.get(&key.to_string())
    }
}

/// The state as the file has it now; an empty one where there is none. For commands that only look; it takes no lock,
/// since the file is only ever replaced as a whole.
///
/// # Errors
/// When the file is damaged, of a newer format, or cannot be read.
pub fn read(path: &Path) -> Result<State, StateError> {
    let mut state = State::default();
    stream(path, |name, record| {
        state.keys.insert(name.to_owned(), record);
        Ok(())
    })?;
    Ok(state)
}

/// The records of a file whose names are fingerprints, one after the other, as [`read`] would return them.
///
/// # Errors
/// As for [`read`]; records before the damage have been handed over by then.
pub fn each(path: &Path, mut take: impl FnMut(Fingerprint, Record)) -> Result<(), StateError> {
    let take = |name: &str, record| {
        if let Ok(name) = name.parse() {
            take(name, record);
        }
        Ok(())
    };
    stream(path, take).map(|_| ())
}

/// Hands over every record of a file, and returns what else is in it. An error of `take` is one of the system.
fn stream(path: &Path, mut take: impl FnMut(&str, Record) -> io::Result<()>) -> Result<More, StateError> {
    let system = |source| StateError::System { path: path.to_owned(), source };
    let damaged = |error: serde_json::Error| match error.io_error_kind() {
        Some(_) => system(error.into()),
        None => StateError::Damaged(path.to_owned()),
    };
    let Some(format) = open(path)? else { return Ok(More::default()) };
    // The format first: a newer one may look altogether different.
    #[derive(Deserialize)]
    struct Format {
        format: u64,
    }
    let Format { format } = serde_json::from_reader(format).map_err(damaged)?;
    if format > FORMAT {
        return Err(StateError::Newer(path.to_owned()));
    }
    // Another file by now at most, which is whole as well.
    let Some(file) = open(path)? else { return Ok(More::default()) };
    let (mut more, mut failed) = (More::default(), None);
    let mut json = serde_json::Deserializer::from_reader(file);
    let content = Content { take: &mut take, failed: &mut failed, more: &mut more };
    let read = content.deserialize(&mut json).and_then(|()| json.end());
    match (failed, read) {
        (Some(error), _) => Err(system(error)),
        (None, read) => read.map(|()| more).map_err(damaged),
    }
}

fn open(path: &Path) -> Result<Option<impl Read + use<>>, StateError> {
    match File::open(path) {
        Ok(file) => Ok(Some(BufReader::new(file.take(SIZE_MAX)))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StateError::System { path: path.to_owned(), source }),
    }
}

/// The file's fields.
struct Content<'a> {
    take: &'a mut dyn FnMut(&str, Record) -> io::Result<()>,
    failed: &'a mut Option<io::Error>,
    more: &'a mut More,
}

impl<'de> DeserializeSeed<'de> for Content<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Content<'_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a mapping")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        while let Some(name) = fields.next_key::<String>()? {
            match name.as_str() {
                "format" => drop(fields.next_value::<IgnoredAny>()?),
                "keys" => fields.next_value_seed(Keys { take: &mut *self.take, failed: &mut *self.failed })?,
                _ => drop(self.more.insert(name, fields.next_value()?)),
            }
        }
        Ok(())
    }
}

/// The mapping from names to records.
struct Keys<'a> {
    take: &'a mut dyn FnMut(&str, Record) -> io::Result<()>,
    failed: &'a mut Option<io::Error>,
}

impl<'de> DeserializeSeed<'de> for Keys<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Keys<'_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a mapping")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut records: A) -> Result<(), A::Error> {
        while let Some((name, record)) = records.next_entry::<String, Record>()? {
            if let Err(error) = (self.take)(&name, record) {
                *self.failed = Some(error);
                return Err(A::Error::custom("cannot be written elsewhere"));
            }
        }
        Ok(())
    }
}

/// Where the state of a key file or directory lies when nothing else is said: beside it, `keys.yaml` and
/// `keys.state.json`. Not inside a directory of keys, where every file stands for a property.
#[must_use]
pub fn beside(keys: &Path) -> PathBuf {
    keys.with_extension("state.json")
}

/// Joins the file with what this process knows, under the lock. `join` is asked once for each of `own` and for each key
/// in the file, with the file's record if there is one, and says what is written.
///
/// # Errors
/// When the file is of a newer format, locked for too long, or cannot be written. A damaged one is set aside.
pub fn update(
    path: &Path,
    own: &[Fingerprint],
    now: Time,
    mut join: impl FnMut(Fingerprint, Option<Record>) -> Record,
) -> Result<(), StateError> {
    let system = |source| StateError::System { path: path.to_owned(), source };
    let lock = hold(path)?;
    leftover::clear(&super::read::directory_of(path), &unfinished(path), Duration::ZERO);
    let new = match joined(path, own, now, &mut join) {
        Err(StateError::Damaged(_)) => {
            let aside = path.with_extension(format!("damaged-{}", now.0));
            fs::rename(path, &aside).map_err(system)?;
            tracing::warn!(
                keys.state = %path.display(),
                "the state file is damaged and was set aside as {}: idle days are counted anew from here",
                aside.display()
            );
            joined(path, own, now, &mut join)?
        }
        new => new?,
    };
    // Complete on the disk before it has its name.
    new.as_file().sync_all().map_err(system)?;
    new.persist(path).map_err(|error| system(error.error))?;
    File::open(super::read::directory_of(path)).and_then(|directory| directory.sync_all()).map_err(system)?;
    drop(lock);
    Ok(())
}

/// How files begin that are to take the place of this one and are not finished.
fn unfinished(path: &Path) -> String {
    format!(".{}-", path.file_name().unwrap_or_default().to_string_lossy())
}

/// A new file with what both know.
fn joined(
    path: &Path,
    own: &[Fingerprint],
    now: Time,
    join: &mut dyn FnMut(Fingerprint, Option<Record>) -> Record,
) -> Result<NamedTempFile, StateError> {
    let system = |source| StateError::System { path: path.to_owned(), source };
    let directory = super::read::directory_of(path);
    let mut builder = tempfile::Builder::new();
    let (begin, mode) = (unfinished(path), Permissions::from_mode(0o600));
    let new = builder.prefix(&begin).suffix(leftover::END).permissions(mode).tempfile_in(directory);
    let mut new = new.map_err(system)?;
    let mut out = Writer::new(BufWriter::new(&mut new), now).map_err(system)?;
    let mut left: HashSet<_> = own.iter().copied().collect();
    let more = stream(path, |name, mut record| {
        if let Ok(name) = name.parse() {
            left.remove(&name);
            record = join(name, Some(record));
        }
        out.record(name, &record)
    })?;
    for name in own.iter().filter(|name| left.contains(name)) {
        out.record(&name.to_string(), &join(*name, None)).map_err(system)?;
    }
    out.end(&more).map_err(system)?;
    Ok(new)
}

/// The file's text, written as it is made.
struct Writer<W> {
    out: W,
    now: Time,
    first: bool,
}

impl<W: Write> Writer<W> {
    fn new(mut out: W, now: Time) -> io::Result<Self> {
        write!(out, r#"{{"format":{FORMAT},"keys":{{"#)?;
        Ok(Self { out, now, first: true })
    }

    /// One record, unless it is of a key that has been gone for long.
    fn record(&mut self, name: &str, record: &Record) -> io::Result<()> {
        if record.gone.is_some_and(|gone| self.now.since(gone.at) >= REMEMBERED) {
            return Ok(());
        }
        if !std::mem::take(&mut self.first) {
            self.out.write_all(b",")?;
        }
        self.field(name, record)
    }

    fn end(mut self, more: &More) -> io::Result<()> {
        self.out.write_all(b"}")?;
        for (name, value) in more {
            self.out.write_all(b",")?;
            self.field(name, value)?;
        }
        self.out.write_all(b"}")?;
        self.out.flush()
    }

    fn field(&mut self, name: &str, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, name)?;
        self.out.write_all(b":")?;
        Ok(serde_json::to_writer(&mut self.out, value)?)
    }
}

/// A lock beside the file: the file itself is replaced, and a lock on it would go with the old one.
fn hold(path: &Path) -> Result<Lock, StateError> {
    lock::hold(&path.with_extension("lock")).map_err(|error| match error.kind() {
        ErrorKind::TimedOut => StateError::Busy(path.to_owned()),
        _ => StateError::System { path: path.to_owned(), source: error },
    })
}

#[cfg(test)]
mod tests {
    use super::super::record::{Dead, Gone, Hotels, Judgement};
    use super::super::verdict::Verdict;
    use super::*;
    use crate::secret::ApiKey;

    fn name(key: &str) -> Fingerprint {
        ApiKey::parse(key).unwrap().fingerprint()
    }

    fn used(at: u64) -> Record {
        Record { first_seen: Time(1), last_used: Some(Time(at)), ..Record::default() }
    }

    /// Writes what is known of one key, as another process would.
    fn write_at(path: &Path, key: &str, own: &Record, now: Time) -> Result<State, StateError> {
        update(path, &[name(key)], now, |found, other| match other {
            Some(other) if found == name(key) => {
                let mut own = own.clone();
                own.merge(&other);
                own
            }
            other => other.unwrap_or_else(|| own.clone()),
        })?;
        read(path)
    }

    fn write(path: &Path, key: &str, at: u64) -> State {
        write_at(path, key, &used(at), Time(1000)).unwrap()
    }

    #[test]
    fn two_writers_lose_nothing_of_each_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.state.json");
        assert_eq!(read(&path).unwrap(), State::default());
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
        let error = write_at(&path, "cbat_a", &used(1), Time(1)).unwrap_err();
        assert!(error.to_string().contains("newer version"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), r#"{"format":2,"keys":[]}"#);
    }

    #[test]
    fn what_a_newer_version_wrote_is_the_same_text_however_often_it_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let shown = name("cbat_a").to_string();
        let values = [
            "340282366920938463463374607431768211456",
            "-18446744073709551617",
            "0.1000000000000000055511151231257827",
            "1e400",
            r#"{"of":[18446744073709551616, null],"\u00fc":"\ud83d\ude00"}"#,
        ];
        for value in values {
            let text = format!(r#"{{"format":1,"keys":{{"{shown}":{{"rate":{value}}}}},"rate":{value}}}"#);
            fs::write(&path, text).unwrap();
            for _ in 0..3 {
                write(&path, "cbat_a", 3);
                let text = fs::read_to_string(&path).unwrap();
                assert_eq!(text.matches(&format!(r#""rate":{value}}}"#)).count(), 2, "{value}: {text}");
            }
        }
    }

    #[test]
    fn every_field_of_ours_is_known_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let property = "7".parse().unwrap();
        let dead = Dead { verdict: Verdict::Rejected, since: Time(1), until: Time(2), step: 3 };
        let judgement = Judgement { judged: Time(4), dead: Some(dead) };
        let record = Record {
            properties: vec![property],
            first_seen: Time(5),
            last_used: Some(Time(6)),
            accepted: Some(Time(7)),
            judgement,
            property_judgements: [(property, judgement)].into(),
            gone: Some(Gone { at: Time(8), replaced: true }),
            kept_alive: Some(Time(9)),
            warned_days: 10,
            hotels: Some(Hotels { at: Time(11), properties: vec![property] }),
            ..Record::default()
        };
        let state = write_at(&path, "cbat_a", &record, Time(12)).unwrap();
        assert_eq!(state.get(name("cbat_a")), Some(&record));
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
        let error = write_at(nowhere, "cbat_a", &used(1), Time(1)).unwrap_err().to_string();
        assert!(
            error.contains("/proc/keys.state.json: ") && error.contains("choose another keys.state_file"),
            "{error}"
        );
    }

    #[test]
    fn a_key_that_is_gone_is_forgotten_after_90_days() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let gone = Record { gone: Some(Gone { at: Time(50), replaced: true }), ..used(7) };
        let kept = |now| write_at(&path, "cbat_a", &gone, now).unwrap().keys.len();
        assert_eq!((kept(Time(60)), kept(Time(50 + REMEMBERED))), (1, 0));
    }
}
