//! What stands in the log, tried on real events.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use super::*;
use crate::telemetry::RequestIds;
use crate::telemetry::access::{AccessLines, Connection, End, Finished};
use crate::wire::problem::Code;

#[derive(Clone, Default)]
struct Shown(Arc<Mutex<Vec<u8>>>);

impl Write for Shown {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What `work` writes under these settings.
fn log_of(json: bool, filter: &str, access: bool, work: impl FnOnce(&AccessLines)) -> String {
    let shown = Shown::default();
    let settings = LogSettings { json, filter: filter.parse().unwrap(), output: Output::Stdout, access };
    let (subscriber, guard) = subscriber(&settings, &settings.filter, false, shown.clone());
    tracing::subscriber::with_default(subscriber, || work(&guard.access_log().lines()));
    drop(guard);
    let bytes = shown.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

fn finished() -> Finished<'static> {
    Finished {
        id: RequestIds::new(0).next(),
        caller: None,
        property: Some("18446744073709551615".parse().unwrap()),
        method: "GET",
        path: "/api/v1.3/getHotels",
        status: 200,
        code: Some(Code::UpstreamReset),
        end: End::Cut,
        bytes_up: 7,
        bytes_down: 1024,
        total: Duration::from_micros(12_345),
        upstream: Some(Duration::from_micros(12_000)),
        connection: Some(Connection::Reused),
        queued: None,
        upstream_protocol: Some("h2"),
        upstream_request_id: Some("vendor-1"),
    }
}

fn json_line(request: &Finished<'_>) -> Value {
    let log = log_of(true, "off", true, |lines| lines.write(request));
    assert_eq!(log.matches('\n').count(), 1, "one request, one line: {log}");
    assert!(log.is_ascii());
    serde_json::from_str(&log).unwrap()
}

#[test]
fn an_access_line_in_json_has_the_allow_listed_keys_and_no_other() {
    let line = json_line(&finished());
    let keys: BTreeSet<_> = line.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        BTreeSet::from([
            "timestamp",
            "level",
            "target",
            "request_id",
            "property",
            "method",
            "path",
            "status",
            "code",
            "end",
            "bytes_up",
            "bytes_down",
            "duration_ms",
            "upstream_ms",
            "connection",
            "upstream_protocol",
            "upstream_request_id",
        ])
    );
    assert_eq!(line["timestamp"].as_str().unwrap().len(), 24);
    assert_eq!(line["property"], "18446744073709551615");
    assert_eq!(line["status"], 200);
    assert_eq!(line["code"], "upstream_reset");
    assert_eq!(line["end"], "cut");
    assert_eq!(line["duration_ms"], 12.345);
    assert_eq!(line["upstream_ms"], 12.0);
    assert_eq!(line["connection"], "reused");
}

#[test]
fn what_is_not_known_of_a_request_is_left_out_of_its_line() {
    let line = json_line(&Finished {
        property: None,
        code: None,
        upstream: None,
        connection: None,
        queued: None,
        upstream_protocol: None,
        upstream_request_id: None,
        ..finished()
    });
    for absent in ["property", "code", "upstream_ms", "connection", "upstream_protocol", "upstream_request_id"] {
        assert!(line.get(absent).is_none(), "{absent}");
    }
    assert_eq!(line["path"], "/api/v1.3/getHotels");
}

#[test]
fn a_caller_that_is_known_is_named_whatever_its_name() {
    for caller in ["front-desk", "a=\"b\\"] {
        let request = Finished { caller: Some(caller), ..finished() };
        assert_eq!(json_line(&request)["caller"], caller);
    }
    let named = Finished { caller: Some("front-desk"), ..finished() };
    let text = log_of(false, "off", true, |lines| lines.write(&named));
    assert!(text.contains(&format!(" request_id={} caller=front-desk property=", named.id)), "{text}");
}

#[test]
fn no_path_can_break_the_line_or_forge_a_field() {
    for path in ["/a\"b\\c", "/ä\u{202e}\u{1F600}", "/x\r\n{\"status\":999}", "/a b=c", "", "/\u{7f}\0"] {
        let request = Finished { path, ..finished() };
        assert_eq!(json_line(&request)["path"], path);
        let text = log_of(false, "off", true, |lines| lines.write(&request));
        assert_eq!(text.matches('\n').count(), 1);
        assert!(text.is_ascii() && !text.trim_end().bytes().any(|byte| byte.is_ascii_control()), "{text:?}");
        let quoted = text.split_once(" path=").unwrap().1.split_once(" status=200").unwrap().0;
        assert_eq!(serde_json::from_str::<String>(quoted).unwrap(), path);
    }
}

#[test]
fn an_access_line_in_text_reads_like_any_other_line() {
    let text = log_of(false, "off", true, |lines| lines.write(&finished()));
    let (time, rest) = text.split_at(24);
    assert!(time.ends_with('Z'));
    let id = finished().id;
    assert_eq!(
        rest,
        format!(
            "  INFO access: request_id={id} property=18446744073709551615 method=GET path=/api/v1.3/getHotels status=200 \
             code=upstream_reset end=cut bytes_up=7 bytes_down=1024 duration_ms=12.345 upstream_ms=12.000 \
             connection=reused upstream_protocol=h2 upstream_request_id=vendor-1\n"
        )
    );
}

