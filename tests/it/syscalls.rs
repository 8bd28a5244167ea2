//! The list of system calls in `docs/syscalls.md`, for whoever writes a seccomp profile: scenes of a whole life under
//! strace, none of which makes a call that is not in it.

use std::fs;
use std::path::Path;

use cloudbeds_auth_proxy::sandbox::Protocols;
use http::Request;
use rustix::process::Signal;

use crate::harness::frames::get;
use crate::harness::hotel::onboarding;
use crate::harness::proxy::write_private;
use crate::harness::redis::password;
use crate::harness::{
    Browser, Builder, Certified, Frames, HTTP1, Hotels, Outcome, Peer, Proxy, Redis, Scene, Speaker, Upstream, Wire,
    canary, client, cloudbeds, key, signal_children, strace, until,
};
use crate::life::until_refused;

const ROOMS: &str = "/api/v1.3/getRooms";

/// The same under strace, which writes the calls, and nothing of what is read and written, to standard output.
fn traced(builder: Builder) -> Builder {
    builder.by(&["strace", "-f", "-s", "0", "-o", "/dev/stdout"]).log("info")
}

/// strace would let go of the process, were it told to end.
fn signal(proxy: &Proxy, signal: Signal) {
    assert_eq!(signal_children(proxy.id(), signal), 1);
}

/// Ends it as an orchestrator does, and looks its calls up in the documentation.
async fn assert_listed(mut proxy: Proxy) {
    signal(&proxy, Signal::TERM);
    assert!(proxy.ended().await.success());
    let document = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/syscalls.md")).unwrap();
    let record = fs::read_to_string(proxy.path("stdout")).unwrap();
    let calls = strace::made(&record);
    // In the table: around it stand calls that are not made.
    let rows: Vec<_> = document.lines().filter(|line| line.starts_with('|')).collect();
    let listed = |name: &str| rows.iter().any(|row| row.contains(&format!("`{name}`")));
    let missing: Vec<_> = calls.iter().filter(|name| !listed(name)).collect();
    println!("{}", calls.iter().copied().collect::<Vec<_>>().join(" "));
    // Where strace loses step it takes what a call has returned for the number of the next one, and says so.
    let said = fs::read_to_string(proxy.path("stderr")).unwrap();
    let misread = said.matches("entering, ptrace_syscall_info.op == 2").count();
    assert!(calls.len() > 40 && missing.len() <= misread, "{missing:?} of {calls:?}; {said}");
}

/// Whether strace can be used here.
macro_rules! needs_strace {
    () => {
        if !strace::is_there() {
            return;
        }
    };
}

#[tokio::test]
async fn serving_plain_callers_makes_no_call_that_is_not_listed() {
    needs_strace!();
    for protocols in [Protocols::Http1, Protocols::Http2] {
        let (cloudbeds, hotels) = cloudbeds(protocols).await;
        let builder = Proxy::to(&cloudbeds, &hotels).config("listen: ['127.0.0.1:0', 'unix:proxy.sock']");
        let proxy = traced(builder).start().await;
        for (method, path) in [("GET", ROOMS), ("POST", "/sandbox/upload"), ("GET", "/sandbox/download?bytes=300000")] {
            let body = if method == "POST" { "a=b".repeat(100_000) } else { String::new() };
            assert_eq!(proxy.call(method, path).property("1001").body(body).send().await.status, 200);
        }
        assert_eq!(Wire::unix(&proxy.path("proxy.sock"), &proxy.secrets).await.get(ROOMS, "1001").await.status, 200);
        for page in ["/metrics", "/livez", "/readyz", "/startupz", "/api/keys"] {
            assert_eq!(proxy.admin(page).await.status, 200);
        }
        assert!(proxy.raw("GET / HTTP/1.1\nhost: a\n\n").await.starts_with(b"HTTP/1.1 400 "));
        // Cloudbeds rejects a key: the keeper asks for itself, and writes it down.
        cloudbeds.revoke(&hotels[1].key);
        until_refused(&proxy, "1002").await.0.assert_refused("key_rejected");
        proxy.write_keys(&format!("\"1001\": {}\n\"1005\": {}\n", hotels[0].key, key()));
        proxy.wait_for_metric("key_reloads_total{result=\"ok\"}", |count| count >= 1.0).await;
        signal(&proxy, Signal::HUP);
        proxy.write_keys("nonsense");
        proxy.wait_for_metric("key_reloads_total{result=\"refused\"}", |count| count >= 1.0).await;
        assert_listed(proxy).await;
    }
}

