//! Every form of a key file and every fault in one.

use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;

mod watching;
mod writing;

/// Writes a file only its owner may read.
fn write(path: &Path, text: &str) {
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn property(id: u64) -> PropertyId {
    id.to_string().parse().unwrap()
}

fn has(set: &KeySet, id: u64, key: &str) -> bool {
    set.get(property(id)).is_some_and(|found| *found.secret() == ApiKey::parse(key).unwrap())
}

fn shown(faults: &[Fault]) -> Vec<String> {
    faults.iter().map(ToString::to_string).collect()
}

fn refused(text: &str) -> Vec<String> {
    shown(&KeySet::parse("keys.yaml", text).expect_err(text))
}

fn not_opened(path: &Path) -> String {
    shown(&KeyStore::open(path).unwrap_err()).join("\n")
}

#[test]
fn the_three_forms_stand_in_one_file() {
    let set = KeySet::parse(
        "keys.yaml",
        "\"1001\": cbat_blue\n1002: 'cbat_blue'\n1003: { key: cbat_red, app: main, organization: 77, base_url: https://a.test }\n\
         keys:\n  - key: cbat_blue\n    properties: [1004, \"1005\"]\n  - { key: cbat_red, properties: [1006] }\n",
    )
    .unwrap();
    assert_eq!((set.properties(), set.keys()), (6, 3));
    assert!([1001, 1002, 1004, 1005].into_iter().all(|id| has(&set, id, "cbat_blue")));
    let key = |id| set.get(property(id)).unwrap();
    assert!(Arc::ptr_eq(key(1001), key(1005)), "rows that say the same share one key");
    assert!(!Arc::ptr_eq(key(1003), key(1006)), "another origin is another key");
    assert_eq!(key(1003).app.as_deref(), Some("main"));
    assert_eq!(key(1003).organization.as_deref(), Some("77"));
    assert_eq!(key(1003).base_url.as_ref().unwrap().to_string(), "https://a.test");
    assert!(set.contains(property(1006)) && !set.contains(property(1007)));
}

#[test]
fn one_bad_row_refuses_the_whole_file_by_line_and_column() {
    assert_eq!(
        refused("\"1001\": cbat_blue\n\"1002\": blue_cbat\n"),
        [
            "keys.yaml:2:9: 1002: not an API key: `cbat_` followed by letters, digits, `-`, `.`, `_` or `~`, at most 512 \
          bytes in all — copy the key again"
        ]
    );
}

#[test]
fn all_bad_rows_are_told_at_once() {
    let text = "\
\"1001\": cbat_blue
0x10: cbat_blue
\"1001\": cbat_red
\"1002\": [cbat_blue]
\"1003\": { key: cbat_blue, kee: 1, app: cbat_blue, key: cbat_red }
\"1004\": { app: main }
keys:
  - { key: cbat_blue, properties: [1001, x] }
  - cbat_blue
  - { key: cbat_blue, properties: 1005, base_url: http://a.test }
  - { properties: [] }
";
    let faults = refused(text);
    let expected = [
        "keys.yaml:2:1: not a property id",
        "keys.yaml:3:1: 1001: the property stands here a second time — it stands on line 1 already",
        "keys.yaml:4:9: 1002: not an API key",
        "keys.yaml:5:27: 1003.kee: unknown field; known here: key, app, organization, base_url",
        "keys.yaml:5:40: 1003.app: expected a name",
        "keys.yaml:5:51: 1003.key: stands here a second time",
        "keys.yaml:6:9: 1004: `key` is missing",
        "keys.yaml:8:36: 1001: the property stands here a second time — it stands on line 1 already",
        "keys.yaml:8:42: keys[0].properties: not a property id",
        "keys.yaml:9:5: keys[1]: expected a mapping",
        "keys.yaml:10:35: keys[2].properties: expected a list of property ids",
        "keys.yaml:10:51: keys[2].base_url: must start with https://",
        "keys.yaml:11:5: keys[3]: `key` is missing",
        "keys.yaml:11:19: keys[3].properties: expected a list of property ids",
    ];
    assert_eq!(faults.len(), expected.len(), "{faults:#?}");
    for (fault, expected) in faults.iter().zip(expected) {
        assert!(fault.starts_with(expected), "{fault}\nis not\n{expected}");
    }
}

#[test]
fn a_thousand_bad_rows_are_told_as_twenty() {
    let text: String = (1..=1000).map(|id| format!("{id}: no\n")).collect();
    let faults = refused(&text);
    assert_eq!(faults.len(), 21);
    assert!(faults[20].contains("980 more faults"));
}

#[test]
fn a_file_that_is_no_key_file_is_refused() {
    for (text, words) in [
        ("", "holds no keys"),
        ("# none\n", "holds no keys"),
        ("keys: []", "holds no keys"),
        ("keys:", "keys: expected a list"),
        ("cbat_blue", "expected `name: value` lines"),
        ("- cbat_blue", "expected `name: value` lines"),
        ("1001: cbat_blue\n---\n1002: cbat_blue", "more than one document"),
        ("1001: \"cbat_blue", "a quote is not closed"),
        ("1: &a [x, x, x, x, x, x, x, x]\n2: &b [*a, *a, *a, *a, *a]\n3: [*b, *b, *b]", "aliases repeat more than"),
        ("1001: !!int cbat_blue", "cannot be read as YAML here"),
    ] {
        let faults = refused(text);
        assert!(faults.len() == 1 && faults[0].contains(words), "{text:?} gave {faults:?}");
    }
}

#[test]
fn a_file_can_say_that_there_are_no_keys() {
    for text in ["{}", "# none yet\n{ } # really\n", "---\n{}\n"] {
        assert_eq!(KeySet::parse("keys.yaml", text).unwrap().properties(), 0, "{text:?}");
    }
}

#[test]
fn a_row_may_name_only_an_app_of_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.yaml");
    write(&path, "1001: { key: cbat_blue, app: main }\n1002: { key: cbat_red, app: spare }\n");
    assert!(KeyStore::open(&path).is_ok());
    assert!(KeyStore::open_for(&path, Some(vec!["main".into(), "spare".into()])).is_ok());
    let faults = shown(&KeyStore::open_for(&path, Some(vec!["main".into()])).unwrap_err());
    assert!(faults.len() == 1 && faults[0].contains("keys.yaml:2:29: 1002.app: no such app"), "{faults:?}");
}

#[test]
fn no_fault_and_no_debug_output_holds_a_key() {
    for text in [
        "cbat_blue: 1001",
        "1001: cbat_blue/",
        "1001: !cbat_blue cbat_blue",
        "1001: { cbat_blue: cbat_blue }",
        "1001: { key: cbat_blue, app: cbat_blue, organization: cbat_blue, base_url: cbat_blue }",
        "keys: [{ key: [cbat_blue], properties: [cbat_blue] }]",
        "keys: [{ key: cbat_blue, properties: [[cbat_blue]] }]",
        "1001: *cbat_blue",
        "1001: 'cbat_blue",
        "[cbat_blue]: 1",
    ] {
        let faults = KeySet::parse("keys.yaml", text).expect_err(text);
        let seen = format!("{faults:?} {:?}", shown(&faults));
        assert!(!seen.contains("blue"), "{text} gave {seen}");
    }
    let set = KeySet::parse("keys.yaml", "1001: cbat_blue").unwrap();
    assert!(!format!("{set:?} {:?}", set.get(property(1001))).contains("blue"));
}

#[test]
fn a_hundred_thousand_rows_are_read() {
    let text: String = (1..=100_000).map(|id| format!("\"{id}\": cbat_{id}\n")).collect();
    let set = KeySet::parse("keys.yaml", &text).unwrap();
    assert_eq!((set.properties(), set.keys()), (100_000, 100_000));
    assert!(has(&set, 99_999, "cbat_99999"));
}

#[test]
fn a_file_others_can_read_is_refused_with_the_command_to_run() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.yaml");
    write(&path, "1001: cbat_blue");
    for mode in [0o644, 0o604, 0o660, 0o601, 0o666] {
        set_mode(&path, mode);
        let fault = not_opened(&path);
        assert!(fault.contains(&format!("has mode {mode:04o}")), "{fault}");
        assert!(fault.contains(&format!("run: chmod 600 {}", path.display())) && fault.contains("defaultMode: 0440"));
    }
    for mode in [0o600, 0o400, 0o440, 0o640] {
        set_mode(&path, mode);
        assert!(KeyStore::open(&path).is_ok(), "{mode:o}");
    }
}

