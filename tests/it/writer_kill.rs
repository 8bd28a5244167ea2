//! SIGKILL before every single system call of a writer, over a thousand of them: each file is the old one or the new
//! one to the byte, nobody's key is lost, what a killed writer leaves is private, and the next writer clears it away.
//!
//! strace counts the calls and sends the signal. Where it is not installed, that is a failure with `CI=true`; else the
//! tests say that they skip.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use cloudbeds_auth_proxy::keys::state;
use cloudbeds_auth_proxy::sandbox::Protocols;
use cloudbeds_auth_proxy::secret::ApiKey;
use rustix::process::Signal;

use crate::harness::proxy::write_private;
use crate::harness::strace::{self, Attached, Call};
use crate::harness::{Browser, Proxy, Scene, cloudbeds, key, until};

const CONFIG: &str =
    "listen: 127.0.0.1:0\nadmin: { listen: 127.0.0.1:0 }\nupstream: { base_url: 'https://localhost:1' }\n";

/// Calls that ask for memory or give it back: no file changes by them.
const MEMORY: [&str; 4] = ["brk", "mmap", "munmap", "mremap"];

/// Where strace writes.
const CALLS: &str = "calls";

/// A command that writes keys.
struct Writer {
    arguments: &'static [&'static str],
    input: String,
    /// What is there before: names below the directory, and texts.
    before: BTreeMap<String, String>,
}

impl Writer {
    /// Prepares a directory as it is before.
    fn prepare(&self) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in &self.before {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            write_private(&path, text);
        }
        directory
    }

    /// Runs it to whatever end, by way of another program or by itself; whether it ended by itself.
    fn run(&self, directory: &Path, by: &[String]) -> bool {
        let program = env!("CARGO_BIN_EXE_cloudbeds-auth-proxy").to_owned();
        let line: Vec<String> = by.iter().cloned().chain([program, "--config".into(), "config.yaml".into()]).collect();
        let mut child = Command::new(&line[0])
            .args(&line[1..])
            .args(self.arguments)
            .current_dir(directory)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // It may be dead already.
        let _ = child.stdin.take().unwrap().write_all(self.input.as_bytes());
        // strace ends as what it ran did.
        child.wait().unwrap().code().is_some()
    }
}

