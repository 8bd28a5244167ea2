//! `POST /api/keys/{property}`: a key that arrived by e-mail, pasted.
//!
//! In: a request with the admin token and a key, as text, JSON or a form. Out: what became of the key, as JSON without
//! it. Everything that may be refused without the key is refused before the body is read. Whoever has the token may
//! write keys and read none.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::{JSON, answer};
use crate::keys::paste::{self, PASTE_MAX};
use crate::property::PropertyId;
use crate::secret::{ApiKey, Token};
use crate::wire::server::Peer;

/// For the body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// What became of a key.
#[derive(Debug, Eq, PartialEq, Serialize)]
pub struct Pasted {
    /// Whose it is now.
    pub property: PropertyId,
    /// What Cloudbeds calls the hotel, where it says so.
    pub hotel: Option<String>,
    /// `added`, `replaced` or `unchanged`.
    pub key: &'static str,
    /// The first 32 bits of its digest, as `keys list` shows them.
    pub fingerprint: String,
    /// Whether calls go with it by now; if not, the log says why.
    pub in_force: bool,
}

/// Why nothing was written. The words say what to do, and nothing of the key.
#[derive(Debug, Eq, PartialEq)]
pub enum NotPasted {
    /// The key is of no use, or another property's.
    Key(String),
    /// Cloudbeds does not say whose the key is.
    Unverified(String),
    /// The key file cannot be written.
    NotWritten(String),
}

/// A request to paste on its way.
pub type Pasting<'a> = Pin<Box<dyn Future<Output = Result<Pasted, NotPasted>> + Send + 'a>>;

/// Who takes a key to the key file.
pub trait KeyDesk: Send + Sync + 'static {
    /// Asks Cloudbeds whose the key is, writes it down for the property, and brings it into force. The former key
    /// serves until then.
    fn put(&self, property: PropertyId, key: ApiKey) -> Pasting<'_>;
}

/// What it takes to paste keys.
#[derive(Clone)]
pub struct Paste {
    /// What a request must show.
    pub token: Token,
    /// Who does the work.
    pub desk: Arc<dyn KeyDesk>,
}

/// A refusal: its status, its stable word, and what to do.
struct Refusal(StatusCode, &'static str, String);

impl Refusal {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self(status, code, message.into())
    }
}

/// Answers the request; `property` is what its path names.
pub(super) async fn serve(paste: Option<&Paste>, property: &str, request: Request<Incoming>) -> Response<String> {
    match accept(paste, property, request).await {
        Ok(pasted) => answer(StatusCode::OK, JSON, text(&pasted)),
        Err(Refusal(status, code, message)) => {
            tracing::warn!(status = status.as_u16(), code, "a key was not taken on the admin listener");
            let mut refusal = answer(status, JSON, text(&serde_json::json!({ "code": code, "message": message })));
            if status == StatusCode::UNAUTHORIZED {
                refusal.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            refusal
        }
    }
}

async fn accept(paste: Option<&Paste>, property: &str, request: Request<Incoming>) -> Result<Pasted, Refusal> {
    let (parts, body) = request.into_parts();
    let Some(paste) = paste else {
        let words = "keys are not taken here; set admin.token_file, or use `keys add`";
        return Err(Refusal::new(StatusCode::FORBIDDEN, "paste_off", words));
    };
    if !parts.extensions.get::<Peer>().is_some_and(|Peer(peer)| is_local(*peer)) {
        let words = "keys are taken from this host only; use 127.0.0.1, or `kubectl port-forward`";
        return Err(Refusal::new(StatusCode::FORBIDDEN, "not_local", words));
    }
    if is_foreign(&parts.headers) {
        let words = "the request comes from another site's page";
        return Err(Refusal::new(StatusCode::FORBIDDEN, "foreign_origin", words));
    }
    if !shows(&parts.headers, &paste.token) {
        let words = "send `Authorization: Bearer` and the token from admin.token_file";
        return Err(Refusal::new(StatusCode::UNAUTHORIZED, "token_wrong", words));
    }
    let property = property.parse().map_err(|_| {
        Refusal::new(StatusCode::BAD_REQUEST, "property_invalid", "POST to /api/keys/ and the property's id, in digits")
    })?;
    let form = Form::of(&parts.headers).ok_or_else(|| {
        let words = "send the key as text/plain, as application/json {\"key\": …}, or as a form with the field `key`";
        Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media_type", words)
    })?;
    let text = read(body).await?;
    let key = form.key(&text).and_then(|key| {
        paste::key(&key)
            .map_err(|error| Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "key_invalid", error.to_string()))
    })?;
    paste.desk.put(property, key).await.map_err(|why| match why {
        NotPasted::Key(words) => Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "key_refused", words),
        NotPasted::Unverified(words) => Refusal::new(StatusCode::BAD_GATEWAY, "key_unverified", words),
        NotPasted::NotWritten(words) => Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "not_written", words),
    })
}

