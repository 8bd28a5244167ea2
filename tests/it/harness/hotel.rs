//! A partner's app with onboarding switched on, and the browsers of hotels that connect.
//!
//! In: a sandbox with an app, and a proxy whose configuration names that app. Out: browsers that keep a cookie and follow
//! no redirect by themselves, so that a scene can stop anywhere. Every page is searched for keys, codes, states and the
//! client's secret.

use std::net::SocketAddr;
use std::sync::LazyLock;

use bytes::Bytes;
use cloudbeds_auth_proxy::property::PropertyId;
use cloudbeds_auth_proxy::sandbox::{self, App, Hotel, Protocols, Sandbox, Settings, Unconnected};
use http::{Method, Request};
use http_body_util::Full;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::client::unsearched;
use super::proxy::Builder;
use super::{Answer, Proxy, assert_clean, canary, in_time};

/// The app's client id.
pub const CLIENT: &str = "live1_1001_onboardingTests";

/// The app's secret. With characters that every coding writes in another way.
pub static SECRET: LazyLock<&str> =
    LazyLock::new(|| format!("{}+/=%{}", canary("a client secret"), canary("its other half")).leak());

/// The app's redirect URI; its host is nobody's, since the browsers here are told where to go.
pub const REDIRECT: &str = "https://connect.example.com/api_key";

/// The scene.
pub struct Hotels {
    pub cloudbeds: Sandbox,
    pub proxy: Proxy,
    /// The onboarding listener.
    pub connect: SocketAddr,
}

/// How it is set.
pub struct Scene {
    app: App,
    marketplace: bool,
    exchange: Option<String>,
    onboarding: String,
    secret: String,
    resources: bool,
    public: &'static str,
    protocols: Protocols,
    delivery: &'static str,
    another: Option<String>,
    granted: Option<usize>,
}

/// One browser, with its cookie.
#[derive(Clone, Default)]
pub struct Browser {
    pub cookie: Option<String>,
}

impl Scene {
    pub fn new() -> Self {
        Self {
            app: App::new(CLIENT, *SECRET, REDIRECT),
            marketplace: false,
            exchange: None,
            onboarding: String::new(),
            secret: SECRET.to_owned(),
            resources: true,
            public: "https://connect.example.com",
            protocols: Protocols::Both,
            delivery: "automatic",
            another: None,
            granted: None,
        }
    }

    /// Hotels may start at Cloudbeds.
    pub fn marketplace(mut self) -> Self {
        self.marketplace = true;
        self
    }

    /// Registers the app with Cloudbeds in another way than the proxy is told.
    pub fn registered(mut self, change: impl FnOnce(&mut App)) -> Self {
        change(&mut self.app);
        self
    }

    /// Gives the proxy another secret than the app's.
    pub fn secret(mut self, secret: &str) -> Self {
        self.secret = secret.to_owned();
        self
    }

    /// Exchanges codes somewhere else.
    pub fn exchange(mut self, url: &str) -> Self {
        self.exchange = Some(url.to_owned());
        self
    }

    /// Further options of the section `onboarding`, as lines of YAML.
    pub fn onboarding(mut self, lines: &str) -> Self {
        self.onboarding = lines.to_owned();
        self
    }

    /// The exchange does not say what its key opens.
    pub fn without_resources(mut self) -> Self {
        self.resources = false;
        self
    }

    /// A second app, `second`, with the same redirect URI and secret.
    pub fn another(mut self, client: &str) -> Self {
        self.another = Some(client.to_owned());
        self
    }

    /// The app's keys come by e-mail.
    pub fn by_email(mut self) -> Self {
        self.delivery = "email";
        self
    }

    /// The HTTP versions that Cloudbeds speaks.
    pub fn speaking(mut self, protocols: Protocols) -> Self {
        self.protocols = protocols;
        self
    }

    /// Cloudbeds grants the app so many calls a second, and a judge counts them.
    pub fn granted(mut self, per_second: usize) -> Self {
        self.granted = Some(per_second);
        self
    }

    /// Browsers reach the listener without TLS.
    pub fn plain(mut self) -> Self {
        self.public = "http://127.0.0.1:8081";
        self
    }

    /// The sandbox: hotels 1001 and 1002 with keys, 1003 and the organisation of 1004 and 1005 without.
    pub async fn cloudbeds(&self) -> (Sandbox, Vec<Hotel>) {
        let vacant = |(id, name, organization): (u64, &str, Option<&str>)| Unconnected {
            property: property(id),
            name: name.to_owned(),
            organization: organization.map(str::to_owned),
        };
        let unconnected =
            [(1003, "Lake & Forest", None), (1004, "North", Some("77")), (1005, "South", Some("77"))].map(vacant);
        let settings = Settings {
            apps: std::iter::once(self.app.clone())
                .chain(self.another.iter().map(|client| App::new(client, *SECRET, REDIRECT)))
                .collect(),
            unconnected: unconnected.into(),
            resources: self.resources,
            protocols: self.protocols,
            strict: self.granted,
            ..Settings::demo()
        };
        let hotels = settings.hotels.clone();
        (sandbox::start(settings).await.unwrap(), hotels)
    }

