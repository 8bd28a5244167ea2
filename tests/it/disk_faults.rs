//! Single calls that the disk refuses, as strace makes them fail, room for half a file, and a disk that is really full or
//! read-only: keys and state are the old ones or the new ones to the byte, nothing unfinished stays, and what is said names
//! the cause and what to do.

use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use cloudbeds_auth_proxy::sandbox::Protocols;
use rustix::process::{Resource, Signal};

use crate::harness::proxy::BINARY;
use crate::harness::strace::{self, Attached};
use crate::harness::{Desk, Proxy, Ran, cloudbeds, key, until};
use crate::names::may_mount;

const FULL: &str = "No space left on device";
const BROKEN: &str = "Input/output error";
const READ_ONLY: &str = "Read-only file system";
const TOO_LARGE: &str = "File too large";

/// The names in a directory that an unfinished file has.
fn unfinished(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with('.') && !name.ends_with("lock")).collect()
}

/// A key file of many rows, with what a person wrote around them.
fn rows() -> String {
    (1001..1031).map(|hotel| format!("\"{hotel}\": {} # hotel {hotel}\n", key())).collect()
}

/// Runs a command on keys by way of strace, which writes its calls to `calls` and may let one fail.
async fn traced(desk: &Desk, inject: Option<String>, arguments: &[&str], input: &str) -> Ran {
    let mut command = Command::new("strace");
    command.args(["-o", "calls", "-e", "trace=openat,write,fsync,rename,renameat,renameat2"]);
    command.args(inject.iter().flat_map(|inject| ["-e", inject]));
    command.args([BINARY, "--config", "config.yaml"]).args(arguments).current_dir(desk.path(""));
    desk.run_command(command, input).await
}

