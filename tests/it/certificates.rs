//! Callers that show a certificate: whom the listener lets in, over HTTP/1.1 and HTTP/2, and who is whom.

use cloudbeds_auth_proxy::sandbox::Sandbox;
use http::StatusCode;

use crate::callers::{BOOKS, DESK, digest, tokens};
use crate::harness::frames::{self, END_HEADERS, END_STREAM, HEADERS, fields, frame};
use crate::harness::wire::get;
use crate::harness::{Authority, Certified, Frames, Identity, Outcome, Proxy, Speaker, Wire, until};

const DETAILS: &str = "/api/v1.3/getHotelDetails";

/// A proxy whose listener asks for certificates of `issuer`.
async fn with_certificates(callers: &str) -> (Sandbox, Authority, Proxy) {
    let scene = Certified::new().await;
    let tls = "tls: { certificate_file: listener.pem, key_file: listener.key, client_ca_file: callers.pem }\n";
    let builder = scene.proxy(&format!("{tls}{callers}")).file("callers.pem", &scene.root);
    let mut proxy = builder.start().await;
    proxy.secrets.extend(tokens());
    (scene.cloudbeds, scene.authority, proxy)
}

#[tokio::test]
async fn where_certificates_are_asked_for_nobody_is_served_without_one() {
    let (cloudbeds, authority, proxy) = with_certificates("").await;
    let root = authority.pem();
    let (known, stranger) = (authority.caller("anybody", &[]), Authority::new().caller("anybody", &[]));
    for tls12 in [false, true] {
        for identity in [None, Some(&stranger)] {
            let speaker = Speaker { identity, tls12, ..Speaker::new(&root) };
            // With TLS 1.3 a caller believes to be through before the listener has looked.
            if let Ok(stream) = speaker.connect(proxy.address).await {
                let mut wire = Wire::over(stream, &proxy.secrets);
                wire.send(get(DETAILS, "1001")).await;
                assert!(wire.try_answer().await.is_none());
            }
        }
        let speaker = Speaker { identity: Some(&known), tls12, ..Speaker::new(&root) };
        let answer = speaker.wire(&proxy).await.get(DETAILS, "1001").await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    }
    assert_eq!(cloudbeds.requests().len(), 2);
    proxy.wait_for("a line about the handshake", || proxy.log().contains("a TLS handshake failed").then_some(())).await;
}

