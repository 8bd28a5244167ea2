//! What is wrong with a file or a variable, told to the person who can mend it.
//!
//! In: a place, the option concerned, fixed words. Out: one line of text that reads alone. A [`Fault`] never holds a
//! value from the file it is about: a mistyped key is still a key, and faults end up in logs.

use std::fmt;

/// The most faults told about one file; whoever has more has made one mistake many times.
pub const FAULTS_MAX: usize = 20;

/// One thing to mend, such as `config.yaml:3:9: upstream.timeouts.connect: expected a duration such as 5s — …`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fault {
    /// The file as the user named it, or the environment variable.
    pub source: String,
    /// The line, counted from 1, where one is known.
    pub line: Option<usize>,
    /// The column in characters, counted from 1, where one is known.
    pub column: Option<usize>,
    /// The option concerned, such as `upstream.timeouts.connect`; empty for the file as a whole.
    pub path: String,
    /// What is wrong, without quoting what was written.
    pub message: String,
    /// What to do about it; empty when the message says so already.
    pub hint: String,
}

impl Fault {
    /// A fault of `source` as a whole.
    pub fn new(source: impl Into<String>, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            source: source.into(),
            line: None,
            column: None,
            path: String::new(),
            message: message.into(),
            hint: hint.into(),
        }
    }

    /// The same at a place: line and column, both counted from 1.
    #[must_use]
    pub fn at(mut self, place: Option<(usize, usize)>) -> Self {
        self.line = place.map(|(line, _)| line);
        self.column = place.map(|(_, column)| column);
        self
    }

    /// The same about one option.
    #[must_use]
    pub fn about(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.source)?;
        for number in [self.line, self.column].into_iter().flatten() {
            write!(out, ":{number}")?;
        }
        out.write_str(": ")?;
        if !self.path.is_empty() {
            write!(out, "{}: ", self.path)?;
        }
        out.write_str(&self.message)?;
        if !self.hint.is_empty() {
            write!(out, " — {}", self.hint)?;
        }
        Ok(())
    }
}

impl std::error::Error for Fault {}

/// Letters and digits in a row, some of each, that could be a secret: those of a key are 32. A key that was copied without
/// its first letter has no `cbat` in it and is a secret all the same.
const RUN_MAX: usize = 20;

/// A name from a file in the form it may be shown in: one that could be a key pasted into the wrong place, or that is
/// no plain short word, is not shown at all.
#[must_use]
pub fn shown(name: &str) -> &str {
    let some = |run: &str, kind: fn(&u8) -> bool| run.bytes().any(|byte| kind(&byte));
    let random =
        |run: &str| run.len() >= RUN_MAX && some(run, u8::is_ascii_digit) && some(run, u8::is_ascii_alphabetic);
    let secret = name.split(|letter: char| !letter.is_ascii_alphanumeric()).any(random);
    if is_word(name) && !secret { name } else { "(name not shown)" }
}

/// Whether a name may stand for something in logs and metrics: a plain short word that is no key. It may be random: many
/// client ids are.
#[must_use]
pub fn is_word(name: &str) -> bool {
    let plain = name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_graphic());
    plain && !name.to_ascii_lowercase().contains("cbat")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_reads_alone() {
        let fault = Fault::new("config.yaml", "expected a duration such as 5s", "write a number and a unit")
            .about("drain.min")
            .at(Some((3, 9)));
        assert_eq!(
            fault.to_string(),
            "config.yaml:3:9: drain.min: expected a duration such as 5s — write a number and a unit"
        );
        assert_eq!(Fault::new("keys.yaml", "is empty", "").to_string(), "keys.yaml: is empty");
    }

    #[test]
    fn a_name_that_could_be_a_key_is_not_shown() {
        assert_eq!(shown("lisen"), "lisen");
        for hidden in ["cbat_blue", "xCBAT_blue", "two words", "a\nb", &"a".repeat(65)] {
            assert_eq!(shown(hidden), "(name not shown)");
            assert!(!is_word(hidden), "{hidden}");
        }
    }

    #[test]
    fn a_key_that_lost_its_beginning_is_not_shown_either() {
        for hidden in ["bat_9T01SlwIQGq8HC56LYL8kXcBBp", "9T01SlwIQGq8HC56LYL8", "x.9t01slwiqgq8hc56lyl8/y"] {
            assert_eq!(shown(hidden), "(name not shown)");
        }
        for name in ["CLOUDBEDS_AUTH_PROXY__UPSTREAM__HTTP2", "18446744073709551615", "a_long_word_and_another_1"] {
            assert_eq!(shown(name), name);
        }
    }
}
