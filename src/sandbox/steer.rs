//! What a test may do to a running sandbox: everything that hotels, users, partners and time do to a key.
//!
//! In: calls on [`Sandbox`]. Out: the same effects that the pages and the API have. All take effect before they return.

use std::time::{Duration, SystemTime};

use super::accounts::{App, AppIndex, AppState, Budget, NotAnApp};
use super::connect::{Decided, made_up_state};
use super::{Cut, Delivered, Rule, Sandbox, Verdict, Webhooks};
use crate::property::PropertyId;

impl Sandbox {
    /// What time it is in the sandbox.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        self.state.clock.now()
    }

    /// Moves the sandbox's clock forward; up to a century in all.
    pub fn advance_clock(&self, by: Duration) {
        self.state.clock.advance(by);
    }

    /// Stops the sandbox's clock: from now on it only goes when it is moved, so that times in a test are exact.
    pub fn stop_clock(&self) {
        self.state.clock.stop();
    }

    /// Adds an app, or changes the one with its client id.
    ///
    /// # Errors
    /// When the vendor would not register it.
    pub fn set_app(&self, app: App) -> Result<(), NotAnApp> {
        app.check()?;
        self.state.accounts().set_app(app);
        Ok(())
    }

    /// The link that a hotel's user follows to connect an app (the vendor's guide, FAQ).
    #[must_use]
    pub fn connect_link(&self, property: PropertyId, client_id: &str) -> String {
        format!("{}/connect/{property}#/app/{client_id}", self.base_url())
    }

    /// The hotel's user approves an app, as if on the consent page. Out: where the browser is sent, with `code` and
    /// `state`; `None` for an unknown hotel or app, and where keys are delivered by e-mail. Without a `state` the
    /// sandbox makes one up, as in the marketplace.
    #[must_use]
    pub fn approve(&self, property: PropertyId, client_id: &str, state: Option<&str>) -> Option<String> {
        self.decided(property, client_id, state, false)
    }

    /// The same for all hotels of the organisation that `property` belongs to.
    #[must_use]
    pub fn approve_organization(&self, property: PropertyId, client_id: &str, state: Option<&str>) -> Option<String> {
        self.decided(property, client_id, state, true)
    }

    fn decided(&self, property: PropertyId, client_id: &str, state: Option<&str>, whole: bool) -> Option<String> {
        let app = self.app(client_id)?;
        let passed = state.map_or_else(made_up_state, str::to_owned);
        match self.state.approve(app, property, whole, &passed)? {
            Decided::Redirect(to) => Some(to),
            Decided::Told => None,
        }
    }

    /// The hotel's user says no. Out: where the browser is sent, with `error=access_denied`.
    #[must_use]
    pub fn deny(&self, client_id: &str, state: Option<&str>) -> Option<String> {
        let passed = state.map_or_else(made_up_state, str::to_owned);
        Some(self.state.deny(self.app(client_id)?, &passed))
    }

    /// The key that an app has for a hotel, dead or alive.
    #[must_use]
    pub fn key(&self, property: PropertyId, client_id: &str) -> Option<String> {
        let app = self.app(client_id)?;
        self.state.accounts().key(app, property, self.now()).map(|key| key.text.to_owned())
    }

    /// Resets an app's key for a connected hotel, as the vendor's list of keys does. The last one is dead; out comes the
    /// new one.
    pub fn regenerate(&self, property: PropertyId, client_id: &str) -> Option<String> {
        let app = self.app(client_id)?;
        self.state.accounts().regenerate(app, property, self.now())
    }

    /// From now on this key is answered the way Cloudbeds answers a revoked one.
    pub fn revoke(&self, key: &str) {
        self.state.accounts().revoke(key);
    }

    /// The hotel disconnects an app: its keys there are dead.
    pub fn disconnect(&self, property: PropertyId, client_id: &str) {
        if let Some(app) = self.app(client_id) {
            self.state.accounts().disconnect(app, property);
            self.state.announce();
        }
    }

    /// How an app stands with a hotel.
    #[must_use]
    pub fn app_state(&self, property: PropertyId, client_id: &str) -> AppState {
        self.app(client_id).map_or(AppState::Disabled, |app| self.state.accounts().state(app, property))
    }

    /// Whoever approved the hotel's keys so far does not work there any more: they answer 200 with `success:false`.
    pub fn user_left(&self, property: PropertyId) {
        self.state.accounts().user_left(property);
    }

    /// The hotel leaves the vendor (or comes back): 200 with `success:false` to every key.
    pub fn property_left(&self, property: PropertyId, left: bool) {
        self.state.accounts().set_left(property, left);
    }

    /// Ends every open connection at once, in the given way, and goes on accepting.
    pub fn cut_connections(&self, how: Cut) {
        self.state.cut.send_replace(how);
    }

    /// The apps' budget from now on; `None` leaves them alone.
    pub fn set_budget(&self, budget: Option<Budget>) {
        self.state.accounts().set_budget(budget);
    }

    /// What the judge saw of an app.
    #[must_use]
    pub fn verdict(&self, client_id: &str) -> Verdict {
        let seen = self.app(client_id).zip(self.state.judge());
        seen.map(|(app, judge)| judge.verdict(app)).unwrap_or_default()
    }

    /// Each call of an app that the judge saw as one too many in its second: when, since it saw the app first, and how
    /// many there were.
    #[must_use]
    pub fn excesses(&self, client_id: &str) -> Vec<(Duration, usize)> {
        let seen = self.app(client_id).zip(self.state.judge());
        seen.map(|(app, judge)| judge.excesses(app)).unwrap_or_default()
    }

    /// Ends an app's suspension.
    pub fn reinstate(&self, client_id: &str) {
        if let Some(app) = self.app(client_id) {
            self.state.accounts().reinstate(app);
        }
    }

    /// Whether an exchange says what its key opens, from now on.
    pub fn show_resources(&self, on: bool) {
        self.state.show_resources(on);
    }

    /// Makes trouble for requests to come.
    pub fn add_rule(&self, rule: Rule) {
        self.state.rules.add(rule);
    }

    /// Ends all trouble of [`add_rule`](Self::add_rule).
    pub fn clear_rules(&self) {
        self.state.rules.clear();
    }

    /// How webhooks are delivered from now on.
    pub fn set_webhooks(&self, manner: Webhooks) {
        self.state.set_webhooks(manner);
    }

    /// The last 1000 tries to deliver a webhook, oldest first.
    #[must_use]
    pub fn delivered(&self) -> Vec<Delivered> {
        self.state.delivered().iter().cloned().collect()
    }

    /// The notices sent by e-mail so far, one line each; nothing is really sent.
    #[must_use]
    pub fn mails(&self) -> Vec<String> {
        self.state.accounts().mails().to_vec()
    }

    fn app(&self, client_id: &str) -> Option<AppIndex> {
        self.state.accounts().find(client_id)
    }
}
