//! TLS towards callers: the same service behind a handshake.

use http::StatusCode;
use rustix::process::Signal;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::harness::proxy::write_private;
use crate::harness::wire::get;
use crate::harness::{Certified, Desk, Identity, Proxy, Speaker, TLS, Wire, in_time};

const DETAILS: &str = "/api/v1.3/getHotelDetails";

/// Something done to the files before the start.
type Spoil = Box<dyn Fn(&std::path::Path) + Send>;

#[tokio::test]
async fn a_request_over_tls_is_answered_like_a_plain_one() {
    let scene = Certified::new().await;
    let proxy = scene.proxy(TLS).start().await;
    for tls12 in [false, true] {
        for alpn in [&[][..], &["http/1.1"]] {
            let mut wire = Speaker { tls12, alpn, ..Speaker::new(&scene.root) }.wire(&proxy).await;
            for hotel in &scene.hotels {
                let answer = wire.get(DETAILS, &hotel.property.to_string()).await;
                assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
                answer.assert_clean(&proxy.secrets);
            }
            // In absolute form it names the listener as it is spoken to.
            for (scheme, status) in [("https", StatusCode::OK), ("http", StatusCode::BAD_REQUEST)] {
                wire.send(get(&format!("{scheme}://{}{DETAILS}", proxy.address), "1001")).await;
                assert_eq!(wire.answer().await.status, status, "{scheme}");
            }
        }
    }
    let nothing_in_common = Speaker { alpn: &["ftp"], ..Speaker::new(&scene.root) };
    assert!(nothing_in_common.connect(proxy.address).await.is_err());
}

#[tokio::test]
async fn a_caller_that_asks_for_new_traffic_keys_gets_its_answers() {
    let scene = Certified::new().await;
    let proxy = scene.proxy(TLS).start().await;
    let mut stream = Speaker::new(&scene.root).connect(proxy.address).await.unwrap();
    // The proxy's own new keys travel before its next answer, as a record of their own.
    stream.get_mut().1.refresh_traffic_keys().unwrap();
    let mut wire = Wire::over(stream, &proxy.secrets);
    for _ in 0..3 {
        assert_eq!(wire.get(DETAILS, "1001").await.status, StatusCode::OK);
    }
    assert_eq!(wire.get(DETAILS, "4711").await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn bodies_stream_both_ways_over_tls() {
    let scene = Certified::new().await;
    let proxy = scene.proxy(TLS).log("info").start().await;
    let mut wire = Speaker::new(&scene.root).wire(&proxy).await;
    let body = vec![b'x'; 3 << 20];
    let head = format!(
        "POST /sandbox/upload HTTP/1.1\r\nhost: proxy\r\nx-property-id: 1001\r\ncontent-type: text/plain\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    wire.send(head).await;
    wire.send(&body).await;
    let answer = wire.answer().await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.json()["bytes"], body.len(), "{}", answer.text());
    let answer = wire.get("/sandbox/download?bytes=4000000", "1001").await;
    assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, 4_000_000));
}

#[tokio::test]
async fn a_head_over_tls_is_checked_as_a_plain_one() {
    let scene = Certified::new().await;
    let proxy = scene.proxy(TLS).start().await;
    for (head, code) in [
        ("GET / HTTP/1.1\nhost: a\n\n", "request_invalid"),
        ("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", "request_invalid"),
        ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", "request_invalid"),
        ("GET /a#b HTTP/1.1\r\nhost: a\r\n\r\n", "path_invalid"),
        ("GET /a/../b HTTP/1.1\r\nhost: a\r\nx-property-id: 1001\r\n\r\n", "path_invalid"),
        ("\u{16}x", "request_invalid"),
    ] {
        let mut wire = Speaker::new(&scene.root).wire(&proxy).await;
        wire.send(head).await;
        wire.answer().await.assert_refused(code);
    }
}

#[tokio::test]
async fn a_caller_that_speaks_no_tls_is_told_so_and_garbage_is_not_answered() {
    let scene = Certified::new().await;
    let proxy = scene.proxy(TLS).start().await;
    for bytes in ["GET / HTTP/1.1\r\nhost: a\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let answer = proxy.raw_text(bytes).await;
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("use https:// instead"), "{answer}");
    }
    let answer = proxy.raw(b"\x16\x03\x01\x00\x05hello").await;
    assert!(!String::from_utf8_lossy(&answer).contains("HTTP"), "{answer:?}");
    proxy.wait_for("a line about the handshake", || proxy.log().contains("a TLS handshake failed").then_some(())).await;
    assert_eq!(Speaker::new(&scene.root).wire(&proxy).await.get(DETAILS, "1001").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_handshake_has_a_deadline() {
    let scene = Certified::new().await;
    let proxy = scene.proxy(TLS).env("CLIENT__HEAD_TIMEOUT", "200ms").start().await;
    for bytes in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01\x00"] {
        let mut wire = proxy.connect().await;
        wire.send(bytes).await;
        assert_eq!(in_time(wire.rest()).await, b"");
    }
    proxy.wait_for_metric("connections_open", |open| open == 0.0).await;
}

#[tokio::test]
async fn connections_that_wait_are_parked_and_go_on() {
    let scene = Certified::new().await;
    let proxy = scene.proxy(TLS).log("info").start().await;
    let speaker = Speaker::new(&scene.root);
    // Of so many open ones each is parked as soon as it waits.
    let mut wires = Vec::new();
    for _ in 0..300 {
        wires.push(speaker.wire(&proxy).await);
    }
    for round in 0..2 {
        for wire in wires.iter_mut().step_by(7) {
            assert_eq!(wire.get(DETAILS, "1001").await.status, StatusCode::OK, "{round}");
        }
    }
}

