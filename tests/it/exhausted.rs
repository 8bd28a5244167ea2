//! Out of descriptors, out of threads, and more callers than any host should have: nothing dies, operators still get in,
//! and it is as before when it is over.

use std::time::Duration;

use cloudbeds_auth_proxy::sandbox::Protocols;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::harness::strace::{self, Attached};
use crate::harness::{
    Caller, HTTP1, Peer, Proxy, Upstream, assert_clean, cloudbeds, in_time, key, signal_children, skipped, until,
};

/// An upstream that answers everything at once.
async fn prompt() -> Upstream {
    Upstream::start(HTTP1, |mut peer: Peer| async move { peer.serve().await }).await
}

async fn asks(caller: &mut Caller) -> String {
    caller.head("GET", "/x", "").await;
    caller.answer_head().await
}

/// The descriptors that a count of callers leaves to the other tests of this process, which run at the same time. Those of
/// the proxy are its own: it is another process.
const REMAINDER: u64 = 4096;

/// As many open files for the tests themselves as the system allows; how many that are.
fn many_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).unwrap();
    limit.maximum.unwrap_or(1 << 20)
}

#[tokio::test]
async fn callers_leave_descriptors_for_cloudbeds_and_for_operators() {
    let upstream = prompt().await;
    // `exec`, so that the process is the one the test knows.
    let limited = ["sh", "-c", "ulimit -n 120; exec \"$0\" \"$@\""];
    let proxy = upstream.proxy().config("workers: 1").log("info").by(&limited).start().await;
    let before = proxy.descriptors();
    let mut callers = Vec::new();
    for _ in 0..300 {
        callers.push(Caller::connect(&proxy).await);
    }
    until("those that are too many are told so", async || {
        proxy.metric("requests_total{property=\"\",class=\"5xx\",code=\"overloaded\"}").await >= 1.0
    })
    .await;
    for _ in 0..20 {
        assert_eq!(proxy.admin("/readyz").await.status, 200);
    }
    for caller in &mut callers[..20] {
        let head = asks(caller).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    }
    let told = proxy
        .events()
        .into_iter()
        .filter(|event| event["message"].as_str().is_some_and(|text| text.contains("few files")));
    assert_eq!(told.count(), 1, "once, not for each of them");
    drop(callers);
    // Those that were refused go a little later than those that were served.
    until("all is as before", async || proxy.get("/ok").property("1001").send().await.status == 200).await;
    until("all are gone", async || proxy.metric("connections_open").await <= 0.0).await;
    until("the descriptors are free", async || proxy.descriptors() <= before + 8).await;
}

#[tokio::test]
async fn without_a_descriptor_accepting_pauses_and_whoever_waits_is_served_in_the_end() {
    let upstream = prompt().await;
    let proxy = upstream.proxy().config("workers: 1").log("info").start().await;
    let mut inside = Caller::connect(&proxy).await;
    assert!(asks(&mut inside).await.starts_with("HTTP/1.1 200 "));
    inside.read(2).await;
    let limit = proxy.limit(Resource::Nofile, Some(proxy.next_descriptor().await));
    let mut outside = Vec::new();
    for _ in 0..10 {
        let mut caller = Caller::connect(&proxy).await;
        caller.head("GET", "/x", "").await;
        outside.push(caller);
    }
    proxy.wait_for_event("cannot accept connections; trying again shortly").await;
    // Who is in already is served, on the connection to Cloudbeds that is there.
    let head = asks(&mut inside).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    inside.read(2).await;
    let events = proxy.events().len();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(proxy.events().len() - events < 30, "the log is not flooded meanwhile");
    proxy.limit(Resource::Nofile, limit);
    for caller in &mut outside {
        let head = caller.answer_head().await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    }
    assert_eq!(proxy.admin("/readyz").await.status, 200);
    assert_eq!(proxy.metric("panics_total").await, 0.0);
}

