//! The sandbox's answers against the vendor's own description of them.
//!
//! In: the OpenAPI file, which is not ours to ship: `$CLOUDBEDS_OPENAPI`, else `../shared/openapi/pms-v1.3-openapi.yaml`
//! beside the repository. Out: for every operation the sandbox answers, its live answer is valid, and carries no field
//! the description does not name. Without the file the tests say that they were skipped, but fail when `CI=true`.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // Clippy knows a test by its attribute, not its helpers.

use std::path::PathBuf;

use bytes::Bytes;
use cloudbeds_auth_proxy::sandbox::{self, Sandbox, Settings};
use serde_json::{Map, Value, json};

mod client;
use client::{Client, Http};

const FORM: &str = "application/x-www-form-urlencoded";

/// The description as JSON, or `None` when it is not at hand and need not be.
fn description() -> Option<Value> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/openapi/pms-v1.3-openapi.yaml");
    let path = std::env::var_os("CLOUDBEDS_OPENAPI").map_or(beside, PathBuf::from);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) => {
            let missing = format!("the vendor's description is not at {}: {error}", path.display());
            assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{missing}; set CLOUDBEDS_OPENAPI");
            eprintln!("skipped: {missing}");
            return None;
        }
    };
    Some(from_yaml(serde_yaml::from_str(&text).unwrap()))
}

/// YAML whose keys need not be strings: the file writes statuses as numbers.
fn from_yaml(value: serde_yaml::Value) -> Value {
    match value {
        serde_yaml::Value::Mapping(map) => Value::Object(
            map.into_iter()
                .map(|(key, value)| {
                    let key = key.as_str().map_or_else(|| key.as_u64().unwrap().to_string(), str::to_owned);
                    (key, from_yaml(value))
                })
                .collect(),
        ),
        serde_yaml::Value::Sequence(list) => list.into_iter().map(from_yaml).collect(),
        scalar => serde_json::to_value(scalar).unwrap(),
    }
}

/// An OpenAPI 3.0 schema as JSON Schema 2020-12, closed: an object with named properties may have no others.
fn translated(schema: &Value) -> Value {
    let Value::Object(fields) = schema else { return schema.clone() };
    let mut out = Map::new();
    for (name, value) in fields {
        let value = match (name.as_str(), value) {
            ("nullable" | "example" | "description", _) => continue,
            // RFC 3339 wants seconds and an offset in a time; the vendor writes `15:00`.
            ("format", Value::String(format)) if format == "time" => continue,
            ("$ref", Value::String(target)) => json!(target.replace("#/components/schemas/", "#/$defs/")),
            ("properties", Value::Object(named)) => named.iter().map(|(k, v)| (k.clone(), translated(v))).collect(),
            ("oneOf" | "anyOf" | "allOf", Value::Array(list)) => list.iter().map(translated).collect(),
            ("items" | "additionalProperties", value) => translated(value),
            (_, value) => value.clone(),
        };
        out.insert(name.clone(), value);
    }
    if out.contains_key("properties") && !out.contains_key("additionalProperties") {
        out.insert("additionalProperties".to_owned(), json!(false));
    }
    let schema = Value::Object(out);
    if fields.get("nullable") == Some(&json!(true)) { json!({"anyOf": [schema, {"type": "null"}]}) } else { schema }
}

/// The schema of an operation's 200.
fn schema(description: &Value, method: &str, path: &str) -> jsonschema::Validator {
    let pointer = |part: &str| part.replace('/', "~1");
    let at = format!("/paths/{}/{method}/responses/200/content/application~1json/schema", pointer(path));
    let mut root = translated(description.pointer(&at).unwrap());
    let all = description.pointer("/components/schemas").unwrap().as_object().unwrap();
    root["$defs"] = all.iter().map(|(name, schema)| (name.clone(), translated(schema))).collect();
    let options = jsonschema::draft202012::options().should_validate_formats(true);
    options.build(&root).unwrap()
}

