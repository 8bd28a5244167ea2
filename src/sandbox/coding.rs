//! Content codings, for answers that the proxy has to look into.
//!
//! In: a body and a coding's name. Out: the coded body. In none of them does `cbat_` stand in plain sight: a proxy that
//! finds the key must have decoded it.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

/// The `Content-Encoding` and the coded bytes; `None` for a coding that is not known here.
pub(super) fn encode(coding: &str, plain: &[u8]) -> Option<(&'static str, Vec<u8>)> {
    // Writing to a Vec cannot fail, so an error would be a fault of the encoder: answered like an unknown coding.
    Some(match coding {
        "identity" => ("identity", plain.to_vec()),
        "gzip" => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(plain).ok()?;
            ("gzip", encoder.finish().ok()?)
        }
        // RFC 9110 8.4.1.2 means the zlib format …
        "deflate" => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(plain).ok()?;
            ("deflate", encoder.finish().ok()?)
        }
        // … but servers that send the bare stream under that name exist, and clients cope.
        "raw-deflate" => {
            let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(plain).ok()?;
            ("deflate", encoder.finish().ok()?)
        }
        "zstd" => ("zstd", compress_to_vec(plain, CompressionLevel::Fastest)),
        "br" => ("br", brotli(plain)),
        _ => return None,
    })
}

/// Brotli of uncompressed meta-blocks (RFC 7932 9.2): the format without an encoder's 3 MiB of tables.
fn brotli(plain: &[u8]) -> Vec<u8> {
    // Shorter than `cbat_`, so that the prefix never stands in one piece.
    const BLOCK: usize = 4;
    let mut coded = Vec::with_capacity(plain.len() * 2);
    // WBITS: the four bits 1 and 101 (least significant first) say a window of 2^22.
    let (mut bits, mut used) = (0b1011_u64, 4_usize);
    for block in plain.chunks(BLOCK) {
        // ISLAST 0; MNIBBLES 00, which is four; MLEN - 1 in 16 bits; ISUNCOMPRESSED 1.
        let header = ((block.len() as u64 - 1) << 3) | (1 << 19);
        bits |= header << used;
        used += 20;
        // The content starts at a byte boundary, so the bits before it are padded.
        coded.extend_from_slice(&bits.to_le_bytes()[..usize::div_ceil(used, 8)]);
        coded.extend_from_slice(block);
        (bits, used) = (0, 0);
    }
    // ISLAST 1, ISLASTEMPTY 1.
    bits |= 0b11 << used;
    coded.extend_from_slice(&bits.to_le_bytes()[..usize::div_ceil(used + 2, 8)]);
    coded
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn every_coding_decodes_to_what_went_in_and_hides_a_key() {
        let noise: String = (0..5000_u32).map(|n| format!("{:x}", n.wrapping_mul(2_654_435_761))).collect();
        for plain in ["", "x", "Bearer cbat_Ab0123456789", &format!("{noise}cbat_Ab0123456789{noise}")] {
            let plain = plain.as_bytes();
            for coding in ["gzip", "deflate", "raw-deflate", "zstd", "br"] {
                let (name, coded) = encode(coding, plain).unwrap();
                let mut decoded = Vec::new();
                match coding {
                    "gzip" => flate2::read::GzDecoder::new(&*coded).read_to_end(&mut decoded),
                    "deflate" => flate2::read::ZlibDecoder::new(&*coded).read_to_end(&mut decoded),
                    "raw-deflate" => flate2::read::DeflateDecoder::new(&*coded).read_to_end(&mut decoded),
                    "zstd" => ruzstd::decoding::StreamingDecoder::new(&*coded).unwrap().read_to_end(&mut decoded),
                    _ => brotli_decompressor::Decompressor::new(&*coded, 4096).read_to_end(&mut decoded),
                }
                .unwrap();
                assert!(decoded == plain, "{name} of {} bytes", plain.len());
                assert!(memchr::memmem::find(&coded, b"cbat_").is_none() || plain.len() < 100, "{name}");
            }
        }
        assert!(encode("compress", b"").is_none());
    }
}
