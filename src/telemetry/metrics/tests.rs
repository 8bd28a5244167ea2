//! The page as Prometheus reads it.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::*;
use crate::telemetry::RequestIds;
use crate::telemetry::access::{Connection, End, Finished};
use crate::wire::problem::Code;

fn finished(property: &str, status: u16, code: Option<Code>) -> Finished<'static> {
    Finished {
        id: RequestIds::new(0).next(),
        caller: None,
        property: property.parse().ok(),
        method: "GET",
        path: "/",
        status,
        code,
        end: End::Complete,
        bytes_up: 10,
        bytes_down: 1000,
        total: Duration::from_millis(20),
        upstream: Some(Duration::from_millis(19)),
        connection: Some(Connection::New),
        queued: None,
        upstream_protocol: Some("h2"),
        upstream_request_id: None,
    }
}

/// The value of a series, spelt without the common prefix.
fn value(page: &str, series: &str) -> Option<f64> {
    let line = page.lines().find_map(|line| line.strip_prefix("cloudbeds_auth_proxy_")?.strip_prefix(series));
    line.map(|rest| rest.strip_prefix(' ').unwrap().parse().unwrap())
}

fn scrape(metrics: &Metrics) -> String {
    metrics.encode(&Gauges::default(), &|_| true)
}

/// A page on which every metric has moved.
fn filled() -> String {
    let metrics = Metrics::new(2);
    let worker = metrics.recorder();
    for (status, code) in [(200, None), (404, None), (502, Some(Code::UpstreamReset)), (204, None)] {
        worker.finished(&finished("1001", status, code));
    }
    worker.finished(&finished("", 400, Some(Code::PropertyMissing)));
    worker.finished(&Finished { end: End::Cut, ..finished("1002", 200, Some(Code::UpstreamReset)) });
    worker.finished(&Finished { end: End::ClientGone, upstream: None, ..finished("1002", 200, None) });
    worker.connection_opened();
    worker.connection_opened();
    worker.connection_closed();
    worker.upstream_opened();
    worker.upstream_reused();
    Leak::ALL.into_iter().for_each(|place| worker.leak_stopped(place));
    metrics.control().reload_succeeded();
    metrics.control().reload_refused();
    metrics.control().set_revocation_lists_due(2);
    metrics.encode(
        &Gauges {
            keys_loaded: 2,
            properties_loaded: 3,
            verdicts: vec![("active", 2), ("expiring", 1)],
            troubled: vec![("1003".parse().unwrap(), "expiring", 26)],
            budgets: Vec::new(),
        },
        &|_| true,
    )
}

