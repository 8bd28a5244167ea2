//! Frames of HTTP/2 (RFC 9113 4 and 6).
//!
//! In: the nine bytes before every frame. Out: what it is and how long; and the same to be written. What a frame means is
//! decided by whoever has the connection.

/// The bytes before a frame's payload.
pub const HEAD: usize = 9;

/// The longest payload that whoever has said nothing takes, in bytes (RFC 9113 6.5.2).
pub const PAYLOAD_MAX: usize = 16_384;

/// The largest flow-control window, in bytes (RFC 9113 6.9.1), and the one everything begins with.
pub const WINDOW_MAX: i64 = (1 << 31) - 1;
/// See [`WINDOW_MAX`].
pub const FIRST_WINDOW: i64 = 65_535;

/// What a client says first (RFC 9113 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a frame is.
pub mod kind {
    #![allow(missing_docs, reason = "the names are the RFC's")]
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// What else a frame says.
pub mod flag {
    #![allow(missing_docs, reason = "the names are the RFC's")]
    pub const ACK: u8 = 1;
    pub const END_STREAM: u8 = 1;
    pub const END_HEADERS: u8 = 4;
    pub const PADDED: u8 = 8;
    pub const PRIORITY: u8 = 0x20;
}

/// What is set (RFC 9113 6.5.2).
pub mod setting {
    #![allow(missing_docs, reason = "the names are the RFC's")]
    pub const ENABLE_PUSH: u16 = 2;
    pub const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub const INITIAL_WINDOW_SIZE: u16 = 4;
    pub const MAX_FRAME_SIZE: u16 = 5;
    pub const MAX_HEADER_LIST_SIZE: u16 = 6;
}

/// The beginning of a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Head {
    /// Of the payload, in bytes.
    pub length: usize,
    /// See [`kind`].
    pub kind: u8,
    /// See [`flag`].
    pub flags: u8,
    /// The stream it belongs to; 0 is the connection.
    pub stream: u32,
}

impl Head {
    /// Reads one; nothing while it is not all there.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let [a, b, c, kind, flags, stream @ ..] = bytes.first_chunk::<HEAD>()?;
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        Some(Self { length, kind: *kind, flags: *flags, stream: number(stream) & !(1 << 31) })
    }

    /// Whether all of these flags are set.
    #[must_use]
    pub fn has(self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    /// Its nine bytes. No frame that is written is longer than 2^24 - 1.
    #[must_use]
    pub fn bytes(self) -> [u8; HEAD] {
        let [_, a, b, c] = u32::try_from(self.length).unwrap_or(u32::MAX).to_be_bytes();
        let [d, e, f, g] = self.stream.to_be_bytes();
        [a, b, c, self.kind, self.flags, d, e, f, g]
    }
}

/// Four bytes as a number.
#[must_use]
pub fn number(bytes: &[u8; 4]) -> u32 {
    u32::from_be_bytes(*bytes)
}

/// The payload without its padding (RFC 9113 6.1); nothing where there is more padding than payload.
#[must_use]
pub fn unpadded(flags: u8, payload: &[u8]) -> Option<&[u8]> {
    if flags & flag::PADDED == 0 {
        return Some(payload);
    }
    let (padding, rest) = payload.split_first()?;
    rest.get(..rest.len().checked_sub(usize::from(*padding))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_is_written_and_the_reserved_bit_means_nothing() {
        let head = Head { length: 0x01_02_03, kind: kind::PING, flags: flag::ACK, stream: 0x7f_ff_ff_fe };
        let mut bytes = head.bytes();
        assert_eq!(bytes, [1, 2, 3, 6, 1, 0x7f, 0xff, 0xff, 0xfe]);
        assert_eq!(Head::read(&bytes), Some(head));
        assert_eq!(Head::read(&bytes[..8]), None);
        bytes[5] |= 0x80;
        assert_eq!(Head::read(&bytes), Some(head));
    }

    #[test]
    fn padding_is_taken_off_where_there_is_no_more_of_it_than_there_can_be() {
        assert_eq!(unpadded(0, b"\x09data"), Some(&b"\x09data"[..]));
        assert_eq!(unpadded(flag::PADDED, b"\x02data.."), Some(&b"data"[..]));
        assert_eq!(unpadded(flag::PADDED, b"\x02.."), Some(&b""[..]));
        assert_eq!(unpadded(flag::PADDED, b"\x03.."), None);
        assert_eq!(unpadded(flag::PADDED, b""), None);
    }
}
