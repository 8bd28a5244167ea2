//! Cloudbeds' name: it may move to another address, and whoever resolves it may take for ever.
//!
//! The proxy gets an `/etc/hosts` of its own, in a mount namespace, for which the tests must run as root.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinHandle;

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
struct NameServer {
    address: IpAddr,
    answer: watch::Sender<bool>,
    asked: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
    place: tempfile::TempDir,
}

impl NameServer {
    /// Each test has an address of its own: there is but one port to ask at.
    async fn start(address: IpAddr) -> Self {
        let socket = UdpSocket::bind((address, 53)).await.unwrap();
        let (answer, answers) = watch::channel(false);
        let asked = Arc::<AtomicUsize>::default();
        let serving = tokio::spawn(serve_names(socket, answers, Arc::clone(&asked)));
        Self { address, answer, asked, serving, place: tempfile::tempdir().unwrap() }
    }

    /// The program asks it, and nobody else.
    fn asked_by(&self, builder: Builder) -> Builder {
        let write = |name: &str, text: &str| fs::write(self.place.path().join(name), text).unwrap();
        write("hosts", "");
        write("resolv.conf", &format!("nameserver {}\noptions timeout:30 attempts:1\n", self.address));
        write("nsswitch.conf", "hosts: files dns\n");
        let mount = "for file in hosts resolv.conf nsswitch.conf; do mount --bind \"$0/$file\" /etc/$file || exit 1; done; \
                     exec \"$@\"";
        builder.by(&["unshare", "-m", "sh", "-c", mount, self.place.path().to_str().unwrap()])
    }

    /// How many questions have come: one look-up is two of them, for either kind of address.
    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve_names(socket: UdpSocket, mut answers: watch::Receiver<bool>, asked: Arc<AtomicUsize>) {
    let mut kept = Vec::new();
    let mut question = [0; 512];
    loop {
        tokio::select! {
            got = socket.recv_from(&mut question) => {
                let (length, from) = got.unwrap();
                asked.fetch_add(1, Ordering::Relaxed);
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
    let names = NameServer::start([127, 0, 0, 77].into()).await;
    let upstream = Upstream::start(HTTP1, |mut peer: Peer| async move { peer.serve().await }).await;
    let builder = upstream.proxy().config("workers: 1").env("UPSTREAM__TIMEOUTS__CONNECT", "500ms").log("info");
    let proxy = names.asked_by(builder).start().await;
    let threads = || fs::read_dir(format!("/proc/{}/task", proxy.id())).unwrap().count();
    let before = threads();
    for _ in 0..3 {
        for answer in together((0..20).map(|_| proxy.get("/ok").property("1001").send())).await {
            answer.assert_failed(502, "upstream_unreachable", "connection_timeout", "a resolver that hangs");
        }
    }
    assert_eq!(proxy.admin("/readyz").await.status, 200);
    assert!(threads() <= before + 2, "{} threads instead of {before}: one look-up for all", threads());
    names.answer.send(true).unwrap();
    until("it is served", async || proxy.get("/ok").property("1001").send().await.status == 200).await;
}

#[tokio::test]
async fn requests_wait_for_a_slow_resolver_and_are_served_once_it_answers_in_time() {
    if !may_mount() {
        return;
    }
    let names = NameServer::start([127, 0, 0, 78].into()).await;
    let upstream = Upstream::start(HTTP1, |mut peer: Peer| async move { peer.serve().await }).await;
    let builder = upstream.proxy().config("workers: 1").env("UPSTREAM__TIMEOUTS__CONNECT", "15s");
    let proxy = names.asked_by(builder).start().await;
    let calls = (0..20).map(|number| {
        let method = if number % 2 == 0 { "GET" } else { "POST" };
        proxy.call(method, "/ok").property("1001").send()
    });
    let late = async {
        until("it is asked", async || names.asked() > 0).await;
        // Slow is slower than any way to a resolver, and in time.
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert_eq!(upstream.connections(), 0, "nobody knows where to yet");
        names.answer.send(true).unwrap();
    };
    let (answers, ()) = tokio::join!(together(calls), late);
    for answer in answers {
        assert_eq!((answer.status.as_u16(), &*answer.text()), (200, "ok"));
    }
    // The first connection tells which version the others are to speak.
    assert!(
        names.asked() <= 4,
        "{} questions: one look-up for the first connection, one for all others",
        names.asked()
    );
    assert_eq!(upstream.request_lines().len(), 20, "each is sent once");
}
