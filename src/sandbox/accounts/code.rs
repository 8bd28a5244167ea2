//! Authorization codes: ten minutes, one use (the vendor's guide, "Exchange your authorization_code for an API key").
//!
//! In: an approval, later a code that somebody sends. Out: whose code it is, or nothing: unknown, used and expired codes
//! look the same from outside, as they do at the vendor.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use super::{AppIndex, Owner};
use crate::sandbox::keys::random_token;

/// How long a code can be exchanged.
pub(super) const LIFE: Duration = Duration::from_secs(600);

/// Letters and digits of a code, as the guide shows one.
const LENGTH: usize = 32;

/// Codes beyond this many push out those that are of no use any more.
const KEPT: usize = 1000;

struct Code {
    app: AppIndex,
    owner: Owner,
    issued: SystemTime,
    used: bool,
}

impl Code {
    fn is_good(&self, now: SystemTime) -> bool {
        !self.used && now.duration_since(self.issued).is_ok_and(|age| age <= LIFE)
    }
}

/// The codes that were handed out.
#[derive(Default)]
pub(super) struct Codes(HashMap<String, Code>);

impl Codes {
    pub(super) fn issue(&mut self, app: AppIndex, owner: Owner, now: SystemTime) -> String {
        if self.0.len() >= KEPT {
            self.0.retain(|_, code| code.is_good(now));
        }
        let code = random_token(LENGTH);
        self.0.insert(code.clone(), Code { app, owner, issued: now, used: false });
        code
    }

    /// Uses a code up: that of this app, unused, and young enough.
    pub(super) fn redeem(&mut self, text: &str, app: AppIndex, now: SystemTime) -> Option<Owner> {
        let code = self.0.get_mut(text).filter(|code| code.app == app && code.is_good(now))?;
        code.used = true;
        Some(code.owner.clone())
    }
}
