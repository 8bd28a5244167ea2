//! The chunked coding, followed byte by byte so that the end of a message is known.
//!
//! In: body bytes as they arrive, cut anywhere. Out: the data in them, and whether the message is complete. Strict where
//! decoders differ: CRLF only, no more than 16 hex digits, no control bytes in extensions. It never changes a byte.

use bytes::{Buf, Bytes, BytesMut};

use super::head::is_token;

/// Bytes of chunk extensions accepted in one message: they are allowed and ignored (RFC 9112 7.1.1), but a flood of
/// them is an attack.
const EXTENSION_MAX: u32 = 1024;

/// The longest trailer section accepted, in bytes. Trailers are dropped, not forwarded.
const TRAILER_MAX: u32 = 8 * 1024;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum At {
    Size {
        digits: u8,
    },
    /// White space behind a size, which only an extension may follow.
    SizeSpace,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// At the start of a trailer line.
    TrailerStart,
    TrailerName,
    Trailer,
    TrailerLf,
    EndLf,
    Done,
}

/// Where in a chunked body the stream is.
#[derive(Debug)]
pub struct Chunks {
    at: At,
    /// Bytes left of the current chunk, or its size while the digits are read.
    left: u64,
    /// Bytes of extension or trailer seen.
    extra: u32,
}

/// The bytes are not a chunked body.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("malformed chunked body")]
pub struct Malformed;

impl Chunks {
    /// At the start of a body.
    #[must_use]
    pub fn new() -> Self {
        Self { at: At::Size { digits: 0 }, left: 0, extra: 0 }
    }

    /// Whether the last byte of the message has been seen.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.at == At::Done
    }

    /// Takes the next data out of `input`, with the framing on both sides of it, so that the end is known with the last of
    /// it; nothing when more bytes must come first, or the message is complete. What follows the message stays.
    ///
    /// # Errors
    /// [`Malformed`] at the first byte that a strict decoder would not expect, once all data before it has been taken.
    pub fn take(&mut self, input: &mut BytesMut) -> Result<Option<Bytes>, Malformed> {
        self.skip_framing(input)?;
        if self.at != At::Data || input.is_empty() {
            return Ok(None);
        }
        let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(input.len());
        let data = input.split_to(count).freeze();
        self.left -= count as u64;
        if self.left == 0 {
            self.at = At::DataCr;
            // What is wrong behind the data is found again by the next call.
            let _ = self.skip_framing(input);
        }
        Ok(Some(data))
    }

    fn skip_framing(&mut self, input: &mut BytesMut) -> Result<(), Malformed> {
        let mut skipped = 0;
        let mut outcome = Ok(());
        while let Some(byte) = input.get(skipped).filter(|_| !matches!(self.at, At::Data | At::Done)) {
            match self.step(*byte) {
                Ok(at) => self.at = at,
                Err(malformed) => {
                    outcome = Err(malformed);
                    break;
                }
            }
            skipped += 1;
        }
        input.advance(skipped);
        outcome
    }

    #[inline(always)]
    fn step(&mut self, byte: u8) -> Result<At, Malformed> {
        Ok(match (self.at, byte) {
            (At::Size { digits }, byte) if byte.is_ascii_hexdigit() && digits < 16 => {
                let digit = (byte as char).to_digit(16).ok_or(Malformed)?;
                self.left = (self.left << 4) | u64::from(digit);
                At::Size { digits: digits + 1 }
            }
            (At::Size { digits: 1.. }, b'\r') => At::SizeLf,
            (At::Size { digits: 1.. }, b';') => At::Extension,
            // RFC 9112 7.1.1 and 9110 5.6.3: bad white space before an extension is read over.
            (At::Size { digits: 1.. } | At::SizeSpace, b' ' | b'\t') => {
                self.extra = self.count(EXTENSION_MAX)?;
                At::SizeSpace
            }
            (At::SizeSpace, b';') => At::Extension,
            (At::Extension, b'\r') => At::SizeLf,
            (At::Extension, byte) if byte == b'\t' || (byte >= b' ' && byte != 0x7f) => {
                self.extra = self.count(EXTENSION_MAX)?;
                At::Extension
            }
            (At::SizeLf, b'\n') if self.left == 0 => {
                self.extra = 0;
                At::TrailerStart
            }
            (At::SizeLf, b'\n') => At::Data,
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => At::Size { digits: 0 },
            (At::TrailerStart, b'\r') => At::EndLf,
            (At::EndLf, b'\n') => At::Done,
            // A trailer that is folded, or has no name or no colon, is refused like a header.
            (At::TrailerStart | At::TrailerName, byte) if is_token(byte) => {
                self.extra = self.count(TRAILER_MAX)?;
                At::TrailerName
            }
            (At::TrailerName, b':') => At::Trailer,
            (At::Trailer, b'\r') => At::TrailerLf,
            (At::TrailerLf, b'\n') => {
                self.extra = self.count(TRAILER_MAX)?;
                At::TrailerStart
            }
            (At::Trailer, byte) if byte == b'\t' || (byte >= b' ' && byte != 0x7f) => {
                self.extra = self.count(TRAILER_MAX)?;
                At::Trailer
            }
            _ => return Err(Malformed),
        })
    }

    fn count(&self, max: u32) -> Result<u32, Malformed> {
        if self.extra < max { Ok(self.extra + 1) } else { Err(Malformed) }
    }
}