#[tokio::test]
async fn a_caller_is_known_by_a_name_in_its_certificate() {
    let callers = format!(
        "callers:\n  desk: {{ certificates: [CN=desk, 'spiffe://hotel/desk', desk.example], properties: [1001] }}\n  \
         books: {{ certificates: [CN=books], token_sha256: [{}] }}\n",
        digest(&BOOKS)
    );
    let (_cloudbeds, authority, proxy) = with_certificates(&callers).await;
    let root = authority.pem();
    let call = async |identity: &Identity, property: &str, token: Option<&str>| {
        let token = token.map(|token| format!("x-proxy-token: {token}\r\n")).unwrap_or_default();
        let mut wire = Speaker { identity: Some(identity), ..Speaker::new(&root) }.wire(&proxy).await;
        let head = "GET /api/v1.3/getHotelDetails HTTP/1.1\r\nhost: proxy\r\nx-property-id:";
        wire.send(format!("{head} {property}\r\n{token}\r\n")).await;
        wire.answer().await
    };
    for desk in [
        authority.caller("desk", &[]),
        authority.caller("x", &["spiffe://hotel/desk"]),
        authority.caller("x", &["other.example", "desk.example"]),
    ] {
        assert_eq!(call(&desk, "1001", None).await.status, StatusCode::OK);
        call(&desk, "1002", None).await.assert_refused("caller_refused");
        // A token is another caller, or nobody's.
        assert_eq!(call(&desk, "1002", Some(*BOOKS)).await.status, StatusCode::OK);
        call(&desk, "1001", Some(*DESK)).await.assert_refused("caller_unknown");
    }
    assert_eq!(call(&authority.caller("books", &[]), "1002", None).await.status, StatusCode::OK);
    for nobody in [
        authority.caller("Desk", &[]),
        authority.caller("desk.example", &["CN=desk", "xdesk.example"]),
        authority.caller("x", &["spiffe://hotel/desk/2"]),
        authority.caller("spiffe://hotel/desk", &[]),
        // Two callers could claim it.
        authority.caller("books", &["desk.example"]),
    ] {
        call(&nobody, "1001", None).await.assert_refused("caller_unknown");
    }
    let told = proxy.wait_for_event("a request was refused: its caller is not known").await;
    assert!(told["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{told}");
}

#[tokio::test]
async fn an_issuer_that_is_replaced_counts_no_longer_for_open_connections_either() {
    let (cloudbeds, authority, proxy) = with_certificates("").await;
    let (root, next) = (authority.pem(), Authority::new());
    let (old, new) = (authority.caller("desk", &[]), next.caller("desk", &[]));
    let speaker = |identity| Speaker { identity: Some(identity), ..Speaker::new(&root) };
    let mut open = speaker(&old).wire(&proxy).await;
    assert_eq!(open.get(DETAILS, "1001").await.status, StatusCode::OK);
    // Both for a while, as in a change of issuers: nobody notices.
    let write = |text: &str| proxy.replace("callers.pem", text);
    let serves = async |identity| {
        let mut wire = speaker(identity).wire(&proxy).await;
        wire.send(get(DETAILS, "1001")).await;
        wire.try_answer().await.is_some()
    };
    write(&format!("{root}{}", next.pem()));
    until("both count", async || serves(&new).await).await;
    assert_eq!(open.get(DETAILS, "1001").await.status, StatusCode::OK);
    write(&next.pem());
    until("one counts", async || !serves(&old).await).await;
    let before = cloudbeds.requests().len();
    open.get(DETAILS, "1001").await.assert_refused("caller_unknown");
    assert_eq!(cloudbeds.requests().len(), before);
    assert!(serves(&new).await);
}

/// The answer to a GET for a property in HTTP/2, with further fields.
async fn ask(frames: &mut Frames, stream: u32, property: &str, more: &[(&str, &str)]) -> serde_json::Value {
    let list = frames::get(DETAILS).into_iter().filter(|(name, _)| *name != "x-property-id");
    let list: Vec<_> = list.chain([("x-property-id", property)]).chain(more.iter().copied()).collect();
    frames.head(stream, &list).await;
    match frames.outcome(stream).await {
        Outcome::Answered(body) => serde_json::from_str(&body).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn over_http2_each_request_of_a_connection_is_the_callers_of_its_certificate() {
    let callers = format!(
        "callers:\n  desk: {{ certificates: [CN=desk], properties: [1001], methods: [GET] }}\n  \
         books: {{ token_sha256: [{}] }}\n",
        digest(&BOOKS)
    );
    let (cloudbeds, authority, proxy) = with_certificates(&callers).await;
    let root = authority.pem();
    let desk = authority.caller("desk", &[]);
    let speaker = Speaker { identity: Some(&desk), alpn: &["h2"], ..Speaker::new(&root) };
    let mut frames = Frames::by(&speaker, &proxy, &[]).await;
    assert_eq!(ask(&mut frames, 1, "1001", &[]).await["success"], true);
    assert_eq!(ask(&mut frames, 3, "1002", &[]).await["code"], "caller_refused");
    // A token makes one request another caller's, or nobody's, and none of those beside it.
    assert_eq!(ask(&mut frames, 5, "1002", &[("x-proxy-token", *BOOKS)]).await["success"], true);
    assert_eq!(ask(&mut frames, 7, "1001", &[("x-proxy-token", *DESK)]).await["code"], "caller_unknown");
    assert_eq!(ask(&mut frames, 9, "1002", &[]).await["code"], "caller_refused");
    assert_eq!(ask(&mut frames, 11, "1001", &[]).await["success"], true);
    let told = proxy.wait_for_event("a request was refused: its caller may not ask for this").await;
    assert_eq!((&told["caller"], &told["reason"]), (&"desk".into(), &"property".into()));
    // Of this issuer, but with a name that nobody has been given.
    let nobody = authority.caller("nobody", &[]);
    let speaker = Speaker { identity: Some(&nobody), ..speaker };
    let mut frames = Frames::by(&speaker, &proxy, &[]).await;
    assert_eq!(ask(&mut frames, 1, "1001", &[]).await["code"], "caller_unknown");
    assert_eq!(ask(&mut frames, 3, "1002", &[("x-proxy-token", *BOOKS)]).await["success"], true);
    for seen in cloudbeds.requests() {
        assert!(seen.header("x-proxy-token").is_empty());
    }
}

#[tokio::test]
async fn over_http2_nobody_is_served_with_a_certificate_that_does_not_count() {
    let (cloudbeds, authority, proxy) = with_certificates("").await;
    let root = authority.pem();
    let bad = [
        None,
        Some(Authority::new().caller("desk", &[])),
        Some(authority.expired_caller("desk")),
        Some(authority.early_caller("desk")),
        // A server's certificate is no caller's, whoever signed it.
        Some(authority.server()),
    ];
    for (number, identity) in bad.iter().enumerate() {
        for tls12 in [false, true] {
            let speaker = Speaker { identity: identity.as_ref(), alpn: &["h2"], tls12, ..Speaker::new(&root) };
            refuses(&speaker, &proxy, &format!("{number}")).await;
        }
    }
    assert!(cloudbeds.requests().is_empty());
    let good = authority.caller("desk", &[]);
    for tls12 in [false, true] {
        let speaker = Speaker { identity: Some(&good), alpn: &["h2"], tls12, ..Speaker::new(&root) };
        let mut frames = Frames::by(&speaker, &proxy, &[]).await;
        assert_eq!(ask(&mut frames, 1, "1001", &[]).await["success"], true);
    }
    proxy.wait_for("a line about the handshake", || proxy.log().contains("a TLS handshake failed").then_some(())).await;
}

/// Checks that no answer comes, in either version of HTTP. With TLS 1.3 a caller believes to be through before the listener
/// has looked.
async fn refuses(speaker: &Speaker<'_>, proxy: &Proxy, what: &str) {
    let Ok(stream) = speaker.connect(proxy.address).await else { return };
    let mut frames = Frames::over(stream, proxy, &[]).await;
    frames.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields(frames::get(DETAILS)))).await;
    assert_eq!(frames.outcome(1).await, Outcome::Closed, "{what}");
}
