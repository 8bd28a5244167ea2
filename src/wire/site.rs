//! Whether a request was sent by a page of another site, as browsers tell it.
//!
//! In: the fields of a request. Out: why it is a page's, or nothing. Two ways lead from a page to a listener on this host:
//! a plain request across sites, which browsers mark (`Origin`, Fetch Metadata), and a name of the page's own that is made
//! to resolve to 127.0.0.1 (DNS rebinding), which they do not: there only the name in `Host` tells. Applications use
//! many names, so only those are refused that a stranger can own: with a dot in them, and in no reserved domain.

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, HeaderName};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Domains in which no stranger can register a name (RFC 2606, 6761, 6762, 8375; `internal` by ICANN's resolution of
/// 2024).
const RESERVED: [&str; 10] = [
    "localhost",
    "local",
    "internal",
    "test",
    "example",
    "example.com",
    "example.net",
    "example.org",
    "invalid",
    "home.arpa",
];

/// The pages and names that are welcome all the same.
#[derive(Clone, Debug, Default)]
pub struct Sites {
    /// Names, without a port, in small letters.
    pub hosts: Vec<String>,
    /// Origins as browsers send them: `https://app.example.com`.
    pub origins: Vec<String>,
}

impl Sites {
    /// Whether a browser says that the request is not of a page of this listener.
    #[must_use]
    pub fn is_foreign(&self, headers: &HeaderMap) -> bool {
        let mut origins = headers.get_all(ORIGIN).iter().map(|origin| origin.as_bytes()).peekable();
        if origins.peek().is_some() {
            let host = headers.get(HOST).map(|host| host.as_bytes()).unwrap_or_default();
            return !origins.all(|origin| {
                let own = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://"));
                own.is_some_and(|own| own.eq_ignore_ascii_case(host))
                    || self.origins.iter().any(|known| known.as_bytes() == origin)
            });
        }
        headers.get(SEC_FETCH_SITE).is_some_and(|site| !matches!(site.as_bytes(), b"same-origin" | b"none"))
    }

    /// Whether the name in `Host` is one that a stranger can make resolve to this host.
    #[must_use]
    pub fn is_rebound(&self, headers: &HeaderMap) -> bool {
        let Some(host) = headers.get(HOST).map(|host| host.as_bytes()) else { return false };
        if host.first() == Some(&b'[') || memchr::memchr(b'.', host).is_none() {
            return false;
        }
        let name = host.split(|byte| *byte == b':').next().unwrap_or_default();
        let name = name.strip_suffix(b".").unwrap_or(name);
        let address = name.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.');
        let reserved = RESERVED.iter().any(|domain| {
            let at = name.len().checked_sub(domain.len());
            at.is_some_and(|at| name[at..].eq_ignore_ascii_case(domain.as_bytes()) && (at == 0 || name[at - 1] == b'.'))
        });
        !address && !reserved && !self.hosts.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn only_names_that_a_stranger_can_own_are_rebound() {
        let sites = Sites { hosts: vec!["proxy.hotel.com".to_owned()], ..Sites::default() };
        for host in [
            "127.0.0.1:8080",
            "127.0.0.1",
            "[::1]:8080",
            "localhost",
            "LOCALHOST:80",
            "proxy",
            "proxy:8080",
            "a.localhost",
            "a.b.test.",
            "a.home.arpa",
            "proxy.hotel.svc.cluster.local:8080",
            "example.com",
            "proxy.hotel.com:1",
            "Proxy.Hotel.com",
        ] {
            assert!(!sites.is_rebound(&headers(&[("host", host)])), "{host}");
        }
        for host in [
            "evil.com",
            "badexample.com",
            "evil.com:8080",
            "evil.com.",
            "127.0.0.1.evil.com",
            "xtest.com",
            "a.xtest",
            "1.2.3.4.nip.io",
        ] {
            assert!(sites.is_rebound(&headers(&[("host", host)])), "{host}");
        }
        assert!(!sites.is_rebound(&headers(&[])));
    }

    #[test]
    fn a_page_of_another_site_is_foreign() {
        let sites = Sites { origins: vec!["https://app.hotel.com".to_owned()], ..Sites::default() };
        let foreign = |lines: &[(&'static str, &'static str)]| {
            let host = [("host", "localhost:8080")];
            sites.is_foreign(&headers(&[&host[..], lines].concat()))
        };
        for lines in [
            &[][..],
            &[("origin", "http://localhost:8080")],
            &[("origin", "https://app.hotel.com"), ("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "same-origin")],
            &[("sec-fetch-site", "none")],
        ] {
            assert!(!foreign(lines), "{lines:?}");
        }
        for lines in [
            &[("origin", "https://evil.com")][..],
            &[("origin", "null")],
            &[("origin", "http://localhost:8081")],
            &[("origin", "https://app.hotel.com.evil.com")],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "same-site")],
        ] {
            assert!(foreign(lines), "{lines:?}");
        }
    }
}
