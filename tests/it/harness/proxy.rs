//! The real binary as a child process, at log level trace, with its log kept.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use cloudbeds_auth_proxy::sandbox::{Hotel, Sandbox, random_key};
use rustix::process::{Pid, Resource, Rlimit, Signal, geteuid, getrlimit, kill_process, prlimit};

use super::client::{Call, raw};
use super::{Answer, Authority, PATIENCE, Wire, assert_clean};

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_cloudbeds-auth-proxy");

/// A fresh key of the observed form.
pub fn key() -> String {
    random_key()
}

/// What a proxy is started with.
pub struct Builder {
    base_url: String,
    root_pem: String,
    keys: Vec<(String, String)>,
    config: String,
    environment: Vec<(String, String)>,
    filter: String,
    before: Vec<Prepare>,
    by: Vec<String>,
    secrets: Vec<String>,
}

/// Something done in the proxy's directory before it starts.
type Prepare = Box<dyn FnOnce(&Path) + Send>;

/// A running proxy. Dropped, it is killed, and its log is searched for every key it was given.
pub struct Proxy {
    pub child: Child,
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub directory: tempfile::TempDir,
    pub secrets: Vec<String>,
}

impl Builder {
    /// Adds a key of a property.
    pub fn key(mut self, property: &str, key: &str) -> Self {
        self.keys.push((property.to_owned(), key.to_owned()));
        self
    }

    /// Adds top-level sections to the configuration, as YAML. `listen`, `admin`, `keys`, `limits`, `log`, `workers` and
    /// `upstream.base_url` and `ca_file` are set already; use [`env`](Self::env) to change or add to `upstream`.
    pub fn config(mut self, yaml: &str) -> Self {
        self.config.push_str(yaml);
        self.config.push('\n');
        self
    }

    /// Sets an option by its environment variable: `env("UPSTREAM__TIMEOUTS__IDLE", "1s")`.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((format!("CLOUDBEDS_AUTH_PROXY__{name}"), value.to_owned()));
        self
    }

    /// The log filter, trace by default: a gigabyte through hyper at trace would fill the disk.
    pub fn log(mut self, filter: &str) -> Self {
        self.filter = filter.to_owned();
        self
    }

    /// Starts it by way of another program, which is given the binary and its arguments behind its own.
    pub fn by<W: AsRef<str>>(mut self, program: &[W]) -> Self {
        self.by = program.iter().map(|word| word.as_ref().to_owned()).collect();
        self
    }

    /// Does something in the proxy's directory before it starts, when all other files are there.
    pub fn before(mut self, prepare: impl FnOnce(&Path) + Send + 'static) -> Self {
        self.before.push(Box::new(prepare));
        self
    }

    /// Puts a file that anybody may read beside the others.
    pub fn file(self, name: &'static str, text: &str) -> Self {
        let text = text.to_owned();
        self.before(move |directory| std::fs::write(directory.join(name), text).unwrap())
    }

    /// Gives the listener a certificate of this authority; [`TLS`](super::TLS) makes it use that.
    pub fn listener(self, authority: &Authority) -> Self {
        let identity = authority.server();
        self.before(move |directory| identity.place(directory))
    }

    /// Puts a password for Redis into the file `redis.pw`. Like keys it is looked for in everything the process emits.
    pub fn redis_password(self, password: &str) -> Self {
        self.secret_file("redis.pw", password)
    }

    /// Puts a secret into a file of its own that only the owner may read, and has it looked for as well.
    pub fn secret_file(mut self, name: &'static str, secret: &str) -> Self {
        self.secrets.push(secret.to_owned());
        let text = secret.to_owned();
        self.before(move |directory| write_private(&directory.join(name), &text))
    }

    /// Starts the binary and waits until it says that it is ready.
    pub async fn start(self) -> Proxy {
        let (directory, mut command, secrets) = self.command();
        let child = command.spawn().unwrap();
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut proxy = Proxy { child, address: unknown, admin: unknown, directory, secrets };
        let (listen, admin) = proxy.wait_for("ready", || ready(&(proxy.log() + &proxy.stderr()))).await;
        (proxy.address, proxy.admin) = (listen.parse().unwrap_or(unknown), admin);
        proxy.assert_hidden();
        proxy
    }

    /// Starts it where it is expected to end by itself: exit code, and what it said on standard error.
    pub async fn refused(self) -> (Option<i32>, String) {
        let (directory, mut command, secrets) = self.command();
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut proxy = Proxy { child: command.spawn().unwrap(), address: unknown, admin: unknown, directory, secrets };
        let status = proxy.ended().await;
        (status.code(), proxy.stderr())
    }

    /// Its directory, the command that starts it, and the keys it is given.
    pub fn command(self) -> (tempfile::TempDir, Command, Vec<String>) {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let mut keys = String::new();
        for (property, key) in &self.keys {
            writeln!(keys, "\"{property}\": {key}").unwrap();
        }
        write_private(&at("keys.yaml"), &keys);
        std::fs::write(at("root.pem"), &self.root_pem).unwrap();
        let yaml = format!(
            "listen: 127.0.0.1:0\nadmin: {{ listen: 127.0.0.1:0 }}\nkeys: {{ file: keys.yaml, poll: 200ms }}\n\
             upstream: {{ base_url: {}, ca_file: root.pem }}\nlog: {{ format: json, output: ./log }}\n\
             drain: {{ min: 0s, max: 5s }}\nlimits: null\nworkers: 2\n",
            self.base_url
        );
        // A section given by the test replaces the one above: YAML allows each key once.
        let given: Vec<&str> =
            self.config.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name).collect();
        let kept: Vec<&str> =
            yaml.lines().filter(|line| line.split_once(':').is_none_or(|(name, _)| !given.contains(&name))).collect();
        std::fs::write(at("config.yaml"), format!("{}\n{}", kept.join("\n"), self.config)).unwrap();
        for prepare in self.before {
            prepare(directory.path());
        }
        let words: Vec<_> = self.by.iter().map(String::as_str).chain([BINARY]).collect();
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .arg("serve")
            .arg("--config")
            .arg(at("config.yaml"))
            // The event that says where it listens must come through any filter.
            .env("RUST_LOG", format!("{},cloudbeds_auth_proxy::app=info", self.filter))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::from(std::fs::File::create(at("stdout")).unwrap()))
            .stderr(Stdio::from(std::fs::File::create(at("stderr")).unwrap()));
        let secrets = self.keys.into_iter().map(|(_, key)| key).chain(self.secrets).collect();
        (directory, command, secrets)
    }
}

