//! The command line as people and scripts meet it: help, faults, exit codes.
//!
//! `tests/cli/help.txt` holds the help of every command. `UPDATE_HELP=1 cargo test --test cli` writes it anew.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may end itself"
)]
#![allow(missing_docs, reason = "the tests' names are their documentation")]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The binary in a directory, with nothing of the tests' own environment that it would heed.
fn command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cloudbeds-auth-proxy"));
    command.args(arguments).current_dir(directory).stdin(Stdio::null());
    command.env_clear().env("COLUMNS", "100").env("PATH", "/usr/bin:/bin");
    command
}

fn run(arguments: &[&str]) -> Output {
    command(Path::new("/"), arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A directory with a good key file, and a configuration.
fn directory(yaml: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("config.yaml"), yaml).unwrap();
    write_keys(directory.path(), "\"1001\": cbat_blue\n\"1002\": cbat_blue\n");
    directory
}

fn write_keys(directory: &Path, keys: &str) {
    let path = directory.join("keys.yaml");
    fs::write(&path, keys).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Runs it there, and expects an exit code, standard output and standard error.
#[track_caller]
fn check(command: &mut Command, code: i32, stdout: &str, stderr: &str) {
    let output = command.output().unwrap();
    let found = (output.status.code(), text(&output.stdout), text(&output.stderr));
    assert_eq!(found, (Some(code), stdout.to_owned(), stderr.to_owned()));
}

#[test]
fn every_command_explains_itself() {
    let mut help = String::new();
    for command in [
        "",
        "serve",
        "check-config",
        "keys",
        "keys add",
        "keys import",
        "keys list",
        "keys check",
        "keys remove",
        "keys revoke",
        "doctor",
        "connect-link",
        "demo",
        "sandbox",
        "sandbox do",
        "sandbox show",
        "healthcheck",
        "wait",
        "completions",
    ] {
        let arguments: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let output = run(&arguments);
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
        help.push_str(&format!("$ cloudbeds-auth-proxy {}\n{}\n", arguments.join(" "), text(&output.stdout)));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/help.txt");
    if std::env::var_os("UPDATE_HELP").is_some() {
        fs::write(&path, &help).unwrap();
    }
    assert_eq!(help, fs::read_to_string(path).unwrap());
    assert!(help.lines().all(|line| line.chars().count() <= 100));
}

#[test]
fn a_usage_error_is_64_and_says_what_was_expected() {
    for (arguments, words) in [
        (&["srve"][..], "a similar subcommand exists: 'serve'"),
        (&["check-config", "--confg", "x"], "a similar argument exists: '--config'"),
        (&["serve", "--config"], "a value is required for '--config <FILE>'"),
        (&["serve", "--config", ""], "a value is required for '--config <FILE>'"),
        (&["demo", "--port", "70000"], "70000 is not in 0..=65535"),
        (&["healthcheck", "--admin", "9090"], "expected an IP address and a port, such as 127.0.0.1:9090"),
        (&["wait", "--timeout", "18446744073709551615"], "is not in 0..=86400"),
        (&["sandbox", "--hotels", "0"], "0 is not in 1..=100000"),
        (&["completions", "cmd"], "[possible values: bash, elvish, fish, powershell, zsh]"),
        (&["keys", "add", "1001", "cbat_blue"], "invalid value 'cbat_****' for '<PROPERTY>...'"),
        (&["keys", "check"], "<PROPERTY>..."),
        (&["connect-link", "x"], "not a property id"),
        (&[], "Usage: cloudbeds-auth-proxy [OPTIONS] <COMMAND>"),
    ] {
        let output = run(arguments);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(64), 0), "{arguments:?}");
        assert!(text(&output.stderr).contains(words), "{arguments:?}: {}", text(&output.stderr));
    }
}

#[test]
fn check_config_says_what_a_good_configuration_comes_to() {
    let directory = directory("upstream: { base_url: https://cloudbeds.test }");
    let good = "config.yaml: ok; 1 key for 2 properties, requests go to https://cloudbeds.test\n";
    check(&mut command(directory.path(), &["check-config", "--config", "config.yaml"]), 0, good, "");
    check(&mut command(directory.path(), &["--config", "config.yaml", "check-config"]), 0, good, "");
    let variable = "CLOUDBEDS_AUTH_PROXY_CONFIG";
    check(command(directory.path(), &["check-config"]).env(variable, "config.yaml"), 0, good, "");
    // The argument wins over the variable, and an empty variable is none.
    let arguments = ["check-config", "--config", "config.yaml"];
    check(command(directory.path(), &arguments).env(variable, "/nowhere"), 0, good, "");
    let alone = "defaults and environment: ok; 1 key for 2 properties, requests go to https://api.cloudbeds.com\n";
    check(command(directory.path(), &["check-config"]).env(variable, ""), 0, alone, "");
    let overridden = good.replace("cloudbeds.test", "other.test");
    let base_url = "CLOUDBEDS_AUTH_PROXY__UPSTREAM__BASE_URL";
    check(command(directory.path(), &arguments).env(base_url, "https://other.test"), 0, &overridden, "");
}

#[test]
fn the_example_configuration_is_good() {
    let directory = directory("");
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.example.yaml");
    fs::copy(example, directory.path().join("config.example.yaml")).unwrap();
    let arguments = ["check-config", "--config", "config.example.yaml"];
    let good = "config.example.yaml: ok; 1 key for 2 properties, requests go to https://api.cloudbeds.com\n";
    check(&mut command(directory.path(), &arguments), 0, good, "");
}

#[test]
fn check_config_names_every_fault_at_once_with_its_place() {
    let directory = directory(
        "lissen: x\nupstream:\n  timeouts: { connect: 5 }\nworkers: 0\nlimits:\n  requests_per_second: 0\n\
         apps:\n  main: { client_id: live1_1_a, delivery: email, requests_per_second: 0 }\n",
    );
    let faults = "\
config.yaml:1:1: lissen: unknown option `lissen` — did you mean `listen`?
config.yaml:3:24: upstream.timeouts.connect: expected a duration such as 5s — write a number and a unit: ms, s, m or h
config.yaml:4:10: workers: expected 1 to 256
config.yaml:6:24: limits.requests_per_second: expected 1 to 100000 — write what Cloudbeds grants you; `limits: null` turns budgets off
config.yaml:8:71: apps.main.requests_per_second: expected 1 to 100000 — write what Cloudbeds grants the app, or leave it out for that of `limits`
CLOUDBEDS_AUTH_PROXY__LISTNE: names no option — did you mean CLOUDBEDS_AUTH_PROXY__LISTEN?
CLOUDBEDS_AUTH_PROXY__DRAIN__MIN: drain.min: expected a duration such as 5s — write a number and a unit: ms, s, m or h
";
    for arguments in [["check-config", "--config", "config.yaml"], ["serve", "--config", "config.yaml"]] {
        let mut command = command(directory.path(), &arguments);
        command.env("CLOUDBEDS_AUTH_PROXY__DRAIN__MIN", "soon").env("CLOUDBEDS_AUTH_PROXY__LISTNE", "x");
        check(&mut command, 78, "", faults);
    }
}

#[test]
fn check_config_reads_keys_and_roots_too_and_quotes_neither() {
    let directory = directory("upstream: { ca_file: root.pem }");
    write_keys(directory.path(), "\"1001\": blue_secret\n1002: cbat_green\n\"1002\": cbat_red\n");
    fs::write(directory.path().join("root.pem"), "blue_secret").unwrap();
    let faults = "\
keys.yaml:1:9: 1001: not an API key: `cbat_` followed by letters, digits, `-`, `.`, `_` or `~`, at most 512 bytes in all — copy the key again
keys.yaml:3:1: 1002: the property stands here a second time — it stands on line 2 already; keep one of them
root.pem: upstream.ca_file: no certificate in it — it must be a readable PEM file with at least one CERTIFICATE
";
    check(&mut command(directory.path(), &["check-config", "--config", "config.yaml"]), 78, "", faults);
    fs::remove_file(directory.path().join("keys.yaml")).unwrap();
    let missing = "keys.yaml: is not there — check `keys: file:`, or put the file there\n";
    check(&mut command(directory.path(), &["check-config"]), 78, "", missing);
    let missing = "nope.yaml: is not there — check --config, or CLOUDBEDS_AUTH_PROXY_CONFIG\n";
    check(&mut command(directory.path(), &["check-config", "--config", "nope.yaml"]), 78, "", missing);
}

#[test]
fn a_listener_on_a_network_is_refused_with_the_words_that_would_allow_it() {
    let directory = directory("listen: 0.0.0.0:8080\n");
    let output = command(directory.path(), &["serve", "--config", "config.yaml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    let said = text(&output.stderr);
    assert!(said.starts_with("config.yaml:1:9: listen: would offer every key to the network"), "{said}");
    let words = said.rsplit('`').nth(1).expect("the line to write, between backticks");
    fs::write(directory.path().join("config.yaml"), format!("listen: 0.0.0.0:8080\n{words}\n")).unwrap();
    let good = "config.yaml: ok; 1 key for 2 properties, requests go to https://api.cloudbeds.com\n";
    check(&mut command(directory.path(), &["check-config", "--config", "config.yaml"]), 0, good, "");
}

#[test]
fn check_config_reads_what_apps_and_keys_name() {
    let apps = "apps:\n  main: { client_id: live1_1_a, client_secret_file: secret }\n";
    let directory = directory(apps);
    let secret = directory.path().join("secret");
    let faults =
        || text(&command(directory.path(), &["check-config", "--config", "config.yaml"]).output().unwrap().stderr);
    let about = "secret: apps.main.client_secret_file: ";
    assert_eq!(faults(), format!("{about}is not there — put the file there, or correct the option\n"));
    fs::write(&secret, "quiet sesame\n").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(faults().starts_with(&format!("{about}has mode 0644, so others may read or write it — run: chmod 600")));
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(faults().starts_with(&format!("{about}not a client secret")) && !faults().contains("sesame"));
    fs::write(&secret, "sesame\n").unwrap();
    assert_eq!(faults(), "");
    write_keys(directory.path(), "\"1001\": { key: cbat_blue, app: spare }\n");
    let unknown =
        "keys.yaml:1:32: 1001.app: no such app in the configuration — add it there below `apps:`, or name another\n";
    assert_eq!(faults(), unknown);
}

/// An admin listener that gives this answer to everyone, for as long as the test runs.
fn admin(listener: TcpListener, answer: &'static str) -> String {
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 1024];
            let read = stream.read(&mut head).unwrap();
            assert!(head[..read].starts_with(b"GET /readyz HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    address
}

fn free() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

const READY: &str = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nready\n";
const DRAINING: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 9\r\n\r\ndraining\n";

#[test]
fn healthcheck_and_wait_tell_by_their_exit_code() {
    let directory = directory("");
    let (ready, draining) = (admin(free(), READY), admin(free(), DRAINING));
    let closed = free().local_addr().unwrap().to_string();
    let no = |why: &str| format!("not ready: {why}\n");
    for (address, code, said) in [
        (&ready, 0, String::new()),
        (&draining, 1, no(&format!("{draining} answers 503 Service Unavailable"))),
        (&closed, 1, no(&format!("nothing listens at {closed}"))),
    ] {
        check(&mut command(directory.path(), &["healthcheck", "--admin", address]), code, "", &said);
        let said = said.replace("ready:", "ready within 0 s:");
        check(&mut command(directory.path(), &["wait", "--timeout", "0", "--admin", address]), code, "", &said);
    }
    // Without the flag the configuration says where; a wildcard is asked on loopback.
    let port = ready.rsplit(':').next().unwrap();
    let listen = format!("0.0.0.0:{port}");
    let listen = ("CLOUDBEDS_AUTH_PROXY__ADMIN__LISTEN", listen.as_str());
    check(command(directory.path(), &["healthcheck"]).env(listen.0, listen.1), 0, "", "");
    check(command(directory.path(), &["wait"]).env(listen.0, listen.1), 0, "", "");
    check(
        &mut command(directory.path(), &["healthcheck", "--config", "nope.yaml"]),
        78,
        "",
        "nope.yaml: is not there — check --config, or CLOUDBEDS_AUTH_PROXY_CONFIG\n",
    );
}

#[test]
fn wait_is_done_as_soon_as_somebody_answers() {
    let address = free().local_addr().unwrap();
    let waiting = command(Path::new("/"), &["wait", "--admin", &address.to_string()]).spawn().unwrap();
    admin(TcpListener::bind(address).unwrap(), READY);
    assert!(waiting.wait_with_output().unwrap().status.success());
}

#[test]
fn completions_come_for_every_shell_and_may_be_cut_short() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = run(&["completions", shell]);
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
        assert!(text(&output.stdout).contains("check-config"), "{shell}");
    }
    // As `| head` does.
    let mut child =
        command(Path::new("/"), &["completions", "zsh"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}
