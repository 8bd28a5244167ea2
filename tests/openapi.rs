//! The sandbox's answers against the vendor's own description of them.
//!
//! In: the OpenAPI file, which is not ours to ship: `$CLOUDBEDS_OPENAPI`, else `../shared/openapi/pms-v1.3-openapi.yaml`
//! beside the repository. Out: for every operation the sandbox answers, its live answer is valid, and carries no field
//! the description does not name. Without the file the tests say that they were skipped, but fail when `CI=true`.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // Clippy knows a test by its attribute, not its helpers.

use std::path::PathBuf;

use bytes::Bytes;
use cloudbeds_auth_proxy::sandbox::{self, App, Sandbox, Settings};
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

/// An answer: method and path in the description, and what came.
type Answered = (&'static str, &'static str, Value);

/// Everything that can be asked without changing anything: path and query.
fn questions(old: &str, new: &str, kind: &str) -> Vec<(&'static str, String)> {
    let nights = "startDate=2026-06-01&endDate=2026-06-04";
    let plain = |path: &'static str| (path, String::new());
    vec![
        plain("/getHotels"),
        ("/getHotels", "propertyName=nothing".to_owned()),
        ("/getHotelDetails", "propertyID=1001".to_owned()),
        plain("/getRooms"),
        ("/getRooms", "propertyID=1002&propertyIDs=1002".to_owned()),
        plain("/getRoomTypes"),
        ("/getRoomTypes", format!("roomTypeIDs={kind}&maxGuests=2")),
        ("/getAvailableRoomTypes", format!("{nights}&rooms=1&adults=1&children=0")),
        ("/getAvailableRoomTypes", format!("{nights}&rooms=1&adults=1&children=0&detailedRates=true")),
        ("/getRatePlans", nights.to_owned()),
        ("/getRatePlans", format!("{nights}&detailedRates=true&roomTypeID={kind}")),
        ("/getRate", format!("{nights}&roomTypeID={kind}")),
        ("/getRate", format!("{nights}&roomTypeID={kind}&detailedRates=true")),
        plain("/getRateJobs"),
        ("/getReservations", "pageSize=5&pageNumber=2".to_owned()),
        ("/getReservations", "includeAllRooms=true&includeGuestsDetails=true&includeCustomFields=true".to_owned()),
        ("/getReservations", "status=no_show".to_owned()),
        ("/getReservation", format!("reservationID={old}")),
        ("/getReservation", format!("reservationID={new}")),
        ("/getGuest", format!("reservationID={old}")),
        plain("/getGuestList"),
        ("/getGuestList", "includeGuestInfo=true&status=confirmed".to_owned()),
        ("/getGuestList", "guestLastName=nobody".to_owned()),
        plain("/getDashboard"),
        ("/getDashboard", "date=2026-06-02".to_owned()),
        plain("/getSources"),
        plain("/getPaymentMethods"),
        plain("/getItems"),
        ("/getItem", "itemID=400001".to_owned()),
        ("/getItem", "itemID=400003".to_owned()),
        plain("/getItemCategories"),
        plain("/getHouseAccountList"),
        plain("/userinfo"),
        ("/userinfo", "role_details=true".to_owned()),
        plain("/getAppState"),
        plain("/getWebhooks"),
    ]
}

/// Everything that changes something, in an order that works; method, path and form.
fn posts(new: &str) -> Vec<(&'static str, &'static str, String)> {
    let rate = "rates[0][rateID]=60001&rates[0][interval]";
    let dates =
        |at: &str| format!("{rate}{at}[startDate]=2027-01-01&{rate}{at}[endDate]=2027-01-02&{rate}{at}[rate]=99.5");
    let dates = |at: &str| dates(at).replace(&format!("&{rate}"), "&rates[0][interval]");
    let of = |form: &str| format!("reservationID={new}&{form}");
    vec![
        ("post", "/putRate", dates("[0]")),
        ("post", "/patchRate", dates("")),
        ("post", "/postPayment", of("type=cash&amount=20.50")),
        ("post", "/postItem", of("itemID=400001&itemQuantity=2")),
        ("post", "/postItem", of("itemID=400003&itemQuantity=1&itemPaid=true")),
        (
            "post",
            "/postCustomItem",
            of("items[0][appItemID]=1&items[0][itemQuantity]=1&items[0][itemPrice]=5&items[0][itemName]=Tea"),
        ),
        ("post", "/postNewHouseAccount", "accountName=Pool".to_owned()),
        ("put", "/putHouseAccountStatus", "houseAccountID=200001&status=closed".to_owned()),
        ("post", "/postRoomAssign", of("newRoomID=50001-0")),
        ("post", "/postRoomAssign", of("newRoomID=50001-1")),
        ("post", "/postRoomCheckIn", of("")),
        ("post", "/postRoomCheckOut", of("")),
        ("put", "/putReservation", of("status=canceled&estimatedArrivalTime=15:00")),
        (
            "post",
            "/postWebhook",
            "object=integration&action=appstate_changed&endpointUrl=https://app.example/x".to_owned(),
        ),
        ("post", "/postAppState", "app_state=pending".to_owned()),
    ]
}

const UPLOAD: &str = "--b\r\nContent-Disposition: form-data; name=\"propertyID\"\r\n\r\n1001\r\n--b\r\n\
    Content-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\r\ncontent\r\n--b--\r\n";

