//! Cloudbeds' name: it may move to another address, and whoever resolves it may take for ever.
//!
//! The proxy gets an `/etc/hosts` of its own, in a mount namespace, for which the tests must run as root.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::harness::{Builder, HTTP1, Peer, Proxy, Upstream, key, skipped, together, until};

/// Whether it can be done here. Where it cannot, that is a failure with `CI=true`; else the test says that it skips.
pub fn may_mount() -> bool {
    let tried = Command::new("unshare").args(["-m", "mount", "--bind", "/etc/hosts", "/etc/hosts"]).output();
    let may = tried.is_ok_and(|output| output.status.success());
    if !may {
        skipped("no mount namespace can be had here; run the tests as root, with the right to mount");
    }
    may
}

/// Gives it this file as `/etc/hosts`.
fn with_hosts(builder: Builder, hosts: &Path) -> Builder {
    let mount = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
    builder.by(&["unshare", "-m", "sh", "-c", mount, hosts.to_str().unwrap()])
}

/// An upstream that tells which one it is.
async fn named(address: SocketAddr, name: &'static str) -> Upstream {
    Upstream::start_at(address, HTTP1, move |mut peer: Peer| async move {
        while peer.request().await.is_some() {
            peer.answer(name).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_name_that_moves_to_another_address_is_followed() {
    if !may_mount() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let hosts = place.path().join("hosts");
    fs::write(&hosts, "127.0.0.1 localhost\n").unwrap();
    let old = named("127.0.0.1:0".parse().unwrap(), "the old one").await;
    let new = named(SocketAddr::from(([127, 0, 0, 2], old.address.port())), "the new one").await;
    let roots = format!("{}{}", old.root_pem(), new.root_pem());
    let builder = Proxy::to_origin(&old.base_url(), &roots).key("1001", &key()).config("workers: 1");
    let proxy = with_hosts(builder, &hosts).start().await;
    let ask = async |method| {
        let answer = proxy.call(method, "/x").property("1001").send().await;
        (answer.status.as_u16(), answer.text())
    };
    assert_eq!(ask("GET").await, (200, "the old one".to_owned()));
    fs::write(&hosts, "127.0.0.2 localhost\n").unwrap();
    // A connection that is there is used on.
    assert_eq!(ask("GET").await, (200, "the old one".to_owned()));
    drop(old);
    for method in ["GET", "POST", "GET"] {
        assert_eq!(ask(method).await, (200, "the new one".to_owned()), "{method}");
    }
}

/// A name server that keeps questions to itself until it is told to answer: every name is at 127.0.0.1 (RFC 1035 4.1).
async fn name_server(address: SocketAddr, mut answers: tokio::sync::watch::Receiver<bool>) {
    let socket = tokio::net::UdpSocket::bind(address).await.unwrap();
    let mut kept = Vec::new();
    let mut question = [0; 512];
    loop {
        tokio::select! {
            got = socket.recv_from(&mut question) => {
                let (length, from) = got.unwrap();
                kept.push((question[..length].to_vec(), from));
            }
            changed = answers.changed() => if changed.is_err() { return },
        }
        if !*answers.borrow() {
            continue;
        }
        for (question, from) in kept.drain(..) {
            // The name, type and class that are asked for; what follows is the asker's and is left out.
            let Some(end) = question[12..].iter().position(|byte| *byte == 0).map(|at| at + 17) else { continue };
            let address = question[end - 4..end - 2] == [0, 1];
            let mut answer = question[..end].to_vec();
            answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(address), 0, 0, 0, 0]);
            if address {
                answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1]);
            }
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

#[tokio::test]
async fn a_resolver_that_hangs_holds_up_nobody_for_longer_than_connect() {
    if !may_mount() {
        return;
    }
    let (answer, answers) = tokio::sync::watch::channel(false);
    let serving = tokio::spawn(name_server("127.0.0.77:53".parse().unwrap(), answers));
    let place = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(place.path().join(name), text).unwrap();
    write("hosts", "");
    write("resolv.conf", "nameserver 127.0.0.77\noptions timeout:30 attempts:1\n");
    write("nsswitch.conf", "hosts: files dns\n");
    let upstream = Upstream::start(HTTP1, |mut peer: Peer| async move { peer.serve().await }).await;
    let builder = upstream.proxy().config("workers: 1").env("UPSTREAM__TIMEOUTS__CONNECT", "500ms").log("info");
    let mount = "for file in hosts resolv.conf nsswitch.conf; do mount --bind \"$0/$file\" /etc/$file || exit 1; done; \
                 exec \"$@\"";
    let by = ["unshare", "-m", "sh", "-c", mount, place.path().to_str().unwrap()];
    let proxy = builder.by(&by).start().await;
    let threads = || fs::read_dir(format!("/proc/{}/task", proxy.id())).unwrap().count();
    let before = threads();
    for _ in 0..3 {
        for answer in together((0..20).map(|_| proxy.get("/ok").property("1001").send())).await {
            answer.assert_failed(502, "upstream_unreachable", "connection_timeout", "a resolver that hangs");
        }
    }
    assert_eq!(proxy.admin("/readyz").await.status, 200);
    assert!(threads() <= before + 2, "{} threads instead of {before}: one look-up for all", threads());
    answer.send(true).unwrap();
    until("it is served", async || proxy.get("/ok").property("1001").send().await.status == 200).await;
    serving.abort();
}
