//! The process is killed between every two steps of a connection: the key is on disk, or the user is told to connect
//! again.
//!
//! The steps are held from outside: Cloudbeds keeps an answer to itself, or the test holds the key file's lock.

use cloudbeds_auth_proxy::sandbox::Rule;
use rustix::process::Signal;
use tokio::task::JoinHandle;

use crate::harness::hotel::onboarding;
use crate::harness::{Browser, Gate, Hotels, Scene, until};

/// A connection of 1003 that has reached the redirect and is held at some step.
struct Held {
    hotels: Hotels,
    browser: Browser,
    back: String,
    /// The way to `access_token`.
    gate: Gate,
    visit: JoinHandle<()>,
}

impl Held {
    /// Holds the answer to the exchange; `hang` names the call whose answer never comes.
    async fn begin(hang: Option<&str>) -> Self {
        let scene = Scene::new();
        let (cloudbeds, keys) = scene.cloudbeds().await;
        let gate = Gate::open_to(cloudbeds.address()).await;
        let scene = scene.exchange(&format!("{}/api/v1.1/access_token", gate.url()));
        let proxy = scene.proxy(&cloudbeds, &keys).start().await;
        let mut hotels = Hotels { connect: onboarding(&proxy), cloudbeds, proxy };
        let mut browser = Browser::default();
        let state = hotels.begin(&mut browser, 1003).await;
        let back = hotels.approve(1003, Some(&state));
        gate.hold();
        if let Some(path) = hang {
            let rule = Rule { property: None, path: path.to_owned(), times: 1, room: "hang".to_owned() };
            hotels.cloudbeds.add_rule(rule);
        }
        // Most often the end comes: the process is killed.
        let visit = hotels.come_back_whatever_comes(&browser, &back);
        until("the exchange is at Cloudbeds", async || hotels.exchanges() == 1).await;
        hotels.remember_key(1003);
        Self { hotels, browser, back, gate, visit }
    }

    async fn arrives(&self, path: &str) {
        until(path, async || self.hotels.cloudbeds.requests().iter().any(|seen| seen.target.contains(path))).await;
    }

    /// Kills the process and starts another one; what the page says when the browser loads it again.
    async fn killed(mut self) -> (Hotels, Browser, String) {
        self.hotels.proxy.kill();
        self.gate.let_go();
        self.visit.await.unwrap();
        self.hotels.cloudbeds.clear_rules();
        self.hotels.restart().await;
        let page = self.hotels.open(&mut self.browser, &self.back).await;
        assert_eq!(self.hotels.exchanges(), 1, "a code is never sent twice");
        // The gate goes with the scene, and a new connection needs it.
        std::mem::forget(self.gate);
        (self.hotels, self.browser, page.text())
    }
}

async fn works_soon(hotels: &Hotels) {
    until("the next call works", async || {
        hotels.proxy.get("/api/v1.3/getHotelDetails").property("1003").send().await.status == 200
    })
    .await;
    assert!(hotels.works(1003).await && hotels.works(1001).await);
    until("nothing waits", async || hotels.beside("arrived").is_empty()).await;
}

#[tokio::test]
async fn before_the_answer_has_come_the_user_is_told_to_connect_again() {
    let held = Held::begin(None).await;
    let (mut hotels, mut browser, page) = held.killed().await;
    assert!(page.contains("<h1>Please connect again</h1>"), "{page}");
    assert_eq!(hotels.beside("arrived").len(), 0);
    hotels.connect(&mut browser, 1003).await.assert_page(200, "Lake &#38; Forest is connected");
    works_soon(&hotels).await;
}

#[tokio::test]
async fn with_the_answer_received_and_nothing_done_about_it_the_user_is_told_to_connect_again() {
    let held = Held::begin(None).await;
    // Stopped, it receives and does not act.
    held.hotels.proxy.signal(Signal::STOP);
    held.gate.let_go();
    let (mut hotels, mut browser, page) = held.killed().await;
    assert!(page.contains("<h1>Please connect again</h1>"), "{page}");
    assert_eq!(hotels.beside("arrived").len(), 0);
    hotels.connect(&mut browser, 1003).await.assert_page(200, "Lake &#38; Forest is connected");
    works_soon(&hotels).await;
}

