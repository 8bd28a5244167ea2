//! A key that arrived by e-mail, pasted into the running proxy by way of the admin listener.

use std::sync::LazyLock;

use cloudbeds_auth_proxy::sandbox::{Hotel, Protocols, Sandbox};
use http::{Method, Request, StatusCode};

use crate::harness::client::{self, Answer};
use crate::harness::proxy::write_private;
use crate::harness::{Proxy, canary, cloudbeds, key};

/// The token of whoever may write keys.
static TOKEN: LazyLock<&str> = LazyLock::new(|| canary("the admin token"));

async fn scene() -> (Sandbox, Vec<Hotel>, Proxy) {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let mut proxy = Proxy::to(&cloudbeds, &hotels[..1])
        .env("ADMIN__TOKEN_FILE", "admin-token")
        .secret_file("admin-token", *TOKEN)
        .start()
        .await;
    // It comes by the listener, and goes into the file alone.
    proxy.secrets.push(hotels[1].key.clone());
    (cloudbeds, hotels, proxy)
}

/// Pastes with these fields; the answer shows no key.
async fn paste(proxy: &Proxy, property: &str, fields: &[(&str, &str)], body: &str) -> Answer {
    let mut request = Request::post(format!("/api/keys/{property}")).header("host", proxy.admin.to_string());
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let answer = client::send(proxy.admin, request.body(body.to_owned().into()).unwrap(), &proxy.secrets).await;
    let text = answer.text().replace("`cbat_`", "");
    assert!(!text.contains("cbat_"), "{text}");
    answer
}

fn bearer() -> String {
    format!("Bearer {}", *TOKEN)
}

#[tokio::test]
async fn a_pasted_key_is_verified_written_and_in_force_at_once() {
    let (_cloudbeds, hotels, proxy) = scene().await;
    proxy.get("/api/v1.3/getHotelDetails").property("1002").send().await.assert_refused("property_unknown");
    let bearer = bearer();
    let fields = [("authorization", bearer.as_str()), ("content-type", "text/plain; charset=utf-8")];
    let mail = format!("“{}”\r\n", hotels[1].key);
    let answer = paste(&proxy, "1002", &fields, &mail).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let told = answer.json();
    assert_eq!((&told["property"], &told["key"], &told["in_force"]), (&"1002".into(), &"added".into(), &true.into()));
    assert_eq!(told["hotel"], hotels[1].name.as_str());
    assert_eq!(proxy.get("/api/v1.3/getHotelDetails").property("1002").send().await.status, StatusCode::OK);
    let written = std::fs::read_to_string(proxy.path("keys.yaml")).unwrap();
    assert!(written.contains(&hotels[1].key));
    assert!(!proxy.log().contains(&hotels[1].key) && !proxy.stderr().contains(&hotels[1].key));
    // The same once more, as JSON and as a form.
    let json = serde_json::json!({ "key": hotels[1].key }).to_string();
    for (media, body) in
        [("application/json", json), ("application/x-www-form-urlencoded", format!("key={}", hotels[1].key))]
    {
        let answer = paste(&proxy, "1002", &[("authorization", &bearer), ("content-type", media)], &body).await;
        assert_eq!((answer.status, &answer.json()["key"]), (StatusCode::OK, &"unchanged".into()), "{media}");
    }
}

#[tokio::test]
async fn a_key_that_is_of_no_use_leaves_the_former_one_in_force() {
    let (cloudbeds, hotels, proxy) = scene().await;
    let before = std::fs::read_to_string(proxy.path("keys.yaml")).unwrap();
    let bearer = bearer();
    let fields = [("authorization", bearer.as_str()), ("content-type", "text/plain")];
    let stranger = key();
    for (body, code, words) in [
        (hotels[1].key.as_str(), "key_refused", "it opens 1002"),
        (stranger.as_str(), "key_refused", "rejects the key"),
        ("hunter2", "key_invalid", "starts with `cbat_`"),
        ("", "key_invalid", "nothing was entered"),
    ] {
        let answer = paste(&proxy, "1001", &fields, body).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{words}");
        let told = answer.json();
        assert_eq!(told["code"], code);
        assert!(told["message"].as_str().unwrap().contains(words), "{told}");
    }
    drop(cloudbeds);
    let answer = paste(&proxy, "1001", &fields, &hotels[0].key).await;
    assert_eq!((answer.status, &answer.json()["code"]), (StatusCode::BAD_GATEWAY, &"key_unverified".into()));
    assert_eq!(std::fs::read_to_string(proxy.path("keys.yaml")).unwrap(), before);
}

