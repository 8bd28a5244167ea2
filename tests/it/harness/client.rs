//! The application: calls as a client library makes them, and bytes as none would.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{PATIENCE, Proxy, assert_clean};

/// How long `raw` waits for further bytes on a connection that stays open.
const SILENCE: Duration = Duration::from_millis(400);

/// A call in the making.
pub struct Call<'a> {
    proxy: &'a Proxy,
    request: http::request::Builder,
    body: Bytes,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl<'a> Call<'a> {
    pub fn new(proxy: &'a Proxy, method: &str, target: &str) -> Self {
        let request = Request::builder().method(method).uri(target).header("host", proxy.address.to_string());
        Self { proxy, request, body: Bytes::new() }
    }

    /// Names the property.
    pub fn property(self, property: &str) -> Self {
        self.header("x-property-id", property)
    }

    /// Adds a header line.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Sends it on a connection of its own and reads the answer; no key may be in it.
    pub async fn send(self) -> Answer {
        self.try_send().await.unwrap()
    }

    /// The same where the answer may break off.
    pub async fn try_send(self) -> Result<Answer, hyper::Error> {
        let request = self.request.body(Full::new(self.body)).unwrap();
        let answer = timeout(PATIENCE, exchange(self.proxy.address, request)).await.expect("an answer in time")?;
        answer.assert_clean(&self.proxy.secrets);
        Ok(answer)
    }
}

async fn exchange(address: SocketAddr, request: Request<Full<Bytes>>) -> Result<Answer, hyper::Error> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let (parts, body) = sender.send_request(request).await?.into_parts();
    let body = body.collect().await?.to_bytes().to_vec();
    Ok(Answer { status: parts.status, headers: parts.headers, body })
}

/// A GET without any header of ours.
pub async fn plain(address: SocketAddr, path: &str, secrets: &[String]) -> Answer {
    let request = Request::get(path).header("host", address.to_string()).body(Full::default()).unwrap();
    send(address, request, secrets).await
}

/// Any request, to any listener; none of the secrets may be in the answer.
pub async fn send(address: SocketAddr, request: Request<Full<Bytes>>, secrets: &[String]) -> Answer {
    let answer = unsearched(address, request).await;
    answer.assert_clean(secrets);
    answer
}

/// The same for who knows where a secret belongs in an answer, and looks for it elsewhere.
pub(super) async fn unsearched(address: SocketAddr, request: Request<Full<Bytes>>) -> Answer {
    timeout(PATIENCE, exchange(address, request)).await.expect("an answer in time").unwrap()
}

/// Bytes in, bytes out.
pub async fn raw(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // A proxy that refuses early may close before everything is written.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let mut chunk = [0; 16 * 1024];
    loop {
        // The first bytes may take their time, the rest comes at once.
        let wait = if answer.is_empty() { PATIENCE } else { SILENCE };
        match timeout(wait, stream.read(&mut chunk)).await {
            Ok(Ok(read @ 1..)) => answer.extend_from_slice(&chunk[..read]),
            _ => return answer,
        }
    }
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The error code of an answer of our own, after checking that it is one in every respect.
    pub fn code(&self) -> String {
        let body = self.json();
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{body}");
        assert_eq!(body["status"], self.status.as_u16());
        assert_eq!(body["success"], false);
        assert!(body["message"].is_string() && body["detail"].is_string() && body["title"].is_string());
        assert!(!self.status.is_success());
        let code = body["code"].as_str().unwrap().to_owned();
        let proxy_status = self.header("proxy-status").unwrap();
        assert!(proxy_status.starts_with("cloudbeds-auth-proxy; error="), "{proxy_status}");
        assert!(proxy_status.contains(&code), "{proxy_status}");
        assert!(self.header("x-proxy-request-id").is_some());
        code
    }

    /// Asserts that the answer is our own refusal with this code, its status in the table of codes, and a sentence.
    pub fn assert_refused(&self, code: &str) {
        assert_eq!(self.code(), code, "{}", self.text());
        let status = match code {
            "property_missing" | "property_invalid" | "property_conflict" | "path_invalid" | "request_invalid" => 400,
            "caller_unknown" => 401,
            "caller_refused" | "property_unknown" | "path_refused" => 403,
            "method_refused" => 405,
            "key_rejected" => 424,
            "budget_exhausted" => 429,
            "headers_too_large" => 431,
            "upgrade_unsupported" => 501,
            "upstream_unreachable" | "upstream_tls" | "upstream_reset" | "upstream_invalid" => 502,
            "draining" | "overloaded" => 503,
            "upstream_timeout" => 504,
            other => panic!("{other} is not in the table"),
        };
        assert_eq!(self.status, status, "{code}");
        let detail = self.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.len() > 30 && detail.ends_with('.') && !detail.contains("  "), "{detail}");
    }

    pub fn assert_clean(&self, secrets: &[String]) {
        for (name, value) in &self.headers {
            assert_clean(&format!("the header {name}"), value.as_bytes(), secrets);
        }
        assert_clean("an answer's body", &self.body, secrets);
    }
}

impl Answer {
    /// Checks code, status and RFC 9209's error type of a failure of our own.
    pub fn assert_failed(&self, status: u16, code: &str, error: &str, what: &str) {
        assert_eq!(self.status, status, "{what}: {}", self.text());
        assert_eq!(self.code(), code, "{what}");
        self.assert_proxy_status(error, what);
    }

    /// Checks RFC 9209's error type alone, as an answer to HEAD has no more.
    pub fn assert_proxy_status(&self, error: &str, what: &str) {
        let proxy_status = self.header("proxy-status").unwrap();
        assert!(proxy_status.contains(&format!("error={error};")), "{what}: {proxy_status}");
    }
}
