//! Where a Redis server is: `redis://` or `rediss://`, parsed once.
//!
//! In: a text from the configuration. Out: a [`RedisUrl`] with host, port, database and perhaps a user, whose host can be
//! dialled and, for `rediss://`, verified. There is never a password in it, and no error quotes its input, since that
//! may hold one.

use std::fmt;
use std::str::FromStr;

use crate::origin::Origin;

/// Where a Redis server is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RedisUrl {
    /// Host and port, in the form that the dialer takes, whatever is spoken there.
    pub server: Origin,
    /// Whether the connection is encrypted and the server's certificate verified.
    pub tls: bool,
    /// The ACL user, if the URL names one.
    pub user: Option<String>,
    /// The number of the database.
    pub database: u16,
}

/// Why a text is no URL of a Redis server, in words that say what to write instead.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotARedisUrl {
    /// Another scheme, or none.
    #[error("not the URL of a Redis server; write it like redis://127.0.0.1:6379, or rediss:// for TLS")]
    NotRedis,
    /// It holds a password.
    #[error("holds a password, which belongs in a file of its own")]
    Password,
    /// The user's name is empty, or needs an encoding.
    #[error("the user's name may hold letters, digits, `-`, `_` and `.` only")]
    User,
    /// Something else than a number stands behind the slash.
    #[error("behind the host only the number of a database may stand, such as /0")]
    Database,
}

impl FromStr for RedisUrl {
    type Err = NotARedisUrl;

    fn from_str(text: &str) -> Result<Self, NotARedisUrl> {
        let (scheme, rest) = text.split_once("://").ok_or(NotARedisUrl::NotRedis)?;
        let tls = match scheme {
            "redis" => false,
            "rediss" => true,
            _ => return Err(NotARedisUrl::NotRedis),
        };
        // A password may hold any character, also `/` and `@`: whatever stands before the last `@` is no host.
        let (user, rest) = match rest.rsplit_once('@') {
            Some((user, _)) if user.contains(':') => return Err(NotARedisUrl::Password),
            Some((user, rest)) => (Some(user), rest),
            None => (None, rest),
        };
        if user.is_some_and(|user| !is_user(user)) {
            return Err(NotARedisUrl::User);
        }
        let (host, database) = rest.split_once('/').unwrap_or((rest, ""));
        let database = if database.is_empty() { Ok(0) } else { database.parse() };
        let port = if host.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']')) { "" } else { ":6379" };
        let server = format!("https://{host}{port}").parse().map_err(|_| NotARedisUrl::NotRedis)?;
        let database = database.map_err(|_| NotARedisUrl::Database)?;
        Ok(Self { server, tls, user: user.map(str::to_owned), database })
    }
}

/// Whether a text can be the name of an ACL user as we write it.
#[must_use]
pub fn is_user(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, port) = (if self.tls { "rediss" } else { "redis" }, self.server.port());
        write!(out, "{scheme}://{}:{port}", self.server.authority().host())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_named_by_scheme_host_port_user_and_database() {
        for (text, shown, tls, user, database) in [
            ("redis://127.0.0.1", "redis://127.0.0.1:6379", false, None, 0),
            ("rediss://cache.example.com:6380/2", "rediss://cache.example.com:6380", true, None, 2),
            ("redis://proxy@[::1]:7000/", "redis://[::1]:7000", false, Some("proxy"), 0),
            ("rediss://[::1]", "rediss://[::1]:6379", true, None, 0),
        ] {
            let url: RedisUrl = text.parse().unwrap();
            assert_eq!((url.to_string().as_str(), url.tls, url.database), (shown, tls, database), "{text}");
            assert_eq!(url.user.as_deref(), user, "{text}");
        }
    }

    #[test]
    fn passwords_and_other_things_are_refused() {
        for (text, why) in [
            ("127.0.0.1:6379", NotARedisUrl::NotRedis),
            ("http://127.0.0.1", NotARedisUrl::NotRedis),
            ("redis://", NotARedisUrl::NotRedis),
            ("redis://host:x", NotARedisUrl::NotRedis),
            ("redis://:secret@host", NotARedisUrl::Password),
            ("redis://user:se/cr@et@host:1/0", NotARedisUrl::Password),
            ("redis://a%20b@host", NotARedisUrl::User),
            ("redis://@host", NotARedisUrl::User),
            ("redis://host/zero", NotARedisUrl::Database),
            ("redis://host/0?protocol=3", NotARedisUrl::Database),
        ] {
            assert_eq!(text.parse::<RedisUrl>().err(), Some(why), "{text}");
        }
    }
}
