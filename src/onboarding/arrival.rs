//! From a code to a key in force: the part that must not lose anything.
//!
//! In: an app, a code, and the property it is to be for. Out: an [`Outcome`]. The order is fixed: make sure that a key
//! could be written, exchange the code once, write the key to disk, ask whose it is, put it into the key file, wait until
//! it is in force, try it. Killed at any point from the exchange on, the key is on disk or the user has no page and is
//! told to connect again; what is on disk is finished by the next process, or by [`later`] in this one.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::OwnedMutexGuard;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::{error, info, warn};

use super::exchange::{self, Code, Granted, Refusal};
use super::outcome::Outcome;
use super::{App, Codes, Onboarding};
use crate::cloudbeds::{Answer, Hotel, Unanswered};
use crate::keys::KeySet;
use crate::keys::names::Names;
use crate::keys::pending::{self, Arrived, Place};
use crate::keys::write::{self, WriteError};
use crate::property::PropertyId;

/// Between two attempts to finish what is on disk: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// A disk that fails once may not fail twice, and the key cannot be had again.
const WRITE_TRIES: u32 = 3;
const WRITE_PAUSE: Duration = Duration::from_millis(300);

/// What is to be exchanged.
pub(super) struct Order {
    /// The app's place in the settings.
    pub(super) app: usize,
    /// Nothing for a start at Cloudbeds.
    pub(super) asked: Option<PropertyId>,
    pub(super) code: Code,
}

/// Exchanges a code and brings the key into force.
pub(super) async fn arrive(onboarding: &Arc<Onboarding>, order: Order) -> Outcome {
    let Order { app, asked, code } = order;
    let Some(app) = onboarding.settings.apps.get(app) else { return Outcome::SetUp { asked } };
    let Some(codes) = &app.codes else { return Outcome::SetUp { asked } };
    if let Err(error) = could_write(onboarding, app, asked).await {
        error!(cause = %error, "a key could not be written, so the code was not exchanged");
        return Outcome::NotReady { asked };
    }
    // One exchange after the other for each property: the key that Cloudbeds issues last is the one that lives.
    let _turn = onboarding.turn(asked).await;
    let granted = match bought(onboarding, (app, codes), asked, &code).await {
        Ok(granted) => granted,
        Err(outcome) => return outcome,
    };
    let arrived = Arrived {
        key: granted.key,
        app: app.name.clone(),
        asked,
        opens: granted.properties,
        received: SystemTime::now(),
    };
    let Some(place) = kept(onboarding, &arrived).await else { return Outcome::NotSaved { asked } };
    let outcome = finish(onboarding, &place, arrived).await;
    if matches!(outcome, Outcome::Saved { .. }) && pending::look(&place).is_some() {
        tokio::spawn(later(Arc::clone(onboarding), place));
    }
    outcome
}

/// Whether a key that arrives now could be written: beside the key file, and into it.
pub(super) async fn could_write(onboarding: &Onboarding, app: &App, asked: Option<PropertyId>) -> Result<(), String> {
    let (keys, fields) = (onboarding.keys.path().to_owned(), onboarding.fields(&app.name, None, asked.as_slice()));
    let tried = spawn_blocking(move || {
        pending::check(&keys).map_err(|error| error.to_string())?;
        // Any property will do to find out what the file is like.
        let property = asked.unwrap_or(PropertyId::from(NonZeroU64::MIN));
        write::try_put(&keys, property, &fields).map_err(|error| error.to_string())
    });
    tried.await.unwrap_or_else(|error| Err(error.to_string()))
}

/// The one exchange.
async fn bought(
    onboarding: &Onboarding,
    (app, codes): (&App, &Codes),
    asked: Option<PropertyId>,
    code: &Code,
) -> Result<Granted, Outcome> {
    let property = asked.map(PropertyId::get);
    let (secret, redirect_uri) = (codes.secret.for_exchange(), codes.redirect_uri.as_str());
    let Ok(form) = exchange::form(&app.client_id, secret, redirect_uri, code) else {
        return Err(Outcome::NotReady { asked });
    };
    let calls = onboarding.calls(&app.name);
    // Whoever drops the last piece of it wipes it.
    let body = Bytes::from_owner(form.body);
    let Answer { status, body, .. } = match calls.post(&codes.exchange, &form.content_type, body).await {
        Ok(answer) => answer,
        Err(error @ (Unanswered::Unreachable(_) | Unanswered::NoTurn(_))) => {
            warn!(property, app = %app.name, cause = %error, "a code did not leave for Cloudbeds; the user may try again");
            return Err(Outcome::Unreachable { asked });
        }
        Err(error) => {
            warn!(property, app = %app.name, cause = %error, "no answer to an exchange; the user must connect again");
            return Err(Outcome::Unclear { asked });
        }
    };
    exchange::read(status, &body).map_err(|refusal| {
        let (app, status) = (&app.name, status.as_u16());
        match &refusal {
            Refusal::Code => info!(property, %app, status, "Cloudbeds refused a code"),
            Refusal::SetUp(words) => error!(
                property, %app, status, cloudbeds.says = words.as_deref(),
                "Cloudbeds does not accept the app: check its client_id, client_secret_file, redirect_uri and exchange_url"
            ),
            Refusal::Unclear(_) => warn!(property, %app, status, "an exchange was answered without a key"),
        }
        refusal.outcome(asked)
    })
}