/// Every operation in every form the sandbox can answer it.
async fn answers(sandbox: &Sandbox, key: &str) -> Vec<Answered> {
    let mut client = Client::connect(sandbox, Http::One).await;
    let rooms = client.get("/api/v1.3/getRooms", key).await.json();
    let kind = rooms["data"][0]["rooms"][0]["roomTypeID"].as_str().unwrap().to_owned();
    let booked = client.post("/api/v1.3/postReservation", key, FORM, booking(&kind)).await.json();
    assert_eq!(booked["success"], true, "{booked}");
    let listed = client.get("/api/v1.3/getReservations", key).await.json();
    let old = listed["data"][0]["reservationID"].as_str().unwrap().to_owned();
    let new = booked["reservationID"].as_str().unwrap().to_owned();
    let guest = booked["guestID"].as_str().unwrap().to_owned();

    let mut answers = vec![("post", "/postReservation", booked)];
    ask(&mut client, key, &questions(&old, &new, &kind), &mut answers).await;
    let mut posts = posts(&new);
    posts.push(("put", "/putGuest", format!("guestID={guest}&guestFirstName=Zo")));
    for (method, path, form) in posts {
        let request = http::Request::builder().method(method.to_uppercase().as_str()).uri(format!("/api/v1.3{path}"));
        let request = request.header("authorization", format!("Bearer {key}")).header("content-type", FORM);
        let answer = client.send(request.body(Bytes::from(form.clone())).unwrap()).await.unwrap().json();
        assert_eq!(answer["success"], true, "{path} {form}: {answer}");
        answers.push((method, path, answer));
    }
    // Once more, now that everything has changed.
    ask(&mut client, key, &questions(&old, &new, &kind), &mut answers).await;
    let hooks = client.get("/api/v1.3/getWebhooks", key).await.json();
    let target = format!("/api/v1.3/deleteWebhook?subscriptionID={}", hooks["data"][0]["id"].as_str().unwrap());
    let request = http::Request::delete(target).header("authorization", format!("Bearer {key}"));
    answers.push(("delete", "/deleteWebhook", client.send(request.body(Bytes::new()).unwrap()).await.unwrap().json()));
    let payment = answers.iter().find(|(_, path, _)| *path == "/postPayment").unwrap().2["paymentID"].clone();
    let form = format!("reservationID={new}&paymentID={}", payment.as_str().unwrap());
    answers.push(("post", "/postVoidPayment", client.post("/api/v1.3/postVoidPayment", key, FORM, form).await.json()));
    let media = "multipart/form-data; boundary=b";
    let answer = client.post("/api/v1.3/postFile", key, media, Bytes::from_static(UPLOAD.as_bytes())).await;
    assert_eq!((answer.header("x-sandbox-file-bytes"), &answer.json()["success"]), ("7", &json!(true)));
    answers.push(("post", "/postFile", answer.json()));
    answers.push(("post", "/access_token", exchanged(sandbox, &mut client).await));
    answers
}

async fn ask(client: &mut Client, key: &str, questions: &[(&'static str, String)], answers: &mut Vec<Answered>) {
    for (path, query) in questions {
        let answer = client.get(&format!("/api/v1.3{path}?{query}"), key).await;
        let json = answer.json();
        assert_eq!(answer.status, 200);
        // A key of 1001 opens no other hotel; a failure has its schema too.
        assert_eq!(json["success"] == false, query.contains("1002"), "{path}?{query}: {json}");
        answers.push(("get", path, json));
    }
}

/// The answer of an exchange. It ends the key that was used so far.
async fn exchanged(sandbox: &Sandbox, client: &mut Client) -> Value {
    let app = Settings::demo().apps[0].clone();
    sandbox.set_app(App { client_secret: "secret".to_owned(), ..app.clone() }).unwrap();
    let sent = sandbox.approve("1001".parse().unwrap(), &app.client_id, None).unwrap();
    let (_, query) = sent.split_once('?').unwrap();
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    let code = pairs.find(|(name, _)| name == "code").unwrap().1.into_owned();
    let grant = "urn:ietf:params:oauth:grant-type:api-key";
    let form = [
        ("grant_type", grant),
        ("client_id", &app.client_id),
        ("client_secret", "secret"),
        ("redirect_uri", &app.redirect_uri),
        ("code", &code),
    ];
    client.submit("/api/v1.3/access_token", &form).await.json()
}

#[tokio::test]
async fn every_answer_is_valid_and_has_no_field_of_its_own() {
    let Some(description) = description() else { return };
    let settings = Settings::demo();
    let key = settings.hotels[0].key.clone();
    let sandbox = sandbox::start(settings).await.unwrap();
    let mut found = Vec::new();
    let answers = answers(&sandbox, &key).await;
    let operations = include_str!("../src/sandbox/answers/operation.rs");
    let names: Vec<&str> = operations.split('"').skip(1).step_by(2).collect();
    assert!(names.len() > 30 && names.contains(&"getHotels"), "the operations are not found any more");
    for name in names {
        assert!(answers.iter().any(|(_, path, _)| path[1..] == *name), "{name} is not looked at");
    }
    for (method, path, answer) in answers {
        found.extend(faults(&schema(&description, method, path), &answer).iter().map(|fault| format!("{path}{fault}")));
    }
    assert!(found.is_empty(), "{found:#?}");
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
