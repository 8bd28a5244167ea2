//! The name of one request, for the caller's `X-Proxy-Request-Id`, the access line and whoever compares the two.
//!
//! In: a worker's number. Out: a [`RequestId`] per request, without a lock, a clock or a random number per request.
//! It is a name, not a secret: ids of one worker follow each other and may be guessed.

use std::cell::Cell;
use std::fmt;
use std::sync::OnceLock;
use std::time::SystemTime;

use http::HeaderValue;

/// The digits: RFC 4648's base32hex in lower case, five bits each.
const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";

/// Random digits at the front, the same for the whole process: two replicas must not hand out the same ids.
const PROCESS: usize = 6;
/// Digits for the worker behind them: 1,024 workers.
const WORKER: usize = 2;
/// Digits for the count: 2^40 requests per worker before an id repeats, a year at 30,000 requests a second.
const COUNT: usize = 8;

/// Sixteen characters of `0-9a-v`, unlike any other id of this process or (but for one chance in 2^30) of another.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct RequestId([u8; PROCESS + WORKER + COUNT]);

impl RequestId {
    /// The sixteen characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default() // Digits are ASCII.
    }

    /// The same as bytes.
    pub(super) fn as_bytes(&self) -> &[u8; PROCESS + WORKER + COUNT] {
        &self.0
    }

    /// The id as a header's value.
    #[must_use]
    pub fn header_value(&self) -> HeaderValue {
        HeaderValue::from_bytes(&self.0).unwrap_or(HeaderValue::from_static("")) // Digits are legal in a header.
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "RequestId({self})")
    }
}

/// One worker's supply of ids. It stays on its thread.
#[derive(Debug)]
pub struct RequestIds {
    front: [u8; PROCESS + WORKER],
    next: Cell<u64>,
}

impl RequestIds {
    /// The supply of the worker with this number; two supplies with one number would hand out the same ids.
    #[must_use]
    pub fn new(worker: usize) -> Self {
        let mut front = [0; PROCESS + WORKER];
        write_digits(&mut front[..PROCESS], process_number());
        write_digits(&mut front[PROCESS..], worker as u64);
        Self { front, next: Cell::new(0) }
    }

    /// The next id.
    #[must_use]
    pub fn next(&self) -> RequestId {
        let count = self.next.get();
        self.next.set(count.wrapping_add(1));
        let mut id = [0; PROCESS + WORKER + COUNT];
        id[..PROCESS + WORKER].copy_from_slice(&self.front);
        write_digits(&mut id[PROCESS + WORKER..], count);
        RequestId(id)
    }
}

/// A number drawn once per process.
fn process_number() -> u64 {
    static NUMBER: OnceLock<u64> = OnceLock::new();
    *NUMBER.get_or_init(|| {
        let mut random = [0; 8];
        match getrandom::fill(&mut random) {
            Ok(()) => u64::from_le_bytes(random),
            // A name, not a secret: a system without random numbers still gets names that differ from its neighbour's.
            Err(_) => {
                let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                since.as_nanos() as u64 ^ u64::from(std::process::id()).rotate_left(20)
            }
        }
    })
}

/// The low bits of `number`, most significant digit first, as many as `out` has room for.
fn write_digits(out: &mut [u8], mut number: u64) {
    for digit in out.iter_mut().rev() {
        *digit = DIGITS[(number & 31) as usize];
        number >>= 5;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_sixteen_lower_case_characters_and_reads_the_same_everywhere() {
        let id = RequestIds::new(3).next();
        assert_eq!(id.as_str().len(), 16);
        assert!(id.as_str().bytes().all(|byte| DIGITS.contains(&byte)));
        assert_eq!(id.to_string(), id.as_str());
        assert_eq!(id.header_value(), id.as_str());
        assert_eq!(&id.as_str()[PROCESS..], "0300000000");
    }

    #[test]
    fn no_two_requests_of_a_process_share_an_id() {
        let workers = [RequestIds::new(0), RequestIds::new(1)];
        let ids: std::collections::HashSet<_> =
            workers.iter().flat_map(|ids| std::iter::repeat_with(|| ids.next()).take(2000)).collect();
        assert_eq!(ids.len(), 4000);
    }
}
