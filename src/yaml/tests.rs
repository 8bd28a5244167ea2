//! What YAML is read and what is refused, and that no fault quotes it.

use serde::Deserialize;

use super::*;

fn refusals(text: &str) -> Vec<String> {
    let faults = super::text("f", text.as_bytes()).and_then(|text| document("f", text));
    faults.map(|_| Vec::new()).unwrap_or_else(|faults| faults.iter().map(ToString::to_string).collect())
}

#[test]
fn a_node_is_found_by_its_position() {
    let text = "a: 1\nb:\n  - x\n  - { c: [ä, 'd'] }\n\"e\": |\n  f\n";
    for (steps, on_key, place) in [
        (&[][..], false, Some((1, 1))),
        (&[0], true, Some((1, 1))),
        (&[0], false, Some((1, 4))),
        (&[1, 0], false, Some((3, 5))),
        (&[1, 1], false, Some((4, 5))),
        (&[1, 1, 0], true, Some((4, 7))),
        (&[1, 1, 0, 1], false, Some((4, 14))),
        (&[2], true, Some((5, 1))),
        (&[2], false, Some((5, 6))),
    ] {
        assert_eq!(locate(text, &Spot { steps: steps.to_vec(), on_key }), place, "{steps:?} {on_key}");
    }
}

#[test]
fn a_name_given_twice_is_refused_wherever_it_stands() {
    assert_eq!(
        refusals("a: 1\nb: { c: 1, c: 2 }\n'a': 3\n"),
        ["f:2:12: `c` stands here a second time", "f:3:1: `a` stands here a second time"]
    );
}

#[test]
fn one_document_of_plain_yaml_is_asked_for() {
    for (text, words) in [
        ("", "f:1:1: is empty"),
        ("# nothing\n", "is empty"),
        ("---\na: 1\n---\na: 1\n", "f: holds more than one document"),
        ("a: !secret b\n", "f:1:4: a YAML tag"),
        ("a: *b\n", "f:1:4: an alias names nothing"),
        ("a: b: c\n", "f:1:5: a second `: ` on one line"),
        ("a:\n\tb: 1\n", "f:2:1: a character that cannot stand here"),
        ("a: [b\n", "a `[` is not closed"),
        ("a: \"b\n", "a quote is not closed"),
        ("a: b\u{7}\n", "f:1:5: holds a control character"),
    ] {
        let refusals = refusals(text);
        assert!(refusals.len() == 1 && refusals[0].contains(words), "{text:?} gave {refusals:?}");
    }
    let fault = super::text("f", b"a: 1\nb: \xff\n").unwrap_err();
    assert_eq!(fault[0].to_string(), "f:2:4: is not UTF-8 text — save the file as UTF-8");
}

#[test]
fn a_file_of_brackets_alone_is_refused_before_anything_reads_it() {
    for text in ["[".repeat(1 << 20), format!("a: {}", "{".repeat(1 << 20)), "[{".repeat(129)] {
        assert_eq!(
            refusals(&text),
            ["f: opens more than 256 brackets — use fewer levels, and close those that stand in text"]
        );
    }
    let remarks = (0..300).map(|row| format!("a{row}: x # moved from [old\n")).collect::<String>();
    assert_eq!(refusals(&remarks), [""; 0], "in remarks there may be any number");
    assert_eq!(refusals(&format!("a: '{}'\nb: {}{}", "[".repeat(100), "[".repeat(100), "]".repeat(100))), [""; 0]);
}

#[test]
fn a_remark_ends_where_the_parser_lets_it_end() {
    for end in ["\n", "\r", "\u{85}", "\u{2028}", "\u{2029}"] {
        let text = format!("# old{end}{}", "[".repeat(257));
        assert!(opens_too_many(&text), "{end:?}");
        assert!(!opens_too_many(&format!("a: x{end}#{}", "[".repeat(257))), "{end:?}");
    }
}

#[test]
fn a_file_of_tags_alone_is_refused_before_anything_reads_it() {
    let rows = |row: fn(usize) -> String, count| (0..count).map(row).collect::<String>();
    let tags = |count| rows(|number| format!("%TAG !t{number}! x\n"), count) + "---\na: b\n";
    assert_eq!(refusals(&tags(101)), ["f: holds too many `%TAG` lines — remove them: tags have no meaning here"]);
    assert_eq!(refusals(&tags(100)), [""; 0]);
    assert_eq!(refusals(&rows(|number| format!("a{number}: &b{number} x\n"), 20_000)), [""; 0]);
}

#[test]
fn aliases_serve_but_cannot_blow_a_document_up() {
    assert!(refusals("a: &x 1\nb: *x\n").is_empty());
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let items = format!("*a{}, ", level - 1).repeat(9);
        bomb.push_str(&format!("a{level}: &a{level} [{items}]\n"));
    }
    let refusals = refusals(&bomb);
    assert!(refusals.len() == 1 && refusals[0].contains("its aliases repeat"), "{refusals:?}");
}

#[test]
fn a_misfit_says_what_was_expected_and_never_what_was_there() {
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Outer {
        inner: Vec<Inner>,
    }
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Inner {
        flag: bool,
    }
    let misfit = |text: &str| typed::<Outer>(&document("f", text).unwrap()).unwrap_err();
    let name = |name: &str| Step::Name(name.to_owned());
    let secret = "inner: [{flag: 'cbat_blue, expected cbat_blue'}]";
    let flag = vec![name("inner"), Step::Item(0), name("flag")];
    assert_eq!(misfit(secret), (flag, Misfit::Expected("a boolean".to_owned())));
    assert_eq!(misfit("inner: []\nouter: 1"), (vec![name("outer")], Misfit::UnknownName));
    let item = vec![name("inner"), Step::Item(0)];
    assert_eq!(misfit("inner: [{}]"), (item, Misfit::Missing("flag".to_owned())));
}

#[test]
fn no_fault_repeats_what_the_file_says() {
    for text in [
        "k: !!int cbat_blue",
        "k: 'cbat_blue",
        "cbat_blue: 1\ncbat_blue: 2",
        "[cbat_blue]: 1",
        "- cbat_blue: *cbat_blue",
    ] {
        let refusals = refusals(text);
        assert!(!refusals.is_empty() && !format!("{refusals:?}").contains("blue"), "{refusals:?}");
    }
}
