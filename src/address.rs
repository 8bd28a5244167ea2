//! Where the proxy can be reached: a TCP address or a unix socket.
//!
//! In: text from the configuration. Out: an [`Address`] that can be bound. Names other than `localhost` are not
//! resolved: which network a listener stands on should not depend on a name server.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// A place to listen at.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Address {
    /// An IP address and a port; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// The path of a unix socket.
    Unix(PathBuf),
}

/// The text is no address. The error does not quote it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("an address such as 127.0.0.1:8080, [::1]:8080, localhost:8080 or unix:/run/proxy.sock")]
pub struct NotAnAddress;

impl Address {
    /// Whether only this host (or this pod) can reach it: a loopback address or a unix socket.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }

    /// Whether both cannot be listened at together: the same socket path, or the same port on addresses of which one
    /// includes the other.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(one), Self::Tcp(two)) => {
                let (a, b) = (one.ip().to_canonical(), two.ip().to_canonical());
                one.port() == two.port() && one.port() != 0 && (a == b || a.is_unspecified() || b.is_unspecified())
            }
            (one, two) => one == two,
        }
    }
}

impl FromStr for Address {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        if let Some(path) = text.strip_prefix("unix:") {
            let plain = !path.is_empty() && !path.ends_with('/') && !path.contains('\0');
            return plain.then(|| Self::Unix(PathBuf::from(path))).ok_or(NotAnAddress);
        }
        if let Some(port) = text.strip_prefix("localhost:") {
            let digits = port.bytes().all(|byte| byte.is_ascii_digit());
            let port = port.parse().ok().filter(|_| digits).ok_or(NotAnAddress)?;
            return Ok(Self::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)));
        }
        text.parse().map(Self::Tcp).map_err(|_| NotAnAddress)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(out),
            Self::Unix(path) => write!(out, "unix:{}", path.display()),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_reads_back_as_it_was_written() {
        for text in ["127.0.0.1:8080", "[::1]:8080", "0.0.0.0:0", "unix:/run/proxy.sock"] {
            assert_eq!(address(text).to_string(), text);
        }
        assert_eq!(address("localhost:8080"), address("127.0.0.1:8080"));
        for bad in
            ["", "8080", ":8080", "localhost", "localhost:+1", "127.0.0.1", "example.com:80", "unix:", "unix:/run/"]
        {
            assert_eq!(bad.parse::<Address>(), Err(NotAnAddress), "{bad}");
        }
    }

    #[test]
    fn only_loopback_and_unix_sockets_are_local() {
        for local in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "unix:/x"] {
            assert!(address(local).is_local(), "{local}");
        }
        for open in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1"] {
            assert!(!address(open).is_local(), "{open}");
        }
    }

    #[test]
    fn a_wildcard_address_overlaps_every_other_on_its_port() {
        assert!(address("0.0.0.0:1").overlaps(&address("127.0.0.1:1")));
        assert!(address("unix:/x").overlaps(&address("unix:/x")));
        assert!(!address("127.0.0.1:1").overlaps(&address("127.0.0.1:2")));
        assert!(!address("127.0.0.1:0").overlaps(&address("127.0.0.1:0")));
    }
}
