//! Field names as a lenient server may read them.
//!
//! In: a name in lower case, as the http crate has it. Out: what it becomes where underscores are folded to hyphens, as
//! CGI-style servers do: `x_api_key` is `x-api-key` to them (oauth2-proxy CVE-2025-64484, Traefik CVE-2026-39858).

use std::borrow::Cow;

/// The name with its underscores folded. Nearly no name has one, so nothing is copied.
#[must_use]
pub fn folded(name: &str) -> Cow<'_, str> {
    if has_underscore(name) { Cow::Owned(name.replace('_', "-")) } else { Cow::Borrowed(name) }
}

/// Whether `name` is not `plain`, but becomes it once it is folded.
#[must_use]
pub fn is_twin(name: &str, plain: &str) -> bool {
    name.len() == plain.len() && has_underscore(name) && folded(name) == plain
}

/// Every byte is looked at, without branches: for a name of a dozen bytes that is quicker than a search that stops.
fn has_underscore(name: &str) -> bool {
    name.bytes().fold(false, |found, byte| found | (byte == b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn underscores_are_folded_and_only_then_is_a_name_a_twin() {
        assert_eq!(folded("x-api-key"), "x-api-key");
        assert_eq!(folded("x_api-key_"), "x-api-key-");
        assert!(is_twin("x_property_id", "x-property-id") && is_twin("x-property_id", "x-property-id"));
        assert!(!is_twin("x-property-id", "x-property-id") && !is_twin("x_property_i", "x-property-id"));
    }
}