    /// A proxy for it, not started.
    pub fn proxy(&self, cloudbeds: &Sandbox, hotels: &[Hotel]) -> Builder {
        let exchange = match &self.exchange {
            Some(url) => url.clone(),
            None => format!("{}/api/v1.1/access_token", cloudbeds.base_url()),
        };
        let (url, secret) = (cloudbeds.base_url(), self.secret.clone());
        let Self { marketplace, public, onboarding: more, delivery, .. } = self;
        let app = |name: &str, client: &str| {
            format!(
                "{name}: {{ client_id: {client}, client_secret_file: client-secret, redirect_uri: \"{REDIRECT}\", \
                 delivery: {delivery}, marketplace: {marketplace}, exchange_url: \"{exchange}\", \
                 connect_url: \"{url}/connect\" }}"
            )
        };
        let limits = match self.granted {
            Some(granted) => format!("limits: {{ requests_per_second: {granted}, max_wait: 30s }}\n"),
            None => String::new(),
        };
        let apps: Vec<_> = [("main", Some(CLIENT)), ("second", self.another.as_deref())]
            .map(|(name, client)| client.map(|id| app(name, id)))
            .into();
        let apps = apps.into_iter().flatten().collect::<Vec<_>>().join(", ");
        Proxy::to(cloudbeds, hotels)
            .config(&format!(
                "{limits}apps: {{ {apps} }}\nonboarding: {{ listen: \"127.0.0.1:0\", public_url: \"{public}\"{more} }}"
            ))
            .secret_file("client-secret", &secret)
    }

    /// Everything, running.
    pub async fn start(self) -> Hotels {
        let (cloudbeds, hotels) = self.cloudbeds().await;
        let proxy = self.proxy(&cloudbeds, &hotels).start().await;
        let connect = onboarding(&proxy);
        Hotels { cloudbeds, proxy, connect }
    }
}

/// Asks the onboarding listener; nothing that is secret may be in its answer, but a state on its way to Cloudbeds and a
/// cookie on its way to the browser.
pub async fn visit(connect: SocketAddr, request: Request<Full<Bytes>>, secrets: &[String]) -> Answer {
    let mut answer = unsearched(connect, request).await;
    let whole = answer.headers.clone();
    for (name, from, to) in [("location", "?state=", '#'), ("set-cookie", "=", ';')] {
        let Some(value) = answer.header(name) else { continue };
        let Some((before, rest)) = value.split_once(from) else { continue };
        let (_secret, after) = rest.split_once(to).unwrap_or((rest, ""));
        let left = format!("{before}{from}{to}{after}").parse().unwrap();
        answer.headers.insert(http::HeaderName::from_static(name), left);
    }
    answer.assert_clean(secrets);
    answer.headers = whole;
    answer
}

/// Where a proxy's onboarding listener is.
pub fn onboarding(proxy: &Proxy) -> SocketAddr {
    let ready = proxy.events().into_iter().find(|event| event["message"] == "ready").unwrap();
    ready["onboarding"].as_str().unwrap().parse().unwrap()
}

pub fn property(id: u64) -> PropertyId {
    id.to_string().parse().unwrap()
}

impl Hotels {
    /// Opens a path in a browser, as somebody who types it in.
    pub async fn open(&mut self, browser: &mut Browser, target: &str) -> Answer {
        let navigation = [("sec-fetch-dest", "document"), ("sec-fetch-mode", "navigate")];
        self.ask(browser, Method::GET, target, &navigation).await
    }

    /// The same in a browser that is not told to do anything about the answer but to keep its cookie.
    pub async fn ask(
        &mut self,
        browser: &mut Browser,
        method: Method,
        target: &str,
        headers: &[(&str, &str)],
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(target).header("host", "connect.example.com");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(cookie) = &browser.cookie {
            request = request.header("cookie", cookie);
        }
        let answer = visit(self.connect, request.body(Full::default()).unwrap(), &self.proxy.secrets).await;
        if let Some(set) = answer.header("set-cookie") {
            browser.cookie = Some(set.split(';').next().unwrap().to_owned());
        }
        answer
    }

    /// The browser comes back from Cloudbeds, in a task of its own; the page.
    pub fn come_back(&self, browser: &Browser, back: &str) -> JoinHandle<Answer> {
        let cookie = browser.cookie.as_deref().unwrap_or_default();
        let request = Request::get(back).header("host", "connect.example.com").header("cookie", cookie);
        let (request, secrets) = (request.body(Full::default()).unwrap(), self.proxy.secrets.clone());
        let connect = self.connect;
        tokio::spawn(async move { visit(connect, request, &secrets).await })
    }

