//! Who waits, and whose turn it is.
//!
//! In: requests, each of a hotel, that cannot start yet. Out: one after the other, by deficit round robin (Shreedhar and
//! Varghese, 1995) over the hotels: each hotel has its turn, in which as many of its requests go as its weight says, in
//! the order of their arrival. A turn costs the same whether ten hotels wait or ten thousand. Requests of low priority go
//! when no others wait, and otherwise are together as one more hotel, so that they yield; they have every hundredth turn
//! at least, so that they do not starve, and every tenth at most. A hotel may be held: it keeps its turn, and others go
//! meanwhile.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use super::{Flow, Priority};

/// One turn in so many is for low priority at most, if such requests wait.
const LOW_TURN: usize = 10;

/// And at least, however many hotels wait: where a round of turns is longer than that, low priority has more than one in it.
const LATEST_LOW_TURN: usize = 100;

/// A request's place: what it takes to find it again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    flow: Flow,
    priority: Priority,
    number: u64,
}

/// Everybody who waits.
#[derive(Debug)]
pub(super) struct Queue<T> {
    normal: Class<T>,
    low: Class<T>,
    /// Hotels of which nobody may go now.
    held: HashSet<Flow>,
    numbers: u64,
    /// Turns since low priority had one while it waited.
    without_low: usize,
    /// The same, whether it waited or not: where its turn is further away than anybody waits, it is next when it comes back
    /// after the hundredth.
    since_low: usize,
}

/// Those of one priority.
#[derive(Debug)]
struct Class<T> {
    lines: HashMap<Flow, Line<T>>,
    /// Whose turn it is, and whose is next; a line that was emptied by callers who went away stays until its turn.
    turns: VecDeque<Flow>,
    /// How many lines have somebody in them.
    occupied: usize,
    /// How many requests there are for each round of turns to come.
    rounds: Vec<usize>,
    waiting: usize,
    /// The largest weight so far.
    heaviest: usize,
}

/// Those of one hotel, by the order of arrival.
#[derive(Debug)]
struct Line<T> {
    waiting: BTreeMap<u64, T>,
    weight: usize,
    /// How many may still go in this turn.
    left: usize,
}

impl<T> Default for Class<T> {
    fn default() -> Self {
        Self { lines: HashMap::new(), turns: VecDeque::new(), occupied: 0, rounds: Vec::new(), waiting: 0, heaviest: 1 }
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            normal: Class::default(),
            low: Class::default(),
            held: HashSet::new(),
            numbers: 0,
            without_low: 0,
            since_low: 0,
        }
    }
}

