//! Certificates that were revoked: nobody is served with one, whatever connection it came on.

use std::time::{Duration, SystemTime};

use http::StatusCode;

use crate::harness::frames::{self, Outcome};
use crate::harness::wire::get;
use crate::harness::{Authority, Certified, Desk, Frames, Identity, Proxy, Speaker, WallClock, Wire, until};

const DETAILS: &str = "/api/v1.3/getHotelDetails";
const CONFIG: &str = "tls: { certificate_file: listener.pem, key_file: listener.key, client_ca_file: callers.pem, \
                      client_crl_file: callers.crl }\n";

/// A proxy whose callers' issuer has this list.
async fn proxy(scene: &Certified, list: &str) -> Proxy {
    scene.proxy(CONFIG).file("callers.pem", &scene.root).file("callers.crl", list).start().await
}

fn speaker<'a>(scene: &'a Certified, identity: &'a Identity) -> Speaker<'a> {
    Speaker { identity: Some(identity), ..Speaker::new(&scene.root) }
}

/// Whether a new connection is served.
async fn serves(scene: &Certified, proxy: &Proxy, identity: &Identity, tls12: bool) -> bool {
    // With TLS 1.3 a caller believes to be through before the listener has looked.
    let Ok(stream) = (Speaker { tls12, ..speaker(scene, identity) }).connect(proxy.address).await else {
        return false;
    };
    let mut wire = Wire::over(stream, &proxy.secrets);
    wire.send(get(DETAILS, "1001")).await;
    wire.try_answer().await.is_some_and(|answer| answer.status == StatusCode::OK)
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_and_those_beside_it_are_not() {
    let scene = Certified::new().await;
    let (desk, lost) = (scene.authority.caller("desk", &[]), scene.authority.caller("desk", &[]));
    let proxy = proxy(&scene, &scene.authority.revoked(&[&lost], 2200)).await;
    for tls12 in [false, true] {
        assert!(serves(&scene, &proxy, &desk, tls12).await);
        assert!(!serves(&scene, &proxy, &lost, tls12).await);
    }
    assert_eq!(scene.cloudbeds.requests().len(), 2);
    let told = || proxy.log().lines().any(|line| line.contains("a TLS handshake failed") && line.contains("Revoked"));
    proxy.wait_for("a line about the handshake", || told().then_some(())).await;
}

#[tokio::test]
async fn a_new_list_counts_from_the_next_request_on_of_open_connections_too() {
    let scene = Certified::new().await;
    let (desk, lost) = (scene.authority.caller("desk", &[]), scene.authority.caller("desk", &[]));
    let proxy = proxy(&scene, &scene.authority.revoked(&[], 2200)).await;
    let mut desk_open = speaker(&scene, &desk).wire(&proxy).await;
    let mut lost_open = speaker(&scene, &lost).wire(&proxy).await;
    let over_http2 = |identity| Speaker { alpn: &["h2"], ..speaker(&scene, identity) };
    let mut desk_frames = Frames::by(&over_http2(&desk), &proxy, &[]).await;
    let mut lost_frames = Frames::by(&over_http2(&lost), &proxy, &[]).await;
    for wire in [&mut desk_open, &mut lost_open] {
        assert_eq!(wire.get(DETAILS, "1001").await.status, StatusCode::OK);
    }
    for frames in [&mut desk_frames, &mut lost_frames] {
        frames.head(1, &frames::get(DETAILS)).await;
        assert!(matches!(frames.outcome(1).await, Outcome::Answered(body) if body.contains("\"success\":true")));
    }

    proxy.replace("callers.crl", &scene.authority.revoked(&[&lost], 2200));
    until("the new list counts", async || !serves(&scene, &proxy, &lost, false).await).await;
    let before = scene.cloudbeds.requests().len();
    lost_open.get(DETAILS, "1001").await.assert_refused("caller_unknown");
    assert!(lost_open.try_answer().await.is_none(), "and it ends");
    lost_frames.head(3, &frames::get(DETAILS)).await;
    assert!(matches!(lost_frames.outcome(3).await, Outcome::Answered(body) if body.contains("\"caller_unknown\"")));
    assert_eq!(scene.cloudbeds.requests().len(), before);
    assert_eq!(desk_open.get(DETAILS, "1001").await.status, StatusCode::OK);
    desk_frames.head(3, &frames::get(DETAILS)).await;
    assert!(matches!(desk_frames.outcome(3).await, Outcome::Answered(body) if body.contains("\"success\":true")));
    assert!(serves(&scene, &proxy, &desk, false).await);

    // A list that cannot be used replaces none.
    proxy.replace("callers.crl", "no list");
    let kept = |line: &str| line.contains("keeps its certificate") && line.contains("callers.crl");
    proxy.wait_for("a warning", || proxy.log().lines().any(kept).then_some(())).await;
    assert!(serves(&scene, &proxy, &desk, false).await && !serves(&scene, &proxy, &lost, false).await);
    lost_frames.head(5, &frames::get(DETAILS)).await;
    assert!(matches!(lost_frames.outcome(5).await, Outcome::Answered(body) if body.contains("\"caller_unknown\"")));
}

#[tokio::test]
async fn a_list_that_is_out_of_date_or_of_somebody_else_lets_nobody_in() {
    let scene = Certified::new().await;
    let desk = scene.authority.caller("desk", &[]);
    for list in [scene.authority.revoked(&[], 2021), Authority::new().revoked(&[], 2200)] {
        let proxy = proxy(&scene, &list).await;
        assert!(!serves(&scene, &proxy, &desk, false).await);
        assert!(warned(&proxy, LETS_IN_NOBODY), "it is told when it starts");
        proxy.wait_for_metric("revocation_lists_due", |due| due == 1.0).await;
        proxy.replace("callers.crl", &scene.authority.revoked(&[], 2200));
        until("the new list counts", async || serves(&scene, &proxy, &desk, false).await).await;
        proxy.wait_for_event("the listener has new revocation lists").await;
        proxy.wait_for_metric("revocation_lists_due", |due| due == 0.0).await;
        proxy.replace("callers.crl", &list);
        proxy.wait_for_metric("revocation_lists_due", |due| due == 1.0).await;
    }
}

/// What is said of lists that keep callers out whose certificates are in order.
const LETS_IN_NOBODY: &str = "nobody with a certificate of it is let in";

/// Whether a line at level `warn` has these words.
fn warned(proxy: &Proxy, words: &str) -> bool {
    proxy.log().lines().any(|line| line.contains("callers.crl: tls.client_crl_file: ") && line.contains(words))
}

#[tokio::test]
async fn what_the_file_says_counts_and_a_list_that_is_older_or_of_somebody_else_is_told_of() {
    let scene = Certified::new().await;
    let (desk, lost) = (scene.authority.caller("desk", &[]), scene.authority.caller("desk", &[]));
    let good = scene.authority.revoked_between(&[&lost], (2022, 2200));
    let proxy = proxy(&scene, &good).await;
    assert!(!serves(&scene, &proxy, &lost, false).await);
    let older = "older than the one before, of 2022-01-01";
    for (list, words, served) in [
        (scene.authority.revoked_between(&[], (2021, 2200)), older, true),
        (Authority::new().revoked_between(&[], (2023, 2200)), LETS_IN_NOBODY, false),
    ] {
        proxy.replace("callers.crl", &list);
        proxy.wait_for("a warning", || warned(&proxy, words).then_some(())).await;
        for identity in [&desk, &lost] {
            assert_eq!(serves(&scene, &proxy, identity, false).await, served, "{words}");
        }
        proxy.replace("callers.crl", &good);
        until("the good list counts", async || {
            serves(&scene, &proxy, &desk, false).await && !serves(&scene, &proxy, &lost, false).await
        })
        .await;
    }
    assert_eq!(proxy.log().matches(older).count(), 1, "a newer one is no reason for a word");
}

#[tokio::test]
async fn a_newer_list_counts_also_where_the_file_has_lost_another_issuers() {
    let scene = Certified::new().await;
    let other = Authority::called("Other Authority");
    let (desk, lost) = (scene.authority.caller("desk", &[]), scene.authority.caller("desk", &[]));
    let before = scene.authority.revoked_between(&[], (2021, 2200)) + &other.revoked_between(&[], (2021, 2200));
    let issuers = scene.root.clone() + &other.pem();
    let proxy = scene.proxy(CONFIG).file("callers.pem", &issuers).file("callers.crl", &before).start().await;
    assert!(serves(&scene, &proxy, &desk, false).await && serves(&scene, &proxy, &lost, false).await);
    proxy.replace("callers.crl", &scene.authority.revoked_between(&[&lost], (2022, 2200)));
    until("whom it revokes is refused", async || !serves(&scene, &proxy, &lost, false).await).await;
    assert!(serves(&scene, &proxy, &desk, false).await);
}

#[tokio::test]
async fn a_newer_list_counts_even_if_it_is_out_of_date_and_the_log_says_whom_it_keeps_out() {
    let scene = Certified::new().await;
    let desk = scene.authority.caller("desk", &[]);
    let proxy = proxy(&scene, &scene.authority.revoked_between(&[], (2021, 2200))).await;
    assert!(serves(&scene, &proxy, &desk, false).await);
    proxy.replace("callers.crl", &scene.authority.revoked_between(&[], (2022, 2023)));
    proxy.wait_for("a warning", || warned(&proxy, LETS_IN_NOBODY).then_some(())).await;
    let told = |line: &str| {
        line.contains("has new revocation lists, but")
            && line.contains("rcgen self signed cert that was good until 2023-01-01")
    };
    assert!(proxy.log().lines().any(told), "{}", proxy.log());
    assert!(!serves(&scene, &proxy, &desk, false).await);
}

#[tokio::test]
async fn a_list_that_goes_out_of_date_while_nothing_changes_is_told_of_once() {
    let Some(clock) = WallClock::off_by("+0") else { return };
    let scene = Certified::new().await;
    let desk = scene.authority.caller("desk", &[]);
    let year = 1970 + (SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() / (366 * 24 * 60 * 60)) as i32;
    let list = scene.authority.revoked(&[], year + 2);
    let builder = scene.proxy(CONFIG).file("callers.pem", &scene.root).file("callers.crl", &list);
    let proxy = builder.by(&clock.words()).start().await;
    assert!(serves(&scene, &proxy, &desk, false).await);
    assert_eq!(proxy.metric("revocation_lists_due").await, 0.0);
    clock.set("+800d");
    proxy.wait_for_metric("revocation_lists_due", |due| due == 1.0).await;
    proxy.wait_for("a warning", || warned(&proxy, LETS_IN_NOBODY).then_some(())).await;
    assert!(!serves(&scene, &proxy, &desk, false).await);
    // It is looked at five times a second.
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(proxy.log().matches(LETS_IN_NOBODY).count(), 1, "{}", proxy.log());
}

#[tokio::test]
async fn what_is_wrong_with_a_list_is_told_before_anything_is_served_and_by_doctor() {
    let scene = Certified::new().await;
    let mut desk = Desk::before(&scene.cloudbeds, &scene.hotels, CONFIG);
    desk.write_keys(&format!("\"1001\": {}\n\"1002\": {}\n", scene.hotels[0].key, scene.hotels[1].key));
    desk.secrets.extend(scene.hotels.iter().map(|hotel| hotel.key.clone()));
    scene.authority.server().place(desk.path("keys.yaml").parent().unwrap());
    std::fs::write(desk.path("callers.pem"), &scene.root).unwrap();
    let lost = scene.authority.caller("desk", &[]);
    for (text, words) in [
        (None, "tls.client_crl_file: is not there"),
        (Some(String::new()), "tls.client_crl_file: holds no revocation list"),
        (Some(scene.root.clone()), "tls.client_crl_file: holds no revocation list"),
        (
            Some(scene.authority.revoked(&[&lost], 2200).replacen("\nM", "\nA", 1)),
            "tls.client_crl_file: holds no revocation list",
        ),
        // Of two lists of one issuer only the first would be looked at.
        (
            Some(scene.authority.revoked(&[], 2200) + &scene.authority.revoked(&[&lost], 2200)),
            "tls.client_crl_file: holds no revocation list",
        ),
    ] {
        if let Some(text) = &text {
            std::fs::write(desk.path("callers.crl"), text).unwrap();
        }
        for command in [&["check-config"][..], &["doctor", "--offline"], &["serve"]] {
            let ran = desk.run(command, "").await;
            assert!(ran.code != Some(0) && (ran.out.clone() + &ran.err).contains(words), "{ran:?}");
        }
    }
    std::fs::write(desk.path("callers.crl"), scene.authority.revoked(&[&lost], 2200)).unwrap();
    desk.run(&["check-config"], "").await.expect(0, &["ok; 2 keys"]);
    desk.run(&["doctor", "--offline"], "").await.expect(0, &["1 certificates revoked by ", "good until 2200-01-01"]);
    for (list, words) in [
        (
            scene.authority.revoked(&[&lost], 2021),
            "tls.client_crl_file: holds a list of rcgen self signed cert that was good until 2021-01-01: nobody",
        ),
        (
            Authority::new().revoked(&[&lost], 2200),
            "tls.client_crl_file: holds no list of rcgen self signed cert: nobody",
        ),
    ] {
        std::fs::write(desk.path("callers.crl"), list).unwrap();
        desk.run(&["check-config"], "").await.expect(0, &["warning: ", words, "ok; 2 keys"]);
        desk.run(&["doctor", "--offline"], "").await.expect(2, &[words]);
    }
}
