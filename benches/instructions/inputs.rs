//! What the stages are given: heads, requests, keys, bodies, a log.
//!
//! In: nothing but numbers. Out: the same values every time. Requests are read from memory.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cloudbeds_auth_proxy::budget::{Budgets, Limits};
use cloudbeds_auth_proxy::proxy::limit::Limiter;
use cloudbeds_auth_proxy::telemetry::{self, Guard, LogSettings, Output};
use cloudbeds_auth_proxy::wire::head::{self, Lines};
use cloudbeds_auth_proxy::wire::incoming::Incoming;
use http::Request;

use crate::world::KEYS;

/// How often a stage is gone through for one figure, which is the mean.
pub(crate) const CALLS: usize = 50;

/// The first property; ids of the length seen in the field.
pub(crate) const FIRST: u64 = 100_000_000_001;

/// A path that is asked for in the name of a property without a key.
pub(crate) const REFUSED: &str = "/bench/refused";

/// What a PHP or Python client sends.
pub(crate) fn head(path: &str, property: u64) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: GuzzleHttp/7\r\nAccept: application/json\r\n\
         Accept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\nX-Property-Id: {property}\r\n\
         Authorization: Bearer unused\r\n\r\n"
    )
    .into_bytes()
}

/// The head that stages of their own are given.
pub(crate) fn usual_head(number: usize) -> Vec<u8> {
    head("/api/v1.3/getReservations?pageSize=20&status=confirmed", FIRST + number as u64 % KEYS)
}

/// So many requests as the gate hands them to the proxy.
pub(crate) fn requests(count: usize) -> Vec<Box<Request<Incoming>>> {
    let request = |number| {
        let head = Bytes::from(usual_head(number));
        let mut lines = Lines::default();
        assert_eq!(lines.find(&head), Some(head.len()));
        head::read(&head, &lines, 100).unwrap().request
    };
    (0..count).map(request).collect()
}

/// The text of a key file.
pub(crate) fn key_file(rows: u64) -> String {
    let mut text = String::new();
    for id in 0..rows {
        writeln!(text, "\"{}\": cbat_{:032x}", FIRST + id, u128::from(id) * 0x9E37_79B9_7F4A_7C15_F39C).unwrap();
    }
    text
}

pub(crate) fn write_private(path: &Path, text: &str) {
    let mut file = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// The budget of one app that nobody reaches the end of here.
pub(crate) fn wide_budget() -> Limiter {
    let limits = Limits {
        max_wait: Duration::from_secs(5),
        max_waiting: 1_000,
        max_waiting_per_property: 200,
        weights: Arc::default(),
    };
    Limiter { budgets: Arc::new(Budgets::new(vec![("default".to_owned(), 1_000)], &limits)), announce: false }
}

/// Access lines into a file, as JSON is off by default.
pub(crate) fn log_to(path: &Path) -> Guard {
    let settings = LogSettings {
        json: false,
        filter: "info".parse().unwrap(),
        output: Output::File(path.to_owned()),
        access: true,
    };
    telemetry::init(&settings).unwrap()
}
