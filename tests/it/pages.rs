//! Pages of other sites: what a browser sends for them is not a caller's.

use std::net::SocketAddr;

use cloudbeds_auth_proxy::sandbox::{Hotel, Protocols, Sandbox};
use http::{Request, StatusCode};
use http_body_util::Full;

use crate::callers::{DESK, digest, tokens};
use crate::harness::client::send;
use crate::harness::{Answer, Proxy, cloudbeds};

const DETAILS: &str = "/api/v1.3/getHotelDetails";

async fn scene(config: &str) -> (Sandbox, Vec<Hotel>, Proxy) {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let proxy = Proxy::to(&cloudbeds, &hotels).config(config).start().await;
    (cloudbeds, hotels, proxy)
}

/// A GET with these lines and nothing else.
async fn get(proxy: &Proxy, address: SocketAddr, target: &str, lines: &[(&str, &str)]) -> Answer {
    let request = lines.iter().fold(Request::get(target), |request, (name, value)| request.header(*name, *value));
    send(address, request.body(Full::default()).unwrap(), &proxy.secrets).await
}

#[tokio::test]
async fn a_page_of_another_site_is_refused_unless_it_is_named() {
    let config = "policy: { origins: ['https://app.hotel.com'] }\nidentify: { query: true }";
    let (cloudbeds, _hotels, proxy) = scene(config).await;
    let own = format!("http://{}", proxy.address);
    let host = proxy.address.to_string();
    let ask = async |lines: &[(&str, &str)]| {
        let always = [("host", host.as_str())];
        get(&proxy, proxy.address, &format!("{DETAILS}?propertyID=1001"), &[&always[..], lines].concat()).await
    };
    for lines in [
        &[("origin", "https://evil.com")][..],
        &[("origin", "null")],
        &[("origin", "https://app.hotel.com"), ("origin", "https://evil.com")],
        &[("origin", "https://app.hotel.com:444")],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site"), ("sec-fetch-mode", "no-cors")],
        // Here nobody has a token, so showing one means nothing.
        &[("origin", "https://evil.com"), ("x-proxy-token", *DESK)],
    ] {
        ask(lines).await.assert_refused("caller_refused");
    }
    assert!(cloudbeds.requests().is_empty());
    let told = proxy.wait_for_event("a request was refused: it comes from a page of another site").await;
    assert!(told["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{told}");
    let asks_first = Request::options(DETAILS)
        .header("host", &host)
        .header("origin", "https://evil.com")
        .header("access-control-request-method", "GET")
        .header("access-control-request-headers", "x-property-id");
    let answer = send(proxy.address, asks_first.body(Full::default()).unwrap(), &proxy.secrets).await;
    answer.assert_refused("caller_refused");
    for lines in [
        &[][..],
        &[("origin", own.as_str()), ("sec-fetch-site", "same-origin")],
        &[("origin", "https://app.hotel.com"), ("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "none")],
        // No page of another site can name a hotel so: its browser would have asked first, and been refused.
        &[("origin", "https://evil.com"), ("x-property-id", "1001")],
    ] {
        assert_eq!(ask(lines).await.status, StatusCode::OK, "{lines:?}");
    }
}

#[tokio::test]
async fn a_name_that_a_stranger_can_own_does_not_lead_to_loopback() {
    let (cloudbeds, _hotels, proxy) = scene("policy: { hosts: [proxy.hotel.com] }").await;
    let ask =
        async |host: &str| get(&proxy, proxy.address, DETAILS, &[("host", host), ("x-property-id", "1001")]).await;
    for host in ["evil.com", "evil.com:8080", "127.0.0.1.nip.io", "a.proxy.hotel.com"] {
        ask(host).await.assert_refused("caller_refused");
    }
    assert!(cloudbeds.requests().is_empty());
    for host in ["localhost:8080", "127.0.0.1", "[::1]:1", "proxy", "proxy.hotel.com:8080", "app.internal"] {
        assert_eq!(ask(host).await.status, StatusCode::OK, "{host}");
    }
    // Where callers are known by a token, a name says nothing.
    let callers = format!("callers: {{ desk: {{ token_sha256: [{}] }} }}", digest(&DESK));
    let (_cloudbeds, _hotels, mut proxy) = scene(&callers).await;
    proxy.secrets.extend(tokens());
    get(&proxy, proxy.address, DETAILS, &[("host", "evil.com")]).await.assert_refused("caller_unknown");
    let lines = [("host", "proxy.hotel.com"), ("x-property-id", "1001"), ("x-proxy-token", *DESK)];
    assert_eq!(get(&proxy, proxy.address, DETAILS, &lines).await.status, StatusCode::OK);
    let lines = [&lines[..], &[("origin", "https://evil.com")]].concat();
    assert_eq!(get(&proxy, proxy.address, DETAILS, &lines).await.status, StatusCode::OK);
    get(&proxy, proxy.address, DETAILS, &[("host", "a"), ("origin", "https://evil.com")])
        .await
        .assert_refused("caller_refused");
}

#[tokio::test]
async fn the_admin_listener_is_not_for_pages_of_other_sites() {
    let (_cloudbeds, _hotels, proxy) = scene("").await;
    for target in ["/api/keys", "/metrics", "/livez"] {
        let ask = async |lines: &[(&str, &str)]| get(&proxy, proxy.admin, target, lines).await.status;
        for lines in [
            &[("host", "evil.com")][..],
            &[("host", "localhost"), ("origin", "https://evil.com")],
            &[("host", "localhost"), ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "cors")],
        ] {
            assert_eq!(ask(lines).await, StatusCode::FORBIDDEN, "{target} {lines:?}");
        }
        for lines in [
            &[("host", "localhost")][..],
            &[("host", "127.0.0.1:9090")],
            &[("host", "localhost"), ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")],
        ] {
            assert_eq!(ask(lines).await, StatusCode::OK, "{target} {lines:?}");
        }
    }
}
