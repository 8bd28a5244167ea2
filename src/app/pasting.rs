//! From a pasted key to a key in force.
//!
//! In: a property and a key, from the admin listener. Out: the key in the key file and in force, after Cloudbeds has said
//! whose it is, or why not; until then nothing is written, so the former key goes on serving. The same as `keys add` in a
//! process that runs already.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{Mutex, Notify};
use tokio::task::spawn_blocking;
use tracing::info;

use crate::admin::{KeyDesk, NotPasted, Pasted, Pasting};
use crate::budget::Budgets;
use crate::cloudbeds::{Cloudbeds, Hotel, Unanswered, opens};
use crate::keys::names::Names;
use crate::keys::write::{self, Fields, WriteError, Written};
use crate::keys::{Key, KeyStore};
use crate::origin::Origin;
use crate::property::PropertyId;
use crate::secret::ApiKey;

/// Takes pasted keys.
pub(super) struct Desk {
    pub(super) store: Arc<KeyStore>,
    pub(super) calls: Cloudbeds,
    pub(super) budgets: Option<Arc<Budgets>>,
    pub(super) base_url: Origin,
    pub(super) reload: Arc<Notify>,
    /// One at a time: of two keys for one property the later one is meant to stay.
    pub(super) turn: Mutex<()>,
}

impl KeyDesk for Desk {
    fn put(&self, property: PropertyId, key: ApiKey) -> Pasting<'_> {
        Box::pin(self.take(property, key))
    }
}

impl Desk {
    async fn take(&self, property: PropertyId, key: ApiKey) -> Result<Pasted, NotPasted> {
        let _turn = self.turn.lock().await;
        // Before Cloudbeds is asked.
        self.write(move |file| write::try_put(&file, property, &Fields::default()).map(|()| Written::default()))
            .await?;
        let had = self.store.current().get(property).map(Arc::clone);
        let hotels = self.whose(&key, had.as_deref()).await?;
        opens(&hotels, &[property]).map_err(|why| NotPasted::Key(format!("nothing was written: {why}")))?;
        let copy = key.clone();
        let written = self.write(move |file| write::put(&file, &[property], &copy, &Fields::default())).await?;
        let what = match (written.added, written.replaced) {
            (0, 0) => "unchanged",
            (0, _) => "replaced",
            _ => "added",
        };
        let in_force = self.store.comes_to(&[property], &key, &self.reload).await;
        let fingerprint = key.digest().short();
        info!(property = property.get(), key.fingerprint = %fingerprint, in_force, "a key was pasted: {what}");
        self.learn(&hotels).await;
        let hotel = hotels.into_iter().find(|hotel| hotel.property == property).map(|hotel| hotel.name);
        Ok(Pasted { property, hotel: hotel.filter(|name| !name.is_empty()), key: what, fingerprint, in_force })
    }

    /// Asks Cloudbeds, where the former key's calls go.
    async fn whose(&self, key: &ApiKey, had: Option<&Key>) -> Result<Vec<Hotel>, NotPasted> {
        let budget = self.budgets.as_ref().and_then(|budgets| budgets.of(had.and_then(|had| had.app.as_deref())));
        let origin = had.and_then(|had| had.base_url.as_deref()).unwrap_or(&self.base_url);
        self.calls.within(budget.map(Arc::clone)).whose(key, origin).await.map_err(|why| {
            let words = format!("nothing was written, and a former key stays: {why}");
            match why {
                Unanswered::Rejected | Unanswered::UserLeft | Unanswered::PropertyLeft => NotPasted::Key(words),
                _ => NotPasted::Unverified(words),
            }
        })
    }

    async fn write(
        &self,
        work: impl FnOnce(PathBuf) -> Result<Written, WriteError> + Send + 'static,
    ) -> Result<Written, NotPasted> {
        let file = self.store.path().to_owned();
        match spawn_blocking(move || work(file)).await {
            Ok(written) => written.map_err(|error| NotPasted::NotWritten(error.to_string())),
            Err(error) => Err(NotPasted::NotWritten(error.to_string())),
        }
    }

    async fn learn(&self, hotels: &[Hotel]) {
        let (file, set) = (self.store.path().to_owned(), self.store.current());
        let found: Vec<_> = hotels.iter().map(|hotel| (hotel.property, hotel.name.clone())).collect();
        // A convenience of lists; without it they show ids.
        let _ = spawn_blocking(move || Names::learn(&file, found, |property| set.contains(property))).await;
    }
}
