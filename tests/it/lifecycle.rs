//! The end: how a drain goes, what it waits for, and how it is cut short.

use std::io::ErrorKind;

use cloudbeds_auth_proxy::sandbox::{Hotel, Protocols, Sandbox};
use rustix::process::Signal;
use tokio::net::TcpStream;

use crate::harness::proxy::Builder;
use crate::harness::wire::get;
use crate::harness::{Proxy, Wire, cloudbeds};

/// Accepts for as long as the test wants it to.
const LONG_DRAIN: &str = "drain: { min: 1h, max: 1h }";

/// Closes at once, and waits for as long as the test wants it to.
const PATIENT: &str = "drain: { min: 0s, max: 1h }";

async fn scene() -> (Sandbox, Vec<Hotel>, Builder) {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let builder = Proxy::to(&cloudbeds, &hotels);
    (cloudbeds, hotels, builder)
}

/// A request whose second half is still to come, and that Cloudbeds has seen the first half of.
async fn half_an_upload(proxy: &Proxy, cloudbeds: &Sandbox) -> Wire {
    let mut wire = proxy.connect().await;
    wire.send("POST /sandbox/upload HTTP/1.1\r\nhost: x\r\nx-property-id: 1001\r\ncontent-length: 8\r\n\r\nhalf").await;
    let uploading = || cloudbeds.requests().into_iter().find(|seen| seen.body_bytes == 4);
    proxy.wait_for("the upload", uploading).await;
    wire
}

