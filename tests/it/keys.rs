//! The key file of a running proxy: what changes there counts at once and as a whole, what is wrong there never counts.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use cloudbeds_auth_proxy::sandbox::{Protocols, Sandbox};
use rustix::process::Signal;

use crate::harness::proxy::write_private;
use crate::harness::{Proxy, cloudbeds, key};

/// Longer than any test: what is noticed then was not noticed by comparing.
const NEVER: &str = "keys: { file: keys.yaml, poll: 1h }";

/// The key that the proxy uses for a property now.
async fn key_used(proxy: &Proxy, cloudbeds: &Sandbox, property: &str) -> String {
    let answer = proxy.get("/sandbox/echo").property(property).send().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    last_key(cloudbeds)
}

fn last_key(cloudbeds: &Sandbox) -> String {
    let seen = cloudbeds.requests().pop().unwrap();
    let bearer = String::from_utf8(seen.header("authorization")[0].to_vec()).unwrap();
    bearer.strip_prefix("Bearer ").unwrap().to_owned()
}

/// A fresh key that nothing may show from now on.
fn fresh(proxy: &mut Proxy) -> String {
    let key = key();
    proxy.secrets.push(key.clone());
    key
}

fn reloaded(proxy: &Proxy) -> impl Future<Output = serde_json::Value> {
    proxy.wait_for_event("new keys are in force")
}

#[tokio::test]
async fn a_replaced_key_file_is_in_force_at_once() {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let mut proxy = Proxy::to(&cloudbeds, &hotels).config(NEVER).start().await;
    assert_eq!(key_used(&proxy, &cloudbeds, "1001").await, hotels[0].key);
    let blue = fresh(&mut proxy);
    proxy.write_keys(&format!("\"1001\": {blue}\n\"1003\": {blue}\n"));
    let event = reloaded(&proxy).await;
    assert_eq!((&event["keys.properties"], &event["keys.keys"]), (&2.into(), &1.into()));
    for property in ["1001", "1003"] {
        assert_eq!(key_used(&proxy, &cloudbeds, property).await, blue);
    }
    proxy.wait_for_metric("key_reloads_total{result=\"ok\"}", |count| count == 1.0).await;
    assert_eq!((proxy.metric("keys_loaded").await, proxy.metric("properties_loaded").await), (1.0, 2.0));
}

/// A link to a file elsewhere: its directory hears nothing when that file is rewritten.
fn elsewhere(directory: &Path) {
    fs::create_dir(directory.join("elsewhere")).unwrap();
    fs::rename(directory.join("keys.yaml"), directory.join("elsewhere/keys")).unwrap();
    symlink("elsewhere/keys", directory.join("keys.yaml")).unwrap();
}

#[tokio::test]
async fn sighup_reads_the_file_again_even_where_the_system_stays_silent() {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let mut proxy = Proxy::to(&cloudbeds, &hotels).config(NEVER).before(elsewhere).start().await;
    let blue = fresh(&mut proxy);
    write_private(&proxy.path("elsewhere/keys"), &format!("\"1001\": {blue}\n"));
    assert_eq!(key_used(&proxy, &cloudbeds, "1001").await, hotels[0].key);
    proxy.signal(Signal::HUP);
    reloaded(&proxy).await;
    assert_eq!(key_used(&proxy, &cloudbeds, "1001").await, blue);
}

#[tokio::test]
async fn where_the_system_stays_silent_the_comparison_notices() {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let mut proxy = Proxy::to(&cloudbeds, &hotels).before(elsewhere).start().await;
    let blue = fresh(&mut proxy);
    write_private(&proxy.path("elsewhere/keys"), &format!("\"1001\": {blue}\n"));
    reloaded(&proxy).await;
    assert_eq!(key_used(&proxy, &cloudbeds, "1001").await, blue);
}

/// A directory as the kubelet mounts a Secret, in its next version: `..data` moves, the links above it stay.
fn mount(directory: &Path, version: &str, keys: &[(&str, &str)]) {
    let mounted = directory.join("secret");
    let new = mounted.join(version);
    fs::create_dir_all(&new).unwrap();
    for (property, key) in keys {
        fs::write(new.join(property), key).unwrap();
        fs::set_permissions(new.join(property), Permissions::from_mode(0o440)).unwrap();
        if fs::symlink_metadata(mounted.join(property)).is_err() {
            symlink(format!("..data/{property}"), mounted.join(property)).unwrap();
        }
    }
    symlink(version, mounted.join("..data_tmp")).unwrap();
    fs::rename(mounted.join("..data_tmp"), mounted.join("..data")).unwrap();
}

