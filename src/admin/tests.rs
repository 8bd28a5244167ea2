//! The admin listener, over a real socket.

use std::collections::HashSet;
use std::sync::RwLock;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::phase::Phase;

/// Keys as a test sets them.
struct Keys(RwLock<HashSet<PropertyId>>);

impl KeyView for Keys {
    fn contains(&self, property: PropertyId) -> bool {
        self.0.read().unwrap().contains(&property)
    }

    fn counts(&self) -> (usize, usize) {
        (1, self.0.read().unwrap().len())
    }

    fn budgets(&self) -> Vec<Budget> {
        Vec::new()
    }

    fn rows(&self) -> Vec<Row> {
        let row = |property: &PropertyId| Row {
            property: *property,
            fingerprint: "0123456789abcdef".to_owned(),
            organization: None,
            app: Some("main".to_owned()),
            verdict: Verdict::Expiring,
            age_days: 90,
            idle_days: 26,
            last_used: Some(crate::keys::Time(7)),
            asked_again: None,
        };
        self.0.read().unwrap().iter().map(row).collect()
    }
}

struct Admin {
    address: std::net::SocketAddr,
    state: Arc<AdminState>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

impl Admin {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let keys = Keys(RwLock::new(HashSet::from(["1001".parse().unwrap()])));
        let state = Arc::new(AdminState {
            phase: Arc::new(PhaseCell::new()),
            metrics: Metrics::new(1),
            keys: Arc::new(keys),
            paste: None,
            sites: Sites::default(),
            loopback: true,
        });
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(serve(listener, Arc::clone(&state), async {
            let _ = stopped.await;
        }));
        Self { address, state, stop, served }
    }

    /// Head and body of the answer; the connection is closed behind it.
    async fn ask(&self, method: &str, path: &str) -> (String, String) {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_ascii_lowercase(), body.to_owned())
    }
}

async fn check(admin: &Admin, path: &str, status: u16, first_word: &str) {
    let (head, body) = admin.ask("GET", path).await;
    assert!(head.starts_with(&format!("http/1.1 {status}")), "{path}: {head}");
    assert!(body.starts_with(first_word) && body.ends_with('\n'), "{path}: {body}");
    for always in ["cache-control: no-store", "x-content-type-options: nosniff", "content-type: text/plain;"] {
        assert!(head.contains(always), "{path}: {always} in {head}");
    }
}

#[tokio::test]
async fn the_probes_follow_the_phase_and_nothing_else() {
    let admin = Admin::start().await;
    check(&admin, "/livez", 200, "ok").await;
    check(&admin, "/readyz", 503, "starting").await;
    check(&admin, "/startupz", 503, "starting").await;
    admin.state.phase.set(Phase::Ready);
    check(&admin, "/readyz?verbose", 200, "ready").await;
    check(&admin, "/startupz", 200, "started").await;
    admin.state.phase.set(Phase::Draining);
    check(&admin, "/livez", 200, "ok").await;
    check(&admin, "/readyz", 503, "draining").await;
    check(&admin, "/startupz", 200, "started").await;
    admin.state.phase.set(Phase::Stopped);
    check(&admin, "/readyz", 503, "stopped").await;
}

#[tokio::test]
async fn the_metrics_come_in_prometheus_text_with_the_keys_counted() {
    let admin = Admin::start().await;
    let (head, page) = admin.ask("GET", "/metrics").await;
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(page.contains("\ncloudbeds_auth_proxy_keys_loaded 1\n"), "{page}");
    assert!(page.contains("\ncloudbeds_auth_proxy_properties_loaded 1\n"));
    assert!(page.ends_with('\n'));
}

#[tokio::test]
async fn a_head_request_gets_the_head_alone() {
    let admin = Admin::start().await;
    let (head, body) = admin.ask("HEAD", "/livez").await;
    assert!(head.starts_with("http/1.1 200") && head.contains("content-length: 3"), "{head}");
    assert_eq!(body, "");
}

#[tokio::test]
async fn another_method_is_refused_with_those_that_are_not() {
    let admin = Admin::start().await;
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let (head, _) = admin.ask(method, "/metrics").await;
        assert!(head.starts_with("http/1.1 405") && head.contains("allow: get, head"), "{head}");
    }
}

#[tokio::test]
async fn an_unknown_path_is_told_which_ones_there_are() {
    let admin = Admin::start().await;
    for path in ["/", "/metrics/", "/livez/x", "/LIVEZ"] {
        let (head, body) = admin.ask("GET", path).await;
        assert!(head.starts_with("http/1.1 404"), "{head}");
        for route in ["/livez", "/readyz", "/startupz", "/metrics"] {
            assert!(body.contains(route));
        }
        assert!(!body.contains("LIVEZ"), "what was asked is not quoted");
    }
}

#[tokio::test]
async fn only_so_many_connections_are_served_at_once_and_the_next_waits_its_turn() {
    let admin = Admin::start().await;
    let mut idle = Vec::new();
    for _ in 0..64 {
        idle.push(TcpStream::connect(admin.address).await.unwrap());
    }
    let mut late = TcpStream::connect(admin.address).await.unwrap();
    late.write_all(b"GET /livez HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    let waiting = tokio::time::timeout(Duration::from_millis(200), late.read_to_string(&mut answer)).await;
    assert!(waiting.is_err(), "{answer}");
    idle.pop();
    late.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("ok\n"), "{answer}");
}

#[tokio::test]
async fn told_to_stop_it_lets_idle_connections_go_and_returns() {
    let admin = Admin::start().await;
    let mut idle = TcpStream::connect(admin.address).await.unwrap();
    idle.write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut some = [0; 1024];
    assert!(idle.read(&mut some).await.unwrap() > 0);
    admin.stop.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(2), admin.served).await.unwrap().unwrap();
    assert_eq!(idle.read(&mut some).await.unwrap(), 0);
    assert!(TcpStream::connect(admin.address).await.is_err());
}
