//! Child processes: pinned, measured, and ended by their id however the bench ends.
//!
//! In: a command. Out: a [`Running`] whose CPU time and memory can be read, and which is gone when it is dropped. Ctrl-C
//! and SIGTERM end all of them first ([`end_on_signals`]); should the bench itself be killed, the kernel sends each a
//! SIGTERM (`setpriv --pdeathsig`). Nothing is ever ended by name.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::Sentence;

/// How long a process may take to end in order.
const GRACE: Duration = Duration::from_secs(3);

/// How often an ending or a starting process is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Set once a signal ends the bench: from then on nothing is started, and no end of a process means anything.
static ENDING: AtomicBool = AtomicBool::new(false);

/// The ids of what was started here and has not ended yet.
static STARTED: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// Where a program is: in PATH, or where distributions keep daemons, which need not be in it.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}

/// `program`, on `cores` only, and told to end when the bench is gone. Each wrapper replaces itself by what it starts,
/// so the child's id is the program's.
pub(crate) fn command(program: &Path, cores: Option<&str>) -> Command {
    // Busybox has a setpriv that cannot do this, and where it cannot, nothing at all would start.
    static SETPRIV: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
        find("setpriv").filter(|setpriv| {
            let mut tried = Command::new(setpriv);
            tried
                .args(["--pdeathsig", "TERM", "true"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            tried.status().is_ok_and(|status| status.success())
        })
    });
    let mut words: Vec<PathBuf> = Vec::new();
    if let Some(setpriv) = &*SETPRIV {
        words.extend([setpriv.clone(), "--pdeathsig".into(), "TERM".into()]);
    }
    if let (Some(taskset), Some(cores)) = (find("taskset"), cores) {
        words.extend([taskset, "-c".into(), cores.into()]);
    }
    words.push(program.to_owned());
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command
}

/// A process of ours.
pub(crate) struct Running {
    name: String,
    child: Child,
    output: PathBuf,
}

impl Running {
    /// Starts it with both its outputs in the file `output`.
    ///
    /// In a process group of its own: a Ctrl-C is for the bench, which then ends it in order.
    pub(crate) fn start(name: &str, mut command: Command, output: &Path) -> Result<Self, Sentence> {
        hold_if_ending();
        let failed = |error: io::Error| format!("{name} does not start: {error}");
        let out = fs::File::create(output).map_err(failed)?;
        command.process_group(0).stdin(Stdio::null()).stderr(out.try_clone().map_err(failed)?).stdout(out);
        let child = command.spawn().map_err(failed)?;
        STARTED.lock().unwrap_or_else(PoisonError::into_inner).push(child.id());
        Ok(Self { name: name.to_owned(), child, output: output.to_owned() })
    }

    /// Waits until `ready` says so, or the process has ended, or it took too long.
    pub(crate) fn wait_ready(&mut self, limit: Duration, ready: impl Fn(&Self) -> bool) -> Result<(), Sentence> {
        let started = Instant::now();
        while !ready(self) {
            if let Some(end) = self.ended() {
                return Err(end);
            }
            if started.elapsed() > limit {
                return Err(format!("{} was not ready within {limit:?}: {}", self.name, self.last_words()));
            }
            sleep(LOOK);
        }
        Ok(())
    }

