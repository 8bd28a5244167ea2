//! What each page says: what happened, and what to do next.
//!
//! In: an [`Outcome`] or a [`Notice`]. Out: [`Words`] for the one template. They are for somebody who runs a hotel, not
//! a computer: no status, no error of a system, nothing secret, and of what came with the request only property ids.

use std::fmt::Write as _;

use http::StatusCode;

use super::outcome::Outcome;
use crate::property::PropertyId;

/// What a page says.
pub(super) struct Words {
    pub(super) status: StatusCode,
    pub(super) tone: Tone,
    /// The browser's tab, and what a link preview shows.
    pub(super) title: String,
    pub(super) heading: String,
    pub(super) happened: Vec<String>,
    pub(super) next: Vec<String>,
    /// Words and where they lead to. An empty target is the page itself, with a query that must not stand in it.
    pub(super) button: Option<(&'static str, String)>,
    pub(super) facts: Vec<(&'static str, String)>,
}

/// How a page feels.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Tone {
    Good,
    Wait,
    Bad,
}

impl Tone {
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Wait => "wait",
            Self::Bad => "bad",
        }
    }
}

/// A page that is about the request, before any connection ends.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Notice {
    /// For HEAD and for programs that fetch a link to show a preview of it.
    Start { property: PropertyId, link: String },
    /// A browser that fetches ahead: it is to come back when somebody really goes there.
    Ahead,
    /// The link names no property.
    NotAProperty,
    /// The link, or the redirect, is of no app of ours.
    UnknownApp,
    /// The state is not, or no longer, one of ours.
    StateUnknown,
    /// The state belongs to another browser.
    OtherBrowser,
    /// Cloudbeds' redirect without what it must carry.
    Incomplete,
    /// There is nothing here.
    NotFound,
    /// Another method than GET and HEAD.
    Method,
    /// We are at fault, such as without random numbers.
    Broken,
}

const AGAIN: &str = "Connect again";
const RELOAD: &str = "Try again";
const ASK: &str = "If it happens again, tell the people who gave you the link, with the reference below.";
const OPEN_AGAIN: &str = "Open the link you were given once more, in this browser.";

impl Words {
    fn new(status: StatusCode, tone: Tone, heading: impl Into<String>) -> Self {
        let heading = heading.into();
        Self {
            status,
            tone,
            title: heading.clone(),
            heading,
            happened: Vec::new(),
            next: Vec::new(),
            button: None,
            facts: Vec::new(),
        }
    }

    fn happened(mut self, sentence: impl Into<String>) -> Self {
        self.happened.push(sentence.into());
        self
    }

    fn next(mut self, step: impl Into<String>) -> Self {
        self.next.push(step.into());
        self
    }

    /// A new connection, where it is known of what; else the words alone.
    fn again(mut self, asked: Option<PropertyId>, app: Option<&str>) -> Self {
        match asked {
            Some(property) => self.button = Some((AGAIN, link(property, app))),
            None => self
                .next
                .insert(0, "Start again where you started: in the Cloudbeds Marketplace, or with your link.".into()),
        }
        self.about(asked)
    }

    fn reload(mut self) -> Self {
        self.button = Some((RELOAD, String::new()));
        self
    }

    fn about(mut self, property: Option<PropertyId>) -> Self {
        self.facts.extend(property.map(|property| ("Property", property.to_string())));
        self
    }
}

/// Where the connection of a property begins.
pub(super) fn link(property: PropertyId, app: Option<&str>) -> String {
    let mut link = format!("/connect/{property}");
    if let Some(app) = app {
        let app: String = form_urlencoded::byte_serialize(app.as_bytes()).collect();
        let _ = write!(link, "?app={app}"); // Writing to a String cannot fail.
    }
    link
}

