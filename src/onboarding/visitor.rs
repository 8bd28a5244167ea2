//! Who is asking: a browser that somebody looks at, or something that only fetches.
//!
//! In: a request's method and headers. Out: a [`Visitor`]. Browsers fetch ahead, chat programs fetch links to show a
//! preview, mail scanners fetch them to look for harm: none of them is the user, and none may begin or end a connection.

use http::header::USER_AGENT;
use http::{HeaderMap, Method};

/// Who is asking.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Visitor {
    /// A page that somebody is about to see.
    Person,
    /// A browser that fetches ahead and comes back if somebody really goes there.
    Ahead,
    /// HEAD, or a page of another site that embeds this address.
    Fetch,
    /// By its name a program that previews links. It may be an app's own browser with a person before it, so it is asked
    /// to say so.
    Program,
}

/// Parts of the names of programs that fetch links for previews, in lower case. A list can never be whole; a program
/// that is missing here begins a connection that nobody goes on with, which ten minutes later is forgotten.
const PREVIEWS: [&str; 12] = [
    "bot",
    "preview",
    "crawl",
    "spider",
    "facebookexternalhit",
    "whatsapp",
    "slack",
    "embedly",
    "skypeuri",
    "scanner",
    "urlresolver",
    "mattermost",
];

impl Visitor {
    pub(super) fn of(method: &Method, headers: &HeaderMap) -> Self {
        let says = |name: &str, word: &str| {
            let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
            values.into_iter().any(|value| value.to_ascii_lowercase().contains(word))
        };
        // Sec-Purpose is the standard's name (Fetch, "Sec-Purpose header"), the others came before it.
        let ahead = ["sec-purpose", "purpose", "x-purpose", "x-moz"];
        if ahead.iter().any(|name| says(name, "prefetch") || says(name, "prerender") || says(name, "preview")) {
            return Self::Ahead;
        }
        // Browsers say what they fetch for (Fetch Metadata); a page that somebody goes to is a document.
        let embedded = headers.contains_key("sec-fetch-dest") && !says("sec-fetch-dest", "document");
        if method == Method::HEAD || embedded {
            return Self::Fetch;
        }
        let program = PREVIEWS.iter().any(|name| says(USER_AGENT.as_str(), name));
        if program { Self::Program } else { Self::Person }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: Method, headers: &[(&'static str, &str)], visitor: Visitor) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        assert_eq!(Visitor::of(&method, &map), visitor, "{method} {headers:?}");
    }

    #[test]
    fn only_a_person_may_begin_or_end_a_connection() {
        let firefox = ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0");
        check(Method::GET, &[], Visitor::Person);
        check(Method::GET, &[firefox], Visitor::Person);
        check(Method::GET, &[("sec-fetch-dest", "document"), ("sec-fetch-mode", "navigate")], Visitor::Person);
        check(Method::HEAD, &[firefox], Visitor::Fetch);
        for dest in ["iframe", "image", "empty", "script"] {
            check(Method::GET, &[("sec-fetch-dest", dest)], Visitor::Fetch);
        }
        for (name, value) in [
            ("sec-purpose", "prefetch;prerender"),
            ("sec-purpose", "prefetch"),
            ("purpose", "prefetch"),
            ("x-moz", "prefetch"),
            ("x-purpose", "preview"),
        ] {
            check(Method::GET, &[(name, value), ("sec-fetch-dest", "document")], Visitor::Ahead);
        }
        for agent in [
            "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)",
            "WhatsApp/2.23.20.0",
            "facebookexternalhit/1.1",
            "Mozilla/5.0 (compatible; Googlebot/2.1)",
            "TelegramBot (like TwitterBot)",
        ] {
            check(Method::GET, &[("user-agent", agent)], Visitor::Program);
        }
    }
}
