//! A file of cases, read: README.md beside it describes the format.
//!
//! In: the text of a file. Out: its cases, with every escape undone but those that only a running scene can fill in. A
//! line it does not know is a failure, so a slip of the pen cannot weaken a case.

use std::time::Duration;

/// One question to the proxy. What its caller does is said in bytes, or else in frames.
#[derive(Debug)]
pub struct Case<S = Act> {
    /// `file:line sentence [source]`.
    pub name: String,
    pub sends: Vec<S>,
    /// One list for each request that arrives; requests beyond them get the usual answer.
    pub answers: Vec<Vec<Act>>,
    pub arrives: Vec<Arrives>,
    pub comes_back: Vec<Back>,
    pub end: End,
}

/// What one side does.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Act {
    Bytes(Vec<u8>),
    /// What follows goes byte by byte.
    Bytewise,
    Pause(Duration),
    /// The caller closes its direction; the upstream closes in order.
    Close,
    Reset,
    /// The caller sends no hidden request behind the case.
    Stop,
    /// The upstream answers when it has read the head.
    Early,
}

/// A request as the upstream sees it.
#[derive(Debug, Default)]
pub struct Arrives {
    /// Method and target.
    pub line: Vec<u8>,
    /// It may arrive, or a part of it; never the whole.
    pub in_part: bool,
    /// For each name, all its values in order; none where the field must not be there.
    pub fields: Vec<(String, Vec<Vec<u8>>)>,
    pub body: Vec<u8>,
}

/// An answer as the caller sees it.
#[derive(Debug, Default)]
pub struct Back {
    pub status: u16,
    /// The code of a refusal of our own.
    pub code: Option<String>,
    /// It answers a HEAD.
    pub head: bool,
    pub fields: Vec<(String, Vec<Vec<u8>>)>,
    pub body: Option<Vec<u8>>,
    /// Its stream is reset with this code.
    pub reset: Option<u32>,
}

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    Kept,
    Closed,
    /// The end of the connection is the end of the answer.
    Eof,
    /// It ends before the answer does.
    Cut,
    /// By GOAWAY with this code.
    Gone(u32),
}

/// The codes of RFC 9113 7, from 0 on.
const CODES: [&str; 14] = [
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
];

/// A line about what the caller does.
pub struct Says<'a> {
    pub mark: &'a str,
    pub rest: &'a str,
    pub place: &'a str,
    /// Undoes escapes.
    pub bytes: &'a dyn Fn(&str) -> Vec<u8>,
}

/// The cases of a file. `filled` gives the value of a name such as `port`.
pub fn read(file: &str, text: &str, filled: impl Fn(&str) -> String) -> Vec<Case> {
    read_as(file, text, filled, |sends, Says { mark, rest, place, bytes }| match mark {
        ">" if rest == "@" => put(sends, b"Host: a\r\nX-Property-Id: 1001\r\n".to_vec()),
        ">" => put(sends, [bytes(rest), b"\r\n".to_vec()].concat()),
        ">>" => put(sends, bytes(rest)),
        ">." => sends.push(act(rest, place)),
        _ => panic!("{place}: an unknown mark: {mark}"),
    })
}

