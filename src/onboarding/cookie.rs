//! The cookie that tells one browser from another.
//!
//! In: a request's `Cookie` lines, or a fresh value. Out: the [`Token`] in it, or a `Set-Cookie` value. The prefix
//! `__Host-` has the browser accept it from this very host over TLS only (RFC 6265bis 4.1.3.2), so no neighbouring host
//! can plant one. A rehearsal on loopback without TLS uses a plain one.

use http::HeaderMap;
use http::header::COOKIE;

use super::state::LIFE;
use super::token::Token;

/// How this process names and guards its cookie.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Jar {
    /// The public address is https.
    Guarded,
    /// It is http on loopback.
    Rehearsal,
}

impl Jar {
    fn name(self) -> &'static str {
        match self {
            Self::Guarded => "__Host-cloudbeds-connect",
            Self::Rehearsal => "cloudbeds-connect",
        }
    }

    /// A `Set-Cookie` value. Lax, since the browser comes back from Cloudbeds' site by following a redirect, and is to
    /// show it then; but not when another site embeds ours or posts to it.
    pub(super) fn set(self, token: &Token) -> String {
        let secure = if self == Self::Guarded { "; Secure" } else { "" };
        let (name, value, life) = (self.name(), token.text(), LIFE.as_secs());
        format!("{name}={value}; Path=/; Max-Age={life}; HttpOnly; SameSite=Lax{secure}")
    }

    /// The value the browser shows, if it is in the form of ours.
    pub(super) fn shown(self, headers: &HeaderMap) -> Option<Token> {
        let lines = headers.get_all(COOKIE).into_iter().filter_map(|line| line.to_str().ok());
        let mut values = lines
            .flat_map(|line| line.split(';'))
            .filter_map(|pair| pair.trim().strip_prefix(self.name())?.strip_prefix('='))
            .filter_map(Token::parse);
        let first = values.next();
        // Two of one name come from two places, and one of them is not us.
        if values.next().is_some() { None } else { first }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(jar: Jar, lines: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(COOKIE, line.parse().unwrap());
        }
        jar.shown(&headers).map(|token| token.text())
    }

    #[test]
    fn the_cookie_is_guarded_where_there_is_tls() {
        let token = Token::random().unwrap();
        let set = Jar::Guarded.set(&token);
        assert!(set.starts_with("__Host-cloudbeds-connect="), "{set}");
        for attribute in ["; Path=/", "; Max-Age=600", "; HttpOnly", "; SameSite=Lax", "; Secure"] {
            assert!(set.contains(attribute), "{set}");
        }
        assert!(!set.contains("Domain"));
        let set = Jar::Rehearsal.set(&token);
        assert!(set.starts_with("cloudbeds-connect=") && !set.contains("Secure"), "{set}");
    }

    #[test]
    fn one_cookie_of_ours_is_read_and_two_are_none() {
        let value = Token::random().unwrap().text();
        let pair = format!("__Host-cloudbeds-connect={value}");
        assert_eq!(shown(Jar::Guarded, &[&format!("a=b; {pair}; c=d")]), Some(value.clone()));
        assert_eq!(shown(Jar::Guarded, &["a=b", &pair]), Some(value.clone()));
        assert_eq!(shown(Jar::Guarded, &[&pair, &pair]), None);
        assert_eq!(shown(Jar::Guarded, &[&format!("cloudbeds-connect={value}")]), None);
        assert_eq!(shown(Jar::Guarded, &["__Host-cloudbeds-connect=short"]), None);
        assert_eq!(shown(Jar::Guarded, &[]), None);
    }
}
