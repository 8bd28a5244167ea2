//! The table of cases, asked one by one: the bytes of each through a proxy to the judge and back; then a victim's requests.

use std::collections::{HashSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::case::{Act, Back, Case, End, options, read};
use super::compare::is_invalid;
use super::judge::said::{Form, said};
use super::judge::{Judge, Version};
use super::{compare, http2};
use crate::harness::{Authority, Line, Proxy, Speaker, TLS, together};

/// How many proxies the files share that ask for no configuration of their own.
const LANES: usize = 3;

/// What must not be served: it stands behind every case that ends its connection.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: a\r\nX-Property-Id: 1001\r\n\r\n";

/// A judge and a proxy before it; one case at a time.
struct Lane {
    judge: Judge,
    version: Version,
    proxy: Proxy,
    /// Who signed the listener's certificate, where it speaks TLS.
    root: Option<String>,
}

impl Lane {
    async fn start(how: How, version: Version, options: &[(&str, &str)]) -> Self {
        let judge = Judge::start(version).await;
        // One core, so that a victim's request meets the very connections that a case leaves behind.
        let builder = judge.proxy().config("workers: 1");
        // What h2 says of ten thousand frames takes longer than all cases together; other tests search it.
        let builder =
            if version == Version::Http2 { builder.log("trace,mio=info,polling=info,h2=info") } else { builder };
        let builder = options.iter().fold(builder, |builder, (name, value)| builder.env(name, value));
        if how == How::Plain {
            return Self { judge, version, proxy: builder.start().await, root: None };
        }
        let authority = Authority::new();
        let proxy = builder.config(TLS).listener(&authority).start().await;
        Self { judge, version, proxy, root: Some(authority.pem()) }
    }

    /// A connection of its own.
    async fn line(&self) -> Line {
        let Some(root) = &self.root else { return self.proxy.line().await };
        let stream = Speaker::new(root).connect(self.proxy.address).await.unwrap();
        Line::over(stream, &self.proxy.secrets)
    }
}

/// How a table's cases are asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum How {
    Plain,
    InTls,
    Http2,
}

#[tokio::test]
async fn every_case_of_the_table_has_its_outcome_and_harms_nobody_else() {
    ask_all(How::Plain, Version::Http1, "tests/it/wire", 690).await;
}

#[tokio::test]
async fn every_case_has_the_same_outcome_inside_tls() {
    ask_all(How::InTls, Version::Http1, "tests/it/wire", 690).await;
}

#[tokio::test]
async fn every_case_in_http2_has_its_outcome_and_harms_nobody_else() {
    ask_all(How::Http2, Version::Http1, "tests/it/wire/http2", 240).await;
}

#[tokio::test]
async fn every_case_has_the_same_outcome_before_an_upstream_that_speaks_http2() {
    ask_all(How::Plain, Version::Http2, "tests/it/wire", 680).await;
}

#[tokio::test]
async fn every_case_in_http2_has_the_same_outcome_before_an_upstream_that_speaks_it_too() {
    ask_all(How::Http2, Version::Http2, "tests/it/wire/http2", 240).await;
}

#[test]
fn each_section_of_our_own_that_a_case_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = |name: &str| std::fs::read_to_string(root.join(name)).unwrap();
    let pages = [("README", text("README.md")), ("SECURITY", text("SECURITY.md"))];
    let mut named = 0;
    for (file, text) in ["tests/it/wire", "tests/it/wire/http2"].iter().flat_map(|folder| files(folder)) {
        for title in text.lines().filter(|line| line.starts_with("== ") && line.ends_with("\"]")) {
            let (page, section) = title.trim_end_matches("\"]").rsplit_once(" \"").unwrap();
            let page = pages.iter().find(|(name, _)| page.ends_with(&format!(", {name}")));
            let there = page.is_some_and(|(_, text)| text.contains(&format!("\n## {section}\n")));
            assert!(there, "{file}: {title}");
            named += 1;
        }
    }
    assert!(named > 40, "{named}");
}

/// The files of a folder, by their names.
fn files(folder: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: Vec<(String, String)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .map(|path| (path.file_stem().unwrap().display().to_string(), std::fs::read_to_string(path).unwrap()))
        .collect();
    files.sort();
    files
}

