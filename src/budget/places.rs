//! Where the places for starts come from: this process owns them all, or it leases them from those that replicas share.
//!
//! In: grants, and the loss of whoever grants. Out: whether one more start may be now. A lease is good until a moment of
//! our own clock. Whoever is left alone starts nothing on top of what it had: at first it replaces its own starts as they
//! run out, up to its share, and has its whole share once the others have made room for it. It reads no clock.

use std::time::Duration;

use tokio::time::Instant;

use super::shared::{ALL_FROM, Apart, Grant, VALID, lasts};
use super::window::Window;

/// How long after its last start a replica still leases ahead.
const ACTIVE: Duration = Duration::from_secs(10);

/// Whether one more may start.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Room {
    Now,
    /// Not before this moment.
    At(Instant),
    /// When somebody grants one.
    Asked,
}

/// Where places come from.
#[derive(Debug)]
pub(super) enum Places {
    /// All are ours.
    Own,
    /// Replicas share them.
    Leased(Leases),
}

/// What was granted.
#[derive(Debug)]
pub(super) struct Leases {
    /// At most so many are leased ahead.
    block: usize,
    /// Leased and not used, until then.
    pool: usize,
    until: Instant,
    /// Used since the report that is under way.
    taken: usize,
    /// When we last reported.
    reported: Instant,
    /// Kept places that may not start: others may have used them while we were alone.
    lapsed: usize,
    /// What is ours when we are alone, and the sum of all shares.
    share: usize,
    promised: usize,
    /// How long it is ours after the last report that was answered; for ever, where the configuration names it.
    lasts: Option<Duration>,
    /// When that report was sent.
    answered: Option<Instant>,
    alone: Option<Alone>,
    /// Starts a window that may be hoped for.
    rate: usize,
    /// When whoever grants is asked the next time, or grants something again.
    asked: Option<Instant>,
    last_start: Option<Instant>,
    pub(super) members: usize,
    /// How often we were left alone, once we were not.
    pub(super) losses: u64,
}

/// Without whoever grants.
#[derive(Clone, Copy, Debug)]
struct Alone {
    /// What our own window may have at first.
    cap: usize,
    /// When it may have the whole share.
    all_from: Instant,
}

impl Leases {
    /// Nothing is leased yet. A share that was configured can be used without a grant, but not before `all_from`.
    pub(super) fn new(granted: usize, apart: Apart, all_from: Instant, now: Instant) -> Self {
        let Apart { fallback, gone } = apart;
        Self {
            block: block(granted),
            pool: 0,
            until: now,
            taken: 0,
            reported: now,
            lapsed: 0,
            share: fallback.map_or(0, |fallback| fallback.share),
            promised: 0,
            lasts: fallback.is_none().then(|| lasts(gone)),
            answered: None,
            alone: Some(Alone { cap: 0, all_from }),
            rate: granted,
            asked: None,
            last_start: None,
            members: 0,
            losses: 0,
        }
    }

    pub(super) fn is_alone(&self) -> bool {
        self.alone.is_some()
    }

