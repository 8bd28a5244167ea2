//! The redirect URI: where the browser comes back from Cloudbeds.
//!
//! In: a query with `code` and `state`, or with `error`, and the browser's cookie. Out: the outcome, or a notice. Whether
//! the exchange goes on does not depend on the browser: it runs in a task of its own, and whoever comes back with the
//! same state or code waits for the same outcome. The property comes from the state or from the exchange, never from the
//! query. Nothing of the query is logged.

use std::borrow::Cow;
use std::sync::Arc;

use http::HeaderMap;
use tracing::warn;

use super::Onboarding;
use super::arrival::{Order, arrive};
use super::exchange::Code;
use super::outcome::Outcome;
use super::state::{Claim, Start, Telling, Waiting};
use super::token::Token;
use super::words::Notice;

/// What a redirect led to.
pub(super) enum Back {
    /// An attempt that ended, and the app it was for.
    Ended(Outcome, Option<usize>),
    /// No attempt.
    Page(Notice),
}

/// The fields of a redirect, each at most once.
#[derive(Default)]
struct Fields<'a> {
    code: Option<Cow<'a, str>>,
    state: Option<Cow<'a, str>>,
    error: Option<Cow<'a, str>>,
}

impl<'a> Fields<'a> {
    /// Nothing where a field comes twice: neither is what Cloudbeds sent.
    fn of(query: &'a str) -> Option<Self> {
        let mut fields = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let field = match &*name {
                "code" => &mut fields.code,
                "state" => &mut fields.state,
                "error" => &mut fields.error,
                _ => continue,
            };
            if field.replace(value).is_some() {
                return None;
            }
        }
        Some(fields)
    }
}

/// Goes on with what the browser brings. `apps` are those with this redirect URI.
pub(super) async fn back(onboarding: &Arc<Onboarding>, apps: &[usize], query: &str, headers: &HeaderMap) -> Back {
    let Some(fields) = Fields::of(query) else { return Back::Page(Notice::Incomplete) };
    let state = fields.state.as_deref().and_then(Token::parse);
    let browser = onboarding.jar.shown(headers);
    if let Some(error) = fields.error {
        return ended(onboarding, &error, state.as_ref(), browser.as_ref());
    }
    let Some(code) = fields.code.as_deref().and_then(Code::parse) else { return Back::Page(Notice::Incomplete) };
    let claim = match &state {
        Some(state) => onboarding.states.claim(state, browser.as_ref(), code.as_str()),
        None => Claim::Unknown,
    };
    match claim {
        Claim::Stranger => Back::Page(Notice::OtherBrowser),
        Claim::Begun(about, waiting) => told(waiting, Some(about.app)).await,
        Claim::CodeUsed => code_used(onboarding, None),
        Claim::Granted(about, telling) => {
            let waiting = telling.subscribe();
            let order = Order { app: about.app, asked: Some(about.property), code };
            go_on(onboarding, order, state, telling);
            told(waiting, Some(about.app)).await
        }
        // Whoever starts in Cloudbeds' Marketplace has no state of ours, though perhaps one of Cloudbeds' own.
        Claim::Unknown => match marketplace(onboarding, apps) {
            Some(app) => match onboarding.states.start(code.as_str()) {
                Start::Begun(waiting) => told(waiting, Some(app)).await,
                Start::CodeUsed => code_used(onboarding, Some(app)),
                Start::Granted(telling) => {
                    let waiting = telling.subscribe();
                    go_on(onboarding, Order { app, asked: None, code }, None, telling);
                    told(waiting, Some(app)).await
                }
            },
            None => Back::Page(Notice::StateUnknown),
        },
    }
}

/// The app that somebody may have started with at Cloudbeds.
fn marketplace(onboarding: &Onboarding, apps: &[usize]) -> Option<usize> {
    let listed = |at: &&usize| {
        let codes = onboarding.settings.apps.get(**at).and_then(|app| app.codes.as_ref());
        codes.is_some_and(|codes| codes.marketplace)
    };
    apps.iter().find(listed).copied()
}

/// The user said no, or Cloudbeds did.
fn ended(onboarding: &Onboarding, error: &str, state: Option<&Token>, browser: Option<&Token>) -> Back {
    let about = state.and_then(|state| onboarding.states.end(state, browser));
    let (asked, app) = (about.map(|about| about.property), about.map(|about| about.app));
    // RFC 6749 4.1.2.1. The other errors of that list are about how the app is set up, or about Cloudbeds.
    let outcome = match error {
        "access_denied" => Outcome::Denied { asked },
        "server_error" | "temporarily_unavailable" => Outcome::Unclear { asked },
        _ => {
            warn!("Cloudbeds sent a browser back with an error that is about the app; check how it is set up there");
            Outcome::SetUp { asked }
        }
    };
    onboarding.metrics.onboarding().connect(outcome.counted());
    Back::Ended(outcome, app)
}

/// A code that we have sent before is not sent again to hear what Cloudbeds says.
fn code_used(onboarding: &Onboarding, app: Option<usize>) -> Back {
    let outcome = Outcome::CodeRefused { asked: None };
    onboarding.metrics.onboarding().connect(outcome.counted());
    Back::Ended(outcome, app)
}

/// Exchanges the code whatever the browser does from now on.
fn go_on(onboarding: &Arc<Onboarding>, order: Order, state: Option<Token>, telling: Telling) {
    let (onboarding, code) = (Arc::clone(onboarding), order.code.clone());
    let under_way = onboarding.under_way();
    tokio::spawn(async move {
        let outcome = match onboarding.pace.take() {
            true => arrive(&onboarding, order).await,
            false => Outcome::Busy { asked: order.asked },
        };
        if outcome.may_retry() {
            onboarding.states.release(state.as_ref(), code.as_str());
        }
        onboarding.metrics.onboarding().connect(outcome.counted());
        telling.send_replace(Some(outcome));
        drop(under_way);
    });
}

/// Waits for the outcome. Without one the exchange's task has ended in the middle, and what it did is not known.
async fn told(mut waiting: Waiting, app: Option<usize>) -> Back {
    let outcome = waiting.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
    Back::Ended(outcome.unwrap_or(Outcome::Unclear { asked: None }), app)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_comes_twice_makes_the_redirect_useless() {
        for bad in ["code=a&code=a", "code=a&state=b&state=c", "error=x&error=y"] {
            assert!(Fields::of(bad).is_none(), "{bad}");
        }
        let fields = Fields::of("code=a%2Bb&scope=x&scope=y&state=s&propertyID=7").unwrap();
        assert_eq!((fields.code.as_deref(), fields.state.as_deref(), fields.error), (Some("a+b"), Some("s"), None));
    }
}
