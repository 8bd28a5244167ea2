//! Names and values of a query or a form.
//!
//! In: `a=1&b[0][c]=2`, percent-encoded. Out: [`Pairs`], in order. Nothing here fails: what is absent or unreadable is
//! absent.

use std::str::FromStr;
use std::time::Duration;

/// The decoded pairs.
pub(super) struct Pairs(Vec<(String, String)>);

impl Pairs {
    pub(super) fn parse(text: &[u8]) -> Self {
        Self(form_urlencoded::parse(text).into_owned().collect())
    }

    /// The first value of a name; an empty one counts as absent, as it does in PHP's `empty()`.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    pub(super) fn number<N: FromStr>(&self, name: &str) -> Option<N> {
        self.get(name)?.parse().ok()
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), Some("1" | "true"))
    }

    pub(super) fn millis(&self, name: &str) -> Option<Duration> {
        self.number(name).map(Duration::from_millis)
    }

    /// One field of each row of a PHP array: `rooms[0][roomTypeID]`, `rooms[1][roomTypeID]`, …
    pub(super) fn column<'a>(&'a self, array: &'a str, field: &'a str) -> impl Iterator<Item = &'a str> {
        (0..).map_while(move |row: usize| self.get(&format!("{array}[{row}][{field}]")))
    }
}

impl FromIterator<(String, String)> for Pairs {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_read_as_php_would() {
        let form = Pairs::parse(b"a=1&rooms%5B0%5D%5Bid%5D=x&rooms[1][id]=y+z&empty=&a=2");
        assert_eq!(form.get("a"), Some("1"));
        assert_eq!(form.get("empty"), None);
        assert_eq!(form.column("rooms", "id").collect::<Vec<_>>(), ["x", "y z"]);
    }
}
