//! Invariants of the source that no compiler keeps.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may end itself"
)]
#![allow(missing_docs, reason = "the tests' names are their documentation")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A source file: its path from the repository's root, and its code.
struct File {
    path: String,
    text: String,
}

impl File {
    /// Its code without comments and without its unit tests.
    fn code(&self) -> String {
        let tests = self.text.find("#[cfg(test)]\nmod tests {").unwrap_or(self.text.len());
        let lines = self.text[..tests].lines().map(|line| match line.trim_start().starts_with("//") {
            true => "",
            false => line.split(" // ").next().unwrap_or_default(),
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Whether it holds nothing but tests, or what fuzzing runs: neither is in the program.
    fn is_test(&self) -> bool {
        let within =
            |name: &str| self.path.ends_with(&format!("{name}.rs")) || self.path.contains(&format!("/{name}/"));
        !self.path.starts_with("src/") || within("tests") || within("fuzzing")
    }

    /// The top module it belongs to: `keys` for `src/keys/watch.rs`.
    fn module(&self) -> &str {
        let path = self.path.strip_prefix("src/").unwrap_or_default();
        path.split('/').next().unwrap_or_default().trim_end_matches(".rs")
    }
}

fn files(directories: &[&str]) -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = directories.iter().map(|directory| root.join(directory)).collect();
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push(File { path: path.strip_prefix(root).unwrap().display().to_string(), text });
            }
        }
    }
    assert!(!found.is_empty());
    found
}

fn sources() -> Vec<File> {
    files(&["src"]).into_iter().filter(|file| !file.is_test()).collect()
}

/// Where code (no test, no comment) holds one of these words.
fn users(words: &[&str]) -> BTreeSet<String> {
    let used = |file: &File| words.iter().any(|word| file.code().contains(word));
    sources().into_iter().filter(used).map(|file| file.path).collect()
}

fn only(paths: &[&str]) -> BTreeSet<String> {
    paths.iter().map(|path| (*path).to_owned()).collect()
}

#[test]
fn every_file_opens_with_its_promise() {
    for file in files(&["src", "tests", "benches", "fuzz/fuzz_targets"]) {
        assert!(file.text.starts_with("//! "), "{} does not open with //!", file.path);
    }
}

#[test]
fn a_key_leaves_by_one_door_that_one_caller_uses() {
    let calls = sources().iter().map(|file| file.code().matches(".bearer()").count()).sum::<usize>();
    assert_eq!((calls, users(&[".bearer()"])), (1, only(&["src/proxy/rewrite.rs"])));
    assert_eq!(users(&[".bearer_for_own_call()"]), only(&["src/cloudbeds.rs"]));
}

#[test]
fn keys_are_written_in_one_place() {
    assert_eq!(users(&[".for_key_file()"]), only(&["src/keys/edit.rs", "src/keys/pending.rs", "src/keys/write.rs"]));
    // Which is reached through `write` alone.
    assert_eq!(users(&["edit::edit"]), only(&["src/keys/write.rs"]));
    assert_eq!(
        users(&[".persist("]),
        only(&["src/keys/names.rs", "src/keys/state.rs", "src/keys/write/place.rs", "src/sandbox/files.rs"])
    );
}

#[test]
fn sockets_are_bound_in_one_file_and_dialled_in_one() {
    let binding = ["TcpListener::bind", "UnixListener::bind", "socket2", "TcpSocket", ".bind("];
    assert_eq!(users(&binding), only(&["src/listen.rs"]));
    assert_eq!(users(&["TcpStream::connect", "lookup_host", "ToSocketAddrs"]), only(&["src/https.rs"]));
    // `listen` asks whether anybody still listens on a socket file before it replaces it.
    assert_eq!(users(&["UnixStream::connect"]), only(&["src/listen.rs"]));
}

#[test]
fn yaml_is_read_in_one_place() {
    for path in users(&["serde_yaml", "saphyr_parser"]) {
        assert!(path.starts_with("src/yaml/"), "{path} uses a YAML parser");
    }
}

/// From the command line down: a module uses those on lower levels only.
const LEVELS: [&[&str]; 9] = [
    &["cli"],
    &["app"],
    &["admin", "config", "onboarding", "proxy", "sandbox"],
    &["inquiry"],
    &["cloudbeds", "shared"],
    &["budget", "https", "keys", "listen", "tls"],
    &["telemetry"],
    &["redis_url", "web", "wire", "yaml"],
    &["address", "fault", "flight", "log_filter", "origin", "phase", "process", "property", "secret"],
];

fn level(module: &str) -> usize {
    let found = LEVELS.iter().position(|level| level.contains(&module));
    found.unwrap_or_else(|| panic!("{module} has no place in LEVELS, in tests/tidy.rs"))
}

