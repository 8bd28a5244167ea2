//! One code for one key: the request, and what its answer means.
//!
//! In: an app and a code. Out: the key and what Cloudbeds says it opens, or a [`Refusal`]. The form is that of the API
//! Keys Authentication Guide, "Exchange your authorization_code for an API key". It is sent once: a code that may have
//! reached Cloudbeds is never sent again. Neither code nor secret is in any error.

use std::borrow::Cow;

use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::outcome::Outcome;
use super::token::Token;
use crate::property::PropertyId;
use crate::secret::ApiKey;
use crate::wire::mask;

/// What makes an `access_token` call one for an API key.
const GRANT: &str = "urn:ietf:params:oauth:grant-type:api-key";

/// The longest code accepted, in bytes; those of the guide have 32 and 43.
const CODE_MAX: usize = 512;

/// The longest words of Cloudbeds' own that are logged, in bytes.
const WORDS_MAX: usize = 200;

/// Letters and digits in a row that could be a code or a secret are not logged, whoever sent them.
const RUN_MAX: usize = 20;

/// A code from a query: visible ASCII, which no form has to escape. It is wiped when dropped.
#[derive(Clone)]
pub(super) struct Code(Zeroizing<String>);

impl Code {
    /// Nothing when it cannot be one.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let good = !text.is_empty() && text.len() <= CODE_MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
        good.then(|| Self(Zeroizing::new(text.to_owned())))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A form with its content type.
pub(super) struct Form {
    pub(super) content_type: String,
    /// It holds the secret and the code, and is wiped when dropped.
    pub(super) body: Zeroizing<Vec<u8>>,
}

/// The form that exchanges a code. `secret` is the app's.
///
/// # Errors
/// When the system has no random numbers for the boundary.
pub(super) fn form(client_id: &str, secret: &str, redirect_uri: &str, code: &Code) -> Result<Form, getrandom::Error> {
    #[cfg(debug_assertions)]
    crate::telemetry::panic::if_a_test_asks("exchange", || format!("{secret} {}", code.as_str()));
    // Random, so no field can hold it (RFC 2046 5.1.1); base64url is allowed in a boundary.
    let boundary = format!("form-{}", Token::random()?.text());
    let fields = [
        ("grant_type", GRANT),
        ("client_id", client_id),
        ("client_secret", secret),
        ("redirect_uri", redirect_uri),
        ("code", code.as_str()),
    ];
    let head = |name: &str| format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n");
    let end = format!("--{boundary}--\r\n");
    // As long as it has to be from the start: a buffer that grows leaves a copy of the secret behind.
    let room = fields.iter().map(|(name, value)| head(name).len() + value.len() + 2).sum::<usize>() + end.len();
    let mut body = Zeroizing::new(Vec::with_capacity(room));
    for (name, value) in fields {
        for piece in [head(name).as_str(), value, "\r\n"] {
            body.extend_from_slice(piece.as_bytes());
        }
    }
    body.extend_from_slice(end.as_bytes());
    debug_assert_eq!(body.len(), room);
    Ok(Form { content_type: format!("multipart/form-data; boundary={boundary}"), body })
}

/// What an exchange gave.
#[derive(Debug)]
pub(super) struct Granted {
    pub(super) key: ApiKey,
    /// The properties it opens, where Cloudbeds says so in `resources`; it need not.
    pub(super) properties: Vec<PropertyId>,
}

/// Why an exchange gave no key.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Refusal {
    /// The code is invalid, expired or used.
    Code,
    /// The app is not known, or its secret or redirect URI is another one. With Cloudbeds' own words, if they can be
    /// shown.
    SetUp(Option<String>),
    /// Anything else: the code may have been used up.
    Unclear(StatusCode),
}

impl Refusal {
    pub(super) fn outcome(&self, asked: Option<PropertyId>) -> Outcome {
        match self {
            Self::Code => Outcome::CodeRefused { asked },
            Self::SetUp(_) => Outcome::SetUp { asked },
            Self::Unclear(_) => Outcome::Unclear { asked },
        }
    }
}

#[derive(Deserialize)]
struct Good<'a> {
    #[serde(borrow)]
    access_token: Cow<'a, str>,
    #[serde(default)]
    resources: Value,
}

#[derive(Default, Deserialize)]
struct Bad {
    #[serde(default)]
    error: String,
    #[serde(default)]
    error_description: String,
    #[serde(default)]
    message: String,
}

/// What an answer means.
pub(super) fn read(status: StatusCode, body: &[u8]) -> Result<Granted, Refusal> {
    if status.is_success() {
        let good: Good<'_> = serde_json::from_slice(body).map_err(|_| Refusal::Unclear(status))?;
        let key = ApiKey::parse(&good.access_token).map_err(|_| Refusal::Unclear(status))?;
        return Ok(Granted { key, properties: properties(&good.resources) });
    }
    // 408 and 429 say nothing of the code.
    let about_us =
        status.is_client_error() && status != StatusCode::REQUEST_TIMEOUT && status != StatusCode::TOO_MANY_REQUESTS;
    let Some(bad) = about_us.then(|| serde_json::from_slice::<Bad>(body).unwrap_or_default()) else {
        return Err(Refusal::Unclear(status));
    };
    let words = if bad.error_description.is_empty() { bad.message } else { bad.error_description };
    // "The authorization code is invalid or has expired." (the guide), or RFC 6749 5.2's name for it.
    if bad.error == "invalid_grant" || words.to_ascii_lowercase().contains("authorization code") {
        return Err(Refusal::Code);
    }
    Err(Refusal::SetUp(shown(&words)))
}

