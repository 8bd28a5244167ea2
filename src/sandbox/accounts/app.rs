//! A partner's app, as it is registered with the vendor.
//!
//! In: what a partner enters in the App Details page. Out: an [`App`] whose redirect URI can be redirected to. The
//! settings follow the vendor's guide, "API key settings"; a partner may change them at any time.

use http::Uri;

/// A partner app. No `Debug`, since it holds the client secret.
#[derive(Clone)]
pub struct App {
    /// Issued by the vendor; the observed form is `live1_<property id>_<24 characters>`.
    pub client_id: String,
    /// Issued by the vendor; what the exchange proves the app with.
    pub client_secret: String,
    /// Where the browser takes the authorization code: https, or http on a loopback host for testing. Compared
    /// character by character.
    pub redirect_uri: String,
    /// What the consent page calls it.
    pub name: String,
    /// The permission scopes that the consent page lists, such as `read:hotel`.
    pub scopes: Vec<String>,
    /// How its keys arrive.
    pub delivery: Delivery,
    /// Whether the sandbox's marketplace lists it, where users start without a `state` of the app's.
    pub marketplace: bool,
    /// Where `integration/appstate_changed` of every hotel is sent, whoever else subscribes.
    pub webhook: Option<String>,
}

/// How an app gets its keys.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Delivery {
    /// By a code to the redirect URI, exchanged for the key.
    Automatic,
    /// By hand: a notice to this address, then "regenerate" in the list of keys.
    Email(String),
}

/// Why an app cannot be registered.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotAnApp {
    /// It has no client id or no secret.
    #[error("an app needs a client id and a client secret")]
    Unnamed,
    /// The redirect URI is relative, has a wildcard or a fragment, or is plain http to another host.
    #[error("a redirect URI is https (http on a loopback host), without a wildcard or a fragment")]
    RedirectUri,
}

impl App {
    /// An app with the scopes that most integrations ask for, and automatic delivery.
    #[must_use]
    pub fn new(client_id: &str, client_secret: &str, redirect_uri: &str) -> Self {
        let scopes = ["read:hotel", "read:reservation", "write:reservation", "read:guest", "read:room", "read:rate"];
        Self {
            client_id: client_id.to_owned(),
            client_secret: client_secret.to_owned(),
            redirect_uri: redirect_uri.to_owned(),
            name: "Demo App".to_owned(),
            scopes: scopes.iter().map(ToString::to_string).collect(),
            delivery: Delivery::Automatic,
            marketplace: true,
            webhook: None,
        }
    }

    /// Whether the vendor would register it.
    ///
    /// # Errors
    /// A [`NotAnApp`] for the first thing that is wrong.
    pub fn check(&self) -> Result<(), NotAnApp> {
        if self.client_id.is_empty() || self.client_secret.is_empty() {
            return Err(NotAnApp::Unnamed);
        }
        let uri: Uri = self.redirect_uri.parse().map_err(|_| NotAnApp::RedirectUri)?;
        let safe = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => uri.host().is_some_and(is_loopback),
            _ => false,
        };
        // `http::Uri` drops a fragment without a word.
        let odd = self.redirect_uri.contains(['*', '#']) || uri.authority().is_none();
        if safe && !odd { Ok(()) } else { Err(NotAnApp::RedirectUri) }
    }

    /// The redirect URI with these pairs added to its query.
    pub(in crate::sandbox) fn redirect(&self, pairs: &[(&str, &str)]) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(pairs);
        let joint = if self.redirect_uri.contains('?') { '&' } else { '?' };
        format!("{}{joint}{}", self.redirect_uri, query.finish())
    }
}

/// Whether a host can only be this machine.
pub(in crate::sandbox) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_uri_is_https_or_loopback_and_has_one_reading() {
        let check = |uri: &str| App::new("live1_1_x", "secret", uri).check();
        for good in ["https://a.example/api_key", "https://a.example/?a=1", "http://localhost:8081/x", "http://[::1]/x"]
        {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in ["", "/api_key", "http://a.example/x", "https://*.a.example/x", "https://a.example/#x", "ftp://a/b"]
        {
            assert_eq!(check(bad), Err(NotAnApp::RedirectUri), "{bad}");
        }
        assert_eq!(App::new("", "secret", "https://a.example/").check(), Err(NotAnApp::Unnamed));
    }

    #[test]
    fn code_and_state_are_added_to_the_query_that_is_there() {
        let redirect = |uri: &str| App::new("a", "b", uri).redirect(&[("code", "x y"), ("state", "z&")]);
        assert_eq!(redirect("https://a.example/k"), "https://a.example/k?code=x+y&state=z%26");
        assert_eq!(redirect("https://a.example/k?a=1"), "https://a.example/k?a=1&code=x+y&state=z%26");
    }
}
