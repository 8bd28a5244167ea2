//! The vendor's webhook: answered at once, believed in nothing, and never a reason to call Cloudbeds often.

use std::time::{Duration, Instant};

use cloudbeds_auth_proxy::sandbox::{App, Rule, Webhooks};
use http::{Method, Request};
use http_body_util::Full;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::hotel::{CLIENT, REDIRECT, SECRET, visit};
use crate::harness::{Answer, Hotels, Scene, assert_clean, canary, in_time, until};

/// A message about a property, as the vendor sends it.
fn message(client: &str, property: &str, state: &str) -> String {
    json!({
        "version": "1.0", "event": "integration/appstate_changed", "timestamp": 1_764_000_000.5,
        "propertyID": property.parse::<u64>().unwrap_or_default(), "propertyID_str": property,
        "clientID": client, "oldState": "enabled", "newState": state,
    })
    .to_string()
}

async fn post(hotels: &Hotels, path: &str, body: impl Into<bytes::Bytes>) -> Answer {
    let request = Request::post(path).header("host", "x").header("content-type", "application/json");
    visit(hotels.connect, request.body(Full::new(body.into())).unwrap(), &hotels.proxy.secrets).await
}

/// How often Cloudbeds was asked about a key.
fn looks(hotels: &Hotels) -> usize {
    hotels.cloudbeds.requests().iter().filter(|seen| seen.target.contains("/userinfo")).count()
}

async fn counted(hotels: &Hotels, result: &str) -> f64 {
    hotels.proxy.metric(&format!("webhooks_total{{result=\"{result}\"}}")).await
}

#[tokio::test]
async fn what_cloudbeds_sends_leads_to_one_look_in_any_order_and_number() {
    let hotels = Scene::new().start().await;
    let mut app = App::new(CLIENT, *SECRET, REDIRECT);
    app.webhook = Some(format!("http://{}/webhook", hotels.connect));
    hotels.cloudbeds.set_app(app).unwrap();
    hotels.cloudbeds.set_webhooks(Webhooks { copies: 3, reversed: true });
    let rule = Rule { property: None, path: "userinfo".to_owned(), times: 1, room: "hang".to_owned() };
    hotels.cloudbeds.add_rule(rule);
    hotels.cloudbeds.disconnect("1001".parse().unwrap(), CLIENT);
    until("all are delivered", async || hotels.cloudbeds.delivered().len() == 3).await;
    // The sandbox waits two seconds, as Cloudbeds does; that the look itself takes longer must not matter.
    assert!(hotels.cloudbeds.delivered().iter().all(|delivered| delivered.outcome == Ok(200)));
    until("the look", async || looks(&hotels) == 1).await;
    assert_eq!((counted(&hotels, "probed").await, counted(&hotels, "repeated").await), (1.0, 2.0));
    // Unsigned as it is, it takes no key away.
    assert!(hotels.works(1002).await);
    assert_eq!(hotels.proxy.get("/api/v1.3/getHotels").property("1001").send().await.status, 401);
}

#[tokio::test]
async fn a_property_is_looked_at_once_a_minute_whatever_is_sent() {
    let hotels = Scene::new().start().await;
    for number in 0..50 {
        let text = message(CLIENT, "1001", &format!("state {number}"));
        assert_eq!(post(&hotels, "/webhook", text).await.status, 200);
    }
    assert_eq!(post(&hotels, "/webhook", message(CLIENT, "1002", "disabled")).await.status, 200);
    until("both looks", async || looks(&hotels) == 2).await;
    assert_eq!((counted(&hotels, "probed").await, counted(&hotels, "repeated").await), (2.0, 49.0));
}

