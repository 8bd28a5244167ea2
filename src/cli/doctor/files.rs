//! `doctor` on the files: keys, secrets, who can read them, and whether changes to them arrive.
//!
//! In: a configuration. Out: findings. Files are read by the rules of `serve`, and no key is written.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::time::SystemTime;

use super::{Finding, certificate};
use crate::app::certificates::{self, Files};
use crate::cli::Failure;
use crate::cli::keys::{Desk, by_key, listed};
use crate::config::Tls;
use crate::keys::write::{self, Fields, WriteError};
use crate::keys::{self, KeySet};

const FAMILY: &str = "files";

pub(super) fn all(desk: &Desk) -> Vec<Finding> {
    let file = desk.file();
    let mut findings = vec![];
    findings.extend(readers(file));
    findings.extend(ways_in(file));
    match desk.keys() {
        Ok(set) => findings.extend(keys(desk, &set)),
        Err(Failure::Configuration(faults)) => {
            findings.extend(faults.into_iter().map(|fault| Finding::fault(FAMILY, fault)));
        }
        Err(_) => {}
    }
    if keys::mounted_alone(file) {
        let found = "is mounted alone (subPath), so a changed Secret never arrives";
        let advice = "mount the Secret as a directory and point keys.file into it";
        findings.push(Finding::warning(FAMILY, name(file), found, advice));
    }
    findings.extend(writable(desk));
    for app in &desk.config.apps {
        let Some(secret) = &app.client_secret_file else { continue };
        match keys::client_secret(secret, &format!("apps.{}.client_secret_file", app.name)) {
            Ok(_) => {
                findings.push(Finding::ok(FAMILY, name(secret), format!("holds the secret of the app {}", app.name)))
            }
            Err(faults) => findings.extend(faults.into_iter().map(|fault| Finding::fault(FAMILY, fault))),
        }
    }
    let tokens = crate::app::token_faults(&desk.config);
    findings.extend(tokens.into_iter().map(|fault| Finding::fault(FAMILY, fault)));
    findings.extend(desk.config.tls.as_ref().map(listeners).unwrap_or_default());
    findings
}

/// The listener's own certificate, by the rules of `serve`.
fn listeners(tls: &Tls) -> Vec<Finding> {
    let settings = Files::read(tls).and_then(|files| files.settings(tls).map(|settings| (files, settings)));
    let (files, settings) = match settings {
        Ok(both) => both,
        Err(faults) => return faults.into_iter().map(|fault| Finding::fault(FAMILY, fault)).collect(),
    };
    let chain = crate::tls::certificates(&files.certificate).unwrap_or_default();
    let told = chain.first().and_then(|first| certificate::told(first, SystemTime::now()));
    let about = name(&tls.certificate_file);
    let mut findings = vec![match told {
        Some(told) if !told.ends_soon => {
            Finding::ok(FAMILY, about, format!("the listener's certificate, {}", told.words))
        }
        told => {
            let words = told.map_or_else(|| "unreadable".to_owned(), |told| told.words);
            let advice = "renew it; a running proxy takes the new files over by itself";
            Finding::warning(FAMILY, about, format!("the listener's certificate, {words}"), advice)
        }
    }];
    if let (Some(path), Some(lists)) = (&tls.client_crl_file, &files.client_crl) {
        let lists = crate::tls::revocations(lists).unwrap_or_default();
        let told =
            lists.iter().filter_map(|list| certificate::list(list)).map(|words| Finding::ok(FAMILY, name(path), words));
        findings.extend(told);
    }
    let warnings = certificates::warnings(tls, &settings, SystemTime::now());
    findings.extend(warnings.into_iter().map(|fault| Finding::fault(FAMILY, fault)));
    findings
}

fn name(path: &Path) -> String {
    path.display().to_string()
}

