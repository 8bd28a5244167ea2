//! Scenes: a file, a watch on it, one event, one outcome.

use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep, timeout};

use super::*;

/// Longer than any test runs, so what is seen was not seen by the poll.
const NEVER: Duration = Duration::from_secs(3600);

struct Scene {
    directory: tempfile::TempDir,
    path: PathBuf,
    store: Arc<KeyStore>,
    reload_now: Arc<Notify>,
    heard: mpsc::UnboundedReceiver<Reload>,
}

impl Scene {
    async fn of_a_file(text: &str, poll: Duration) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.yaml");
        write(&path, text);
        Self::of(directory, path, poll).await
    }

    async fn of(directory: tempfile::TempDir, path: PathBuf, poll: Duration) -> Self {
        let store = KeyStore::open(&path).unwrap();
        let reload_now = Arc::new(Notify::new());
        let (tell, heard) = mpsc::unbounded_channel();
        tokio::spawn(watch(Arc::clone(&store), poll, Arc::clone(&reload_now), move |reload| {
            let _ = tell.send(reload.clone());
        }));
        let mut scene = Self { directory, path, store, reload_now, heard };
        scene.hear("the first look", |reload| matches!(reload, Reload::Unchanged)).await;
        scene
    }

    async fn hear(&mut self, what: &str, wanted: impl Fn(&Reload) -> bool) -> Reload {
        let heard = timeout(Duration::from_secs(10), async {
            loop {
                let reload = self.heard.recv().await.expect("the watch ended");
                if wanted(&reload) {
                    return reload;
                }
            }
        });
        heard.await.unwrap_or_else(|_| panic!("did not hear of {what}"))
    }

    async fn swapped(&mut self) {
        self.hear("a swap", |reload| matches!(reload, Reload::Swapped { .. })).await;
    }

    async fn refused(&mut self) -> String {
        match self.hear("a refusal", |reload| matches!(reload, Reload::Refused(_))).await {
            Reload::Refused(faults) => shown(&faults).join("\n"),
            _ => unreachable!(),
        }
    }

    fn has(&self, id: u64, key: &str) -> bool {
        has(&self.store.current(), id, key)
    }

    fn replace(&self, text: &str) {
        let new = self.directory.path().join(".new");
        write(&new, text);
        fs::rename(new, &self.path).unwrap();
    }
}

#[tokio::test]
async fn a_replaced_file_is_seen_at_once_and_every_time() {
    let mut scene = Scene::of_a_file("1001: cbat_blue", NEVER).await;
    for key in ["cbat_red", "cbat_green"] {
        scene.replace(&format!("1001: {key}"));
        scene.swapped().await;
        assert!(scene.has(1001, key));
    }
}

#[tokio::test]
async fn a_kubernetes_swap_of_a_directory_is_seen() {
    let secret = Secret::mounted(&[("1001", "cbat_blue")]);
    let path = secret.path();
    let mut scene = Scene::of(tempfile::tempdir().unwrap(), path, NEVER).await;
    for (generation, key) in [("..2026_02", "cbat_red"), ("..2026_03", "cbat_green")] {
        secret.swap(generation, &[("1001", key)]);
        scene.swapped().await;
        assert!(scene.has(1001, key));
    }
}

#[tokio::test]
async fn a_kubernetes_swap_of_a_key_file_is_seen() {
    let secret = Secret::mounted(&[("keys.yaml", "1001: cbat_blue")]);
    let path = secret.path().join("keys.yaml");
    let mut scene = Scene::of(tempfile::tempdir().unwrap(), path, NEVER).await;
    for (generation, key) in [("..2026_02", "cbat_red"), ("..2026_03", "cbat_green")] {
        secret.swap(generation, &[("keys.yaml", &format!("1001: {key}"))]);
        scene.swapped().await;
        assert!(scene.has(1001, key));
    }
}

#[tokio::test]
async fn a_torn_write_keeps_the_last_good_set_until_the_rest_is_there() {
    let mut scene = Scene::of_a_file("1001: cbat_blue", NEVER).await;
    write(&scene.path, "1001: cbat_red\n1002: cb");
    assert!(scene.refused().await.contains("keys.yaml:2:7: 1002: not an API key"));
    assert!(scene.has(1001, "cbat_blue"));
    write(&scene.path, "1001: cbat_red\n1002: cbat_red");
    scene.swapped().await;
    assert!(scene.has(1002, "cbat_red"));
}

