//! Keys that have arrived and are not in the key file yet.
//!
//! In: a key from an exchange, before anybody knows what it opens. Out: a file of its own beside the key file, mode 0600,
//! complete and on disk when [`keep`] returns: the code it was bought with cannot be used again. From there it goes into
//! the key file and the file is removed, or, where it opens another hotel than the one asked for, it is set aside for the
//! operator. Nobody but onboarding reads these files, and no request uses a key from one.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use zeroize::Zeroizing;

use super::leftover;
use super::read::bytes;
use crate::fault::Fault;
use crate::property::PropertyId;
use crate::secret::ApiKey;
use crate::yaml::{self, Budget, Grow, Tree, Value, Veil};

/// The largest such file read, in bytes.
const FILE_MAX: u64 = 16 * 1024;

/// What is put between the key file's name and the rest of this one's.
const MARK: &str = ".arrived-";

/// How files begin that are not finished. One that stays behind holds a part of a key at most, and is removed.
const UNFINISHED: &str = ".arriving-";

const HEAD: &str = "# A key that has arrived and is in no key file yet; see \"Onboarding\" in README.md.\n";

const ASIDE: &str = "# It opens other properties than the one asked for, so it is not used. Put it in with\n\
                     #   sed -n 's/^key: //p' THIS_FILE | cloudbeds-auth-proxy keys add PROPERTY\n\
                     # if that is where it belongs, and remove this file.\n";

/// A key that has arrived.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// The key.
    pub key: ApiKey,
    /// The name of the app it was made for.
    pub app: String,
    /// The property it is to be for; nothing for a start at Cloudbeds.
    pub asked: Option<PropertyId>,
    /// What it opens, as far as the exchange said.
    pub opens: Vec<PropertyId>,
    /// When it came.
    pub received: SystemTime,
}

/// The file of one of them.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Place(PathBuf);

