//! Where the harness does not look by itself: a panic in the middle of a request, what other processes of the same user
//! may see of this one, and its end with a signal that leaves a core.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;

use cloudbeds_auth_proxy::sandbox::Protocols;
use rustix::process::Signal;

use crate::harness::proxy::BINARY;
use crate::harness::{Proxy, Wire, assert_clean, cloudbeds, key, skipped, strace};

#[tokio::test]
async fn a_panic_over_a_request_with_its_key_says_where_and_nothing_else() {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let proxy = Proxy::to(&cloudbeds, &hotels).by(&["env", "CLOUDBEDS_AUTH_PROXY_TEST_PANIC=1"]).start().await;
    for (property, hotel) in [("1001", &hotels[0]), ("1002", &hotels[1])] {
        // Its caller gets no answer; every other one does.
        let head = format!("GET /panic HTTP/1.1\r\nhost: x\r\nx-property-id: {property}\r\n\r\n");
        assert!(proxy.raw(head).await.is_empty());
        assert_eq!(proxy.get("/api/v1.3/getRooms").property(property).send().await.status, 200);
        assert!(proxy.secrets.contains(&hotel.key));
    }
    assert_eq!(proxy.metric("panics_total").await, 2.0);
    assert!(!cloudbeds.requests().iter().any(|seen| seen.target == "/panic"));
    let event = proxy.wait_for_event("a task panicked; this is a bug, please report the place").await;
    assert!(event["file"].as_str().is_some_and(|file| file.ends_with("upstream.rs")), "{event}");
    for file in ["log", "stdout", "stderr"] {
        assert_clean(file, &fs::read(proxy.path(file)).unwrap(), &proxy.secrets);
        // The harness takes the word for a fault otherwise.
        fs::write(proxy.path(file), "").unwrap();
    }
}

/// Everything in a directory belongs to nobody from now on.
fn give_away(directory: &Path) {
    const NOBODY: u32 = 65534;
    for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).chain([directory.to_owned()]) {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}

#[tokio::test]
async fn another_process_of_the_same_user_cannot_look_into_it_and_its_end_leaves_no_core() {
    const NOBODY: [&str; 4] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    if !rustix::process::geteuid().is_root() {
        return skipped("only root can start it as another user, whom root's rights do not help");
    }
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = place.path().join("program");
    fs::copy(BINARY, &copy).unwrap();
    let run = format!("shift; exec {} \"$@\"", copy.display());
    let by = [&NOBODY[..], &["sh", "-c", &run, "sh"]].concat();
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let mut proxy = Proxy::to(&cloudbeds, &hotels).by(&by).before(give_away).start().await;
    assert_eq!(proxy.get("/api/v1.3/getRooms").property("1001").send().await.status, 200);
    let status = fs::read_to_string(format!("/proc/{}/status", proxy.id())).unwrap();
    assert!(status.contains("Uid:\t65534"), "{status}");
    // Of a process that may be looked into these belong to its user.
    for name in ["mem", "maps", "environ"] {
        let path = format!("/proc/{}/{name}", proxy.id());
        assert_eq!(fs::metadata(&path).unwrap().uid(), 0, "{name}");
        let read = Command::new(NOBODY[0]).args(&NOBODY[1..]).args(["head", "-c", "1", &path]).output().unwrap();
        assert!(!read.status.success() && read.stdout.is_empty(), "{name}");
    }
    proxy.signal(Signal::ABORT);
    let status = proxy.ended().await;
    assert_eq!((status.signal(), status.core_dumped()), (Some(6), false));
    let core = |name: &str| name.starts_with("core");
    let names = fs::read_dir(proxy.directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(!names.into_iter().any(|name| core(&name.to_string_lossy())));
}

#[tokio::test]
async fn every_system_call_is_listed_in_the_documentation() {
    if !strace::is_there() {
        return;
    }
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let builder = Proxy::to(&cloudbeds, &hotels).config("listen: ['127.0.0.1:0', 'unix:proxy.sock']");
    let mut proxy = builder.by(&["strace", "-f", "-o", "/dev/stdout"]).log("info").start().await;
    for (method, path) in
        [("GET", "/api/v1.3/getRooms"), ("POST", "/sandbox/upload"), ("GET", "/sandbox/download?bytes=300000")]
    {
        let body = if method == "POST" { "a=b" } else { "" };
        assert_eq!(proxy.call(method, path).property("1001").body(body).send().await.status, 200);
    }
    assert_eq!(
        Wire::unix(&proxy.path("proxy.sock"), &proxy.secrets).await.get("/api/v1.3/getRooms", "1001").await.status,
        200
    );
    assert_eq!(proxy.admin("/metrics").await.status, 200);
    let new = key();
    proxy.write_keys(&format!("\"1001\": {}\n\"1005\": {new}\n", hotels[0].key));
    proxy.wait_for_metric("properties_loaded", |_| true).await;
    proxy.wait_for_metric("key_reloads_total{result=\"ok\"}", |count| count >= 1.0).await;
    // strace would let go of it, were it told to end.
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", proxy.id())).unwrap();
    let process = rustix::process::Pid::from_raw(children.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(process, Signal::TERM).unwrap();
    assert!(proxy.ended().await.success());
    let document = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/syscalls.md")).unwrap();
    let listed = |name: &str| document.contains(&format!("`{name}`"));
    let record = fs::read_to_string(proxy.path("stdout")).unwrap();
    let calls: std::collections::BTreeSet<_> = strace::calls(&record).into_iter().map(|((name, _), _)| name).collect();
    let missing: Vec<_> = calls.iter().filter(|name| !listed(name)).collect();
    assert!(calls.len() > 40 && missing.is_empty(), "{missing:?} of {calls:?}");
    // What it wrote and read there are its keys.
    fs::write(proxy.path("stdout"), "").unwrap();
}