impl<T> Queue<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether one of this hotel overtakes nobody who could go, if it goes without having waited.
    pub(super) fn lets_pass(&self, flow: Flow) -> bool {
        self.len() + self.held.len() == 0
            || !self.held.contains(&flow) && !self.normal.may_pop(&self.held) && !self.low.may_pop(&self.held)
    }

    /// How many wait who may go when there is a place: all but those of hotels that are held.
    pub(super) fn ready(&self) -> usize {
        self.len() - self.held.iter().map(|flow| self.len_of(*flow)).sum::<usize>()
    }

    /// Whether a hotel is held, so that nobody may go though somebody waits.
    pub(super) fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// Nobody of a hotel goes until it is released.
    pub(super) fn hold(&mut self, flow: Flow) {
        self.held.insert(flow);
    }

    /// They may go again.
    pub(super) fn release(&mut self, flow: Flow) {
        self.held.remove(&flow);
    }

    pub(super) fn len(&self) -> usize {
        self.normal.waiting + self.low.waiting
    }

    /// How many of a hotel wait, of either priority.
    pub(super) fn len_of(&self, flow: Flow) -> usize {
        self.normal.len_of(flow) + self.low.len_of(flow)
    }

    /// How many hotels wait that are not held, and whether none does with normal priority; where one does, those that do not
    /// are not counted.
    pub(super) fn flows(&self) -> (usize, bool) {
        let (normal, low) = (self.normal.ready(&self.held), self.low.ready(&self.held));
        if normal == 0 && low > 0 { (low, true) } else { (normal, false) }
    }

    /// The hotels that wait, with how many requests.
    pub(super) fn lines(&self) -> impl Iterator<Item = (Flow, usize)> {
        let lines = self.normal.lines.iter().chain(&self.low.lines);
        lines.map(|(flow, line)| (*flow, line.waiting.len())).filter(|(_, waiting)| *waiting > 0)
    }

    /// At the end of its hotel's line; `weight` is at least 1.
    pub(super) fn push(&mut self, flow: Flow, priority: Priority, weight: usize, item: T) -> Place {
        self.numbers += 1;
        let place = Place { flow, priority, number: self.numbers };
        self.class(priority).push(place, weight.max(1), item);
        place
    }

    /// Takes somebody out who does not want to wait any more; nothing when it was their turn already.
    pub(super) fn remove(&mut self, place: Place) -> Option<T> {
        self.class(place.priority).remove(place)
    }

    /// The next one; nobody also where all who wait are held.
    pub(super) fn pop(&mut self) -> Option<T> {
        let since_low = (self.since_low + 1).min(LATEST_LOW_TURN);
        let without_low = if self.low.waiting > 0 { self.without_low + 1 } else { 0 };
        let due = without_low >= self.low_turn() || since_low >= LATEST_LOW_TURN;
        let normal = if due && self.low.may_pop(&self.held) { None } else { self.normal.pop(&self.held) };
        if normal.is_some() {
            (self.without_low, self.since_low) = (without_low, since_low);
            return normal;
        }
        let low = self.low.pop(&self.held)?;
        (self.without_low, self.since_low) = (0, 0);
        Some(low)
    }

    /// How many go before a request that comes now, at most, as long as no other comes.
    pub(super) fn ahead(&self, flow: Flow, priority: Priority, weight: usize) -> usize {
        match priority {
            Priority::Normal => {
                let ahead = self.normal.ahead(flow, weight, usize::MAX);
                ahead + self.low_among(ahead)
            }
            Priority::Low => {
                let ahead = self.low.ahead(flow, weight, usize::MAX);
                let between = self.low_turn() - 1;
                let first = between.min(LATEST_LOW_TURN.saturating_sub(self.since_low + 1));
                ahead + self.normal.waiting.min(ahead * between + first)
            }
        }
    }

    /// How many go before one that comes back as soon as no more than `fit` would go before it then: at most, as long as
    /// no other comes. It is at the end of the turns whenever it comes, so the turns of hotels that have more to send do
    /// not bring it nearer.
    pub(super) fn ahead_later(&self, flow: Flow, priority: Priority, weight: usize, fit: usize) -> usize {
        match priority {
            Priority::Normal => {
                let ahead = self.normal.ahead(flow, weight, fit.saturating_sub(self.low_among(fit)));
                // A turn of low priority may come between now and then, and another one be as near as before.
                ahead + self.low_among(ahead) + usize::from(self.low.waiting > 0) + self.normal.uneven()
            }
            Priority::Low => self.normal.waiting + self.low.ahead(flow, weight, fit) + self.low.uneven(),
        }
    }

    /// How many go until each hotel had its turn, at most.
    pub(super) fn round(&self, priority: Priority) -> usize {
        match priority {
            Priority::Normal => {
                let round = self.normal.round(0);
                round + self.low_among(round)
            }
            Priority::Low => self.normal.waiting + self.low.round(0),
        }
    }

    /// How many of low priority go among so many others, at most.
    fn low_among(&self, others: usize) -> usize {
        self.low.waiting.min(others / (LOW_TURN - 1) + 1)
    }

    /// One turn in so many is for low priority now. With a tenth for itself it would wait for less than others do as soon
    /// as many hotels wait.
    fn low_turn(&self) -> usize {
        (self.normal.occupied + 1).clamp(LOW_TURN, LATEST_LOW_TURN)
    }

    fn class(&mut self, priority: Priority) -> &mut Class<T> {
        match priority {
            Priority::Normal => &mut self.normal,
            Priority::Low => &mut self.low,
        }
    }
}

impl<T> Class<T> {
    fn len_of(&self, flow: Flow) -> usize {
        self.lines.get(&flow).map_or(0, |line| line.waiting.len())
    }

    fn push(&mut self, place: Place, weight: usize, item: T) {
        self.heaviest = self.heaviest.max(weight);
        let turns = &mut self.turns;
        let line = self.lines.entry(place.flow).or_insert_with(|| {
            turns.push_back(place.flow);
            Line { waiting: BTreeMap::new(), weight, left: weight }
        });
        let round = line.waiting.len() / line.weight;
        self.occupied += usize::from(line.waiting.is_empty());
        line.waiting.insert(place.number, item);
        self.waiting += 1;
        if self.rounds.len() <= round {
            self.rounds.resize(round + 1, 0);
        }
        self.rounds[round] += 1;
    }

    fn remove(&mut self, place: Place) -> Option<T> {
        let line = self.lines.get_mut(&place.flow)?;
        let item = line.waiting.remove(&place.number)?;
        self.occupied -= usize::from(line.waiting.is_empty());
        let round = line.waiting.len() / line.weight;
        self.left(round);
        Some(item)
    }

    /// One fewer in a round.
    fn left(&mut self, round: usize) {
        self.waiting -= 1;
        if let Some(count) = self.rounds.get_mut(round) {
            *count = count.saturating_sub(1);
        }
    }

    /// How many hotels have somebody who may go.
    fn ready(&self, held: &HashSet<Flow>) -> usize {
        self.occupied - held.iter().filter(|flow| self.len_of(**flow) > 0).count()
    }

