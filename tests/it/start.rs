//! The start: what is refused before anything listens, and what is listened on afterwards.

use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use cloudbeds_auth_proxy::sandbox::{Hotel, Protocols, Sandbox};
use rustix::process::Signal;

use crate::harness::proxy::Builder;
use crate::harness::{Proxy, Wire, cloudbeds};

async fn scene() -> (Sandbox, Vec<Hotel>, Builder) {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let builder = Proxy::to(&cloudbeds, &hotels);
    (cloudbeds, hotels, builder)
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_and_never_shared_with_a_second_instance() {
    let (cloudbeds, hotels, builder) = scene().await;
    let first = builder.start().await;
    for workers in [1, 2] {
        let second = |listen: &str, admin: &str| {
            Proxy::to(&cloudbeds, &hotels)
                .config(&format!("listen: {listen}\nadmin: {{ listen: {admin} }}\nworkers: {workers}"))
        };
        for (listen, admin) in [
            (first.address.to_string(), "127.0.0.1:0".to_owned()),
            ("127.0.0.1:0".to_owned(), first.address.to_string()),
            ("127.0.0.1:0".to_owned(), first.admin.to_string()),
        ] {
            let taken = if listen.ends_with(":0") { &admin } else { &listen };
            let (code, said) = second(&listen, &admin).refused().await;
            let sentence = "another process is listening there; stop it or choose another port";
            assert_eq!((code, said), (Some(1), format!("cannot listen on {taken}: {sentence}\n")));
        }
    }
    assert_eq!(first.get("/api/v1.3/getHotels").property("1001").send().await.status, 200);
}

#[tokio::test]
async fn what_cannot_work_is_refused_in_one_sentence_each() {
    let delete = |name: &'static str| move |directory: &Path| std::fs::remove_file(directory.join(name)).unwrap();
    let write = |text: &'static str| move |directory: &Path| std::fs::write(directory.join("root.pem"), text).unwrap();
    let plain = || async { scene().await.2 };
    for (builder, code, words) in [
        (plain().await.before(delete("keys.yaml")), 78, vec!["keys.yaml: is not there"]),
        (plain().await.before(delete("root.pem")), 78, vec!["root.pem: upstream.ca_file: No such file"]),
        (plain().await.before(write("")), 78, vec!["root.pem: upstream.ca_file: no certificate in it"]),
        (
            plain().await.before(write("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n")),
            78,
            vec!["root.pem: upstream.ca_file: a certificate in it cannot be used as a root"],
        ),
        (
            plain().await.before(delete("keys.yaml")).before(write("")),
            78,
            vec!["keys.yaml: is not there", "root.pem: upstream.ca_file: no certificate in it"],
        ),
        (plain().await.before(delete("config.yaml")), 78, vec!["config.yaml: is not there"]),
        (plain().await.config("lissen: x"), 78, vec!["lissen: unknown option `lissen` — did you mean `listen`?"]),
        (plain().await.config("listen: 192.0.2.1:80"), 78, vec!["would offer every key to the network"]),
        (
            plain().await.config("listen: 127.0.0.2:1\nadmin: { listen: '192.0.2.1:80' }"),
            1,
            vec!["192.0.2.1:80: this host has no such address"],
        ),
        (plain().await.config("log: { output: ./no/such/directory }"), 78, vec!["no/such/directory: No such file"]),
        (plain().await.log("a=b=c"), 78, vec!["log: the variable RUST_LOG: expected a level"]),
        (plain().await.config("listen: 'unix:no/such.sock'"), 1, vec!["no/such.sock: its directory is not there"]),
        (
            plain().await.config("listen: 'unix:keys.yaml'"),
            1,
            vec!["keys.yaml: a file that is no socket is in the way"],
        ),
    ] {
        let (found, said) = builder.refused().await;
        assert_eq!(found, Some(code), "{words:?}: {said}");
        assert_eq!(said.lines().count(), words.len(), "{said}");
        for (line, words) in said.lines().zip(words) {
            assert!(line.contains(words), "{words:?} is not in {said}");
        }
    }
}

#[tokio::test]
async fn one_connection_too_many_is_told_so_while_operators_still_get_in() {
    let (_cloudbeds, _, builder) = scene().await;
    let proxy = builder.config("client: { max_connections: 2 }").start().await;
    let (mut one, mut two) = (proxy.connect().await, proxy.connect().await);
    for wire in [&mut one, &mut two] {
        assert_eq!(wire.get("/api/v1.3/getHotels", "1001").await.status, 200);
    }
    let answer = proxy.connect().await.answer().await;
    assert_eq!((answer.code().as_str(), answer.header("connection")), ("overloaded", Some("close")));
    assert_eq!(proxy.admin("/readyz").await.status, 200);
    assert_eq!(proxy.metric("requests_total{property=\"\",class=\"5xx\",code=\"overloaded\"}").await, 1.0);
    assert_eq!(one.get("/api/v1.3/getHotels", "1001").await.status, 200);
    drop(two);
    proxy.wait_for_metric("connections_open", |open| open == 1.0).await;
    let again = proxy.get("/api/v1.3/getHotels").property("1001").send().await;
    assert_eq!(again.status, 200, "{}", again.text());
}

#[tokio::test]
async fn the_process_leaves_no_core_dump_and_takes_all_the_files_it_may() {
    let (_cloudbeds, _, builder) = scene().await;
    let proxy = builder.start().await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", proxy.id())).unwrap();
    let limit = |name: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        let fields: Vec<&str> = line.split_whitespace().collect();
        (fields[0].to_owned(), fields[1].to_owned())
    };
    assert_eq!(limit("Max core file size"), ("0".into(), "0".into()));
    let (soft, hard) = limit("Max open files");
    assert_eq!(soft, hard);
    // What is not dumpable belongs to root in /proc. Where the tests run as root this says nothing, and the test in
    // src/process.rs has to do.
    let environ = std::fs::metadata(format!("/proc/{}/environ", proxy.id())).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&environ), 0);
}

