//! Disks that are full, read-only or forbidden, and a key file that is written while it is read: what was in force stays,
//! the cause is told, and requests go on.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use cloudbeds_auth_proxy::sandbox::Protocols;
use rustix::process::{Resource, Signal};

use crate::harness::proxy::BINARY;
use crate::harness::{Desk, Proxy, cloudbeds, key, until};

/// Root without the right to overlook permissions, as a process in a container is, and as everybody else is anyway.
const WITHOUT_RIGHTS: [&str; 2] = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"];

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// By way of setpriv where the tests run as root.
fn by() -> Vec<&'static str> {
    if rustix::process::geteuid().is_root() { WITHOUT_RIGHTS.to_vec() } else { Vec::new() }
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_named_and_nothing_is_changed() {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let desk = Desk::before(&cloudbeds, &hotels, "");
    let before = format!("\"1001\": {}\n", key());
    desk.write_keys(&before);
    for arguments in [
        &["keys", "add", "1001", "--no-check"][..],
        &["keys", "add", "1002", "--no-check"],
        &["keys", "remove", "1001"],
        &["keys", "revoke", "1001", "--yes"],
    ] {
        let words = [&by()[..], &[BINARY, "--config", "config.yaml"], arguments].concat();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).current_dir(desk.path(""));
        mode(&desk.path(""), 0o500);
        let ran = desk.run_command(command, &hotels[0].key).await;
        mode(&desk.path(""), 0o700);
        ran.expect(1, &["Permission denied", "run this as the user the keys belong to"]);
        assert_eq!(desk.keys(), before, "{arguments:?}");
    }
}

#[tokio::test]
async fn a_directory_that_becomes_read_only_costs_the_state_and_nothing_else() {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let mut proxy = Proxy::to(&cloudbeds, &hotels).by(&by()).log("info").start().await;
    until("the first state is written", async || proxy.path("keys.state.json").exists()).await;
    let state = fs::read(proxy.path("keys.state.json")).unwrap();
    mode(proxy.directory.path(), 0o500);
    assert_eq!(proxy.get("/api/v1.3/getRooms").property("1001").send().await.status, 200);
    proxy.signal(Signal::TERM);
    let status = proxy.ended().await;
    mode(proxy.directory.path(), 0o700);
    assert!(status.success());
    assert_eq!(fs::read(proxy.path("keys.state.json")).unwrap(), state);
    let told = |event: &serde_json::Value| {
        event["level"] == "WARN" && event["message"].as_str().is_some_and(|text| text.contains("kept in memory only"))
    };
    assert!(proxy.events().iter().any(told), "{}", proxy.log());
}

#[tokio::test]
async fn a_key_file_that_may_no_longer_be_read_leaves_its_keys_in_force() {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let proxy = Proxy::to(&cloudbeds, &hotels).by(&by()).log("info").start().await;
    mode(&proxy.path("keys.yaml"), 0o000);
    proxy.wait_for_metric("key_file_good", |good| good == 0.0).await;
    let told = |event: &serde_json::Value| {
        event["message"]
            .as_str()
            .is_some_and(|text| text.contains("the last good ones stay") && text.contains("keys.yaml"))
    };
    proxy.wait_for("the cause", || proxy.events().into_iter().find(told)).await;
    assert_eq!(proxy.get("/api/v1.3/getRooms").property("1001").send().await.status, 200);
    assert_eq!(proxy.admin("/readyz").await.status, 200);
    mode(&proxy.path("keys.yaml"), 0o600);
    proxy.wait_for_metric("key_file_good", |good| good == 1.0).await;
}

#[tokio::test]
async fn a_key_file_that_is_written_in_place_while_it_is_read_never_loses_a_key() {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let proxy = Proxy::to(&cloudbeds, &hotels).log("info").start().await;
    let (one, two) = (&hotels[0].key, &hotels[1].key);
    let mut rows = format!("\"1001\": {one}\n\"1002\": {two}\n");
    for round in 0..150 {
        // Whole, in halves, and by a rename in the middle of it.
        rows = format!("# {round}\n\"1001\": {one}\n\"1002\": {two}\n");
        match round % 3 {
            0 => {
                let (half, rest) = rows.split_at(rows.len() / 2);
                fs::write(proxy.path("keys.yaml"), half).unwrap();
                proxy.signal(Signal::HUP);
                tokio::time::sleep(std::time::Duration::from_millis(3)).await;
                let mut file = fs::File::options().append(true).open(proxy.path("keys.yaml")).unwrap();
                std::io::Write::write_all(&mut file, rest.as_bytes()).unwrap();
            }
            1 => {
                fs::write(proxy.path("keys.yaml"), "").unwrap();
                fs::write(proxy.path("keys.yaml"), &rows).unwrap();
            }
            _ => proxy.write_keys(&rows),
        }
        proxy.signal(Signal::HUP);
        for property in ["1001", "1002"] {
            let answer = proxy.get("/api/v1.3/getHotelDetails").property(property).send().await;
            assert_eq!(answer.status, 200, "{round} {property}: {}", answer.text());
            assert_eq!(answer.json()["data"]["propertyID"].as_str(), Some(property), "{round}");
        }
    }
    proxy.wait_for_metric("key_file_good", |good| good == 1.0).await;
    assert_eq!(fs::read_to_string(proxy.path("keys.yaml")).unwrap(), rows);
}

#[tokio::test]
async fn a_full_disk_costs_log_lines_and_the_state_and_nothing_else() {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    // A limit on the size of files refuses what a full disk refuses.
    let ignoring = ["sh", "-c", "trap '' XFSZ; exec \"$0\" \"$@\""];
    let mut proxy = Proxy::to(&cloudbeds, &hotels).by(&ignoring).log("info").start().await;
    until("the first state is written", async || proxy.path("keys.state.json").exists()).await;
    let state = fs::read(proxy.path("keys.state.json")).unwrap();
    let limit = proxy.limit(Resource::Fsize, Some(0));
    for _ in 0..20 {
        assert_eq!(proxy.get("/api/v1.3/getRooms").property("1001").send().await.status, 200);
    }
    assert_eq!(proxy.admin("/readyz").await.status, 200);
    proxy.wait_for_metric("access_lines_lost_total", |lost| lost >= 20.0).await;
    proxy.limit(Resource::Fsize, limit);
    assert_eq!(proxy.get("/api/v1.3/getRooms").property("1002").send().await.status, 200);
    proxy.wait_for_access(|line| line["property"] == "1002" || line["property"] == 1002).await;
    proxy.limit(Resource::Fsize, Some(0));
    proxy.signal(Signal::TERM);
    assert!(proxy.ended().await.success(), "and the end is in order");
    assert_eq!(fs::read(proxy.path("keys.state.json")).unwrap(), state, "the old one, not half of a new one");
}