#[tokio::test]
async fn a_slow_write_is_not_read_half_done() {
    let mut scene = Scene::of_a_file("1001: cbat_blue", Duration::from_millis(10)).await;
    // Every half of this file is a good file, with fewer rows.
    let mut file = OpenOptions::new().write(true).truncate(true).open(&scene.path).unwrap();
    for id in 1001..=1020 {
        file.write_all(format!("{id}: cbat_red\n").as_bytes()).unwrap();
        sleep(Duration::from_millis(10)).await;
    }
    drop(file);
    let swap = scene.hear("a swap", |reload| matches!(reload, Reload::Swapped { .. })).await;
    assert!(matches!(swap, Reload::Swapped { properties: 20, .. }), "{swap:?}");
}

#[tokio::test]
async fn an_emptied_file_keeps_the_last_good_set() {
    let mut scene = Scene::of_a_file("1001: cbat_blue", NEVER).await;
    write(&scene.path, "");
    assert!(scene.refused().await.contains("holds no keys"));
    assert!(scene.has(1001, "cbat_blue"));
}

#[tokio::test]
async fn a_deleted_file_keeps_the_last_good_set_and_is_seen_when_it_is_back() {
    let mut scene = Scene::of_a_file("1001: cbat_blue", NEVER).await;
    fs::remove_file(&scene.path).unwrap();
    assert!(scene.refused().await.contains("is not there"));
    assert!(scene.has(1001, "cbat_blue"));
    write(&scene.path, "1001: cbat_red");
    scene.swapped().await;
}

#[tokio::test]
async fn a_file_that_is_gone_for_a_moment_is_no_fault() {
    let mut scene = Scene::of_a_file("1001: cbat_blue", Duration::from_millis(20)).await;
    fs::remove_file(&scene.path).unwrap();
    sleep(Duration::from_millis(300)).await;
    write(&scene.path, "1001: cbat_red");
    let first = scene.hear("anything new", |reload| !matches!(reload, Reload::Unchanged)).await;
    assert!(matches!(first, Reload::Swapped { .. }), "{first:?}");
}

#[tokio::test]
async fn a_directory_replaced_under_its_name_is_followed() {
    let parent = tempfile::tempdir().unwrap();
    let keys = parent.path().join("keys");
    fs::create_dir(&keys).unwrap();
    let path = keys.join("keys.yaml");
    write(&path, "1001: cbat_blue");
    let mut scene = Scene::of(parent, path.clone(), Duration::from_millis(200)).await;
    fs::rename(&keys, scene.directory.path().join("old")).unwrap();
    fs::create_dir(&keys).unwrap();
    write(&path, "1001: cbat_red");
    scene.swapped().await;
}

#[tokio::test]
async fn a_bad_file_is_told_at_every_poll_and_ends_nothing() {
    let mut scene = Scene::of_a_file("1001: cbat_blue", Duration::from_millis(20)).await;
    write(&scene.path, "1001: no");
    for _ in 0..3 {
        scene.refused().await;
    }
    set_mode(&scene.path, 0o644);
    scene
        .hear("the mode", |reload| matches!(reload, Reload::Refused(faults) if faults[0].message.contains("mode")))
        .await;
    set_mode(&scene.path, 0o600);
    write(&scene.path, "1001: cbat_blue");
    scene.hear("the good content", |reload| matches!(reload, Reload::Unchanged)).await;
}

#[tokio::test]
async fn a_signal_asks_for_a_look_at_once() {
    let mut scene = Scene::of_a_file("1001: cbat_blue", NEVER).await;
    scene.reload_now.notify_one();
    scene.hear("a look", |reload| matches!(reload, Reload::Unchanged)).await;
}

#[tokio::test]
async fn files_beside_the_key_file_lead_to_no_look() {
    let mut scene = Scene::of_a_file("1001: cbat_blue", NEVER).await;
    write(&scene.directory.path().join("proxy.log"), "a line");
    assert!(timeout(Duration::from_millis(300), scene.heard.recv()).await.is_err());
}