#[tokio::test]
async fn serving_callers_with_certificates_over_http2_makes_no_call_that_is_not_listed() {
    needs_strace!();
    let scene = Certified::new().await;
    let tls = "tls: { certificate_file: listener.pem, key_file: listener.key, client_ca_file: callers.pem }\n\
               callers: { desk: { certificates: [CN=desk], tokens_file: desk.sha256 } }";
    let builder = scene.proxy(tls).file("callers.pem", &scene.root);
    let builder = builder.file("desk.sha256", &crate::callers::digest(&crate::callers::DESK));
    let proxy = traced(builder).start().await;
    let desk = scene.authority.caller("desk", &[]);
    let speaker = Speaker { identity: Some(&desk), ..Speaker::new(&scene.root) };
    for tls12 in [false, true] {
        let answer = Speaker { tls12, ..speaker }.wire(&proxy).await.get(ROOMS, "1001").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let mut frames = Frames::by(&Speaker { alpn: &["h2"], ..speaker }, &proxy, &[]).await;
    for stream in [1, 3] {
        frames.head(stream, &get(ROOMS)).await;
        assert!(matches!(frames.outcome(stream).await, Outcome::Answered(_)));
    }
    // Without a certificate, and with another one from now on.
    let _ = Speaker::new(&scene.root).connect(proxy.address).await;
    scene.authority.server().place(proxy.directory.path());
    proxy.wait_for_event("the listener has a new certificate").await;
    assert_eq!(speaker.wire(&proxy).await.get(ROOMS, "1002").await.status, 200);
    assert_listed(proxy).await;
}

#[tokio::test]
async fn connecting_a_hotel_and_pasting_a_key_makes_no_call_that_is_not_listed() {
    needs_strace!();
    let scene = Scene::new();
    let (cloudbeds, hotels) = scene.cloudbeds().await;
    let token = canary("the admin token");
    let builder = scene.proxy(&cloudbeds, &hotels[..1]).env("ADMIN__TOKEN_FILE", "admin-token");
    let proxy = traced(builder.secret_file("admin-token", token)).start().await;
    let mut hotels_of = Hotels { connect: onboarding(&proxy), cloudbeds, proxy };
    let mut browser = Browser::default();
    hotels_of.connect(&mut browser, 1003).await.assert_page(200, "Lake &#38; Forest is connected");
    assert!(hotels_of.works(1003).await);
    // A key of another hotel than the one asked for is put aside.
    let state = hotels_of.begin(&mut browser, 1003).await;
    let back = hotels_of.approve(1004, Some(&state));
    hotels_of.open(&mut browser, &back).await.assert_page(409, "That was another hotel");
    hotels_of.remember_key(1004);
    let proxy = hotels_of.proxy;
    let request = Request::post("/api/keys/1002").header("host", proxy.admin.to_string());
    let request = request.header("authorization", format!("Bearer {token}")).header("content-type", "text/plain");
    let answer = client::send(proxy.admin, request.body(hotels[1].key.clone().into()).unwrap(), &proxy.secrets).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_listed(proxy).await;
}

#[tokio::test]
async fn sharing_through_redis_makes_no_call_that_is_not_listed() {
    needs_strace!();
    let secret = password();
    let Some(mut redis) = Redis::with_files(&["--requirepass", &secret], &[]) else { return };
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let shared =
        format!("shared: {{ redis: 'redis://{}', password_file: redis.pw, fallback_share: 0.5 }}", redis.address);
    let builder = Proxy::to(&cloudbeds, &hotels).config("limits: { requests_per_second: 5 }").config(&shared);
    let proxy = traced(builder.redis_password(&secret)).start().await;
    proxy.wait_for_metric("shared_up{app=\"default\"}", |up| up == 1.0).await;
    // Some of them wait for their turn, and others are without Redis.
    for _ in 0..12 {
        assert_eq!(proxy.get(ROOMS).property("1001").send().await.status, 200);
    }
    redis.kill();
    proxy.wait_for_metric("shared_up{app=\"default\"}", |up| up == 0.0).await;
    assert_eq!(proxy.get(ROOMS).property("1001").send().await.status, 200);
    redis.start_again();
    proxy.wait_for_metric("shared_up{app=\"default\"}", |up| up == 1.0).await;
    assert_listed(proxy).await;
}

#[tokio::test]
async fn keys_in_a_directory_and_faults_on_the_way_make_no_call_that_is_not_listed() {
    needs_strace!();
    let upstream = Upstream::start(HTTP1, async |mut peer: Peer| peer.serve().await).await;
    let keys = [key(), key()];
    let first = keys[0].clone();
    let builder = upstream.proxy().config("keys: { file: mounted, poll: 200ms }").before(move |at| {
        fs::create_dir(at.join("mounted")).unwrap();
        write_private(&at.join("mounted/1001"), &first);
    });
    let mut proxy = traced(builder).start().await;
    proxy.secrets.extend(keys.clone());
    assert_eq!(proxy.get("/x").property("1001").send().await.status, 200);
    write_private(&proxy.path("mounted/.1001"), &keys[1]);
    fs::rename(proxy.path("mounted/.1001"), proxy.path("mounted/1001")).unwrap();
    proxy.wait_for_metric("key_reloads_total{result=\"ok\"}", |count| count >= 1.0).await;
    // Whoever calls goes away, in an upload and before the answer.
    let mut wire = proxy.connect().await;
    wire.send("POST /x HTTP/1.1\r\nhost: a\r\nx-property-id: 1001\r\ncontent-length: 10\r\n\r\n12345").await;
    drop(wire);
    drop(upstream);
    proxy.get("/x").property("1001").send().await.assert_refused("upstream_unreachable");
    until("nobody is connected", async || proxy.metric("connections_open").await == 0.0).await;
    assert_listed(proxy).await;
}