fn is_local(peer: SocketAddr) -> bool {
    peer.ip().to_canonical().is_loopback()
}

/// Whether a browser says that the request is not from a page of this listener (Fetch Metadata, RFC 6454).
fn is_foreign(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    if site.is_some_and(|site| site != b"same-origin" && site != b"none") {
        return true;
    }
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let host = headers.get(HOST).map(HeaderValue::as_bytes).unwrap_or_default();
    let own = origin.as_bytes().strip_prefix(b"http://").or(origin.as_bytes().strip_prefix(b"https://"));
    own != Some(host)
}

/// Whether the request shows the token (RFC 6750 2.1), once.
fn shows(headers: &HeaderMap, token: &Token) -> bool {
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return false };
    let Some((scheme, shown)) = line.as_bytes().split_at_checked(7) else { return false };
    scheme.eq_ignore_ascii_case(b"bearer ") && token.is(shown)
}

/// How the key is written in the body.
#[derive(Clone, Copy)]
enum Form {
    Text,
    Json,
    Fields,
}

impl Form {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let media = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok())?;
        let essence = media.split(';').next().unwrap_or_default().trim();
        [
            ("text/plain", Self::Text),
            ("application/json", Self::Json),
            ("application/x-www-form-urlencoded", Self::Fields),
        ]
        .into_iter()
        .find_map(|(name, form)| essence.eq_ignore_ascii_case(name).then_some(form))
    }

    /// The part of the body that is to be the key.
    fn key(self, body: &str) -> Result<Zeroizing<String>, Refusal> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Sent {
            key: String,
        }
        let wrong = || Refusal::new(StatusCode::BAD_REQUEST, "body_invalid", "send one field, `key`");
        match self {
            Self::Text => Ok(Zeroizing::new(body.to_owned())),
            Self::Json => serde_json::from_str(body).map(|Sent { key }| Zeroizing::new(key)).map_err(|_| wrong()),
            Self::Fields => {
                let mut fields = form_urlencoded::parse(body.as_bytes());
                match (fields.next(), fields.next()) {
                    (Some((name, key)), None) if name == "key" => Ok(Zeroizing::new(key.into_owned())),
                    _ => Err(wrong()),
                }
            }
        }
    }
}

async fn read(body: Incoming) -> Result<Zeroizing<String>, Refusal> {
    let whole = timeout(BODY_TIMEOUT, Limited::new(body, PASTE_MAX).collect()).await.map_err(|_| {
        Refusal::new(StatusCode::REQUEST_TIMEOUT, "body_slow", "the body did not arrive in time; send it again")
    })?;
    let bytes = whole.map_err(|_| {
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "send the key alone, at most 64 KiB")
    })?;
    let bytes = bytes.to_bytes();
    let text = std::str::from_utf8(&bytes).map(|text| Zeroizing::new(text.to_owned()));
    text.map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "body_invalid", "the body is not text"))
}

fn text(shown: &impl Serialize) -> String {
    // Text and numbers only: it cannot fail.
    let mut text = serde_json::to_string(shown).unwrap_or_default();
    text.push('\n');
    text
}
