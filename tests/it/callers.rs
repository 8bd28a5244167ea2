//! Known callers only: who shows which token, and what each may ask for.

use std::process::Command;

use cloudbeds_auth_proxy::sandbox::{Hotel, Protocols, Sandbox};
use http::StatusCode;

use crate::harness::{Proxy, cloudbeds};

const DESK: &str = "front-desk-token-4f1c9a7e";
const DESK_NEXT: &str = "front-desk-token-next-77";
const BOOKS: &str = "book-keeping-token-0b5d21";

/// As the documentation says to make one.
fn digest(token: &str) -> String {
    let printed = Command::new("sh").args(["-c", "printf %s \"$1\" | sha256sum", "sh", token]).output().unwrap();
    String::from_utf8(printed.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

async fn scene() -> (Sandbox, Vec<Hotel>, Proxy) {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let (desk, next, books) = (digest(DESK), digest(DESK_NEXT), digest(BOOKS));
    let callers = format!(
        "callers:\n  front-desk:\n    token_sha256: [{desk}, {next}]\n    properties: [1001]\n    methods: [GET, HEAD]\n    \
         paths: [/api/v1.3/getHotelDetails, /api/v1.3/getRooms]\n  books: {{ token_sha256: [{books}] }}\n"
    );
    let mut proxy = Proxy::to(&cloudbeds, &hotels).config(&callers).start().await;
    proxy.secrets.extend([DESK, DESK_NEXT, BOOKS].map(str::to_owned));
    (cloudbeds, hotels, proxy)
}

#[tokio::test]
async fn a_caller_without_a_known_token_is_401_and_told_what_to_send() {
    let (cloudbeds, _hotels, proxy) = scene().await;
    for tokens in [&[][..], &["nobodys-token-0123456789"], &[""], &[DESK, BOOKS], &[DESK, DESK]] {
        let mut call = proxy.get("/api/v1.3/getHotelDetails").property("1001");
        for token in tokens {
            call = call.header("x-proxy-token", token);
        }
        let answer = call.send().await;
        answer.assert_refused("caller_unknown");
        assert_eq!(
            (answer.status, answer.header("www-authenticate")),
            (StatusCode::UNAUTHORIZED, Some("X-Proxy-Token"))
        );
        assert!(answer.json()["detail"].as_str().unwrap().contains("X-Proxy-Token"));
    }
    // Where underscores are folded somebody else's header would be the token.
    let twin = proxy.get("/api/v1.3/getHotelDetails").property("1001").header("x_proxy_token", DESK);
    twin.header("x-proxy-token", DESK).send().await.assert_refused("caller_unknown");
    // A stranger does not learn which paths or hotels there are, or how a hotel is named.
    proxy.get("/api/v1.3/getHotels").send().await.assert_refused("caller_unknown");
    proxy.get("/api/v1.1/access_token").property("9").send().await.assert_refused("caller_unknown");
    assert!(cloudbeds.requests().is_empty());
    proxy.wait_for_event("a request was refused: its caller is not known").await;
}

#[tokio::test]
async fn each_caller_has_its_hotels_methods_and_paths() {
    let (_cloudbeds, _hotels, proxy) = scene().await;
    let call = |token: &'static str, method: &'static str, target: &'static str, property: &'static str| {
        proxy.call(method, target).property(property).header("X-Proxy-Token", token).send()
    };
    for token in [DESK, DESK_NEXT, BOOKS] {
        for target in ["/api/v1.3/getHotelDetails", "/api/v1.3/getRooms?pageSize=1"] {
            assert_eq!(call(token, "GET", target, "1001").await.status, StatusCode::OK, "{token} {target}");
        }
    }
    for (method, target, property) in [
        ("GET", "/api/v1.3/getHotelDetails", "1002"),
        ("GET", "/api/v1.3/getHotelDetails", "1001,1002"),
        ("GET", "/api/v1.3/getHotelDetails", "9"),
        ("POST", "/api/v1.3/getHotelDetails", "1001"),
        ("GET", "/api/v1.3/getHotels", "1001"),
        ("GET", "/api/v1.3/getRoomsUnassigned", "1001"),
        ("GET", "/", "1001"),
    ] {
        let answer = call(DESK, method, target, property).await;
        answer.assert_refused("caller_refused");
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{method} {target} {property}");
    }
    let told = proxy.wait_for_event("a request was refused: its caller may not ask for this").await;
    assert_eq!((&told["caller"], &told["reason"]), (&"front-desk".into(), &"property".into()));
    assert_eq!(call(BOOKS, "GET", "/api/v1.3/getHotels", "1002").await.status, StatusCode::OK);
    // What is refused to everybody stays refused.
    call(BOOKS, "GET", "/api/v1.1/access_token", "1001").await.assert_refused("path_refused");
}

#[tokio::test]
async fn a_token_goes_nowhere() {
    let (cloudbeds, _hotels, proxy) = scene().await;
    let answer = proxy.get("/sandbox/echo").property("1001").header("x-proxy-token", BOOKS).send().await;
    assert_eq!(answer.status, StatusCode::OK);
    answer.assert_clean(&proxy.secrets);
    for seen in cloudbeds.requests() {
        assert!(seen.header("x-proxy-token").is_empty() && seen.header("x_proxy_token").is_empty());
    }
    proxy.get("/sandbox/echo").property("1001").header("x-proxy-token", "wrong-token-of-somebody").send().await;
    let (log, errors, metrics) = (proxy.log(), proxy.stderr(), proxy.admin("/metrics").await.text());
    for token in [BOOKS, "wrong-token-of-somebody"] {
        assert!(!log.contains(token) && !errors.contains(token) && !metrics.contains(token), "{token}");
    }
}
