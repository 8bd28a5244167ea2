//! Changes to a key file: what is asked for happens, all else stays byte for byte, and nothing is ever half done.

use std::os::unix::fs::MetadataExt;

use super::super::write::{self as keys, Change, Fields, WriteError, Written};
use super::*;

fn api_key(text: &str) -> ApiKey {
    ApiKey::parse(text).unwrap()
}

fn fields(app: &str, organization: &str, base_url: &str) -> Fields {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Fields { app: some(app), organization: some(organization), base_url: base_url.parse().ok() }
}

fn put(ids: &[u64], key: &str) -> Change {
    put_with(ids, key, &Fields::default())
}

fn put_with(ids: &[u64], key: &str, fields: &Fields) -> Change {
    Change::put(&ids.iter().copied().map(property).collect::<Vec<_>>(), &api_key(key), fields)
}

fn take(ids: &[u64]) -> Change {
    Change::remove(&ids.iter().copied().map(property).collect::<Vec<_>>())
}

struct File(tempfile::TempDir);

impl File {
    fn of(text: &str) -> Self {
        let file = Self(tempfile::tempdir().unwrap());
        write(&file.path(), text);
        file
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("keys.yaml")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.path()).unwrap()
    }

    fn apply(&self, changes: &[Change]) -> Result<Written, WriteError> {
        keys::apply(&self.path(), changes)
    }

    /// What is there besides the key file and its lock.
    fn others(&self) -> Vec<String> {
        let names = fs::read_dir(self.0.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != "keys.yaml" && !name.ends_with(".lock")).collect()
    }
}

#[track_caller]
fn becomes(before: &str, changes: &[Change], after: &str) {
    let file = File::of(before);
    file.apply(changes).unwrap_or_else(|error| panic!("{before:?}: {error}"));
    assert_eq!(file.text(), after);
    assert!(file.others().is_empty());
}

#[test]
fn a_key_is_replaced_where_it_stands() {
    for (before, after) in [
        ("1001: cbat_blue", "1001: cbat_new"),
        ("# c\n\"1001\" :   'cbat_blue'   # c\n2: cbat_b\n", "# c\n\"1001\" :   'cbat_new'   # c\n2: cbat_b\n"),
        ("1001:\r\n  \"cbat_blue\" # c\r\n", "1001:\r\n  \"cbat_new\" # c\r\n"),
        ("1001: |\n  cbat_blue\n# c\n2: cbat_b\n", "1001: cbat_new\n# c\n2: cbat_b\n"),
        ("1001: { app: main, key: cbat_blue } # c\n", "1001: { app: main, key: cbat_new } # c\n"),
        ("1001:\n  # c\n  key: cbat_blue # d\n  app: main\n", "1001:\n  # c\n  key: cbat_new # d\n  app: main\n"),
        ("{ 1001: cbat_blue, # c\n  2: cbat_b }", "{ 1001: cbat_new, # c\n  2: cbat_b }"),
        ("--- # c\n1001: cbat_blue\n...\n# end\n", "--- # c\n1001: cbat_new\n...\n# end\n"),
        ("2: &b cbat_b\n1001: *b\n3: *b\n", "2: &b cbat_b\n1001: cbat_new\n3: *b\n"),
        ("keys:\n- { key: cbat_blue, properties: [1001] }\n", "keys:\n- { key: cbat_new, properties: [1001] }\n"),
        ("# é ü\n2: cbat_b # ñ\n1001: cbat_blue # ö\n", "# é ü\n2: cbat_b # ñ\n1001: cbat_new # ö\n"),
        ("\u{feff}1001: cbat_blue\n", "\u{feff}1001: cbat_new\n"),
    ] {
        becomes(before, &[put(&[1001], "cbat_new")], after);
    }
}

