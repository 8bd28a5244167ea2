//! strace, which stops a process before a system call of the test's choice.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{PATIENCE, skipped, until};

/// One system call of a process: its name, and how many of that name came before it and with it. strace counts the
/// calls of each name, and those of each thread, by themselves.
pub type Call = (String, usize);

/// Whether it can be used here. Where it cannot, that is a failure with `CI=true`; else the test says that it skips.
pub fn is_there() -> bool {
    let tried = Command::new("strace").arg("true").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if tried.is_ok_and(|status| status.success()) {
        return true;
    }
    skipped("no strace; install Debian's strace, and let it trace");
    false
}

/// The number of the thread, with which a line begins where there are several, and what stands behind it.
fn split(line: &str) -> (&str, &str) {
    let (thread, call) = line.split_once(' ').filter(|(id, _)| id.parse::<u32>().is_ok()).unwrap_or(("", line));
    (thread, call.trim_start())
}

/// The calls of a record, in order, with their whole lines.
pub fn calls(record: &str) -> Vec<(Call, &str)> {
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut calls = Vec::new();
    for line in record.lines() {
        let (thread, call) = split(line);
        // What another thread's call interrupted goes on in a line of its own, which begins with `<`. A thread that ends as
        // it is looked at has made no call: its line begins with `?`.
        let Some((name, _)) = call.split_once('(').filter(|(name, _)| !name.starts_with(['<', '?'])) else {
            continue;
        };
        let count = counts.entry((thread, name)).or_default();
        *count += 1;
        calls.push(((name.to_owned(), *count), line));
    }
    calls
}

/// The names of the calls of a record. Where a thread is killed as strace looks at it, which is when the process ends,
/// the kernel says of no call, and strace writes down the number that is left in its memory of another thread's, as a
/// call that never returns: from the process's end on, only calls that have returned count.
pub fn made(record: &str) -> BTreeSet<&str> {
    let mut ending = false;
    let made = record.lines().filter_map(|line| {
        let (_, call) = split(line);
        let name = match call.strip_prefix("<... ") {
            Some(resumed) => resumed.split_once(" resumed>")?.0,
            None => call.split_once('(')?.0,
        };
        let returned = call.rsplit_once(" = ").is_some_and(|(_, outcome)| !outcome.starts_with('?'));
        // A thread that is killed before strace knows any call of it makes one that begins with `?`.
        let counts = (!ending && !name.starts_with('?')) || returned;
        ending |= name == "exit_group";
        counts.then_some(name)
    });
    made.collect()
}

/// Whether every thread of a process that may still make calls is traced. One that was killed already makes none, and
/// nobody traces what is left of it.
fn has_all_of(process: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let traced = |status: String| {
        !status.contains("TracerPid:\t0\n") || status.contains("State:\tZ") || status.contains("State:\tX")
    };
    tasks.map(|task| fs::read_to_string(task.path().join("status"))).all(|status| status.map_or(true, traced))
}

/// strace at work on a process that runs already.
pub struct Attached(Child);

impl Attached {
    /// Writes the calls of these names to a file, or kills the process before one of them.
    pub async fn to(process: u32, names: &str, record: &Path, kill: Option<&Call>) -> Self {
        let kill = kill.map(|(name, count)| format!("inject={name}:signal=KILL:when={count}"));
        Self::with(process, names, record, kill).await
    }

    /// Lets calls of these names fail from now on.
    pub async fn failing(process: u32, names: &str, error: &str, record: &Path) -> Self {
        Self::with(process, names, record, Some(format!("inject={names}:error={error}"))).await
    }

    async fn with(process: u32, names: &str, record: &Path, inject: Option<String>) -> Self {
        let mut command = Command::new("strace");
        command.args(["-f", "-e", &format!("trace={names}"), "-o"]).arg(record).args(["-p", &process.to_string()]);
        if let Some(inject) = &inject {
            command.args(["-e", inject]);
        }
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut attached = Self(command.spawn().unwrap());
        let (mut since, mut pause) = (Instant::now(), Duration::from_secs(2));
        until("strace has it", async || {
            // A thread that began while strace looked for threads may have escaped it: strace looks anew. Its record and its
            // counts begin anew, too, which is before what the test is about.
            if since.elapsed() > pause {
                attached.stop();
                attached = Self(command.spawn().unwrap());
                (since, pause) = (Instant::now(), pause * 2);
            }
            has_all_of(process)
        })
        .await;
        attached
    }

    /// Waits for its end, which is that of the process.
    pub async fn ended(mut self) {
        let started = Instant::now();
        while self.0.try_wait().unwrap().is_none() {
            assert!(started.elapsed() < PATIENCE, "strace does not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends it; what it traced goes on.
    fn stop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.stop();
    }
}

#[tokio::test]
async fn a_process_that_is_killed_as_strace_comes_is_not_waited_for() {
    if !is_there() {
        return;
    }
    let mut killed = Command::new("sleep").arg("60").spawn().unwrap();
    // Nobody has waited for it: its thread is still listed, and never traced.
    killed.kill().unwrap();
    let record = tempfile::NamedTempFile::new().unwrap();
    let attached = Attached::to(killed.id(), "write", record.path(), None).await;
    attached.ended().await;
    killed.wait().unwrap();
}

#[test]
fn what_strace_takes_for_a_call_of_a_thread_that_is_killed_is_none() {
    let record = "7  execve(\"/bin/p\", [\"p\"], 0x7ffe /* 9 vars */) = 0\n\
                  8  connect(3, {sa_family=AF_INET}, 16) = -1 EINPROGRESS (Operation now in progress)\n\
                  9  pause( <unfinished ...>\n\
                  8  futex(0x7f, FUTEX_WAIT, 1, NULL) = ? ERESTARTSYS (To be restarted)\n\
                  7  --- SIGTERM {si_signo=SIGTERM, si_code=SI_USER} ---\n\
                  10 read(28,  <unfinished ...>\n\
                  7  exit_group(0 <unfinished ...>\n\
                  10 <... read resumed>\"\"..., 1024) = 96\n\
                  10 getpid()                    = 10\n\
                  8  gettimeofday( <unfinished ...>\n\
                  10 ???( <unfinished ...>\n\
                  8  <... gettimeofday resumed>) = ?\n\
                  10 <... ??? resumed>)          = ?\n\
                  7  <... exit_group resumed>)   = ?\n\
                  8  +++ exited with 0 +++\n";
    let made_in_it = BTreeSet::from(["connect", "execve", "exit_group", "futex", "getpid", "pause", "read"]);
    assert_eq!(made(record), made_in_it);
}