fn faults(validator: &jsonschema::Validator, answer: &Value) -> Vec<String> {
    validator.iter_errors(answer).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

fn booking(kind: &str) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs([("propertyID", "1001"), ("startDate", "2026-12-24"), ("endDate", "2026-12-27")])
        .extend_pairs([("guestFirstName", "Zoë"), ("guestLastName", "Žižek"), ("guestCountry", "SI")])
        .extend_pairs([("guestZip", "1000"), ("guestEmail", "zoe@example.com"), ("paymentMethod", "cash")])
        .extend_pairs([("rooms[0][roomTypeID]", kind), ("rooms[0][quantity]", "2")])
        .extend_pairs([("adults[0][roomTypeID]", kind), ("adults[0][quantity]", "3")])
        .extend_pairs([("children[0][roomTypeID]", kind), ("children[0][quantity]", "0")])
        .finish()
}

const UPLOAD: &str = "--b\r\nContent-Disposition: form-data; name=\"propertyID\"\r\n\r\n1001\r\n--b\r\n\
    Content-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\r\ncontent\r\n--b--\r\n";

/// Every operation in every form the sandbox can answer it: method, path in the description, query, content type, body.
async fn answers(sandbox: &Sandbox, key: &str) -> Vec<(&'static str, &'static str, Value)> {
    let mut client = Client::connect(sandbox, Http::One).await;
    let rooms = client.get("/api/v1.3/getRooms", key).await.json();
    let kind = rooms["data"][0]["rooms"][0]["roomTypeID"].as_str().unwrap().to_owned();
    let booked = client.post("/api/v1.3/postReservation", key, FORM, booking(&kind)).await.json();
    assert_eq!(booked["success"], true, "{booked}");
    let listed = client.get("/api/v1.3/getReservations", key).await.json();
    let old = listed["data"][0]["reservationID"].as_str().unwrap().to_owned();
    let new = booked["reservationID"].as_str().unwrap().to_owned();

    let mut answers = vec![("post", "/postReservation", booked)];
    let gets = [
        ("/getHotels", String::new()),
        ("/getHotels", "?propertyName=nothing".to_owned()),
        ("/getHotelDetails", "?propertyID=1001".to_owned()),
        ("/getRooms", String::new()),
        ("/getRooms", "?propertyID=1002&propertyIDs=1002".to_owned()),
        ("/getReservations", "?pageSize=5&pageNumber=2".to_owned()),
        ("/getReservations", "?includeAllRooms=true&includeGuestsDetails=true&includeCustomFields=true".to_owned()),
        ("/getReservations", "?status=no_show".to_owned()),
        ("/getReservation", format!("?reservationID={old}")),
        ("/getReservation", format!("?reservationID={new}")),
        ("/userinfo", String::new()),
        ("/userinfo", "?role_details=true".to_owned()),
    ];
    for (path, query) in gets {
        let answer = client.get(&format!("/api/v1.3{path}{query}"), key).await;
        assert_eq!(answer.status, 200);
        answers.push(("get", path, answer.json()));
    }
    let media = "multipart/form-data; boundary=b";
    let answer = client.post("/api/v1.3/postFile", key, media, Bytes::from_static(UPLOAD.as_bytes())).await;
    assert_eq!((answer.header("x-sandbox-file-bytes"), &answer.json()["success"]), ("7", &json!(true)));
    answers.push(("post", "/postFile", answer.json()));
    answers
}

#[tokio::test]
async fn every_answer_is_valid_and_has_no_field_of_its_own() {
    let Some(description) = description() else { return };
    let settings = Settings::demo();
    let key = settings.hotels[0].key.clone();
    let sandbox = sandbox::start(settings).await.unwrap();
    for (method, path, answer) in answers(&sandbox, &key).await {
        let faults = faults(&schema(&description, method, path), &answer);
        assert!(faults.is_empty(), "{path}: {faults:#?}\n{answer:#}");
    }
    sandbox.stop().await;
}

#[test]
fn the_check_finds_a_wrong_type_a_false_null_and_an_invented_field() {
    let Some(description) = description() else { return };
    let schema = schema(&description, "get", "/getReservations");
    let with = |field: &str, value: Value| json!({"success": true, "data": [{field: value}], "count": 1, "total": 1});
    assert!(faults(&schema, &with("groupCode", Value::Null)).is_empty());
    assert_eq!(faults(&schema, &with("status", Value::Null)).len(), 2);
    assert_eq!(faults(&schema, &with("adults", json!(2))).len(), 1);
    assert_eq!(faults(&schema, &with("dateCreated", json!("yesterday"))).len(), 1);
    assert_eq!(faults(&schema, &with("invented", json!("x"))).len(), 1);
}