/// Where a proxy whose log this is listens, its first listener and admin, once it says that it is ready; a log of
/// either format.
pub fn ready(log: &str) -> Option<(String, SocketAddr)> {
    log.lines().find_map(|line| {
        let (listen, admin) = if let Ok(event) = serde_json::from_str::<serde_json::Value>(line) {
            (event["message"] == "ready").then(|| (text(&event["listen"]), text(&event["admin"])))?
        } else {
            let fields = line.split_once(": ready listen=")?.1;
            let (listen, rest) = fields.split_once(" admin=")?;
            (listen.to_owned(), rest.split(' ').next()?.to_owned())
        };
        Some((listen.split(", ").next()?.to_owned(), admin.parse().ok()?))
    })
}

fn text(value: &serde_json::Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl Proxy {
    /// A proxy before a sandbox, with its hotels' keys.
    pub fn to(cloudbeds: &Sandbox, hotels: &[Hotel]) -> Builder {
        let mut builder = Self::to_origin(&cloudbeds.base_url(), cloudbeds.root_pem());
        for hotel in hotels {
            builder = builder.key(&hotel.property.to_string(), &hotel.key);
        }
        builder
    }

    /// A proxy before any origin.
    pub fn to_origin(base_url: &str, root_pem: &str) -> Builder {
        Builder {
            base_url: base_url.to_owned(),
            root_pem: root_pem.to_owned(),
            keys: Vec::new(),
            config: String::new(),
            environment: Vec::new(),
            // tokio's own trace events would be most of the log and say nothing of requests.
            filter: "trace,mio=info,polling=info".to_owned(),
            before: Vec::new(),
            by: Vec::new(),
            secrets: Vec::new(),
        }
    }

    /// A GET for a property.
    pub fn get(&self, target: &str) -> Call<'_> {
        Call::new(self, "GET", target)
    }

    /// Any call.
    pub fn call(&self, method: &str, target: &str) -> Call<'_> {
        Call::new(self, method, target)
    }

    /// Sends bytes as they are on a fresh connection, and reads until the proxy closes it or says nothing for a while.
    pub async fn raw(&self, bytes: impl AsRef<[u8]>) -> Vec<u8> {
        let answer = raw(self.address, bytes.as_ref()).await;
        assert_clean("a raw answer", &answer, &self.secrets);
        answer
    }

    /// The same, as text.
    pub async fn raw_text(&self, bytes: impl AsRef<[u8]>) -> String {
        String::from_utf8_lossy(&self.raw(bytes).await).into_owned()
    }

    /// A path of the admin listener.
    pub async fn admin(&self, path: &str) -> Answer {
        super::client::plain(self.admin, path, &self.secrets).await
    }

    /// The value of one metric series, such as `requests_total{…}`, without the common prefix; 0 when it is not there.
    pub async fn metric(&self, series: &str) -> f64 {
        let page = self.admin("/metrics").await.text();
        let wanted = format!("cloudbeds_auth_proxy_{series} ");
        page.lines().find_map(|line| line.strip_prefix(&wanted)?.parse().ok()).unwrap_or(0.0)
    }

    /// The file of that name beside the configuration.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Everything logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// What it said on standard error.
    pub fn stderr(&self) -> String {
        std::fs::read_to_string(self.path("stderr")).unwrap_or_default()
    }

    /// Waits until a metric series has the value.
    pub async fn wait_for_metric(&self, series: &str, wanted: impl Fn(f64) -> bool) {
        let started = Instant::now();
        loop {
            let value = self.metric(series).await;
            if wanted(value) {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "{series} stays at {value}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// A connection of its own, for bytes as they are.
    pub async fn connect(&self) -> Wire {
        Wire::tcp(self.address, &self.secrets).await
    }

    /// The process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The log's events, parsed.
    pub fn events(&self) -> Vec<serde_json::Value> {
        self.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The access lines so far.
    pub fn access(&self) -> Vec<serde_json::Value> {
        self.events()
            .into_iter()
            .filter(|event| event.get("request_id").is_some() && event.get("path").is_some())
            .collect()
    }

    /// Waits for an access line that the predicate accepts.
    pub async fn wait_for_access(&self, wanted: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        self.wait_for("an access line", || self.access().into_iter().find(|line| wanted(line))).await
    }

    /// Waits for an event with this message.
    pub async fn wait_for_event(&self, message: &str) -> serde_json::Value {
        let find = || self.events().into_iter().find(|event| event["message"] == message);
        self.wait_for(message, find).await
    }

    /// Waits until `look` finds something.
    pub async fn wait_for<T>(&self, what: &str, look: impl Fn() -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            if let Some(found) = look() {
                return found;
            }
            if started.elapsed() > PATIENCE {
                let stderr = std::fs::read_to_string(self.path("stderr")).unwrap_or_default();
                let log = self.log();
                let tail = &log[log.floor_char_boundary(log.len().saturating_sub(2000))..];
                panic!("{what} did not come; stderr: {stderr}; log: …{tail}");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Replaces the key file at once, as `mv` does.
    pub fn write_keys(&self, text: &str) {
        let new = self.path("keys.new");
        write_private(&new, text);
        std::fs::rename(new, self.path("keys.yaml")).unwrap();
    }

    /// Replaces any other file as a whole.
    pub fn replace(&self, name: &str, text: &str) {
        let new = self.path(&format!("{name}.new"));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.path(name)).unwrap();
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Kills it, as a power cut would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Kills it and starts it again in the same directory, with a log of its own; the one so far is searched for keys.
    /// Its other output goes behind that of the first start.
    pub async fn restart(&mut self) {
        self.kill();
        assert_quiet("the log", &std::fs::read(self.path("log")).unwrap(), &self.secrets);
        std::fs::remove_file(self.path("log")).unwrap();
        let output = |name: &str| std::fs::File::options().append(true).open(self.path(name)).unwrap();
        self.child = Command::new(env!("CARGO_BIN_EXE_cloudbeds-auth-proxy"))
            .arg("serve")
            .arg("--config")
            .arg(self.path("config.yaml"))
            .env("RUST_LOG", "trace,mio=info,polling=info")
            .stdin(Stdio::null())
            .stdout(output("stdout"))
            .stderr(output("stderr"))
            .spawn()
            .unwrap();
        let (listen, admin) = self.wait_for("ready", || ready(&self.log())).await;
        (self.address, self.admin) = (listen.parse().unwrap(), admin);
        self.assert_hidden();
    }

    /// Asserts that no key is in what other processes may read of it now.
    fn assert_hidden(&self) {
        let shown = self.shown();
        let read = |shown: &std::io::Result<Vec<u8>>| shown.as_ref().is_ok_and(|bytes| !bytes.is_empty());
        assert!(!shown.is_empty() && shown.iter().all(|(_, shown)| read(shown)), "{shown:?}");
        assert_hidden(&shown, &self.secrets);
    }

    /// What other processes may read of this one, and of one that it was started by: its environment, which only root
    /// can, since it is not dumpable, and its arguments, which anybody can.
    fn shown(&self) -> Vec<(String, std::io::Result<Vec<u8>>)> {
        let process = self.id();
        let processes = children(process).into_iter().chain([process]);
        let names: &[&str] = if geteuid().is_root() { &["cmdline", "environ"] } else { &["cmdline"] };
        let paths = processes.flat_map(|process| names.iter().map(move |name| format!("/proc/{process}/{name}")));
        let read = paths.map(|path| (path.clone(), std::fs::read(path)));
        // Those of a process that has ended meanwhile are gone.
        read.filter(|(path, shown)| shown.is_ok() || Path::new(path).exists()).collect()
    }

    /// Waits for the process to end by itself.
    pub async fn ended(&mut self) -> ExitStatus {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the process does not end");
    }

    /// Resident memory, in bytes: now, and at its highest so far.
    pub fn memory(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
        };
        (field("VmRSS:"), field("VmHWM:"))
    }

    /// How many files it has open.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// The lowest number that no open file has: the one that the next file is given. A look at the key file, or whatever else has
    /// a file open for a moment, does not count.
    pub async fn next_descriptor(&self) -> u64 {
        let there = |number: &u64| std::fs::symlink_metadata(format!("/proc/{}/fd/{number}", self.child.id())).is_ok();
        let mut lowest = u64::MAX;
        for _ in 0..20 {
            lowest = (0..lowest).find(|number| !there(number)).unwrap_or(lowest);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        lowest
    }

    /// Changes one of its soft limits; the hard one stays. What it was.
    pub fn limit(&self, resource: Resource, current: Option<u64>) -> Option<u64> {
        let process = Some(Pid::from_child(&self.child));
        let maximum = getrlimit(resource).maximum;
        prlimit(process, resource, Rlimit { current, maximum }).unwrap().current
    }

    /// Makes the highest memory so far what it is now.
    pub fn forget_peak_memory(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").unwrap();
    }
}

/// What a process has started.
fn children(process: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
    children.split_whitespace().filter_map(|number| number.parse().ok()).collect()
}

/// Sends a signal to what a process has started; to how many.
pub fn signal_children(process: u32, signal: Signal) -> usize {
    let children = children(process).into_iter().filter_map(|child| Pid::from_raw(child.try_into().ok()?));
    children.filter(|child| kill_process(*child, signal).is_ok()).count()
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let shown = self.shown();
        let running = matches!(self.child.try_wait(), Ok(None));
        if running {
            // One that another program runs would go on without that.
            signal_children(self.child.id(), Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            return;
        }
        if running {
            assert_hidden(&shown, &self.secrets);
        }
        for file in ["log", "stdout", "stderr"] {
            assert_quiet(&format!("the {file}"), &std::fs::read(self.path(file)).unwrap_or_default(), &self.secrets);
        }
        // What it writes beside the keys, and is no key file.
        for entry in std::fs::read_dir(self.directory.path()).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(".json")
                || name.ends_with(".refused")
                || name.ends_with(".lock")
                || name.contains("damaged")
            {
                assert_clean(&name, &std::fs::read(entry.path()).unwrap_or_default(), &self.secrets);
            }
        }
    }
}

/// Asserts that no key is in it. What cannot be read is a failure: nothing would be known.
fn assert_hidden(shown: &[(String, std::io::Result<Vec<u8>>)], secrets: &[String]) {
    for (path, shown) in shown {
        let shown = shown.as_ref().unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_clean(path, shown, secrets);
    }
}

/// Asserts that neither a key nor a panic is in what it wrote.
fn assert_quiet(what: &str, emitted: &[u8], secrets: &[String]) {
    assert_clean(what, emitted, secrets);
    assert!(memchr::memmem::find(emitted, b"panicked").is_none(), "something panicked, see {what}");
}

/// Writes a file that only its owner may read.
pub fn write_private(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}
