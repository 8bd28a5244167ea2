//! The Huffman code of HPACK (RFC 7541 5.2 and appendix B).
//!
//! In: coded bytes. Out: what they stand for; nothing where they are no such code. It is only read: what we send is short,
//! leaves with many others at once, and costs less plain.

/// How many codes there are of each length, in bits.
const COUNTS: [u16; 31] =
    [0, 0, 0, 0, 0, 10, 26, 32, 6, 0, 5, 3, 2, 6, 2, 3, 0, 0, 0, 3, 8, 13, 26, 29, 12, 4, 15, 19, 29, 0, 4];

/// What they stand for, by their codes: the code is canonical. The last of them, the end mark, is no byte.
#[rustfmt::skip]
static BYTES: [u8; 256] = [
    48, 49, 50, 97, 99, 101, 105, 111, 115, 116, 32, 37, 45, 46, 47, 51, 52, 53, 54, 55, 56, 57, 61, 65, 95, 98, 100,
    102, 103, 104, 108, 109, 110, 112, 114, 117, 58, 66, 67, 68, 69, 70, 71, 72, 73, 74, 75, 76, 77, 78, 79, 80, 81, 82,
    83, 84, 85, 86, 87, 89, 106, 107, 113, 118, 119, 120, 121, 122, 38, 42, 44, 59, 88, 90, 33, 34, 40, 41, 63, 39, 43,
    124, 35, 62, 0, 36, 64, 91, 93, 126, 94, 125, 60, 96, 123, 92, 195, 208, 128, 130, 131, 162, 184, 194, 224, 226,
    153, 161, 167, 172, 176, 177, 179, 209, 216, 217, 227, 229, 230, 129, 132, 133, 134, 136, 146, 154, 156, 160, 163,
    164, 169, 170, 173, 178, 181, 185, 186, 187, 189, 190, 196, 198, 228, 232, 233, 1, 135, 137, 138, 139, 140, 141, 143,
    147, 149, 150, 151, 152, 155, 157, 158, 165, 166, 168, 174, 175, 180, 182, 183, 188, 191, 197, 231, 239, 9, 142, 144,
    145, 148, 159, 171, 206, 215, 225, 236, 237, 199, 207, 234, 235, 192, 193, 200, 201, 202, 205, 210, 213, 218, 219,
    238, 240, 242, 243, 255, 203, 204, 211, 212, 214, 221, 222, 223, 241, 244, 245, 246, 247, 248, 250, 251, 252, 253,
    254, 2, 3, 4, 5, 6, 7, 8, 11, 12, 14, 15, 16, 17, 18, 19, 20, 21, 23, 24, 25, 26, 27, 28, 29, 30, 31, 127, 220, 249,
    10, 13, 22,
];

/// The codes of one length: what lies behind the last of them, and the first, both as the first 32 bits of a text; and how
/// many are shorter.
#[derive(Clone, Copy)]
struct Length {
    behind: u64,
    first: u64,
    shorter: usize,
}

static LENGTHS: [Length; 31] = {
    let mut lengths = [Length { behind: 0, first: 0, shorter: 0 }; 31];
    let (mut bits, mut next, mut shorter) = (1, 0, 0);
    while bits < lengths.len() {
        let behind = next + ((COUNTS[bits] as u64) << (32 - bits));
        lengths[bits] = Length { behind, first: next, shorter };
        (next, shorter, bits) = (behind, shorter + COUNTS[bits] as usize, bits + 1);
    }
    lengths
};

/// For each byte that a text may go on with, what its first code stands for and how many bits that has; 0 where it is longer
/// than a byte. Nearly all that is in a head is found here.
static SHORT: [(u8, u8); 256] = {
    let mut short = [(0, 0); 256];
    let mut bits = 5;
    while bits <= 8 {
        let mut code = 0;
        while code < COUNTS[bits] as usize {
            let from = (LENGTHS[bits].first >> 24) as usize + (code << (8 - bits));
            let mut at = from;
            while at < from + (1 << (8 - bits)) {
                short[at] = (BYTES[LENGTHS[bits].shorter + code], bits as u8);
                at += 1;
            }
            code += 1;
        }
        bits += 1;
    }
    short
};

/// Appends what `coded` stands for; false where it is no code: one that is too long, the end mark, or more padding than is
/// needed or other padding than ones.
#[must_use]
pub(super) fn decode(coded: &[u8], out: &mut Vec<u8>) -> bool {
    let mut rest = coded.iter();
    // From the left: bits that have been read and not been used, and how many.
    let (mut text, mut count) = (0_u64, 0_u32);
    loop {
        while count <= 56
            && let Some(byte) = rest.next()
        {
            text |= u64::from(*byte) << (56 - count);
            count += 8;
        }
        let (byte, bits) = SHORT[(text >> 56) as usize];
        if bits > 0 && u32::from(bits) <= count {
            out.push(byte);
            (text, count) = (text << bits, count - u32::from(bits));
            continue;
        }
        let window = text >> 32;
        let long = LENGTHS.iter().enumerate().skip(9).find(|(_, length)| window < length.behind);
        match long {
            Some((bits, length)) if bits as u32 <= count => {
                let at = length.shorter + ((window - length.first) >> (32 - bits)) as usize;
                let Some(byte) = BYTES.get(at) else { return false };
                out.push(*byte);
                (text, count) = (text << bits, count - bits as u32);
            }
            _ => return count < 8 && (count == 0 || text >> (64 - count) == (1 << count) - 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(coded: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        decode(coded, &mut out).then_some(out)
    }

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        // RFC 7541 C.4.1, C.4.3 and C.6.1.
        let known: [(&[u8], &[u8]); 5] = [
            (b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff", b"www.example.com"),
            (b"\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf", b"custom-value"),
            (b"\x64\x02", b"302"),
            (
                b"\xd0\x7a\xbe\x94\x10\x54\xd4\x44\xa8\x20\x05\x95\x04\x0b\x81\x66\xe0\x82\xa6\x2d\x1b\xff",
                b"Mon, 21 Oct 2013 20:13:21 GMT",
            ),
            (b"", b""),
        ];
        for (coded, text) in known {
            assert_eq!(decoded(coded).as_deref(), Some(text));
        }
    }

    #[test]
    fn padding_is_fewer_than_eight_bits_all_of_them_ones_and_the_end_mark_is_nothing() {
        assert_eq!(decoded(b"\x1f"), Some(b"a".to_vec()));
        assert_eq!(decoded(b"\x1e"), None);
        assert_eq!(decoded(b"\x1f\xff"), None);
        assert_eq!(decoded(b"\xff"), None);
        assert_eq!(decoded(b"\xff\xff\xff\xff"), None);
        // A code that is cut off.
        assert_eq!(decoded(b"\xff\xe8"), None);
    }
}