#[test]
fn a_new_row_comes_at_the_end() {
    for (before, after) in [
        ("", "\"1001\": cbat_new\n"),
        ("# none yet\n", "# none yet\n\"1001\": cbat_new\n"),
        ("---\n", "---\n\"1001\": cbat_new\n"),
        ("# none\n{}\n", "# none\n\"1001\": cbat_new\n"),
        ("2: cbat_b", "2: cbat_b\n\"1001\": cbat_new\n"),
        ("2: cbat_b\r\n# end\r\n", "2: cbat_b\r\n# end\r\n\"1001\": cbat_new\r\n"),
        ("  2: cbat_b\n  3: cbat_c\n", "  2: cbat_b\n  3: cbat_c\n  \"1001\": cbat_new\n"),
        ("2: cbat_b # c\n...\n# after\n", "2: cbat_b # c\n\"1001\": cbat_new\n...\n# after\n"),
        ("{ 2: cbat_b }\n", "{ \"1001\": cbat_new, 2: cbat_b }\n"),
        ("keys:\n- key: cbat_b\n  properties: [2]\n", "keys:\n- key: cbat_b\n  properties: [2]\n\"1001\": cbat_new\n"),
    ] {
        becomes(before, &[put(&[1001], "cbat_new")], after);
    }
    let more = fields("main", "77", "https://a.test");
    let row = "\"1001\": { key: cbat_new, app: main, organization: '77', base_url: 'https://a.test' }\n";
    becomes("2: cbat_b\n", &[put_with(&[1001], "cbat_new", &more)], &format!("2: cbat_b\n{row}"));
}

#[test]
fn what_is_said_with_a_key_changes_where_it_stands() {
    let other = fields("spare", "", "https://b.test");
    for (before, after) in [
        ("1001: cbat_blue # c\n", "1001: { key: cbat_new, app: spare, base_url: 'https://b.test' } # c\n"),
        (
            "1001: { app: main, key: cbat_blue, organization: 77 }\n",
            "1001: { app: spare, base_url: 'https://b.test', key: cbat_new, organization: 77 }\n",
        ),
        (
            "1001:\n    app: main # c\n    key: cbat_blue\n",
            "1001:\n    app: spare # c\n    base_url: 'https://b.test'\n    key: cbat_new\n",
        ),
        (
            "keys:\n  - key: cbat_blue\n    properties: [1001]\n",
            "keys:\n  - app: spare\n    base_url: 'https://b.test'\n    key: cbat_new\n    properties: [1001]\n",
        ),
    ] {
        becomes(before, &[put_with(&[1001], "cbat_new", &other)], after);
    }
    // Said already, so only the key changes; nothing changes at all the second time.
    let file = File::of("1001: { key: cbat_blue, app: main }\n");
    let change = [put_with(&[1001], "cbat_new", &fields("main", "", ""))];
    assert_eq!(file.apply(&change).unwrap(), Written { replaced: 1, ..Written::default() });
    let inode = fs::metadata(file.path()).unwrap().ino();
    assert_eq!(file.apply(&change).unwrap(), Written::default());
    assert_eq!(fs::metadata(file.path()).unwrap().ino(), inode, "what is there already is not written again");
    assert_eq!(file.text(), "1001: { key: cbat_new, app: main }\n");
}

#[test]
fn a_property_that_gets_a_key_of_its_own_leaves_the_shared_row() {
    let row = "\"1001\": { key: cbat_new, app: main }\n";
    for (before, after) in [
        (
            "keys:\n  - { key: cbat_blue, properties: [1001, 1002, 1003], app: main } # c\n",
            format!("keys:\n  - {{ key: cbat_blue, properties: [1002, 1003], app: main }} # c\n{row}"),
        ),
        (
            "keys:\n  - { key: cbat_blue, app: main, properties: [ 1002, \"1001\" ] }\n  - { key: cbat_b, properties: [2] }\n",
            format!(
                "keys:\n  - {{ key: cbat_blue, app: main, properties: [ 1002 ] }}\n  - {{ key: cbat_b, properties: [2] }}\n{row}"
            ),
        ),
        (
            "keys:\n- key: cbat_blue\n  app: main\n  properties:\n  # a\n  - 1001 # one\n  - 1002 # two\n",
            format!("keys:\n- key: cbat_blue\n  app: main\n  properties:\n  # a\n  - 1002 # two\n{row}"),
        ),
    ] {
        becomes(before, &[put(&[1001], "cbat_new")], &after);
    }
    let shared = "keys:\n  - { key: cbat_blue, properties: [1001, 1002] }\n";
    becomes(shared, &[put(&[1002, 1001], "cbat_new")], &shared.replace("blue", "new"));
}

