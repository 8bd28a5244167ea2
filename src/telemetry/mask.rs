//! Stand-in for `crate::wire::mask`, to be replaced by it: every `cbat_` keeps its place and loses its tail.

use std::borrow::Cow;

use memchr::memmem;

use crate::secret::{KEY_PREFIX, is_key_byte};

/// The text with an asterisk for every character of a key behind `cbat_`.
pub(super) fn text(text: &str) -> Cow<'_, str> {
    let Some(first) = memmem::find(text.as_bytes(), KEY_PREFIX.as_bytes()) else { return Cow::Borrowed(text) };
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    let mut next = Some(first);
    while let Some(start) = next {
        let (before, tail) = rest.split_at(start + KEY_PREFIX.len());
        masked.push_str(before);
        let length = tail.bytes().take_while(|byte| is_key_byte(*byte)).count();
        masked.extend(std::iter::repeat_n('*', length));
        rest = &tail[length..];
        next = memmem::find(rest.as_bytes(), KEY_PREFIX.as_bytes());
    }
    masked.push_str(rest);
    Cow::Owned(masked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_loses_its_tail() {
        assert_eq!(text("nothing here"), "nothing here");
        assert_eq!(text("a cbat_Ab0-._~! cbat_x, cbat_"), "a cbat_*******! cbat_*, cbat_");
        assert_eq!(text("cbat_cbat_x"), "cbat_******");
    }
}