#[test]
fn a_token_never_shows_whichever_way_it_came() {
    for json in [true, false] {
        let log = log_of(json, "trace", true, |lines| {
            lines.write(&Finished { path: "/k/cbat_blue", method: "cbat_blue", ..finished() });
            lines.write(&Finished { path: "/k/%63bat_blue", upstream_request_id: Some("cbat_blue"), ..finished() });
            // As hyper and h2 would, at trace level.
            let cookie = http::HeaderValue::from_static("t=cbat_blue; u=cbat_blue");
            let headers = http::HeaderMap::from_iter([(http::header::COOKIE, cookie)]);
            tracing::trace!(target: "h2::proto", ?headers, raw = ?b"Bearer cbat_blue", "sending cbat_blue");
            tracing::trace_span!("request", key = "cbat_blue").in_scope(|| tracing::trace!("inside"));
        });
        assert_eq!(log.matches('\n').count(), 4, "{log}");
        assert!(!log.contains("blue"), "{log}");
        assert!(log.contains("cbat_****"));
    }
}

/// One HTTP/2 exchange between hyper's client and server that carries a token wherever one can be.
async fn exchange_with_tokens() {
    use http::{Request, Response};
    use hyper_util::rt::{TokioExecutor, TokioIo};

    let (near, far) = tokio::io::duplex(64 * 1024);
    let service = hyper::service::service_fn(async |_: Request<hyper::body::Incoming>| {
        Response::builder().header("x-echo", "cbat_blue").body("Bearer cbat_blue".to_owned())
    });
    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(near)).await.unwrap();
    let exchange = async {
        let request = Request::get("https://a.test/cbat_blue?k=cbat_blue").header("authorization", "Bearer cbat_blue");
        let answer = client.send_request(request.body(String::new()).unwrap()).await.unwrap();
        http_body_util::BodyExt::collect(answer.into_body()).await.unwrap();
    };
    tokio::select! {
        _ = server.serve_connection(TokioIo::new(far), service) => {}
        _ = connection => {}
        () = exchange => {}
    }
}

#[test]
fn what_http2_says_of_itself_at_trace_level_holds_no_token() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let log = log_of(false, "trace", true, |_| runtime.block_on(exchange_with_tokens()));
    assert!(log.contains("h2::"), "the test is void unless dependencies speak: {log}");
    // As text, as bytes in decimal, as bytes in hexadecimal.
    for spelling in ["blue", "98, 108, 117, 101", "626c7565"] {
        assert!(!log.contains(spelling), "{log}");
    }
}

#[test]
fn the_access_line_and_the_filter_leave_each_other_alone() {
    let work = |lines: &AccessLines| {
        tracing::info!("ordinary");
        lines.write(&finished());
    };
    let both = log_of(true, "info", true, work);
    assert!(both.contains("ordinary") && both.contains("getHotels"));
    let only_access = log_of(true, "off", true, work);
    assert!(!only_access.contains("ordinary") && only_access.contains("getHotels"));
    let only_ordinary = log_of(true, "trace", false, work);
    assert!(only_ordinary.contains("ordinary") && !only_ordinary.contains("getHotels"));
}

#[test]
fn an_ordinary_event_in_json_has_its_fields_where_the_access_line_has_them() {
    let log = log_of(true, "info", true, |_| tracing::info!(property.id = 7, "no answer"));
    let line: Value = serde_json::from_str(&log).unwrap();
    assert_eq!(
        (&line["message"], &line["property.id"], &line["level"]),
        (&"no answer".into(), &7.into(), &"INFO".into())
    );
    assert_eq!(line["timestamp"].as_str().unwrap().len(), 24);
}

#[tokio::test]
async fn lines_are_collected_for_a_moment_and_handed_over_together() {
    let shown = Shown::default();
    let settings = LogSettings { json: true, filter: "off".parse().unwrap(), output: Output::Stdout, access: true };
    let (_, guard) = subscriber(&settings, &settings.filter, false, shown.clone());
    let lines = guard.access_log().lines();
    let count = || shown.0.lock().unwrap().iter().filter(|byte| **byte == b'\n').count();
    lines.write(&finished());
    lines.write(&finished());
    assert_eq!(count(), 0);
    let arrived = async {
        while count() < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        () = lines.keep_flushing() => {}
        () = arrived => {}
        () = tokio::time::sleep(Duration::from_secs(10)) => panic!("they never came"),
    }
    lines.write(&finished());
    drop(lines);
    drop(guard); // Waits for the writing thread.
    assert_eq!(count(), 3, "and what is left when the core ends");
}

#[test]
fn many_lines_do_not_wait() {
    let shown = Shown::default();
    let settings = LogSettings { json: true, filter: "off".parse().unwrap(), output: Output::Stdout, access: true };
    let (_, guard) = subscriber(&settings, &settings.filter, false, shown.clone());
    let lines = guard.access_log().lines();
    for _ in 0..500 {
        lines.write(&finished());
    }
    drop(guard);
    assert!(!shown.0.lock().unwrap().is_empty());
}

#[test]
fn a_variable_that_cannot_be_read_is_named() {
    let error = rust_log("info,hyper=loud").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(error.to_string().starts_with("the variable RUST_LOG: expected a level"), "{error}");
}

#[test]
fn a_log_file_that_cannot_be_opened_is_named() {
    let output = Output::File("/nonexistent/proxy.log".into());
    let error = init(&LogSettings { json: false, filter: "info".parse().unwrap(), output, access: true }).unwrap_err();
    assert!(error.to_string().starts_with("/nonexistent/proxy.log: "), "{error}");
}