    /// The same where the process may end before or within its answer; whatever comes of it is searched.
    pub fn come_back_whatever_comes(&self, browser: &Browser, back: &str) -> JoinHandle<()> {
        let cookie = browser.cookie.as_deref().unwrap_or_default();
        let text = format!("GET {back} HTTP/1.1\r\nhost: x\r\ncookie: {cookie}\r\nconnection: close\r\n\r\n");
        let (connect, secrets) = (self.connect, self.proxy.secrets.clone());
        tokio::spawn(async move {
            let mut stream = TcpStream::connect(connect).await.unwrap();
            stream.write_all(text.as_bytes()).await.unwrap();
            let mut page = Vec::new();
            let _ = in_time(stream.read_to_end(&mut page)).await;
            assert_clean("a page", &page, &secrets);
        })
    }

    /// Opens the link of a property; the state that Cloudbeds is to hand back.
    pub async fn begin(&mut self, browser: &mut Browser, id: u64) -> String {
        let answer = self.open(browser, &format!("/connect/{id}?app=main")).await;
        assert_eq!(answer.status, 303, "{}", answer.text());
        let location = answer.header("location").unwrap();
        let start = format!("{}/connect/{id}?state=", self.cloudbeds.base_url());
        let state = location.strip_prefix(&start).unwrap_or_else(|| panic!("{location} is not {start}…"));
        let state = state.strip_suffix(&format!("#/app/{CLIENT}")).unwrap().to_owned();
        self.proxy.secrets.push(state.clone());
        self.proxy.secrets.push(browser.cookie.as_ref().unwrap().split_once('=').unwrap().1.to_owned());
        state
    }

    /// The user says yes at Cloudbeds; the path and query that the browser comes back with.
    pub fn approve(&mut self, id: u64, state: Option<&str>) -> String {
        let to = self.cloudbeds.approve(property(id), CLIENT, state).unwrap();
        self.way_back(&to)
    }

    /// The same for the whole organisation.
    pub fn approve_organization(&mut self, id: u64, state: Option<&str>) -> String {
        let to = self.cloudbeds.approve_organization(property(id), CLIENT, state).unwrap();
        self.way_back(&to)
    }

    fn way_back(&mut self, to: &str) -> String {
        let query = to.split_once('?').unwrap().1;
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if name == "code" {
                self.proxy.secrets.push(value.into_owned());
            }
        }
        to.strip_prefix("https://connect.example.com").unwrap().to_owned()
    }

    /// From the link to the page, all in one browser.
    pub async fn connect(&mut self, browser: &mut Browser, id: u64) -> Answer {
        let state = self.begin(browser, id).await;
        let back = self.approve(id, Some(&state));
        let page = self.open(browser, &back).await;
        self.remember_key(id);
        page
    }

    /// From now on no page and no log may hold the key that the hotel has at Cloudbeds.
    pub fn remember_key(&mut self, id: u64) {
        self.proxy.secrets.extend(self.cloudbeds.key(property(id), CLIENT));
    }

    /// How often codes were exchanged, well or not.
    pub fn exchanges(&self) -> usize {
        self.cloudbeds.requests().iter().filter(|seen| seen.target.ends_with("/access_token")).count()
    }

    /// Whether the property's next call works.
    pub async fn works(&self, id: u64) -> bool {
        let answer = self.proxy.get("/api/v1.3/getHotelDetails").property(&id.to_string()).send().await;
        answer.status == 200
            && answer.json()["success"] == true
            && answer.json()["data"]["propertyID"].as_str() == Some(&*id.to_string())
    }

    /// Kills the process and starts it again in the same directory.
    pub async fn restart(&mut self) {
        self.proxy.restart().await;
        self.connect = onboarding(&self.proxy);
    }

    /// The key file's text.
    pub fn key_file(&self) -> String {
        std::fs::read_to_string(self.proxy.path("keys.yaml")).unwrap()
    }

    /// The names of the files beside the configuration that hold keys outside the key file.
    pub fn beside(&self, what: &str) -> Vec<String> {
        let names = std::fs::read_dir(self.proxy.directory.path()).unwrap();
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name.starts_with(&format!("keys.yaml.{what}-")));
        names
    }
}

impl Answer {
    /// Asserts that it is a page of ours with this status and heading, guarded as every page is.
    pub fn assert_page(&self, status: u16, heading: &str) {
        let text = self.text();
        assert_eq!(self.status, status, "{text}");
        assert!(text.contains(&format!("<h1>{heading}</h1>")), "no {heading:?} in {text}");
        assert_eq!(self.header("content-type"), Some("text/html; charset=utf-8"));
        assert_eq!(self.header("cache-control"), Some("no-store"));
        assert_eq!(self.header("referrer-policy"), Some("no-referrer"));
        assert_eq!(self.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(self.header("x-frame-options"), Some("DENY"));
        let policy = self.header("content-security-policy").unwrap();
        for part in ["default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"] {
            assert!(policy.contains(part), "{policy}");
        }
        assert!(!policy.contains("unsafe") && !text.contains("<script") && !text.contains("://"), "{policy} {text}");
        assert!(text.contains("<dt>Reference</dt>"));
    }
}
