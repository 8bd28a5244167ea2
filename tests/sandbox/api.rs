//! The API behaves as its callers are told: Cloudbeds' words for what goes wrong, and trouble exactly as ordered.

use std::time::{Duration, Instant};

use bytes::Bytes;
use cloudbeds_auth_proxy::sandbox::{self, Certificate, Cut, Hotel, Protocols, Sandbox, Settings, bulk};
use http::{Method, Request};
use serde_json::json;

use crate::client::{BOTH, Client, Http, handshake};

async fn started() -> (Sandbox, Vec<Hotel>) {
    let settings = Settings::demo();
    let hotels = settings.hotels.clone();
    (sandbox::start(settings).await.unwrap(), hotels)
}

#[tokio::test]
async fn a_call_without_a_valid_key_gets_cloudbeds_401() {
    let (sandbox, hotels) = started().await;
    let mut client = Client::connect(&sandbox, Http::One).await;
    let bare = client.send(Request::get("/api/v1.3/getHotels").body(Bytes::new()).unwrap()).await.unwrap();
    assert_eq!((bare.status.as_u16(), &bare.json()["hint"]), (401, &json!("Missing \"Authorization\" header")));
    let wrong = client.get("/api/v1.3/getHotels", "cbat_wrong").await;
    assert_eq!(
        (wrong.status.as_u16(), &wrong.json()["error"], &wrong.json()["hint"]),
        (401, &json!("access_denied"), &json!("Access token is invalid"))
    );
    let by_header = Request::get("/api/v1.2/userinfo").header("x-api-key", &hotels[0].key).body(Bytes::new()).unwrap();
    assert_eq!(client.send(by_header).await.unwrap().status, 200);
    sandbox.revoke(&hotels[0].key);
    let revoked = client.get("/api/v1.1/getHotels", &hotels[0].key).await;
    assert_eq!((revoked.status.as_u16(), &revoked.json()["title"]), (401, &json!("Unauthorized")));
}

#[tokio::test]
async fn a_foreign_property_and_a_dead_user_are_a_200_without_success() {
    let (sandbox, hotels) = started().await;
    let mut client = Client::connect(&sandbox, Http::Two).await;
    for target in ["getHotelDetails?propertyID=1002", "getReservations?propertyID=1002", "getRooms?propertyIDs=7"] {
        let answer = client.get(&format!("/api/v1.3/{target}"), &hotels[0].key).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["success"]), (200, &json!(false)), "{target}");
        assert!(answer.json()["message"].as_str().unwrap().starts_with("None of the included property id's match"));
    }
    let dead = client.get("/sandbox/fail", &hotels[0].key).await.json();
    assert_eq!(dead["message"], "User who approved this connection is not active anymore");
}

#[tokio::test]
async fn an_organisation_key_opens_its_hotels_and_wants_one_named_where_one_is_meant() {
    let mut settings = Settings::demo();
    let key = settings.hotels[0].key.clone();
    settings.hotels[1].key.clone_from(&key);
    let sandbox = sandbox::start(settings).await.unwrap();
    let mut client = Client::connect(&sandbox, Http::One).await;
    assert_eq!(client.get("/api/v1.3/getHotels", &key).await.json()["total"], 2);
    let unnamed = client.get("/api/v1.3/getHotelDetails", &key).await.json();
    assert_eq!(unnamed["message"], "Please specify \"propertyID\" parameter for this call");
    let named = client.get("/api/v1.3/getHotelDetails?propertyID=1002", &key).await.json();
    assert_eq!(named["data"]["propertyName"], "Mountain Demo Lodge");
}

#[tokio::test]
async fn a_list_comes_in_pages_and_a_filter_narrows_it() {
    let (sandbox, hotels) = started().await;
    let mut client = Client::connect(&sandbox, Http::One).await;
    let mut seen = std::collections::BTreeSet::new();
    for (page, count) in [(1, 10), (2, 10), (3, 4), (4, 0)] {
        let target = format!("/api/v1.3/getReservations?pageSize=10&pageNumber={page}");
        let answer = client.get(&target, &hotels[0].key).await.json();
        assert_eq!((&answer["count"], &answer["total"]), (&json!(count), &json!(24)));
        seen.extend(answer["data"].as_array().unwrap().iter().map(|one| one["reservationID"].to_string()));
    }
    assert_eq!(seen.len(), 24);
    let some = client.get("/api/v1.3/getReservations?status=canceled", &hotels[0].key).await.json();
    assert_eq!(some["total"], 4);
}