#[tokio::test]
async fn a_mounted_secret_is_followed_through_every_swap_of_its_data_link() {
    let (cloudbeds, _) = cloudbeds(Protocols::Both).await;
    let (old, other) = (key(), key());
    let keys = [("1001", old.clone()), ("1002", other.clone())];
    let mut proxy = Proxy::to_origin(&cloudbeds.base_url(), cloudbeds.root_pem())
        .config("keys: { file: secret, poll: 1h }")
        .before(move |directory| mount(directory, "..v1", &keys.each_ref().map(|(id, key)| (*id, key.as_str()))))
        .start()
        .await;
    proxy.secrets.extend([old.clone(), other.clone()]);
    assert_eq!(key_used(&proxy, &cloudbeds, "1001").await, old);
    // A watch on a file would survive none of them, one on the first directory only the first.
    for (reloads, version) in [(1.0, "..v2"), (2.0, "..v3"), (3.0, "..v4")] {
        let blue = fresh(&mut proxy);
        mount(proxy.directory.path(), version, &[("1001", &blue), ("1002", &other)]);
        proxy.wait_for_metric("key_reloads_total{result=\"ok\"}", |count| count == reloads).await;
        assert_eq!(key_used(&proxy, &cloudbeds, "1001").await, blue);
        assert_eq!(key_used(&proxy, &cloudbeds, "1002").await, other);
    }
}

#[tokio::test]
async fn whatever_is_wrong_with_the_file_the_last_good_keys_stay_and_requests_go_on() {
    type Damage = fn(&Path, &str);
    let scenes: [(&str, Damage, &str); 6] = [
        ("torn", |path, key| write_private(path, &format!("\"1001\": {key}\n\"10")), "keys.yaml:2:"),
        ("deleted", |path, _| fs::remove_file(path).unwrap(), "keys.yaml: is not there"),
        ("emptied", |path, _| write_private(path, ""), "keys.yaml: holds no keys"),
        (
            "readable by all",
            |path, _| fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap(),
            "keys.yaml: has mode 0644, so others may read or write the keys — run: chmod 600",
        ),
        (
            "one bad row",
            |path, key| write_private(path, &format!("\"1001\": {key}\n\"1002\": {}\n", &key[5..])),
            "keys.yaml:2:9: 1002: ",
        ),
        (
            "columns swapped",
            |path, key| write_private(path, &format!("\"1001\": {key}\n{key}: \"1002\"\n")),
            "keys.yaml:2:1: ",
        ),
    ];
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let mut proxy = Proxy::to(&cloudbeds, &hotels).start().await;
    let path = proxy.path("keys.yaml");
    let mut good = hotels[0].key.clone();
    for (name, damage, words) in scenes {
        let refused = proxy.metric("key_reloads_total{result=\"refused\"}").await;
        let unseen = fresh(&mut proxy);
        damage(&path, &unseen);
        proxy.wait_for_metric("key_reloads_total{result=\"refused\"}", |count| count > refused).await;
        assert_eq!(proxy.metric("key_file_good").await, 0.0, "{name}");
        let warning = proxy
            .wait_for(name, || {
                let told =
                    |event: &serde_json::Value| event["message"].as_str().is_some_and(|text| text.contains(words));
                proxy.events().into_iter().find(told)
            })
            .await;
        assert_eq!(warning["level"], "WARN", "{name}");
        assert_eq!(key_used(&proxy, &cloudbeds, "1001").await, good, "{name}");
        assert_eq!(proxy.admin("/readyz").await.status, 200, "{name}");

        let ok = proxy.metric("key_reloads_total{result=\"ok\"}").await;
        good = fresh(&mut proxy);
        proxy.write_keys(&format!("\"1001\": {good}\n"));
        proxy.wait_for_metric("key_reloads_total{result=\"ok\"}", |count| count > ok).await;
        assert_eq!(proxy.metric("key_file_good").await, 1.0, "after {name}");
        assert_eq!(key_used(&proxy, &cloudbeds, "1001").await, good, "after {name}");
    }
}