#[test]
fn what_is_no_file_is_one_clear_sentence() {
    let directory = tempfile::tempdir().unwrap();
    assert!(not_opened(&directory.path().join("none")).contains("none: is not there"));
    assert!(not_opened(Path::new("/dev/null")).contains("is not a regular file"));
    assert!(not_opened(directory.path()).contains("holds no keys"));
    let path = directory.path().join("keys.yaml");
    fs::write(&path, b"1001: cbat_\xff").unwrap();
    set_mode(&path, 0o600);
    assert!(not_opened(&path).contains("keys.yaml:1:12: is not UTF-8 text"));
    fs::File::create(&path).unwrap().set_len(256 * 1024 * 1024 + 1).unwrap();
    assert!(not_opened(&path).contains("is larger than 262144 KiB"));
}

/// A Secret as kubelet mounts it: files are links through `..data`, which is a link to a directory with a date.
struct Secret(tempfile::TempDir);

impl Secret {
    fn mounted(files: &[(&str, &str)]) -> Self {
        let secret = Self(tempfile::tempdir().unwrap());
        secret.swap("..2026_01", files);
        for (name, _) in files {
            symlink(Path::new("..data").join(name), secret.0.path().join(name)).unwrap();
        }
        secret
    }

    fn swap(&self, generation: &str, files: &[(&str, &str)]) {
        let root = self.0.path();
        let data = root.join(generation);
        fs::create_dir(&data).unwrap();
        for (name, text) in files {
            write(&data.join(name), text);
            set_mode(&data.join(name), 0o440);
        }
        symlink(generation, root.join("..data_tmp")).unwrap();
        fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
    }

    fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }
}

#[test]
fn a_directory_holds_a_file_per_property() {
    let secret = Secret::mounted(&[("1001", "cbat_blue\n"), ("1002", "cbat_blue")]);
    let store = KeyStore::open(secret.path()).unwrap();
    let set = store.current();
    assert_eq!((set.properties(), set.keys()), (2, 1));
    assert!(has(&set, 1001, "cbat_blue"));

    write(&secret.path().join("README"), "cbat_blue");
    assert!(not_opened(&secret.path()).contains("README: a file in it is not named by a property id"));
    fs::remove_file(secret.path().join("README")).unwrap();
    write(&secret.path().join("1003"), "blue");
    let fault = not_opened(&secret.path());
    assert!(fault.contains("/1003: not an API key") && !fault.contains("blue"), "{fault}");
    set_mode(&secret.path().join("1003"), 0o644);
    assert!(not_opened(&secret.path()).contains("/1003: has mode 0644"));
}

#[test]
fn a_reload_swaps_the_whole_set_or_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.yaml");
    write(&path, "1001: cbat_blue\n1002: cbat_red");
    let store = KeyStore::open(&path).unwrap();
    let (mut reader, before) = (store.reader(), store.current());
    assert!(matches!(store.reload(), Reload::Unchanged));

    write(&path, "1001: cbat_green\n1002: no");
    for _ in 0..2 {
        assert!(matches!(store.reload(), Reload::Refused(faults) if faults.len() == 1), "refused again at each look");
        assert!(Arc::ptr_eq(reader.load(), &before));
    }
    write(&path, "1003: cbat_green");
    assert!(matches!(store.reload(), Reload::Swapped { properties: 1, keys: 1 }));
    assert!(has(reader.load(), 1003, "cbat_green") && !reader.load().contains(property(1001)));
    assert!(has(&before, 1001, "cbat_blue"), "whoever holds the old set keeps it");
    write(&path, "");
    assert!(matches!(store.reload(), Reload::Refused(_)));
    fs::remove_file(&path).unwrap();
    assert!(matches!(store.reload(), Reload::Refused(_)));
    assert!(has(&store.current(), 1003, "cbat_green"));
}

#[test]
fn a_change_that_keeps_time_and_size_is_seen() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.yaml");
    write(&path, "1001: cbat_blue");
    let store = KeyStore::open(&path).unwrap();
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    write(&path, "1001: cbat_teal");
    fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    assert!(matches!(store.reload(), Reload::Swapped { .. }));
    assert!(has(&store.current(), 1001, "cbat_teal"));
}

proptest! {
    #[test]
    fn any_text_is_keys_or_faults_that_hold_none_of_it(
        pieces in proptest::collection::vec(
            prop_oneof![
                Just("cbat_Secret0".to_owned()), Just("cbat_AnotherSecret0".to_owned()), Just("1001".to_owned()), Just(": ".to_owned()), Just("\n".to_owned()),
                Just("  ".to_owned()), Just("- ".to_owned()), Just("keys:".to_owned()), Just("{ key: ".to_owned()),
                Just("properties: [".to_owned()), Just("]".to_owned()), Just(" }".to_owned()), Just(", ".to_owned()),
                Just("\"".to_owned()), Just("&a ".to_owned()), Just("*a".to_owned()), Just("!t ".to_owned()),
                Just("\\x41".to_owned()), Just("''".to_owned()), Just("1002: cbat_OneMoreSecret0\n".to_owned()),
                Just("? ".to_owned()), Just("| \n".to_owned()), Just("app: ".to_owned()), Just("---\n".to_owned()),
                ".{0,4}",
            ],
            0..24,
        ),
    ) {
        let text = pieces.concat();
        let parsed = crate::yaml::text("keys.yaml", text.as_bytes()).and_then(|text| KeySet::parse("keys.yaml", text));
        if let Ok(text) = crate::yaml::text("keys.yaml", text.as_bytes()) {
            fuzzing::check_veil(text, &parsed);
        }
        if let Err(faults) = parsed {
            prop_assert!(!faults.is_empty() && faults.len() <= crate::fault::FAULTS_MAX + 1);
            prop_assert!(!format!("{faults:?} {:?}", shown(&faults)).contains("Secret0"), "{faults:?}");
        }
    }
}
