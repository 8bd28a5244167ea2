//! The part of `cargo bench --bench instructions` that decides: what passes, what fails, and what is said of it.

#![allow(clippy::unwrap_used, reason = "a test may end itself")]
#![allow(missing_docs, reason = "the tests' names are their documentation")]

#[path = "../benches/instructions/expected.rs"]
mod expected;

use expected::{Figures, judge, made_by, parse, text};

fn figures(stages: &[(&str, u64)]) -> Figures {
    stages.iter().map(|(stage, count)| ((*stage).to_owned(), *count)).collect()
}

/// Whether it passes when `rewrite` went from 1,000 to `counted`, and what is said behind the table.
fn judged(counted: u64) -> (bool, String) {
    let before = figures(&[("identify", 500), ("rewrite", 1_000)]);
    let judgement = judge(&before, &figures(&[("identify", 500), ("rewrite", counted)]));
    let said = judgement.text.split("\n\n").skip(1).collect::<Vec<_>>().join("\n");
    (judgement.passes, said)
}

#[test]
fn six_per_cent_more_fails_and_the_stage_is_named() {
    let (passes, said) = judged(1_060);
    assert!(!passes);
    assert!(said.contains("up") && said.contains("rewrite") && !said.contains("identify"), "{said}");
    assert!(said.contains("scripts/instructions --update"), "{said}");
}

#[test]
fn four_per_cent_more_or_less_passes_without_a_word() {
    for counted in [960, 1_000, 1_040, 1_050] {
        assert_eq!(judged(counted), (true, String::new()), "{counted}");
    }
    assert!(!judged(1_051).0);
}

#[test]
fn six_per_cent_less_passes_and_asks_for_a_lower_figure() {
    let (passes, said) = judged(940);
    assert!(passes);
    assert!(said.contains("down: rewrite.") && said.contains("--update"), "{said}");
}

#[test]
fn a_stage_that_only_one_side_knows_fails() {
    let (one, two) = (figures(&[("identify", 500)]), figures(&[("identify", 500), ("rewrite", 1_000)]));
    for (before, now) in [(&one, &two), (&two, &one)] {
        let judgement = judge(before, now);
        assert!(!judgement.passes);
        assert!(judgement.text.contains("only on one side: rewrite."), "{}", judgement.text);
    }
}

#[test]
fn what_is_written_is_what_is_read() {
    let before = figures(&[("identify", 500), ("mask::clean_1k", 614)]);
    let file = text(&before, "x86_64, by hand");
    assert_eq!(parse(&file).as_ref(), Ok(&before));
    assert_eq!(made_by(&file), "x86_64, by hand");
    for (file, line) in [("identify 500\n", 1), ("# x\nidentify\t5x\n", 2), ("a\t1\na\t1\n", 2)] {
        assert!(parse(file).is_err_and(|why| why.starts_with(&format!("line {line} "))), "{file}");
    }
}

#[test]
fn the_committed_figures_can_be_read() {
    let file = include_str!("../benches/instructions/expected.tsv");
    let figures = parse(file).unwrap();
    assert!(figures.len() > 15 && figures.values().all(|count| *count > 0));
    assert_ne!(made_by(file), made_by(""));
}
