//! The password of Redis: it goes to Redis, and nowhere else, whatever Redis says.
//!
//! The harness looks for it, as for every key, in all that a process emits: in plain and in halves, in base64, hex and
//! percent-encoded.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};

use cloudbeds_auth_proxy::sandbox::{Protocols, Sandbox};

use crate::harness::proxy::{Builder, write_private};
use crate::harness::redis::password;
use crate::harness::{Desk, Proxy, Redis, cloudbeds};

const DETAILS: &str = "/api/v1.3/getHotelDetails";
const UP: &str = "shared_up{app=\"default\"}";

/// A proxy that is to share its budget there, with a keeper that tells others of its keys.
async fn before(address: SocketAddr, user: &str) -> (Sandbox, Builder) {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let shared =
        format!("shared: {{ redis: 'redis://{user}{address}', password_file: redis.pw, fallback_share: 0.5 }}");
    let builder = Proxy::to(&cloudbeds, &hotels).config("limits: { requests_per_second: 10 }").config(&shared);
    (cloudbeds, builder)
}

/// Waits until the proxy says why Redis cannot be used.
async fn why(proxy: &Proxy) -> String {
    let said = |event: &serde_json::Value| {
        let message = event["message"].as_str()?;
        message.starts_with("Redis cannot be used: ").then(|| message.to_owned())
    };
    proxy.wait_for("a warning", || proxy.events().iter().find_map(said)).await
}

#[tokio::test]
async fn a_password_that_is_right_or_wrong_shows_nowhere() {
    let (right, wrong) = (password(), password());
    let Some(redis) = Redis::with_files(&["--requirepass", &right], &[]) else { return };
    let (_cloudbeds, builder) = before(redis.address, "").await;
    let proxy = builder.redis_password(&right).start().await;
    proxy.wait_for_metric(UP, |up| up == 1.0).await;
    assert_eq!(proxy.get(DETAILS).property("1001").send().await.status, 200);
    for user in ["", "nobody@"] {
        let (_cloudbeds, builder) = before(redis.address, user).await;
        let mut proxy = builder.redis_password(&wrong).start().await;
        proxy.secrets.push(right.clone());
        assert!(why(&proxy).await.contains("authentication failed"));
        proxy.admin("/metrics").await.assert_clean(&proxy.secrets);
        proxy.admin("/").await.assert_clean(&proxy.secrets);
        assert_eq!(proxy.get(DETAILS).property("1001").send().await.status, 200);
    }
}

#[tokio::test]
async fn a_redis_that_repeats_the_password_is_not_repeated() {
    // Redis itself, where a command was taken away: "unknown command 'AUTH', with args beginning with: 'password'".
    let secret = password();
    let Some(redis) = Redis::with_files(&["--rename-command", "AUTH", "NO"], &[]) else { return };
    let (_cloudbeds, builder) = before(redis.address, "").await;
    let proxy = builder.redis_password(&secret).start().await;
    why(&proxy).await;
    // Whatever else listens there.
    for cut in [secret.len(), 12] {
        let address = parrot(secret[..cut].to_owned());
        let (_cloudbeds, builder) = before(address, "").await;
        let proxy = builder.redis_password(&secret).start().await;
        assert!(why(&proxy).await.contains("its words hold the password"));
    }
}

/// Something that takes every password, and answers all else with an error that holds these words.
fn parrot(words: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(stream), words) = (stream, words.clone()) else { return };
            std::thread::spawn(move || {
                let mut writer = stream.try_clone().unwrap();
                for line in BufReader::new(stream).lines() {
                    let answer = match &*line.unwrap_or_default() {
                        "AUTH" | "CLIENT" => "+OK\r\n".to_owned(),
                        "INFO" => format!("-ERR what do you mean by {words}?\r\n"),
                        "" => return,
                        _ => continue,
                    };
                    if writer.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_password_that_cannot_be_used_is_refused_without_a_word_of_it() {
    let secret = password();
    for text in [format!("{secret}\n{secret}"), format!("{secret} \u{e9}"), format!("\"{secret}\"\0")] {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let (_cloudbeds, builder) = before(address, "").await;
        let builder = builder.redis_password(&secret);
        let (code, said) = builder.before(move |at| write_private(&at.join("redis.pw"), &text)).refused().await;
        assert_eq!(code, Some(78), "{said}");
        assert!(said.contains("shared.password_file"), "{said}");
        crate::harness::assert_clean("a refusal", said.as_bytes(), std::slice::from_ref(&secret));
    }
    // In the URL it does not belong, and is not repeated either.
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let mut desk = Desk::before(&cloudbeds, &hotels, &format!("shared: {{ redis: 'redis://x:{secret}@127.0.0.1:1' }}"));
    desk.write_keys(&format!("\"1001\": {}\n", hotels[0].key));
    desk.secrets.push(secret);
    for command in [&["check-config"][..], &["doctor", "--offline"], &["serve"]] {
        let ran = desk.run(command, "").await;
        assert!(ran.code != Some(0) && (ran.out.clone() + &ran.err).contains("holds a password"), "{ran:?}");
    }
}
