//! Configurations with anything in them.
//!
//! In: a file's bytes; behind the first NUL, lines of the environment without their common prefix, such as
//! `UPSTREAM__HTTP2=false`. Out: nothing; a broken promise is a panic. Asserted: it is a configuration that keeps to its own
//! rules, or faults that quote no key; and no configuration serves strangers on a network, or lets answers through
//! unsearched, without saying so in words.

use std::ffi::OsString;
use std::path::Path;

use super::{Config, ENV_PREFIX, UNAUTHENTICATED_NETWORK, UNREADABLE_CODINGS, parse};
use crate::address::Address;
use crate::keys::fuzzing::check_faults;
use crate::yaml;

/// Reads a configuration.
pub fn config(data: &[u8]) {
    let (file, env) = data.split_at(data.iter().position(|byte| *byte == 0).unwrap_or(data.len()));
    let env = String::from_utf8_lossy(env.strip_prefix(b"\0").unwrap_or(env));
    let variable = |line: &str| -> Option<(OsString, OsString)> {
        let (name, value) = line.split_once('=')?;
        Some((format!("{ENV_PREFIX}{name}").into(), value.into()))
    };
    let read = || {
        let text = yaml::text("config.yaml", file)?;
        parse(text, "config.yaml", Path::new("/etc/proxy"), env.lines().filter_map(variable))
    };
    let config = read();
    assert_eq!(config, read(), "it is read in two ways");
    match config {
        Ok(config) => check(&config, data),
        Err(faults) => check_faults(&faults, data),
    }
}

fn check(config: &Config, data: &[u8]) {
    assert!(!config.listen.is_empty() && config.workers.0 > 0);
    let networks = config.listen.iter().any(|listener| match &listener.address {
        Address::Tcp(address) => !address.ip().is_loopback(),
        Address::Unix(_) => false,
    });
    let said = String::from_utf8_lossy(data).split_whitespace().collect::<String>();
    // YAML has other ways to write the words than this looks for.
    let escaped = said.contains('\\') || said.contains('*');
    let in_words = |words: &str| escaped || said.contains(&words.split(' ').collect::<String>());
    assert!(
        !networks || !config.callers.is_empty() || in_words(UNAUTHENTICATED_NETWORK),
        "strangers are served: {config:?}"
    );
    assert!(!config.policy.unreadable_codings || in_words(UNREADABLE_CODINGS), "answers pass unsearched: {config:?}");
    assert!(config.callers.iter().all(|caller| !caller.tokens.is_empty()), "{config:?}");
    let names: std::collections::HashSet<_> = config.apps.iter().map(|app| &app.client_id).collect();
    assert_eq!(names.len(), config.apps.len(), "two apps are one");
    let prefixes: Vec<_> = config.upstream.routes.iter().map(|route| route.prefix.len()).collect();
    assert!(prefixes.is_sorted_by(|one, other| one >= other), "a shorter prefix would win");
}
