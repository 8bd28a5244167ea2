//! What the sections `apps` and `onboarding` mean.
//!
//! In: both as typed. Out: [`App`]s in the order they were written, the first of which is the default, and an
//! [`Onboarding`] where it is on. Secrets are named by their files here and read by others.

use std::collections::HashSet;

use super::check::{Check, RATE};
use super::raw::{self, Raw};
use super::{Admin, App, Delivery, Listener, Onboarding};
use crate::address::Address;
use crate::fault::is_word;
use crate::web::{Endpoint, NotAWebUrl, WebUrl};

/// The longest client id, in bytes; those seen have about 40.
const CLIENT_ID_MAX: usize = 128;

impl Check<'_, '_> {
    pub(super) fn apps(&mut self, raw: &Raw) -> Option<Vec<App>> {
        let (mut apps, mut taken, mut whole) = (Vec::<App>::new(), HashSet::new(), true);
        let common = raw.limits.clone().unwrap_or_default().requests_per_second;
        for (name, typed) in &raw.apps.0 {
            let Some(app) = self.app(name, typed, common) else {
                whole = false;
                continue;
            };
            if !taken.insert(app.client_id.clone()) {
                let hint = "one app per client id: Cloudbeds counts requests by it";
                self.app_fault(name, "client_id", "another app has it already", hint);
            }
            // Whoever comes from the Marketplace is told apart by the address alone.
            let same = |other: &&App| other.marketplace && other.redirect_uri == app.redirect_uri;
            if app.marketplace && apps.iter().any(|other| same(&other)) {
                self.app_fault(name, "redirect_uri", "another Marketplace app has it already", "give each its own");
            }
            apps.push(app);
        }
        whole.then_some(apps)
    }

    fn app(&mut self, name: &str, typed: &raw::App, common: u64) -> Option<App> {
        self.entry_name("apps", name)?;
        let id = &typed.client_id;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let named = !id.is_empty() && id.len() <= CLIENT_ID_MAX && id.bytes().all(plain) && is_word(id);
        if !named {
            let hint = "copy the client id from the app's details page at Cloudbeds";
            self.app_fault(name, "client_id", "expected the app's client id, such as live1_123_abc", hint);
        }
        let requests_per_second = typed.requests_per_second.unwrap_or(common);
        if !RATE.contains(&requests_per_second) && typed.requests_per_second.is_some() {
            let hint = "write what Cloudbeds grants the app, or leave it out for that of `limits`";
            self.app_fault(name, "requests_per_second", "expected 1 to 100000", hint);
        }
        let delivery = match typed.delivery.as_str() {
            "automatic" => Some(Delivery::Automatic),
            "email" => Some(Delivery::Email),
            _ => {
                self.app_fault(name, "delivery", "expected `automatic` or `email`", "");
                None
            }
        };
        let redirect_uri = match typed.redirect_uri.as_deref() {
            Some(text) => Some(self.web::<WebUrl>(name, "redirect_uri", text)?),
            None => None,
        };
        let exchange_url = self.web::<Endpoint>(name, "exchange_url", &typed.exchange_url);
        let connect_url = self.web::<WebUrl>(name, "connect_url", &typed.connect_url);
        let client_secret_file = match typed.client_secret_file.as_deref() {
            Some(text) if text.is_empty() || text.contains('\0') => {
                self.app_fault(name, "client_secret_file", "expected the path of a file", "");
                None
            }
            file => file.map(|file| self.base_dir.join(file)),
        };
        if typed.marketplace && redirect_uri.is_none() {
            let hint = "it is where the Marketplace sends the hotel's browser; add it as registered at Cloudbeds";
            self.app_fault(name, "marketplace", "wants a `redirect_uri`", hint);
        }
        let scopes = typed.scopes.clone();
        if !scopes.iter().all(|scope| is_word(scope) && !scope.is_empty()) {
            self.app_fault(name, "scopes", "expected a list of scopes such as read:hotel", "");
        }
        Some(App {
            name: name.to_owned(),
            client_id: id.clone(),
            client_secret_file,
            requests_per_second,
            redirect_uri,
            delivery: delivery?,
            exchange_url: exchange_url?,
            connect_url: connect_url?,
            marketplace: typed.marketplace,
            scopes,
        })
    }

    fn web<T: std::str::FromStr<Err = NotAWebUrl>>(&mut self, app: &str, option: &str, text: &str) -> Option<T> {
        text.parse().map_err(|error: NotAWebUrl| self.app_fault(app, option, &error.to_string(), "")).ok()
    }

    fn app_fault(&mut self, app: &str, option: &str, message: &str, hint: &str) {
        self.entry_fault("apps", app, option, message, hint);
    }

    /// Nothing when there is a fault; `Some(None)` when it is off.
    pub(super) fn onboarding(
        &mut self,
        typed: &raw::Onboarding,
        apps: &[App],
        listeners: &[Listener],
        admin: Option<&Admin>,
    ) -> Option<Option<Onboarding>> {
        let Some(listen) = &typed.listen else {
            let lonely = [
                ("onboarding.public_url", typed.public_url.is_some()),
                ("onboarding.webhook_path_secret_file", typed.webhook_path_secret_file.is_some()),
            ];
            for (option, _) in lonely.iter().filter(|(_, given)| *given) {
                self.fault(option, "has no effect without `onboarding.listen`", "add that, or remove this");
            }
            return Some(None);
        };
        let Ok(Address::Tcp(listen)) = listen.parse::<Address>() else {
            self.fault("onboarding.listen", "expected an address such as 127.0.0.1:8081", "");
            return None;
        };
        let address = Address::Tcp(listen);
        let taken = listeners.iter().any(|listener| listener.address.overlaps(&address))
            || admin.is_some_and(|admin| Address::Tcp(admin.listen).overlaps(&address));
        if taken {
            let hint = "hotels' browsers reach this one and must reach no other: give it another port";
            self.fault("onboarding.listen", "overlaps another listener", hint);
        }
        let public_url = typed.public_url.as_deref().map(str::parse::<WebUrl>);
        let public_url = match public_url {
            Some(Ok(url)) if url.path() == "/" => Some(url),
            Some(_) => {
                let hint = "write scheme and host as browsers see them, such as https://connect.example.com";
                self.fault("onboarding.public_url", "expected an https address without a path", hint);
                None
            }
            None => {
                let hint = "write it as browsers see it, such as https://connect.example.com";
                self.fault("onboarding", "`public_url` is missing", hint);
                None
            }
        };
        if apps.is_empty() && !self.sources.blamed_below("apps") {
            self.fault("onboarding", "wants an app to connect hotels to", "describe it below `apps:`");
        }
        for app in apps.iter().filter(|app| app.delivery == Delivery::Automatic) {
            let hint = "the exchange of a code for a key needs it; or set `delivery: email`";
            for (option, missing) in
                [("client_secret_file", app.client_secret_file.is_none()), ("redirect_uri", app.redirect_uri.is_none())]
            {
                if missing {
                    self.app_fault(&app.name, option, "is missing", hint);
                }
            }
        }
        let webhook = typed.webhook_path_secret_file.as_deref();
        let webhook_path_secret_file = webhook.and_then(|file| self.file("onboarding.webhook_path_secret_file", file));
        Some(Some(Onboarding { listen, public_url: public_url?, webhook_path_secret_file }))
    }
}