#[tokio::test]
async fn a_reservation_that_is_posted_is_there_afterwards_and_a_bad_one_says_why() {
    let (sandbox, hotels) = started().await;
    let mut client = Client::connect(&sandbox, Http::Two).await;
    let (path, media) = ("/api/v1.3/postReservation", "application/x-www-form-urlencoded");
    let form = "startDate=2026-12-24&endDate=2026-12-27&guestFirstName=Eva&guestLastName=Neu&guestCountry=DE\
        &guestZip=10115&guestEmail=eva%40example.com&paymentMethod=cash&rooms%5B0%5D%5BroomTypeID%5D=50001\
        &rooms%5B0%5D%5Bquantity%5D=2&adults[0][roomTypeID]=50001&adults[0][quantity]=3\
        &children[0][roomTypeID]=50001&children[0][quantity]=0";
    let booked = client.post(path, &hotels[0].key, media, form).await.json();
    assert_eq!((&booked["success"], &booked["grandTotal"]), (&json!(true), &json!(720.0)), "{booked}");
    assert_eq!((&booked["unassigned"][0]["adults"], &booked["unassigned"][1]["adults"]), (&json!(2), &json!(1)));
    let list = client.get("/api/v1.3/getReservations?lastName=neu", &hotels[0].key).await.json();
    assert_eq!((&list["total"], &list["data"][0]["reservationID"]), (&json!(1), &booked["reservationID"]));
    let other = client.get("/api/v1.3/getReservations?lastName=neu", &hotels[1].key).await.json();
    assert_eq!(other["total"], 0);

    let without = |name: &str| form.replace(&format!("{name}="), "x=");
    for name in ["startDate", "guestEmail", "paymentMethod"] {
        let refused = client.post(path, &hotels[0].key, media, without(name)).await.json();
        assert_eq!(refused, json!({"success": false, "message": format!("Parameter {name} is required")}));
    }
}

#[tokio::test]
async fn an_uploaded_file_is_counted_however_large_and_an_urlencoded_one_is_none() {
    let (sandbox, hotels) = started().await;
    for http in BOTH {
        let mut client = Client::connect(&sandbox, http).await;
        let head = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x\"\r\n\r\n";
        let body = [head.as_bytes(), &vec![b'-'; 5 << 20], b"\r\n--b--\r\n"].concat();
        let media = "multipart/form-data; boundary=b";
        let answer = client.post("/api/v1.3/postFile", &hotels[0].key, media, body).await;
        assert_eq!(answer.json()["success"], true);
        assert_eq!(answer.header("x-sandbox-file-bytes"), (5 << 20).to_string());
        let media = "application/x-www-form-urlencoded";
        let answer = client.post("/api/v1.3/postFile", &hotels[0].key, media, "file=abc").await;
        assert_eq!(answer.json()["message"], "Parameter file is required");
    }
}

#[tokio::test]
async fn the_echo_hands_back_every_credential_in_body_and_headers() {
    let (sandbox, hotels) = started().await;
    let key = &hotels[0].key;
    for http in BOTH {
        let mut client = Client::connect(&sandbox, http).await;
        let request = Request::put("/sandbox/echo?location=1&trailer=1&chunk=7&status=418&hop=1")
            .header("authorization", format!("Bearer {key}"))
            .header("te", "trailers")
            .header("x-twice", "one")
            .header("x-twice", "two")
            .body(Bytes::from_static(b"hello"))
            .unwrap();
        let answer = client.send(request).await.unwrap();
        let bearer = format!("Bearer {key}");
        assert_eq!(answer.status, 418);
        assert_eq!(answer.header("authorization"), bearer);
        assert_eq!(answer.header("x-echo-authorization"), bearer);
        assert_eq!(answer.header("x-api-key"), key);
        assert!(answer.header("set-cookie").contains(key.as_str()));
        assert_eq!(answer.header("location"), format!("https://localhost/api/v1.3/getHotels?key={key}"));
        assert_eq!(answer.headers.get_all("x-echo-x-twice").iter().count(), 2);
        assert_eq!(answer.trailers["x-echo-trailer"], bearer);
        assert_eq!(answer.headers.contains_key("x-hop"), http == Http::One);
        assert!(answer.frames.len() > 10 && !answer.headers.contains_key("content-length"));
        let body = answer.json();
        assert_eq!(
            (&body["method"], &body["body"], &body["authority"]),
            (&json!("PUT"), &json!("hello"), &json!("localhost"))
        );
        assert!(body["headers"].as_array().unwrap().contains(&json!(["authorization", bearer])));
    }
}

