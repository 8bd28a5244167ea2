//! What a newcomer runs first: `demo` and `sandbox` do what they print, and leave nothing behind.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::process::Signal;

use crate::harness::client::plain;
use crate::harness::proxy::ready;
use crate::harness::{Answer, Run, Wire};

/// Every port the system's choice: tests of one host must not meet.
const FREE: [&str; 8] = ["--port", "0", "--admin-port", "0", "--sandbox-port", "0", "--connect-port", "0"];

/// No key and no part of one: behind each prefix stand asterisks.
fn assert_masked(text: &str) {
    for (at, _) in text.match_indices("cbat_") {
        let tail: String = text[at + 5..].chars().take(32).collect();
        assert!(tail.chars().all(|letter| letter == '*') && tail.len() >= 4, "a key shows: cbat_{tail}");
    }
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).unwrap().next().is_none()
}

#[tokio::test]
async fn demo_once_shows_both_sides_of_a_call_and_ends() {
    let directory = tempfile::tempdir().unwrap();
    let mut demo = Run::start(directory.path(), &[&["demo", "--once"], &FREE[..]].concat(), &[]);
    assert_eq!(demo.ended().await.code(), Some(0), "{}", demo.said());
    let printed = demo.printed();
    let lines: Vec<&str> = printed.lines().filter(|line| !line.is_empty()).collect();
    assert_masked(&printed);
    assert!(lines[0].contains("The application → 127.0.0.1:") && lines[0].contains("The proxy → https://localhost:"));
    // Both columns: what the application sent, and what arrived, each on a line of its own.
    let left = |start: &str| lines.iter().any(|line| line.starts_with(&format!("  {start}")));
    let right = |end: &str| lines.iter().any(|line| line.trim_start_matches("  ").contains(&format!("   {end}")));
    assert!(left("GET /api/v1.3/getReservations?pageSize=2 HTTP/1.1"), "{printed}");
    assert!(left("X-Property-Id: 1001") && left("Authorization: Bearer unused"), "{printed}");
    assert!(right("GET /api/v1.3/getReservations?pageSize=2 HTTP/2.0") && right("Host: localhost:"), "{printed}");
    assert!(right(&format!("Authorization: Bearer cbat_{}", "*".repeat(32))), "{printed}");
    assert!(printed.contains("Answer: 200 OK") && printed.contains("reservation "), "{printed}");
    assert_eq!(demo.said(), "");
    assert!(is_empty(directory.path()));
}

/// A curl line, run: its one header and its URL.
async fn run(line: &str, secrets: &[String]) -> Answer {
    let words: Vec<&str> = line.split('\'').collect();
    let url = line.rsplit(' ').next().unwrap().strip_prefix("http://").unwrap();
    let (address, path) = url.split_at(url.find('/').unwrap());
    let address: SocketAddr = address.parse().unwrap();
    match words.get(1) {
        Some(header) => {
            let property = header.strip_prefix("X-Property-Id: ").unwrap();
            Wire::tcp(address, secrets).await.get(path, property).await
        }
        None => plain(address, path, secrets).await,
    }
}

#[tokio::test]
async fn demo_stays_up_its_curl_lines_work_and_a_signal_ends_it_without_a_trace() {
    for signal in [Signal::INT, Signal::TERM] {
        let directory = tempfile::tempdir().unwrap();
        let mut demo = Run::start(directory.path(), &[&["demo"], &FREE[..]].concat(), &[]);
        demo.prints("Ctrl-C ends everything").await;
        let printed = demo.printed();
        let curls: Vec<&str> = printed.lines().map(str::trim).filter(|line| line.starts_with("curl ")).collect();
        assert_eq!(curls.len(), 5, "{printed}");
        let mut answers = Vec::new();
        let secrets = demo.secrets();
        assert!(secrets.len() >= 2, "its keys are known");
        for line in &curls {
            let answer = run(line, &secrets).await;
            assert_masked(&answer.text());
            for value in answer.headers.values() {
                assert_masked(value.to_str().unwrap());
            }
            answers.push(answer);
        }
        let statuses: Vec<u16> = answers.iter().map(|answer| answer.status.as_u16()).collect();
        assert_eq!(statuses, [200, 200, 200, 403, 200]);
        assert_eq!(answers[0].json()["data"]["propertyName"], "Seaside Demo Hotel");
        assert_eq!(answers[3].code(), "property_unknown");
        assert!(answers[4].text().contains("cloudbeds_auth_proxy_requests_total{property=\"1001\""));
        assert!(!is_empty(directory.path()), "its keys are in a temporary directory, readable by its owner");
        demo.signal(signal);
        assert_eq!(demo.ended().await.code(), Some(0), "{}", demo.said());
        assert!(is_empty(directory.path()));
        assert_masked(&(demo.printed() + &demo.said()));
    }
}