    /// Whether it accepts connections at this port: it, and not somebody else to whom the port belongs.
    pub(crate) fn listens(&self, address: SocketAddr) -> bool {
        let Ok(table) = fs::read_to_string("/proc/net/tcp") else { return TcpStream::connect(address).is_ok() };
        // Ours lets nobody but root look into it; then an answer has to do.
        if fs::read_dir(format!("/proc/{}/fd", self.child.id())).is_err() {
            return TcpStream::connect(address).is_ok();
        }
        let port = format!(":{:04X}", address.port());
        let sockets: Vec<PathBuf> = table
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            // "NUMBER: ADDRESS:PORT REMOTE STATE … INODE …"; 0A is LISTEN.
            .filter(|words| words.len() > 9 && words[1].ends_with(&port) && words[3] == "0A")
            .map(|words| format!("socket:[{}]", words[9]).into())
            .collect();
        self.family().into_iter().any(|id| {
            let open = fs::read_dir(format!("/proc/{id}/fd")).into_iter().flatten();
            open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()).any(|target| sockets.contains(&target))
        })
    }

    /// How it ended by itself, if it has.
    pub(crate) fn ended(&mut self) -> Option<Sentence> {
        let status = self.child.try_wait().ok().flatten()?;
        Some(format!("{} ended by itself ({status}): {}", self.name, self.last_words()))
    }

    /// Waits for its end, at most `limit`; whether it ended well.
    pub(crate) fn wait_end(&mut self, limit: Duration) -> Result<(), Sentence> {
        let started = Instant::now();
        loop {
            hold_if_ending();
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(format!("{} failed ({status}): {}", self.name, self.last_words())),
                _ if started.elapsed() > limit => return Err(format!("{} did not end within {limit:?}", self.name)),
                _ => sleep(LOOK),
            }
        }
    }

    /// The last lines it wrote, which most often say what is wrong.
    fn last_words(&self) -> String {
        let bytes = fs::read(&self.output).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(2000)..]).into_owned();
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        match lines.is_empty() {
            true => "it said nothing".to_owned(),
            false => lines[lines.len().saturating_sub(3)..].join(" | "),
        }
    }

    /// It and its children: a daemon's work is done by those.
    fn family(&self) -> Vec<u32> {
        let own = self.child.id();
        let children = fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| {
            let id: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            // "ID (NAME) STATE PARENT …", where the name may hold anything.
            let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?;
            (parent.parse() == Ok(own)).then_some(id)
        });
        std::iter::once(own).chain(children).collect()
    }

    /// The CPU time all its threads have had so far, user and system.
    pub(crate) fn cpu(&self) -> Duration {
        let threads = self.family().into_iter().flat_map(|id| {
            let tasks = fs::read_dir(format!("/proc/{id}/task"));
            tasks.into_iter().flatten().filter_map(|task| fs::read_to_string(task.ok()?.path().join("schedstat")).ok())
        });
        let nanos = threads.filter_map(|text| text.split_whitespace().next()?.parse::<u64>().ok()).sum();
        Duration::from_nanos(nanos)
    }

    /// Its resident memory in KiB. Pages that master and workers share are counted for each.
    pub(crate) fn rss(&self) -> u64 {
        let of = |id| {
            let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        self.family().into_iter().filter_map(of).sum()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let id = self.child.id();
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            signal(id, Signal::TERM);
            if self.wait_end(GRACE).is_err() && !matches!(self.child.try_wait(), Ok(Some(_))) {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
        STARTED.lock().unwrap_or_else(PoisonError::into_inner).retain(|started| *started != id);
    }
}

/// Keeps the calling thread from taking what a signal does for a result; the process ends within the second.
fn hold_if_ending() {
    while ENDING.load(Ordering::Acquire) {
        sleep(LOOK);
    }
}

fn signal(id: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) {
        // It may have ended this moment.
        let _ = kill_process(pid, signal);
    }
}

/// On Ctrl-C or SIGTERM: ends what was started, removes `directory`, and ends the bench with 130. Where there is a
/// `softly`, the first signal only sets that, and whoever looks at it ends in order.
pub(crate) fn end_on_signals(directory: PathBuf, softly: Option<&'static AtomicBool>) {
    use tokio::signal::unix::{SignalKind, signal as caught};
    std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(async {
            let (Ok(mut interrupt), Ok(mut terminate)) =
                (caught(SignalKind::interrupt()), caught(SignalKind::terminate()))
            else {
                return;
            };
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if softly.is_none_or(|softly| softly.swap(true, Ordering::Relaxed)) {
                    break;
                }
            }
            ENDING.store(true, Ordering::Release);
            let started = STARTED.lock().unwrap_or_else(PoisonError::into_inner).clone();
            started.iter().for_each(|id| signal(*id, Signal::TERM));
            sleep(Duration::from_millis(500));
            started.iter().for_each(|id| signal(*id, Signal::KILL));
            let _ = fs::remove_dir_all(&directory);
            std::process::exit(130);
        });
    });
}