#[tokio::test]
async fn a_connection_to_cloudbeds_that_cannot_be_had_is_502_until_it_can() {
    let upstream = prompt().await;
    let proxy = upstream.proxy().config("workers: 1").log("info").start().await;
    let mut caller = Caller::connect(&proxy).await;
    until("it is in", async || proxy.metric("connections_open").await >= 1.0).await;
    let limit = proxy.limit(Resource::Nofile, Some(proxy.next_descriptor().await));
    let head = asks(&mut caller).await;
    assert!(head.starts_with("HTTP/1.1 502 ") && head.contains("upstream_unreachable"), "{head}");
    proxy.limit(Resource::Nofile, limit);
    assert_eq!(upstream.connections(), 0, "nothing was sent");
    proxy.assert_serves("afterwards").await;
}

#[tokio::test]
async fn ten_thousand_idle_callers_cost_little_and_hold_up_nobody() {
    const MOST: usize = 10_000;
    let count = usize::try_from(many_files().saturating_sub(REMAINDER)).unwrap().clamp(100, MOST);
    if count < MOST {
        skipped(&format!("{count} callers instead of {MOST}: raise the hard limit of open files (ulimit -Hn)"));
    }
    let upstream = prompt().await;
    let proxy = upstream.proxy().config("client: { max_connections: 20000 }").log("warn").start().await;
    proxy.assert_serves("before").await;
    let (before, files) = (proxy.memory().0, proxy.descriptors());
    let mut idle = Vec::with_capacity(count);
    for number in 0..count {
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        // Some have asked before they became idle.
        if number % 10 == 0 {
            let head = b"GET /ok HTTP/1.1\r\nhost: x\r\nx-property-id: 1001\r\n\r\n";
            tokio::io::AsyncWriteExt::write_all(&mut stream, head).await.unwrap();
            let mut answer = [0; 1024];
            assert!(in_time(stream.read(&mut answer)).await.unwrap() > 0);
            assert_clean("an answer", &answer, &proxy.secrets);
        }
        idle.push(stream);
    }
    until("all are in", async || proxy.metric("connections_open").await >= count as f64).await;
    proxy.assert_serves("among them").await;
    assert_eq!(proxy.admin("/readyz").await.status, 200);
    let grown = proxy.memory().0.saturating_sub(before);
    println!("{count} idle callers: {} KiB, {} bytes each", grown / 1024, grown / count as u64);
    assert!(grown / (count as u64) < 8 * 1024, "{grown} bytes for {count}");
    drop(idle);
    until("all are gone", async || proxy.metric("connections_open").await <= 0.0).await;
    until("and their descriptors", async || proxy.descriptors() <= files + 8).await;
    proxy.assert_serves("afterwards").await;
}

#[tokio::test]
async fn a_storm_of_connections_is_served_one_and_all() {
    many_files();
    let upstream = prompt().await;
    // On a busy machine the upstream, which is in this process, may be slow to accept, and to shake hands.
    let slow = upstream.proxy().env("UPSTREAM__TIMEOUTS__CONNECT", "20s").env("UPSTREAM__TIMEOUTS__TLS", "20s");
    let proxy = slow.env("UPSTREAM__POOL__IDLE", "1s").log("warn").start().await;
    let files = proxy.descriptors();
    let mut storm = JoinSet::new();
    for _ in 0..3000 {
        let address = proxy.address;
        storm.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let head = b"GET /ok HTTP/1.1\r\nhost: x\r\nx-property-id: 1001\r\nconnection: close\r\n\r\n";
            tokio::io::AsyncWriteExt::write_all(&mut stream, head).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        });
    }
    while let Some(answer) = in_time(storm.join_next()).await {
        let answer = answer.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nok"), "{answer}");
        assert_clean("an answer", answer.as_bytes(), &proxy.secrets);
    }
    until("all are gone", async || proxy.metric("connections_open").await <= 0.0).await;
    until("and their descriptors", async || proxy.descriptors() <= files + 8).await;
    assert_eq!(proxy.metric("panics_total").await, 0.0);
}