    /// Whether somebody may go.
    fn may_pop(&self, held: &HashSet<Flow>) -> bool {
        self.ready(held) > 0
    }

    fn pop(&mut self, held: &HashSet<Flow>) -> Option<T> {
        loop {
            // Those that are held are few, and stay where they are.
            let at = if held.is_empty() { 0 } else { self.turns.iter().position(|flow| !held.contains(flow))? };
            let flow = *self.turns.get(at)?;
            let line = self.lines.get_mut(&flow)?;
            let Some((_, item)) = line.waiting.pop_first() else {
                self.lines.remove(&flow);
                self.turns.remove(at);
                continue;
            };
            let round = line.waiting.len() / line.weight;
            line.left = line.left.saturating_sub(1);
            if line.waiting.is_empty() {
                // What is left of a turn is not kept for later: whoever has nothing to send saves nothing up.
                self.occupied -= 1;
                self.lines.remove(&flow);
                self.turns.remove(at);
            } else if line.left == 0 {
                line.left = line.weight;
                self.turns.remove(at);
                self.turns.push_back(flow);
            }
            self.left(round);
            return Some(item);
        }
    }

    /// Up to its own turn, and further turns as long as more than `fit` have one.
    fn ahead(&self, flow: Flow, weight: usize, fit: usize) -> usize {
        let own = self.len_of(flow) / weight.max(1);
        let later = (own..).take_while(|round| self.round(*round) > fit).count();
        self.rounds.iter().take(own + 1 + later).sum()
    }

    /// How many more may go in a turn than rounds count, which begin anew with each line.
    fn uneven(&self) -> usize {
        2 * self.heaviest.saturating_sub(1)
    }