/// Asks all cases of a folder, of which there are so many at least, before an upstream of a version.
async fn ask_all(how: How, version: Version, folder: &str, least: usize) {
    let files = files(folder);
    let (own, shared): (VecDeque<_>, VecDeque<_>) = files.into_iter().partition(|(_, text)| !options(text).is_empty());
    let (own, shared) = (Mutex::new(own), Mutex::new(shared));
    let found = Found::default();
    let lanes = (0..=LANES).map(|number| {
        let (own, shared, found) = (&own, &shared, &found);
        async move {
            if number == LANES {
                while let Some((file, text)) = next(own) {
                    ask(how, &Arc::new(Lane::start(how, version, &options(&text)).await), &file, &text, found).await;
                }
                return;
            }
            let lane = Arc::new(Lane::start(how, version, &[]).await);
            while let Some((file, text)) = next(shared) {
                ask(how, &lane, &file, &text, found).await;
            }
        }
    });
    together(lanes).await;
    let (names, failures) = (found.names.into_inner().unwrap(), found.failures.into_inner().unwrap());
    assert!(failures.is_empty(), "{} of {} cases:\n{}", failures.len(), names.len(), failures.join("\n"));
    assert!(only().is_some() || names.len() >= least, "only {} cases", names.len());
}

/// The next file; the lock is let go before it is worked on.
fn next(files: &Mutex<VecDeque<(String, String)>>) -> Option<(String, String)> {
    files.lock().unwrap().pop_front()
}

/// `WIRE_CASE=word` asks only the cases with that word in their names.
fn only() -> Option<String> {
    std::env::var("WIRE_CASE").ok()
}

/// What was asked, and what was wrong.
#[derive(Default)]
struct Found {
    names: Mutex<HashSet<String>>,
    failures: Mutex<Vec<String>>,
}

/// What the upstream's answers to a case are by the rules of its version; nothing where HTTP/2 has no words for them.
fn form<S>(version: Version, case: &Case<S>) -> Option<Form> {
    if version == Version::Http1 {
        return Some(Form::Sound);
    }
    let head_only = |number: usize| case.arrives.get(number).is_some_and(|one| one.line.starts_with(b"HEAD "));
    let forms = case.answers.iter().enumerate().map(|(number, answer)| Some(said(answer, head_only(number))?.form));
    forms.collect::<Option<Vec<_>>>().map(|forms| forms.into_iter().max().unwrap_or(Form::Sound))
}

async fn ask(how: How, lane: &Arc<Lane>, file: &str, text: &str, found: &Found) {
    let (scheme, other) = if how == How::Plain { ("http", "https") } else { ("https", "http") };
    let filled = |name: &str| match name {
        "scheme" => scheme.to_owned(),
        "SCHEME" => scheme.to_uppercase(),
        "other" => other.to_owned(),
        "port" => lane.proxy.address.port().to_string(),
        "origin" => lane.judge.authority(),
        "key" => lane.judge.key().to_owned(),
        other => panic!("{file}: nothing is called {other}"),
    };
    match how {
        How::Http2 => {
            let exchange = |lane: Arc<Lane>, case: Arc<_>, victim: String| async move {
                let (root, form) = (lane.root.as_deref().unwrap_or_default(), form(lane.version, &*case).unwrap());
                http2::exchange(&lane.proxy, root, &case, form, &victim).await;
            };
            ask_each(lane, file, http2::case::read(file, text, filled), found, exchange).await;
        }
        How::Plain | How::InTls => {
            let exchange = |lane: Arc<Lane>, case: Arc<_>, victim: String| async move {
                exchange(&lane, &case, &victim).await;
            };
            ask_each(lane, file, read(file, text, filled), found, exchange).await;
        }
    }
}