#[tokio::test]
async fn a_writer_of_keys_whose_disk_refuses_a_call_loses_no_key_and_says_what_is_wrong() {
    if !strace::is_there() {
        return;
    }
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let desk = Desk::before(&cloudbeds, &hotels, "");
    let before = rows();
    let mut failures = 0;
    for (arguments, input) in [
        (&["keys", "add", "1001", "--no-check"][..], hotels[0].key.as_str()),
        (&["keys", "add", "2001", "--no-check"], &hotels[0].key),
        (&["keys", "remove", "1002"], ""),
        (&["keys", "revoke", "1003", "--yes"], ""),
    ] {
        let prepare = || {
            desk.write_keys(&before);
            let _ = fs::remove_file(desk.path("keys.yaml.refused"));
        };
        prepare();
        traced(&desk, None, arguments, input).await.expect(0, &[]);
        let after = desk.keys();
        assert_ne!(after, before);
        let record = fs::read_to_string(desk.path("calls")).unwrap();
        let calls = strace::calls(&record);
        // From the first unfinished file to the end of the directory's syncing.
        let first = calls.iter().position(|(_, line)| line.contains(".key-")).unwrap();
        let renamed = calls.iter().rposition(|((name, _), _)| name.starts_with("rename")).unwrap();
        // What wakes another thread is no file, and neither is what is said.
        let no_file = [r#", "\1\0\0\0\0\0\0\0", 8)"#, "write(1, ", "write(2, "];
        let file = |line: &str| !no_file.iter().any(|part| line.contains(part));
        let last = renamed + calls[renamed..].iter().position(|((name, _), _)| name == "fsync").unwrap();
        for (at, ((name, count), line)) in calls.iter().enumerate().take(last + 1).skip(first) {
            // What is opened to be read is no matter of writing.
            let read = name == "openat" && at < renamed && !line.contains(".key-");
            if read || !file(line) {
                continue;
            }
            let (error, words, hint) = match name.as_str() {
                "write" => ("ENOSPC", FULL, "nothing was changed: make room and try again"),
                "openat" if line.contains(".key-") => ("ENOSPC", FULL, "nothing was changed: make room and try again"),
                "fsync" | "openat" => ("EIO", BROKEN, ""),
                _ => ("EROFS", READ_ONLY, "keep the keys on a volume that can be written"),
            };
            let inject = format!("inject={name}:error={error}:when={count}");
            let mut tries = 0;
            let ran = loop {
                prepare();
                let ran = traced(&desk, Some(inject.clone()), arguments, input).await;
                // How many writes wake a thread before it differs from run to run, so another may have been hit, or none.
                let record = fs::read_to_string(desk.path("calls")).unwrap();
                if record.lines().any(|line| line.contains("(INJECTED)") && file(line)) {
                    break ran;
                }
                tries += 1;
                assert!(tries < 50, "{arguments:?}: {line} is not hit");
            };
            let hint = if at > renamed { "the change is made, but may be lost" } else { hint };
            ran.expect(1, &[words, hint]);
            let right = if at > renamed { &after } else { &before };
            assert_eq!(desk.keys(), *right, "{arguments:?}: {line}: {}", ran.err);
            assert_eq!(unfinished(&desk.path("")), [""; 0], "{arguments:?}: {line}");
            failures += 1;
        }
    }
    println!("{failures} calls refused");
    assert!(failures >= 20, "{failures}");
}

#[tokio::test]
async fn a_key_file_of_which_half_has_room_stays_the_old_one() {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let desk = Desk::before(&cloudbeds, &hotels, "");
    let before = rows();
    desk.write_keys(&before);
    for arguments in [&["keys", "add", "1001", "--no-check"][..], &["keys", "add", "2001", "--no-check"]] {
        let line = format!("trap '' XFSZ; exec prlimit --fsize={} \"$0\" \"$@\"", before.len() / 2);
        let mut command = Command::new("sh");
        command.args(["-c", &line, BINARY, "--config", "config.yaml"]).args(arguments).current_dir(desk.path(""));
        let ran = desk.run_command(command, &hotels[0].key).await;
        ran.expect(1, &["cannot write a file in it: ", TOO_LARGE, "nothing was changed", "ulimit -f"]);
        assert_eq!((desk.keys(), unfinished(&desk.path(""))), (before.clone(), Vec::new()), "{arguments:?}");
    }
}

/// Ends the proxy once a key was used, so that it would write its state, which is in `directory` and cannot be written.
async fn ends_without_its_state(mut proxy: Proxy, directory: &Path, old: &[u8], words: &[&str]) {
    proxy.signal(Signal::TERM);
    assert!(proxy.ended().await.success());
    assert!(fs::read(directory.join("keys.state.json")).unwrap() == old, "{words:?}: the old one to the byte");
    assert_eq!(unfinished(directory), [""; 0], "{words:?}");
    let is_told = |event: &serde_json::Value| {
        let text = event["message"].as_str().unwrap_or_default();
        event["level"] == "WARN" && text.contains("kept in memory only") && words.iter().all(|word| text.contains(word))
    };
    assert!(proxy.events().iter().any(is_told), "{words:?} is not in {}", proxy.log());
}

#[tokio::test]
async fn a_state_file_whose_disk_refuses_a_call_stays_the_old_one() {
    if !strace::is_there() {
        return;
    }
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    for (names, error, words) in [
        ("fsync,fdatasync", "EIO", [BROKEN, "see to its disk"]),
        ("fsync,fdatasync", "ENOSPC", [FULL, "make room on its disk"]),
        ("rename,renameat,renameat2", "EROFS", [READ_ONLY, "make its directory writable"]),
    ] {
        let proxy = Proxy::to(&cloudbeds, &hotels).log("info").start().await;
        until("the first state is written", async || proxy.path("keys.state.json").exists()).await;
        let (state, place) = (fs::read(proxy.path("keys.state.json")).unwrap(), proxy.directory.path().to_owned());
        assert_eq!(proxy.get("/api/v1.3/getRooms").property("1001").send().await.status, 200);
        let attached = Attached::failing(proxy.id(), names, error, &proxy.path("calls")).await;
        ends_without_its_state(proxy, &place, &state, &words).await;
        attached.ended().await;
    }
}

#[tokio::test]
async fn a_state_file_of_which_half_has_room_stays_the_old_one() {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    // Of other replicas, so that it is longer than the log will be.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let record = serde_json::json!({ "properties": ["7"], "first_seen": now - 9, "last_used": now - 7 });
    let keys: serde_json::Map<_, _> = (1..2000_u64).map(|name| (format!("{name:016x}"), record.clone())).collect();
    let text = serde_json::json!({ "format": 1, "keys": keys }).to_string();
    let seeded = text.clone().into_bytes();
    let seed = move |directory: &Path| fs::write(directory.join("keys.state.json"), text).unwrap();
    let ignoring = ["sh", "-c", "trap '' XFSZ; exec \"$0\" \"$@\""];
    let proxy = Proxy::to(&cloudbeds, &hotels).before(seed).by(&ignoring).log("info").start().await;
    until("the first state is written", async || fs::read(proxy.path("keys.state.json")).unwrap() != seeded).await;
    let (state, place) = (fs::read(proxy.path("keys.state.json")).unwrap(), proxy.directory.path().to_owned());
    assert_eq!(proxy.get("/api/v1.3/getRooms").property("1001").send().await.status, 200);
    proxy.limit(Resource::Fsize, Some(state.len() as u64 / 2));
    ends_without_its_state(proxy, &place, &state, &[TOO_LARGE, "make room on its disk"]).await;
}

#[tokio::test]
async fn a_state_file_on_a_disk_that_is_full_or_read_only_stays_the_old_one() {
    if !may_mount() {
        return;
    }
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    for full in [true, false] {
        let mount = tempfile::tempdir().unwrap();
        let at = mount.path().to_str().unwrap();
        let line = "mount -t tmpfs -o size=128k,mode=700 tmpfs \"$0\" && exec \"$@\"";
        let config = format!("keys: {{ file: keys.yaml, state_file: {at}/keys.state.json }}");
        let builder = Proxy::to(&cloudbeds, &hotels).config(&config).log("info");
        let proxy = builder.by(&["unshare", "-m", "sh", "-c", line, at]).start().await;
        // That disk is the proxy's alone, and is there as long as somebody has it open.
        let disk = File::open(format!("/proc/{}/root{at}", proxy.id())).unwrap();
        let place = PathBuf::from(format!("/proc/self/fd/{}", disk.as_raw_fd()));
        until("the first state is written", async || place.join("keys.state.json").exists()).await;
        let state = fs::read(place.join("keys.state.json")).unwrap();
        assert_eq!(proxy.get("/api/v1.3/getRooms").property("1001").send().await.status, 200);
        if full {
            assert!(fs::write(place.join("filler"), vec![0; 1 << 20]).is_err());
            ends_without_its_state(proxy, &place, &state, &[FULL, "make room on its disk"]).await;
        } else {
            let process = proxy.id().to_string();
            let remount = ["-t", &process, "-m", "mount", "-o", "remount,ro", at];
            assert!(Command::new("nsenter").args(remount).status().unwrap().success());
            ends_without_its_state(proxy, &place, &state, &[READ_ONLY, "make its directory writable"]).await;
        }
    }
}
