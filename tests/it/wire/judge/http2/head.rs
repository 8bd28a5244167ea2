//! The head of a request over HTTP/2, held to RFC 9113 8.2 and 8.3.

use super::super::{Arrived, is_control, is_path, is_token, show};

/// A request's method, scheme, authority and path.
const PSEUDO: [&[u8]; 4] = [b":method", b":scheme", b":authority", b":path"];

/// What arrived, the length that it says, and what is wrong with it.
pub(super) fn examine(fields: &[(Vec<u8>, Vec<u8>)]) -> (Arrived, Option<usize>, Vec<String>) {
    let mut faults = Vec::new();
    let mut fault = |what: &str, bytes: &[u8]| faults.push(format!("{what}: {:?}", show(bytes)));
    let mut arrived = Arrived::default();
    let count = fields.iter().take_while(|(name, _)| name.starts_with(b":")).count();
    let (pseudo, fields) = fields.split_at(count);
    let [method, scheme, authority, path] = PSEUDO.map(|name| {
        let mut values = pseudo.iter().filter(|(known, _)| known == name).map(|(_, value)| &value[..]);
        values.next().unwrap_or_default()
    });
    // 8.3.1: each of them once, and no other.
    if pseudo.len() != PSEUDO.len() || !PSEUDO.iter().all(|name| pseudo.iter().any(|(known, _)| known == name)) {
        fault("the pseudo-fields", &pseudo.iter().flat_map(|(name, _)| name.clone()).collect::<Vec<_>>());
    }
    let is_text = |byte: u8| byte > b' ' && byte != 0x7f;
    if !is_token(method) || scheme != b"https" || !is_path(path) || !path.iter().copied().all(is_text) {
        fault("the request line", &[method, b" ", scheme, b" ", path].concat());
    }
    arrived.line = [method, b" ", path].concat();
    arrived.fields.push(("host".to_owned(), authority.to_vec()));
    for (name, value) in fields {
        // 8.2.1: a token in lower case, which no pseudo-field behind other fields is either.
        if !is_token(name) || name.iter().any(u8::is_ascii_uppercase) {
            fault("a field name", name);
        }
        if value.iter().copied().any(is_control) || value.trim_ascii() != &value[..] {
            fault("a field value", &[name, &b": "[..], value].concat());
        }
        arrived.fields.push((String::from_utf8_lossy(name).into_owned(), value.clone()));
    }
    // 8.2.2 forbids what the judge forbids anyway, and this.
    for coding in arrived.values("transfer-encoding") {
        fault("a transfer coding", &coding);
    }
    let length = match &arrived.values("content-length")[..] {
        [] => None,
        [length] if length.iter().all(u8::is_ascii_digit) && (length.len() == 1 || !length.starts_with(b"0")) => {
            std::str::from_utf8(length).ok().and_then(|digits| digits.parse().ok())
        }
        lengths => {
            fault("the length", &lengths.join(&b", "[..]));
            None
        }
    };
    (arrived, length, faults)
}