#[tokio::test]
async fn who_may_not_write_keys_is_refused_before_a_key_is_read() {
    let (_cloudbeds, hotels, proxy) = scene().await;
    let before = std::fs::read_to_string(proxy.path("keys.yaml")).unwrap();
    let (bearer, text) = (bearer(), ("content-type", "text/plain"));
    let (token, shorter) = (("authorization", bearer.as_str()), &bearer[..bearer.len() - 1]);
    let own = format!("http://{}", proxy.admin);
    let refused = [
        (vec![text], StatusCode::UNAUTHORIZED, "token_wrong"),
        (vec![text, ("authorization", shorter)], StatusCode::UNAUTHORIZED, "token_wrong"),
        (vec![text, ("authorization", "Bearer")], StatusCode::UNAUTHORIZED, "token_wrong"),
        (vec![text, token, token], StatusCode::UNAUTHORIZED, "token_wrong"),
        (vec![text, token, ("origin", "https://evil.example")], StatusCode::FORBIDDEN, "foreign_origin"),
        (vec![text, token, ("origin", "null")], StatusCode::FORBIDDEN, "foreign_origin"),
        (vec![text, token, ("sec-fetch-site", "cross-site")], StatusCode::FORBIDDEN, "foreign_origin"),
        (vec![token, ("content-type", "multipart/form-data")], StatusCode::UNSUPPORTED_MEDIA_TYPE, "media_type"),
        (vec![token], StatusCode::UNSUPPORTED_MEDIA_TYPE, "media_type"),
    ];
    for (fields, status, code) in refused {
        let answer = paste(&proxy, "1002", &fields, &hotels[1].key).await;
        assert_eq!((answer.status, &answer.json()["code"]), (status, &code.into()), "{fields:?}");
        assert_eq!(answer.header("www-authenticate").is_some(), status == StatusCode::UNAUTHORIZED);
    }
    let answer = paste(&proxy, "01002", &[text, token], &hotels[1].key).await;
    assert_eq!((answer.status, &answer.json()["code"]), (StatusCode::BAD_REQUEST, &"property_invalid".into()));
    let answer = paste(&proxy, "1002", &[text, token], &"x".repeat(64 * 1024 + 1)).await;
    assert_eq!((answer.status, &answer.json()["code"]), (StatusCode::PAYLOAD_TOO_LARGE, &"body_too_large".into()));
    for (media, body) in [
        ("application/json", r#"{"key":"x","more":1}"#),
        ("application/json", "x"),
        ("application/x-www-form-urlencoded", "key=x&key=y"),
    ] {
        let answer = paste(&proxy, "1002", &[("content-type", media), token], body).await;
        assert_eq!(
            (answer.status, &answer.json()["code"]),
            (StatusCode::BAD_REQUEST, &"body_invalid".into()),
            "{body}"
        );
    }
    assert_eq!(std::fs::read_to_string(proxy.path("keys.yaml")).unwrap(), before);
    let request = Request::builder().method(Method::GET).uri("/api/keys/1002").body(String::new().into()).unwrap();
    let answer = client::send(proxy.admin, request, &proxy.secrets).await;
    assert_eq!((answer.status, answer.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, Some("POST")));
    // A page of this listener's own may.
    let own = [text, token, ("origin", own.as_str()), ("sec-fetch-site", "same-origin")];
    assert_eq!(paste(&proxy, "1002", &own, &hotels[1].key).await.status, StatusCode::OK);
}

#[tokio::test]
async fn without_a_token_file_no_key_is_taken_and_a_token_that_others_can_read_is_refused_at_the_start() {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let proxy = Proxy::to(&cloudbeds, &hotels[..1]).start().await;
    let answer = paste(&proxy, "1002", &[("content-type", "text/plain")], &hotels[1].key).await;
    assert_eq!((answer.status, &answer.json()["code"]), (StatusCode::FORBIDDEN, &"paste_off".into()));
    for (token, words) in [("short", "16 to 128"), ("", "16 to 128")] {
        let builder = Proxy::to(&cloudbeds, &hotels[..1])
            .env("ADMIN__TOKEN_FILE", "admin-token")
            .before(move |directory| write_private(&directory.join("admin-token"), token));
        let (code, said) = builder.refused().await;
        assert_eq!(code, Some(78));
        assert!(said.contains("admin.token_file") && said.contains(words), "{said}");
    }
}
