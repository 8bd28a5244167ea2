//! How the callers of the chaos ask: over HTTP/1.1 byte by byte, or over TLS and HTTP/2 as a client library does.
//!
//! In: a request, and what may not come back. Out: an answer that came to its end, or nothing.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::{sleep, timeout};

use crate::harness::{Answer, Caller, Speaker, in_time};

/// The keys that are looked for in what callers get.
pub type Recent = Arc<Mutex<Vec<String>>>;

/// Where callers go, and what they look for. With a root they speak TLS and HTTP/2.
#[derive(Clone)]
pub struct Place {
    pub address: SocketAddr,
    pub root: Option<String>,
    pub recent: Recent,
    pub seed: u64,
}

/// A request.
pub struct Question {
    pub method: &'static str,
    pub path: String,
    pub property: &'static str,
    pub length: usize,
}

/// A whole answer: whether it is the proxy's own, and whether the connection stays.
pub struct Whole {
    pub ours: bool,
    pub kept: bool,
    pub status: u16,
    pub body: Vec<u8>,
}

/// A caller's connection.
pub enum Connection {
    Http1(Caller),
    Http2(SendRequest<Full<Bytes>>, Vec<String>),
}

impl Connection {
    pub async fn to(place: &Place) -> Self {
        let recent = place.recent.lock().unwrap().clone();
        let Some(root) = &place.root else { return Self::Http1(Caller::at(place.address, &recent).await) };
        let stream = Speaker { alpn: &["h2"], ..Speaker::new(root) }.connect(place.address).await.unwrap();
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self::Http2(sender, recent)
    }

    /// Asks, and waits for the end of the answer.
    pub async fn ask(&mut self, question: &Question) -> Option<Whole> {
        let Question { method, path, property, length } = question;
        match self {
            Self::Http1(caller) => {
                let head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nx-property-id: {property}\r\n");
                let sent = caller.try_write(format!("{head}content-length: {length}\r\n\r\n")).await
                    && caller.try_write(vec![b'b'; *length]).await;
                if !sent {
                    return None;
                }
                let (status, head, body) = caller.whole_answer().await?;
                let head = head.to_ascii_lowercase();
                let ours = head.contains("application/problem+json");
                Some(Whole { ours, kept: !head.contains("connection: close"), status, body })
            }
            Self::Http2(sender, secrets) => {
                let request = Request::builder().method(*method).uri(format!("https://localhost{path}"));
                let body = Full::new(vec![b'b'; *length].into());
                let request = request.header("x-property-id", *property).body(body).unwrap();
                let answer = async {
                    sender.ready().await?;
                    let (parts, body) = sender.send_request(request).await?.into_parts();
                    let body = body.collect().await?.to_bytes().to_vec();
                    Ok::<_, hyper::Error>(Answer { status: parts.status, headers: parts.headers, body })
                };
                let answer = in_time(answer).await.ok()?;
                answer.assert_clean(secrets);
                let ours = answer.header("content-type") == Some("application/problem+json");
                Some(Whole { ours, kept: true, status: answer.status.as_u16(), body: answer.body })
            }
        }
    }

    /// Asks and hangs up: in the upload, before the answer, or with a reset.
    pub async fn hang_up(mut self, question: &Question, manner: u64, after: Duration) {
        if let Self::Http1(caller) = &mut self {
            let Question { method, path, property, length } = question;
            let head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nx-property-id: {property}\r\n");
            let part = if manner == 0 { length / 2 } else { *length };
            let _ = caller.try_write(format!("{head}content-length: {length}\r\n\r\n")).await
                && caller.try_write(vec![b'b'; part]).await;
            sleep(after).await;
            if manner == 2 {
                caller.stream.set_zero_linger().unwrap();
            }
        } else {
            let _ = timeout(after, self.ask(question)).await;
        }
    }
}
