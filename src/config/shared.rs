//! What the section `shared` means.
//!
//! In: the section as typed, and what the apps are granted. Out: a [`Shared`] where a Redis is named, or faults: a
//! password in the file, a share that lets nothing through.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::check::Check;
use super::raw::Raw;
use super::{App, Limits, Share, Shared};
use crate::redis_url::{NotARedisUrl, RedisUrl, is_user};

/// The longest prefix of keys, in bytes.
const PREFIX_MAX: usize = 64;

/// The most starts in a second that one script hands out.
const RATE_MAX: u64 = 1000;

/// How long a replica may be cut off, and keep its share.
const CUT_OFF: RangeInclusive<Duration> = Duration::from_mins(1)..=Duration::from_hours(7 * 24);

impl Check<'_, '_> {
    pub(super) fn shared(&mut self, raw: &Raw, apps: &[App], limits: Option<&Limits>) -> Option<Option<Shared>> {
        let typed = &raw.shared;
        let Some(redis) = &typed.redis else {
            let lonely = [("user", typed.user.is_some()), ("password_file", typed.password_file.is_some())];
            for (option, _) in lonely.iter().filter(|(_, given)| *given) {
                self.fault(&format!("shared.{option}"), "is of no use without `shared.redis`", "name the server too");
            }
            return Some(None);
        };
        let url = redis.parse::<RedisUrl>().map_err(|error| {
            let hint = match error {
                NotARedisUrl::Password => "write it to a file that only this user may read: `shared.password_file`",
                _ => "",
            };
            self.fault("shared.redis", error.to_string(), hint);
        });
        if limits.is_none() {
            self.fault("shared.redis", "there are no budgets to share", "`limits` is null; remove one of the two");
        }
        for (name, granted) in budgets(apps, limits).filter(|(_, granted)| *granted > RATE_MAX) {
            let message = format!("replicas share at most {RATE_MAX} requests a second, not {granted} ({name})");
            let hint = "write what Cloudbeds grants you, or remove `shared.redis`";
            let of_limits = "limits.requests_per_second";
            // The figure that counts may be that of all apps.
            if raw.apps.0.iter().any(|(app, typed)| app == name && typed.requests_per_second.is_some()) {
                self.entry_fault("apps", name, "requests_per_second", &message, hint);
            } else if !self.sources.blamed(of_limits) {
                self.fault(of_limits, message, hint);
            }
        }
        let user = typed.user.clone();
        if user.as_deref().is_some_and(|user| !is_user(user)) {
            self.fault("shared.user", NotARedisUrl::User.to_string(), "");
        }
        if user.is_some() && url.as_ref().is_ok_and(|url| url.user.is_some()) {
            self.fault("shared.user", "the URL names a user already", "remove one of the two");
        }
        if (user.is_some() || url.as_ref().is_ok_and(|url| url.user.is_some())) && typed.password_file.is_none() {
            let hint = "write its password to a file, and name that in `shared.password_file`";
            self.fault("shared.user", "a user without a password is not sent to Redis", hint);
        }
        let password_file = typed.password_file.as_deref().and_then(|file| self.file("shared.password_file", file));
        if typed.ca_file.is_some() && url.as_ref().is_ok_and(|url| !url.tls) {
            self.fault("shared.ca_file", "is of no use without TLS", "write rediss:// in `shared.redis`");
        }
        let ca_file = typed.ca_file.as_deref().and_then(|file| self.file("shared.ca_file", file));
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        let prefix = typed.prefix.clone();
        if prefix.is_empty() || prefix.len() > PREFIX_MAX || !prefix.bytes().all(plain) {
            self.fault("shared.prefix", "expected 1 to 64 letters, digits, `-`, `_`, `.` or `:`", "");
        }
        let fallback_share = typed.fallback_share.and_then(|share| self.share(share, apps, limits));
        let cut_off = self.time("shared.cut_off", typed.cut_off, CUT_OFF);
        let url = url.ok()?;
        let user = user.or_else(|| url.user.clone());
        Some(Some(Shared { url, user, password_file, ca_file, prefix, fallback_share, cut_off }))
    }

    fn share(&mut self, typed: f64, apps: &[App], limits: Option<&Limits>) -> Option<Share> {
        let option = "shared.fallback_share";
        let hint = "write 1 divided by the most replicas you run, or leave it out";
        let Some(share) = Share::new(typed) else {
            self.fault(option, "expected a number above 0 and up to 1", hint);
            return None;
        };
        if let Some((name, granted)) = budgets(apps, limits).find(|(_, granted)| share.of(*granted) == 0) {
            let message = format!("leaves no whole request a second of {granted} ({name})");
            self.fault(option, message, "shares are whole requests: run fewer replicas, or leave it out");
            return None;
        }
        Some(share)
    }
}

/// What is shared, with the name of the app it is granted to.
fn budgets<'a>(apps: &'a [App], limits: Option<&Limits>) -> impl Iterator<Item = (&'a str, u64)> {
    let default = limits.filter(|_| apps.is_empty()).map(|limits| ("the default", limits.requests_per_second));
    apps.iter().map(|app| (app.name.as_str(), app.requests_per_second)).chain(default)
}