#[test]
fn several_properties_share_one_row() {
    let item = "{ key: cbat_new, properties: [1001, 1002] }";
    for (before, after) in [
        ("2: cbat_b\n".to_owned(), format!("2: cbat_b\nkeys:\n  - {item}\n")),
        ("1001: cbat_a\n2: cbat_b\n1002: cbat_c\n".to_owned(), format!("2: cbat_b\nkeys:\n  - {item}\n")),
        (
            "keys:\n# c\n- { key: cbat_b, properties: [2] }\n".to_owned(),
            format!("keys:\n# c\n- {item}\n- {{ key: cbat_b, properties: [2] }}\n"),
        ),
        (
            "keys: [{ key: cbat_b, properties: [2, 1002] }]\n".to_owned(),
            format!("keys: [{item}, {{ key: cbat_b, properties: [2] }}]\n"),
        ),
        ("{ 2: cbat_b }".to_owned(), format!("{{ keys: [{item}], 2: cbat_b }}")),
        (String::new(), format!("keys:\n  - {item}\n")),
    ] {
        becomes(&before, &[put(&[1001, 1002], "cbat_new")], &after);
    }
}

#[test]
fn a_row_that_goes_takes_its_lines_and_no_others() {
    for (before, after) in [
        ("# a\n1001: cbat_blue # c\n# b\n2: cbat_b\n", "# a\n# b\n2: cbat_b\n"),
        ("2: cbat_b\n1001:\n  key: cbat_blue\n  # inside\n  app: main # c\n\n# end\n", "2: cbat_b\n\n# end\n"),
        ("2: cbat_b\n1001: cbat_blue", "2: cbat_b\n"),
        ("{ 1001: cbat_blue, 2: cbat_b }", "{ 2: cbat_b }"),
        ("{ 2: cbat_b, 1001: cbat_blue }", "{ 2: cbat_b }"),
        ("{ 2: cbat_b, # b\n  1001: cbat_blue }", "{ 2: cbat_b, # b\n   }"),
        ("2: cbat_b\nkeys:\n- { key: cbat_blue, properties: [1001] }\n# end\n", "2: cbat_b\n# end\n"),
        (
            "keys:\n- key: cbat_b\n  properties: [2]\n-\n  key: cbat_blue\n  properties: [1001]\n",
            "keys:\n- key: cbat_b\n  properties: [2]\n",
        ),
        (
            "keys: [{ key: cbat_a, properties: [1001] }, { key: cbat_b, properties: [2] }]",
            "keys: [{ key: cbat_b, properties: [2] }]",
        ),
        // The last one: the file then says that there are none.
        ("# a\n1001: cbat_blue\n# b\n", "# a\n# b\n{}\n"),
        ("{ 1001: cbat_blue }\n", "{  }\n"),
        ("keys:\n- { key: cbat_blue, properties: [1001] }\n", "{}\n"),
        ("3: cbat_c\n", "3: cbat_c\n"),
    ] {
        becomes(before, &[take(&[1001])], after);
    }
    let many = "1: cbat_a\n2: cbat_b\n3: cbat_c\nkeys:\n- { key: cbat_d, properties: [4, 5, 6, 7] }\n";
    becomes(
        many,
        &[take(&[2, 4, 6]), put(&[8], "cbat_e"), put(&[7], "cbat_f"), put(&[1], "cbat_g")],
        "1: cbat_g\n3: cbat_c\nkeys:\n- { key: cbat_d, properties: [5] }\n\"8\": cbat_e\n\"7\": cbat_f\n",
    );
}