    /// Whether nobody keeps our share free any more.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.lasts.zip(self.answered).is_some_and(|(lasts, answered)| now >= answered + lasts)
    }

    /// What is ours when we are alone.
    pub(super) fn share(&self, now: Instant) -> usize {
        if self.is_over(now) { 0 } else { self.share }
    }

    /// The sum of all shares, as far as it is still true.
    pub(super) fn promised(&self, now: Instant) -> usize {
        if self.is_over(now) { 0 } else { self.promised }
    }

    /// What our window may have now, if we are alone.
    pub(super) fn cap(&self, now: Instant) -> Option<usize> {
        let share = self.share(now);
        self.alone.map(|alone| if now >= alone.all_from { share } else { alone.cap.min(share) })
    }

    /// What our whole window may have, kept places too, while nobody else is sure to keep them free for us. Without an
    /// answer that still holds it is as if we were alone.
    fn limit(&self, now: Instant) -> Option<usize> {
        if self.alone.is_none() && now >= self.until { Some(self.share(now)) } else { self.cap(now) }
    }

    /// Whoever grants is asked then.
    pub(super) fn asks(&mut self, at: Instant) {
        self.asked = Some(at);
    }

    /// When one may start at the earliest, where nothing is ours now: with the whole share, which is sure; where there is
    /// none, when somebody is asked for a place.
    fn earliest(&self, now: Instant) -> Option<Instant> {
        let alone = self.alone.filter(|_| self.cap(now) == Some(0))?;
        if self.share(now) > 0 { Some(alone.all_from) } else { self.asked }
    }

    /// Leased and not used.
    pub(super) fn pool(&self, now: Instant) -> usize {
        if now < self.until && self.alone.is_none() { self.pool } else { 0 }
    }

    /// Whether it should be asked for more, with so many waiting.
    pub(super) fn hungry(&self, waiting: usize, now: Instant) -> bool {
        self.pool(now) == 0 && (waiting > 0 || !self.is_idle(now))
    }

    /// Whether there was nothing to do for a while.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        self.last_start.is_none_or(|last| now >= last + ACTIVE)
    }

    /// What is wished for ahead of need: one place of our share also where there is none, in case we are left alone.
    pub(super) fn ahead(&self, now: Instant) -> usize {
        if self.is_idle(now) { self.share(now).min(1) } else { self.block }
    }

    fn room(&self, window: &Window, allowed: usize, now: Instant) -> Room {
        let Some(cap) = self.cap(now) else {
            return if window.used() >= allowed {
                Room::At(window.when(0, allowed, now))
            } else if self.pool(now) > 0 {
                Room::Now
            } else {
                Room::Asked
            };
        };
        let cap = cap.min(allowed);
        if window.used() < cap {
            return Room::Now;
        }
        let more = self.alone.map(|alone| alone.all_from).filter(|from| *from > now && self.share(now) > cap);
        let free = (cap > 0).then(|| window.when(0, cap, now));
        more.into_iter().chain(free).min().map_or(Room::Asked, Room::At)
    }

    /// Notes what is reported now.
    pub(super) fn report(&mut self, now: Instant) {
        (self.taken, self.reported) = (0, now);
    }

    /// What was answered to the report of `sent`.
    pub(super) fn granted(&mut self, grant: &Grant, sent: Instant, window: &Window, now: Instant) {
        let limit = self.limit(now);
        (self.share, self.promised, self.members, self.rate) =
            (grant.share, grant.promised, grant.members, grant.rate.max(1));
        self.answered = Some(sent);
        if grant.quiet > 0 {
            self.leave(window, now);
            self.asks(now + Duration::from_millis(grant.quiet).min(ALL_FROM));
            return;
        }
        if let Some(limit) = limit {
            // From now on they are counted again, but what is beyond our share may have been given to others.
            self.lapsed = window.used().saturating_sub(limit).min(window.kept());
        }
        self.alone = None;
        self.pool = grant.lease.saturating_sub(self.taken);
        self.until = sent + VALID;
    }

    /// Nobody grants any more.
    pub(super) fn leave(&mut self, window: &Window, now: Instant) {
        if self.alone.is_none() {
            let cap = window.used() + self.pool(now);
            self.alone = Some(Alone { cap, all_from: self.reported + ALL_FROM });
            self.losses += 1;
        }
        self.pool = 0;
    }

    /// Nothing starts any more.
    pub(super) fn close(&mut self, now: Instant) {
        (self.share, self.pool, self.alone) = (0, 0, Some(Alone { cap: 0, all_from: now }));
    }

    fn take(&mut self, now: Instant) -> bool {
        self.last_start = Some(now);
        if self.alone.is_some() {
            return false;
        }
        self.pool = self.pool.saturating_sub(1);
        self.taken += 1;
        self.pool <= self.block / 2
    }

    /// Whether the one that ends now had lapsed.
    fn kept_ended(&mut self) -> bool {
        let lapsed = self.lapsed > 0;
        self.lapsed = self.lapsed.saturating_sub(1);
        lapsed
    }
}

/// At most a quarter at a time, and at least one.
pub(super) fn block(granted: usize) -> usize {
    (granted / 4).max(1)
}

impl Places {
    /// Whether one more may start.
    pub(super) fn room(&self, window: &Window, allowed: usize, now: Instant) -> Room {
        match self {
            Self::Own if window.used() < allowed => Room::Now,
            Self::Own => Room::At(window.when(0, allowed, now)),
            Self::Leased(leases) => leases.room(window, allowed, now),
        }
    }

