//! Secrets of one run: what scenes give a process to keep, and the harness looks for in all that it emits.
//!
//! In: what the secret is. Out: 32 letters and digits that follow from it and from the run's seed: another secret for each
//! thing and in each run, so none is found because somebody wrote it down, and the same ones again with `CANARY_SEED` set
//! to the number that a failure names. Keys, codes and states are made up by whoever issues them, anew each time.

use std::sync::LazyLock;

use ring::digest::{SHA256, digest};

static SEED: LazyLock<u64> = LazyLock::new(|| {
    let told = std::env::var("CANARY_SEED").ok().map(|seed| seed.parse().expect("CANARY_SEED: a number"));
    told.unwrap_or_else(|| {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).unwrap();
        u64::from_ne_bytes(bytes)
    })
});

/// The run's seed.
pub fn seed() -> u64 {
    *SEED
}

/// The secret of this run that is called so.
pub fn canary(name: &str) -> &'static str {
    made_of(seed(), name).leak()
}

fn made_of(seed: u64, name: &str) -> String {
    const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let byte = |number: u32| digest(&SHA256, format!("{seed}/{number}/{name}").as_bytes()).as_ref()[0];
    // 248 is the largest multiple of 62 in a byte.
    let even = (0..).map(byte).filter(|byte| *byte < 248);
    even.take(32).map(|byte| char::from(LETTERS[usize::from(byte) % LETTERS.len()])).collect()
}

#[test]
fn a_canary_is_the_same_for_one_seed_and_name_and_another_for_any_other() {
    assert_eq!(made_of(7, "a token"), made_of(7, "a token"));
    assert_ne!(made_of(7, "a token"), made_of(8, "a token"));
    assert_ne!(made_of(7, "a token"), made_of(7, "another token"));
    assert_eq!((canary("a token"), canary("a token").len()), (canary("a token"), 32));
}