#[tokio::test]
async fn a_second_ctrl_c_ends_a_busy_demo_and_still_leaves_no_keys_behind() {
    let directory = tempfile::tempdir().unwrap();
    let mut demo = Run::start(directory.path(), &[&["demo"], &FREE[..]].concat(), &[]);
    demo.prints("Ctrl-C ends everything").await;
    let printed = demo.printed();
    let proxy = printed.split("http://").nth(1).unwrap().split('/').next().unwrap().parse().unwrap();
    let mut busy = Wire::tcp(proxy, &demo.secrets()).await;
    busy.send("POST /sandbox/upload HTTP/1.1\r\nhost: x\r\nx-property-id: 1001\r\n").await;
    busy.send("expect: 100-continue\r\ncontent-length: 8\r\n\r\n").await;
    assert_eq!(busy.answer().await.status, 100, "the upload is under way");
    demo.signal(Signal::INT);
    while tokio::net::TcpStream::connect(proxy).await.is_ok() {}
    demo.signal(Signal::INT);
    assert_eq!(demo.ended().await.code(), Some(0), "{}", demo.said());
    assert!(is_empty(directory.path()));
}

#[tokio::test]
async fn a_taken_port_names_the_flag_that_chooses_another() {
    let directory = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (at, flag) in [(1, "--port"), (3, "--admin-port"), (5, "--sandbox-port"), (7, "--connect-port")] {
        let mut flags = FREE;
        flags[at] = &port;
        let mut demo = Run::start(directory.path(), &[&["demo"], &flags[..]].concat(), &[]);
        assert_eq!(demo.ended().await.code(), Some(1));
        assert_eq!(demo.said(), format!("port {port} is taken; choose another with {flag} PORT\n"));
        assert!(is_empty(directory.path()) && demo.printed().is_empty());
    }
    let mut demo = Run::start(directory.path(), &["demo", "--port", "9999", "--admin-port", "9999"], &[]);
    assert_eq!(demo.ended().await.code(), Some(1));
    assert_eq!(demo.said(), "--admin-port and --port both say 9999; give one of them another port\n");
}