#[tokio::test]
async fn with_the_key_on_disk_and_its_hotel_unknown_the_next_process_finishes() {
    let held = Held::begin(Some("getHotels")).await;
    held.gate.let_go();
    held.arrives("/getHotels").await;
    assert_eq!(held.hotels.beside("arrived").len(), 1, "on disk before anything else is done with it");
    assert!(!held.hotels.key_file().contains("1003"));
    let (hotels, _, page) = held.killed().await;
    assert!(page.contains("<h1>Please connect again</h1>"), "{page}");
    works_soon(&hotels).await;
}

#[tokio::test]
async fn with_its_hotel_known_and_the_key_file_not_yet_written_the_next_process_finishes() {
    let held = Held::begin(None).await;
    let lock =
        std::fs::File::options().create(true).append(true).open(held.hotels.proxy.path("keys.yaml.lock")).unwrap();
    lock.lock().unwrap();
    held.gate.let_go();
    held.arrives("/getHotels").await;
    let descriptor = held.hotels.proxy.path("keys.yaml.lock");
    let fds = format!("/proc/{}/fd", held.hotels.proxy.id());
    until("it waits for the lock", async || {
        let open = std::fs::read_dir(&fds).unwrap().flatten();
        open.filter_map(|fd| std::fs::read_link(fd.path()).ok()).any(|path| path == descriptor)
    })
    .await;
    assert_eq!(held.hotels.beside("arrived").len(), 1);
    assert!(!held.hotels.key_file().contains("1003"));
    held.hotels.proxy.signal(Signal::KILL);
    drop(lock);
    let (hotels, _, _) = held.killed().await;
    works_soon(&hotels).await;
}

#[tokio::test]
async fn with_the_key_in_both_files_the_next_process_removes_the_one() {
    let held = Held::begin(Some("getHotels")).await;
    held.gate.let_go();
    held.arrives("/getHotels").await;
    let name = held.hotels.beside("arrived").pop().unwrap();
    let (text, path) = (std::fs::read_to_string(held.hotels.proxy.path(&name)).unwrap(), held.hotels.proxy.path(&name));
    let (mut hotels, _, _) = held.killed().await;
    works_soon(&hotels).await;
    // As it is between the renaming of the one and the removal of the other.
    let file = hotels.key_file();
    crate::harness::proxy::write_private(&path, &text);
    hotels.restart().await;
    works_soon(&hotels).await;
    assert_eq!(hotels.key_file(), file);
}

#[tokio::test]
async fn with_the_key_in_force_and_not_yet_tried_it_works_in_the_next_process() {
    let held = Held::begin(Some("userinfo")).await;
    held.gate.let_go();
    held.arrives("/userinfo").await;
    assert!(held.hotels.key_file().contains("1003") && held.hotels.beside("arrived").is_empty());
    let (hotels, _, page) = held.killed().await;
    assert!(page.contains("<h1>Please connect again</h1>"), "{page}");
    works_soon(&hotels).await;
}

#[tokio::test]
async fn with_the_page_on_its_way_it_works_in_the_next_process() {
    let held = Held::begin(None).await;
    held.gate.let_go();
    held.hotels.proxy.wait_for_metric("connects_total{outcome=\"connected\"}", |count| count == 1.0).await;
    let (hotels, _, _) = held.killed().await;
    works_soon(&hotels).await;
}

#[tokio::test]
async fn told_to_end_it_finishes_the_exchange_that_is_under_way() {
    let mut held = Held::begin(None).await;
    held.hotels.proxy.signal(Signal::TERM);
    held.hotels.proxy.wait_for_event("draining").await;
    held.gate.let_go();
    assert_eq!(held.hotels.proxy.ended().await.code(), Some(0));
    assert!(held.hotels.key_file().contains("1003") && held.hotels.beside("arrived").is_empty());
    held.visit.await.unwrap();
}