#[tokio::test]
async fn what_does_not_concern_us_is_answered_and_forgotten() {
    let hotels = Scene::new().start().await;
    let other_event =
        message(CLIENT, "1001", "disabled").replace("integration/appstate_changed", "reservation/created");
    for text in [
        message("live1_of_another_app", "1001", "disabled"),
        message(CLIENT, "1003", "enabled"),
        message(CLIENT, "0", "enabled"),
        message(CLIENT, "../1001", "enabled"),
        other_event,
        "{}".to_owned(),
        "[]".to_owned(),
        "null".to_owned(),
    ] {
        let answer = post(&hotels, "/webhook", text.clone()).await;
        assert_eq!((answer.status.as_u16(), answer.json()["success"].as_bool()), (200, Some(true)), "{text}");
    }
    assert_eq!(counted(&hotels, "ignored").await, 8.0);
    for text in ["", "not json", "{\"event\":"] {
        assert_eq!(post(&hotels, "/webhook", text).await.status, 400);
    }
    let get = Request::get("/webhook").header("host", "x").body(Full::default()).unwrap();
    let get = visit(hotels.connect, get, &hotels.proxy.secrets).await;
    assert_eq!((get.status.as_u16(), counted(&hotels, "refused").await), (405, 3.0));
    assert_eq!(looks(&hotels), 0);
}

#[tokio::test]
async fn the_path_may_hold_a_secret_which_no_log_shows() {
    let secret = canary("the secret in the webhook's path");
    let scene = Scene::new().onboarding(", webhook_path_secret_file: webhook-secret");
    let (cloudbeds, keys) = scene.cloudbeds().await;
    let proxy = scene.proxy(&cloudbeds, &keys).secret_file("webhook-secret", secret).start().await;
    let hotels = Hotels { connect: crate::harness::hotel::onboarding(&proxy), cloudbeds, proxy };
    for wrong in [
        "/webhook",
        "/webhook/",
        "/webhook/guess",
        &format!("/webhook/{}", &secret[1..]),
        &format!("/webhook/{secret}/"),
    ] {
        let answer = post(&hotels, wrong, message(CLIENT, "1001", "disabled")).await;
        assert_eq!(answer.status, 404, "{wrong}");
    }
    assert_eq!(looks(&hotels), 0);
    let answer = post(&hotels, &format!("/webhook/{secret}"), message(CLIENT, "1001", "disabled")).await;
    assert_eq!(answer.status, 200);
    until("the look", async || looks(&hotels) == 1).await;
    let lines = hotels.proxy.wait_for("six lines", || {
        let lines: Vec<_> = hotels.proxy.access().into_iter().filter(|line| line["path"] == "/webhook").collect();
        (lines.len() == 6).then_some(lines)
    });
    lines.await;
}

#[tokio::test]
async fn a_hundred_megabytes_are_refused_before_they_are_read() {
    let hotels = Scene::new().start().await;
    let size: u64 = 100 << 20;
    for framing in [format!("content-length: {size}"), "transfer-encoding: chunked".to_owned()] {
        let started = Instant::now();
        let mut stream = TcpStream::connect(hotels.connect).await.unwrap();
        let head = format!("POST /webhook HTTP/1.1\r\nhost: x\r\n{framing}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let (mut read, mut write) = stream.into_split();
        let sending = tokio::spawn(async move {
            let (mut sent, chunk) = (0, vec![b' '; 64 << 10]);
            let framed = [b"10000\r\n".as_slice(), &chunk, b"\r\n"].concat();
            while sent < size {
                if write.write_all(if framing.starts_with('t') { &framed } else { &chunk }).await.is_err() {
                    break;
                }
                sent += chunk.len() as u64;
            }
            sent
        });
        let mut answer = vec![0; 1024];
        let length = in_time(read.read(&mut answer)).await.unwrap();
        assert_clean("an answer", &answer[..length], &hotels.proxy.secrets);
        let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        assert!(started.elapsed() < Duration::from_secs(10));
        drop(read);
        assert!(in_time(sending).await.unwrap() < size, "it was read to its end");
    }
    assert!(hotels.works(1001).await);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let hotels = Scene::new().start().await;
    let mut stream = TcpStream::connect(hotels.connect).await.unwrap();
    stream.write_all(b"POST /webhook HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{").await.unwrap();
    let mut answer = vec![0; 1024];
    let length = in_time(stream.read(&mut answer)).await.unwrap();
    assert_clean("an answer", &answer[..length], &hotels.proxy.secrets);
    assert!(String::from_utf8_lossy(&answer[..length]).starts_with("HTTP/1.1 408 "));
    let other = hotels.proxy.get("/api/v1.3/getHotels").property("1001").send().await;
    assert_eq!(other.status, 200);
    let _ = Method::POST;
}