    fn round(&self, number: usize) -> usize {
        self.rounds.get(number).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hotel(id: u64) -> Flow {
        Flow::Property(id.to_string().parse().unwrap())
    }

    /// Puts requests in, `(hotel, how many)`, and takes them all out.
    fn served(hotels: &[(u64, usize)], weight: impl Fn(u64) -> usize) -> Vec<u64> {
        let mut queue = Queue::default();
        for (id, count) in hotels {
            for _ in 0..*count {
                queue.push(hotel(*id), Priority::Normal, weight(*id), *id);
            }
        }
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn hotels_take_turns_and_a_hog_waits_for_itself_alone() {
        assert_eq!(served(&[(1, 4), (2, 1), (3, 2)], |_| 1), [1, 2, 3, 1, 3, 1, 1]);
        let hog = served(&[(1, 10_000), (2, 1)], |_| 1);
        assert_eq!((hog.len(), hog.iter().position(|id| *id == 2)), (10_001, Some(1)));
    }

    #[test]
    fn a_weight_is_so_many_requests_in_a_turn() {
        let weight = |id| if id == 1 { 3 } else { 1 };
        assert_eq!(served(&[(1, 7), (2, 3)], weight), [1, 1, 1, 2, 1, 1, 1, 2, 1, 2]);
    }

    #[test]
    fn within_a_hotel_the_order_is_that_of_arrival_and_whoever_leaves_leaves_no_gap() {
        let mut queue = Queue::default();
        let places: Vec<_> = (0..4).map(|n| queue.push(hotel(1), Priority::Normal, 1, n)).collect();
        queue.push(hotel(2), Priority::Normal, 1, 9);
        assert_eq!(queue.remove(places[1]), Some(1));
        assert_eq!(queue.remove(places[1]), None);
        assert_eq!((queue.len(), queue.len_of(hotel(1))), (4, 3));
        assert_eq!(std::iter::from_fn(|| queue.pop()).collect::<Vec<_>>(), [0, 9, 2, 3]);
        assert!(queue.is_empty() && queue.normal.lines.is_empty() && queue.normal.turns.is_empty());
        let place = queue.push(hotel(1), Priority::Normal, 1, 5);
        queue.remove(place);
        queue.push(hotel(1), Priority::Normal, 1, 6);
        assert_eq!((queue.pop(), queue.pop()), (Some(6), None), "and no second turn");
    }

    #[test]
    fn a_hotel_that_is_held_keeps_its_turn_and_others_go_meanwhile() {
        let mut queue = Queue::default();
        for (id, number) in [(1, 10), (1, 11), (2, 20), (3, 30), (2, 21), (3, 31)] {
            queue.push(hotel(id), Priority::Normal, 1, number);
        }
        queue.push(hotel(1), Priority::Low, 1, 99);
        assert_eq!(queue.pop(), Some(10));
        queue.hold(hotel(1));
        assert_eq!([queue.pop(), queue.pop(), queue.pop()], [Some(20), Some(30), Some(21)]);
        queue.release(hotel(1));
        // Its turn came before that of the third.
        assert_eq!(queue.pop(), Some(11));
        queue.hold(hotel(1));
        assert_eq!([queue.pop(), queue.pop()], [Some(31), None], "nor its requests of low priority");
        assert_eq!((queue.len(), queue.ready(), queue.flows()), (1, 0, (0, false)), "who cannot go needs no place");
        assert!(!queue.lets_pass(hotel(1)), "whoever comes now would overtake it");
        assert!(queue.lets_pass(hotel(2)), "nobody who could go is overtaken");
        queue.release(hotel(1));
        assert_eq!((queue.ready(), queue.flows(), queue.lets_pass(hotel(2))), (1, (1, true), false));
        assert_eq!((queue.pop(), queue.lets_pass(hotel(1))), (Some(99), true));
        queue.hold(hotel(1));
        assert!(!queue.lets_pass(hotel(1)) && queue.lets_pass(hotel(2)));
    }

    #[test]
    fn hotels_whose_callers_went_away_do_not_count_among_those_that_wait() {
        for priority in [Priority::Normal, Priority::Low] {
            let mut queue = Queue::default();
            let places: Vec<_> = (1..=5).map(|id| queue.push(hotel(id), priority, 1, id)).collect();
            let low = priority == Priority::Low;
            assert_eq!(queue.flows(), (5, low));
            queue.remove(places[1]);
            queue.remove(places[3]);
            assert_eq!(queue.flows(), (3, low));
            queue.push(hotel(2), priority, 1, 2);
            assert_eq!((queue.flows(), queue.pop()), ((4, low), Some(1)));
            assert_eq!(queue.flows(), (3, low));
        }
    }

    #[test]
    fn low_priority_yields_and_does_not_starve() {
        let mut queue = Queue::default();
        for n in 0..30 {
            queue.push(hotel(1), Priority::Low, 1, 100 + n);
            queue.push(hotel(1), Priority::Normal, 1, n);
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order.iter().take(33).filter(|n| **n >= 100).count(), 3);
        assert_eq!(order[..9], [0, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(order[9], 100);
    }

    #[test]
    fn low_priority_is_one_more_hotel_where_many_wait() {
        for (hotels, first) in [(5, 9), (20, 20), (50, 50), (99, 99), (1000, 99)] {
            let mut queue = Queue::default();
            for n in 0..10 {
                queue.push(hotel(1), Priority::Low, 1, 0);
                for id in 1..=hotels {
                    queue.push(hotel(id), Priority::Normal, 1, n + id);
                }
            }
            let ahead = queue.ahead(hotel(2), Priority::Low, 1);
            let at = std::iter::from_fn(|| queue.pop()).position(|n| n == 0);
            assert!(at == Some(first) && first <= ahead, "{hotels}: {at:?}, {ahead}");
        }
    }

    proptest! {
        /// Nobody is lost or served twice, whoever waits is served, and what `ahead` says is enough.
        #[test]
        fn everybody_is_served_no_later_than_was_said(
            steps in prop::collection::vec((1u64..6, 0usize..8, any::<bool>()), 1..120),
        ) {
            let (mut queue, mut said) = (Queue::default(), HashMap::new());
            let mut places = Vec::new();
            for (number, (id, action, low)) in steps.into_iter().enumerate() {
                let weight = id as usize % 3 + 1;
                let priority = if low { Priority::Low } else { Priority::Normal };
                match action {
                    0 => { if let Some(gone) = queue.pop() { said.remove(&gone); } }
                    1 if !places.is_empty() => {
                        let place = places.swap_remove(number % places.len());
                        if let Some(gone) = queue.remove(place) { said.remove(&gone); }
                    }
                    _ => { places.push(queue.push(hotel(id), priority, weight, number)); said.insert(number, ()); }
                }
                prop_assert_eq!(queue.len(), said.len());
                let each: usize = queue.lines().map(|(_, count)| count).sum();
                prop_assert_eq!(each, said.len());
                prop_assert_eq!(queue.normal.rounds.iter().sum::<usize>(), queue.normal.waiting);
                for class in [&queue.normal, &queue.low] {
                    prop_assert_eq!(class.occupied, class.lines.values().filter(|line| !line.waiting.is_empty()).count());
                }
            }
            let (flow, last) = (hotel(3), usize::MAX);
            let ahead = queue.ahead(flow, Priority::Normal, 1);
            queue.push(flow, Priority::Normal, 1, last);
            let mut order = Vec::new();
            while let Some(next) = queue.pop() {
                prop_assert!(next == last || said.remove(&next).is_some());
                order.push(next);
            }
            prop_assert!(said.is_empty());
            let at = order.iter().position(|next| *next == last).unwrap();
            // The turn that is under way may have been begun with fewer ahead.
            prop_assert!(at <= ahead + 3, "{} ahead, {} said", at, ahead);
        }
    }
}
