//! A Cloudbeds that cannot be reached, or cannot prove to be Cloudbeds: each failure has its code, and none of them sees
//! a byte of a request, or of the code and secret of an exchange.

use socket2::{Domain, SockAddr, Socket, Type};

use crate::harness::hotel::{SECRET, onboarding};
use crate::harness::{
    Alpn, Browser, Certificate, HTTP1, HTTP2, Hotels, Manner, Peer, Proxy, Scene, Upstream, key, soon, together, until,
};

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_502_upstream_unreachable() {
    // Bound and not listening: the port is ours, and refuses.
    let refusing = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    refusing.bind(&SockAddr::from("127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap())).unwrap();
    let port = refusing.local_addr().unwrap().as_socket().unwrap().port();
    let upstream = Upstream::start(HTTP1, Peer::hang).await;
    let origin = |base_url: &str| Proxy::to_origin(base_url, upstream.root_pem()).key("1001", &key());

    let proxy = origin(&format!("https://127.0.0.1:{port}")).start().await;
    for method in ["GET", "POST"] {
        let answer = proxy.call(method, "/x").property("1001").send().await;
        answer.assert_failed(502, "upstream_unreachable", "connection_refused", method);
    }

    // The loopback's own broadcast address, which the system lets nobody connect to.
    let proxy = origin("https://127.255.255.255").start().await;
    for method in ["GET", "POST"] {
        let answer = proxy.call(method, "/x").property("1001").send().await;
        answer.assert_failed(502, "upstream_unreachable", "destination_ip_unroutable", method);
    }

    let proxy = origin("https://nowhere.invalid").env("UPSTREAM__TIMEOUTS__CONNECT", "15s").start().await;
    let answer = proxy.get("/x").property("1001").send().await;
    answer.assert_failed(502, "upstream_unreachable", "dns_error", "a name that does not resolve");
}

#[tokio::test]
async fn a_connection_that_is_not_accepted_in_time_is_502_upstream_unreachable() {
    // A listener whose queue is full: the system drops further SYNs, as a packet filter would.
    let full = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    full.bind(&SockAddr::from("127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap())).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap();
    let fill: Vec<Socket> = (0..4)
        .map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&address);
            socket
        })
        .collect();
    let upstream = Upstream::start(HTTP1, Peer::hang).await;
    let base_url = format!("https://127.0.0.1:{}", address.as_socket().unwrap().port());
    let proxy = Proxy::to_origin(&base_url, upstream.root_pem())
        .key("1001", &key())
        .env("UPSTREAM__TIMEOUTS__CONNECT", "300ms")
        .start()
        .await;

    let calls = (0..5).map(|_| proxy.get("/x").property("1001").send());
    for answer in soon("a full queue", together(calls)).await {
        answer.assert_failed(502, "upstream_unreachable", "connection_timeout", "a full queue");
    }
    drop((fill, full));
}

#[tokio::test]
async fn a_server_that_cannot_prove_itself_gets_no_byte_of_a_request() {
    for certificate in [Certificate::WrongName, Certificate::Expired, Certificate::NotYetValid, Certificate::SelfSigned]
    {
        for alpn in [Alpn::Http1, Alpn::Http2] {
            let upstream = Upstream::start(Manner::Tls(certificate, alpn), async |mut peer| peer.serve().await).await;
            let proxy = upstream.proxy().start().await;
            for method in ["GET", "POST"] {
                let answer = proxy.call(method, "/x").property("1001").body("secret").send().await;
                answer.assert_failed(502, "upstream_tls", "tls_certificate_error", &format!("{certificate:?}"));
            }
            assert!(upstream.connections() >= 2, "{certificate:?}");
            assert!(upstream.received().iter().all(String::is_empty), "{certificate:?}: {:?}", upstream.received());
        }
    }
}

#[tokio::test]
async fn a_server_without_tls_gets_no_byte_of_a_request() {
    let plain = Upstream::start(Manner::Plain, async |mut peer: Peer| {
        peer.write("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
        peer.log_all().await;
    })
    .await;
    let proxy = plain.proxy().start().await;
    let answer = proxy.get("/marker").property("1001").send().await;
    answer.assert_failed(502, "upstream_tls", "tls_protocol_error", "plain text");

    let hanging = Upstream::start(Manner::Plain, async |mut peer: Peer| peer.log_all().await).await;
    let proxy = hanging.proxy().env("UPSTREAM__TIMEOUTS__TLS", "300ms").start().await;
    let answer = soon("a handshake that hangs", proxy.get("/marker").property("1001").send()).await;
    answer.assert_failed(502, "upstream_tls", "connection_timeout", "a handshake that hangs");

    let gone = Upstream::start(Manner::Plain, async |peer: Peer| peer.close().await).await;
    let proxy = gone.proxy().start().await;
    let answer = proxy.get("/marker").property("1001").send().await;
    answer.assert_failed(502, "upstream_tls", "tls_protocol_error", "closed within the handshake");

    for received in [plain.received(), hanging.received()].concat() {
        // The hello only: nothing of HTTP is in it.
        assert!(received.starts_with('\u{16}') && !received.contains("marker"), "{received:?}");
    }
}

#[tokio::test]
async fn a_server_that_answers_the_handshake_with_an_alert_gets_no_byte_of_a_request() {
    // `handshake_failure`, as a server sends it that has no version or cipher in common with us.
    let alert = Upstream::start(Manner::Plain, async |mut peer: Peer| {
        peer.write([0x15, 3, 3, 0, 2, 2, 40]).await;
        peer.log_all().await;
    })
    .await;
    // And `no_application_protocol`, as one sends it that speaks HTTP/2 alone.
    let http2 = Upstream::start(HTTP2, async |mut peer: Peer| peer.log_all().await).await;
    for (upstream, offered) in [(&alert, "true"), (&http2, "false")] {
        let proxy = upstream.proxy().env("UPSTREAM__HTTP2", offered).start().await;
        for method in ["GET", "POST"] {
            let answer = soon(offered, proxy.call(method, "/marker").property("1001").body("marker").send()).await;
            answer.assert_failed(502, "upstream_tls", "tls_alert_received", method);
        }
        for received in upstream.received() {
            assert!(!received.contains("marker"), "{received:?}");
        }
    }
}

/// A hotel connects, and its code is to be exchanged at a server of this manner: what that server has received, the
/// code, and what the operator is told.
async fn exchanged_at(manner: Manner) -> (Vec<String>, String, Option<serde_json::Value>) {
    let plain = matches!(manner, Manner::Plain);
    let token_server = Upstream::start(manner, move |mut peer: Peer| async move {
        if !plain {
            peer.request().await;
        }
        peer.write("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
        peer.log_all().await;
    })
    .await;
    let scene = Scene::new().exchange(&format!("{}/api/v1.1/access_token", token_server.base_url()));
    let (cloudbeds, keys) = scene.cloudbeds().await;
    // Nothing but the certificate is wrong: the proxy trusts whoever has signed it.
    let roots = format!("{}{}", cloudbeds.root_pem(), token_server.root_pem());
    let proxy = scene.proxy(&cloudbeds, &keys).file("root.pem", &roots).start().await;
    let mut hotels = Hotels { connect: onboarding(&proxy), cloudbeds, proxy };
    let mut browser = Browser::default();
    let state = hotels.begin(&mut browser, 1003).await;
    let back = hotels.approve(1003, Some(&state));
    let code = hotels.proxy.secrets.last().unwrap().clone();
    let page = hotels.open(&mut browser, &back).await;
    let told = || {
        hotels.proxy.events().into_iter().find(|event| {
            event["message"].as_str().is_some_and(|message| message.starts_with("a code did not leave for Cloudbeds"))
        })
    };
    let proves_itself = matches!(manner, Manner::Tls(Certificate::Good, _));
    if !proves_itself {
        // The log is written by a thread of its own.
        until("the operator is told", async || told().is_some()).await;
        page.assert_page(503, "Cloudbeds cannot be reached");
    }
    let told = told();
    assert_eq!((hotels.exchanges(), hotels.beside("arrived").len()), (0, 0));
    assert!(hotels.works(1001).await);
    (token_server.received(), code, told)
}

#[tokio::test]
async fn a_token_server_that_cannot_prove_itself_gets_no_byte_of_the_secret_and_the_code() {
    for (manner, why) in [
        (Manner::Tls(Certificate::WrongName, Alpn::Http1), "certificate not valid for name"),
        (Manner::Tls(Certificate::WrongName, Alpn::Http2), "certificate not valid for name"),
        (Manner::Tls(Certificate::SelfSigned, Alpn::Http1), "invalid peer certificate"),
        (Manner::Tls(Certificate::Expired, Alpn::Http1), "certificate expired"),
        (Manner::Tls(Certificate::NotYetValid, Alpn::Http1), "certificate not valid yet"),
        (Manner::Plain, "no trusted TLS connection"),
    ] {
        let (received, code, told) = exchanged_at(manner).await;
        assert!(!received.is_empty(), "{manner:?}: it was asked");
        for bytes in &received {
            // Of TLS only what was decrypted is here: nothing. Without TLS the hello is, which says neither.
            assert!(bytes.is_empty() || matches!(manner, Manner::Plain), "{manner:?}: {bytes:?}");
            assert!(
                !bytes.contains(*SECRET) && !bytes.contains(&code) && !bytes.contains("access_token"),
                "{manner:?}"
            );
        }
        let told = told.unwrap_or_else(|| panic!("{manner:?}: the operator is told nothing"));
        let cause = told["cause"].as_str().unwrap();
        assert!(cause.contains("no trusted TLS connection") && cause.contains(why), "{manner:?}: {cause}");
        assert_eq!((&told["property"], &told["app"]), (&1003.into(), &"main".into()));
    }
    // With a good one both go there, so this would have seen them.
    let (received, code, told) = exchanged_at(HTTP1).await;
    assert!(received.iter().any(|bytes| bytes.contains(*SECRET) && bytes.contains(&code)), "{received:?}");
    assert_eq!(told, None);
}