#[tokio::test]
async fn a_unix_socket_serves_replaces_a_stale_file_and_is_gone_at_the_end() {
    for workers in [1, 2] {
        let (cloudbeds, hotels, builder) = scene().await;
        let stale = |directory: &Path| drop(UnixListener::bind(directory.join("proxy.sock")).unwrap());
        let listen = format!("listen: ['unix:proxy.sock', 127.0.0.1:0, 127.0.0.1:0]\nworkers: {workers}");
        let mut proxy = builder.config(&listen).before(stale).start().await;
        let socket = proxy.path("proxy.sock");
        assert!(std::fs::metadata(&socket).unwrap().file_type().is_socket());
        for _ in 0..4 {
            assert_eq!(Wire::unix(&socket, &proxy.secrets).await.get("/api/v1.3/getHotels", "1001").await.status, 200);
        }
        let listening = proxy.wait_for_event("ready").await["listen"].as_str().unwrap().to_owned();
        let listening: Vec<&str> = listening.split(", ").collect();
        assert_eq!((listening.len(), listening[0]), (3, &*format!("unix:{}", socket.display())));
        for address in &listening[1..] {
            let mut wire = Wire::tcp(address.parse().unwrap(), &proxy.secrets).await;
            assert_eq!(wire.get("/api/v1.3/getHotels", "1002").await.status, 200);
        }

        let second = Proxy::to(&cloudbeds, &hotels).config(&format!("listen: 'unix:{}'", socket.display()));
        let (code, said) = second.refused().await;
        assert_eq!(code, Some(1));
        assert!(said.contains("another process is listening there; stop it or choose another path"), "{said}");
        assert_eq!(Wire::unix(&socket, &proxy.secrets).await.get("/api/v1.3/getHotels", "1001").await.status, 200);

        proxy.signal(Signal::TERM);
        assert_eq!(proxy.ended().await.code(), Some(0));
        assert!(!socket.exists());
    }
}

#[tokio::test]
async fn it_listens_on_ipv6_loopback_where_there_is_one() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return println!("skipped: no IPv6 on this host");
    }
    let (_cloudbeds, _, builder) = scene().await;
    let proxy = builder.config("listen: '[::1]:0'\nadmin: { listen: '[::1]:0' }").start().await;
    assert!(proxy.address.is_ipv6() && proxy.admin.is_ipv6());
    assert_eq!(proxy.get("/api/v1.3/getHotels").property("1001").send().await.status, 200);
    assert_eq!(proxy.admin("/readyz").await.status, 200);
}
