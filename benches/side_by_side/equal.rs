//! The check that comes before any figure: does every peer do the work at all?
//!
//! In: a running peer. Out: each duty it failed, in words; none means that its figures may stand beside the others'.
//! What arrived upstream is read at the stand-in, never from an answer, since ours covers keys in those.

use std::time::Duration;

use crate::kit::client::Client;
use crate::peers::{FIRST, KEYS, Proxy, key};
use crate::stand_in::StandIn;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(10);

/// A credential of the caller's own, which must not reach the upstream in any field.
const FOREIGN: &str = "cbat_of_the_caller_itself";

/// Every duty the peer does not do.
pub(crate) fn faults(proxy: &Proxy, stand_in: &StandIn) -> Vec<String> {
    let mut faults = Vec::new();
    stand_in.seen();
    for property in [FIRST, FIRST + 1, FIRST + KEYS / 2, FIRST + KEYS - 1] {
        if let Err(fault) = right_key(proxy, stand_in, property) {
            faults.push(format!("property {property}: {fault}"));
        }
    }
    for (what, field) in [("an unknown property", "X-Property-Id: 7\r\n"), ("no property", "")] {
        match call(proxy, "GET", field, b"") {
            Ok((status, _)) if !(400..500).contains(&status) => faults.push(format!("{what} is answered {status}")),
            Ok(_) => {}
            Err(error) => faults.push(format!("{what}: {error}")),
        }
        if !stand_in.seen().is_empty() {
            faults.push(format!("{what} is forwarded"));
        }
    }
    let body = [b'x'; 100_000];
    match call_path(proxy, "POST", "/bench/up", &format!("X-Property-Id: {FIRST}\r\n"), &body) {
        Ok((200, answer)) if String::from_utf8_lossy(&answer).contains("\"bytes\":100000") => {}
        Ok((status, _)) => faults.push(format!("a POST of 100,000 bytes is answered {status} or not with their count")),
        Err(error) => faults.push(format!("a POST of 100,000 bytes: {error}")),
    }
    faults
}

fn right_key(proxy: &Proxy, stand_in: &StandIn, property: u64) -> Result<(), String> {
    let fields = format!(
        "X-Property-Id: {property}\r\nAuthorization: Bearer {FOREIGN}\r\nX-Api-Key: {FOREIGN}\r\n\
         Cookie: key={FOREIGN}\r\n"
    );
    let (status, head) = call(proxy, "GET", &fields, b"")?;
    if status != 200 {
        return Err(format!("answered {status}"));
    }
    if head.to_ascii_lowercase().contains("set-cookie") {
        return Err("Set-Cookie reaches the caller".to_owned());
    }
    let seen = stand_in.seen();
    let [seen] = seen.as_slice() else { return Err(format!("forwarded {} times", seen.len())) };
    let values: Vec<_> = seen.get_all("authorization").iter().map(|value| value.as_bytes()).collect();
    if values != [format!("Bearer {}", key(property)).as_bytes()] {
        return Err("the key that arrives upstream is not the property's".to_owned());
    }
    let foreign = seen.iter().find(|(_, value)| String::from_utf8_lossy(value.as_bytes()).contains(FOREIGN));
    match foreign {
        Some((name, _)) => Err(format!("the caller's own credential arrives upstream in {name}")),
        None => Ok(()),
    }
}

/// Status and head of the answer.
fn call(proxy: &Proxy, method: &str, fields: &str, body: &[u8]) -> Result<(u16, String), String> {
    let mut client = Client::connect(proxy.address, LIMIT).map_err(|error| error.to_string())?;
    let answer =
        client.call(&request(method, "/bench/seen", fields, body)).map_err(|error| format!("no answer: {error}"))?;
    Ok((answer.status, String::from_utf8_lossy(client.head()).into_owned()))
}

/// Status and body of the answer.
fn call_path(proxy: &Proxy, method: &str, path: &str, fields: &str, body: &[u8]) -> Result<(u16, Vec<u8>), String> {
    let mut client = Client::connect(proxy.address, LIMIT).map_err(|error| error.to_string())?;
    let answer = client.call(&request(method, path, fields, body)).map_err(|error| format!("no answer: {error}"))?;
    Ok((answer.status, client.body().to_vec()))
}

fn request(method: &str, path: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{fields}{length}\r\n").into_bytes();
    request.extend_from_slice(body);
    request
}
