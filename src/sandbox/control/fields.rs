//! The named values of an act, however they were sent.
//!
//! In: a query, and a form or a flat JSON object. Out: names and texts, each taken once. A name that nobody asked for is
//! a mistake, and is said to be one.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use serde_json::Value;

/// Why an act cannot be done, in a sentence.
pub(super) type Mistake = String;

/// What is left of the values.
pub(super) struct Fields(BTreeMap<String, String>);

impl Fields {
    pub(super) fn read(query: &str, media: &str, body: &[u8]) -> Result<Self, Mistake> {
        let mut all = BTreeMap::new();
        let mut pairs: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        if media.starts_with("application/json") {
            let object: BTreeMap<String, Value> =
                serde_json::from_slice(body).map_err(|_| "the body is not a JSON object")?;
            for (name, value) in object {
                let text = match value {
                    Value::String(text) => text,
                    Value::Number(_) | Value::Bool(_) => value.to_string(),
                    Value::Null => continue,
                    _ => return Err(format!("`{name}` must be a text, a number or a truth value")),
                };
                pairs.push((name, text));
            }
        } else {
            pairs.extend(form_urlencoded::parse(body).into_owned());
        }
        for (name, value) in pairs {
            if all.contains_key(&name) {
                return Err(format!("`{name}` is given twice"));
            }
            // An empty input of a form is one that was not filled in.
            if !value.is_empty() {
                all.insert(name, value);
            }
        }
        Ok(Self(all))
    }

    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    pub(super) fn need(&mut self, name: &str) -> Result<String, Mistake> {
        self.take(name).ok_or_else(|| format!("`{name}` is missing"))
    }

    /// A value of another type than text.
    pub(super) fn parse<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, Mistake> {
        let parse = |text: String| text.parse().map_err(|_| format!("`{name}` cannot be read"));
        self.take(name).map(parse).transpose()
    }

    /// `1`, `true`, `on` and `yes`, or their opposites.
    pub(super) fn flag(&mut self, name: &str) -> Result<Option<bool>, Mistake> {
        match self.take(name).as_deref() {
            None => Ok(None),
            Some("1" | "true" | "on" | "yes") => Ok(Some(true)),
            Some("0" | "false" | "off" | "no") => Ok(Some(false)),
            Some(_) => Err(format!("`{name}` must be yes or no")),
        }
    }

    /// A number and a unit: `90s`, `11m`, `36h`, `31d`; a `+` before it is allowed.
    pub(super) fn duration(&mut self, name: &str) -> Result<Duration, Mistake> {
        let text = self.need(name)?;
        let text = text.trim_start_matches('+');
        let wrong = || format!("`{name}` must be a number and a unit (s, m, h or d), such as 31d");
        let unit = match text.bytes().last() {
            Some(b's') => 1,
            Some(b'm') => 60,
            Some(b'h') => 3600,
            Some(b'd') => 86_400,
            _ => return Err(wrong()),
        };
        let number: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
        Ok(Duration::from_secs(number.checked_mul(unit).ok_or_else(wrong)?))
    }

    /// That nothing is left.
    pub(super) fn end(self) -> Result<(), Mistake> {
        match self.0.into_keys().next() {
            None => Ok(()),
            Some(name) => Err(format!("`{name}` means nothing here")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_a_form_and_an_object_say_the_same() {
        let json = "application/json";
        let form = "application/x-www-form-urlencoded";
        for (query, media, body) in
            [("a=1&b=true&c=", "", ""), ("a=1", form, "b=true&c="), ("", json, r#"{"a":1,"b":true,"c":null}"#)]
        {
            let mut fields = Fields::read(query, media, body.as_bytes()).unwrap();
            assert_eq!(fields.parse("a"), Ok(Some(1_u32)));
            assert_eq!((fields.flag("b"), fields.take("c")), (Ok(Some(true)), None));
            assert_eq!(fields.end(), Ok(()));
        }
        for (query, media, body) in [("a=1&a=1", "", ""), ("", json, "[1]"), ("", json, r#"{"a":[1]}"#)] {
            assert!(Fields::read(query, media, body.as_bytes()).is_err(), "{query} {body}");
        }
    }

    #[test]
    fn a_time_is_a_number_and_a_unit() {
        let read = |text: &str| Fields::read(&format!("by={text}"), "", b"").unwrap().duration("by");
        for (text, seconds) in [("90s", 90), ("11m", 660), ("%2B2h", 7200), ("31d", 31 * 86_400)] {
            assert_eq!(read(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "5", "d", "-1d", "1.5d", "1w", "99999999999999999999d", "999999999999999999d"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