#[test]
fn what_cannot_be_changed_safely_is_left_alone_and_says_why() {
    for (before, change) in [
        ("1001: &a cbat_blue\n2: *a\n", take(&[1001])),
        ("1001: &a cbat_blue\n2: *a\n", put(&[1001], "cbat_new")),
        ("keys: [{ key: cbat_b, properties: [0x3E9, 2] }]\n", take(&[1001])),
    ] {
        let file = File::of(before);
        let error = file.apply(&[change]).unwrap_err();
        assert!(matches!(error, WriteError::Form(_)) && error.to_string().contains("on a line of its own"), "{error}");
        assert_eq!((file.text().as_str(), file.others().len()), (before, 0));
    }
    let file = File::of("1001: blue\n");
    let error = file.apply(&[put(&[1002], "cbat_new")]).unwrap_err().to_string();
    assert!(error.contains("keys.yaml:1:7: 1001: not an API key") && !error.contains("blue"), "{error}");
}

#[test]
fn owner_group_and_mode_stay_and_a_new_file_is_its_owners_alone() {
    let file = File::of("1001: cbat_blue\n");
    for mode in [0o600, 0o640, 0o440, 0o400] {
        set_mode(&file.path(), mode);
        file.apply(&[put(&[1001], &format!("cbat_{mode}"))]).unwrap();
        assert_eq!(fs::metadata(file.path()).unwrap().mode() & 0o7777, mode);
    }
    set_mode(&file.path(), 0o644);
    assert!(matches!(file.apply(&[put(&[1001], "cbat_new")]), Err(WriteError::Bad(_))));
    fs::remove_file(file.path()).unwrap();
    file.apply(&[put(&[1001], "cbat_new")]).unwrap();
    assert_eq!(fs::metadata(file.path()).unwrap().mode() & 0o7777, 0o600);
}

#[test]
fn what_root_makes_belongs_to_whoever_has_the_keys() {
    if !rustix::process::geteuid().is_root() {
        return; // Nobody else can give files away.
    }
    let file = File::of("1001: cbat_blue\n");
    let nobody = Some(65534);
    std::os::unix::fs::chown(file.path(), nobody, nobody).unwrap();
    keys::revoke(&file.path(), &[property(1001)], "a drill").unwrap();
    for name in ["keys.yaml", "keys.yaml.lock", "keys.yaml.refused"] {
        let metadata = fs::metadata(file.0.path().join(name)).unwrap();
        assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o777), (65534, 65534, 0o600), "{name}");
    }
    std::os::unix::fs::chown(file.0.path(), nobody, nobody).unwrap();
    let new = file.0.path().join("new.yaml");
    keys::apply(&new, &[put(&[1001], "cbat_new")]).unwrap();
    assert_eq!(fs::metadata(new).unwrap().uid(), 65534);
}

#[test]
fn a_link_stays_a_link() {
    let file = File::of("1001: cbat_blue\n");
    let link = file.0.path().join("link.yaml");
    symlink("keys.yaml", &link).unwrap();
    keys::apply(&link, &[put(&[1001], "cbat_new")]).unwrap();
    assert!(link.is_symlink() && file.text() == "1001: cbat_new\n");
    fs::remove_file(file.path()).unwrap();
    assert!(keys::apply(&link, &[put(&[1001], "cbat_new")]).unwrap_err().to_string().contains("cannot be reached"));
}