#[test]
fn every_metric_is_on_the_page_with_what_was_counted() {
    let page = filled();
    for (series, expected) in [
        (r#"requests_total{property="1001",class="2xx",code=""}"#, 2.0),
        (r#"requests_total{property="1001",class="5xx",code="upstream_reset"}"#, 1.0),
        (r#"requests_total{property="1002",class="2xx",code="upstream_reset"}"#, 1.0),
        (r#"requests_total{property="",class="4xx",code="property_missing"}"#, 1.0),
        (r#"requests_unfinished_total{end="cut"}"#, 1.0),
        (r#"requests_unfinished_total{end="client_gone"}"#, 1.0),
        (r#"request_duration_seconds_bucket{le="0.01"}"#, 0.0),
        (r#"request_duration_seconds_bucket{le="0.025"}"#, 7.0),
        (r#"request_duration_seconds_bucket{le="+Inf"}"#, 7.0),
        ("request_duration_seconds_sum", 0.14),
        ("request_duration_seconds_count", 7.0),
        ("upstream_duration_seconds_count", 6.0),
        ("request_bytes_total", 70.0),
        ("response_bytes_total", 7000.0),
        ("connections_open", 1.0),
        ("connections_accepted_total", 2.0),
        ("upstream_connections_opened_total", 1.0),
        ("upstream_connections_reused_total", 1.0),
        (r#"leaks_stopped_total{where="coded"}"#, 1.0),
        (r#"key_reloads_total{result="ok"}"#, 1.0),
        (r#"key_reloads_total{result="refused"}"#, 1.0),
        ("key_file_good", 0.0),
        ("keys_loaded", 2.0),
        ("properties_loaded", 3.0),
        ("revocation_lists_due", 2.0),
        ("access_lines_lost_total", 0.0),
        ("panics_total", 0.0),
        ("workers", 2.0),
        (concat!("build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}"), 1.0),
    ] {
        assert_eq!(value(&page, series), Some(expected), "{series} in\n{page}");
    }
    assert!(value(&page, "start_time_seconds").is_some_and(|seconds| seconds > 1.7e9));
}

#[test]
fn two_recorders_sum_at_the_scrape_and_a_third_may_be_gone() {
    let metrics = Metrics::new(3);
    let workers = [metrics.recorder(), metrics.recorder()];
    std::thread::scope(|scope| {
        for worker in workers {
            scope.spawn(move || {
                for _ in 0..10_000 {
                    worker.finished(&finished("1001", 200, None));
                    worker.connection_opened();
                }
            });
        }
    });
    let page = scrape(&metrics);
    assert_eq!(value(&page, r#"requests_total{property="1001",class="2xx",code=""}"#), Some(20_000.0));
    assert_eq!(value(&page, "connections_open"), Some(20_000.0));
}

#[test]
fn a_property_disappears_from_the_labels_once_its_key_is_gone() {
    let metrics = Metrics::new(1);
    let worker = metrics.recorder();
    let with_key = r#"requests_total{property="1001",class="2xx",code=""}"#;
    let without = r#"requests_total{property="",class="2xx",code=""}"#;
    let gone = |metrics: &Metrics| metrics.encode(&Gauges::default(), &|_| false);

    (0..3).for_each(|_| worker.finished(&finished("1001", 200, None)));
    assert_eq!(value(&scrape(&metrics), with_key), Some(3.0));
    for _ in 0..2 {
        let page = gone(&metrics);
        assert!(!page.contains("1001"), "{page}");
        assert_eq!(value(&page, without), Some(3.0));
    }
    worker.finished(&finished("1001", 200, None));
    assert_eq!(value(&gone(&metrics), without), Some(4.0));

    // The key comes back: its series starts anew, and the other one does not go back.
    assert_eq!(value(&scrape(&metrics), with_key), None);
    worker.finished(&finished("1001", 200, None));
    let page = scrape(&metrics);
    assert_eq!((value(&page, with_key), value(&page, without)), (Some(1.0), Some(4.0)));
}

#[test]
fn promtool_accepts_an_empty_page_and_a_full_one() {
    for page in [scrape(&Metrics::new(1)), filled()] {
        let mut check = Command::new("promtool");
        check.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let Ok(mut promtool) = check.spawn() else {
            assert!(std::env::var("CI").is_err(), "promtool is missing: apt-get install prometheus");
            println!("skipped: promtool is missing (apt-get install prometheus)");
            return;
        };
        promtool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
        let verdict = promtool.wait_with_output().unwrap();
        let words = String::from_utf8_lossy(&verdict.stdout) + String::from_utf8_lossy(&verdict.stderr);
        assert!(verdict.status.success() && words.is_empty(), "{words}\n{page}");
    }
}

#[test]
fn every_metric_says_what_it_is_and_starts_with_our_name() {
    let page = filled();
    let names: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert!(names.len() >= 20);
    for name in names {
        assert!(name.starts_with("cloudbeds_auth_proxy_"), "{name}");
        let help = page.lines().find_map(|line| line.strip_prefix(&format!("# HELP {name} "))).unwrap();
        assert!(help.ends_with('.') && help.len() > 20, "{name}: {help}");
    }
}