#[tokio::test]
async fn after_sigterm_it_still_accepts_and_asks_callers_to_leave() {
    let (_cloudbeds, _, builder) = scene().await;
    let mut proxy = builder.config(LONG_DRAIN).start().await;
    let mut kept_open = proxy.connect().await;
    assert_eq!(kept_open.get("/api/v1.3/getHotels", "1001").await.header("connection"), None);
    assert_eq!(proxy.admin("/readyz").await.status, 200);

    proxy.signal(Signal::TERM);
    proxy.wait_for_event("draining").await;
    let ready = proxy.admin("/readyz").await;
    assert_eq!((ready.status.as_u16(), ready.text().starts_with("draining")), (503, true), "{}", ready.text());
    assert_eq!(proxy.admin("/livez").await.status, 200);
    assert_eq!(proxy.admin("/startupz").await.status, 200);
    for wire in [&mut kept_open, &mut proxy.connect().await] {
        let answer = wire.get("/api/v1.3/getHotels", "1001").await;
        assert_eq!((answer.status.as_u16(), answer.header("connection")), (200, Some("close")));
        assert!(wire.try_answer().await.is_none(), "and the connection closes");
    }
    let refusal = proxy.get("/api/v1.3/getHotels").send().await;
    assert_eq!((refusal.code().as_str(), refusal.header("connection")), ("property_missing", Some("close")));

    // Ctrl-C: somebody is waiting, so the rest of the minimum is not.
    proxy.signal(Signal::INT);
    assert_eq!(proxy.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_request_in_flight_finishes_and_the_process_ends_with_zero() {
    for workers in [1, 2] {
        let (cloudbeds, _, builder) = scene().await;
        let mut proxy = builder.config(PATIENT).config(&format!("workers: {workers}")).start().await;
        let mut upload = half_an_upload(&proxy, &cloudbeds).await;
        let idle = proxy.connect().await;
        let mut used = proxy.connect().await;
        assert_eq!(used.get("/api/v1.3/getHotels", "1001").await.status, 200);

        proxy.signal(Signal::TERM);
        // Idle connections end at once, also one that never carried a request.
        assert!(idle.rest().await.is_empty() && used.rest().await.is_empty());
        wait_until_closed(&proxy).await;
        assert_eq!(proxy.admin("/readyz").await.status, 503);

        upload.send("full").await;
        let answer = upload.answer().await;
        assert_eq!((answer.status.as_u16(), &answer.json()["bytes"]), (200, &8.into()));
        assert_eq!(answer.header("connection"), Some("close"));
        assert_eq!(proxy.ended().await.code(), Some(0));
        assert!(proxy.log().contains("\"stopped\""));
    }
}

#[tokio::test]
async fn a_head_that_was_half_sent_when_accepting_ended_is_told_so() {
    let (_cloudbeds, _, builder) = scene().await;
    let mut proxy = builder.config(PATIENT).start().await;
    let mut kept_open = proxy.connect().await;
    assert_eq!(kept_open.get("/api/v1.3/getHotels", "1001").await.status, 200);
    let mut fresh = proxy.connect().await;
    let request = get("/api/v1.3/getHotels", "1001");
    for wire in [&mut kept_open, &mut fresh] {
        wire.send(&request[..30]).await;
    }
    proxy.wait_for_metric("connections_open", |open| open == 2.0).await;
    proxy.signal(Signal::TERM);
    proxy.wait_for_event("draining").await;
    wait_until_closed(&proxy).await;
    for wire in [&mut kept_open, &mut fresh] {
        wire.send(&request[30..]).await;
        let answer = wire.answer().await;
        assert_eq!((answer.code().as_str(), answer.header("connection")), ("draining", Some("close")));
    }
    assert_eq!(proxy.ended().await.code(), Some(0));
}

/// Every core has closed its listener once nobody is let in.
async fn wait_until_closed(proxy: &Proxy) {
    let refused = loop {
        match TcpStream::connect(proxy.address).await {
            Ok(_) => tokio::task::yield_now().await,
            // It was in the queue of a listener that closed.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => break error.kind(),
        }
    };
    assert_eq!(refused, ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn what_is_not_finished_at_the_maximum_is_cut_and_still_logged() {
    let (cloudbeds, _, builder) = scene().await;
    let mut proxy = builder.config("drain: { min: 0s, max: 300ms }").start().await;
    let upload = half_an_upload(&proxy, &cloudbeds).await;
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.ended().await.code(), Some(0));
    assert!(upload.rest().await.is_empty());
    assert!(proxy.log().contains("drain.max is over: the requests still under way are cut"));
    let line = proxy.access().pop().expect("its access line");
    assert_eq!((&line["path"], &line["end"]), (&"/sandbox/upload".into(), &"client_gone".into()));
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once_and_in_order() {
    for (first, second) in [(Signal::TERM, Signal::TERM), (Signal::INT, Signal::INT), (Signal::TERM, Signal::INT)] {
        let (cloudbeds, _, builder) = scene().await;
        let mut proxy = builder.config(PATIENT).config("listen: [127.0.0.1:0, 'unix:proxy.sock']").start().await;
        let upload = half_an_upload(&proxy, &cloudbeds).await;
        proxy.signal(first);
        proxy.wait_for_event("draining").await;
        proxy.signal(second);
        assert_eq!(proxy.ended().await.code(), Some(0));
        assert!(upload.rest().await.is_empty());
        assert!(!proxy.path("proxy.sock").exists());
        assert_eq!(proxy.access().len(), 1, "{}", proxy.log());
    }
}

#[tokio::test]
async fn a_successors_socket_file_is_left_in_its_place() {
    let (cloudbeds, hotels, builder) = scene().await;
    let mut proxy = builder.config("listen: [127.0.0.1:0, 'unix:proxy.sock']").config(PATIENT).start().await;
    let mut upload = half_an_upload(&proxy, &cloudbeds).await;
    proxy.signal(Signal::TERM);
    wait_until_closed(&proxy).await;
    let socket = proxy.path("proxy.sock");
    let listen = format!("listen: [127.0.0.1:0, 'unix:{}']", socket.display());
    let _successor = Proxy::to(&cloudbeds, &hotels).config(&listen).start().await;
    upload.send("full").await;
    assert_eq!(upload.answer().await.status, 200);
    assert_eq!(proxy.ended().await.code(), Some(0));
    assert_eq!(Wire::unix(&socket, &proxy.secrets).await.get("/api/v1.3/getHotels", "1001").await.status, 200);
}