#[test]
fn a_mounted_secret_is_not_written() {
    let secret = Secret::mounted(&[("1001", "cbat_blue"), ("keys.yaml", "1001: cbat_blue")]);
    for path in [secret.path(), secret.path().join("keys.yaml")] {
        let error = keys::apply(&path, &[put(&[1001], "cbat_new")]).unwrap_err();
        assert!(matches!(error, WriteError::Mounted(_)) && error.to_string().contains("change the Secret itself"));
    }
}

#[test]
fn a_directory_gets_a_file_per_property() {
    let directory = tempfile::tempdir().unwrap();
    let (path, one) = (directory.path(), directory.path().join("1001"));
    assert_eq!(keys::apply(path, &[put(&[1001, 1002], "cbat_blue")]).unwrap().added, 2);
    assert_eq!(
        (fs::read_to_string(&one).unwrap().as_str(), fs::metadata(&one).unwrap().mode() & 0o777),
        ("cbat_blue\n", 0o600)
    );
    set_mode(&one, 0o440);
    let changes = [put(&[1001], "cbat_new"), take(&[1002])];
    assert_eq!(keys::apply(path, &changes).unwrap(), Written { added: 0, replaced: 1, removed: 1 });
    assert_eq!(
        (fs::read_to_string(&one).unwrap().as_str(), fs::metadata(&one).unwrap().mode() & 0o777),
        ("cbat_new\n", 0o440)
    );
    assert_eq!(KeyStore::open(path).unwrap().current().properties(), 1);
    let error = keys::apply(path, &[put_with(&[1001], "cbat_red", &fields("main", "", ""))]).unwrap_err();
    assert!(error.to_string().contains("no room for an app"), "{error}");
}

#[test]
fn what_an_ended_writer_left_behind_is_removed_and_its_lock_is_free() {
    let file = File::of("1001: cbat_blue\n");
    write(&file.0.path().join(".key-abc.new"), "1001: cbat_half");
    write(&file.0.path().join("keys.yaml.lock"), "");
    file.apply(&[put(&[1001], "cbat_new")]).unwrap();
    assert!(file.others().is_empty());
}

#[test]
fn writers_wait_for_each_other_and_lose_nothing() {
    let file = File::of("# rows\n");
    std::thread::scope(|scope| {
        for writer in 0..4_u64 {
            let file = &file;
            scope.spawn(move || {
                for number in 0..10 {
                    let id = 1 + writer * 10 + number;
                    file.apply(&[put(&[id], &format!("cbat_{id}"))]).unwrap();
                }
            });
        }
    });
    let set = KeyStore::open(file.path()).unwrap().current();
    assert_eq!((set.properties(), set.keys()), (40, 40));
}

#[test]
fn a_trial_does_everything_but_the_last_step() {
    let file = File::of("1001: cbat_blue\n");
    keys::try_put(&file.path(), property(1002), &Fields::default()).unwrap();
    assert_eq!((file.text().as_str(), file.others().len()), ("1001: cbat_blue\n", 0));
    assert!(keys::try_put(&file.path().join("none/keys.yaml"), property(1002), &Fields::default()).is_err());
    keys::try_put(file.0.path().join("keys.yaml.d").as_path(), property(1), &Fields::default()).unwrap();
}

#[test]
fn a_revoked_key_leaves_file_and_memory_and_never_comes_back() {
    let text = "1001: cbat_blue\n1002: cbat_red\nkeys:\n- { key: cbat_blue, properties: [1003] }\n";
    let file = File::of(text);
    let store = KeyStore::open(file.path()).unwrap();
    let revoked = keys::revoke(&file.path(), &[property(1001)], "a drill").unwrap();
    assert_eq!(
        (revoked.properties, revoked.keys),
        (vec![property(1001), property(1003)], vec![api_key("cbat_blue").digest()])
    );
    assert_eq!(file.text(), "1002: cbat_red\n");
    assert!(matches!(store.reload(), Reload::Swapped { properties: 1, keys: 1 }));

    // Neither by a writer, nor by whoever puts an old file back.
    let error = file.apply(&[put(&[1005], "cbat_blue")]).unwrap_err().to_string();
    assert!(error.contains("property 1005 was revoked") && error.contains("keys.yaml.refused"), "{error}");
    write(&file.path(), text);
    assert!(matches!(store.reload(), Reload::Swapped { properties: 1, keys: 1 }));
    assert!(!store.current().contains(property(1001)) && !store.current().contains(property(1003)));
    assert!(has(&KeyStore::open(file.path()).unwrap().current(), 1002, "cbat_red"));
    // A list that lost its lines does not bring it back into a process that has seen it.
    fs::remove_file(file.0.path().join("keys.yaml.refused")).unwrap();
    write(&file.path(), &format!("{text}# again\n"));
    assert!(matches!(store.reload(), Reload::Swapped { properties: 1, .. }));
}