/// Who can read the keys, in words.
fn readers(path: &Path) -> Option<Finding> {
    let metadata = fs::metadata(path).ok()?;
    if metadata.is_dir() {
        return None;
    }
    let (mode, owner) = (metadata.mode() & 0o7777, named("/etc/passwd", metadata.uid()));
    let group = named("/etc/group", metadata.gid());
    let mut who = vec![owner.clone()];
    if mode & 0o040 != 0 {
        who.push(format!("the group {group}"));
    }
    let found = format!("mode {mode:04o}, owner {owner}: {} and root can read it", who.join(", "));
    if mode & 0o004 != 0 {
        let advice = format!("run: chmod 600 {}", path.display());
        return Some(Finding::broken(FAMILY, name(path), format!("mode {mode:04o}: everybody can read it"), advice));
    }
    Some(Finding::ok(FAMILY, name(path), found))
}

/// The name of a user or group, from the file that lists them; the number where it has none.
fn named(list: &str, id: u32) -> String {
    let text = fs::read_to_string(list).unwrap_or_default();
    let fields = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let found = fields.filter(|fields| fields.get(2).is_some_and(|number| *number == id.to_string()));
    found.filter_map(|fields| fields.first().map(|name| (*name).to_owned())).next().unwrap_or_else(|| id.to_string())
}

/// Directories in which others could put another file in the key file's place.
fn ways_in(path: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    for directory in real.ancestors().filter(|path| path.is_dir()) {
        let Ok(metadata) = fs::metadata(directory) else { continue };
        let mode = metadata.mode() & 0o7777;
        // The sticky bit keeps others from replacing what is not theirs.
        if mode & 0o002 != 0 && mode & 0o1000 == 0 {
            let found = format!("mode {mode:04o}: everybody can put another file in the place of the keys");
            findings.push(Finding::broken(
                FAMILY,
                name(directory),
                found,
                format!("run: chmod o-w {}", directory.display()),
            ));
        }
    }
    findings
}

fn keys(desk: &Desk, set: &KeySet) -> Vec<Finding> {
    let file = name(desk.file());
    let found = format!("{} keys for {} properties", set.keys(), set.properties());
    let mut findings = vec![if set.properties() == 0 {
        let advice = "add the first with `keys add`, or let a hotel connect: every request is refused until then";
        Finding::warning(FAMILY, &file, "holds no keys", advice)
    } else {
        Finding::ok(FAMILY, &file, found)
    }];
    for (key, properties) in by_key(set, |_| true) {
        if properties.len() > 1 && key.organization.is_none() {
            let found = format!("properties {} have the same key", listed(&properties));
            let advice = "if one organisation key opens them all, say so with `organization:`; otherwise one of them has \
                          another's key: add its own with `keys add`";
            findings.push(Finding::warning(FAMILY, &file, found, advice));
        }
    }
    if let Ok(revoked) = keys::revoked(desk.file())
        && !revoked.is_empty()
    {
        let found = format!("holds revoked keys for property {}, which are not used", listed(&revoked));
        let advice = "remove the rows with `keys remove`, and get new keys; did an old backup come back?";
        findings.push(Finding::warning(FAMILY, &file, found, advice));
    }
    findings
}

/// Whether keys could be added from here. Without onboarding that is a person's work, possibly done elsewhere.
fn writable(desk: &Desk) -> Option<Finding> {
    let property = "1".parse().ok()?;
    let about = name(desk.file());
    match write::try_put(desk.file(), property, &Fields::default()) {
        Ok(()) => Some(Finding::ok(FAMILY, about, "can be written by commands of this user")),
        // Told already, by whoever reads it.
        Err(WriteError::Bad(_)) => None,
        Err(error) if desk.config.onboarding.is_some() => {
            Some(Finding::broken(FAMILY, about, "cannot be written, so no hotel can connect", error.to_string()))
        }
        Err(error) => Some(Finding::ok(FAMILY, about, format!("is not written from here ({error})"))),
    }
}

/// Whether a path is a socket somebody may listen on.
pub(super) fn is_socket(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}
