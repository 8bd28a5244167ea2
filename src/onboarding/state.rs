//! Connections that have begun and not ended: what a state is good for, and for whom.
//!
//! In: a property somebody wants to connect, later the state and the cookie that come back from Cloudbeds. Out: at most
//! one leave to exchange a code per state, and the outcome of it for whoever comes back with the same again (a reload,
//! the back button). States live ten minutes, as codes do, in memory only, and their number is bounded. Codes that have
//! been used are remembered as long, so none is sent twice, whichever way it came.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::outcome::Outcome;
use super::token::Token;
use crate::property::PropertyId;

/// How long a state is good for: as long as Cloudbeds' code (API Keys Authentication Guide).
pub(super) const LIFE: Duration = Duration::from_secs(600);

/// States kept at once; the oldest goes first. At 100 bytes each they are cheap, and somebody who wants to push a
/// hotel's out must open this many links while it signs in.
const MOST: usize = 10_000;

/// How an outcome is waited for. `None` while the exchange is under way.
pub(super) type Waiting = watch::Receiver<Option<Outcome>>;

/// How an outcome is told, once.
pub(super) type Telling = watch::Sender<Option<Outcome>>;

/// The states and codes of this process.
pub(super) struct States {
    hashes: RandomState,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// The oldest first, which is also the order in which they expire.
    states: VecDeque<State>,
    codes: VecDeque<Code>,
}

struct State {
    state: Token,
    browser: Token,
    about: Asked,
    until: Instant,
    /// The exchange, once it has begun.
    begun: Option<Waiting>,
}

struct Code {
    /// Keyed, so that nobody can make two codes collide.
    hash: u64,
    until: Instant,
    /// For a start without a state: the outcome, told again to whoever has the code.
    begun: Option<Waiting>,
}

/// What somebody wants to connect.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Asked {
    pub(super) property: PropertyId,
    /// The app's place in the settings.
    pub(super) app: usize,
}

/// What a state that came back is worth.
pub(super) enum Claim {
    /// No such state: never issued, expired, or issued by a process that has ended.
    Unknown,
    /// It was issued to another browser.
    Stranger,
    /// Its exchange has begun already.
    Begun(Asked, Waiting),
    /// The code was used before, under another state.
    CodeUsed,
    /// Go ahead, and tell how it ended.
    Granted(Asked, Telling),
}

/// What a code without a state is worth.
pub(super) enum Start {
    /// It is being exchanged already, or has been.
    Begun(Waiting),
    /// It was used with a state.
    CodeUsed,
    /// Go ahead.
    Granted(Telling),
}

impl States {
    pub(super) fn new() -> Self {
        Self { hashes: RandomState::new(), inner: Mutex::default() }
    }

    /// A new state for a browser, and the value of that browser's cookie: the one it shows, if that is ours and still
    /// in use by another tab, else a fresh one. A value somebody planted in the browser is never taken over.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub(super) fn issue(&self, about: Asked, shown: Option<&Token>) -> Result<(Token, Token), getrandom::Error> {
        let state = Token::random()?;
        let fresh = Token::random()?;
        let mut inner = self.inner();
        let mut browser = fresh;
        for known in &inner.states {
            if shown.is_some_and(|shown| shown.is(&known.browser)) {
                browser = known.browser.clone();
            }
        }
        if inner.states.len() == MOST {
            inner.states.pop_front();
        }
        let until = Instant::now() + LIFE;
        inner.states.push_back(State { state: state.clone(), browser: browser.clone(), about, until, begun: None });
        Ok((state, browser))
    }

    /// Whether a state may go on to exchange this code, which it may once.
    pub(super) fn claim(&self, state: &Token, browser: Option<&Token>, code: &str) -> Claim {
        let hash = self.hash(code);
        let mut inner = self.inner();
        let inner = &mut *inner;
        let Some(at) = inner.find(state) else { return Claim::Unknown };
        let Some(known) = inner.states.get_mut(at) else { return Claim::Unknown };
        if !browser.is_some_and(|browser| browser.is(&known.browser)) {
            return Claim::Stranger;
        }
        if let Some(begun) = &known.begun {
            return Claim::Begun(known.about, begun.clone());
        }
        if inner.codes.iter().any(|code| code.hash == hash) {
            return Claim::CodeUsed;
        }
        let (telling, waiting) = watch::channel(None);
        known.begun = Some(waiting);
        inner.codes.push_back(Code { hash, until: Instant::now() + LIFE, begun: None });
        Claim::Granted(known.about, telling)
    }

    /// Whether a code that came without a state may be exchanged, which it may once.
    pub(super) fn start(&self, code: &str) -> Start {
        let hash = self.hash(code);
        let mut inner = self.inner();
        if let Some(known) = inner.codes.iter().find(|code| code.hash == hash) {
            return known.begun.clone().map_or(Start::CodeUsed, Start::Begun);
        }
        let (telling, waiting) = watch::channel(None);
        inner.codes.push_back(Code { hash, until: Instant::now() + LIFE, begun: Some(waiting) });
        Start::Granted(telling)
    }

    /// Nothing was sent: the state, if there was one, and the code are as good as before.
    pub(super) fn release(&self, state: Option<&Token>, code: &str) {
        let hash = self.hash(code);
        let mut inner = self.inner();
        inner.codes.retain(|code| code.hash != hash);
        if let Some(known) = state.and_then(|state| inner.find(state)).and_then(|at| inner.states.get_mut(at)) {
            known.begun = None;
        }
    }

    /// What a state is about, for a browser that comes back without a code, and the end of that state: the user said no.
    pub(super) fn end(&self, state: &Token, browser: Option<&Token>) -> Option<Asked> {
        let mut inner = self.inner();
        let at = inner.find(state)?;
        let known = inner.states.get(at)?;
        if known.begun.is_some() || !browser.is_some_and(|browser| browser.is(&known.browser)) {
            return None;
        }
        inner.states.remove(at).map(|state| state.about)
    }

    fn hash(&self, code: &str) -> u64 {
        self.hashes.hash_one(code)
    }

    /// The lock; what has expired is gone when it is held. No code that could panic runs under it.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        while inner.states.front().is_some_and(|state| state.until <= now) {
            inner.states.pop_front();
        }
        while inner.codes.front().is_some_and(|code| code.until <= now) {
            inner.codes.pop_front();
        }
        inner
    }
}