#[tokio::test]
async fn a_caller_that_never_reads_costs_little_and_is_let_go() {
    for protocols in [Protocols::Http1, Protocols::Http2] {
        let (cloudbeds, hotels) = cloudbeds(protocols).await;
        let proxy = Proxy::to(&cloudbeds, &hotels).env("UPSTREAM__TIMEOUTS__IDLE", "700ms").log("info").start().await;
        assert_eq!(proxy.get("/sandbox/download?bytes=300000").property("1001").send().await.status, 200);
        proxy.forget_peak_memory();
        let before = proxy.memory().0;
        let mut callers = Vec::new();
        for _ in 0..20 {
            let mut caller = Caller::connect(&proxy).await;
            caller.head("GET", "/sandbox/download?bytes=1000000000", "").await;
            callers.push(caller);
        }
        until("all are let go", async || proxy.metric("connections_open").await <= 0.0).await;
        let grown = proxy.memory().1.saturating_sub(before);
        println!("{protocols:?}: {} KiB for 20 that do not read", grown / 1024);
        assert!(grown < 24 << 20, "{protocols:?}: {grown}");
        // What was sent before is there; its end is not in order.
        let mut caller = callers.pop().unwrap();
        caller.answer_head().await;
        let (rest, _) = caller.rest().await;
        assert!(rest.len() < 1_000_000_000);
    }
}

#[tokio::test]
async fn a_start_without_threads_says_so_in_a_sentence() {
    if !strace::is_there() {
        return;
    }
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let mut refused = 0;
    for count in 1..20 {
        let inject = format!("inject=clone,clone3:error=EAGAIN:when={count}+");
        let by = ["strace", "-f", "-o", "/dev/null", "-e", "trace=clone,clone3", "-e", &inject];
        let builder = Proxy::to(&cloudbeds, &hotels).by(&by).log("info");
        let (directory, mut command, secrets) = builder.command();
        let mut child = command.spawn().unwrap();
        let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap_or_default();
        let started = std::time::Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            if read("log").contains("\"message\":\"ready\"") {
                break None;
            }
            assert!(started.elapsed() < crate::harness::PATIENCE, "{count}: {}", read("stderr"));
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let Some(status) = status else {
            // strace, told to end, lets go of what it runs.
            assert_eq!(signal_children(child.id(), Signal::KILL), 1);
            child.wait().unwrap();
            break;
        };
        let (said, log) = (read("stderr"), read("log"));
        assert_clean("what a start that fails says", format!("{said}{log}").as_bytes(), &secrets);
        if status.code() == Some(101) {
            // The one moment between our asking for a thread and a library's: it panics, with its place told.
            let library =
                ["tracing-appender", "src/process.rs"].iter().any(|name| format!("{said}{log}").contains(name));
            assert!(library, "{count}: {said}{log}");
            continue;
        }
        refused += 1;
        assert_eq!(status.code(), Some(1), "{count}: {said}{log}");
        assert!(said.lines().count() == 1 && said.contains("Resource temporarily unavailable"), "{count}: {said}");
        assert!(!said.contains("panicked") && !log.contains("panicked"), "{count}: {said}{log}");
    }
    assert!(refused >= 3, "{refused}");
}

#[tokio::test]
async fn a_process_that_gets_no_more_threads_goes_on_with_those_it_has() {
    if !strace::is_there() {
        return;
    }
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let mut proxy = Proxy::to(&cloudbeds, &hotels).log("info").start().await;
    let attached = Attached::failing(proxy.id(), "clone,clone3", "EAGAIN", &proxy.path("calls")).await;
    for _ in 0..4 {
        // The first call looks Cloudbeds' name up.
        let answer = timeout(Duration::from_secs(5), proxy.get("/api/v1.3/getRooms").property("1001").send()).await;
        assert_eq!(answer.expect("an answer in time").status, 200);
    }
    let new = key();
    proxy.write_keys(&format!("\"1001\": {}\n\"1005\": {new}\n", hotels[0].key));
    proxy.secrets.push(new);
    until("the new key is in force", async || {
        // Cloudbeds does not know it: 401.
        proxy.get("/api/v1.3/getRooms").property("1005").send().await.status != 403
    })
    .await;
    assert_eq!(proxy.admin("/readyz").await.status, 200);
    assert_eq!(proxy.metric("panics_total").await, 0.0);
    proxy.signal(Signal::TERM);
    assert!(proxy.ended().await.success());
    attached.ended().await;
    assert!(proxy.path("keys.state.json").exists());
}