impl Place {
    /// For the log.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

/// Whether a key that arrives now could be written: asked before a code is spent.
///
/// # Errors
/// What the system says.
pub fn check(keys: &Path) -> io::Result<()> {
    let (directory, _) = beside(keys)?;
    let mut file = tempfile::Builder::new()
        .prefix(UNFINISHED)
        .suffix(leftover::END)
        .permissions(private())
        .tempfile_in(directory)?;
    // A full disk takes a name and no bytes.
    file.write_all(&[b'#'; 4096])?;
    file.as_file().sync_all()
}

/// Writes a key that has arrived; it is on disk when this returns.
///
/// No lock is held: the name is its own, and while another writer is waited for the key would be in memory only.
///
/// # Errors
/// What the system says; then nothing is there.
pub fn keep(keys: &Path, arrived: &Arrived) -> io::Result<Place> {
    let (directory, name) = beside(keys)?;
    write(&directory, name, text(arrived, HEAD).as_bytes()).map(Place)
}

/// A new private file whose name begins with `name`: complete and on disk, or not there.
fn write(directory: &Path, mut name: OsString, bytes: &[u8]) -> io::Result<PathBuf> {
    let mut file = tempfile::Builder::new()
        .prefix(UNFINISHED)
        .suffix(leftover::END)
        .permissions(private())
        .tempfile_in(directory)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    // What made the temporary name one of its own makes the final one so too.
    let unique =
        file.path().file_name().map(|name| name.to_string_lossy().replace(UNFINISHED, "").replace(leftover::END, ""));
    name.push(unique.unwrap_or_default());
    let path = directory.join(name);
    file.persist_noclobber(&path)?;
    File::open(directory)?.sync_all()?;
    Ok(path)
}

/// All that wait, the oldest first, and faults about files that cannot be read.
#[must_use]
pub fn waiting(keys: &Path) -> (Vec<(Place, Arrived)>, Vec<Fault>) {
    let (mut found, mut faults) = (Vec::new(), Vec::new());
    let listed = beside(keys).and_then(|(directory, name)| {
        leftover::clear(&directory, UNFINISHED, leftover::NO_LONGER_WRITTEN);
        Ok((fs::read_dir(&directory)?, name))
    });
    let Ok((entries, name)) = listed else { return (found, faults) };
    for entry in entries.flatten() {
        let (path, file_name) = (entry.path(), entry.file_name());
        if !file_name.as_encoded_bytes().starts_with(name.as_encoded_bytes()) {
            continue;
        }
        match read(&path) {
            Ok(Some(arrived)) => found.push((Place(path), arrived)),
            Ok(None) => {}
            Err(fault) => faults.push(*fault),
        }
    }
    found.sort_by_key(|(_, arrived)| arrived.received);
    (found, faults)
}

/// What is in a place: nothing when it is gone or was set aside.
#[must_use]
pub fn look(place: &Place) -> Option<Arrived> {
    read(&place.0).ok().flatten()
}

/// The key is in the key file, or dead: its own file goes.
///
/// # Errors
/// What the system says.
pub fn settle(place: &Place) -> io::Result<()> {
    match fs::remove_file(&place.0) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// The key opens other properties than the one asked for: it stays on disk under a name that is not looked at again.
/// Where it goes.
///
/// # Errors
/// What the system says; then it stays where it is.
pub fn set_aside(keys: &Path, place: &Place, arrived: &Arrived) -> io::Result<PathBuf> {
    let (directory, _) = beside(keys)?;
    let mut name = keys.file_name().map(OsString::from).unwrap_or_default();
    let opens: Vec<_> = arrived.opens.iter().take(5).map(ToString::to_string).collect();
    name.push(format!(".aside-{}-", opens.join("-")));
    let path = write(&directory, name, text(arrived, &format!("{HEAD}{ASIDE}")).as_bytes())?;
    settle(place)?;
    Ok(path)
}

fn private() -> Permissions {
    Permissions::from_mode(0o600)
}

/// The directory the files are in, and how their names begin. In a directory of keys they are hidden, where its reader
/// passes them over.
fn beside(keys: &Path) -> io::Result<(PathBuf, OsString)> {
    // Through a symbolic link, to where the key file really is.
    let keys = keys.canonicalize().unwrap_or_else(|_| keys.to_owned());
    if keys.is_dir() {
        return Ok((keys, MARK.into()));
    }
    let mut name = keys.file_name().map(OsString::from).ok_or(io::ErrorKind::InvalidInput)?;
    name.push(MARK);
    let directory = match keys.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    Ok((directory, name))
}

fn text(arrived: &Arrived, head: &str) -> Zeroizing<String> {
    let received = arrived.received.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let asked = arrived.asked.map(|property| format!("asked: \"{property}\"\n")).unwrap_or_default();
    let opens: Vec<_> = arrived.opens.iter().map(|property| format!("\"{property}\"")).collect();
    // JSON is YAML, and quotes whatever an app may be called.
    let app = Value::from(arrived.app.as_str());
    let app = serde_json::to_string(&app).unwrap_or_default();
    Zeroizing::new(format!(
        "{head}app: {app}\n{asked}opens: [{}]\nreceived: {}\nkey: {}\n",
        opens.join(", "),
        received.as_secs(),
        arrived.key.for_key_file()
    ))
}

fn read(path: &Path) -> Result<Option<Arrived>, Box<Fault>> {
    let name = path.display().to_string();
    let Ok(bytes) = bytes(path, FILE_MAX) else {
        let fault = || Box::new(Fault::new(&name, "cannot be read", "make it mode 0600"));
        return if path.exists() { Err(fault()) } else { Ok(None) };
    };
    let odd = || Box::new(Fault::new(&name, "is no key that onboarding has written", "remove it"));
    let text = yaml::text(&name, &bytes).map_err(|_| odd())?;
    let veil = Veil::over(text);
    let grow = Grow { each: None, budget: &Budget::of(text), veil: &veil };
    let Ok(Tree::Map(fields)) = yaml::stream(&name, veil.text(), grow) else { return Err(odd()) };
    let field = |name: &str| fields.iter().find(|(field, _)| **field == name).map(|(_, value)| value);
    let key = field("key").and_then(|key| ApiKey::parse(key.as_text()).ok()).ok_or_else(odd)?;
    let property = |value: &Tree| value.as_text().parse().ok();
    let opens = if let Some(Tree::List(opens)) = field("opens") { opens.as_slice() } else { &[] };
    let seconds = if let Some(Tree::Number(seconds)) = field("received") { *seconds } else { 0 };
    Ok(Some(Arrived {
        key,
        app: field("app").map(Tree::as_text).unwrap_or_default().to_owned(),
        asked: field("asked").and_then(property),
        opens: opens.iter().filter_map(property).collect(),
        received: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.min(1 << 40)),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrived(key: &str, asked: Option<&str>, seconds: u64) -> Arrived {
        Arrived {
            key: ApiKey::parse(key).unwrap(),
            app: "an \"odd\" app".to_owned(),
            asked: asked.map(|id| id.parse().unwrap()),
            opens: vec!["1002".parse().unwrap()],
            received: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_key_that_arrived_is_found_again_and_is_for_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let keys = directory.path().join("keys.yaml");
        check(&keys).unwrap();
        let later = keep(&keys, &arrived("cbat_later", None, 20)).unwrap();
        let earlier = keep(&keys, &arrived("cbat_earlier", Some("1003"), 10)).unwrap();
        assert_eq!(mode(earlier.path()), 0o600);
        let (found, faults) = waiting(&keys);
        assert!(faults.is_empty());
        assert_eq!(found.iter().map(|(place, _)| place.clone()).collect::<Vec<_>>(), [earlier.clone(), later.clone()]);
        let first = &found[0].1;
        assert_eq!((first.key.for_key_file(), first.app.as_str()), ("cbat_earlier", "an \"odd\" app"));
        assert_eq!((first.asked, found[1].1.asked), (Some("1003".parse().unwrap()), None));
        assert_eq!(first.opens, ["1002".parse().unwrap()]);
        settle(&earlier).unwrap();
        settle(&earlier).unwrap();
        assert!(look(&earlier).is_none());
        settle(&later).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_key_that_was_set_aside_is_kept_and_no_longer_waits() {
        let directory = tempfile::tempdir().unwrap();
        let keys = directory.path().join("keys.yaml");
        let one = arrived("cbat_aside", Some("1003"), 10);
        let place = keep(&keys, &one).unwrap();
        let aside = set_aside(&keys, &place, &one).unwrap();
        assert!(aside.display().to_string().contains("keys.yaml.aside-1002-"), "{aside:?}");
        assert_eq!(mode(&aside), 0o600);
        assert!(fs::read_to_string(&aside).unwrap().lines().any(|line| line == "key: cbat_aside"));
        assert!(waiting(&keys).0.is_empty() && look(&place).is_none());
    }

    #[test]
    fn a_file_that_is_no_such_key_is_a_fault_that_does_not_quote_it() {
        let directory = tempfile::tempdir().unwrap();
        let keys = directory.path().join("keys.yaml");
        let place = keep(&keys, &arrived("cbat_blue", None, 1)).unwrap();
        fs::write(place.path(), "key: secret-of-somebody\n").unwrap();
        let (found, faults) = waiting(&keys);
        assert!(found.is_empty());
        assert!(faults[0].to_string().contains("remove it") && !faults[0].to_string().contains("somebody"));
    }

    #[test]
    fn where_nothing_can_be_written_the_check_says_so_before_a_code_is_spent() {
        assert!(check(Path::new("/proc/keys.yaml")).is_err());
        assert!(check(Path::new("/nowhere/keys.yaml")).is_err());
    }
}
