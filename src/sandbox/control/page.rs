//! The control page: the state of everything, with a button for each act.
//!
//! In: the sandbox's state. Out: HTML without a script. Every button is a form posted to `/do`; the browser comes back
//! here and the page says what came of it, once.

use std::net::SocketAddr;

use askama::Template;
use http::header::REFERRER_POLICY;
use http::{HeaderValue, Response, StatusCode};
use serde_json::Value;

use super::view;
use crate::sandbox::body::Body;
use crate::sandbox::page::page as answer;
use crate::sandbox::routes::State;

/// How many requests and deliveries are shown.
const LAST: usize = 20;

#[derive(Template)]
#[template(path = "sandbox/control.html")]
struct Control {
    sandbox: String,
    said: Option<String>,
    now: String,
    apps: Vec<App>,
    budget: String,
    webhooks: String,
    rules: Vec<String>,
    mails: Vec<String>,
    requests: Vec<String>,
    delivered: Vec<String>,
}

struct App {
    client_id: String,
    name: String,
    redirect_uri: String,
    delivery: String,
    suspended: bool,
    hotels: Vec<Hotel>,
    unconnected: Vec<String>,
}

struct Hotel {
    property: String,
    name: String,
    state: String,
    key: String,
    left: bool,
}

pub(super) fn page(state: &State, sandbox: SocketAddr, said: Option<&str>) -> Response<Body> {
    let all = view::state(state);
    let manner = state.webhooks();
    let budget = all["budget"].as_object().map_or("no limit".to_owned(), |budget| {
        format!("{} calls a second, {} more before suspension", budget["per_second"], budget["tolerance"])
    });
    let webhooks = match (manner.copies, manner.reversed) {
        (0, _) => "lost".to_owned(),
        (copies, reversed) => format!("{copies} of each, {}", if reversed { "last first" } else { "in order" }),
    };
    let control = Control {
        sandbox: format!("https://localhost:{}", sandbox.port()),
        said: said.and_then(|ticket| state.said.redeem(ticket)),
        now: text(&all["now"]),
        apps: list(&all["apps"], app),
        budget,
        webhooks,
        rules: list(&all["rules"], rule),
        mails: list(&all["mails"], text),
        // Without the files that its own pages load.
        requests: newest(&view::requests(state, LAST * 3), request)
            .into_iter()
            .filter(|line| !is_file(line))
            .take(LAST)
            .collect(),
        delivered: newest(&view::webhooks(state), delivery).into_iter().take(LAST).collect(),
    };
    let mut answer = answer(StatusCode::OK, &control);
    // Under `no-referrer` browsers send `Origin: null` with a form, which is what a foreign page looks like.
    answer.headers_mut().insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    answer
}

fn app(app: &Value) -> App {
    App {
        client_id: text(&app["client_id"]),
        name: text(&app["name"]),
        redirect_uri: text(&app["redirect_uri"]),
        delivery: text(&app["delivery"]),
        suspended: app["suspended"] == true,
        unconnected: list(&app["unconnected"], text),
        hotels: list(&app["hotels"], |hotel| Hotel {
            property: text(&hotel["property"]),
            name: text(&hotel["name"]),
            state: text(&hotel["state"]),
            key: match hotel["key"].as_str() {
                Some("works") => format!("works, idle for {} days", hotel["idle_days"]),
                why => why.unwrap_or("none").to_owned(),
            },
            left: hotel["left"] == true,
        }),
    }
}

fn rule(rule: &Value) -> String {
    let (property, path) = (text(&rule["property"]), text(&rule["path"]));
    let whose = if property.is_empty() { "any property".to_owned() } else { format!("property {property}") };
    let what = if path.is_empty() { "any path".to_owned() } else { path };
    format!("the next {} of {whose}, {what}: {}", rule["times"], text(&rule["room"]))
}

fn request(request: &Value) -> String {
    let header = |name: &str| {
        let mut lines = request["headers"].as_array().into_iter().flatten();
        lines.find(|line| line[0] == name).map(|line| text(&line[1])).unwrap_or_default()
    };
    let (method, path) = (text(&request["method"]), text(&request["path"]));
    let property = header("x-property-id");
    format!("{method} {path}  {}  {property}", header("authorization")).trim_end().to_owned()
}

fn is_file(line: &str) -> bool {
    ["/connect/style.css", "/connect/script.js", "/favicon.ico"].iter().any(|path| line.contains(path))
}

fn delivery(one: &Value) -> String {
    let (old, new) = (text(&one["body"]["oldState"]), text(&one["body"]["newState"]));
    let came = one["status"].as_u64().map_or_else(|| text(&one["error"]), |status| status.to_string());
    let property = text(&one["body"]["propertyID_str"]);
    format!(
        "{} property {property}: {old} → {new}, try {}, {} : {came}",
        text(&one["at"]),
        one["attempt"],
        text(&one["endpoint"])
    )
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn list<T>(value: &Value, read: impl Fn(&Value) -> T) -> Vec<T> {
    value.as_array().into_iter().flatten().map(read).collect()
}

fn newest<T>(value: &Value, read: impl Fn(&Value) -> T) -> Vec<T> {
    value.as_array().into_iter().flatten().rev().map(read).collect()
}