/// The page of an outcome. `app` is the app's name here, for the link that connects again.
pub(super) fn outcome(outcome: &Outcome, app: Option<&str>) -> Words {
    let (good, wait, bad) = (Tone::Good, Tone::Wait, Tone::Bad);
    match outcome {
        Outcome::Connected { property, hotel, with } => {
            let heading = match hotel {
                Some(hotel) => format!("{hotel} is connected"),
                None => format!("Property {property} is connected"),
            };
            let mut words = Words::new(StatusCode::OK, good, heading)
                .happened("Cloudbeds has given us access, we have checked that it works, and it is in use from now on.")
                .next("Nothing. You can close this page.")
                .about(Some(*property));
            let others: Vec<String> = with.iter().filter(|id| *id != property).map(ToString::to_string).collect();
            if !others.is_empty() {
                words = words.happened("Access was given for your whole organization, so these hotels use it too.");
                words.facts.push(("Also", others.join(", ")));
            }
            words
        }
        Outcome::Saved { property } => Words::new(StatusCode::ACCEPTED, wait, "Saved, not yet checked")
            .happened("Cloudbeds has given us access and we have stored it safely. It could not be checked yet, most often because Cloudbeds does not answer at the moment.")
            .next("Nothing. We keep trying, and the connection starts to work by itself.")
            .next("If it still does not work in an hour, tell the people who gave you the link, with the reference below.")
            .about(*property),
        Outcome::Denied { asked } => Words::new(StatusCode::FORBIDDEN, wait, "Not connected: access was not allowed")
            .happened("You chose not to allow access at Cloudbeds, or your user there may not allow it. Nothing was changed.")
            .next("If that is what you wanted, you can close this page.")
            .next("If not, connect again and choose to allow it. Your Cloudbeds user must be allowed to manage apps.")
            .again(*asked, app),
        Outcome::CodeRefused { asked } => Words::new(StatusCode::GONE, bad, "This took too long, or was used already")
            .happened("Cloudbeds' permission is good for ten minutes and for one use. This one has expired or has been used, so nothing was changed by it.")
            .next("Connect again. It takes a minute.")
            .next(ASK)
            .again(*asked, app),
        Outcome::WrongProperty { asked, opens } => {
            let opened = opens.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let mut words = Words::new(StatusCode::CONFLICT, bad, "That was another hotel")
                .happened(format!("This link is for property {asked}, but at Cloudbeds you gave access to another one ({opened}). We do not use that access, and property {asked} is not connected by it."))
                .next(format!("In Cloudbeds, switch to property {asked}, then connect again."))
                .next("If you meant the other hotel, ask for a link for it: what you just allowed may have ended an older connection of that hotel.")
                .again(Some(*asked), app);
            words.facts.push(("You chose", opened));
            words
        }
        Outcome::SetUp { asked } => Words::new(StatusCode::BAD_GATEWAY, bad, "Not connected: the app is not set up correctly")
            .happened("Cloudbeds does not accept how our app introduces itself. This is our mistake, not yours, and nothing was changed.")
            .next("Tell the people who gave you the link, with the reference below. Once they have corrected it, connect again.")
            .about(*asked),
        Outcome::Unreachable { asked } => Words::new(StatusCode::SERVICE_UNAVAILABLE, wait, "Cloudbeds cannot be reached")
            .happened("We could not get through to Cloudbeds. Your permission has not been used and stays good for ten minutes.")
            .next("Wait a moment, then try again on this page. You do not have to allow access again.")
            .next(ASK)
            .reload()
            .about(*asked),
        Outcome::Unclear { asked } => Words::new(StatusCode::BAD_GATEWAY, bad, "Cloudbeds did not answer")
            .happened("We passed your permission on, and no usable answer came back. It may have been used up, so trying it again would not help.")
            .next("Connect again, and allow access once more.")
            .next(ASK)
            .again(*asked, app),
        Outcome::NotReady { asked } => Words::new(StatusCode::SERVICE_UNAVAILABLE, bad, "We cannot store your access right now")
            .happened("Our own storage does not work at the moment, so we have not used your permission. It stays good for ten minutes.")
            .next("Tell the people who gave you the link, with the reference below, then try again on this page.")
            .reload()
            .about(*asked),
        Outcome::NotSaved { asked } => Words::new(StatusCode::INTERNAL_SERVER_ERROR, bad, "Your access could not be stored")
            .happened("Cloudbeds has given us access, but our own storage failed, and it is lost. An older connection of this hotel may have ended.")
            .next("Tell the people who gave you the link, with the reference below. Once they have mended it, connect again.")
            .again(*asked, app),
        Outcome::Rejected { asked } => Words::new(StatusCode::CONFLICT, bad, "This access has ended already")
            .happened("Cloudbeds has given us access and at once refused it, as it does when a newer connection takes its place.")
            .next("If you connected twice, in two tabs for instance, the later one counts: nothing to do.")
            .next("Otherwise connect again.")
            .again(*asked, app),
        Outcome::Busy { asked } => Words::new(StatusCode::TOO_MANY_REQUESTS, wait, "One moment, please")
            .happened("Many connections are being made right now. Your permission has not been used and stays good for ten minutes.")
            .next("Wait half a minute, then try again on this page. You do not have to allow access again.")
            .reload()
            .about(*asked),
    }
}

