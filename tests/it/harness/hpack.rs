//! HPACK (RFC 7541), read by the plain decoder that fuzzing compares h2's with.

#[path = "../../../src/proxy/fuzzing/http2/hpack.rs"]
mod plain;

/// One direction of a connection whose reader said nothing of its table's size.
pub struct Decoder(plain::Decoder);

impl Decoder {
    pub fn new() -> Self {
        Self(plain::Decoder::new())
    }

    /// The fields of a block; nothing where it is none, and then no later one can be read either.
    pub fn decode(&mut self, block: &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
        self.0.decode(block)
    }
}

/// The fields of a head for a reader that allows a table of no bytes, so that no head depends on another.
pub fn fields(block: &[u8]) -> Vec<(String, String)> {
    let list = plain::Decoder::with_table(0).decode(block).expect("HPACK that needs no table");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    list.into_iter().map(|(name, value)| (text(name), text(value))).collect()
}
