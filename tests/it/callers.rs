//! Known callers only: by their tokens and users, and what each may ask for. Certificates are in `certificates.rs`.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::sync::LazyLock;

use cloudbeds_auth_proxy::sandbox::{Hotel, Protocols, Sandbox};
use http::StatusCode;

use crate::harness::{Desk, Proxy, Wire, canary, cloudbeds, until};

/// The front desk's token.
pub static DESK: LazyLock<&str> = LazyLock::new(|| canary("the front desk's token"));
/// Its next one.
static DESK_NEXT: LazyLock<&str> = LazyLock::new(|| canary("the front desk's next token"));
/// Book-keeping's token.
pub static BOOKS: LazyLock<&str> = LazyLock::new(|| canary("book-keeping's token"));
/// One that nobody has, and that is not to be shown either: it may be somebody's elsewhere.
static NOBODYS: LazyLock<&str> = LazyLock::new(|| canary("nobody's token"));

/// All of them, for the harness to look for.
pub fn tokens() -> [String; 4] {
    [&DESK, &DESK_NEXT, &BOOKS, &NOBODYS].map(|token| token.to_string())
}

/// As the documentation says to make one.
pub fn digest(token: &str) -> String {
    let printed = Command::new("sh").args(["-c", "printf %s \"$1\" | sha256sum", "sh", token]).output().unwrap();
    String::from_utf8(printed.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

async fn scene() -> (Sandbox, Vec<Hotel>, Proxy) {
    scene_of("  books: { token_sha256: [@books] }\n").await
}

/// With the front desk and another caller.
async fn scene_of(other: &str) -> (Sandbox, Vec<Hotel>, Proxy) {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let (desk, next, books) = (digest(&DESK), digest(&DESK_NEXT), digest(&BOOKS));
    let callers = format!(
        "callers:\n  front-desk:\n    token_sha256: [{desk}, {next}]\n    properties: [1001]\n    methods: [GET, HEAD]\n    \
         paths: [/api/v1.3/getHotelDetails, /api/v1.3/getRooms]\n{}",
        other.replace("@books", &books)
    );
    let mut proxy = Proxy::to(&cloudbeds, &hotels).config(&callers).start().await;
    proxy.secrets.extend(tokens());
    (cloudbeds, hotels, proxy)
}

#[tokio::test]
async fn a_caller_without_a_known_token_is_401_and_told_what_to_send() {
    let (cloudbeds, _hotels, proxy) = scene().await;
    for tokens in [&[][..], &[*NOBODYS], &[""], &[*DESK, *BOOKS], &[*DESK, *DESK]] {
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
    let twin = proxy.get("/api/v1.3/getHotelDetails").property("1001").header("x_proxy_token", *DESK);
    twin.header("x-proxy-token", *DESK).send().await.assert_refused("caller_unknown");
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
    for token in [*DESK, *DESK_NEXT, *BOOKS] {
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
        let answer = call(*DESK, method, target, property).await;
        answer.assert_refused("caller_refused");
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{method} {target} {property}");
    }
    let told = proxy.wait_for_event("a request was refused: its caller may not ask for this").await;
    assert_eq!((&told["caller"], &told["reason"]), (&"front-desk".into(), &"property".into()));
    assert_eq!(call(*BOOKS, "GET", "/api/v1.3/getHotels", "1002").await.status, StatusCode::OK);
    // What is refused to everybody stays refused.
    call(*BOOKS, "GET", "/api/v1.1/access_token", "1001").await.assert_refused("path_refused");
}

#[tokio::test]
async fn a_caller_with_hotels_of_its_own_names_no_organization() {
    let (cloudbeds, _hotels, proxy) = scene().await;
    let call =
        |token: &'static str| proxy.get("/api/v1.3/getHotelDetails").property("1001").header("x-proxy-token", token);
    // Some endpoints answer for all hotels of the organisation, whatever property stands beside it.
    for value in ["acme", ""] {
        call(*DESK).header("x-organization-id", value).send().await.assert_refused("caller_refused");
    }
    call(*DESK).header("x_organization_id", "acme").send().await.assert_refused("property_invalid");
    assert!(cloudbeds.requests().is_empty());
    assert_eq!(call(*BOOKS).header("x-organization-id", "acme").send().await.status, StatusCode::OK);
    assert_eq!(cloudbeds.requests().pop().unwrap().header("x-organization-id"), [b"acme"]);
}

#[tokio::test]
async fn a_caller_with_methods_of_its_own_asks_for_no_other_by_a_header() {
    let (cloudbeds, _hotels, proxy) = scene().await;
    let call = |token: &'static str, name: &'static str| {
        let call = proxy.get("/api/v1.3/getHotelDetails").property("1001").header("x-proxy-token", token);
        call.header(name, "DELETE").send()
    };
    let names =
        ["x-http-method-override", "x-http-method", "x-method-override", "x_http_method_override", "x-http_method"];
    for name in names {
        call(*DESK, name).await.assert_refused("caller_refused");
    }
    assert!(cloudbeds.requests().is_empty());
    assert_eq!(call(*DESK, "x-http-methods").await.status, StatusCode::OK);
    // Without methods of its own a caller sends what it likes.
    assert_eq!(call(*BOOKS, "x-http-method-override").await.status, StatusCode::OK);
    assert_eq!(cloudbeds.requests().pop().unwrap().header("x-http-method-override"), [b"DELETE"]);
}

#[tokio::test]
async fn a_token_goes_nowhere() {
    let (cloudbeds, _hotels, proxy) = scene().await;
    let answer = proxy.get("/sandbox/echo").property("1001").header("x-proxy-token", *BOOKS).send().await;
    assert_eq!(answer.status, StatusCode::OK);
    answer.assert_clean(&proxy.secrets);
    for seen in cloudbeds.requests() {
        assert!(seen.header("x-proxy-token").is_empty() && seen.header("x_proxy_token").is_empty());
    }
    proxy.get("/sandbox/echo").property("1001").header("x-proxy-token", *NOBODYS).send().await;
    let (log, errors, metrics) = (proxy.log(), proxy.stderr(), proxy.admin("/metrics").await.text());
    for token in [*BOOKS, *NOBODYS] {
        assert!(!log.contains(token) && !errors.contains(token) && !metrics.contains(token), "{token}");
    }
}

#[tokio::test]
async fn a_caller_is_known_by_the_user_of_its_process() {
    let own = rustix::process::getuid().as_raw();
    for (uid, served) in [(own, true), (own + 1, false)] {
        let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
        let config = format!(
            "listen: [127.0.0.1:0, 'unix:proxy.sock']\ncallers:\n  desk: {{ uids: [{uid}], properties: [1001] }}\n"
        );
        let proxy = Proxy::to(&cloudbeds, &hotels).config(&config).start().await;
        let mut wire = Wire::unix(&proxy.path("proxy.sock"), &proxy.secrets).await;
        let answer = wire.get("/api/v1.3/getHotelDetails", "1001").await;
        if served {
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
            wire.get("/api/v1.3/getHotelDetails", "1002").await.assert_refused("caller_refused");
        } else {
            answer.assert_refused("caller_unknown");
            let told = proxy.wait_for_event("a request was refused: its caller is not known").await;
            assert_eq!(told["peer"], format!("uid {own}"));
        }
        // Over TCP nobody knows whose process it is.
        let answer = proxy.get("/api/v1.3/getHotelDetails").property("1001").send().await;
        answer.assert_refused("caller_unknown");
    }
}

#[tokio::test]
async fn a_flood_of_strangers_is_not_a_flood_of_lines() {
    let (_cloudbeds, _hotels, proxy) = scene().await;
    for _ in 0..100 {
        proxy.get("/api/v1.3/getHotels").send().await.assert_refused("caller_unknown");
    }
    let lines = proxy.log().matches("its caller is not known").count();
    // Ten in ten seconds; a slow machine may take longer for a hundred calls.
    assert!((1..=50).contains(&lines), "{lines}");
}

#[tokio::test]
async fn a_known_caller_in_a_loop_floods_no_log_and_hides_no_other() {
    let (_cloudbeds, _hotels, proxy) = scene_of("  books: { token_sha256: [@books], properties: [1002] }\n").await;
    let call = |token: &'static str, property: &'static str| {
        proxy.get("/api/v1.3/getRooms").property(property).header("x-proxy-token", token).send()
    };
    for _ in 0..100 {
        call(*DESK, "1002").await.assert_refused("caller_refused");
    }
    call(*BOOKS, "1001").await.assert_refused("caller_refused");
    let told = |caller: &str| {
        let message = "a request was refused: its caller may not ask for this";
        proxy.events().iter().filter(|event| event["message"] == message && event["caller"] == caller).count()
    };
    proxy.wait_for("a line about the other", || (told("books") == 1).then_some(())).await;
    // Ten in ten seconds, as of strangers.
    assert!((1..=50).contains(&told("front-desk")), "{}", told("front-desk"));
    // What was asked stands in the access lines, each of them, with who asked.
    let refused = |caller: &str| {
        proxy.access().iter().filter(|line| line["code"] == "caller_refused" && line["caller"] == caller).count()
    };
    let each = || ((refused("front-desk"), refused("books")) == (100, 1)).then_some(());
    proxy.wait_for("an access line for each", each).await;
}

#[tokio::test]
async fn an_access_line_names_the_caller_that_is_known_and_no_other() {
    let (_cloudbeds, _hotels, proxy) = scene().await;
    // Whatever becomes of its request: served, refused as one caller's or as anybody's.
    for (token, property, path, caller, code) in [
        (*DESK, "1001", "/api/v1.3/getRooms", Some("front-desk"), None),
        (*DESK_NEXT, "1001", "/api/v1.3/getRooms", Some("front-desk"), None),
        (*BOOKS, "1002", "/api/v1.3/getRooms", Some("books"), None),
        (*DESK, "1002", "/api/v1.3/getRooms", Some("front-desk"), Some("caller_refused")),
        (*BOOKS, "9", "/api/v1.3/getRooms", Some("books"), Some("property_unknown")),
        (*BOOKS, "none", "/api/v1.3/getRooms", Some("books"), Some("property_invalid")),
        (*BOOKS, "1001", "/api/v1.1/access_token", Some("books"), Some("path_refused")),
        (*NOBODYS, "1001", "/api/v1.3/getRooms", None, Some("caller_unknown")),
    ] {
        let answer = proxy.get(path).property(property).header("x-proxy-token", token).send().await;
        let id = answer.header("x-proxy-request-id").unwrap();
        let line = proxy.wait_for_access(|line| line["request_id"] == id).await;
        assert_eq!((line["caller"].as_str(), line["code"].as_str()), (caller, code), "{line}");
    }
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let open = Proxy::to(&cloudbeds, &hotels).start().await;
    open.get("/api/v1.3/getRooms").property("1001").header("x-proxy-token", *DESK).send().await;
    assert!(open.wait_for_access(|line| line["status"] == 200).await.get("caller").is_none());
}

#[tokio::test]
async fn tokens_in_a_file_are_exchanged_while_requests_are_served() {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let config = format!(
        "callers:\n  desk: {{ tokens_file: desk.sha256 }}\n  books: {{ token_sha256: [{}] }}\n",
        digest(&BOOKS)
    );
    let (old, new) = (digest(&DESK), digest(&DESK_NEXT));
    let first = format!("# of the desk\n\n{old}  -\n");
    let mut proxy = Proxy::to(&cloudbeds, &hotels)
        .config(&config)
        .before(move |directory| std::fs::write(directory.join("desk.sha256"), first).unwrap())
        .start()
        .await;
    proxy.secrets.extend(tokens());
    let write = |text: &str| proxy.replace("desk.sha256", text);
    let is_good = async |token: &str| {
        let answer =
            proxy.get("/api/v1.3/getHotelDetails").property("1001").header("x-proxy-token", token).send().await;
        match answer.status {
            StatusCode::OK => true,
            _ => {
                answer.assert_refused("caller_unknown");
                false
            }
        }
    };
    assert!(is_good(&DESK).await && !is_good(&DESK_NEXT).await && is_good(&BOOKS).await);
    write(&format!("{old}\n{new}\n"));
    until("the next token is good", async || is_good(&DESK_NEXT).await).await;
    assert!(is_good(&DESK).await);
    write(&format!("{new}\n"));
    until("the old token is good no longer", async || !is_good(&DESK).await).await;
    let kept = |what: &'static str| {
        let proxy = &proxy;
        async move {
            let told = |line: &str| line.contains("callers keep their tokens") && line.contains(what);
            proxy.wait_for(what, || proxy.log().lines().any(told).then_some(())).await;
        }
    };
    write(&format!("{old}\nnonsense\n"));
    kept("desk.sha256:2:1: callers.desk.tokens_file: expected 64 hexadecimal digits").await;
    write("");
    kept("holds no digest").await;
    write(&digest(&BOOKS));
    kept("holds a token that is named elsewhere too").await;
    assert!(is_good(&DESK_NEXT).await && !is_good(&DESK).await && is_good(&BOOKS).await);
}

#[tokio::test]
async fn a_file_of_tokens_that_cannot_be_used_is_told_before_anything_is_served() {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let good = digest(&DESK);
    for (text, mode, words) in [
        (None, 0o644, "callers.desk.tokens_file: is not there"),
        (Some(good.as_str()), 0o666, "callers.desk.tokens_file: may be written by others"),
        (Some("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"), 0o644, "is the digest of nothing"),
    ] {
        let text = text.map(str::to_owned);
        let builder = Proxy::to(&cloudbeds, &hotels).config("callers: { desk: { tokens_file: desk.sha256 } }");
        let builder = builder.before(move |directory| {
            let Some(text) = text else { return };
            std::fs::write(directory.join("desk.sha256"), text).unwrap();
            std::fs::set_permissions(directory.join("desk.sha256"), std::fs::Permissions::from_mode(mode)).unwrap();
        });
        let (code, said) = builder.refused().await;
        assert_eq!(code, Some(78), "{said}");
        assert!(said.contains(words), "{said}");
    }
}

#[tokio::test]
async fn doctor_tells_of_a_file_of_tokens_that_cannot_be_used() {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let desk = Desk::before(&cloudbeds, &hotels, "callers: { desk: { tokens_file: desk.sha256 } }");
    desk.write_keys(&format!("\"1001\": {}\n\"1002\": {}\n", hotels[0].key, hotels[1].key));
    desk.run(&["doctor", "--offline"], "").await.expect(2, &["callers.desk.tokens_file: is not there"]);
    std::fs::write(desk.path("desk.sha256"), digest(&DESK)).unwrap();
    desk.run(&["doctor", "--offline"], "").await.expect(0, &["Everything is in order."]);
}