#[tokio::test]
async fn the_echo_answers_in_any_coding_and_refuses_others() {
    let (sandbox, hotels) = started().await;
    let mut client = Client::connect(&sandbox, Http::One).await;
    for coding in ["gzip", "deflate", "br", "zstd", "identity"] {
        let answer = client.get(&format!("/sandbox/echo?coding={coding}&pad=100000"), &hotels[0].key).await;
        assert_eq!((answer.status.as_u16(), answer.header("content-encoding")), (200, coding));
    }
    assert_eq!(client.get("/sandbox/echo?coding=lzma", "").await.status, 400);
    assert_eq!(client.get("/sandbox/echo?status=101", "").await.status, 400);
    let empty = client.get("/sandbox/echo?status=204", &hotels[0].key).await;
    assert_eq!((empty.status.as_u16(), empty.body.len()), (204, 0));
    let head = Request::head("/sandbox/echo").body(Bytes::new()).unwrap();
    let head = client.send(head).await.unwrap();
    assert!(head.header("content-length").parse::<u64>().unwrap() > 0);
}

#[tokio::test]
async fn a_download_is_the_pattern_and_an_upload_is_counted_and_summed() {
    let (sandbox, _) = started().await;
    for http in BOTH {
        let mut client = Client::connect(&sandbox, http).await;
        let bytes: u64 = 3_000_001;
        let down = client.get(&format!("/sandbox/download?bytes={bytes}"), "").await;
        let expected = bulk::pattern(bytes).collect::<Vec<_>>().concat();
        assert!(down.body == expected);
        assert_eq!(down.header("content-length"), bytes.to_string());
        let chunked = client.get("/sandbox/download?bytes=70000&chunked=1", "").await;
        assert_eq!((chunked.body.len(), chunked.header("content-length")), (70_000, ""));
        let coded = client.get("/sandbox/download?bytes=70000&coding=gzip", "").await;
        let mut plain = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&*coded.body), &mut plain).unwrap();
        assert!(coded.header("content-encoding") == "gzip" && plain == expected[..70_000]);
        let mut crc = flate2::Crc::new();
        crc.update(&expected);
        let up = client.post("/sandbox/upload", "", "application/octet-stream", expected).await.json();
        assert_eq!(up, json!({"success": true, "bytes": bytes, "crc32": format!("{:08x}", crc.sum())}));
    }
}

#[tokio::test]
async fn a_slow_answer_takes_its_time_and_a_cut_one_ends_where_ordered() {
    let (sandbox, _) = started().await;
    for http in BOTH {
        let mut client = Client::connect(&sandbox, http).await;
        let begun = Instant::now();
        let slow = client.get("/sandbox/slow?first_byte_ms=60&gap_ms=30&chunks=3&size=4", "").await;
        assert!(begun.elapsed() >= Duration::from_millis(120));
        assert_eq!(slow.frames, [4, 4, 4]);
        let broken = client.get("/sandbox/reset?after=10&how=stream", "").await;
        assert_eq!((broken.body.len(), broken.broken), (10, true));
        for how in ["reset", "fin"] {
            let mut client = Client::connect(&sandbox, http).await;
            let cut = client.get(&format!("/sandbox/reset?after=5000&length=9000&how={how}"), "").await;
            assert_eq!((cut.body.len(), cut.broken), (5000, true), "{how}");
            let mut client = Client::connect(&sandbox, http).await;
            let request = Request::get(format!("/sandbox/reset?head=0&how={how}")).body(Bytes::new()).unwrap();
            assert!(client.send(request).await.is_err());
        }
    }
}

#[tokio::test]
async fn every_answer_has_a_request_id_and_a_wrong_path_is_a_page() {
    let (sandbox, hotels) = started().await;
    let mut client = Client::connect(&sandbox, Http::One).await;
    let mut ids = std::collections::HashSet::new();
    for target in ["/", "/api/v1.3/nothing", "/api/v1.4/getHotels", "/api/v1.3/postFile", "/sandbox/nothing"] {
        let answer = client.get(target, &hotels[0].key).await;
        assert_eq!(answer.status, 404, "{target}");
        assert!(answer.header("content-type").starts_with("text/html"));
        assert!(ids.insert(answer.header("x-request-id").to_owned()));
    }
    assert!(ids.insert(client.get("/api/v1.3/getHotels", "").await.header("x-request-id").to_owned()));
    assert!(!ids.contains(""));
}

