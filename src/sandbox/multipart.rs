//! Multipart bodies of any size, read in constant memory (RFC 7578, RFC 2046 5.1).
//!
//! In: the body's frames as they come. Out: for each part its names, its length, its checksum and the first bytes of its
//! content. No more than one frame and a delimiter is ever held.

use flate2::Crc;
use memchr::memmem;

/// Form fields are read up to this length; a file's content is not kept beyond it.
const KEPT: usize = 1024;

/// The head of one part, and how many there may be.
const HEAD_MAX: usize = 16 * 1024;
const PARTS_MAX: usize = 1000;

/// One field or file.
#[derive(Default)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) filename: Option<String>,
    pub(super) bytes: u64,
    pub(super) crc: Crc,
    pub(super) start: Vec<u8>,
}

enum At {
    Preamble,
    Delimiter,
    Head,
    Content,
    End,
}

/// A body half read.
pub(super) struct Multipart {
    delimiter: Vec<u8>,
    buffer: Vec<u8>,
    at: At,
    parts: Vec<Part>,
}

/// The body is not what its content type says.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Malformed;

impl Multipart {
    /// By the request's content type; `None` when that is not a form with a boundary.
    pub(super) fn new(content_type: &str) -> Option<Self> {
        let rest = content_type.strip_prefix("multipart/form-data")?;
        let boundary = rest.split(';').find_map(|parameter| parameter.trim().strip_prefix("boundary="))?;
        let boundary = boundary.trim_matches('"');
        // The line break before a delimiter belongs to it. The first one may lack it, so it is supplied.
        let new = |delimiter| Self { delimiter, buffer: b"\r\n".to_vec(), at: At::Preamble, parts: Vec::new() };
        (1..=70).contains(&boundary.len()).then(|| new(format!("\r\n--{boundary}").into_bytes()))
    }

    pub(super) fn push(&mut self, data: &[u8]) -> Result<(), Malformed> {
        self.buffer.extend_from_slice(data);
        while self.step()? {}
        Ok(())
    }

    /// All parts, if the closing delimiter has been seen.
    pub(super) fn finish(self) -> Result<Vec<Part>, Malformed> {
        if matches!(self.at, At::End) { Ok(self.parts) } else { Err(Malformed) }
    }

    /// Whether it got any further with what the buffer holds.
    fn step(&mut self) -> Result<bool, Malformed> {
        match self.at {
            At::Preamble | At::Content => {
                let found = memmem::find(&self.buffer, &self.delimiter);
                // Without one, the last bytes may still be the beginning of one.
                let content = found.unwrap_or_else(|| (self.buffer.len() + 1).saturating_sub(self.delimiter.len()));
                if let (At::Content, Some(part)) = (&self.at, self.parts.last_mut()) {
                    let content = &self.buffer[..content];
                    part.bytes += content.len() as u64;
                    part.crc.update(content);
                    part.start.extend_from_slice(&content[..content.len().min(KEPT - part.start.len())]);
                }
                self.buffer.drain(..content + found.map_or(0, |_| self.delimiter.len()));
                if found.is_some() {
                    self.at = At::Delimiter;
                }
                Ok(found.is_some())
            }
            At::Delimiter if self.buffer.len() < 2 => Ok(false),
            At::Delimiter => {
                self.at = match &self.buffer[..2] {
                    b"--" => At::End,
                    // The line break stays: it makes a part without headers look like any other.
                    b"\r\n" if self.parts.len() < PARTS_MAX => At::Head,
                    _ => return Err(Malformed),
                };
                Ok(true)
            }
            At::Head => match memmem::find(&self.buffer, b"\r\n\r\n") {
                Some(end) => {
                    self.parts.push(head(&self.buffer[..end]));
                    self.buffer.drain(..end + 4);
                    self.at = At::Content;
                    Ok(true)
                }
                None if self.buffer.len() > HEAD_MAX => Err(Malformed),
                None => Ok(false),
            },
            At::End => {
                self.buffer.clear();
                Ok(false)
            }
        }
    }
}

fn head(lines: &[u8]) -> Part {
    let lines = String::from_utf8_lossy(lines);
    let disposition = lines.lines().find(|line| line.to_ascii_lowercase().starts_with("content-disposition:"));
    let parameter = |name: &str| {
        let mut parameters = disposition?.split(';').skip(1);
        let value = parameters.find_map(|parameter| parameter.trim().strip_prefix(name)?.strip_prefix('='))?;
        Some(value.trim_matches('"').to_owned())
    };
    Part { name: parameter("name").unwrap_or_default(), filename: parameter("filename"), ..Part::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = b"--b\r\nContent-Disposition: form-data; name=\"propertyID\"\r\n\r\n1001\r\n--b\r\n\
        content-disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\nContent-Type: text/plain\r\n\r\n\
        one\r\n--not the end\r\n\r\n--b--\r\nepilogue";

    #[test]
    fn parts_come_out_the_same_however_the_body_is_cut() {
        for size in 1..BODY.len() {
            let mut multipart = Multipart::new("multipart/form-data; boundary=\"b\"").unwrap();
            for chunk in BODY.chunks(size) {
                multipart.push(chunk).unwrap();
                assert!(multipart.buffer.len() <= chunk.len() + 200);
            }
            let parts = multipart.finish().unwrap();
            assert_eq!(parts.len(), 2);
            assert_eq!((parts[0].name.as_str(), parts[0].start.as_slice()), ("propertyID", &b"1001"[..]));
            assert_eq!((parts[1].name.as_str(), parts[1].filename.as_deref()), ("file", Some("a.txt")));
            assert_eq!(parts[1].start, b"one\r\n--not the end\r\n");
            assert_eq!(parts[1].bytes, 20);
        }
    }

    #[test]
    fn an_empty_file_is_a_file_and_a_cut_body_is_malformed() {
        let mut multipart = Multipart::new("multipart/form-data; boundary=b").unwrap();
        multipart.push(b"--b\r\nContent-Disposition: form-data; name=file\r\n\r\n\r\n--b").unwrap();
        assert_eq!(multipart.parts[0].bytes, 0);
        assert_eq!(multipart.finish().err(), Some(Malformed));
        assert!(Multipart::new("application/x-www-form-urlencoded").is_none());
    }
}
