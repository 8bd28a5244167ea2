//! Answers of Cloudbeds to an exchange, and to the question whose the new key is, with anything in them.
//!
//! In: a byte that says of which status and to which question, and the body. Out: nothing; a broken promise is a
//! panic. Asserted of an exchange: a key only from a good answer, the one that stands there, and no property that
//! does not stand there beside it; every refusal has its words, and none of them, nor those for people, holds a key
//! or a long secret. Of a list of hotels: none that is not in it, with printable names, or why there is none in words
//! that hold no key.

use std::collections::BTreeMap;

use http::StatusCode;
use serde_json::Value;
use serde_json::value::RawValue;

use super::super::exchange::{self, Refusal};
use crate::cloudbeds::{self, opens};
use crate::secret::ApiKey;
use crate::wire::mask;

/// The longest words about an answer, in bytes: a message of 200 characters, and ours around it.
const WORDS_MAX: usize = 1024;

/// The answer: a digit for its status, and `h` or anything else for the question.
pub fn token(data: &[u8]) {
    let [status, question, body @ ..] = data else { return };
    let status = match status {
        b'0' => StatusCode::NO_CONTENT,
        b'1' => StatusCode::UNAUTHORIZED,
        b'3' => StatusCode::FOUND,
        b'4' => StatusCode::BAD_REQUEST,
        b'5' => StatusCode::INTERNAL_SERVER_ERROR,
        b'8' => StatusCode::REQUEST_TIMEOUT,
        b'9' => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::OK,
    };
    if *question == b'h' { hotels(status, body) } else { exchanged(status, body) }
}

fn exchanged(status: StatusCode, body: &[u8]) {
    // A key is not lost for a letter elsewhere that is none, nor for a number that no double can hold.
    let members = serde_json::from_str::<BTreeMap<String, Box<RawValue>>>(&String::from_utf8_lossy(body));
    let members = members.unwrap_or_default().into_iter();
    let value: Value =
        members.filter_map(|(name, raw)| Some((name, serde_json::from_str::<Value>(raw.get()).ok()?))).collect();
    match exchange::read(status, body) {
        Ok(granted) => {
            assert!(status.is_success());
            let said = value["access_token"].as_str().and_then(|text| ApiKey::parse(text).ok());
            assert_eq!(said.as_ref(), Some(&granted.key), "another key");
            assert_eq!(mask::value(format!("{granted:?}").as_bytes()), None);
            let named = value["resources"].to_string();
            for property in granted.properties {
                let (text, number) = (format!("\"id\":\"{property}\""), format!("\"id\":{property}"));
                assert!(named.contains(&text) || named.contains(&number), "{property} from nowhere: {named}");
            }
        }
        Err(refusal) => {
            silent(&format!("{refusal:?} {:?}", refusal.outcome(None)), &value);
            match &refusal {
                Refusal::Code | Refusal::SetUp(_) => assert!(status.is_client_error(), "{refusal:?}"),
                Refusal::Unclear(said) => assert_eq!(*said, status),
            }
        }
    }
}

fn hotels(status: StatusCode, body: &[u8]) {
    let value = serde_json::from_slice::<Value>(body).unwrap_or_default();
    match cloudbeds::read_hotels(status, body) {
        Ok(hotels) => {
            assert!(status.is_success());
            let listed = value["data"].as_array().expect("a list");
            let is = |entry: &Value, property: &str| match &entry["propertyID"] {
                Value::String(text) => text == property,
                Value::Number(number) => number.to_string() == property,
                _ => false,
            };
            for hotel in &hotels {
                let property = hotel.property.to_string();
                assert!(listed.iter().any(|entry| is(entry, &property)), "{property} from nowhere");
                assert!(!hotel.name.contains(char::is_control) && hotel.name.chars().count() <= 100, "{hotel:?}");
                silent(&format!("{hotel} {hotel:?}"), &Value::Null);
            }
            let unknown = "999999999999".parse().expect("a good id");
            if let Err(words) = opens(&hotels, &[unknown]) {
                silent(&words, &Value::Null);
            }
        }
        Err(error) => silent(&format!("{error} {error:?}"), &Value::Null),
    }
}

/// Short, and without a key or, in the words about an exchange, anything that may be one.
fn silent(words: &str, answer: &Value) {
    assert!(words.len() <= WORDS_MAX, "{} bytes", words.len());
    assert_eq!(mask::value(words.as_bytes()), None, "{words}");
    for text in ["access_token", "code", "client_secret"].iter().filter_map(|name| answer[*name].as_str()) {
        assert!(text.len() < 20 || text.contains(' ') || !words.contains(text), "{text} is in {words}");
    }
}
