//! HPACK of an answer, read (RFC 7541). Nothing is kept between heads: a caller that reads with this allows a table of
//! no bytes, and what refers to more than the static table is a failure.

/// Appendix A, from the first entry on.
const STATIC: &str = ":authority|:method GET|:method POST|:path /|:path /index.html|:scheme http|:scheme https|:status 200|\
    :status 204|:status 206|:status 304|:status 400|:status 404|:status 500|accept-charset|accept-encoding gzip, deflate|\
    accept-language|accept-ranges|accept|access-control-allow-origin|age|allow|authorization|cache-control|\
    content-disposition|content-encoding|content-language|content-length|content-location|content-range|content-type|\
    cookie|date|etag|expect|expires|from|host|if-match|if-modified-since|if-none-match|if-range|if-unmodified-since|\
    last-modified|link|location|max-forwards|proxy-authenticate|proxy-authorization|range|referer|refresh|retry-after|\
    server|set-cookie|strict-transport-security|transfer-encoding|user-agent|vary|via|www-authenticate";

/// Appendix B: the code is canonical, so the symbols of each length in order are all there is to it. Those beyond ASCII
/// are left out.
const CODE: [(u32, &[u8]); 11] = [
    (5, b"012aceiost"),
    (6, b" %-./3456789=A_bdfghlmnpru"),
    (7, b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, b"&*,;XZ"),
    (10, b"!\"()?"),
    (11, b"'+|"),
    (12, b"#>"),
    (13, b"\0$@[]~"),
    (14, b"^}"),
    (15, b"<`{"),
    (19, b"\\"),
];

/// The fields of a head.
pub fn fields(mut block: &[u8]) -> Vec<(String, String)> {
    let mut list = Vec::new();
    while let Some(&first) = block.first() {
        let (prefix, update) = match first {
            0x80.. => (7, false),
            0x40.. => (6, false),
            0x20.. => (5, true),
            _ => (4, false),
        };
        let index = integer(&mut block, prefix);
        if update {
            assert!(list.is_empty() && index == 0, "a table of no bytes was allowed, at the beginning");
            continue;
        }
        if first & 0x80 != 0 {
            list.push(entry(index));
            continue;
        }
        let name = if index == 0 { text(&mut block) } else { entry(index).0 };
        list.push((name, text(&mut block)));
    }
    list
}

fn entry(index: usize) -> (String, String) {
    let entry = STATIC.split('|').nth(index.checked_sub(1).expect("an index from one on")).expect("a static entry");
    let (name, value) = entry.split_once(' ').unwrap_or((entry, ""));
    (name.to_owned(), value.to_owned())
}

/// Section 5.1.
fn integer(block: &mut &[u8], prefix: u32) -> usize {
    let most = (1 << prefix) - 1;
    let mut value = usize::from(byte(block)) & most;
    let mut shift = 0;
    while value >= most {
        let next = byte(block);
        value += usize::from(next & 0x7f) << shift;
        if next & 0x80 == 0 {
            break;
        }
        shift += 7;
    }
    value
}

/// Section 5.2.
fn text(block: &mut &[u8]) -> String {
    let coded = block.first().is_some_and(|first| first & 0x80 != 0);
    let length = integer(block, 7);
    let (bytes, rest) = block.split_at(length);
    *block = rest;
    let bytes = if coded { decoded(bytes) } else { bytes.to_vec() };
    String::from_utf8(bytes).expect("text")
}

fn decoded(bytes: &[u8]) -> Vec<u8> {
    let (mut out, mut code, mut length) = (Vec::new(), 0_u32, 0);
    for bit in bytes.iter().flat_map(|byte| (0..8).rev().map(move |at| u32::from(byte >> at & 1))) {
        (code, length) = (code << 1 | bit, length + 1);
        if let Some(symbol) = symbol(code, length) {
            out.push(symbol);
            (code, length) = (0, 0);
        }
    }
    assert!(length < 8 && code == (1 << length) - 1, "the padding is less than a byte of ones, or it is no ASCII");
    out
}

fn symbol(code: u32, length: u32) -> Option<u8> {
    let (mut first, mut before) = (0, 0);
    for (long, symbols) in CODE {
        first <<= long - before;
        before = long;
        if long == length {
            return symbols.get(code.checked_sub(first)? as usize).copied();
        }
        first += symbols.len() as u32;
    }
    None
}

fn byte(block: &mut &[u8]) -> u8 {
    let (first, rest) = block.split_first().expect("a whole block");
    *block = rest;
    *first
}

#[test]
fn the_examples_of_the_rfc_are_read() {
    // RFC 7541 C.6.1, with the names of the static table and values in Huffman's code.
    let block =
        "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3";
    let block: Vec<u8> =
        (0..block.len()).step_by(2).map(|at| u8::from_str_radix(&block[at..at + 2], 16).unwrap()).collect();
    let list = fields(&block);
    let expected = [
        (":status", "302"),
        ("cache-control", "private"),
        ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
        ("location", "https://www.example.com"),
    ];
    assert_eq!(list, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(fields(&[0x20, 0x88]), [(":status".to_owned(), "200".to_owned())]);
}
