//! What must be true of the source itself, where no type can hold it.
//!
//! In: the files below `src/`, as text. Out: a failure that names the file and the line. Comments and the tests beside
//! the code are left out: they may say and do what the code may not.
#![allow(clippy::unwrap_used, reason = "clippy knows a test by its attribute, not its helpers")]

use std::path::{Path, PathBuf};

/// A file's path below `src/`, with `/` in it, and its text without comments and unit tests.
struct Source {
    name: String,
    text: String,
    code: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    collect(&root, &root, &mut found);
    found.sort_by(|one, two| one.name.cmp(&two.name));
    found
}

fn collect(root: &Path, directory: &Path, found: &mut Vec<Source>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path: PathBuf = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            let text = std::fs::read_to_string(&path).unwrap();
            let is_test = name.ends_with("tests.rs") || name.contains("/tests/");
            let above_tests = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            let lines = above_tests.lines().map(|line| line.split("//").next().unwrap_or_default());
            let code = if is_test { String::new() } else { lines.collect::<Vec<_>>().join("\n") };
            found.push(Source { name, text, code });
        }
    }
}

/// The places at which the code says one of `words`, as `file:line`.
fn places(words: &[&str]) -> Vec<String> {
    let mut places = Vec::new();
    for source in sources() {
        for (number, line) in source.code.lines().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                places.push(format!("{}:{}", source.name, number + 1));
            }
        }
    }
    places
}

fn outside(places: Vec<String>, allowed: &[&str]) -> Vec<String> {
    places.into_iter().filter(|place| !allowed.iter().any(|file| place.starts_with(file))).collect()
}

#[test]
fn a_key_leaves_by_one_door_with_one_caller() {
    let places = places(&[".bearer()"]);
    assert!(places.len() == 1 && places[0].starts_with("proxy/rewrite.rs:"), "{places:?}");
}

#[test]
fn sockets_are_bound_and_dialled_in_one_place_each() {
    let bound = places(&["Listener::bind(", "socket.bind(", "TcpSocket::"]);
    // The sandbox's one bind is for tests; it never dials.
    assert_eq!(outside(bound, &["listen.rs", "sandbox/mod.rs"]), Vec::<String>::new());
    let dialled = places(&["Stream::connect(", "lookup_host("]);
    // `listen.rs` asks whether anybody listens on a socket file before it replaces it.
    assert_eq!(outside(dialled, &["https.rs", "listen.rs"]), Vec::<String>::new());
}

#[test]
fn yaml_is_parsed_in_one_module() {
    assert_eq!(outside(places(&["serde_yaml"]), &["yaml/"]), Vec::<String>::new());
}

#[test]
fn every_file_opens_with_its_promise() {
    let silent = |source: &Source| !source.text.starts_with("//!") && !source.name.ends_with("tests.rs");
    let silent: Vec<String> = sources().into_iter().filter(silent).map(|source| source.name).collect();
    assert_eq!(silent, Vec::<String>::new());
}

#[test]
fn imports_point_down_the_list_in_lib_rs() {
    let all = sources();
    let library = all.iter().find(|source| source.name == "lib.rs").unwrap();
    // Groups stand apart by an empty line. rustfmt sorts each, so order means something between them only; within the
    // last one, the small things, everybody may use everybody.
    let groups: Vec<Vec<&str>> = library
        .code
        .split("\n\n")
        .map(|group| group.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect())
        .filter(|group: &Vec<&str>| !group.is_empty())
        .collect();
    let rank = |module: &str| groups.iter().position(|group| group.contains(&module));
    let mut upwards = Vec::new();
    for source in &all {
        let module = source.name.split(['/', '.']).next().unwrap_or_default();
        let Some(own) = rank(module) else { continue };
        for used in source.code.split("crate::").skip(1) {
            let used =
                used.split(|letter: char| !(letter.is_alphanumeric() || letter == '_')).next().unwrap_or_default();
            if rank(used).is_some_and(|other| other < own) {
                upwards.push(format!("{} uses {used}", source.name));
            }
        }
    }
    assert_eq!(upwards, Vec::<String>::new());
}

#[test]
fn every_error_code_has_its_row_in_the_readme() {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    for code in cloudbeds_auth_proxy::wire::problem::Code::ALL {
        let row = format!("| {} | `{}` |", code.status().as_u16(), code.as_str());
        assert!(readme.contains(&row), "README.md has no row {row}");
    }
}