/// All files but locks, and those of a writer that has not finished.
fn files(directory: &Path) -> (BTreeMap<String, String>, Vec<String>) {
    let (mut files, mut unfinished) = (BTreeMap::new(), Vec::new());
    let mut open = vec![directory.to_owned()];
    while let Some(at) = open.pop() {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(directory).unwrap().display().to_string();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            if name == CALLS {
                continue;
            }
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0, "{name} is private");
            if name.contains(".key-") {
                unfinished.push(name);
            } else if !name.ends_with("lock") {
                files.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    (files, unfinished)
}

/// Kills it before each call from the first look at the lock on; how often that was.
fn kill_everywhere(writer: &Writer) -> usize {
    let what = writer.arguments.join(" ");
    let directory = writer.prepare();
    let record =
        |rest: &str| format!("strace -o {CALLS} {rest}").split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert!(writer.run(directory.path(), &record("")), "{what}");
    let calls = fs::read_to_string(directory.path().join(CALLS)).unwrap();
    let calls = strace::calls(&calls);
    let first = calls.iter().position(|(_, line)| line.contains("lock\"")).expect("a writer takes the lock");
    let (before, after) = (&writer.before, files(directory.path()).0);
    assert_ne!(*before, after, "{what} changes something");
    // A file may be old or new; which combinations may be, follows from the order in which they are written.
    let (mut old, mut new, mut missed) = (0, 0, 0);
    for (at, ((name, count), _)) in calls.iter().enumerate().skip(first) {
        let directory = writer.prepare();
        let by = record(&format!("-e inject={name}:signal=KILL:when={count}"));
        let ended = writer.run(directory.path(), &by);
        let (found, unfinished) = files(directory.path());
        if ended {
            // How often memory is asked for differs with the addresses that the kernel gives.
            assert!(MEMORY.contains(&name.as_str()), "{what}: not killed at {name} {count}");
            assert_eq!((found, unfinished), (after.clone(), Vec::new()), "{what}: not killed at {name} {count}");
            missed += 1;
            continue;
        }
        for name in before.keys().chain(after.keys()).chain(found.keys()) {
            let is = found.get(name);
            let known = is == before.get(name) || is == after.get(name);
            assert!(known, "{what}: {name} is neither the old nor the new one before call {at}: {}", is.is_some());
        }
        // The list of revoked keys comes first: a key is never out of the file and not on it.
        let refused =
            |files: &BTreeMap<String, String>| files.iter().find(|(name, _)| name.ends_with("refused")).is_some();
        if refused(&after) && !refused(&found) {
            assert_eq!(found, *before, "{what}: taken out before it is refused, at {at}");
        }
        // A directory of keys has one file for each, so a killed change of several may be done in part.
        assert!(unfinished.len() <= 2, "{what}: {unfinished:?}");
        (old, new) = (old + usize::from(found == *before), new + usize::from(found == after));
        // The next writer is not kept out, and leaves nothing of this one.
        writer.run(directory.path(), &[]);
        assert_eq!(files(directory.path()), (after.clone(), Vec::new()), "{what}: again after a kill before call {at}");
    }
    assert!(old > 10 && new > 10, "{what}: {old} before and {new} after the change");
    calls.len() - first - missed
}

#[test]
fn a_writer_killed_before_any_system_call_leaves_the_old_file_or_the_new_one() {
    if !strace::is_there() {
        return;
    }
    let [one, two, three, four] = [(); 4].map(|()| key());
    let file = format!("# by the sea\n\"1001\": {one} # renewed\n1002: {{ key: {two}, organization: org-7 }}\n");
    let single = BTreeMap::from([("config.yaml".to_owned(), CONFIG.to_owned()), ("keys.yaml".to_owned(), file)]);
    let config = format!("{CONFIG}keys: {{ file: keys }}\n");
    let many = BTreeMap::from([
        ("config.yaml".to_owned(), config),
        ("keys/1001".to_owned(), format!("{one}\n")),
        ("keys/1002".to_owned(), format!("{two}\n")),
    ]);
    let rows = format!("1001,{three}\n1003,{four}\n");
    let none = BTreeMap::from([("config.yaml".to_owned(), CONFIG.to_owned())]);
    let commands: [(&[&str], &str); 5] = [
        (&["keys", "add", "1003", "--no-check"], &three),
        (&["keys", "add", "1001", "--no-check"], &three),
        (&["keys", "remove", "1002"], ""),
        (&["keys", "import", "-", "--format", "csv", "--no-check"], &rows),
        (&["keys", "revoke", "1001", "--yes"], ""),
    ];
    let mut writers: Vec<Writer> = Vec::new();
    for before in [&single, &many] {
        for (arguments, input) in commands {
            writers.push(Writer { arguments, input: input.to_owned(), before: before.clone() });
        }
    }
    let (arguments, input) = commands[0];
    writers.push(Writer { arguments, input: input.to_owned(), before: none });
    let (next, kills) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(writer) = writers.get(next.fetch_add(1, Ordering::Relaxed)) {
                    kills.fetch_add(kill_everywhere(writer), Ordering::Relaxed);
                }
            });
        }
    });
    let kills = kills.into_inner();
    println!("killed {kills} times");
    assert!(kills >= 1000, "{kills}");
}

/// The calls that can change a file, or make a change last.
const CHANGES: &str =
    "openat,write,fsync,fdatasync,ftruncate,fchmod,fchown,flock,rename,renameat,renameat2,link,linkat,unlink,unlinkat";

