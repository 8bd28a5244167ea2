//! From a file and the environment to a [`Config`].
//!
//! In: a path or text, and the environment's pairs. Out: the configuration, or every fault at once. Nothing but the file
//! is read: a `keys.file` or `ca_file` that does not exist is for whoever opens it to report.

use std::ffi::OsString;
use std::path::Path;

use super::{Config, check, env, raw, sources::Sources};
use crate::fault::Fault;
use crate::yaml::{self, Mapping, Step, Value};

/// The largest file read, in bytes.
const FILE_MAX: u64 = 1024 * 1024;

/// The configuration from a file, or from defaults alone, and from the environment. Relative paths in the file are
/// relative to its directory; without a file, to the working directory.
///
/// # Errors
/// Every fault found, at most [`FAULTS_MAX`](crate::fault::FAULTS_MAX) and never none.
pub fn load(path: Option<&Path>, env: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Config, Vec<Fault>> {
    let Some(path) = path else {
        return resolve("configuration", "", Mapping::new().into(), Path::new(""), env);
    };
    let name = path.display().to_string();
    let bytes = read(path).map_err(|error| {
        let message = match error.kind() {
            std::io::ErrorKind::NotFound => "is not there".to_owned(),
            _ => format!("cannot be read: {error}"),
        };
        vec![Fault::new(&name, message, "check --config, or CLOUDBEDS_AUTH_PROXY_CONFIG")]
    })?;
    let text = yaml::text(&name, &bytes)?;
    parse(text, &name, path.parent().unwrap_or(Path::new("")), env)
}

/// The same from text. Faults call it `name`; relative paths are relative to `base_dir`.
///
/// # Errors
/// Every fault found, at most [`FAULTS_MAX`](crate::fault::FAULTS_MAX) and never none.
pub fn parse(
    text: &str,
    name: &str,
    base_dir: &Path,
    env: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Config, Vec<Fault>> {
    resolve(name, text, yaml::document(name, text)?, base_dir, env)
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::{Error, Read};
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(Error::other("larger than 1 MiB, which no configuration is"));
    }
    Ok(bytes)
}

fn resolve(
    name: &str,
    text: &str,
    file: Value,
    base_dir: &Path,
    env: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Config, Vec<Fault>> {
    let known = raw::options();
    let mut root = file.clone();
    let mut sources = Sources::new(name, text, file, known.clone());
    env::overlay(&mut root, &known, env, &mut sources);
    let config = typed(root, &mut sources).and_then(|raw| check::config(&raw, base_dir, &mut sources));
    let faults = sources.into_faults();
    match config {
        Some(config) if faults.is_empty() => Ok(config),
        _ => Err(faults),
    }
}

/// Types the document; what does not fit is recorded, cut out and the rest tried again, so one mistake hides no other.
fn typed(mut root: Value, sources: &mut Sources<'_>) -> Option<raw::Raw> {
    while !sources.enough() {
        match yaml::typed::<raw::Raw>(&root) {
            Ok(raw) => return Some(raw),
            Err((path, misfit)) => {
                sources.misfit(&path, misfit);
                if !remove(&mut root, &path) {
                    return None;
                }
                sources.cut(&path);
            }
        }
    }
    None
}

/// Cuts the node at `path` out of the document; false when there is no such node.
fn remove(node: &mut Value, path: &[Step]) -> bool {
    match (node, path) {
        (Value::Mapping(entries), [Step::Name(name)]) => entries.remove(name.as_str()).is_some(),
        (Value::Mapping(entries), [Step::Name(name), rest @ ..]) => {
            entries.get_mut(name.as_str()).is_some_and(|below| remove(below, rest))
        }
        (Value::Sequence(items), [Step::Item(at)]) if *at < items.len() => {
            items.remove(*at);
            true
        }
        (Value::Sequence(items), [Step::Item(at), rest @ ..]) => {
            items.get_mut(*at).is_some_and(|below| remove(below, rest))
        }
        _ => false,
    }
}