#[tokio::test]
async fn a_proxy_started_with_what_sandbox_prints_works() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["sandbox", "--listen", "localhost:0", "--dir", "demo files", "--hotels", "3"];
    let mut sandbox = Run::start(directory.path(), &arguments, &[]);
    sandbox.prints("Ctrl-C ends it.").await;
    let mode = |name: &str| {
        let file = directory.path().join("demo files").join(name);
        fs::metadata(file).unwrap().permissions().mode() & 0o777
    };
    assert_eq!((mode("keys.yaml"), mode("sandbox-root.pem")), (0o600, 0o644));
    assert_eq!(mode("sandbox-client-secret"), 0o600);
    let printed = sandbox.printed();
    assert_masked(&printed);
    // As a shell would read it: NAME=value, perhaps quoted, and a backslash at the end of each line.
    let mut environment: Vec<(&str, &str)> = printed
        .lines()
        .filter_map(|line| line.trim().strip_suffix(" \\")?.split_once('='))
        .map(|(name, value)| (name, value.trim_matches('\'')))
        .collect();
    assert_eq!(environment.len(), 3, "{printed}");
    assert!(printed.contains("='demo files/keys.yaml' \\"), "{printed}");
    environment.extend([
        ("CLOUDBEDS_AUTH_PROXY__LISTEN", "127.0.0.1:0"),
        ("CLOUDBEDS_AUTH_PROXY__ADMIN__LISTEN", "127.0.0.1:0"),
        ("CLOUDBEDS_AUTH_PROXY__LOG__OUTPUT", "stdout"),
    ]);
    let mut proxy = Run::start(directory.path(), &["serve"], &environment);
    proxy.prints(": ready listen=").await;
    let (listen, _) = ready(&proxy.printed()).unwrap();
    let mut wire = Wire::tcp(listen.parse().unwrap(), &sandbox.secrets()).await;
    for (property, name) in [("1001", "Seaside Demo Hotel"), ("1003", "Demo Hotel 1003")] {
        let answer = wire.get("/api/v1.3/getHotelDetails", property).await;
        assert_eq!(answer.json()["data"]["propertyName"], name);
    }
    proxy.signal(Signal::INT);
    assert_eq!(proxy.ended().await.code(), Some(0));
    assert_masked(&proxy.printed());

    // A second sandbox does not take the place of files that are not a sandbox's.
    let real = directory.path().join("keys.yaml");
    fs::write(&real, "\"1001\": cbat_****\n").unwrap();
    let mut second = Run::start(directory.path(), &["sandbox", "--listen", "127.0.0.1:0", "--dir", "."], &[]);
    assert_eq!(second.ended().await.code(), Some(1));
    assert!(second.said().contains("exists and is not the sandbox's; choose another directory"), "{}", second.said());
    sandbox.signal(Signal::TERM);
    assert_eq!(sandbox.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_running_sandbox_is_steered_from_the_command_line() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["sandbox", "--listen", "127.0.0.1:0", "--control", "127.0.0.1:0", "--dir", "d"];
    let mut sandbox = Run::start(directory.path(), &arguments, &[]);
    sandbox.prints("Ctrl-C ends it.").await;
    let printed = sandbox.printed();
    let (_, rest) = printed.split_once("Control it at http://").unwrap();
    let control = rest.split('/').next().unwrap().to_owned();
    assert!(printed.contains("Property 1003 has not connected it yet: https://localhost:"), "{printed}");
    let run = async |words: &[&str]| {
        let arguments: Vec<&str> =
            ["sandbox", words[0], "--control", &control].into_iter().chain(words[1..].iter().copied()).collect();
        let mut run = Run::start(directory.path(), &arguments, &[]);
        (run.ended().await.code(), run.printed(), run.said())
    };
    let state = async || -> serde_json::Value { serde_json::from_str(&run(&["show", "state"]).await.1).unwrap() };
    assert_eq!(state().await["apps"][0]["hotels"][0]["key"], "works");
    assert_eq!(run(&["do", "revoke", "property=1001"]).await.0, Some(0));
    assert_eq!(state().await["apps"][0]["hotels"][0]["key"], "revoked");
    assert_eq!(run(&["do", "clock", "by=31d"]).await.0, Some(0));
    assert_eq!(state().await["apps"][0]["hotels"][1]["key"], "expired");
    assert_eq!(run(&["show", "requests"]).await.1, "[]\n");
    let (code, printed, said) = run(&["do", "clock", "by=soon"]).await;
    assert_eq!((code, printed.as_str()), (Some(1), ""));
    assert_eq!(said, "sandbox: `by` must be a number and a unit (s, m, h or d), such as 31d\n");
    assert_eq!(run(&["do", "clock", "31d"]).await.0, Some(1));
    sandbox.signal(Signal::TERM);
    assert_eq!(sandbox.ended().await.code(), Some(0));
    let (code, _, said) = run(&["show", "state"]).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("nothing listens at") && said.contains("--control"), "{said}");
}
