//! The main job: a request goes up with the right key, and nothing secret comes back.

use cloudbeds_auth_proxy::sandbox::Protocols;

use crate::harness::{Proxy, cloudbeds};

#[tokio::test]
async fn a_key_goes_up_to_cloudbeds_and_never_comes_back_down() {
    for protocols in [Protocols::Http1, Protocols::Http2] {
        let (cloudbeds, hotels) = cloudbeds(protocols).await;
        let proxy = Proxy::to(&cloudbeds, &hotels).start().await;

        let answer = proxy.get("/sandbox/echo").property("1001").header("authorization", "Bearer unused").send().await;

        assert_eq!(answer.status, 200);
        let seen = cloudbeds.requests().pop().unwrap();
        assert_eq!(seen.header("authorization"), [format!("Bearer {}", hotels[0].key).as_bytes()]);
        assert_eq!(seen.header("x-property-id"), [b"1001"]);
        assert_eq!(seen.authority, cloudbeds.base_url().strip_prefix("https://").unwrap());
        assert_eq!(answer.headers.get("authorization"), None);
        assert_eq!(answer.headers.get("set-cookie"), None);
        assert_eq!(answer.header("x-echo-authorization"), Some(&*format!("Bearer cbat_{}", "*".repeat(32))));
        assert!(answer.text().contains(&"*".repeat(32)), "{}", answer.text());
        assert!(proxy.metric("leaks_stopped_total{where=\"header\"}").await >= 1.0);
        assert!(proxy.metric("leaks_stopped_total{where=\"body\"}").await >= 1.0);
        let line = proxy.wait_for_access(|line| line["path"] == "/sandbox/echo").await;
        assert_eq!(
            (&line["property"], &line["status"], &line["end"]),
            (&"1001".into(), &200.into(), &"complete".into())
        );
    }
}

#[tokio::test]
async fn each_property_has_its_own_key() {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let proxy = Proxy::to(&cloudbeds, &hotels).start().await;
    for (property, hotel) in [("1001", &hotels[0]), ("1002", &hotels[1])] {
        let answer = proxy.get("/api/v1.3/getHotelDetails").property(property).send().await;
        assert_eq!(answer.json()["data"]["propertyName"], hotel.name);
    }
    assert_eq!(proxy.get("/api/v1.3/getHotels").property("1003").send().await.code(), "property_unknown");
}