#[tokio::test]
async fn requests_are_recorded_with_their_headers_bodies_and_connections() {
    let (sandbox, hotels) = started().await;
    for http in BOTH {
        let mut client = Client::connect(&sandbox, http).await;
        // A GET with a body, as one client in the field sends them.
        let request = Request::builder().method(Method::GET).uri("/api/v1.3/getHotels?a=%2F");
        let request =
            request.header("authorization", format!("Bearer {}", hotels[0].key)).header("x-property-id", "1001");
        assert_eq!(client.send(request.body(Bytes::from_static(b"{}")).unwrap()).await.unwrap().status, 200);
        assert_eq!(client.get("/api/v1.3/getHotels", &hotels[0].key).await.status, 200);
    }
    let seen = sandbox.requests();
    assert_eq!(seen.iter().map(|one| one.connection).collect::<Vec<_>>(), [1, 1, 2, 2]);
    assert_eq!(seen.iter().map(|one| one.body_bytes).collect::<Vec<_>>(), [2, 0, 2, 0]);
    for one in [&seen[0], &seen[2]] {
        assert_eq!((one.target.as_str(), one.authority.as_str()), ("/api/v1.3/getHotels?a=%2F", "localhost"));
        assert_eq!(one.header("x-property-id"), [b"1001"]);
        assert_eq!(one.header("authorization"), [format!("Bearer {}", hotels[0].key).as_bytes()]);
    }
    assert_eq!((seen[0].version, seen[2].version), (http::Version::HTTP_11, http::Version::HTTP_2));
    assert_eq!(sandbox.connections(), 2);
}

#[tokio::test]
async fn a_failed_handshake_ends_nothing_and_open_connections_can_be_cut() {
    let (sandbox, hotels) = started().await;
    for _ in 0..3 {
        let mut raw = tokio::net::TcpStream::connect(sandbox.address()).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut raw, b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    }
    for how in [Cut::Fin, Cut::Reset] {
        let mut client = Client::connect(&sandbox, Http::One).await;
        assert_eq!(client.get("/api/v1.3/getHotels", &hotels[0].key).await.status, 200);
        sandbox.cut_connections(how);
        let again = Request::get("/api/v1.3/getHotels").body(Bytes::new()).unwrap();
        assert!(client.send(again).await.is_err());
    }
}

#[tokio::test]
async fn the_certificate_is_good_for_all_four_names_and_bad_on_request() {
    let with =
        |certificate| Settings { certificate, tls12_only: true, protocols: Protocols::Http1, ..Settings::demo() };
    let good = sandbox::start(with(Certificate::Good)).await.unwrap();
    for name in ["localhost", "sandbox.test", "127.0.0.1", "::1"] {
        let stream = handshake(&good, name, &["h2", "http/1.1"]).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        assert_eq!(stream.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_2));
    }
    assert!(handshake(&good, "api.cloudbeds.com", &[]).await.is_err());
    for bad in [Certificate::WrongName, Certificate::Expired] {
        let sandbox = sandbox::start(with(bad)).await.unwrap();
        assert!(handshake(&sandbox, "localhost", &["http/1.1"]).await.is_err(), "{bad:?}");
    }
}

#[tokio::test]
async fn a_hundred_thousand_hotels_start_at_once_and_each_answers_for_itself() {
    let mut settings = Settings::demo();
    let many = 2000_u64..102_000;
    settings.hotels.extend(many.map(|id| Hotel {
        property: id.to_string().parse().unwrap(),
        name: format!("Hotel {id}"),
        key: format!("cbat_{id}"),
    }));
    let begun = Instant::now();
    let sandbox = sandbox::start(settings).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5));
    let mut client = Client::connect(&sandbox, Http::One).await;
    let answer = client.get("/api/v1.3/getHotels", "cbat_101999").await.json();
    assert_eq!((&answer["total"], &answer["data"][0]["propertyName"]), (&json!(1), &json!("Hotel 101999")));
}

#[tokio::test]
async fn stopping_closes_the_port_and_every_connection() {
    let (sandbox, hotels) = started().await;
    let address = sandbox.address();
    let mut client = Client::connect(&sandbox, Http::Two).await;
    assert_eq!(client.get("/api/v1.3/getHotels", &hotels[0].key).await.status, 200);
    sandbox.stop().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    let again = Request::get("/api/v1.3/getHotels").body(Bytes::new()).unwrap();
    assert!(client.send(again).await.is_err());
}