/// The modules of the crate that a file names, as `crate::x` or in `use crate::{x, y}`.
fn uses(file: &File) -> BTreeSet<String> {
    let code = file.code();
    let mut found = BTreeSet::new();
    for (at, start) in code.match_indices("crate::") {
        let rest = &code[at + start.len()..];
        let name = |text: &str| -> String {
            text.trim_start().chars().take_while(|letter| letter.is_ascii_lowercase() || *letter == '_').collect()
        };
        match rest.strip_prefix('{') {
            None => found.extend([name(rest)]),
            Some(list) => {
                let (mut depth, mut item) = (0, String::new());
                for letter in list.chars() {
                    match letter {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => found.extend([name(&std::mem::take(&mut item))]),
                        _ => {}
                    }
                    if depth == 0 && letter != ',' {
                        item.push(letter);
                    }
                }
                found.insert(name(&item));
            }
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

#[test]
fn imports_point_one_way() {
    let app = sources().into_iter().find(|file| file.path == "src/app.rs").expect("the composition root");
    assert!(uses(&app).is_superset(&only(&["config", "keys", "proxy", "telemetry"])), "imports are not found any more");
    for file in sources().iter().filter(|file| !matches!(file.module(), "main" | "lib")) {
        for used in uses(file).iter().filter(|used| *used != file.module()) {
            assert!(level(file.module()) < level(used), "{} uses {used}, which does not stand below it", file.path);
        }
    }
}

#[test]
fn only_the_composition_root_sees_the_whole_configuration() {
    for file in sources().iter().filter(|file| uses(file).contains("config")) {
        assert!(matches!(file.module(), "app" | "cli" | "config"), "{} uses config", file.path);
    }
}

#[test]
fn nothing_outside_tests_may_end_the_process_or_print() {
    let ends = [".unwrap()", ".expect(", "panic!(", "todo!(", "unimplemented!(", "unreachable!(", "dbg!("];
    assert_eq!(users(&ends), only(&[]));
    assert_eq!(users(&["process::exit", "process::abort"]), only(&[]));
    assert_eq!(users(&["println!(", "eprintln!(", "print!(", "eprint!("]), only(&[]));
    for path in users(&["io::stdout()", "io::stderr()"]) {
        assert!(path.starts_with("src/cli/") || path.starts_with("src/telemetry/"), "{path} writes to the terminal");
    }
}

#[test]
fn one_call_is_unsafe() {
    // Put together, so that they are not found here.
    let marks = [["unsafe", " {"], ["unsafe", "_code"], ["#[uns", "afe("]].map(|parts| parts.concat());
    let mut found = Vec::new();
    for file in files(&["src", "tests", "benches", "fuzz/fuzz_targets"]) {
        let lines = file.text.lines().filter(|line| marks.iter().any(|mark| line.contains(mark)));
        found.extend(
            lines.map(|line| (file.path.clone(), line.trim().split(['(', ' ', '=']).next().unwrap().to_owned())),
        );
    }
    found.sort();
    let expected =
        [("src/https/low_water.rs", "#[expect"), ("src/https/low_water.rs", "let"), ("src/lib.rs", "#![deny")];
    let found: Vec<(&str, &str)> = found.iter().map(|(path, word)| (&**path, &**word)).collect();
    assert_eq!(found, expected);
}

#[test]
fn what_fuzzing_runs_is_in_no_program() {
    let mut found = 0;
    for file in files(&["src"]) {
        for (at, _) in file.text.match_indices("mod fuzzing;") {
            let before = file.text[..at].trim_end_matches(|letter| letter != '\n').replace("#[doc(hidden)]\n", "");
            assert!(before.ends_with("#[cfg(any(test, feature = \"fuzzing\"))]\n"), "{}", file.path);
            found += 1;
        }
    }
    assert!(found > 3, "fuzzing is not found any more");
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    assert!(!manifest.contains("default = ["), "a feature is on by default");
}

#[test]
fn every_error_code_has_its_row_in_the_readme() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    for code in cloudbeds_auth_proxy::wire::problem::Code::ALL {
        let row = format!("| {} | `{}` |", code.status().as_u16(), code.as_str());
        assert!(readme.contains(&row), "README.md has no row {row}");
    }
}

#[test]
fn every_promise_names_tests_that_there_are() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/promises.md")).unwrap();
    let (mut promises, mut held) = (0, 0);
    for (number, line) in text.lines().enumerate() {
        if line.starts_with("- ") {
            assert!(held >= promises, "line {number}: a promise before it has no test");
            (promises, held) = (promises + 1, promises);
        }
        let Some(name) = line.strip_prefix("  `").and_then(|rest| rest.strip_suffix('`')) else { continue };
        held = promises;
        let (module, test) = name.rsplit_once("::").unwrap();
        let file = match module {
            "cli" => "tests/cli.rs".to_owned(),
            "fuzzing" => "src/fuzzing/tests.rs".to_owned(),
            _ => format!("tests/it/{}.rs", module.replace("::", "/")),
        };
        let source = fs::read_to_string(root.join(&file)).unwrap_or_else(|_| panic!("{name}: no {file}"));
        let declared = source.find(&format!("fn {test}()")).unwrap_or_else(|| panic!("{name}: not in {file}"));
        let before = source[..declared].trim_end().trim_end_matches("async").trim_end();
        assert!(before.ends_with(']') && before.rsplit('\n').next().unwrap().contains("test"), "{name} is no test");
    }
    assert!(promises > 20 && held == promises, "the last promise has no test");
}

#[test]
fn every_dependency_is_used() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let names = |section: &str| {
        let lines =
            manifest.lines().skip_while(|line| *line != section).skip(1).take_while(|line| !line.starts_with('['));
        let names = lines.filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(" = "));
        names.map(|(name, _)| name.replace('-', "_")).collect::<Vec<_>>()
    };
    let (own, of_tests) = (names("[dependencies]"), names("[dev-dependencies]"));
    assert!(own.len() > 20 && of_tests.len() > 3, "{own:?} {of_tests:?}");
    for (names, texts) in [(own, files(&["src"])), (of_tests, files(&["src", "tests", "benches"]))] {
        for name in names {
            let (path, import) = (format!("{name}::"), format!("use {name}"));
            let used = texts.iter().any(|file| file.text.contains(&path) || file.text.contains(&import));
            assert!(used, "{name} is in Cargo.toml and nowhere else");
        }
    }
}
