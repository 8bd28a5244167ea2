//! The form of a client's frames (RFC 9113 4 and 6): what can be said of each alone, whatever came before it.

use crate::harness::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE,
};

/// The bytes of a frame where a server says nothing of it.
const FRAME: usize = 16_384;

/// What a client must do.
pub(super) fn must(so: bool, rule: &str) -> Result<(), String> {
    if so { Ok(()) } else { Err(format!("a client must keep to RFC 9113: {rule}")) }
}

/// Checks one frame.
pub(super) fn check(frame: &Frame) -> Result<(), String> {
    let Frame { kind, flags, stream, payload } = frame;
    must(payload.len() <= FRAME, "4.2, a frame of at most 16,384 bytes")?;
    must(*stream < 1 << 31, "4.1, the reserved bit is unset")?;
    // Padding and priority would be allowed; this client has no use for them.
    let (known_flags, of_the_connection) = match *kind {
        DATA => (END_STREAM, false),
        HEADERS => (END_STREAM | END_HEADERS, false),
        CONTINUATION => (END_HEADERS, false),
        SETTINGS | PING => (ACK, true),
        GOAWAY => (0, true),
        RST_STREAM => (0, false),
        WINDOW_UPDATE => (0, *stream == 0),
        kind => return Err(format!("no client has to send a frame of type {kind}")),
    };
    must(flags & !known_flags == 0, "4.1, no flag without a meaning")?;
    let rightly = if of_the_connection { *stream == 0 } else { stream % 2 == 1 };
    must(rightly, "5.1.1, a frame belongs to a client's stream, or to the connection")?;
    match *kind {
        RST_STREAM => must(payload.len() == 4, "6.4, four bytes"),
        SETTINGS if flags & ACK != 0 => must(payload.is_empty(), "6.5, an acknowledgement is empty"),
        SETTINGS => settings(payload),
        PING => must(payload.len() == 8, "6.7, eight bytes"),
        GOAWAY => must(payload.len() >= 8, "6.8, eight bytes at least"),
        WINDOW_UPDATE => {
            let increment = payload.len() == 4 && *payload != [0; 4] && payload[0] < 128;
            must(increment, "6.9, an increment of 1 to 2^31-1")
        }
        _ => Ok(()),
    }
}

fn settings(payload: &[u8]) -> Result<(), String> {
    must(payload.len().is_multiple_of(6), "6.5, six bytes for each setting")?;
    for setting in payload.chunks(6) {
        let value = u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]);
        let allowed = match setting[1] {
            2 => value == 0,
            4 => (65_535..1 << 31).contains(&value),
            5 => (16_384..1 << 24).contains(&value),
            _ => true,
        };
        must(setting[0] == 0 && allowed, "6.5.2, each in its range; and a promise of ours: no push, no small windows")?;
    }
    Ok(())
}
