//! Every file of every corpus, and some thousand mutations of them, with every run of the tests.
//!
//! In: `fuzz/corpus/`, and the table of wire cases. Out: a failure where a target panics, by the name of the file. What a
//! fuzzer once found stays found: its input is a file there.

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use self::case::Act;
use super::{TARGETS, Target};

#[allow(dead_code, unreachable_pub, reason = "it is shared with the scenes, which use the rest of it")]
#[path = "../../tests/it/wire/case.rs"]
mod case;

/// Mutations of each target's corpus that are tried.
const MUTATIONS: u32 = 1000;

fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    assert!(files.len() >= 10, "{} has hardly a file", folder.display());
    files
}

/// The bytes of every case of the table of wire cases.
fn table() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/wire");
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        let filled = |name: &str| match name {
            "port" => "8080".to_owned(),
            other => format!("{other}.example"),
        };
        let file = path.file_stem().unwrap().to_string_lossy();
        for case in case::read(&file, &fs::read_to_string(&path).unwrap(), filled) {
            let pieces =
                case.sends.iter().filter_map(|act| if let Act::Bytes(bytes) = act { Some(&bytes[..]) } else { None });
            all.push((case.name, pieces.collect::<Vec<_>>().concat()));
        }
    }
    assert!(all.len() > 400, "only {} cases", all.len());
    // As with a fuzzer: what is longer shows nothing that shorter ones do not, and takes minutes.
    all.retain(|(_, bytes)| bytes.len() <= 4096);
    all.sort();
    all
}

/// All that a target is given: its corpus, and where it takes a caller's bytes those of the table.
fn inputs(name: &str) -> Vec<(String, Vec<u8>)> {
    let mut all = corpus(name);
    let options: &[&[u8]] = match name {
        "request" => &[b"@", b"P"],
        "views" => &[b""],
        _ => &[],
    };
    for option in options {
        all.extend(table().into_iter().map(|(case, bytes)| (case, [option, &bytes[..]].concat())));
    }
    all
}

fn replay((name, target): Target) {
    let mut broken = inputs(name);
    broken.retain(|(_, bytes)| catch_unwind(|| target(bytes)).is_err());
    let broken: Vec<_> = broken.into_iter().map(|(input, _)| input).collect();
    assert!(broken.is_empty(), "{name}: {broken:?}");
}

/// What a fuzzer does, in short: bytes changed, taken out, put in from another file, and the tail of one behind the head of
/// another. The numbers are fixed, so a failure is the same for everybody.
fn mutate((name, target): Target) {
    let files: Vec<Vec<u8>> = inputs(name).into_iter().map(|(_, bytes)| bytes).collect();
    let edit = (0..4_u8, any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>());
    let mutations =
        (prop::sample::select(files.clone()), prop::sample::select(files), prop::collection::vec(edit, 1..5));
    let mutations = mutations.prop_map(|(mut bytes, other, edits)| {
        for (what, at, to, byte) in edits {
            let at = at.index(bytes.len() + 1);
            let from = to.index(other.len() + 1);
            match what {
                0 if at < bytes.len() => bytes[at] = byte,
                1 => bytes.truncate(at),
                2 => drop(bytes.splice(at..at, other[from..].iter().take(usize::from(byte)).copied())),
                _ => drop(bytes.splice(at.., other[from..].iter().copied())),
            }
        }
        bytes.truncate(4096);
        bytes
    });
    let config = Config { cases: MUTATIONS, failure_persistence: None, ..Config::default() };
    let mut runner =
        TestRunner::new_with_rng(config, proptest::test_runner::TestRng::deterministic_rng(Default::default()));
    let result = runner.run(&mutations, |bytes| {
        let held = catch_unwind(|| target(&bytes)).is_ok();
        prop_assert!(held, "{:?}", String::from_utf8_lossy(&bytes));
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{name}: {error}"));
}

/// Every file of the corpus, then mutations of them.
fn holds(name: &str) {
    let target = TARGETS.into_iter().find(|(known, _)| *known == name).expect("a target");
    replay(target);
    mutate(target);
}

#[test]
fn what_goes_out_is_one_request_with_the_right_key_whatever_came_in() {
    holds("request");
}

#[test]
fn what_passes_the_gate_is_read_alike_by_other_parsers() {
    holds("views");
}

#[test]
fn answers_over_http2_are_what_a_plain_reading_finds_each_on_its_stream() {
    holds("answers");
}

#[test]
fn an_answer_is_what_a_plain_reading_finds_and_is_taken_for_whole_only_if_it_is() {
    holds("answer");
}

#[test]
fn a_mask_covers_every_key_and_nothing_else_wherever_it_is_cut() {
    holds("mask");
}

#[test]
fn nothing_that_decodes_to_a_key_is_let_go() {
    holds("inspect");
}

#[test]
fn any_key_file_is_keys_or_faults_that_quote_none() {
    holds("key_file");
}

#[test]
fn any_configuration_keeps_its_rules_or_is_refused_without_a_quote() {
    holds("config");
}

#[test]
fn an_exchange_begins_only_for_the_state_and_the_browser_it_was_asked_for() {
    holds("callback");
}

#[test]
fn a_webhook_leads_to_a_look_only_at_a_hotel_and_an_app_of_ours() {
    holds("webhook");
}

#[test]
fn nothing_that_redis_answers_lets_a_replica_start_more_than_its_app_is_granted() {
    holds("redis");
}

#[test]
fn what_comes_over_http2_is_read_as_it_was_sent_and_goes_out_by_the_same_rules() {
    holds("http2");
}

#[test]
fn records_are_read_as_rustls_reads_them_and_the_server_hears_the_same() {
    holds("records");
}

#[test]
fn any_revocation_list_keeps_out_whom_it_revokes_or_is_refused_without_a_quote() {
    holds("crl");
}

#[test]
fn any_state_file_is_joined_without_a_loss_or_kept_aside() {
    holds("state");
}

#[test]
fn an_exchange_gives_the_key_that_was_answered_or_words_that_hold_none() {
    holds("token");
}

#[test]
fn every_target_has_its_corpus_its_program_and_its_row() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let (manifest, readme, script) = (read("Cargo.toml"), read("README.md"), read("../scripts/fuzz"));
    for (name, _) in TARGETS {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is no program of fuzz/Cargo.toml");
        assert!(read(&format!("fuzz_targets/{name}.rs")).contains(&format!("fuzzing::{name}(data)")), "{name}");
        assert!(readme.contains(&format!("| `{name}` |")), "{name} has no row in fuzz/README.md");
        assert!(script.contains(name), "scripts/fuzz does not know {name}");
    }
    let folders = fs::read_dir(root.join("corpus")).unwrap().count();
    assert_eq!(folders, TARGETS.len(), "a corpus without a target");
}
