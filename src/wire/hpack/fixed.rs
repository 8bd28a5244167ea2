//! The fields that HPACK knows from the start (RFC 7541 appendix A).
//!
//! In: an index, or a name. Out: the field, or the index of one with that name.

use http::{HeaderName, HeaderValue};

use super::Name;

/// One of them.
pub(super) struct Fixed {
    pub(super) name: Name,
    pub(super) value: HeaderValue,
}

impl Fixed {
    /// As RFC 7541 4.1 has it.
    pub(super) fn size(&self) -> usize {
        self.name.len() + self.value.len() + super::ENTRY
    }
}

const fn field(name: &'static str, value: &'static str) -> Fixed {
    Fixed { name: Name::Field(HeaderName::from_static(name)), value: HeaderValue::from_static(value) }
}

const fn status(value: &'static str) -> Fixed {
    Fixed { name: Name::Status, value: HeaderValue::from_static(value) }
}

/// A pseudo-field that belongs to requests.
const fn asked(value: &'static str) -> Fixed {
    Fixed { name: Name::Pseudo, value: HeaderValue::from_static(value) }
}

/// The first of them has the index 1.
pub(super) static FIXED: [Fixed; 61] = [
    asked(""),
    asked("GET"),
    asked("POST"),
    asked("/"),
    asked("/index.html"),
    asked("http"),
    asked("https"),
    status("200"),
    status("204"),
    status("206"),
    status("304"),
    status("400"),
    status("404"),
    status("500"),
    field("accept-charset", ""),
    field("accept-encoding", "gzip, deflate"),
    field("accept-language", ""),
    field("accept-ranges", ""),
    field("accept", ""),
    field("access-control-allow-origin", ""),
    field("age", ""),
    field("allow", ""),
    field("authorization", ""),
    field("cache-control", ""),
    field("content-disposition", ""),
    field("content-encoding", ""),
    field("content-language", ""),
    field("content-length", ""),
    field("content-location", ""),
    field("content-range", ""),
    field("content-type", ""),
    field("cookie", ""),
    field("date", ""),
    field("etag", ""),
    field("expect", ""),
    field("expires", ""),
    field("from", ""),
    field("host", ""),
    field("if-match", ""),
    field("if-modified-since", ""),
    field("if-none-match", ""),
    field("if-range", ""),
    field("if-unmodified-since", ""),
    field("last-modified", ""),
    field("link", ""),
    field("location", ""),
    field("max-forwards", ""),
    field("proxy-authenticate", ""),
    field("proxy-authorization", ""),
    field("range", ""),
    field("referer", ""),
    field("refresh", ""),
    field("retry-after", ""),
    field("server", ""),
    field("set-cookie", ""),
    field("strict-transport-security", ""),
    field("transfer-encoding", ""),
    field("user-agent", ""),
    field("vary", ""),
    field("via", ""),
    field("www-authenticate", ""),
];

/// The index of a field with this name, for those that requests have; 0 where there is none.
pub(super) fn index(name: &str) -> usize {
    match name {
        "accept-charset" => 15,
        "accept-encoding" => 16,
        "accept-language" => 17,
        "accept" => 19,
        "authorization" => 23,
        "cache-control" => 24,
        "content-encoding" => 26,
        "content-language" => 27,
        "content-length" => 28,
        "content-type" => 31,
        "date" => 33,
        "from" => 37,
        "if-match" => 39,
        "if-modified-since" => 40,
        "if-none-match" => 41,
        "if-unmodified-since" => 43,
        "referer" => 51,
        "user-agent" => 58,
        "via" => 60,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_index_at_which_they_stand() {
        let mut known = 0;
        for (at, fixed) in FIXED.iter().enumerate() {
            if let Name::Field(name) = &fixed.name
                && index(name.as_str()) > 0
            {
                assert_eq!(index(name.as_str()), at + 1, "{name}");
                known += 1;
            }
        }
        assert_eq!(known, 19);
    }
}