#[tokio::test]
async fn the_state_file_is_the_old_or_the_new_one_wherever_its_writer_is_killed() {
    if !strace::is_there() {
        return;
    }
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let fingerprint = |key: &str| ApiKey::parse(key).unwrap().fingerprint();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let shared = tempfile::tempdir().unwrap();
    let file = shared.path().join("state.json");
    let record = shared.path().join("calls");
    // The second hotel's last use is known to this file alone: it must not be lost whatever happens.
    let seed = serde_json::json!({ "format": 1, "keys": {
        fingerprint(&hotels[1].key).to_string(): { "properties": ["1002"], "first_seen": now - 9, "last_used": now - 7 } } });
    let mut kill: Vec<Option<Call>> = vec![None];
    let mut kills = 0;
    while let Some(call) = kill.pop() {
        fs::write(&file, seed.to_string()).unwrap();
        let config = format!("keys: {{ file: keys.yaml, state_file: {} }}\nworkers: 1", file.display());
        let mut proxy = Proxy::to(&cloudbeds, &hotels).config(&config).log("error").start().await;
        until("the first writing is done", async || {
            state::read(&file).is_ok_and(|state| state.get(fingerprint(&hotels[0].key)).is_some())
        })
        .await;
        assert_eq!(proxy.get("/api/v1.3/getRooms").property("1001").send().await.status, 200);
        let attached = Attached::to(proxy.id(), CHANGES, &record, call.as_ref()).await;
        // The end writes down what was used.
        proxy.signal(Signal::TERM);
        let status = proxy.ended().await;
        attached.ended().await;
        let state = state::read(&file).unwrap_or_else(|error| panic!("after {call:?}: {error}"));
        let used = |at: usize| state.get(fingerprint(&hotels[at].key)).and_then(|record| record.last_used);
        assert_eq!(used(1).map(|time| time.0), Some(now - 7), "{call:?}");
        let left = fs::read_dir(shared.path()).unwrap().count();
        match call {
            None => {
                assert!(status.success() && used(0).is_some());
                let record = fs::read_to_string(&record).unwrap();
                let calls = strace::calls(&record);
                let lock = calls.iter().position(|(_, line)| line.contains("state.lock\"")).unwrap();
                let thread = calls[lock].1.split(' ').next().unwrap();
                let writes = calls[lock..].iter().filter(|(_, line)| line.starts_with(thread));
                kill = writes.map(|(call, _)| Some(call.clone())).collect();
                assert!(kill.len() >= 7, "{kill:?}");
            }
            Some(_) => {
                kills += usize::from(!status.success());
                assert!(left <= 4, "{call:?}: an unfinished file at most, and its predecessors are gone: {left}");
            }
        }
    }
    assert!(kills > 5, "{kills}");
    let mut proxy = Proxy::to(&cloudbeds, &hotels)
        .config(&format!("keys: {{ file: keys.yaml, state_file: {} }}", file.display()))
        .start()
        .await;
    proxy.signal(Signal::TERM);
    proxy.ended().await;
    let names = fs::read_dir(shared.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let unfinished: Vec<_> = names.filter(|name| name.starts_with('.')).collect();
    assert!(unfinished.is_empty(), "{unfinished:?}");
}

#[tokio::test]
async fn a_key_that_was_exchanged_is_whole_on_disk_or_asked_for_again_wherever_the_process_is_killed() {
    if !strace::is_there() {
        return;
    }
    let mut kill: Vec<Option<Call>> = vec![None];
    let (mut early, mut late) = (0, 0);
    while let Some(call) = kill.pop() {
        let mut hotels = Scene::new().start().await;
        let mut browser = Browser::default();
        let state = hotels.begin(&mut browser, 1003).await;
        let back = hotels.approve(1003, Some(&state));
        let record = hotels.proxy.path("calls");
        let attached = Attached::to(hotels.proxy.id(), CHANGES, &record, call.as_ref()).await;
        hotels.come_back_whatever_comes(&browser, &back).await.unwrap();
        if call.is_none() {
            hotels.remember_key(1003);
            assert!(hotels.works(1003).await);
            let record = fs::read_to_string(&record).unwrap();
            let calls = strace::calls(&record);
            // From the trial before the code is spent to the key's own file being gone again.
            let about = |part: &str| calls.iter().map(|(_, line)| line.contains(part)).collect::<Vec<_>>();
            let first = about(".arriving-").iter().position(|is| *is).unwrap();
            let last = about("keys.yaml.arrived-").iter().rposition(|is| *is).unwrap();
            kill = calls[first..=last + 1].iter().map(|(call, _)| Some(call.clone())).collect();
            kill.sort();
            kill.dedup();
            assert!(kill.len() > 20, "{kill:?}");
            continue;
        }
        hotels.proxy.signal(Signal::KILL);
        attached.ended().await;
        hotels.remember_key(1003);
        let sent = hotels.exchanges();
        assert!(sent <= 1);
        let on_disk = !hotels.beside("arrived").is_empty() || hotels.key_file().contains("1003");
        hotels.restart().await;
        if on_disk {
            late += 1;
            until("what is on disk is finished", async || hotels.works(1003).await).await;
            until("nothing waits", async || hotels.beside("arrived").is_empty()).await;
            assert_eq!(hotels.exchanges(), 1, "{call:?}");
        } else {
            early += 1;
            let page = hotels.open(&mut browser, &back).await.text();
            assert!(page.contains("<h1>Please connect again</h1>"), "{call:?}: {page}");
            assert_eq!(hotels.exchanges(), sent, "{call:?}: a code is never sent twice");
            hotels.connect(&mut browser, 1003).await.assert_page(200, "Lake &#38; Forest is connected");
            assert!(hotels.works(1003).await, "{call:?}");
        }
        assert!(hotels.works(1001).await, "{call:?}");
        assert_eq!(hotels.proxy.events().iter().filter(|event| event["level"] == "ERROR").count(), 0, "{call:?}");
    }
    println!("killed {early} times before the key was on disk, {late} times after");
    assert!(early > 5 && late > 5, "{early} {late}");
}