#[tokio::test]
async fn a_request_finishes_on_the_key_it_started_with_while_the_next_uses_the_new_one() {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let mut proxy = Proxy::to(&cloudbeds, &hotels).config(NEVER).start().await;
    let mut upload = proxy.connect().await;
    upload
        .send("POST /sandbox/upload HTTP/1.1\r\nhost: x\r\nx-property-id: 1001\r\ncontent-length: 8\r\n\r\nhalf")
        .await;
    proxy.wait_for("the upload", || cloudbeds.requests().pop().filter(|seen| seen.body_bytes == 4)).await;

    let blue = fresh(&mut proxy);
    proxy.write_keys(&format!("\"1001\": {blue}\n"));
    reloaded(&proxy).await;
    assert_eq!(key_used(&proxy, &cloudbeds, "1001").await, blue);

    upload.send("full").await;
    let answer = upload.answer().await;
    assert_eq!((answer.status.as_u16(), &answer.json()["bytes"]), (200, &8.into()));
    let seen = &cloudbeds.requests()[0];
    assert_eq!(seen.header("authorization"), [format!("Bearer {}", hotels[0].key).as_bytes()]);
    // The connection that carried it goes on with the new key.
    assert_eq!(upload.get("/sandbox/echo", "1001").await.status, 200);
    assert_eq!(last_key(&cloudbeds), blue);
}

#[tokio::test]
async fn one_key_may_serve_several_properties_and_have_an_origin_of_its_own() {
    let (main, hotels) = cloudbeds(Protocols::Both).await;
    let (other, _) = cloudbeds(Protocols::Http1).await;
    let (green, base_url) = (key(), other.base_url());
    let rows = format!(
        "\"1001\": {}\nkeys:\n  - {{ key: {green}, properties: [2001, \"2002\"], organization: org_1, app: main, \
         base_url: {base_url} }}\n",
        hotels[0].key
    );
    let roots = format!("{}{}", main.root_pem(), other.root_pem());
    let mut proxy = Proxy::to_origin(&main.base_url(), &roots)
        .config("apps: { main: { client_id: live1_1_main } }")
        .before(move |directory| write_private(&directory.join("keys.yaml"), &rows))
        .start()
        .await;
    proxy.secrets.extend([green.clone(), hotels[0].key.clone()]);
    assert_eq!(key_used(&proxy, &main, "1001").await, hotels[0].key);
    for property in ["2001", "2002", "2001,2002"] {
        assert_eq!(key_used(&proxy, &other, property).await, green);
    }
    assert_eq!(main.requests().len(), 1);
    assert_eq!((proxy.metric("keys_loaded").await, proxy.metric("properties_loaded").await), (2.0, 3.0));
}

#[tokio::test]
async fn a_removed_property_is_refused_at_once_and_loses_its_label() {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let proxy = Proxy::to(&cloudbeds, &hotels).config(NEVER).start().await;
    let mut kept_open = proxy.connect().await;
    assert_eq!(kept_open.get("/api/v1.3/getHotels", "1002").await.status, 200);
    assert_eq!(proxy.metric("requests_total{property=\"1002\",class=\"2xx\",code=\"\"}").await, 1.0);
    proxy.write_keys(&format!("\"1001\": {}\n", hotels[0].key));
    reloaded(&proxy).await;
    assert_eq!(kept_open.get("/api/v1.3/getHotels", "1002").await.code(), "property_unknown");
    assert_eq!(proxy.get("/api/v1.3/getHotels").property("1001").send().await.status, 200);
    assert!(!proxy.admin("/metrics").await.text().contains("1002"));
}

#[tokio::test]
async fn a_hundred_thousand_keys_load_and_serve() {
    let (cloudbeds, _) = cloudbeds(Protocols::Both).await;
    let keys: Vec<String> = (0..100_000).map(|_| key()).collect();
    let mut rows = String::new();
    for (index, key) in keys.iter().enumerate() {
        writeln!(rows, "\"{}\": {key}", 1_000_000 + index).unwrap();
    }
    let proxy = Proxy::to_origin(&cloudbeds.base_url(), cloudbeds.root_pem())
        .before(move |directory| write_private(&directory.join("keys.yaml"), &rows))
        .start()
        .await;
    for index in [0, 49_999, 99_999] {
        let property = (1_000_000 + index).to_string();
        assert_eq!(key_used(&proxy, &cloudbeds, &property).await, keys[index]);
    }
    assert_eq!(proxy.metric("keys_loaded").await, 100_000.0);
    assert_eq!(proxy.get("/sandbox/echo").property("1100000").send().await.code(), "property_unknown");
}