/// The same where `say` adds what a caller's line says to the acts before it.
pub fn read_as<S>(
    file: &str,
    text: &str,
    filled: impl Fn(&str) -> String,
    say: impl Fn(&mut Vec<S>, Says<'_>),
) -> Vec<Case<S>> {
    let mut cases: Vec<Case<S>> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let place = format!("{file}:{}", number + 1);
        if line.is_empty() || line.starts_with('#') || line.starts_with('!') {
            continue;
        }
        if let Some(title) = line.strip_prefix("== ") {
            let source = title.strip_suffix(']').and_then(|rest| rest.rsplit_once(" [")).map(|(_, source)| source);
            let known = ["RFC ", "CVE-", "RUSTSEC-", "GHSA-", "CWE-"];
            let named = source.is_some_and(|source| known.iter().any(|known| source.starts_with(known)));
            assert!(named, "{place}: no source: {title}");
            let (sends, answers, arrives, comes_back) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
            cases.push(Case { name: format!("{place} {title}"), sends, answers, arrives, comes_back, end: End::Kept });
            continue;
        }
        let case = cases.last_mut().unwrap_or_else(|| panic!("{place}: before the first case"));
        let end = if line.contains(' ') { line.find(' ').unwrap() } else { line.len() };
        let (mark, rest) = (&line[..end], line.get(end + 1..).unwrap_or_default());
        let bytes = |text: &str| unescape(text, &place, &filled);
        let pair = |text: &str| {
            let (name, value) = text.split_once(':').unwrap_or_else(|| panic!("{place}: no colon"));
            let name = String::from_utf8_lossy(&bytes(name)).to_ascii_lowercase();
            (name, bytes(value.strip_prefix(' ').unwrap_or(value)))
        };
        match mark {
            _ if mark.starts_with('>') => say(&mut case.sends, Says { mark, rest, place: &place, bytes: &bytes }),
            "~" | "~~" | "~." => {
                if case.answers.is_empty() || rest == "next" {
                    case.answers.push(Vec::new());
                }
                let acts = case.answers.last_mut().unwrap();
                match mark {
                    "~" => put(acts, [bytes(rest), b"\r\n".to_vec()].concat()),
                    "~~" => put(acts, bytes(rest)),
                    _ if rest == "next" => {}
                    _ => acts.push(act(rest, &place)),
                }
            }
            "^" | "^?" => {
                case.arrives.push(Arrives { line: bytes(rest), in_part: mark == "^?", ..Arrives::default() });
            }
            "^:" => expect(&mut last(&mut case.arrives, &place).fields, pair(rest)),
            "^!" => last(&mut case.arrives, &place).fields.push((rest.to_ascii_lowercase(), Vec::new())),
            "^=" => last(&mut case.arrives, &place).body = bytes(rest),
            "<" => back(case, rest, &place),
            "<:" => expect(&mut last(&mut case.comes_back, &place).fields, pair(rest)),
            "<!" => last(&mut case.comes_back, &place).fields.push((rest.to_ascii_lowercase(), Vec::new())),
            "<=" => last(&mut case.comes_back, &place).body = Some(bytes(rest)),
            _ => panic!("{place}: an unknown mark: {line}"),
        }
    }
    for case in &cases {
        assert!(!case.sends.is_empty() && !case.comes_back.is_empty(), "{}: not a whole case", case.name);
    }
    cases
}

/// The options that a file asks for: its lines behind `!`, as environment variables.
pub fn options(text: &str) -> Vec<(&str, &str)> {
    text.lines().filter_map(|line| line.strip_prefix("! ")?.split_once('=')).collect()
}

/// Pieces that nothing stands between are one write.
fn put(acts: &mut Vec<Act>, bytes: Vec<u8>) {
    match acts.last_mut() {
        Some(Act::Bytes(before)) => before.extend(bytes),
        _ => acts.push(Act::Bytes(bytes)),
    }
}

pub fn act(word: &str, place: &str) -> Act {
    match word {
        "bytewise" => Act::Bytewise,
        "close" => Act::Close,
        "reset" => Act::Reset,
        "stop" => Act::Stop,
        "early" => Act::Early,
        _ => {
            let time = word.strip_prefix("pause ").and_then(|rest| rest.strip_suffix("ms")?.parse().ok());
            Act::Pause(Duration::from_millis(time.unwrap_or_else(|| panic!("{place}: an unknown act: {word}"))))
        }
    }
}

fn last<'a, T>(list: &'a mut [T], place: &str) -> &'a mut T {
    list.last_mut().unwrap_or_else(|| panic!("{place}: of what?"))
}

