//! `POST /api/v1.x/access_token`: a code becomes a key.
//!
//! In: a form, multipart as the vendor's guide sends it or urlencoded as the API description has it. Out: the key, with
//! the `resources` it opens, or a refusal in the vendor's words. It is as strict as the guide.
//!
//! The bodies of a bad code and of an unknown app are the vendor's, word for word. For the rest no body is published; the
//! two that are, come from PHP's league/oauth2-server, so what that library answers is taken.

use std::sync::Arc;

use bytes::Bytes;
use http::header::CACHE_CONTROL;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::accounts::{Exchange, Owner, Refused};
use super::body::{self, Body, json as answer_json};
use super::multipart::Multipart;
use super::query::Pairs;
use super::routes::State;

/// The largest urlencoded form that is read.
const FORM_MAX: usize = 64 * 1024;

pub(super) async fn answer<B>(state: &Arc<State>, content_type: &str, body: B) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let form = read(content_type, body).await;
    let sent = Exchange {
        grant_type: form.get("grant_type"),
        client_id: form.get("client_id"),
        client_secret: form.get("client_secret"),
        redirect_uri: form.get("redirect_uri"),
        code: form.get("code"),
    };
    let exchanged = state.accounts().exchange(&sent, state.clock.now());
    let mut answer = match exchanged {
        Ok((key, owner)) => {
            state.announce();
            let mut issued = json!({"access_token": key, "token_type": "Bearer"});
            if state.shows_resources() {
                issued["resources"] = json!([resource(&owner)]);
            }
            answer_json(StatusCode::OK, &issued)
        }
        Err(why) => refusal(why),
    };
    // RFC 6749 5.1: it holds a credential.
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// An `association` is what the API description calls an organisation here.
fn resource(owner: &Owner) -> Value {
    match owner {
        Owner::Property(property) => json!({"type": "property", "id": property.to_string()}),
        Owner::Organization(id) => json!({"type": "association", "id": id}),
    }
}

fn refusal(why: Refused) -> Response<Body> {
    const MALFORMED: &str = "The request is missing a required parameter, includes an invalid parameter value, includes \
                             a parameter more than once, or is otherwise malformed.";
    let league = |status, error: &str, words: &str, hint: Option<String>| {
        let mut body = json!({"error": error, "error_description": words, "message": words});
        if let Some(hint) = hint {
            body["hint"] = json!(hint);
        }
        answer_json(status, &body)
    };
    let vendor = |words: &str| {
        answer_json(StatusCode::UNAUTHORIZED, &json!({"error": "server_error", "error_description": words}))
    };
    match why {
        Refused::Missing(name) => {
            league(StatusCode::BAD_REQUEST, "invalid_request", MALFORMED, Some(format!("Check the `{name}` parameter")))
        }
        Refused::GrantType => league(
            StatusCode::BAD_REQUEST,
            "unsupported_grant_type",
            "The authorization grant type is not supported by the authorization server.",
            Some("Check that all required parameters have been provided".to_owned()),
        ),
        Refused::Client => vendor("Entity not found: CloudBeds\\MyFrontDesk\\API\\Models\\Client"),
        Refused::Secret => league(StatusCode::UNAUTHORIZED, "invalid_client", "Client authentication failed", None),
        Refused::RedirectUri => {
            league(StatusCode::BAD_REQUEST, "invalid_request", MALFORMED, Some("Invalid redirect URI".to_owned()))
        }
        Refused::Code => vendor("The authorization code is invalid or has expired."),
    }
}

/// The fields of a form of either kind. One that cannot be read has none.
async fn read<B>(content_type: &str, mut body: B) -> Pairs
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let Some(mut multipart) = Multipart::new(content_type) else {
        let (form, _) = body::read(body, FORM_MAX).await;
        let urlencoded = content_type.to_ascii_lowercase().starts_with("application/x-www-form-urlencoded");
        // The vendor ignores JSON bodies silently.
        return Pairs::parse(if urlencoded { &form } else { b"" });
    };
    let mut good = true;
    while let Some(Ok(frame)) = body.frame().await {
        if let Ok(data) = frame.into_data() {
            good = good && multipart.push(&data).is_ok();
        }
    }
    let parts = if good { multipart.finish().unwrap_or_default() } else { Vec::new() };
    // A file is not a field.
    let fields = parts.into_iter().filter(|part| part.filename.is_none());
    Pairs::from_iter(fields.map(|part| (part.name, String::from_utf8_lossy(&part.start).into_owned())))
}
