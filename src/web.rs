//! Addresses of the web: where browsers are sent, and where a code is exchanged for a key.
//!
//! In: text from the configuration. Out: a [`WebUrl`] or an [`Endpoint`], kept as written. Nothing of them ever comes
//! from a request.

use std::fmt;
use std::str::FromStr;

use http::Uri;
use http::uri::Scheme;

use crate::origin::{NotAnOrigin, Origin};

/// An address for a browser: https, or http on this host for trying things out. No user, query or fragment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WebUrl {
    written: String,
    path: String,
    https: bool,
}

/// An https address to send a request of our own to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Endpoint {
    origin: Origin,
    path: String,
}

/// The text is no such address. The error does not quote it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "expected an address such as https://connect.example.com/api_key, without user, query or fragment \
     (http only for localhost)"
)]
pub struct NotAWebUrl;

impl WebUrl {
    /// Exactly as it was written: Cloudbeds compares a redirect URI letter by letter.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.written
    }

    /// Its path, `/` at least.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether it is https; a cookie's `__Host-` prefix needs that.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.https
    }
}

impl Endpoint {
    /// Whom to dial.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The path to ask for, `/` at least.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

fn parse(text: &str) -> Result<Uri, NotAWebUrl> {
    // http::Uri cuts a fragment off silently, so it is looked for in the text.
    let plain = text.bytes().all(|byte| byte.is_ascii_graphic()) && !text.contains(['#', '@', '?', '\\', '*']);
    let uri: Uri = text.parse().map_err(|_| NotAWebUrl)?;
    let host = uri.host().is_some_and(|host| !host.is_empty());
    if plain && host && uri.scheme().is_some() { Ok(uri) } else { Err(NotAWebUrl) }
}

impl FromStr for WebUrl {
    type Err = NotAWebUrl;

    fn from_str(text: &str) -> Result<Self, NotAWebUrl> {
        let uri = parse(text)?;
        let https = uri.scheme() == Some(&Scheme::HTTPS);
        let here = matches!(uri.host(), Some("localhost" | "127.0.0.1" | "[::1]"));
        let trial = here && uri.scheme() == Some(&Scheme::HTTP);
        if !(https || trial) {
            return Err(NotAWebUrl);
        }
        Ok(Self { written: text.to_owned(), path: uri.path().to_owned(), https })
    }
}

impl FromStr for Endpoint {
    type Err = NotAWebUrl;

    fn from_str(text: &str) -> Result<Self, NotAWebUrl> {
        let uri = parse(text)?;
        let authority = uri.authority().ok_or(NotAWebUrl)?;
        let scheme = uri.scheme_str().unwrap_or_default();
        let origin = format!("{scheme}://{authority}").parse().map_err(|_: NotAnOrigin| NotAWebUrl)?;
        Ok(Self { origin, path: uri.path().to_owned() })
    }
}

impl fmt::Display for WebUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.written)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}{}", self.origin, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_is_sent_over_https_or_to_this_host() {
        let url: WebUrl = "https://Connect.example.com:8443/api_key".parse().unwrap();
        let parts = (url.as_str(), url.path(), url.is_https());
        assert_eq!(parts, ("https://Connect.example.com:8443/api_key", "/api_key", true));
        let url: WebUrl = "http://localhost:8081".parse().unwrap();
        assert_eq!((url.to_string().as_str(), url.path(), url.is_https()), ("http://localhost:8081", "/", false));
        for bad in [
            "",
            "x",
            "https://",
            "http://connect.example.com/",
            "ftp://localhost/",
            "https://a.test/?b",
            "https://a.test/#b",
            "https://u@a.test/",
            "https://*.a.test/",
            "https://a.test/ b",
            "/api_key",
        ] {
            assert_eq!(bad.parse::<WebUrl>(), Err(NotAWebUrl), "{bad}");
        }
    }

    #[test]
    fn a_code_is_exchanged_over_https_only() {
        let endpoint: Endpoint = "https://hotels.cloudbeds.com/api/v1.1/access_token".parse().unwrap();
        assert_eq!((endpoint.origin().host(), endpoint.path()), ("hotels.cloudbeds.com", "/api/v1.1/access_token"));
        assert_eq!(endpoint.to_string(), "https://hotels.cloudbeds.com/api/v1.1/access_token");
        for bad in ["http://localhost/token", "https://a.test/?b", "https://u@a.test/"] {
            assert_eq!(bad.parse::<Endpoint>(), Err(NotAWebUrl), "{bad}");
        }
    }
}