/// The page of a notice.
pub(super) fn notice(notice: &Notice) -> Words {
    let (wait, bad) = (Tone::Wait, Tone::Bad);
    match notice {
        Notice::Start { property, link } => {
            let mut words = Words::new(StatusCode::OK, wait, format!("Connect property {property}"))
                .happened("This link connects a hotel with Cloudbeds. You sign in at Cloudbeds and choose there whether to allow access.")
                .about(Some(*property));
            words.button = Some(("Go to Cloudbeds", link.clone()));
            words
        }
        Notice::Ahead => Words::new(StatusCode::SERVICE_UNAVAILABLE, wait, "Not fetched ahead")
            .happened("This page is made when somebody really goes there.")
            .reload(),
        Notice::NotAProperty => Words::new(StatusCode::NOT_FOUND, bad, "This link is not complete")
            .happened("A link to connect a hotel ends with its property id, which consists of digits. This one does not.")
            .next("Open the link again as you received it: it may have been cut off when it was copied.")
            .next("If that does not help, ask for a new one."),
        Notice::UnknownApp => Words::new(StatusCode::NOT_FOUND, bad, "This app is not known here")
            .happened("The link, or the app at Cloudbeds that led you here, does not belong to any app that we run.")
            .next("Open the link again as you received it: it may have been cut off when it was copied.")
            .next("If that does not help, tell the people who gave you the link, with the reference below."),
        Notice::StateUnknown => Words::new(StatusCode::GONE, bad, "Please connect again")
            .happened("This connection was not begun here, was finished before, or took longer than ten minutes. If it was not finished, nothing was changed by it.")
            .next(OPEN_AGAIN)
            .next(ASK),
        Notice::OtherBrowser => Words::new(StatusCode::FORBIDDEN, bad, "Begun in another browser")
            .happened("This connection was begun in another browser, or this one does not keep cookies. To be safe, it can only be finished where it was begun. Nothing was changed.")
            .next("Go back to the browser where you opened the link, or open the link once more, in this browser.")
            .next("A private window, or a setting that blocks all cookies, can be the reason."),
        Notice::Incomplete => Words::new(StatusCode::BAD_REQUEST, bad, "Something is missing")
            .happened("Cloudbeds sends you to this page when you allow access, and adds what we need. This time it is not there.")
            .next(OPEN_AGAIN)
            .next(ASK),
        Notice::NotFound => Words::new(StatusCode::NOT_FOUND, bad, "There is nothing here")
            .happened("This address serves links to connect a hotel with Cloudbeds. They look like this: /connect/1001")
            .next("Open the link again as you received it."),
        Notice::Method => Words::new(StatusCode::METHOD_NOT_ALLOWED, bad, "This page can only be opened")
            .happened("Nothing can be sent to it."),
        Notice::Broken => Words::new(StatusCode::INTERNAL_SERVER_ERROR, bad, "Something went wrong on our side")
            .happened("Nothing was changed.")
            .next("Try again in a minute.")
            .next(ASK),
    }
}
