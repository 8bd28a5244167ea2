//! Budgets at work on a paused clock: what Cloudbeds sees, who waits how long, and that no permit is lost.

use std::sync::Mutex;

use http::HeaderMap;
use http::header::{DATE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use proptest::prelude::*;
use tokio::task::JoinHandle;

use super::*;

mod chance;
mod ends;

const NORMAL: Priority = Priority::Normal;

fn hotel(id: u64) -> Ask {
    Ask::normal(Flow::Property(id.to_string().parse().unwrap()))
}

fn limits(max_wait: u64) -> Limits {
    Limits {
        max_wait: Duration::from_secs(max_wait),
        max_waiting: 1000,
        max_waiting_per_property: 1000,
        weights: Arc::default(),
    }
}

/// A budget whose queue is served, and the starts so far: when, and whose.
struct Scene {
    budget: Arc<Budget>,
    starts: Arc<Mutex<Vec<(Instant, u64)>>>,
    begun: Instant,
    serving: JoinHandle<()>,
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Scene {
    fn new(per_second: usize, limits: Limits) -> Self {
        let budget = Arc::new(Budget::new("main", per_second, limits));
        let serving = tokio::spawn({
            let budget = Arc::clone(&budget);
            async move { budget.serve_queue().await }
        });
        Self { budget, starts: Arc::default(), begun: Instant::now(), serving }
    }

    /// A request that comes now and starts `dial` after its turn.
    fn request(&self, ask: Ask, dial: Duration) -> JoinHandle<Result<Duration, Exhausted>> {
        let (budget, starts, came) = (Arc::clone(&self.budget), Arc::clone(&self.starts), Instant::now());
        tokio::spawn(async move {
            let mut permit = budget.take(ask, came).await?;
            if !dial.is_zero() {
                permit.keep();
                tokio::time::sleep(dial).await;
            }
            let now = Instant::now();
            assert!(permit.start(now));
            starts.lock().unwrap().push((now, ask.flow.property().map_or(0, PropertyId::get)));
            permit.heard(StatusCode::OK, &HeaderMap::new());
            Ok(came.elapsed())
        })
    }

    fn many(&self, ask: Ask, count: usize) -> Vec<JoinHandle<Result<Duration, Exhausted>>> {
        (0..count).map(|_| self.request(ask, Duration::ZERO)).collect()
    }

    /// Whose the starts were, in order.
    fn order(&self) -> Vec<u64> {
        self.starts.lock().unwrap().iter().map(|(_, id)| *id).collect()
    }

    /// The most starts in any one second.
    fn most(&self) -> usize {
        let starts = self.starts.lock().unwrap();
        let within = |from: &Instant| starts.iter().filter(|(at, _)| at >= from && *at < *from + SECOND).count();
        starts.iter().map(|(at, _)| within(at)).max().unwrap_or_default()
    }

    fn idle(&self) -> bool {
        let account = self.budget.account();
        (account.waiting, account.used) == (0, 0)
    }
}

async fn all(requests: Vec<JoinHandle<Result<Duration, Exhausted>>>) -> Vec<Result<Duration, Exhausted>> {
    let mut ended = Vec::new();
    for request in requests {
        ended.push(request.await.unwrap());
    }
    ended
}

#[tokio::test(start_paused = true)]
async fn a_steady_overload_uses_nearly_all_of_the_budget_and_never_more() {
    let scene = Scene::new(10, Limits { max_waiting: 10_000, ..limits(100) });
    let ended = all(scene.many(hotel(1), 600)).await;
    assert!(ended.iter().all(Result::is_ok));
    assert_eq!(scene.most(), 10);
    let rate = 590.0 / scene.begun.elapsed().as_secs_f64();
    assert!(rate >= 9.5, "{rate} a second");
    let account = scene.budget.account();
    assert_eq!((account.waits, account.refused), (590, [0; 4]));
}

#[tokio::test(start_paused = true)]
async fn a_hotel_with_one_request_waits_one_window_behind_a_hog() {
    let scene = Scene::new(10, limits(1000));
    let mut hog = scene.many(hotel(1), 1000);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let waited = scene.request(hotel(2), Duration::ZERO).await.unwrap().unwrap();
    assert!(waited <= SECOND + MARGIN, "{waited:?}");
    hog.iter_mut().for_each(|request| request.abort());
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_hotels_take_turns() {
    let limits = Limits { max_waiting: 30_000, ..limits(10_000) };
    let scene = Scene::new(1000, limits);
    let mut requests = scene.many(hotel(1), 10_000);
    requests.extend((2..10_001).map(|id| scene.request(hotel(id), Duration::ZERO)));
    all(requests).await;
    let order = scene.order();
    let hog = order[1000..11_000].iter().filter(|id| **id == 1).count();
    assert!(hog <= 2, "{hog} of the hog's in one round");
}

#[tokio::test(start_paused = true)]
async fn a_permit_is_dated_when_its_request_leaves() {
    let scene = Scene::new(5, limits(100));
    let dials = [0, 900, 0, 300, 1500, 40, 0, 0, 700, 0, 0, 10, 0, 2200, 0, 0, 0, 0, 0, 0, 0];
    let requests = dials.map(|millis| scene.request(hotel(1), Duration::from_millis(millis)));
    assert!(all(requests.into()).await.iter().all(Result::is_ok));
    assert_eq!(scene.most(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_comes_late_to_its_start_is_dated_anew_or_takes_another_permit() {
    let scene = Scene::new(2, limits(5));
    let mut first = scene.budget.take(hotel(1), Instant::now()).await.unwrap();
    let mut second = scene.budget.take(hotel(1), Instant::now()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(first.start(Instant::now()));
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(scene.budget.account().used, 1, "its place has passed");
    assert!(!second.start(Instant::now()));
    let third = second.again().await.unwrap();
    assert_eq!(third.waited(), Duration::ZERO);
    assert_eq!(scene.budget.account().used, 2);
    drop((first, third));
    assert_eq!(scene.budget.account().used, 1, "what was sent counts, what was not does not");
}

#[tokio::test(start_paused = true)]
async fn whoever_goes_away_gives_the_place_back_at_once() {
    let scene = Scene::new(1, limits(100));
    scene.request(hotel(1), Duration::ZERO).await.unwrap().unwrap();
    let gone = scene.many(hotel(1), 50);
    let last = scene.request(hotel(2), Duration::ZERO);
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(scene.budget.account().waiting, 51);
    for request in gone {
        request.abort();
        assert!(request.await.unwrap_err().is_cancelled());
    }
    assert_eq!(scene.budget.account().waiting, 1);
    assert!(last.await.unwrap().unwrap() <= SECOND + MARGIN);
    // A permit that is dropped before its start is free again at once.
    tokio::time::sleep(SECOND + MARGIN).await;
    let unused = scene.budget.take(hotel(1), Instant::now()).await.unwrap();
    let waiting = scene.request(hotel(2), Duration::ZERO);
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(unused);
    assert_eq!(waiting.await.unwrap().unwrap(), Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_could_not_end_in_time_is_refused_at_once_with_the_time_to_come_back() {
    let scene = Scene::new(10, limits(3));
    let early = scene.many(hotel(1), 35);
    tokio::time::sleep(Duration::from_millis(1)).await;
    let came = Instant::now();
    let refused = scene.request(hotel(1), Duration::ZERO).await.unwrap().unwrap_err();
    assert_eq!(
        (refused, came.elapsed()),
        (Exhausted { why: Why::TooLong, retry_after: 1, waited: Duration::ZERO }, Duration::ZERO)
    );
    assert!(scene.request(hotel(2), Duration::ZERO).await.unwrap().is_ok(), "another hotel's turn comes earlier");
    let ended = all(early).await;
    // Of the 35, the last five would have started after 3.12 seconds; and one place of the 30 is the other hotel's.
    assert_eq!(ended.iter().filter(|end| end.is_ok()).count(), 29);
    assert!(ended.iter().flatten().all(|waited| *waited <= Duration::from_secs(3)));
    // Whoever comes back when told is served.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(scene.request(hotel(1), Duration::ZERO).await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_queue_has_a_limit_for_all_and_one_for_each_hotel() {
    let scene = Scene::new(1, Limits { max_waiting: 5, max_waiting_per_property: 3, ..limits(60) });
    scene.request(hotel(1), Duration::ZERO).await.unwrap().unwrap();
    let _waiting = (scene.many(hotel(1), 3), tokio::task::yield_now().await);
    let refused = scene.request(hotel(1), Duration::ZERO).await.unwrap().unwrap_err();
    assert_eq!(refused, Exhausted { why: Why::PropertyFull, retry_after: 2, waited: Duration::ZERO });
    let _more = (scene.many(hotel(2), 2), tokio::task::yield_now().await);
    assert_eq!(scene.request(hotel(3), Duration::ZERO).await.unwrap().unwrap_err().why, Why::Full);
    let account = scene.budget.account();
    assert_eq!((account.waiting, account.refused), (5, [1, 1, 0, 0]));
    let hotels: HashMap<_, _> = account.hotels.iter().map(|hotel| (hotel.property.get(), hotel)).collect();
    assert_eq!((hotels[&1].waiting, hotels[&1].refused, hotels[&2].waiting), (3, 1, 2));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_where_the_longest_wait_is_none() {
    let scene = Scene::new(1, limits(0));
    assert!(scene.request(hotel(1), Duration::ZERO).await.unwrap().is_ok());
    let refused = scene.request(hotel(1), Duration::ZERO).await.unwrap().unwrap_err();
    assert_eq!((refused.why, refused.retry_after), (Why::TooLong, 2));
}

fn headers(pairs: &[(http::HeaderName, &'static str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
}

#[tokio::test(start_paused = true)]
async fn a_429_stops_the_app_until_one_that_tries_comes_through() {
    let scene = Scene::new(10, limits(30));
    let mut permit = scene.budget.take(hotel(1), Instant::now()).await.unwrap();
    assert!(permit.start(Instant::now()));
    permit.heard(StatusCode::TOO_MANY_REQUESTS, &headers(&[(RETRY_AFTER, "4")]));
    let others = scene.many(hotel(2), 5);
    tokio::time::sleep(Duration::from_millis(3999)).await;
    let account = scene.budget.account();
    assert_eq!((scene.order().len(), account.waiting, account.allowed, account.pauses), (0, 5, 9, 1));
    assert_eq!(scene.budget.left().remaining, 0);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(all(others).await.iter().all(Result::is_ok));

    let mut trial = scene.budget.take(hotel(1), Instant::now()).await.unwrap();
    assert!(trial.start(Instant::now()));
    trial.heard(StatusCode::TOO_MANY_REQUESTS, &HeaderMap::new());
    tokio::time::sleep(SECOND).await;
    let mut trial = scene.budget.take(hotel(1), Instant::now()).await.unwrap();
    let waiting = scene.request(hotel(2), Duration::ZERO);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!waiting.is_finished(), "only one tries");
    assert!(trial.start(Instant::now()));
    trial.heard(StatusCode::TOO_MANY_REQUESTS, &HeaderMap::new());
    let came = Instant::now();
    waiting.await.unwrap().unwrap();
    assert_eq!(came.elapsed(), Duration::from_secs(2), "twice as long as the first time");
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert_eq!(scene.budget.account().allowed, 10);
}

#[tokio::test(start_paused = true)]
async fn one_that_tries_and_must_be_sent_again_does_not_wait_for_itself() {
    let scene = Scene::new(10, limits(30));
    let mut permit = scene.budget.take(hotel(1), Instant::now()).await.unwrap();
    assert!(permit.start(Instant::now()));
    permit.heard(StatusCode::TOO_MANY_REQUESTS, &HeaderMap::new());
    tokio::time::sleep(SECOND).await;
    let mut trial = scene.budget.take(hotel(1), Instant::now()).await.unwrap();
    assert!(trial.start(Instant::now()));
    let came = Instant::now();
    let mut again = trial.again().await.unwrap();
    assert_eq!((came.elapsed(), again.waited()), (Duration::ZERO, Duration::ZERO));
    drop(trial);
    let waiting = scene.request(hotel(2), Duration::ZERO);
    tokio::time::sleep(SECOND).await;
    assert!(!waiting.is_finished(), "it is the one that tries now");
    assert!(again.start(Instant::now()));
    again.heard(StatusCode::OK, &HeaderMap::new());
    waiting.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn all_waits_of_a_request_together_are_within_the_longest_wait() {
    let scene = Scene::new(1, limits(3));
    for _ in 0..3 {
        drop(scene.request(hotel(1), Duration::ZERO));
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let came = Instant::now();
    let permit = scene.budget.take(hotel(2), came).await;
    let mut permit = permit.unwrap();
    assert!(permit.start(Instant::now()));
    drop(scene.many(hotel(1), 10));
    tokio::time::sleep(Duration::from_millis(1)).await;
    let refused = permit.again().await.unwrap_err();
    assert_eq!((refused.why, refused.retry_after), (Why::TooLong, 1), "a new one would wait in the queue");
    assert!(came.elapsed() <= Duration::from_millis(3001), "{:?}", came.elapsed());
}

#[tokio::test(start_paused = true)]
async fn low_priority_does_not_starve_where_its_turn_is_further_away_than_anybody_waits() {
    let scene = Scene::new(10, limits(5));
    let low = Ask { priority: Priority::Low, ..hotel(9999) };
    let served = Arc::new(Mutex::new(0));
    let jobs = tokio::spawn({
        let (budget, served) = (Arc::clone(&scene.budget), Arc::clone(&served));
        async move {
            loop {
                if let Ok(mut permit) = budget.take(low, Instant::now()).await {
                    assert!(permit.start(Instant::now()));
                    *served.lock().unwrap() += 1;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    });
    // Two hundred hotels that come back whenever they were refused or served: twenty times what there is.
    let desks: Vec<_> = (1..=200)
        .map(|id| {
            let (budget, ask) = (Arc::clone(&scene.budget), hotel(id));
            tokio::spawn(async move {
                loop {
                    if let Ok(mut permit) = budget.take(ask, Instant::now()).await {
                        assert!(permit.start(Instant::now()));
                    }
                    tokio::time::sleep(Duration::from_millis(997)).await;
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(120)).await;
    jobs.abort();
    desks.iter().for_each(JoinHandle::abort);
    let served = *served.lock().unwrap();
    // Of some 1,150 turns.
    assert!((8..=30).contains(&served), "{served}");
}

#[tokio::test(start_paused = true)]
async fn a_pause_longer_than_the_longest_wait_refuses_at_once_with_its_end() {
    let scene = Scene::new(10, limits(5));
    let mut permit = scene.budget.take(hotel(1), Instant::now()).await.unwrap();
    assert!(permit.start(Instant::now()));
    permit.heard(StatusCode::SERVICE_UNAVAILABLE, &HeaderMap::new());
    assert_eq!(scene.budget.account().paused, Duration::ZERO, "an outage is no word about our pace");
    permit.heard(StatusCode::FORBIDDEN, &headers(&[(RETRY_AFTER, "30")]));
    let refused = scene.request(hotel(2), Duration::ZERO).await.unwrap().unwrap_err();
    assert_eq!(refused, Exhausted { why: Why::Paused, retry_after: 30, waited: Duration::ZERO });
}

#[tokio::test(start_paused = true)]
async fn an_unsafe_request_that_waited_is_not_overtaken_while_it_makes_a_connection() {
    let scene = Scene::new(3, limits(30));
    all(scene.many(hotel(9), 3)).await;
    // A booking, two look-ups of its hotel that have connections, and another hotel's.
    let booking = scene.request(Ask { is_unsafe: true, ..hotel(1) }, Duration::from_millis(700));
    tokio::task::yield_now().await;
    let mut others = scene.many(hotel(1), 2);
    others.push(scene.request(hotel(2), Duration::ZERO));
    let came = scene.begun;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(scene.order()[3..], [2], "the other hotel's goes meanwhile");
    // One that comes now would overtake it too.
    others.push(scene.request(hotel(1), Duration::ZERO));
    others.push(scene.request(hotel(3), Duration::ZERO));
    all(vec![booking]).await.pop().unwrap().unwrap();
    assert_eq!(came.elapsed(), SECOND + MARGIN + Duration::from_millis(700));
    all(others).await;
    let order = scene.order();
    assert_eq!(order[3..], [2, 3, 1, 1, 1, 1], "{order:?}");
    assert_eq!(scene.most(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_unsafe_request_that_never_starts_holds_nobody_up() {
    let scene = Scene::new(2, limits(30));
    let unsafe_one = Ask { is_unsafe: true, ..hotel(1) };
    all(scene.many(hotel(9), 2)).await;
    let gone = tokio::spawn({
        let budget = Arc::clone(&scene.budget);
        async move {
            let _permit = budget.take(unsafe_one, Instant::now()).await;
            std::future::pending::<()>().await;
        }
    });
    tokio::task::yield_now().await;
    let behind = scene.request(hotel(1), Duration::ZERO);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!behind.is_finished());
    gone.abort();
    let waited = behind.await.unwrap().unwrap();
    assert_eq!(waited, Duration::from_secs(3));
    tokio::time::sleep(SECOND + MARGIN).await;
    assert!(scene.idle());
    // Nor does one that goes away while it waits.
    all(scene.many(hotel(9), 2)).await;
    let waiting = scene.request(unsafe_one, Duration::ZERO);
    tokio::task::yield_now().await;
    waiting.abort();
    assert!(scene.request(hotel(1), Duration::ZERO).await.unwrap().unwrap() <= SECOND + MARGIN);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_is_alone_tells_when_it_has_a_place_at_the_earliest_or_asks_for_one() {
    let told = async |budget: &Budget| budget.take(hotel(1), Instant::now()).await.unwrap_err().retry_after;
    let budget = Budget::shared("main", 10, limits(0), Apart::default());
    // Nobody has told it of a share yet, and it asks again in a while.
    budget.asks(Instant::now() + Duration::from_millis(2500));
    assert_eq!(told(&budget).await, 3);
    // Whoever grants knows nothing any more, and waits until all that is leased has run out.
    let quiet = |share, millis| Grant { quiet: millis, share, members: 20, rate: 1, ..Grant::default() };
    let _ = budget.report(false, Instant::now());
    budget.granted(&quiet(0, 1460), Instant::now());
    assert_eq!(told(&budget).await, 2);
    tokio::time::sleep(SECOND).await;
    assert_eq!(told(&budget).await, 1);
    // With a share it has that for certain, 2.1 seconds after its last report.
    let _ = budget.report(false, Instant::now());
    budget.granted(&Grant { quiet: 0, ..quiet(1, 0) }, Instant::now());
    budget.leave();
    budget.asks(Instant::now() + Duration::from_millis(100));
    assert_eq!(told(&budget).await, 2);
    tokio::time::sleep(2 * SECOND).await;
    assert!(budget.take(hotel(1), Instant::now()).await.is_ok());
}

#[test]
fn a_wait_is_asked_for_in_seconds_or_as_a_date() {
    let asked = |pairs: &[(http::HeaderName, &'static str)]| retry_after(&headers(pairs)).map(|wait| wait.as_secs());
    assert_eq!(asked(&[(RETRY_AFTER, "120")]), Some(120));
    let date = (DATE, "Fri, 31 Dec 1999 23:59:00 GMT");
    assert_eq!(asked(&[(RETRY_AFTER, "Fri, 31 Dec 1999 23:59:59 GMT"), date.clone()]), Some(59));
    assert_eq!(asked(&[(RETRY_AFTER, "Fri, 31 Dec 1999 23:58:00 GMT"), date]), Some(0));
    for nonsense in ["", "-1", "soon", "1.5"] {
        assert_eq!(asked(&[(RETRY_AFTER, nonsense)]), None, "{nonsense}");
    }
    assert_eq!(asked(&[]), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Random arrivals, dials, hang-ups, weights, priorities and 429s: never above the budget, everybody is served or
    /// told, and at the end every place is free again.
    #[test]
    fn whatever_happens_no_second_has_too_many_and_no_permit_is_lost(
        per_second in 1usize..6,
        steps in prop::collection::vec((0u64..300, 1u64..5, 0u8..10, 0u64..1500), 1..150),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let weights = Arc::new(HashMap::from([("4".parse().unwrap(), 3)]));
            let scene = Scene::new(per_second, Limits { weights, max_waiting_per_property: 30, ..limits(8) });
            let mut requests = Vec::new();
            for (gap, id, action, dial) in steps {
                tokio::time::sleep(Duration::from_millis(gap)).await;
                let priority = if action % 3 == 0 { Priority::Low } else { NORMAL };
                let ask = Ask { priority, is_unsafe: gap % 2 == 0, ..hotel(id) };
                let dial = Duration::from_millis(if action > 6 { dial } else { 0 });
                let request = scene.request(ask, dial);
                match action {
                    9 => tokio::spawn({
                        let request = request.abort_handle();
                        async move {
                            tokio::time::sleep(Duration::from_millis(gap * 5)).await;
                            request.abort();
                        }
                    })
                    .await
                    .unwrap(),
                    8 => {
                        let permit = scene.budget.take(ask, Instant::now()).await;
                        let panicking = tokio::spawn(async move {
                            let _permit = permit;
                            std::panic::resume_unwind(Box::new(()));
                        });
                        assert!(panicking.await.unwrap_err().is_panic());
                    }
                    _ => {}
                }
                requests.push(request);
            }
            for request in requests {
                match request.await {
                    Ok(Ok(waited)) => assert!(waited <= Duration::from_millis(8000 + 1500), "{waited:?}"),
                    Ok(Err(exhausted)) => assert!(exhausted.retry_after >= 1),
                    Err(gone) => assert!(gone.is_cancelled(), "{gone}"),
                }
            }
            assert!(scene.most() <= per_second, "{} in a second", scene.most());
            tokio::time::sleep(SECOND + MARGIN).await;
            assert!(scene.idle(), "{:?}", scene.budget.account());
        });
    }
}
