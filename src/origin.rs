//! Where requests may go: an https origin, parsed once.
//!
//! In: a `base_url` from the configuration or a key file. Out: an [`Origin`] whose host can be dialled, verified
//! against a certificate and written into `Host`. There is no http form: a key never travels unencrypted.

use std::fmt;
use std::str::FromStr;

use http::HeaderValue;
use http::uri::{Authority, Scheme, Uri};
use rustls::pki_types::ServerName;

/// An https origin: host and port, without path, query, user or fragment.
#[derive(Clone, Debug)]
pub struct Origin {
    authority: Authority,
    host: HeaderValue,
    server_name: ServerName<'static>,
    port: u16,
}

/// Why a text is not an origin, in words that say what to write instead.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotAnOrigin {
    /// It does not parse as a URL at all.
    #[error("not a URL; write it like https://api.cloudbeds.com")]
    NotAUrl,
    /// The scheme is another one.
    #[error("must start with https://, since the key travels with every request")]
    NotHttps,
    /// There is more than scheme, host and port.
    #[error("must be scheme, host and port only, without path, query or user")]
    MoreThanAnOrigin,
    /// The host is no name and no address that a certificate could carry.
    #[error("the host is not a valid DNS name")]
    BadHost,
}

impl Origin {
    /// Host and port as they stand in `:authority`; the port only where it is not 443.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The same as a ready `Host` header value.
    #[must_use]
    pub fn host_header(&self) -> &HeaderValue {
        &self.host
    }

    /// The name a certificate must be valid for; also sent as SNI.
    #[must_use]
    pub fn server_name(&self) -> &ServerName<'static> {
        &self.server_name
    }

    /// The host alone, for name resolution: an IPv6 address stands without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        self.authority.host().trim_start_matches('[').trim_end_matches(']')
    }

    /// The TCP port, 443 unless the URL says otherwise.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for Origin {
    type Err = NotAnOrigin;

    fn from_str(text: &str) -> Result<Self, NotAnOrigin> {
        let lower = text.to_ascii_lowercase();
        let uri: Uri = lower.parse().map_err(|_| NotAnOrigin::NotAUrl)?;
        if uri.scheme() != Some(&Scheme::HTTPS) {
            return Err(if lower.contains("://") { NotAnOrigin::NotHttps } else { NotAnOrigin::NotAUrl });
        }
        let given = uri.authority().ok_or(NotAnOrigin::NotAUrl)?;
        // http::Uri cuts a fragment off silently, so it is looked for in the text.
        if uri.path() != "/" || uri.query().is_some() || given.as_str().contains('@') || text.contains('#') {
            return Err(NotAnOrigin::MoreThanAnOrigin);
        }
        let port = match given.port() {
            Some(port) if port.as_u16() != 0 => port.as_u16(),
            Some(_) => return Err(NotAnOrigin::NotAUrl),
            // Something stands behind the host, and it is no port.
            None if given.as_str() != given.host() => return Err(NotAnOrigin::NotAUrl),
            None => 443,
        };
        let host = given.host();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let server_name = ServerName::try_from(bare.to_owned()).map_err(|_| NotAnOrigin::BadHost)?;
        let written = if port == 443 { host.to_owned() } else { format!("{host}:{port}") };
        Ok(Self {
            authority: written.parse().map_err(|_| NotAnOrigin::BadHost)?,
            host: HeaderValue::from_str(&written).map_err(|_| NotAnOrigin::BadHost)?,
            server_name,
            port,
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "https://{}", self.authority)
    }
}

impl PartialEq for Origin {
    fn eq(&self, other: &Self) -> bool {
        self.authority == other.authority
    }
}

impl Eq for Origin {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_host_and_port_over_https() {
        let origin: Origin = "https://API.cloudbeds.com/".parse().unwrap();
        assert_eq!(
            (origin.host(), origin.port(), origin.host_header().as_bytes()),
            ("api.cloudbeds.com", 443, &b"api.cloudbeds.com"[..])
        );
        let origin: Origin = "https://localhost:8443".parse().unwrap();
        assert_eq!(
            (origin.host(), origin.port(), origin.to_string().as_str()),
            ("localhost", 8443, "https://localhost:8443")
        );
        let origin: Origin = "https://[::1]:8443".parse().unwrap();
        assert_eq!((origin.host(), origin.port()), ("::1", 8443));
    }

    #[test]
    fn anything_more_or_less_is_refused() {
        for (text, why) in [
            ("http://api.cloudbeds.com", NotAnOrigin::NotHttps),
            ("api.cloudbeds.com", NotAnOrigin::NotAUrl),
            ("https://", NotAnOrigin::NotAUrl),
            ("https://api.cloudbeds.com/api", NotAnOrigin::MoreThanAnOrigin),
            ("https://api.cloudbeds.com?x", NotAnOrigin::MoreThanAnOrigin),
            ("https://api.cloudbeds.com#x", NotAnOrigin::MoreThanAnOrigin),
            ("https://user:pw@api.cloudbeds.com", NotAnOrigin::MoreThanAnOrigin),
            ("https://api.cloudbeds.com:0", NotAnOrigin::NotAUrl),
            ("https://api.cloudbeds.com:", NotAnOrigin::NotAUrl),
            ("https://api.cloudbeds.com:x", NotAnOrigin::NotAUrl),
            ("https://-bad-", NotAnOrigin::BadHost),
        ] {
            assert_eq!(text.parse::<Origin>().err(), Some(why), "{text}");
        }
    }
}
