//! How a hotel connects itself: from a link to a key in force.
//!
//! - `GET /connect/{property}?app=…` sends the browser to Cloudbeds' consent page, with a state of ours
//! - the path of an app's `redirect_uri` takes it back, exchanges the code and says how it went
//! - `POST /webhook`, or `/webhook/{secret}`, hears from Cloudbeds that something has changed
//!
//! In: browsers and webhooks of strangers, on a listener of their own. Out: pages, and keys in the key file; the request
//! path reads them from there and knows nothing of this. No page, address, log line or metric holds a key, a code, a
//! state or a client secret. Everything runs on the control plane.

mod arrival;
mod callback;
mod connect;
mod cookie;
mod exchange;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod outcome;
mod pace;
mod page;
mod state;
mod token;
mod visitor;
mod webhook;
mod words;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use http::{Method, Request};
use hyper::body::{Body as _, Incoming};
use tokio::net::TcpListener;
use tokio::sync::{Notify, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};
use tracing::{error, warn};

use self::callback::Back;
use self::connect::First;
use self::cookie::Jar;
use self::pace::Pace;
use self::state::States;
use self::visitor::Visitor;
use self::webhook::Heard;
use self::words::Notice;
use crate::budget::Budgets;
use crate::cloudbeds::Cloudbeds;
use crate::https::Dialer;
use crate::keys::write::Fields;
use crate::keys::{KeyStore, pending};
use crate::origin::Origin;
use crate::property::PropertyId;
use crate::secret::{ClientSecret, Token};
use crate::telemetry::access::{AccessLog, End, Finished};
use crate::telemetry::metrics::{Connect, Metrics};
use crate::telemetry::{RequestId, RequestIds};
use crate::web::{Endpoint, WebUrl};
use crate::wire::server::{self, Answer, Bounds};

/// Browsers keep a connection or two open each.
const BOUNDS: Bounds = Bounds { name: "onboarding", connections: 256, last_answers: Duration::from_secs(2) };

/// How long exchanges under way may go on once the process is to end: the longest that one takes by itself.
const LAST_EXCHANGES: Duration = Duration::from_secs(30);

/// Exchanges at once, as permits of which each takes one.
const EXCHANGES: u32 = 1024;

/// Exchanges that are begun: at most so many in ten seconds, since a stranger can ask for them, and Cloudbeds would count
/// them against our client id.
const PACE: (usize, Duration) = (20, Duration::from_secs(10));

/// Where webhooks come to.
const WEBHOOK: &str = "/webhook";

/// What onboarding needs to know.
pub struct Settings {
    /// The partner apps; the first is meant where a link names none.
    pub apps: Vec<App>,
    /// Whether browsers reach this listener by https, through whatever stands before it.
    pub https: bool,
    /// The last segment of the webhook's path; nothing leaves it out.
    pub webhook: Option<Token>,
}

/// One partner app.
pub struct App {
    /// Its name in the configuration.
    pub name: String,
    /// Issued by Cloudbeds.
    pub client_id: String,
    /// What a connect link starts with.
    pub connect_url: WebUrl,
    /// How its codes become keys; nothing for one whose keys come by e-mail: its links only lead to Cloudbeds.
    pub codes: Option<Codes>,
}

/// How an app's codes become keys.
pub struct Codes {
    /// Issued by Cloudbeds.
    pub secret: ClientSecret,
    /// As registered with Cloudbeds, letter by letter.
    pub redirect_uri: WebUrl,
    /// Where the exchange is made.
    pub exchange: Endpoint,
    /// Whether hotels may start at Cloudbeds, without a state of ours.
    pub marketplace: bool,
}

impl App {
    /// The vendor's connect link (the guide, FAQ), which hands a state on unchanged.
    fn connect_link(&self, property: PropertyId, state: Option<&str>) -> String {
        let base = self.connect_url.as_str().trim_end_matches('/');
        let state = state.map(|state| format!("?state={state}")).unwrap_or_default();
        format!("{base}/{property}{state}#/app/{}", self.client_id)
    }
}

/// What onboarding works with; the composition root makes it.
pub struct Parts {
    /// Where keys are.
    pub keys: Arc<KeyStore>,
    /// Asks for a look at the key file.
    pub reload: Arc<Notify>,
    /// How Cloudbeds is reached.
    pub dialer: Dialer,
    /// What the apps may send; nothing where budgets are off.
    pub budgets: Option<Arc<Budgets>>,
    /// Where calls with a new key go.
    pub base_url: Origin,
    /// The counters.
    pub metrics: Metrics,
    /// Where access lines go.
    pub access: AccessLog,
}

