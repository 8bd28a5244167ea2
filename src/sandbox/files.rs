//! What the `sandbox` subcommand leaves on disk, so that a proxy started by hand can use it.
//!
//! In: a directory. Out: `keys.yaml`, readable by its owner alone, and `sandbox-root.pem`. Each appears complete or not
//! at all, and a key file that some other hand wrote is never overwritten: it may hold the keys of real hotels.

use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::Hotel;

/// The first line of a key file of ours, which is how it is known again.
const MARK: &str = "# Throw-away keys of the sandbox; they open nothing at Cloudbeds.";

/// Where the files are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Written {
    /// For `keys.file`.
    pub keys: PathBuf,
    /// For `upstream.ca_file`.
    pub root: PathBuf,
}

/// Writes `keys.yaml` (mode 0600) and `sandbox-root.pem` (0644) into `dir`, which must exist.
///
/// # Errors
/// When `dir` cannot be written, or holds a `keys.yaml` that is not the sandbox's.
pub fn write_files(dir: &Path, hotels: &[Hotel], root_pem: &str) -> io::Result<Written> {
    let written = Written { keys: dir.join("keys.yaml"), root: dir.join("sandbox-root.pem") };
    match fs::read_to_string(&written.keys) {
        Ok(text) if text.lines().next() == Some(MARK) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        _ => {
            let why = format!("{} exists and is not the sandbox's; choose another directory", written.keys.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
        }
    }
    let mut yaml = format!("{MARK}\n");
    for hotel in hotels {
        // Writing to a String cannot fail.
        let _ = writeln!(yaml, "\"{}\": {}", hotel.property, hotel.key);
    }
    replace(dir, &written.keys, &yaml, 0o600)?;
    replace(dir, &written.root, root_pem, 0o644)?;
    File::open(dir)?.sync_all()?;
    Ok(written)
}

/// Writes an app's client secret (mode 0600) into `dir`, for `client_secret_file`. Out: where it is.
///
/// # Errors
/// When `dir` cannot be written.
pub fn write_secret(dir: &Path, secret: &str) -> io::Result<PathBuf> {
    let path = dir.join("sandbox-client-secret");
    replace(dir, &path, secret, 0o600)?;
    File::open(dir)?.sync_all()?;
    Ok(path)
}

fn replace(dir: &Path, path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut file = tempfile::Builder::new().permissions(Permissions::from_mode(mode)).tempfile_in(dir)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::Settings;

    #[test]
    fn the_key_file_is_for_its_owner_and_may_be_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let hotels = Settings::demo().hotels;
        for _ in 0..2 {
            let written = write_files(dir.path(), &hotels, "PEM").unwrap();
            assert_eq!(fs::metadata(&written.keys).unwrap().permissions().mode() & 0o777, 0o600);
            let text = fs::read_to_string(&written.keys).unwrap();
            assert!(text.contains(&format!("\"1001\": {}", hotels[0].key)), "{text}");
            assert_eq!(fs::read_to_string(&written.root).unwrap(), "PEM");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn somebody_elses_key_file_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("keys.yaml"), "\"7\": cbat_real\n").unwrap();
        let error = write_files(dir.path(), &Settings::demo().hotels, "PEM").err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(dir.path().join("keys.yaml")).unwrap(), "\"7\": cbat_real\n");
    }
}
