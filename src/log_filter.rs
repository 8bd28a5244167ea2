//! Which ordinary events reach the log: levels, for all and by module.
//!
//! In: directives such as `info,hyper=warn`. Out: a [`LogFilter`], which has been read and cannot fail any more.
//! `tracing_subscriber::EnvFilter` would know more forms, for spans, of which only h2 opens any, and takes a misspelt
//! level for the name of a module, the only one that may still speak. It also brings an engine of regular expressions.

use std::str::FromStr;

use tracing_subscriber::filter::{LevelFilter, Targets};

/// Levels of events, for all modules or for those whose path begins with a name. The longest name that fits counts, and
/// where none fits and no level for all is given, nothing is logged.
#[derive(Clone, Debug, PartialEq)]
pub struct LogFilter(Targets);

/// A directive is neither a level nor a module with one. The error does not quote it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("expected a level (off, error, warn, info, debug or trace) or levels of modules such as info,hyper=warn")]
pub struct NotALogFilter;

impl LogFilter {
    /// Every event of a level and those that weigh more.
    #[must_use]
    pub fn level(level: LevelFilter) -> Self {
        Self(Targets::new().with_default(level))
    }

    /// The layer's filter of it.
    pub(crate) fn targets(&self) -> Targets {
        self.0.clone()
    }
}

impl FromStr for LogFilter {
    type Err = NotALogFilter;

    /// Reads directives with commas between them: a level for all, `module=level` for one module and what is below it.
    /// Levels are words in any case, or numbers from 0 (off) to 5 (trace). Spaces around each part and empty directives
    /// are passed over.
    ///
    /// # Errors
    /// When a directive is anything else, or there is none.
    fn from_str(directives: &str) -> Result<Self, NotALogFilter> {
        // Of its own reading, tracing's for one would take an empty level for `error`.
        let level = |word: &str| match word.trim() {
            "" => Err(NotALogFilter),
            word => word.parse::<LevelFilter>().map_err(|_| NotALogFilter),
        };
        let (mut targets, mut read) = (Targets::new(), 0);
        for directive in directives.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
            targets = match directive.split_once('=') {
                Some((module, word)) if is_module(module.trim()) => targets.with_target(module.trim(), level(word)?),
                Some(_) => return Err(NotALogFilter),
                None => targets.with_default(level(directive)?),
            };
            read += 1;
        }
        if read == 0 { Err(NotALogFilter) } else { Ok(Self(targets)) }
    }
}

/// Whether it may be the path of a module, or the beginning of one.
fn is_module(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_:-".contains(&byte))
}

impl Eq for LogFilter {}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    fn lets(directives: &str, module: &str, level: Level) -> bool {
        directives.parse::<LogFilter>().unwrap().targets().would_enable(module, &level)
    }

    #[test]
    fn a_level_is_for_all_modules_and_a_modules_own_goes_before_it() {
        assert!(lets("info", "hyper", Level::INFO));
        assert!(!lets("info", "hyper", Level::DEBUG));
        for directives in ["info,hyper=warn", " hyper = WARN ,, info,", "3,hyper=2"] {
            assert!(lets(directives, "hyper::client", Level::WARN), "{directives}");
            assert!(!lets(directives, "hyper::client", Level::INFO), "{directives}");
            assert!(lets(directives, "cloudbeds_auth_proxy::app", Level::INFO), "{directives}");
        }
        assert!(!lets("off", "hyper", Level::ERROR));
        assert!(!lets("hyper=trace", "cloudbeds_auth_proxy", Level::ERROR));
        assert!(lets("hyper::client=trace,hyper=off", "hyper::client::pool", Level::TRACE));
        assert!(!lets("hyper::client=trace,hyper=off", "hyper::server", Level::ERROR));
    }

    #[test]
    fn what_is_neither_a_level_nor_a_module_with_one_is_refused() {
        for directives in ["", " , ", "inof", "hyper", "info,hyper=loud", "hyper=", "=info", "a=b=c", "[span]=info"] {
            assert_eq!(directives.parse::<LogFilter>(), Err(NotALogFilter), "{directives}");
        }
        // What it offers instead is taken.
        assert!(NotALogFilter.to_string().contains("info,hyper=warn"));
        assert!(lets("info,hyper=warn", "hyper", Level::WARN));
    }
}
