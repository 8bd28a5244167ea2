//! What is left in memory of a key that was replaced: nothing of what is ours.
//!
//! The process is not dumpable, so only root can look. Each scene also finds the key in force where it looks, or it could
//! not fail. Over HTTP/2 keys are sent as they are, too, and never kept in a table.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use cloudbeds_auth_proxy::sandbox::{Hotel, Protocols, Sandbox};

use crate::harness::proxy::write_private;
use crate::harness::{Builder, EITHER, Gate, Memory, PATIENCE, Proxy, cloudbeds, key, until};

const ROOMS: &str = "/api/v1.3/getRooms";

/// How keys come: all in a file, or in a directory with a file for each, as Kubernetes mounts it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Form {
    File,
    Directory,
}

impl Form {
    /// Puts keys there, each in one step.
    fn write(self, directory: &Path, hotels: &[Hotel]) {
        let place = |name: &str, text: &str| {
            write_private(&directory.join(".new"), text);
            fs::rename(directory.join(".new"), directory.join(name)).unwrap();
        };
        match self {
            Self::File => {
                let row = |hotel: &Hotel| format!("\"{}\": {} # {} & more\n", hotel.property, hotel.key, hotel.name);
                place("keys.yaml", &hotels.iter().map(row).collect::<String>());
            }
            Self::Directory => {
                fs::create_dir_all(directory.join("mounted")).unwrap();
                hotels.iter().for_each(|hotel| place(&format!("mounted/{}", hotel.property), &hotel.key));
            }
        }
    }
}

struct Scene {
    cloudbeds: Sandbox,
    hotels: Vec<Hotel>,
    proxy: Proxy,
    form: Form,
}

impl Scene {
    async fn new(protocols: Protocols, form: Form) -> Self {
        let (cloudbeds, hotels) = cloudbeds(protocols).await;
        let builder = Proxy::to(&cloudbeds, &hotels);
        Self::started(cloudbeds, hotels, builder, form).await
    }

    async fn started(cloudbeds: Sandbox, hotels: Vec<Hotel>, builder: Builder, form: Form) -> Self {
        let file = if form == Form::File { "keys.yaml" } else { "mounted" };
        let builder = builder.config(&format!("keys: {{ file: {file}, poll: 200ms }}"));
        let given = hotels.clone();
        let mut proxy = builder.before(move |directory| form.write(directory, &given)).start().await;
        proxy.secrets.extend(hotels.iter().map(|hotel| hotel.key.clone()));
        Self { cloudbeds, hotels, proxy, form }
    }

    /// Gives the first so many hotels new keys, and waits until those are here.
    async fn replace(&mut self, count: usize) {
        let mut hotels = self.hotels.clone();
        hotels.iter_mut().take(count).for_each(|hotel| hotel.key = key());
        self.proxy.secrets.extend(hotels.iter().map(|hotel| hotel.key.clone()));
        self.form.write(self.proxy.directory.path(), &hotels);
        until("all are here", async || hotels.iter().all(|hotel| !self.places(&hotel.key).is_empty())).await;
    }

    /// Where a key lies.
    fn places(&self, key: &str) -> Vec<String> {
        Memory::of(self.proxy.id()).unwrap().places(key)
    }

    /// Waits until a key is nowhere: each core lets go of the keys before within a second, and the next look at the file
    /// frees them.
    async fn until_gone(&self, key: &str) {
        let started = Instant::now();
        loop {
            let left = self.places(key);
            if left.is_empty() {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "it is still in {left:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test]
async fn a_key_that_was_replaced_is_no_longer_in_memory() {
    for (protocols, form, calls) in EITHER
        .into_iter()
        .flat_map(|protocols| [Form::File, Form::Directory].map(|form| (protocols, form)))
        .flat_map(|(protocols, form)| [0, 20].map(|calls| (protocols, form, calls)))
    {
        let mut scene = Scene::new(protocols, form).await;
        if Memory::of(scene.proxy.id()).is_none() {
            return;
        }
        for _ in 0..calls {
            assert_eq!(scene.proxy.get(ROOMS).property("1001").send().await.status, 200);
        }
        let [old, kept] = [0, 1].map(|hotel| scene.hotels[hotel].key.clone());
        assert!(!scene.places(&old).is_empty(), "it is in force, and is not found");
        scene.replace(1).await;
        scene.until_gone(&old).await;
        assert!(!scene.places(&kept).is_empty());
    }
}

#[tokio::test]
async fn a_key_that_was_replaced_while_a_request_uses_it_is_wiped_with_that_request() {
    for protocols in EITHER {
        let (cloudbeds, hotels) = cloudbeds(protocols).await;
        let gate = Gate::open_to(cloudbeds.address()).await;
        let builder = Proxy::to_origin(&gate.url(), cloudbeds.root_pem()).config("workers: 1");
        let mut scene = Scene::started(cloudbeds, hotels, builder, Form::Directory).await;
        if Memory::of(scene.proxy.id()).is_none() {
            return;
        }
        // Its connection is there when the gate begins to hold what comes over it.
        let mut wire = scene.proxy.connect().await;
        assert_eq!(wire.get(ROOMS, "1001").await.status, 200);
        gate.hold();
        wire.send(format!("GET {ROOMS} HTTP/1.1\r\nhost: a\r\nx-property-id: 1001\r\n\r\n")).await;
        until("it is at Cloudbeds", async || scene.cloudbeds.requests().len() == 2).await;
        let [used, unused] = [0, 1].map(|hotel| scene.hotels[hotel].key.clone());
        scene.replace(2).await;
        scene.until_gone(&unused).await;
        assert!(!scene.places(&used).is_empty(), "the request has it still");
        gate.let_go();
        assert_eq!(wire.answer().await.status, 200);
        scene.until_gone(&used).await;
    }
}