/// Writes the key that has arrived, before anything else is done with it.
async fn kept(onboarding: &Onboarding, arrived: &Arrived) -> Option<Place> {
    for attempt in 1..=WRITE_TRIES {
        let (keys, copy) = (onboarding.keys.path().to_owned(), arrived.clone());
        match spawn_blocking(move || pending::keep(&keys, &copy)).await {
            Ok(Ok(place)) => {
                onboarding.count_waiting().await;
                return Some(place);
            }
            Ok(Err(error)) => error!(attempt, cause = %error, "a key that has arrived cannot be written to disk"),
            Err(error) => error!(attempt, cause = %error, "a key that has arrived cannot be written to disk"),
        }
        sleep(WRITE_PAUSE).await;
    }
    error!(property = arrived.asked.map(PropertyId::get), "a key is lost; the hotel must connect again");
    None
}

/// Goes on with a key that is on disk, until it is in the key file, dead or set aside. Whoever calls it for a property
/// has its turn.
async fn finish(onboarding: &Arc<Onboarding>, place: &Place, mut arrived: Arrived) -> Outcome {
    let asked = arrived.asked;
    let property = asked.map(PropertyId::get);
    let hotels = match onboarding.calls(&arrived.app).whose(&arrived.key, &onboarding.base_url).await {
        Ok(hotels) => hotels,
        Err(Unanswered::Rejected) => {
            info!(property, "Cloudbeds rejects a key that has arrived; it is dropped");
            settled(onboarding, place).await;
            return Outcome::Rejected { asked };
        }
        Err(error) => {
            warn!(property, cause = %error, "whose a new key is could not be asked yet");
            Vec::new()
        }
    };
    let verified = !hotels.is_empty();
    if verified {
        arrived.opens = hotels.iter().map(|hotel| hotel.property).collect();
    }
    if arrived.opens.is_empty() {
        return Outcome::Saved { property: asked };
    }
    let chosen = match choose(asked, &arrived.opens, &onboarding.keys.current()) {
        Some(chosen) => chosen,
        None => return aside(onboarding, place, arrived).await,
    };
    if let Err(outcome) = bound(onboarding, &arrived, &hotels, &chosen).await {
        return outcome;
    }
    settled(onboarding, place).await;
    let property = asked.or_else(|| chosen.first().copied());
    let in_force = onboarding.keys.comes_to(&chosen, &arrived.key, &onboarding.reload).await;
    if !in_force {
        error!(
            property = property.map(PropertyId::get),
            "a new key is in the key file and not in force: run check-config, the log says what is wrong with the file"
        );
    }
    let Some(property) = property.filter(|_| verified && in_force) else { return Outcome::Saved { property } };
    match onboarding.calls(&arrived.app).accepts(&arrived.key, &onboarding.base_url).await {
        Ok(()) => {
            info!(property = property.get(), properties = chosen.len(), app = %arrived.app, "connected");
            learnt(onboarding, property, &hotels).await;
            let hotel = hotels.into_iter().find(|hotel| hotel.property == property).map(|hotel| hotel.name);
            let hotel = hotel.filter(|name| !name.is_empty());
            Outcome::Connected { property, hotel, with: chosen }
        }
        Err(Unanswered::Rejected) => Outcome::Rejected { asked: Some(property) },
        Err(_) => Outcome::Saved { property: Some(property) },
    }
}

/// The properties that get the key; nothing where the one asked for is not among those it opens.
///
/// Of an organisation's key, the hotels that have no key or shared the one before it get it as well. One with a key of
/// its own keeps that: nobody asked for it here.
fn choose(asked: Option<PropertyId>, opens: &[PropertyId], set: &KeySet) -> Option<Vec<PropertyId>> {
    let Some(asked) = asked else { return Some(opens.to_vec()) };
    if !opens.contains(&asked) {
        return None;
    }
    let before = set.get(asked);
    let joins = |property: &PropertyId| match (set.get(*property), before) {
        (None, _) => true,
        (Some(has), Some(before)) => Arc::ptr_eq(has, before),
        (Some(_), None) => false,
    };
    let others = opens.iter().copied().filter(|property| *property != asked && joins(property));
    Some(std::iter::once(asked).chain(others).collect())
}

/// Another hotel than the one asked for: the key is not used, and not thrown away, since the one that hotel had before
/// may have ended with it.
async fn aside(onboarding: &Onboarding, place: &Place, arrived: Arrived) -> Outcome {
    let (Some(asked), opens) = (arrived.asked, arrived.opens.clone()) else {
        return Outcome::Saved { property: None };
    };
    let (keys, from) = (onboarding.keys.path().to_owned(), place.clone());
    let moved = spawn_blocking(move || pending::set_aside(&keys, &from, &arrived)).await;
    let file = match moved {
        Ok(Ok(file)) => file.display().to_string(),
        _ => place.path().display().to_string(),
    };
    let listed: Vec<_> = opens.iter().take(5).map(ToString::to_string).collect();
    warn!(
        property = asked.get(), opens = %listed.join(","), %file,
        "a key came for another property than the one asked for; it is not used, and kept in a file that says what to do"
    );
    onboarding.count_waiting().await;
    Outcome::WrongProperty { asked, opens }
}