fn expect(fields: &mut Vec<(String, Vec<Vec<u8>>)>, (name, value): (String, Vec<u8>)) {
    match fields.iter_mut().find(|(known, _)| *known == name) {
        Some((_, values)) => values.push(value),
        None => fields.push((name, vec![value])),
    }
}

fn back<S>(case: &mut Case<S>, rest: &str, place: &str) {
    let mut words = rest.split(' ');
    let status = words.next().unwrap_or_default();
    if status != "nothing" {
        let status = status.parse().unwrap_or_else(|_| panic!("{place}: no status"));
        case.comes_back.push(Back { status, ..Back::default() });
    } else {
        case.comes_back.push(Back::default());
    }
    let back = case.comes_back.last_mut().unwrap();
    while let Some(word) = words.next() {
        let mut code = || {
            let name = words.next().unwrap_or_default();
            let at = CODES.iter().position(|code| *code == name);
            at.and_then(|at| at.try_into().ok()).unwrap_or_else(|| panic!("{place}: no code of RFC 9113 7: {name}"))
        };
        match word {
            "reset" => back.reset = Some(code()),
            "gone" => case.end = End::Gone(code()),
            "head" => back.head = true,
            "kept" => case.end = End::Kept,
            "closed" => case.end = End::Closed,
            "eof" => case.end = End::Eof,
            "cut" => case.end = End::Cut,
            code => back.code = Some(code.to_owned()),
        }
    }
}

/// Undoes `\r \n \t \0 \\ \xHH`, `\{name}` and `\{count*text}`, which may hold each other.
fn unescape(text: &str, place: &str, filled: &impl Fn(&str) -> String) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        let behind = &rest[at + 1..];
        let kind = behind.chars().next().unwrap_or_else(|| panic!("{place}: a backslash at the end"));
        let mut used = 1;
        match kind {
            'r' => out.push(b'\r'),
            'n' => out.push(b'\n'),
            't' => out.push(b'\t'),
            '0' => out.push(0),
            '\\' => out.push(b'\\'),
            'x' => {
                let byte = behind.get(1..3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
                out.push(byte.unwrap_or_else(|| panic!("{place}: two hex digits belong behind \\x")));
                used = 3;
            }
            '{' => {
                let end = behind.find('}').unwrap_or_else(|| panic!("{place}: an open brace"));
                let inner = &behind[1..end];
                match inner.split_once('*') {
                    Some((count, text)) => {
                        let count = count.parse().unwrap_or_else(|_| panic!("{place}: no count"));
                        out.extend(unescape(text, place, filled).repeat(count));
                    }
                    None => out.extend(filled(inner).into_bytes()),
                }
                used = end + 1;
            }
            _ => panic!("{place}: an unknown escape: \\{kind}"),
        }
        rest = &behind[used..];
    }
    out.extend_from_slice(rest.as_bytes());
    out
}

#[test]
fn a_case_is_read_as_it_is_meant() {
    let text = "# x\n== a sentence [RFC 9112 2]\n> GET /\\{port} HTTP/1.1\n>> a\\x41\\{3*\\0b}\n>. pause 5ms\n> @\n~ HTTP/1.1\n\
                ~. next\n^ GET /\n^: a: 1\n^: A: 2\n^! b\n< 100\n< 400 request_invalid closed\n<= x\n";
    let cases = read("f", text, |name| format!("<{name}>"));
    assert_eq!(cases.len(), 1);
    let case = &cases[0];
    assert_eq!(case.sends[0], Act::Bytes(b"GET /<port> HTTP/1.1\r\naA\0b\0b\0b".to_vec()));
    assert_eq!((case.sends.len(), case.answers.len(), case.arrives.len(), case.end), (3, 2, 1, End::Closed));
    let fields = &case.arrives[0].fields;
    assert_eq!(fields[0], ("a".to_owned(), vec![b"1".to_vec(), b"2".to_vec()]));
    assert_eq!((case.comes_back.len(), case.comes_back[1].code.as_deref()), (2, Some("request_invalid")));
}
