//! Whatever comes in whatever order: nobody starves, and who is refused is told the truth.

use super::*;

/// What a random crowd is made of: weights of hotels, and arrivals as (gap in ms, hotel, low priority).
fn crowd() -> impl Strategy<Value = (Vec<usize>, Vec<(u64, u64, bool)>)> {
    let weights = prop::collection::vec(1usize..5, 6);
    let arrivals = prop::collection::vec((0u64..250, 1u64..7, prop::bool::weighted(0.2)), 20..200);
    (weights, arrivals)
}

fn weighted(weights: &[usize], max_wait: u64) -> Limits {
    let weights = (1u64..).zip(weights).map(|(id, weight)| (id.to_string().parse().unwrap(), *weight)).collect();
    Limits { weights: Arc::new(weights), ..limits(max_wait) }
}

fn asked(id: u64, low: bool) -> Ask {
    Ask { priority: if low { Priority::Low } else { NORMAL }, ..hotel(id) }
}

fn on_a_paused_clock<F: Future>(scene: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(scene)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// However many others keep coming, some of whom leave: between a request's arrival and its start there are no more
    /// starts than its hotel's own line and the turns of the others allow.
    #[test]
    fn nobody_starves_whoever_else_comes((weights, arrivals) in crowd(), per_second in 1usize..5) {
        on_a_paused_clock(async {
            let scene = Scene::new(per_second, weighted(&weights, 1000));
            let mut asked_for = Vec::new();
            let mut own = HashMap::new();
            for (number, (gap, id, low)) in arrivals.iter().enumerate() {
                tokio::time::sleep(Duration::from_millis(*gap)).await;
                let before = scene.order().len();
                // How many of the same line came and have not started, those that leave included.
                let came: &mut usize = own.entry((*id, *low)).or_default();
                let started = asked_for.iter().filter(|(other, as_low, request, _): &&(u64, bool, JoinHandle<_>, usize)| {
                    (other, as_low) == (id, low) && request.is_finished()
                });
                let ahead = came.saturating_sub(started.count());
                *came += 1;
                let (budget, starts) = (Arc::clone(&scene.budget), Arc::clone(&scene.starts));
                let (ask, id, leaves) = (asked(*id, *low), *id, number % 7 == 3);
                let request = tokio::spawn(async move {
                    let came = Instant::now();
                    if leaves {
                        let taken = tokio::time::timeout(Duration::from_millis(400), budget.take(ask, came)).await;
                        let Ok(taken) = taken else { return None };
                        assert!(taken.unwrap().start(Instant::now()));
                    } else {
                        assert!(budget.take(ask, came).await.unwrap().start(Instant::now()));
                    }
                    let mut starts = starts.lock().unwrap();
                    starts.push((Instant::now(), id));
                    Some(starts.len() - 1 - before)
                });
                asked_for.push((id, *low, request, ahead));
            }
            let round: usize = weights.iter().sum();
            for (id, low, request, ahead) in asked_for {
                let Some(between) = request.await.unwrap() else { continue };
                let weight = weights[usize::try_from(id).unwrap() - 1];
                // Turns of its own line until it is its turn; a low one has every tenth of all of those.
                let turns = (ahead / weight + 2) * round;
                let most = if low { turns * 10 + 10 } else { turns + turns / 9 + 2 };
                assert!(between <= most, "{between} starts before hotel {id}'s, low {low}, with {ahead} ahead, {most} {weights:?}");
            }
            assert!(scene.most() <= per_second);
            tokio::time::sleep(SECOND + MARGIN).await;
            assert!(scene.idle(), "{:?}", scene.budget.account());
        });
    }

    /// Whoever is refused and comes back when told, with nobody else in between, has its turn in time.
    #[test]
    fn a_retry_after_is_true(
        (weights, arrivals) in crowd(),
        per_second in 1usize..4,
        max_wait in 0u64..6,
        waiting in 1usize..40,
        pause in prop::option::weighted(0.2, 1u64..9),
    ) {
        on_a_paused_clock(async {
            let limits = Limits { max_waiting: waiting, max_waiting_per_property: 8, ..weighted(&weights, max_wait) };
            let scene = Scene::new(per_second, limits);
            let mut requests = Vec::new();
            for (number, (gap, id, low)) in arrivals.into_iter().enumerate() {
                tokio::time::sleep(Duration::from_millis(gap / 4)).await;
                if let (10, Some(pause)) = (number, pause) {
                    let value = HeaderValue::from(pause);
                    if let Ok(mut permit) = scene.budget.take(hotel(id), Instant::now()).await {
                        assert!(permit.start(Instant::now()));
                        permit.heard(StatusCode::TOO_MANY_REQUESTS, &HeaderMap::from_iter([(RETRY_AFTER, value)]));
                    }
                }
                requests.push((id, low, scene.request(asked(id, low), Duration::ZERO)));
            }
            // The last one, which nobody comes after.
            let (id, low, last) = requests.pop().unwrap();
            let came = Instant::now();
            if let Err(exhausted) = last.await.unwrap() {
                assert!(came.elapsed() <= Duration::from_secs(max_wait));
                tokio::time::sleep(Duration::from_secs(exhausted.retry_after)).await;
                let again = scene.request(asked(id, low), Duration::ZERO).await.unwrap();
                assert!(again.is_ok(), "{exhausted:?}, and then {again:?}");
            }
            for (_, _, request) in requests {
                request.await.unwrap().ok();
            }
        });
    }
}