#[test]
fn a_revocation_counts_even_when_the_file_cannot_be_read() {
    let file = File::of("1001: cbat_blue\n1002: cbat_red\n");
    let store = KeyStore::open(file.path()).unwrap();
    write(&file.path(), "1001: [");
    keys::forbid(&file.path(), &[api_key("cbat_blue").digest()], "a drill").unwrap();
    assert!(matches!(store.reload(), Reload::Refused(_)));
    assert!(!store.current().contains(property(1001)) && store.current().contains(property(1002)));

    let list = file.0.path().join("keys.yaml.refused");
    let text = fs::read_to_string(&list).unwrap();
    assert!(
        text.contains(&format!("sha256:{}  # a drill\n", api_key("cbat_blue").digest())) && !text.contains("cbat_")
    );
    keys::forbid(&file.path(), &[api_key("cbat_blue").digest()], "again").unwrap();
    assert_eq!(fs::read_to_string(&list).unwrap(), text);
    write(&list, "sha256:blue\n");
    assert!(not_opened(&file.path()).contains("keys.yaml.refused:1:1: not a digest"));
}

/// A file as a person might have written it: properties with their keys, in any of the forms.
fn any_file() -> impl Strategy<Value = (String, Vec<(u64, String)>)> {
    let row = (0..9_usize, "[a-z]{3}", prop_oneof![Just(""), Just(" # cömment"), Just("   ")]);
    let rows = proptest::collection::vec((row, 1..4_u64), 1..7);
    (rows, any::<bool>(), prop_oneof![Just("\n"), Just("\r\n")], any::<bool>()).prop_map(
        |(rows, list_first, end, last)| {
            let (mut plain, mut list, mut keys, mut next) = (String::new(), String::new(), Vec::new(), 1000);
            for ((form, key, comment), many) in rows {
                let key = format!("cbat_{key}{next}");
                let ids: Vec<u64> = (0..if form < 5 { 1 } else { many }).map(|number| next + number).collect();
                next += 10;
                let id = ids[0];
                let all = ids.iter().map(ToString::to_string).collect::<Vec<_>>();
                match form {
                    0 => plain += &format!("\"{id}\": {key}{comment}\n"),
                    1 => plain += &format!("# before {id}\n{id}:  '{key}'{comment}\n\n"),
                    2 => plain += &format!("{id}: {{ key: \"{key}\", app: main }}{comment}\n"),
                    3 => plain += &format!("'{id}':{comment}\n  organization: 7\n  # in it\n  key: {key}{comment}\n"),
                    4 => plain += &format!("{id}:\n    {key}{comment}\n"),
                    5 => list += &format!("  - {{ key: {key}, properties: [{}] }}{comment}\n", all.join(", ")),
                    6 => {
                        list += &format!(
                            "  # item\n  - key: {key}\n    properties: [ {} ]{comment}\n",
                            all.join(" ,\n      ")
                        )
                    }
                    7 => {
                        list += &format!(
                            "  - properties:{comment}\n    - {}{comment}\n    key: '{key}'\n",
                            all.join("\n    - ")
                        )
                    }
                    _ => list += &format!("  - {{properties: [{}], app: 'x', key: {key}}}\n", all.join(",")),
                }
                keys.extend(ids.into_iter().map(|id| (id, key.clone())));
            }
            let list = if list.is_empty() { list } else { format!("keys:\n{list}") };
            let mut text = if list_first { list + &plain } else { plain + &list };
            if !last {
                text.truncate(text.trim_end().len());
            }
            (text.replace('\n', end), keys)
        },
    )
}

