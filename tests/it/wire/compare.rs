//! What came back, and what arrived, beside what a case says.

use super::case::{Arrives, Back};
use super::judge::{Arrived, Version, show};
use crate::harness::Answer;

/// Whether it says that what the upstream answered is none; HTTP/2 lets a client refuse more than HTTP/1.1 does.
pub fn is_invalid(answer: &Answer) -> bool {
    let says = answer.header("proxy-status").is_some_and(|status| status.contains("details=\"upstream_invalid\""));
    answer.status == 502 && says
}

/// Whether an answer is as it should be; `usual` where the case gives the upstream no other to give than the usual one.
pub fn answer(answer: &Answer, back: &Back, number: usize, usual: bool) {
    assert_eq!(answer.status, back.status, "answer {number}: {}", show(&answer.body));
    match &back.code {
        Some(code) if back.head => {
            let proxy_status = answer.header("proxy-status").unwrap_or_default();
            assert!(proxy_status.contains(&format!("details=\"{code}\"")), "answer {number}: {proxy_status:?}");
        }
        Some(code) => answer.assert_refused(code),
        None => assert!(answer.header("proxy-status").is_none(), "answer {number} is one of the proxy's own"),
    }
    for (name, values) in &back.fields {
        let seen: Vec<_> = answer.headers.get_all(name).iter().map(|value| show(value.as_bytes())).collect();
        let expected: Vec<_> = values.iter().map(|value| show(value)).collect();
        assert_eq!(seen, expected, "answer {number}, the field {name}");
    }
    let usual = (usual && back.code.is_none() && !back.head && back.status == 200).then(|| b"ok".to_vec());
    if let Some(body) = back.body.as_ref().or(usual.as_ref()) {
        assert_eq!(show(&answer.body), show(body), "answer {number}, the body");
        assert!(answer.body == *body, "answer {number}, the body's length: {}", answer.body.len());
    }
}

/// What differs between the requests that should have arrived and those that did.
pub fn arrivals(version: Version, expected: &[Arrives], arrived: &[Arrived]) -> Vec<String> {
    let expected: Vec<_> = expected.iter().filter(|one| !one.in_part).collect();
    let lines = |lines: Vec<&Vec<u8>>| lines.into_iter().map(|line| show(line)).collect::<Vec<_>>();
    let wanted = lines(expected.iter().map(|one| &one.line).collect());
    let found = lines(arrived.iter().map(|one| &one.line).collect());
    if wanted != found {
        return vec![format!("arrived: {found:?}, not {wanted:?}")];
    }
    let mut wrong = Vec::new();
    for (expected, arrived) in expected.iter().zip(arrived) {
        for (name, values) in &expected.fields {
            let seen = arrived.values(name);
            // HTTP/2 needs no coding to have chunks, and forbids it (RFC 9113 8.1).
            let values: &[_] = if (version, &**name) == (Version::Http2, "transfer-encoding") { &[] } else { values };
            if seen != *values {
                let shown: Vec<_> = seen.iter().map(|value| show(value)).collect();
                wrong.push(format!("the field {name} arrived as {shown:?}"));
            }
        }
        if arrived.whole && arrived.body != expected.body {
            wrong.push(format!("{} bytes of body arrived: {:?}", arrived.body.len(), show(&arrived.body)));
        }
    }
    wrong
}