/// The certificate that the listener shows.
async fn shown(speaker: &Speaker<'_>, proxy: &Proxy) -> CertificateDer<'static> {
    let stream = speaker.connect(proxy.address).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

fn der(identity: &Identity) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap()
}

#[tokio::test]
async fn a_new_certificate_is_shown_from_the_next_handshake_on_and_a_bad_one_never() {
    let scene = Certified::new().await;
    let (first, second) = (scene.authority.server(), scene.authority.server());
    let placed = first.clone();
    let builder = Proxy::to(&scene.cloudbeds, &scene.hotels).config(TLS);
    let proxy = builder.before(move |directory| placed.place(directory)).start().await;
    let speaker = Speaker::new(&scene.root);
    assert_eq!(shown(&speaker, &proxy).await, der(&first));
    let mut open = speaker.wire(&proxy).await;

    let kept = |what: &'static str| {
        let proxy = &proxy;
        async move {
            let find = || proxy.log().lines().any(|line| line.contains("keeps its certificate") && line.contains(what));
            proxy.wait_for(what, || find().then_some(())).await;
        }
    };
    let bad = Identity { key: second.key.clone(), ..first.clone() };
    bad.place(proxy.directory.path());
    kept("is not the key of the certificate").await;
    assert_eq!(shown(&speaker, &proxy).await, der(&first));
    std::fs::remove_file(proxy.path("listener.pem")).unwrap();
    kept("is not there").await;
    assert_eq!(shown(&speaker, &proxy).await, der(&first));

    second.place(proxy.directory.path());
    proxy.wait_for_event("the listener has a new certificate").await;
    assert_eq!(shown(&speaker, &proxy).await, der(&second));
    assert_eq!(open.get(DETAILS, "1001").await.status, StatusCode::OK);
    assert!(!proxy.log().contains("PRIVATE KEY"));
}

#[tokio::test]
async fn what_is_wrong_with_the_files_is_told_before_anything_is_served() {
    let scene = Certified::new().await;
    let (identity, other) = (scene.authority.server(), scene.authority.server());
    let wrong: [(&str, Spoil); 4] = [
        ("tls.certificate_file: is not there", Box::new(|at| std::fs::remove_file(at.join("listener.pem")).unwrap())),
        (
            "tls.certificate_file: holds no certificate",
            Box::new(|at| std::fs::write(at.join("listener.pem"), "x").unwrap()),
        ),
        ("tls.key_file: has mode 0644, so others may read", {
            let key = identity.key.clone();
            Box::new(move |at| {
                std::fs::remove_file(at.join("listener.key")).unwrap();
                std::fs::write(at.join("listener.key"), &key).unwrap();
            })
        }),
        ("tls.key_file: is not the key of the certificate", {
            let key = other.key.clone();
            Box::new(move |at| write_private(&at.join("listener.key"), &key))
        }),
    ];
    for (words, spoil) in wrong {
        let placed = identity.clone();
        let builder = Proxy::to(&scene.cloudbeds, &scene.hotels).config(TLS);
        let (code, said) = builder
            .before(move |directory| {
                placed.place(directory);
                spoil(directory);
            })
            .refused()
            .await;
        assert_eq!(code, Some(78), "{said}");
        assert!(said.contains(words), "{said}");
    }
}

#[tokio::test]
async fn a_process_that_ends_ends_its_encrypted_connections_in_order() {
    let scene = Certified::new().await;
    let mut proxy = scene.proxy(TLS).start().await;
    let speaker = Speaker::new(&scene.root);
    let mut idle = speaker.connect(proxy.address).await.unwrap();
    assert_eq!(speaker.wire(&proxy).await.get(DETAILS, "1001").await.status, 200);
    let hanging = proxy.connect().await;
    proxy.signal(Signal::TERM);
    // An end without TLS's own would be an error here.
    let mut rest = Vec::new();
    in_time(tokio::io::AsyncReadExt::read_to_end(&mut idle, &mut rest)).await.unwrap();
    assert_eq!(rest, b"");
    assert!(in_time(proxy.ended()).await.success());
    drop(hanging);
}

#[tokio::test]
async fn doctor_tells_of_the_certificate() {
    let scene = Certified::new().await;
    let desk = Desk::before(&scene.cloudbeds, &scene.hotels, TLS);
    desk.write_keys(&format!("\"1001\": {}\n\"1002\": {}\n", scene.hotels[0].key, scene.hotels[1].key));
    let identity = scene.authority.server();
    identity.place(desk.path("keys.yaml").parent().unwrap());
    let ran = desk.run(&["doctor", "--offline"], "").await;
    ran.expect(0, &["listener.pem", "the listener's certificate, issued by ", "good until "]);
    let ran = desk.run(&["check-config"], "").await;
    ran.expect(0, &["ok; 2 keys"]);
    write_private(&desk.path("listener.key"), &scene.authority.server().key);
    for command in [&["doctor", "--offline"][..], &["check-config"]] {
        let ran = desk.run(command, "").await;
        assert_ne!(ran.code, Some(0));
        assert!((ran.out.clone() + &ran.err).contains("is not the key of the certificate"), "{ran:?}");
    }
}