impl Default for Chunks {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many bytes belong to the message, and whether it is complete.
    fn whole(body: &str) -> Result<(usize, bool), Malformed> {
        let (end, _, left) = decoded(body, body.len());
        // The same answer must come when every byte arrives alone.
        let (end_of_single, _, left_of_single) = decoded(body, 1);
        assert_eq!(end.is_err(), end_of_single.is_err());
        let (end, end_of_single) = (end?, end_of_single?);
        assert_eq!((end, left), (end_of_single, left_of_single));
        Ok((body.len() - left, end))
    }

    /// The data of a body that arrives in pieces of `size`, and what is left behind it.
    fn decoded(body: &str, size: usize) -> (Result<bool, Malformed>, String, usize) {
        let (mut chunks, mut input, mut data) = (Chunks::new(), BytesMut::new(), Vec::new());
        for piece in body.as_bytes().chunks(size) {
            input.extend_from_slice(piece);
            loop {
                match chunks.take(&mut input) {
                    Ok(Some(taken)) => data.extend_from_slice(&taken),
                    Ok(None) => break,
                    Err(malformed) => return (Err(malformed), String::from_utf8(data).unwrap(), input.len()),
                }
            }
        }
        (Ok(chunks.is_done()), String::from_utf8(data).unwrap(), input.len())
    }

    #[test]
    fn data_comes_out_the_same_however_it_is_cut_and_nothing_behind_it_is_taken() {
        let body = "5\r\nhello\r\n1;x=y\r\n \r\n00005\r\nworld\r\n0\r\nX-T: y\r\n\r\nHTTP";
        for size in 1..=body.len() {
            assert_eq!(decoded(body, size), (Ok(true), "hello world".to_owned(), 4), "in pieces of {size}");
        }
        assert_eq!(decoded("5\r\nhel", 100), (Ok(false), "hel".to_owned(), 0));
        assert_eq!(decoded("5\r\nhello!\n", 100), (Err(Malformed), "hello".to_owned(), 2), "after all data before it");
    }

    #[test]
    fn the_end_is_known_with_the_last_data_where_it_has_come() {
        let (mut chunks, mut input) = (Chunks::new(), BytesMut::from("2\r\nok\r\n0\r\n\r\n"));
        assert_eq!(chunks.take(&mut input), Ok(Some(Bytes::from_static(b"ok"))));
        assert!(chunks.is_done() && input.is_empty());
    }

    #[test]
    fn the_end_of_a_message_is_found_and_not_passed() {
        assert_eq!(whole("0\r\n\r\nGET /"), Ok((5, true)));
        assert_eq!(whole("5\r\nhello\r\n00\r\n\r\n"), Ok((16, true)));
        assert_eq!(whole("A;name=\"v\"\r\n0123456789\r\n0\r\nX-T: y\r\n\r\n?"), Ok((37, true)));
        assert_eq!(whole("5\r\nhel"), Ok((6, false)));
        assert_eq!(whole("5 \t;a\r\nhello\r\n0\r\n\r\n"), Ok((19, true)));
    }

    #[test]
    fn what_decoders_read_differently_is_malformed() {
        for body in [
            "\r\n",
            "5\nhello",
            "0x5\r\n",
            "-1\r\n",
            "g\r\n",
            "5\r\nhello0\r\n",
            "5\r\nhello\n0\r\n",
            "00000000000000005\r\n",
            "5;\0\r\n",
            "5 \r\nhello",
            "5 5;a\r\nhello",
            "0\r\n folded\r\n\r\n",
            "0\r\nno colon\r\n\r\n",
            "0\r\nX : y\r\n\r\n",
            "0\r\n: y\r\n\r\n",
            "0\r\nX: y\n\r\n",
            "0\r\n\n",
            ";a\r\n",
        ] {
            assert_eq!(whole(body), Err(Malformed), "{body:?}");
        }
        assert_eq!(whole(&format!("1;{}\r\n", "a".repeat(2000))), Err(Malformed));
        assert_eq!(whole(&format!("0\r\n{}\r\n", "X: yes\r\n".repeat(2000))), Err(Malformed));
    }
}
