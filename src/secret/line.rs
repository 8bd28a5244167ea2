//! A key's text in memory of its own.
//!
//! In: a key. Out: the header it is sent in, as [`Bytes`] that every clone shares and that are wiped when the last of them
//! is dropped. No other copy is left behind on the way there.

use bytes::Bytes;
use zeroize::{Zeroize as _, Zeroizing};

/// What a key stands behind in its header.
pub(super) const SCHEME: &str = "Bearer ";

/// The header of a token.
pub(super) fn of(token: &str) -> Bytes {
    if SCHEME.len() + token.len() > Line::ROOM {
        // As long as it has to be from the start: memory that grows or shrinks may leave a copy behind.
        let line = [SCHEME.as_bytes(), token.as_bytes()].concat().into_boxed_slice();
        return Bytes::from_owner(Zeroizing::new(line));
    }
    let line = Line::of(token);
    // On its way into its place it was moved, which leaves copies on the stack: the same call writes over them.
    drop(Line::of(std::hint::black_box("")));
    line
}

/// The header of a key that is not longer than those of the vendor.
///
/// With the count of its holders it fills 56 bytes, one allocation where the text alone would be one as large.
struct Line {
    text: [u8; Self::ROOM],
    length: u8,
}

impl Line {
    /// Keys of the vendor need 44.
    const ROOM: usize = 47;

    #[inline(never)]
    fn of(token: &str) -> Bytes {
        let (mut line, mut length) = (Self { text: [0; Self::ROOM], length: 0 }, 0);
        for (place, byte) in line.text.iter_mut().zip(SCHEME.bytes().chain(token.bytes())) {
            *place = byte;
            length += 1;
        }
        line.length = length;
        Bytes::from_owner(line)
    }
}

impl AsRef<[u8]> for Line {
    fn as_ref(&self) -> &[u8] {
        self.text.get(..usize::from(self.length)).unwrap_or_default()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.text.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_there_whatever_its_length() {
        for length in [0, 1, 37, 40, 41, 42, 512] {
            let token = "a".repeat(length);
            assert_eq!(of(&token), format!("Bearer {token}").as_bytes());
        }
        // With the count of its holders.
        assert_eq!(size_of::<Line>() + size_of::<usize>(), 56);
    }
}