    /// A place is used. True when it is time to ask for more.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        match self {
            Self::Own => false,
            Self::Leased(leases) => leases.take(now),
        }
    }

    /// How many starts a window may be hoped to have.
    pub(super) fn hoped(&self, allowed: usize, now: Instant) -> usize {
        match self {
            Self::Own => allowed,
            Self::Leased(leases) => leases.cap(now).unwrap_or(leases.rate).clamp(1, allowed.max(1)),
        }
    }

    /// When one may start at the earliest, where that is known and not now.
    pub(super) fn earliest(&self, now: Instant) -> Option<Instant> {
        match self {
            Self::Own => None,
            Self::Leased(leases) => leases.earliest(now),
        }
    }

    /// How many are left for requests that come now.
    pub(super) fn left(&self, free: usize, window: &Window, now: Instant) -> usize {
        match self {
            Self::Own => free,
            Self::Leased(leases) => match leases.cap(now) {
                Some(cap) => cap.saturating_sub(window.used()).min(free),
                None => leases.pool(now).min(free),
            },
        }
    }

    /// Whether a start of that date may be dated `now` instead: not once others count on its place being free again.
    pub(super) fn may_date_anew(&self, at: Instant, window: &Window, now: Instant) -> bool {
        let Self::Leased(leases) = self else { return true };
        match leases.limit(now) {
            Some(limit) => window.used() <= limit,
            None => at > leases.reported || now.saturating_duration_since(at) <= Duration::from_millis(10),
        }
    }

    /// A kept place is about to start; false when it may not, since others may use it by now. A dial takes seconds.
    pub(super) fn may_start_kept(&mut self, window: &Window, now: Instant) -> bool {
        let Self::Leased(leases) = self else { return true };
        let lapsed = leases.kept_ended();
        match leases.limit(now) {
            Some(limit) => window.used() <= limit,
            None => !lapsed,
        }
    }

    /// A kept place has gone back.
    pub(super) fn kept_gone(&mut self) {
        if let Self::Leased(leases) = self {
            leases.kept_ended();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRANT: Grant = Grant {
        quiet: 0,
        lease: 2,
        share: 4,
        promised: 10,
        members: 3,
        rate: 3,
        pause: 0,
        paused: false,
        number: 0,
        trial: 0,
        soon: 0,
    };

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// A budget of ten, of which two are leased by the report of `now`.
    fn leased(now: Instant) -> (Leases, Window) {
        let (mut leases, window) = (Leases::new(10, Apart::default(), now + ALL_FROM, now), Window::new(10));
        assert_eq!(leases.room(&window, 10, now), Room::Asked, "nothing starts before the first answer");
        leases.report(now);
        leases.granted(&GRANT, now, &window, now + millis(20));
        (leases, window)
    }

    fn start(leases: &mut Leases, window: &mut Window, now: Instant) {
        assert_eq!(leases.room(window, 10, now), Room::Now);
        leases.take(now);
        window.start(now);
    }

    #[test]
    fn a_lease_ends_by_our_own_clock_counted_from_when_the_report_was_sent() {
        let t0 = Instant::now();
        let (mut leases, mut window) = leased(t0);
        start(&mut leases, &mut window, t0 + millis(30));
        assert_eq!(leases.room(&window, 10, t0 + VALID - millis(1)), Room::Now);
        assert_eq!(leases.room(&window, 10, t0 + VALID), Room::Asked);
    }

    #[test]
    fn places_used_while_the_answer_travels_are_not_had_twice() {
        let t0 = Instant::now();
        let (mut leases, mut window) = leased(t0);
        leases.report(t0 + millis(100));
        start(&mut leases, &mut window, t0 + millis(101));
        leases.granted(&GRANT, t0 + millis(100), &window, t0 + millis(102));
        start(&mut leases, &mut window, t0 + millis(103));
        assert_eq!(leases.room(&window, 10, t0 + millis(103)), Room::Asked);
    }

    #[test]
    fn whoever_is_left_alone_replaces_its_own_starts_and_later_has_its_whole_share() {
        let t0 = Instant::now();
        let (mut leases, mut window) = leased(t0);
        start(&mut leases, &mut window, t0 + millis(30));
        leases.report(t0 + millis(150));
        let left = t0 + millis(350);
        leases.leave(&window, left);
        // One start and one lease.
        start(&mut leases, &mut window, left);
        assert_eq!(leases.room(&window, 10, left), Room::At(t0 + millis(30 + 1040)));
        window.pass(t0 + millis(1070));
        start(&mut leases, &mut window, t0 + millis(1070));
        let all = t0 + millis(150) + ALL_FROM;
        window.pass(all);
        assert_eq!(leases.cap(all), Some(4));
        for _ in 0..4 {
            start(&mut leases, &mut window, all);
        }
        assert!(matches!(leases.room(&window, 10, all), Room::At(_)));
        // Leaving once more changes nothing.
        leases.leave(&window, all);
        assert_eq!(leases.cap(all), Some(4));
    }

    #[test]
    fn whoever_is_cut_off_ends_before_its_share_is_given_to_others() {
        let t0 = Instant::now();
        let apart = |fallback| Apart { fallback, gone: Duration::from_mins(10) };
        let (mut leases, window) = (Leases::new(10, apart(None), t0 + ALL_FROM, t0), Window::new(10));
        leases.report(t0);
        leases.granted(&GRANT, t0, &window, t0 + millis(20));
        // That it goes on asking changes nothing, since nobody may have read it.
        leases.report(t0 + Duration::from_mins(5));
        leases.leave(&window, t0 + Duration::from_mins(5));
        let end = t0 + Duration::from_mins(10);
        // By then the last of its starts counts no more, even if its clock is slower by two in a hundred.
        let last = end - Duration::from_secs(12) - super::super::window::COUNTS - VALID;
        assert_eq!((leases.cap(last - millis(1)), leases.promised(last - millis(1))), (Some(4), 10));
        assert_eq!((leases.cap(last), leases.share(last), leases.promised(last)), (Some(0), 0, 0));
        assert_eq!(leases.room(&window, 10, last), Room::Asked);
        assert_eq!(leases.ahead(last), 0);
        // One answer, and it has a share again.
        leases.report(end);
        leases.granted(&GRANT, end, &window, end);
        assert_eq!((leases.share(end), leases.is_over(end)), (4, false));
        // What the configuration names has no end: its places are kept free whoever is there.
        let fallback = Some(super::super::shared::Fallback { share: 5, parts: 2 });
        let mut configured = Leases::new(10, apart(fallback), t0 + ALL_FROM, t0);
        configured.report(t0);
        configured.granted(&Grant { share: 5, ..GRANT }, t0, &window, t0);
        configured.leave(&window, t0);
        assert_eq!(configured.cap(end), Some(5));
    }

    #[test]
    fn whoever_has_nothing_to_do_wishes_for_one_place_of_its_share() {
        let t0 = Instant::now();
        let (mut leases, mut window) = leased(t0);
        assert_eq!((leases.is_idle(t0), leases.ahead(t0)), (true, 1));
        start(&mut leases, &mut window, t0 + millis(1));
        assert_eq!((leases.is_idle(t0 + ACTIVE), leases.ahead(t0 + ACTIVE)), (false, 2));
        assert_eq!(leases.ahead(t0 + ACTIVE + millis(1)), 1);
        leases.granted(&Grant { share: 0, ..GRANT }, t0, &window, t0);
        assert_eq!(leases.ahead(t0 + ACTIVE + millis(1)), 0);
    }

    #[test]
    fn whoever_has_a_place_ahead_when_it_is_left_alone_has_it_at_once() {
        let t0 = Instant::now();
        let (mut leases, mut window) = (Leases::new(10, Apart::default(), t0 + ALL_FROM, t0), Window::new(10));
        leases.report(t0);
        leases.granted(&Grant { lease: 1, ..GRANT }, t0, &window, t0);
        leases.report(t0 + millis(150));
        leases.leave(&window, t0 + millis(300));
        start(&mut leases, &mut window, t0 + millis(900));
        assert_eq!(leases.room(&window, 10, t0 + millis(900)), Room::At(t0 + millis(1940)));
    }

    #[test]
    fn a_kept_place_starts_alone_only_within_what_the_window_may_have() {
        let t0 = Instant::now();
        let (leases, mut window) = leased(t0);
        for _ in 0..6 {
            window.keep();
        }
        let mut places = Places::Leased(leases);
        assert!(places.may_start_kept(&window, t0), "while somebody grants, it is reported in time");
        assert!(!places.may_start_kept(&window, t0 + VALID), "no answer holds any more");
        let Places::Leased(leases) = &mut places else { return };
        leases.report(t0);
        leases.granted(&GRANT, t0, &window, t0);
        leases.leave(&window, t0);
        // Six, where four are ours: that they were reported helps them no more.
        for may in [false, false, true, true] {
            assert_eq!(places.may_start_kept(&window, t0), may);
            if !may {
                window.forget_kept();
            }
        }
    }

    #[test]
    fn who_was_alone_does_not_bring_back_kept_places_that_others_may_have_used() {
        let t0 = Instant::now();
        let (mut leases, mut window) = leased(t0);
        for _ in 0..6 {
            window.keep();
        }
        leases.leave(&window, t0);
        let back = t0 + Duration::from_secs(5);
        leases.report(back);
        leases.granted(&GRANT, back, &window, back);
        let mut places = Places::Leased(leases);
        assert_eq!([0; 6].map(|_| places.may_start_kept(&window, back)), [false, false, true, true, true, true]);
    }

    #[test]
    fn a_start_is_dated_anew_only_while_an_answer_holds_or_within_the_share() {
        let t0 = Instant::now();
        let (mut leases, mut window) = leased(t0);
        for _ in 0..6 {
            window.start(t0 + millis(1));
        }
        leases.report(t0);
        let places = Places::Leased(leases);
        assert!(places.may_date_anew(t0 + millis(1), &window, t0 + VALID - millis(1)));
        assert!(!places.may_date_anew(t0 + millis(1), &window, t0 + VALID));
    }
}