/// Puts the key into the key file. An error is the outcome instead; the key stays on disk then.
async fn bound(
    onboarding: &Onboarding,
    arrived: &Arrived,
    hotels: &[Hotel],
    chosen: &[PropertyId],
) -> Result<(), Outcome> {
    let organization = match hotels {
        [first, _, ..] => first.organization.clone(),
        _ => None,
    };
    let fields = onboarding.fields(&arrived.app, organization, chosen);
    let (keys, key, properties) = (onboarding.keys.path().to_owned(), arrived.key.clone(), chosen.to_vec());
    let written = spawn_blocking(move || write::put(&keys, &properties, &key, &fields)).await;
    let cause = match written {
        Ok(Ok(_)) => return Ok(()),
        Ok(Err(error @ WriteError::Refused { .. })) => {
            error!(cause = %error, "a key that has arrived was revoked before");
            return Err(Outcome::Rejected { asked: arrived.asked });
        }
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    error!(
        property = arrived.asked.map(PropertyId::get), %cause,
        "a key is on disk and cannot be put into the key file yet; this is tried again"
    );
    Err(Outcome::Saved { property: arrived.asked })
}

/// What the trial of a key has taught: that it works, for whoever keeps verdicts, and what its hotels are called.
async fn learnt(onboarding: &Onboarding, property: PropertyId, hotels: &[Hotel]) {
    let set = onboarding.keys.current();
    if let Some(key) = set.get(property) {
        key.life().used();
    }
    let keys = onboarding.keys.path().to_owned();
    let found: Vec<_> = hotels.iter().map(|hotel| (hotel.property, hotel.name.clone())).collect();
    // A convenience of lists; without it they show ids.
    let _ = spawn_blocking(move || Names::learn(&keys, found, |property| set.contains(property))).await;
}

/// The key's own file goes, and with it those of earlier keys for the same property, which this one has ended.
async fn settled(onboarding: &Onboarding, place: &Place) {
    let (keys, place) = (onboarding.keys.path().to_owned(), place.clone());
    let removed = spawn_blocking(move || {
        if let Some(this) = pending::look(&place) {
            let (others, _) = pending::waiting(&keys);
            let ended = |other: &Arrived| {
                other.asked.is_some()
                    && (other.asked, &other.app) == (this.asked, &this.app)
                    && other.received < this.received
            };
            for (other, _) in others.iter().filter(|(_, other)| ended(other)) {
                pending::settle(other)?;
            }
        }
        pending::settle(&place)
    });
    match removed.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(cause = %error, "the file of a key that is in the key file cannot be removed"),
        Err(error) => warn!(cause = %error, "the file of a key that is in the key file cannot be removed"),
    }
    onboarding.count_waiting().await;
}

/// Goes on with what an earlier process, or an earlier attempt, left on disk, until it is done.
pub(super) async fn later(onboarding: Arc<Onboarding>, place: Place) {
    let mut pause = FIRST_PAUSE;
    loop {
        let Some(arrived) = pending::look(&place) else { return };
        let asked = arrived.asked;
        let turn: OwnedMutexGuard<()> = onboarding.turn(asked).await;
        // Somebody else may have had the turn, with a newer key.
        if pending::look(&place).is_none() {
            return;
        }
        let outcome = finish(&onboarding, &place, arrived).await;
        drop(turn);
        if pending::look(&place).is_none() {
            onboarding.metrics.onboarding().connect(outcome.counted());
            return;
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[u64]) -> Vec<PropertyId> {
        ids.iter().map(|id| id.to_string().parse().unwrap()).collect()
    }

    fn check(asked: Option<u64>, opens: &[u64], chosen: Option<&[u64]>) {
        let file = "\"1\": cbat_own\n\"2\": cbat_own2\nkeys: [{ key: cbat_shared, properties: [3, 4] }]\n";
        let set = KeySet::parse("keys", file).unwrap();
        let asked = asked.map(|id| id.to_string().parse().unwrap());
        assert_eq!(choose(asked, &ids(opens), &set), chosen.map(ids), "{asked:?} {opens:?}");
    }

    #[test]
    fn a_key_is_bound_to_the_property_asked_for_or_to_none() {
        check(Some(1), &[1], Some(&[1]));
        check(Some(9), &[9], Some(&[9]));
        check(Some(1), &[2], None);
        check(Some(1), &[2, 3], None);
        check(None, &[2], Some(&[2]));
    }

    #[test]
    fn an_organisations_key_is_shared_with_those_it_takes_nothing_from() {
        check(Some(9), &[8, 9], Some(&[9, 8]));
        check(Some(9), &[1, 9], Some(&[9]));
        check(Some(3), &[1, 3, 4, 9], Some(&[3, 4, 9]));
        check(None, &[1, 9], Some(&[1, 9]));
    }
}