impl Inner {
    /// Where a state is. All are compared, each in constant time, so the time tells nothing.
    fn find(&self, state: &Token) -> Option<usize> {
        let mut found = None;
        for (at, known) in self.states.iter().enumerate() {
            if known.state.is(state) {
                found = Some(at);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(id: &str) -> Asked {
        Asked { property: id.parse().unwrap(), app: 0 }
    }

    fn granted(claim: &Claim) -> bool {
        matches!(claim, Claim::Granted(..))
    }

    #[tokio::test(start_paused = true)]
    async fn a_state_is_good_once_for_ten_minutes_in_its_own_browser() {
        let states = States::new();
        let (state, browser) = states.issue(asked("1003"), None).unwrap();
        let (late, _) = states.issue(asked("1003"), Some(&browser)).unwrap();
        let stranger = Token::random().unwrap();
        assert!(matches!(states.claim(&state, None, "a"), Claim::Stranger));
        assert!(matches!(states.claim(&state, Some(&stranger), "a"), Claim::Stranger));
        assert!(matches!(states.claim(&stranger, Some(&browser), "a"), Claim::Unknown));
        tokio::time::advance(LIFE - Duration::from_secs(1)).await;
        let Claim::Granted(about, _) = states.claim(&state, Some(&browser), "a") else { panic!("not granted") };
        assert_eq!(about, asked("1003"));
        assert!(matches!(states.claim(&state, Some(&browser), "b"), Claim::Begun(..)));
        assert!(matches!(states.claim(&late, Some(&browser), "a"), Claim::CodeUsed));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(matches!(states.claim(&late, Some(&browser), "c"), Claim::Unknown));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_sent_may_be_sent_later() {
        let states = States::new();
        let (state, browser) = states.issue(asked("1003"), None).unwrap();
        assert!(granted(&states.claim(&state, Some(&browser), "a")));
        states.release(Some(&state), "a");
        assert!(granted(&states.claim(&state, Some(&browser), "a")));
        assert!(matches!(states.start("a"), Start::CodeUsed));
        assert!(matches!(states.start("m"), Start::Granted(_)));
        assert!(matches!(states.start("m"), Start::Begun(_)));
        states.release(None, "m");
        assert!(matches!(states.start("m"), Start::Granted(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_no_ends_a_state_and_only_in_its_own_browser() {
        let states = States::new();
        let (state, browser) = states.issue(asked("1003"), None).unwrap();
        assert_eq!(states.end(&state, None), None);
        assert_eq!(states.end(&state, Some(&browser)), Some(asked("1003")));
        assert!(matches!(states.claim(&state, Some(&browser), "a"), Claim::Unknown));
    }

    #[tokio::test(start_paused = true)]
    async fn a_browsers_cookie_is_kept_while_it_is_ours_and_in_use() {
        let states = States::new();
        let planted = Token::random().unwrap();
        let (_, browser) = states.issue(asked("1003"), Some(&planted)).unwrap();
        assert!(!browser.is(&planted));
        let (_, same) = states.issue(asked("1004"), Some(&browser)).unwrap();
        assert!(same.is(&browser));
        tokio::time::advance(LIFE).await;
        let (_, fresh) = states.issue(asked("1004"), Some(&browser)).unwrap();
        assert!(!fresh.is(&browser));
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_only_so_many_and_the_oldest_goes() {
        let states = States::new();
        let (first, browser) = states.issue(asked("1003"), None).unwrap();
        let (second, same) = states.issue(asked("1003"), Some(&browser)).unwrap();
        for _ in 0..MOST - 1 {
            states.issue(asked("1"), None).unwrap();
        }
        assert_eq!(states.inner().states.len(), MOST);
        assert!(matches!(states.claim(&first, Some(&browser), "a"), Claim::Unknown));
        assert!(granted(&states.claim(&second, Some(&same), "a")));
    }
}