/// Everything of it.
pub struct Onboarding {
    settings: Settings,
    jar: Jar,
    states: States,
    heard: Heard,
    pace: Pace,
    cloudbeds: Cloudbeds,
    budgets: Option<Arc<Budgets>>,
    base_url: Origin,
    keys: Arc<KeyStore>,
    reload: Arc<Notify>,
    metrics: Metrics,
    access: AccessLog,
    ids: Mutex<RequestIds>,
    /// Whose turn it is to get a key, by property; nothing stands for those whose property is not known yet.
    turns: Mutex<HashMap<Option<PropertyId>, Weak<tokio::sync::Mutex<()>>>>,
    exchanges: Arc<Semaphore>,
}

impl Onboarding {
    /// Makes it; nothing is served yet. `supply` is a number that no other supply of request ids has.
    #[must_use]
    pub fn new(settings: Settings, parts: Parts, supply: usize) -> Arc<Self> {
        let Parts { keys, reload, dialer, budgets, base_url, metrics, access } = parts;
        Arc::new(Self {
            jar: if settings.https { Jar::Guarded } else { Jar::Rehearsal },
            settings,
            states: States::new(),
            heard: Heard::new(),
            pace: Pace::new(PACE.0, PACE.1),
            cloudbeds: Cloudbeds::new(dialer).promptly(),
            budgets,
            base_url,
            keys,
            reload,
            metrics,
            access,
            ids: Mutex::new(RequestIds::new(supply)),
            turns: Mutex::default(),
            exchanges: Arc::new(Semaphore::new(EXCHANGES as usize)),
        })
    }

    /// The way to Cloudbeds for an app: its calls count like those of its traffic.
    fn calls(&self, app: &str) -> Cloudbeds {
        let budget = self.budgets.as_ref().and_then(|budgets| budgets.of(Some(app)));
        self.cloudbeds.within(budget.map(Arc::clone))
    }

