//! What `cargo bench --bench load` loads, and what it refuses to.

#![allow(clippy::unwrap_used, reason = "a test may end itself")]
#![allow(missing_docs, reason = "the tests' names are their documentation")]
#![allow(dead_code, reason = "the bench's own files, of which parts are tested")]

#[path = "../benches/kit/mod.rs"]
mod kit;

#[path = "../benches/load/mix.rs"]
mod mix;
#[path = "../benches/load/options.rs"]
mod options;
#[path = "../benches/load/target.rs"]
mod target;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};

use options::Options;
use target::Target;

fn options(words: &[&str]) -> Result<Options, String> {
    Options::of([&["load"], words].concat())
}

/// What comes of loading the proxy at this address.
fn load(address: SocketAddr, words: &[&str]) -> Result<String, String> {
    let proxy = ["--properties", "1001", "--proxy", &address.to_string()].map(str::to_owned);
    let words: Vec<&str> = proxy.iter().map(String::as_str).chain(words.iter().copied()).collect();
    Target::at(address, &options(&words).unwrap()).map(|target| target.described)
}

/// A server that gives every request this answer.
fn answering(status: &'static str, body: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    address
}

const IN_WORDS: &str = "--load-real-accounts-of-real-hotels";

#[test]
fn an_upstream_that_is_no_sandbox_is_not_loaded() {
    for (status, body) in [("404 Not Found", "<html>"), ("200 OK", "{}"), ("200 OK", "{\"headers\":[[\"a\",\"b\"]]}")] {
        let why = load(answering(status, body), &[]).unwrap_err();
        assert!(why.contains("is not loaded: its upstream is not a sandbox") && why.contains(IN_WORDS), "{why}");
    }
}

#[test]
fn a_refusal_of_the_proxys_own_is_named_by_its_code() {
    let why = load(answering("403 Forbidden", "{\"code\":\"property_unknown\"}"), &[]).unwrap_err();
    assert!(why.contains("403 property_unknown for property 1001"), "{why}");
}

#[test]
fn real_accounts_are_loaded_when_told_so_in_words_at_a_rate_and_reading_only() {
    let address = answering("404 Not Found", "");
    let reading = ["--mix", "/api/v1.3/getHotels=1"];
    let why = load(address, &[&[IN_WORDS], &reading[..]].concat()).unwrap_err();
    assert!(why.contains("--rate"), "{why}");
    let why = load(address, &[IN_WORDS, "--rate", "5"]).unwrap_err();
    assert!(why.contains("GET and HEAD"), "{why}");
    let told = load(address, &[&[IN_WORDS, "--rate", "5"], &reading[..]].concat()).unwrap();
    assert!(told.contains("as told"), "{told}");
}

#[test]
fn an_address_where_nobody_listens_is_said_to_be_silent() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let why = load(address, &[]).unwrap_err();
    assert!(why.starts_with(&format!("{address} does not answer: ")), "{why}");
}

#[test]
fn the_sandbox_it_starts_itself_is_known_for_one() {
    let directory = tempfile::tempdir().unwrap();
    let target = Target::start(directory.path(), &options(&["--properties", "1001-1003"]).unwrap()).unwrap();
    let told = load(target.address, &[]).unwrap();
    assert!(told.contains("whose upstream is a sandbox"), "{told}");
    let why = Target::at(target.address, &options(&["--properties", "7", "--proxy", "127.0.0.1:1"]).unwrap());
    assert!(why.err().unwrap().contains("property_unknown for property 7"));
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for (words, says) in [
        (&["--proxy", "127.0.0.1:1"][..], "--properties"),
        (&["--properties", "7"], "1001 to 11000"),
        (&["--properties", "5-1"], "ids and ranges"),
        (&["--rate", "0"], "--rate"),
        (&["--rate", "NaN"], "--rate"),
        (&["--duration", "0"], "--duration"),
        (&["--concurrency", "0"], "--concurrency"),
        (&["--header", "no colon"], "--header"),
        (&["--mix", "getRooms=1"], "--mix"),
        (&["--mix", "/a"], "--mix"),
        (&["--mix", "/a=0"], "weights start at 1"),
    ] {
        let why = options(words).err().unwrap();
        assert!(why.contains(says), "{words:?}: {why}");
    }
}