async fn ask_each<S, F>(
    lane: &Arc<Lane>,
    file: &str,
    cases: Vec<Case<S>>,
    found: &Found,
    exchange: impl Fn(Arc<Lane>, Arc<Case<S>>, String) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    // A part of a request that its caller broke off may arrive late.
    let mut broken_off = HashSet::new();
    for (number, case) in cases.into_iter().enumerate() {
        if only().is_some_and(|word| !case.name.contains(&word)) || form(lane.version, &case).is_none() {
            continue;
        }
        let name = case.name.clone();
        let sentence = name.split_once(' ').unwrap().1.to_owned();
        assert!(found.names.lock().unwrap().insert(sentence), "{name}: there are two of these");
        lane.judge.open(&case.answers);
        let case = Arc::new(case);
        let victim = format!("/victim?{file}-{number}");
        let asked = tokio::spawn(exchange(Arc::clone(lane), Arc::clone(&case), victim)).await;
        let (arrived, mut wrong) = lane.judge.close();
        if let Err(panic) = asked {
            let panic = panic.into_panic();
            let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref().copied());
            wrong.push(text.unwrap_or("a panic").to_owned());
        }
        broken_off
            .extend(case.arrives.iter().filter(|expected| expected.in_part).map(|expected| expected.line.clone()));
        let arrived =
            arrived.into_iter().filter(|one| one.whole || !broken_off.contains(&one.line)).collect::<Vec<_>>();
        wrong.extend(compare::arrivals(lane.version, &case.arrives, &arrived));
        if !wrong.is_empty() {
            found.failures.lock().unwrap().push(format!("{name}\n    {}", wrong.join("\n    ")));
        }
    }
}

/// Sends the case, checks what comes back, and lets a victim ask behind it: on the same connection where it stays open,
/// and on one of its own.
async fn exchange(lane: &Lane, case: &Case, victim: &str) {
    let mut line = lane.line().await;
    let (mut bytewise, mut hidden) = (false, matches!(case.end, End::Closed | End::Eof));
    for act in &case.sends {
        match act {
            Act::Bytes(bytes) if bytewise => {
                for byte in bytes {
                    line.write([*byte]).await;
                    tokio::task::yield_now().await;
                }
            }
            Act::Bytes(bytes) => drop(line.write(bytes).await),
            Act::Bytewise => bytewise = true,
            Act::Pause(time) => tokio::time::sleep(*time).await,
            Act::Close => {
                line.half_close().await;
                hidden = false;
            }
            Act::Stop => hidden = false,
            Act::Reset | Act::Early => panic!("no act of a caller"),
        }
    }
    if hidden {
        line.write(HIDDEN).await;
    }
    let (form, mut end) = (form(lane.version, case).unwrap(), case.end);
    for (number, back) in case.comes_back.iter().enumerate() {
        if back.status > 0 {
            end = check_answer(&mut line, back, case, form, number).await;
        }
    }
    match end {
        End::Kept => {
            ask_for_own(&mut line, victim, "on the same connection").await;
        }
        End::Closed => {
            assert_eq!(line.end, crate::harness::End::Framed, "how the answer ends");
            line.closed().await;
        }
        End::Eof => assert_eq!(line.end, crate::harness::End::Closed, "how the answer ends"),
        End::Gone(_) => panic!("HTTP/1.1 has no GOAWAY"),
        End::Cut => assert_eq!(line.end, crate::harness::End::Cut, "how the answer ends"),
    }
    ask_for_own(&mut lane.line().await, victim, "on its own connection").await;
}

async fn ask_for_own(line: &mut Line, victim: &str, place: &str) {
    line.write(format!("GET {victim} HTTP/1.1\r\nHost: a\r\nX-Property-Id: 1002\r\n\r\n")).await;
    let answer = line.answer_to("GET").await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, format!("{victim} 1002")), "the victim {place}");
}

/// Checks an answer; how the connection should end if it is the last.
async fn check_answer(line: &mut Line, back: &Back, case: &Case, form: Form, number: usize) -> End {
    let answer = line.answer_to(if back.head { "HEAD" } else { "GET" }).await;
    if form == Form::MalformedBody && line.end == crate::harness::End::Cut && answer.status == back.status {
        return End::Cut;
    }
    let refused = form != Form::Sound && is_invalid(&answer);
    if !refused {
        compare::answer(&answer, back, number, case.answers.len() <= number);
    }
    let last = number + 1 == case.comes_back.len();
    let http_1_1 = line.status_line.starts_with("HTTP/1.1 ");
    if last && case.end == End::Closed && answer.status.as_u16() >= 200 && http_1_1 {
        assert_eq!(answer.header("connection"), Some("close"), "the last answer says that it is the last");
    }
    // A refusal is whole, whatever the answer would have been.
    match case.end {
        End::Cut if refused => End::Kept,
        End::Eof if refused => End::Closed,
        end => end,
    }
}