proptest! {
    #[test]
    fn any_text_that_is_read_is_changed_rightly_or_left_alone(
        pieces in proptest::collection::vec(
            prop_oneof![
                Just("cbat_a"), Just("1001"), Just("7"), Just(": "), Just("\n"), Just("  "), Just("- "), Just("keys:"),
                Just("{ key: "), Just("key: "), Just("properties: ["), Just("]"), Just(" }"), Just(", "), Just("\""),
                Just("&a "), Just("*a"), Just("? "), Just("| \n"), Just("app: "), Just("---\n"), Just("# ü"), Just("'"),
                Just("1001: cbat_a\n"), Just("7: { key: cbat_b }\n"), Just("keys:\n- { key: cbat_c, properties: [8, 1001] }\n"),
            ],
            0..12,
        ),
    ) {
        let text = pieces.concat();
        let old = KeySet::parse("f", &text).ok();
        if old.is_none() && text.lines().any(|line| !line.trim().is_empty() && !line.starts_with('#')) {
            return Ok(());
        }
        for change in [put(&[1001], "cbat_new"), put_with(&[7, 8], "cbat_new", &fields("zed", "", "")), take(&[1001])] {
            // It compares what the result means itself; here it must only never panic, nor lose what it was not told.
            let new = super::super::edit::edit(&text, old.as_ref(), std::slice::from_ref(&change));
            prop_assert!(new.is_none_or(|new| change.to.is_none() || new.contains("cbat_new")));
        }
    }

    #[test]
    fn any_change_to_any_file_keeps_all_else_byte_for_byte(
        (text, rows) in any_file(),
        picks in proptest::collection::btree_set(0..24_usize, 1..4),
        what in proptest::collection::vec((0..3_usize, any::<bool>()), 4),
    ) {
        let old = KeySet::parse("f", &text).unwrap();
        let mut changes = Vec::new();
        for (number, pick) in picks.into_iter().enumerate() {
            let id = rows.get(pick).map_or(5000 + pick as u64, |(id, _)| *id);
            let with = if what[number].1 { fields("zed", "", "") } else { Fields::default() };
            changes.push(if what[number].0 == 0 { take(&[id]) } else { put_with(&[id], &format!("cbat_new{id}"), &with) });
        }
        // That it means what it should is checked by `edit` itself; nothing here may be beyond it.
        let new = super::super::edit::edit(&text, Some(&old), &changes);
        prop_assert!(new.is_some(), "{text:?} {changes:?}");
        let new = new.unwrap();
        // Every line of another property is there as it was, and so is every comment that stands alone.
        let changed: Vec<String> = changes.iter().flat_map(|change| &change.properties).map(ToString::to_string).collect();
        let shared: Vec<&String> = rows.iter().filter(|(id, _)| changed.contains(&id.to_string())).map(|(_, key)| key).collect();
        for line in text.lines() {
            let concerned = changed.iter().any(|id| line.contains(id.as_str()))
                || shared.iter().any(|key| line.contains(key.as_str()));
            let own = rows.iter().any(|(_, key)| line.contains(key.as_str())) || line.starts_with("# before");
            if own && !concerned {
                prop_assert!(new.lines().any(|kept| kept == line), "{line:?} is gone: {text:?} became {:?}", *new);
            }
        }
        // What was put can be taken out again, and then the old lines of the others are still there.
        prop_assert_eq!(new.matches('\r').count() > 0, text.contains("\r\n") && new.contains('\n'));
    }
}
