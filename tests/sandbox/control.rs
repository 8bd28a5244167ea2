//! The control listener: everything that can be done to the sandbox, by anybody on this machine and nobody else.

use std::net::SocketAddr;

use cloudbeds_auth_proxy::sandbox::{self, Sandbox, Settings, Unconnected};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::client::{Client, Http};

async fn started() -> (Sandbox, SocketAddr, String) {
    let mut settings = Settings::demo();
    settings.control = Some("127.0.0.1:0".parse().unwrap());
    let property = "1003".parse().unwrap();
    settings.unconnected = vec![Unconnected { property, name: "New".to_owned(), organization: None }];
    let client_id = settings.apps[0].client_id.clone();
    let sandbox = sandbox::start(settings).await.unwrap();
    let control = sandbox.control_address().unwrap();
    (sandbox, control, client_id)
}

/// One plain request: the status, and head and body as they came.
async fn raw(control: SocketAddr, line: &str, fields: &str, body: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(control).await.unwrap();
    let length = body.len();
    let request = format!("{line} HTTP/1.1\r\n{fields}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), head.to_owned(), body.to_owned())
}

async fn get(control: SocketAddr, path: &str) -> Value {
    let (status, _, body) = raw(control, &format!("GET {path}"), &format!("Host: {control}\r\n"), "").await;
    assert_eq!(status, 200);
    serde_json::from_str(&body).unwrap()
}

/// What an act answers.
async fn act(control: SocketAddr, query: &str) -> (u16, Value) {
    let host = format!("Host: {control}\r\n");
    let (status, _, body) = raw(control, &format!("POST /do?{query}"), &host, "").await;
    (status, serde_json::from_str(&body).unwrap())
}

#[tokio::test]
async fn every_act_has_its_effect_and_shows_in_the_state() {
    let (sandbox, control, client_id) = started().await;
    let mut client = Client::connect(&sandbox, Http::One).await;
    let key = |id: &str| sandbox.key(id.parse().unwrap(), &client_id);
    let mut status = async |key: &str| client.get("/api/v1.3/getHotelDetails", key).await.status.as_u16();

    let before = sandbox.now();
    assert_eq!(act(control, "do=clock&by=11m").await.0, 200);
    assert!(sandbox.now().duration_since(before).unwrap().as_secs() >= 660);

    let old = key("1001").unwrap();
    let fresh = act(control, "do=regenerate&property=1001").await.1["key"].as_str().unwrap().to_owned();
    assert_eq!((status(&old).await, status(&fresh).await), (401, 200));
    act(control, "do=revoke&property=1001").await;
    assert_eq!(status(&fresh).await, 401);
    let second = key("1002").unwrap();
    for (wanted, words) in
        [("property_left", "canceled: 1002"), ("property_back", ""), ("user_left", "not active anymore")]
    {
        act(control, &format!("do={wanted}&property=1002")).await;
        let mut client = Client::connect(&sandbox, Http::One).await;
        let body = client.get("/api/v1.3/getHotelDetails", &second).await.json();
        assert!(body["message"].as_str().unwrap_or_default().contains(words), "{wanted}: {body}");
    }
    let redirect = act(control, "do=approve&property=1003&state=abc").await.1["redirect"].to_string();
    assert!(redirect.contains("?code=") && redirect.contains("state=abc"), "{redirect}");
    assert!(act(control, "do=deny").await.1["redirect"].to_string().contains("access_denied"));
    act(control, "do=disconnect&property=1002").await;

    act(control, "do=budget&per_second=7").await;
    act(control, "do=webhooks&copies=2&reversed=yes").await;
    act(control, "do=resources&on=no").await;
    act(control, "do=fail&room=hang&times=3&path=getRooms&property=1001").await;
    act(control, "do=app&redirect_uri=https://a.example/x&email=keys@a.example&name=Other").await;
    let state = get(control, "/state").await;
    assert_eq!(state["budget"], json!({"per_second": 7, "tolerance": 20}));
    assert_eq!(state["webhooks"], json!({"copies": 2, "reversed": true}));
    assert_eq!(state["resources"], false);
    assert_eq!(state["rules"], json!([{"property": "1001", "path": "getRooms", "times": 3, "room": "hang"}]));
    let app = &state["apps"][0];
    assert_eq!((&app["name"], &app["delivery"]), (&json!("Other"), &json!("keys@a.example")));
    assert_eq!((&app["hotels"][0]["key"], &app["hotels"][2]["key"]), (&json!("revoked"), &Value::Null));
    assert_eq!((&app["hotels"][1]["state"], &app["hotels"][2]["state"]), (&json!("disabled"), &json!("pending")));
    for query in ["do=clear", "do=budget", "do=reinstate", "do=app&email=-&webhook=-"] {
        assert_eq!(act(control, query).await, (200, json!({"done": true})), "{query}");
    }
    let state = get(control, "/state").await;
    assert_eq!(
        (&state["budget"], &state["rules"], &state["apps"][0]["delivery"]),
        (&Value::Null, &json!([]), &json!("automatic"))
    );
    act(control, "do=cut").await;
    let request = http::Request::get("/").body(bytes::Bytes::new()).unwrap();
    assert!(client.send(request).await.is_err());
}

#[tokio::test]
async fn what_is_misspelt_or_missing_is_refused_with_a_sentence() {
    let (_sandbox, control, _) = started().await;
    for (query, words) in [
        ("", "`do` is missing"),
        ("do=clok&by=1d", "`do` must be clock, approve"),
        ("do=clock", "`by` is missing"),
        ("do=clock&by=soon", "a number and a unit"),
        ("do=clock&by=1d&proprety=1", "`proprety` means nothing here"),
        ("do=revoke", "`property` is missing"),
        ("do=revoke&property=0", "`property` cannot be read"),
        ("do=revoke&property=77", "has not connected this app"),
        ("do=approve&property=77", "no such hotel"),
        ("do=disconnect&property=1001&app=x", "no app with this client id"),
        ("do=fail&room=hang&times=-1", "`times` cannot be read"),
        ("do=cut&how=softly", "reset or fin"),
        ("do=app&redirect_uri=http://a.example/", "a redirect URI is https"),
    ] {
        let (status, answer) = act(control, query).await;
        assert_eq!(status, 400, "{query}");
        assert!(answer["error"].as_str().unwrap().contains(words), "{query}: {answer}");
    }
    let host = format!("Host: {control}\r\n");
    for line in ["GET /do?do=clear", "POST /state", "GET /nothing"] {
        assert_eq!(raw(control, line, &host, "").await.0, 404, "{line}");
    }
}

#[tokio::test]
async fn a_page_of_another_site_can_press_no_button_and_read_nothing() {
    let (sandbox, control, _) = started().await;
    let before = sandbox.now();
    let host = format!("Host: {control}\r\n");
    for fields in [
        format!("{host}Origin: http://evil.example\r\n"),
        format!("{host}Origin: null\r\n"),
        "Host: evil.example\r\n".to_owned(),
    ] {
        assert_eq!(raw(control, "POST /do?do=clock&by=31d", &fields, "").await.0, 403, "{fields}");
        assert_eq!(raw(control, "GET /state", &fields, "").await.0, 403, "{fields}");
    }
    assert!(sandbox.now().duration_since(before).unwrap().as_secs() < 86_400);
    let json = format!("{host}Origin: http://{control}\r\nContent-Type: application/json\r\n");
    assert_eq!(raw(control, "POST /do", &json, r#"{"do":"clock","by":"31d"}"#).await.0, 200);
    assert!(sandbox.now().duration_since(before).unwrap().as_secs() >= 31 * 86_400);
    let elsewhere = Settings { control: Some("192.0.2.1:0".parse().unwrap()), ..Settings::demo() };
    assert!(sandbox::start(elsewhere).await.err().unwrap().to_string().contains("must be on loopback"));
}

#[tokio::test]
async fn what_arrived_is_shown_without_its_credentials() {
    let (sandbox, control, client_id) = started().await;
    let key = sandbox.key("1001".parse().unwrap(), &client_id).unwrap();
    let mut client = Client::connect(&sandbox, Http::Two).await;
    client.get(&format!("/api/v1.3/getRooms?propertyID=1001&code=c0de5&note={key}"), &key).await;
    client.get("/api/v1.3/getHotels", "an-oauth-token").await;
    let shown = get(control, "/requests?last=2").await;
    let text = shown.to_string();
    assert_eq!((&shown[0]["path"], shown.as_array().unwrap().len()), (&json!("/api/v1.3/getRooms"), 2));
    for secret in [&key[5..], "c0de5", "an-oauth-token"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    assert!(text.contains("[\"propertyID\",\"1001\"]") && text.contains("Bearer cbat_****"), "{text}");
    assert_eq!(get(control, "/requests?last=1").await.as_array().unwrap().len(), 1);
    assert_eq!(get(control, "/webhooks").await, json!([]));
}

#[tokio::test]
async fn the_page_has_the_buttons_and_says_once_what_came_of_one() {
    let (_sandbox, control, client_id) = started().await;
    let fields = format!("Host: {control}\r\nAccept: text/html,*/*\r\nOrigin: http://{control}\r\n");
    let (status, head, page) = raw(control, "GET /", &fields, "").await;
    assert_eq!(status, 200);
    assert!(head.contains("content-security-policy: default-src 'none'"), "{head}");
    // A browser says where a form comes from only if the page lets it.
    assert!(head.contains("referrer-policy: same-origin"), "{head}");
    for words in ["Seaside Demo Hotel", &client_id, "31 days on", "User left", "Make trouble", "Reset all connections"]
    {
        assert!(page.contains(words), "{words}");
    }
    let form = format!("{fields}Content-Type: application/x-www-form-urlencoded\r\n");
    let (status, head, _) = raw(control, "POST /do", &form, "property=1001&do=regenerate").await;
    let location = head.lines().find_map(|line| line.strip_prefix("location: ")).unwrap();
    assert_eq!(status, 303);
    let said = raw(control, &format!("GET {location}"), &fields, "").await.2;
    assert!(said.contains("role=\"status\"") && said.contains("cbat_"), "{said}");
    let again = raw(control, &format!("GET {location}"), &fields, "").await.2;
    assert!(!again.contains("role=\"status\""));
}