/// `resources` as far as it names properties: `[{"type": "property", "id": …}]`, numbers as text or not.
fn properties(resources: &Value) -> Vec<PropertyId> {
    let named = resources.as_array().into_iter().flatten().filter(|resource| resource["type"] == "property");
    let ids = named.filter_map(|resource| match &resource["id"] {
        Value::String(id) => id.parse().ok(),
        Value::Number(id) => id.to_string().parse().ok(),
        _ => None,
    });
    ids.collect()
}

/// Cloudbeds' words for the log, unless they are long, empty, or could repeat a code or a secret.
fn shown(words: &str) -> Option<String> {
    let plain = words.len() <= WORDS_MAX && words.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    let parts = words.split(|letter: char| !letter.is_ascii_alphanumeric() && !"-_".contains(letter));
    let harmless = parts.map(str::len).max().is_some_and(|longest| longest > 0 && longest < RUN_MAX);
    (plain && harmless && mask::value(words.as_bytes()).is_none()).then(|| words.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE_INVALID: &[u8] =
        br#"{"error":"server_error","error_description":"The authorization code is invalid or has expired."}"#;
    const CLIENT_UNKNOWN: &[u8] =
        br#"{"error":"server_error","error_description":"Entity not found: CloudBeds\\MyFrontDesk\\API\\Models\\Client"}"#;

    #[test]
    fn the_form_is_that_of_the_guide() {
        let code = Code::parse("mQB4BivWyIb-z2tqRj9JgXEwFGGvrSSp7NhZbW4r2IQ").unwrap();
        let form = form("myOwnApp", "s3cret", "https://example.com/api_key", &code).unwrap();
        let boundary = form.content_type.strip_prefix("multipart/form-data; boundary=").unwrap();
        assert!(boundary.len() <= 70);
        let text = String::from_utf8(form.body.to_vec()).unwrap();
        let parts: Vec<&str> = text.split(&format!("--{boundary}")).collect();
        assert_eq!((parts.len(), parts[0], parts[6]), (7, "", "--\r\n"));
        for (part, (name, value)) in parts[1..6].iter().zip([
            ("grant_type", "urn:ietf:params:oauth:grant-type:api-key"),
            ("client_id", "myOwnApp"),
            ("client_secret", "s3cret"),
            ("redirect_uri", "https://example.com/api_key"),
            ("code", "mQB4BivWyIb-z2tqRj9JgXEwFGGvrSSp7NhZbW4r2IQ"),
        ]) {
            assert_eq!(*part, format!("\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"));
        }
    }

    #[test]
    fn a_key_comes_with_or_without_what_it_opens() {
        let alone = read(StatusCode::OK, br#"{"access_token":"cbat_blue"}"#).unwrap();
        assert!(alone.properties.is_empty());
        for resources in [
            r#"[{"type":"property","id":"1003"},{"type":"association","id":"7"}]"#,
            r#"[{"type":"property","id":1003}]"#,
        ] {
            let body = format!(r#"{{"access_token":"cbat_blue","token_type":"x","resources":{resources}}}"#);
            assert_eq!(read(StatusCode::OK, body.as_bytes()).unwrap().properties, ["1003".parse().unwrap()]);
        }
        let odd = read(StatusCode::OK, br#"{"access_token":"cbat_blue","resources":"all of them"}"#).unwrap();
        assert!(odd.properties.is_empty());
    }

    fn check(status: u16, body: &[u8], refusal: Refusal) {
        assert_eq!(read(StatusCode::from_u16(status).unwrap(), body).err(), Some(refusal));
    }

    #[test]
    fn a_refusal_is_about_the_code_about_us_or_about_nothing_known() {
        let unclear = |status| Refusal::Unclear(StatusCode::from_u16(status).unwrap());
        check(401, CODE_INVALID, Refusal::Code);
        check(400, br#"{"error":"invalid_grant"}"#, Refusal::Code);
        let words = r"Entity not found: CloudBeds\MyFrontDesk\API\Models\Client";
        check(401, CLIENT_UNKNOWN, Refusal::SetUp(Some(words.to_owned())));
        check(404, b"<html>Page not found</html>", Refusal::SetUp(None));
        check(429, CODE_INVALID, unclear(429));
        check(500, CODE_INVALID, unclear(500));
        check(302, b"", unclear(302));
        check(200, br#"{"success":false,"message":"no"}"#, unclear(200));
        check(200, br#"{"access_token":"eyJhbGciOi"}"#, unclear(200));
    }

    #[test]
    fn what_could_repeat_a_code_or_a_secret_is_not_logged() {
        for bad in [
            "",
            " ",
            "code mQB4BivWyIb-z2tqRj9JgXEwFGGvrSSp7NhZbW4r2IQ is bad",
            "a\nb",
            "ä",
            "cbat_short",
            &"a ".repeat(200),
        ] {
            assert_eq!(shown(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_code_is_plain_and_not_endless() {
        for bad in ["", "a b", "a\r\nb", "ä", &"a".repeat(513)] {
            assert!(Code::parse(bad).is_none());
        }
        assert_eq!(Code::parse("ob7/+=-_").unwrap().as_str(), "ob7/+=-_");
    }
}