    /// Serves until `shutdown` resolves, goes on with what an earlier process left on disk, and lets exchanges under way
    /// come to their end.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        self.resume().await;
        let here = Arc::clone(&self);
        let handler = move |request| {
            let here = Arc::clone(&here);
            async move { here.answer(request).await }
        };
        server::serve(listener, BOUNDS, handler, shutdown).await;
        let all = self.exchanges.acquire_many(EXCHANGES);
        if tokio::time::timeout(LAST_EXCHANGES, all).await.is_err() {
            warn!("an exchange with Cloudbeds was cut by the end of the process");
        }
    }

    async fn resume(self: &Arc<Self>) {
        let keys = self.keys.path().to_owned();
        let (waiting, faults) = tokio::task::spawn_blocking(move || pending::waiting(&keys)).await.unwrap_or_default();
        for fault in faults {
            warn!("{fault}");
        }
        self.metrics.onboarding().set_waiting(waiting.len());
        for (place, _) in waiting {
            tokio::spawn(arrival::later(Arc::clone(self), place));
        }
        // Better now than when the first hotel has come all the way.
        if let Some(app) = self.settings.apps.first()
            && let Err(cause) = arrival::could_write(self, app, None).await
        {
            error!(%cause, "onboarding cannot write keys, so no hotel can connect");
        }
    }

    /// One request, and its access line.
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        let started = Instant::now();
        let id = self.ids.lock().unwrap_or_else(PoisonError::into_inner).next();
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let webhook = self.webhook(&path);
        let (answer, property) = match webhook {
            Some(true) => {
                (webhook::answer(&self, &method, &request.headers().clone(), request.into_body()).await, None)
            }
            Some(false) => (page::page(&words::notice(&Notice::NotFound), id), None),
            None => self.visit(&method, &path, &request, id).await,
        };
        self.access.write(&Finished {
            id,
            caller: None,
            property,
            method: method.as_str(),
            // What is behind it is a secret, or somebody's attempt to guess one.
            path: if webhook.is_some() { WEBHOOK } else { &path },
            status: answer.status().as_u16(),
            code: None,
            end: End::Complete,
            bytes_up: 0,
            bytes_down: answer.body().size_hint().exact().unwrap_or_default(),
            total: started.elapsed(),
            upstream: None,
            connection: None,
            queued: None,
            upstream_protocol: None,
            upstream_request_id: None,
        });
        answer
    }

    /// Whether a path is the webhook's: with the right secret or the wrong one.
    fn webhook(&self, path: &str) -> Option<bool> {
        let rest = path.strip_prefix(WEBHOOK)?;
        let given = match rest.strip_prefix('/') {
            Some(given) => given,
            None if rest.is_empty() => "",
            None => return None,
        };
        Some(match &self.settings.webhook {
            Some(secret) => secret.is(given.as_bytes()),
            None => given.is_empty(),
        })
    }

    /// Whatever a browser opens.
    async fn visit(
        self: &Arc<Self>,
        method: &Method,
        path: &str,
        request: &Request<Incoming>,
        id: RequestId,
    ) -> (Answer, Option<PropertyId>) {
        let page = |notice: &Notice| page::page(&words::notice(notice), id);
        let (query, headers) = (request.uri().query().unwrap_or_default(), request.headers());
        let ours: Vec<usize> = self.with_redirect(path);
        let link = path.strip_prefix("/connect/");
        if ours.is_empty() && link.is_none() {
            return (page(&Notice::NotFound), None);
        }
        if method != Method::GET && method != Method::HEAD {
            return (page(&Notice::Method), None);
        }
        let visitor = Visitor::of(method, headers);
        if let Some(link) = link {
            let Ok(property) = link.trim_end_matches('/').parse::<PropertyId>() else {
                return (page(&Notice::NotAProperty), None);
            };
            let Some(app) = connect::app(&self.settings.apps, query) else {
                self.metrics.onboarding().connect(Connect::UnknownApp);
                return (page(&Notice::UnknownApp), Some(property));
            };
            let answer = match connect::begin(app, property, (visitor, query), headers, &self.states, self.jar) {
                First::Gone(answer) => {
                    self.metrics.onboarding().begun();
                    answer
                }
                First::Page(notice) => page(&notice),
            };
            return (answer, Some(property));
        }
        // A program without the browser's cookie gets no further; one that has it is that browser.
        if !matches!(visitor, Visitor::Person | Visitor::Program) {
            return (page(&Notice::Ahead), None);
        }
        match callback::back(self, &ours, query, headers).await {
            Back::Ended(outcome, app) => {
                let app = app.and_then(|app| self.settings.apps.get(app)).map(|app| app.name.as_str());
                (page::page(&words::outcome(&outcome, app), id), outcome.property())
            }
            Back::Page(notice) => {
                self.metrics.onboarding().connect(match notice {
                    Notice::OtherBrowser => Connect::OtherBrowser,
                    _ => Connect::StateUnknown,
                });
                (page(&notice), None)
            }
        }
    }

    /// The apps whose redirect URI has this path.
    fn with_redirect(&self, path: &str) -> Vec<usize> {
        let apps = self.settings.apps.iter().enumerate();
        let has = |app: &App| app.codes.as_ref().is_some_and(|codes| codes.redirect_uri.path() == path);
        apps.filter(|(_, app)| has(app)).map(|(at, _)| at).collect()
    }

    /// What a row says of a key besides the key: the app, unless it is the one that is meant without a word and the row
    /// there is now names no other.
    fn fields(&self, app: &str, organization: Option<String>, properties: &[PropertyId]) -> Fields {
        let first = self.settings.apps.first().is_some_and(|first| first.name == app);
        let set = self.keys.current();
        let named = |property: &PropertyId| set.get(*property).and_then(|key| key.app.as_deref());
        let other = properties.iter().filter_map(named).any(|named| named != app);
        Fields { app: (!first || other).then(|| app.to_owned()), organization, ..Fields::default() }
    }

    /// Waits for the turn to get a key for a property.
    async fn turn(&self, property: Option<PropertyId>) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| turn.strong_count() > 0);
            let held = turns.get(&property).and_then(Weak::upgrade);
            held.unwrap_or_else(|| {
                let turn = Arc::default();
                turns.insert(property, Arc::downgrade(&turn));
                turn
            })
        };
        turn.lock_owned().await
    }

    /// Held by an exchange, so that the end of the process waits for it. There are more permits than exchanges can be.
    fn under_way(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.exchanges).try_acquire_owned().ok()
    }

    /// Counts the keys that are on disk and in no key file.
    async fn count_waiting(&self) {
        let keys = self.keys.path().to_owned();
        if let Ok((waiting, _)) = tokio::task::spawn_blocking(move || pending::waiting(&keys)).await {
            self.metrics.onboarding().set_waiting(waiting.len());
        }
    }
}
