//! Keepers of several replicas that hear of each other, and share nothing else.

use std::cell::RefCell;

use super::*;
use crate::keys::peers::News;

/// What carries the news: a table in which each record has the number of its last change.
#[derive(Default)]
struct Table {
    records: HashMap<Fingerprint, (u64, Record)>,
    last: u64,
    claims: HashMap<(Fingerprint, &'static str), Time>,
    written: usize,
}

type Shared = Rc<RefCell<Table>>;

/// One replica's way to it.
struct Way {
    table: Shared,
    since: Rc<RefCell<(u64, HashMap<Fingerprint, u64>)>>,
}

impl Peers for Way {
    fn exchange(&self, own: Vec<(Fingerprint, Record)>, _: Time) -> Answered<Option<News>> {
        let (table, since) = (Rc::clone(&self.table), Rc::clone(&self.since));
        Box::pin(async move {
            sleep(Duration::from_millis(5)).await;
            let (mut table, mut since) = (table.borrow_mut(), since.borrow_mut());
            let (read, known) = &mut *since;
            let mut news = News::default();
            for (name, (change, record)) in table.records.iter().filter(|(_, (change, _))| *change > *read) {
                news.records.push((*name, record.clone()));
                known.insert(*name, *change);
            }
            let before = table.last;
            for (name, record) in own {
                let change = table.records.get(&name).map_or(0, |(change, _)| *change);
                if change == known.get(&name).copied().unwrap_or(0) && change <= *read {
                    (table.last, table.written) = (table.last + 1, table.written + 1);
                    let last = table.last;
                    table.records.insert(name, (last, record));
                    known.insert(name, last);
                    news.taken.push(name);
                }
            }
            *read = if before == *read { table.last } else { before };
            Some(news)
        })
    }

    fn claim(&self, name: Fingerprint, task: Task, seconds: u64) -> Answered<bool> {
        let (table, now) = (Rc::clone(&self.table), clock()());
        Box::pin(async move {
            let mut table = table.borrow_mut();
            let claim = table.claims.entry((name, task.as_str())).or_default();
            let free = *claim <= now;
            if free {
                *claim = now.plus(seconds);
            }
            free
        })
    }
}

fn replicas(count: usize, cloudbeds: &Cloudbeds, keys: &str) -> (Shared, Vec<Process>, Vec<tempfile::TempDir>) {
    let table = Shared::default();
    let (mut processes, mut directories) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let directory = tempfile::tempdir().unwrap();
        write(&directory.path().join("keys.yaml"), keys);
        let way = Way { table: Rc::clone(&table), since: Rc::default() };
        let settings = Settings { keep_alive: true, ..settings(directory.path()) };
        processes.push(Process::started(directory.path(), cloudbeds, settings, |keeper| keeper.among(Rc::new(way))));
        directories.push(directory);
    }
    (table, processes, directories)
}

#[tokio::test(start_paused = true)]
async fn a_dead_hotel_costs_no_more_at_eight_replicas_than_at_one() {
    scene("", |_, cloudbeds| async move {
        let (_table, processes, _directories) = replicas(8, &cloudbeds, "\"1001\": cbat_a\n");
        for second in 0..6 * 60 * 60 {
            for process in &processes {
                let refused = process.call(1001);
                assert!(second < 6 || refused == Err(Verdict::Rejected), "in second {second}");
            }
            sleep(Duration::from_secs(1)).await;
        }
        let (app, own) = (cloudbeds.calls(Asked::App), cloudbeds.calls(Asked::Probe));
        assert!(app <= 8 * 5, "{app} calls of apps reached Cloudbeds");
        // The first probe, and then 1, 2, 4, … 60, 60, … minutes, each up to a fifth longer.
        assert!((9..=14).contains(&own), "{own} calls of our own");
        // And alive again, it is so at all of them, by the next such call.
        cloudbeds.set("cbat_a", Standing::Good);
        cloudbeds.forget_calls();
        sleep(Duration::from_secs(80 * 60)).await;
        assert!(processes.iter().all(|process| process.call(1001) == Ok(())));
        assert_eq!(cloudbeds.calls(Asked::Probe), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_key_is_used_once_for_all_replicas_and_what_all_know_is_not_told_again() {
    scene("", |_, cloudbeds| async move {
        for key in ["cbat_a", "cbat_b"] {
            cloudbeds.set(key, Standing::Good);
        }
        let (table, processes, _directories) = replicas(3, &cloudbeds, "\"1001\": cbat_a\n\"1002\": cbat_b\n");
        for process in &processes {
            process.call(1001).unwrap();
        }
        settle().await;
        sleep(Duration::from_secs(180)).await;
        let told = table.borrow().written;
        sleep(Duration::from_secs(1800)).await;
        assert_eq!(table.borrow().written, told, "nothing is new");
        days(20).await;
        assert_eq!(cloudbeds.calls(Asked::Probe), 0);
        days(2).await;
        assert_eq!(cloudbeds.calls(Asked::Probe), 2, "one for each key");
        assert!(processes.iter().all(|process| process.verdict(1002) == Verdict::Active));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_key_that_comes_later_is_known_at_once() {
    scene("", |_, cloudbeds| async move {
        cloudbeds.set("cbat_b", Standing::Good);
        let (_table, processes, directories) = replicas(2, &cloudbeds, "\"1001\": cbat_a\n\"1002\": cbat_b\n");
        write(&directories[1].path().join("keys.yaml"), "\"1002\": cbat_b\n");
        assert!(matches!(processes[1].store.reload(), Reload::Swapped { .. }));
        processes[0].call(1001).unwrap();
        settle().await;
        assert_eq!(processes[0].call(1001), Err(Verdict::Rejected));
        cloudbeds.forget_calls();
        write(&directories[1].path().join("keys.yaml"), "\"1001\": cbat_a\n\"1002\": cbat_b\n");
        assert!(matches!(processes[1].store.reload(), Reload::Swapped { .. }));
        sleep(Duration::from_secs(70)).await;
        assert_eq!(processes[1].call(1001), Err(Verdict::Rejected));
        assert_eq!(cloudbeds.calls(Asked::App), 0);
    })
    .await;
}
