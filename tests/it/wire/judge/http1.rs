//! The judge of HTTP/1.1: the grammar of RFC 9112, byte by byte.

use std::sync::Mutex;

use super::{Arrived, Bench, Keys, is_control, is_path, is_token, show};
use crate::harness::Peer;
use crate::wire::case::Act;

/// Hears one connection.
pub(super) async fn hear(mut peer: Peer, bench: &Mutex<Bench>, keys: &Keys) {
    loop {
        let Some(head) = peer.until(b"\r\n\r\n").await else {
            if !peer.unread().is_empty() {
                bench.lock().unwrap().faults.push(format!("half a head: {:?}", show(peer.unread())));
            }
            return;
        };
        let (mut arrived, framing, mut faults) = examine(&head);
        let answers = {
            let mut bench = bench.lock().unwrap();
            if !arrived.is_proxys_own() {
                faults.extend(arrived.faults(keys));
                bench.faults.extend(faults);
            }
            bench.answer(&arrived)
        };
        let early = answers.contains(&Act::Early);
        let body = if early { Some(Vec::new()) } else { body(&mut peer, framing, bench).await };
        (arrived.whole, arrived.body) = (body.is_some() && !early, body.unwrap_or_default());
        let whole = arrived.whole;
        if whole && !peer.unread().is_empty() {
            bench.lock().unwrap().faults.push(format!("behind the request: {:?}", show(peer.unread())));
        }
        bench.lock().unwrap().keep(arrived);
        if !whole && !early {
            return;
        }
        let mut bytewise = false;
        for act in answers {
            match act {
                Act::Bytes(bytes) if bytewise => {
                    for byte in bytes {
                        peer.write([byte]).await;
                        tokio::task::yield_now().await;
                    }
                }
                Act::Bytes(bytes) => peer.write(bytes).await,
                Act::Bytewise => bytewise = true,
                Act::Pause(time) => tokio::time::sleep(time).await,
                Act::Close => return peer.linger().await,
                Act::Reset => return peer.reset(),
                Act::Stop | Act::Early => {}
            }
        }
        if early {
            return peer.drain().await;
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Framing {
    None,
    Length(usize),
    Chunked,
}

/// Takes a head apart and judges its form.
fn examine(head: &[u8]) -> (Arrived, Framing, Vec<String>) {
    let mut faults = Vec::new();
    let mut fault = |what: &str, bytes: &[u8]| faults.push(format!("{what}: {:?}", show(bytes)));
    let mut arrived = Arrived::default();
    let mut lines = Vec::new();
    let mut rest = head;
    while let Some(at) = memchr::memmem::find(rest, b"\r\n") {
        lines.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    lines.pop();
    if lines.iter().any(|line| line.iter().copied().any(is_control)) {
        fault("a control byte in the head", head);
    }
    let parts: Vec<&[u8]> = lines[0].split(|byte| *byte == b' ').collect();
    match parts[..] {
        [method, target, b"HTTP/1.1"] if is_token(method) && is_path(target) => {
            arrived.line = [method, b" ", target].concat();
        }
        _ => fault("the request line", lines[0]),
    }
    for line in &lines[1..] {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            fault("a line without a colon", line);
            continue;
        };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if !is_token(name) {
            fault("a field name", line);
        }
        arrived.fields.push((String::from_utf8_lossy(name).to_ascii_lowercase(), value.trim_ascii().to_vec()));
    }
    let (lengths, codings) = (arrived.values("content-length"), arrived.values("transfer-encoding"));
    let framing = match (&lengths[..], &codings[..]) {
        ([], []) => Framing::None,
        ([], [coding]) if coding == b"chunked" => Framing::Chunked,
        ([length], []) if length.iter().all(u8::is_ascii_digit) && (length.len() == 1 || length[0] != b'0') => {
            Framing::Length(String::from_utf8_lossy(length).parse().unwrap_or_default())
        }
        _ => {
            fault("the framing", head);
            Framing::None
        }
    };
    (arrived, framing, faults)
}

/// The body; `None` where the connection ends, or the coding breaks, before it does.
async fn body(peer: &mut Peer, framing: Framing, bench: &Mutex<Bench>) -> Option<Vec<u8>> {
    match framing {
        Framing::None => Some(Vec::new()),
        Framing::Length(length) => peer.exactly(length).await.map(|body| body.to_vec()),
        Framing::Chunked => {
            let mut body = Vec::new();
            loop {
                let line = peer.until(b"\r\n").await?;
                let digits = &line[..line.len() - 2];
                let size = std::str::from_utf8(digits).ok().and_then(|digits| usize::from_str_radix(digits, 16).ok());
                let chunk = match size {
                    Some(size) if digits.iter().all(u8::is_ascii_hexdigit) => peer.exactly(size + 2).await?,
                    _ => bytes::BytesMut::new(),
                };
                if !chunk.ends_with(b"\r\n") {
                    bench.lock().unwrap().faults.push(format!("a chunk: {:?}", show(&line)));
                    return None;
                }
                if size == Some(0) {
                    return Some(body);
                }
                body.extend_from_slice(&chunk[..chunk.len() - 2]);
            }
        }
    }
}
