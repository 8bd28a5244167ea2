//! Callers' tokens that stand in files of their own, and their replacement while the process runs.
//!
//! In: paths. Out: sets of digests, one per caller, swapped whole and together; a file that cannot be used, or a token
//! that two callers would have, leaves all of them where they are. A file holds one digest a line, as `sha256sum` prints
//! it; empty lines and lines that begin with `#` are overlooked. Whoever can write it can let callers in, so nobody but
//! its owner may.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::certificates::public;
use super::watching::{self, Read, Renewed, Words};
use crate::config::Config;
use crate::fault::Fault;
use crate::proxy::callers::TokenSet;
use crate::secret::TokenDigest;

const WORDS: Words = Words {
    kept: "callers keep their tokens, the new ones cannot be used",
    again: "the files of callers' tokens hold those in force again",
};

/// The files of all callers that have one.
pub(super) struct TokenFiles {
    files: Arc<Files>,
    /// For each file what is in force of it.
    sets: Vec<TokenSet>,
    in_force: u64,
}

struct Files {
    /// Each with its caller's name.
    paths: Vec<(String, PathBuf)>,
    /// Tokens that stand in the configuration.
    fixed: HashSet<TokenDigest>,
    hashes: RandomState,
}

impl TokenFiles {
    /// Reads them for the first time.
    pub(super) fn load(config: &Config) -> Result<Self, Vec<Fault>> {
        let named = |caller: &crate::config::Caller| Some((caller.name.clone(), caller.tokens_file.clone()?));
        let files = Files {
            paths: config.callers.iter().filter_map(named).collect(),
            fixed: config.callers.iter().flat_map(|caller| caller.tokens.iter().copied()).collect(),
            hashes: RandomState::new(),
        };
        let (read, in_force) = files.read()?;
        let sets = read.into_iter().map(TokenSet::new).collect();
        Ok(Self { files: Arc::new(files), sets, in_force })
    }

    /// What is in force of a caller's file.
    pub(super) fn of(&self, caller: &str) -> Option<TokenSet> {
        let at = self.files.paths.iter().position(|(name, _)| name == caller)?;
        self.sets.get(at).cloned()
    }

    /// Looks at them every `poll` and whenever `look_now` says so, until dropped; at once done where there are none.
    pub(super) async fn watch(self, poll: Duration, look_now: Arc<Notify>) {
        if self.sets.is_empty() {
            return;
        }
        let files = Arc::clone(&self.files);
        let accept = |read: Vec<HashSet<TokenDigest>>| {
            self.sets.iter().zip(read).for_each(|(set, new)| set.replace(new));
            Ok(Renewed { words: "callers have new tokens".to_owned(), but: Vec::new() })
        };
        watching::watch((poll, look_now), WORDS, self.in_force, move || files.read(), accept).await;
    }
}

impl Files {
    fn read(&self) -> Read<Vec<HashSet<TokenDigest>>> {
        let (mut sets, mut faults, mut taken) = (Vec::new(), Vec::new(), self.fixed.clone());
        for (caller, path) in &self.paths {
            let option = format!("callers.{caller}.tokens_file");
            match one(path, &option) {
                Ok(set) if set.iter().any(|token| !taken.insert(*token)) => {
                    let hint = "make one of its own for each caller";
                    let fault =
                        Fault::new(path.display().to_string(), "holds a token that is named elsewhere too", hint);
                    faults.push(fault.about(option));
                }
                Ok(set) => sets.push(set),
                Err(wrong) => faults.extend(wrong),
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        // Sets have no order of their own; the sum of their members' numbers is the same in any.
        let number = |set: &HashSet<TokenDigest>| {
            set.iter().fold(0_u64, |sum, token| sum.wrapping_add(self.hashes.hash_one(token)))
        };
        let all = self.hashes.hash_one(sets.iter().map(number).collect::<Vec<_>>());
        Ok((sets, all))
    }
}

/// The digests in a file.
fn one(path: &Path, option: &str) -> Result<HashSet<TokenDigest>, Vec<Fault>> {
    let fault = |message: &str, hint: &str, line: Option<usize>| {
        let fault = Fault::new(path.display().to_string(), message, hint).at(line.map(|line| (line, 1)));
        vec![fault.about(option)]
    };
    let bytes = public(path, option)?;
    let mode = std::fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode());
    if mode & 0o022 != 0 {
        let hint = format!("run: chmod go-w {}", path.display());
        return Err(fault("may be written by others than its owner, who could let anybody in", &hint, None));
    }
    let hint = "one digest a line; printf %s \"$TOKEN\" | sha256sum prints it";
    let text = std::str::from_utf8(&bytes).map_err(|_| fault("is no text", hint, None))?;
    let mut set = HashSet::new();
    for (number, line) in text.lines().enumerate() {
        let Some(word) = line.split_whitespace().next().filter(|word| !word.starts_with('#')) else { continue };
        let token: Option<TokenDigest> = word.parse().ok();
        let Some(token) = token else {
            return Err(fault("expected 64 hexadecimal digits", hint, Some(number + 1)));
        };
        if token.is_of_nothing() {
            return Err(fault("is the digest of nothing: TOKEN was not set", hint, Some(number + 1)));
        }
        set.insert(token);
    }
    if set.is_empty() { Err(fault("holds no digest", hint, None)) } else { Ok(set) }
}
