//! Where the harness does not look by itself: panics with a key, a client secret, a code or a password at hand, what other processes of the same user
//! may see of this one, and its end with a signal that leaves a core.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;

use cloudbeds_auth_proxy::sandbox::Protocols;
use rustix::process::Signal;

use crate::harness::hotel::onboarding;
use crate::harness::proxy::BINARY;
use crate::harness::redis::password;
use crate::harness::{Browser, Hotels, Proxy, Redis, Scene, assert_clean, cloudbeds, skipped};
use crate::life::until_refused;

#[tokio::test]
async fn a_panic_over_a_request_with_its_key_says_where_and_nothing_else() {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let proxy = Proxy::to(&cloudbeds, &hotels).by(&["env", "CLOUDBEDS_AUTH_PROXY_TEST_PANIC=/panic"]).start().await;
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
    nothing_was_said(&proxy);
}

/// Nothing that the process has written holds a secret. The harness would take a panic for a fault.
fn nothing_was_said(proxy: &Proxy) {
    for file in ["log", "stdout", "stderr"] {
        assert_clean(file, &fs::read(proxy.path(file)).unwrap(), &proxy.secrets);
        fs::write(proxy.path(file), "").unwrap();
    }
}

#[tokio::test]
async fn a_panic_over_an_exchange_says_where_and_nothing_of_the_secret_and_the_code() {
    let scene = Scene::new();
    let (cloudbeds, hotels) = scene.cloudbeds().await;
    let builder = scene.proxy(&cloudbeds, &hotels).by(&["env", "CLOUDBEDS_AUTH_PROXY_TEST_PANIC=exchange"]);
    let proxy = builder.start().await;
    let connect = onboarding(&proxy);
    let mut hotels = Hotels { cloudbeds, proxy, connect };
    for (panics, id) in [(1.0, 1003), (2.0, 1004)] {
        let mut browser = Browser::default();
        let state = hotels.begin(&mut browser, id).await;
        let back = hotels.approve(id, Some(&state));
        // The user is told what is known: that it may have happened. So does a reload, which begins nothing.
        for _ in 0..2 {
            hotels.open(&mut browser, &back).await.assert_page(502, "Cloudbeds did not answer");
        }
        assert_eq!(hotels.proxy.metric("panics_total").await, panics);
    }
    let event = hotels.proxy.wait_for_event("a task panicked; this is a bug, please report the place").await;
    assert!(event["file"].as_str().is_some_and(|file| file.ends_with("exchange.rs")), "{event}");
    assert!(hotels.works(1001).await);
    // Neither of the two has left, and the code has no copy on disk.
    assert_eq!((hotels.exchanges(), hotels.beside("arrived").len()), (0, 0));
    // The secret, both codes, both states, both cookies, beside the keys.
    assert!(hotels.proxy.secrets.len() >= 7, "{}", hotels.proxy.secrets.len());
    hotels.proxy.signal(Signal::TERM);
    assert!(hotels.proxy.ended().await.success());
    nothing_was_said(&hotels.proxy);
}

#[tokio::test]
async fn a_panic_over_the_password_of_redis_says_where_and_costs_what_replicas_have_in_common() {
    let secret = password();
    let Some(redis) = Redis::with_files(&["--requirepass", &secret], &[]) else { return };
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let shared =
        format!("shared: {{ redis: 'redis://{}', password_file: redis.pw, fallback_share: 0.5 }}", redis.address);
    let builder = Proxy::to(&cloudbeds, &hotels).config("limits: { requests_per_second: 10 }").config(&shared);
    let builder = builder.by(&["env", "CLOUDBEDS_AUTH_PROXY_TEST_PANIC=redis"]).redis_password(&secret);
    let mut proxy = builder.start().await;
    // The keeper of keys and the task that shares the budget begin again, each time in vain.
    let failed = |beginning: &'static str| {
        move |event: &serde_json::Value| event["message"].as_str().is_some_and(|message| message.starts_with(beginning))
    };
    for beginning in ["the task that shares the budget failed", "Redis is lost: this program failed in asking it"] {
        proxy.wait_for(beginning, || proxy.events().into_iter().find(failed(beginning))).await;
    }
    proxy.wait_for_metric("panics_total", |panics| panics >= 4.0).await;
    let event = proxy.wait_for_event("a task panicked; this is a bug, please report the place").await;
    assert!(event["file"].as_str().is_some_and(|file| file.ends_with("link.rs")), "{event}");
    // Requests have this replica's own share, and a key that Cloudbeds rejects is found dead as ever.
    assert_eq!(proxy.get("/api/v1.3/getRooms").property("1001").send().await.status, 200);
    cloudbeds.revoke(&hotels[1].key);
    until_refused(&proxy, "1002").await.0.assert_refused("key_rejected");
    proxy.admin("/metrics").await.assert_clean(&proxy.secrets);
    proxy.admin("/api/keys").await.assert_clean(&proxy.secrets);
    proxy.signal(Signal::TERM);
    assert!(proxy.ended().await.success());
    nothing_was_said(&proxy);
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
