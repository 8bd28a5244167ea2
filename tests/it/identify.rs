//! Stage 1: which hotel a request is about. No call for hotel A may carry hotel B, and none may carry two.

use cloudbeds_auth_proxy::sandbox::{Protocols, Sandbox};

use crate::harness::{EITHER, Proxy, cloudbeds, key};

/// 1001 and 1002 have keys of their own; 2001, 2002 and 2003 share one.
struct Scene {
    cloudbeds: Sandbox,
    proxy: Proxy,
}

/// What becomes of a request: Cloudbeds sees this `X-Property-Id` and this target, or the caller this refusal.
#[derive(Clone, Copy, Debug)]
enum Outcome<'a> {
    Sees(&'a str, &'a str),
    Refused(&'a str),
}
use Outcome::{Refused, Sees};

const ECHO: &str = "/sandbox/echo";

async fn scene(protocols: Protocols, config: &str) -> Scene {
    let (cloudbeds, hotels) = cloudbeds(protocols).await;
    let shared = key();
    let mut builder = Proxy::to(&cloudbeds, &hotels).config(config);
    for property in ["2001", "2002", "2003", "18446744073709551615"] {
        builder = builder.key(property, &shared);
    }
    Scene { proxy: builder.start().await, cloudbeds }
}

impl Scene {
    /// Sends a request with these header lines, and checks what becomes of it.
    async fn check(&self, target: &str, lines: impl AsRef<[u8]>, outcome: Outcome<'_>) -> String {
        let lines = lines.as_ref();
        let what = format!("{target} {:?}", String::from_utf8_lossy(lines));
        let before = self.cloudbeds.requests().len();
        let head = [format!("GET {target} HTTP/1.1\r\nHost: app\r\n").as_bytes(), lines, b"\r\n"].concat();
        let mut line = self.proxy.line().await;
        let answer = line.write(head).await.answer().await;
        let new = self.cloudbeds.requests().split_off(before);
        match outcome {
            Refused(code) => {
                assert!(new.is_empty(), "{what} reached Cloudbeds");
                assert_eq!(answer.code(), code, "{what}");
                answer.assert_refused(code);
            }
            Sees(property, target) => {
                assert_eq!(new.len(), 1, "{}: {what}", answer.text());
                assert_eq!(new[0].header("x-property-id"), [property.as_bytes()], "{what}");
                assert_eq!(new[0].target, target, "{what}");
            }
        }
        answer.text()
    }
}

#[tokio::test]
async fn one_header_names_the_property_in_any_case_and_trimmed() {
    for protocols in EITHER {
        let scene = scene(protocols, "").await;
        for name in ["X-Property-Id", "x-property-id", "X-PROPERTY-ID", "x-pRoPeRtY-iD"] {
            for value in ["1001", "   1001", "\t1001 \t ", "1001"] {
                scene.check(ECHO, format!("{name}:{value}\r\n"), Sees("1001", ECHO)).await;
            }
        }
        let largest = "18446744073709551615";
        scene.check(ECHO, format!("X-Property-Id: {largest}\r\n"), Sees(largest, ECHO)).await;
    }
}

#[tokio::test]
async fn every_other_form_of_the_header_is_refused() {
    let scene = scene(Protocols::Both, "").await;
    scene.check(ECHO, "", Refused("property_missing")).await;
    scene.check(ECHO, "Authorization: Bearer unused\r\nX-Property: 1001\r\n", Refused("property_missing")).await;
    let long = "9".repeat(400);
    for value in [
        "",
        "   ",
        "0",
        "01001",
        "00",
        "+1001",
        "-1001",
        "1001.0",
        "1e3",
        "0x3e9",
        "1001x",
        "x",
        "1001 1002",
        "1001;1002",
        "\"1001\"",
        "1001,",
        ",1001",
        "1001,,2",
        ",",
        "1001,01",
        "18446744073709551616",
        &long,
        "١٠٠١",
        "1001\u{a0}",
        "%31001",
        "1001/../1002",
        "*",
        "null",
    ] {
        scene.check(ECHO, format!("X-Property-Id: {value}\r\n"), Refused("property_invalid")).await;
    }
    scene.check(ECHO, b"X-Property-Id: \xff\r\n", Refused("property_invalid")).await;
}

#[tokio::test]
async fn two_lines_are_refused_even_when_they_agree() {
    let scene = scene(Protocols::Both, "").await;
    for lines in [
        "X-Property-Id: 1001\r\nX-Property-Id: 1002\r\n",
        "X-Property-Id: 1001\r\nX-Property-Id: 1001\r\n",
        "X-Property-Id: 1001\r\nAccept: */*\r\nx-property-id: 1002\r\n",
        "X-Property-Id:\r\nX-Property-Id: 1001\r\n",
    ] {
        scene.check(ECHO, lines, Refused("property_invalid")).await;
    }
}

#[tokio::test]
async fn an_underscore_twin_is_refused_in_every_spelling() {
    let scene = scene(Protocols::Both, "").await;
    for twin in ["X_Property_Id", "X_Property-Id", "X-Property_Id", "x_property_id", "X_PROPERTY_ID", "x-property_ID"] {
        for others in ["", "X-Property-Id: 1001\r\n"] {
            scene.check(ECHO, format!("{others}{twin}: 1002\r\n"), Refused("property_invalid")).await;
            scene.check(ECHO, format!("{twin}: 1001\r\n{others}"), Refused("property_invalid")).await;
        }
    }
}

#[tokio::test]
async fn a_list_passes_when_one_key_serves_all_of_it() {
    for protocols in EITHER {
        let scene = scene(protocols, "").await;
        let list = |value: &str| format!("X-Property-Id: {value}\r\n");
        scene.check(ECHO, list("2001, 2002 ,2003"), Sees("2001,2002,2003", ECHO)).await;
        scene.check(ECHO, list("2002,2001"), Sees("2002,2001", ECHO)).await;
        scene.check(ECHO, list("1001,1001"), Sees("1001,1001", ECHO)).await;
        scene.check(ECHO, list("1001,1002"), Refused("property_invalid")).await;
        scene.check(ECHO, list("2001,2002,1001"), Refused("property_invalid")).await;
        scene.check(ECHO, list("2001,4"), Refused("property_unknown")).await;
        scene.check(ECHO, list("4,2001"), Refused("property_unknown")).await;
        scene.check(ECHO, list("4"), Refused("property_unknown")).await;
    }
}

#[tokio::test]
async fn a_query_that_names_another_property_is_refused_and_the_answer_names_both() {
    let scene = scene(Protocols::Both, "").await;
    let header = "X-Property-Id: 1001\r\n";
    for query in [
        "propertyID=1002",
        "propertyIDs=1002",
        "property_id=1002",
        "property_ids=1002",
        "propertyId=1002",
        "PROPERTYID=1002",
        "a=b&propertyID=1002&c",
        "propertyID=1001&propertyID=1002",
        "propertyIDs=1001,1002",
        "propertyIDs=1001%2C1002",
        "propertyIDs=1001%2C+1002",
        "propertyIDs[]=1002",
        "propertyIDs%5B%5D=1001&propertyIDs%5B%5D=1002",
        "propertyID%5B0%5D=1002",
        "propertyIDs[0][x]=1002",
        "%70ropertyID=1002",
        "property%49%44=1002",
        "%20propertyID=1002",
        "+propertyID=1002",
        "property.id=1002",
        "property+id=1002",
        "property%20id=1002",
        "propertyID=%31%30%30%32",
        "propertyID=+1002",
        "propertyID%00=1002",
        "propertyID%00x=1002",
        "propertyID[=1002",
    ] {
        let words = scene.check(&format!("{ECHO}?{query}"), header, Refused("property_conflict")).await;
        assert!(words.contains("1001") && words.contains("1002"), "{query}: {words}");
    }
    for query in ["propertyID=x", "propertyID=01002", "propertyID=1002x", "propertyID=-1", "propertyID=1001%00"] {
        scene.check(&format!("{ECHO}?{query}"), header, Refused("property_invalid")).await;
    }
    for query in [
        "propertyID=1001",
        "propertyIDs=1001,1001",
        "propertyIDs=1001%2C+1001",
        "propertyID=",
        "propertyID",
        "propertyName=1002",
        "myPropertyID=1002",
        "q=propertyID%3D1002",
        "?propertyID=1002",
    ] {
        let target = format!("{ECHO}?{query}");
        scene.check(&target, header, Sees("1001", &target)).await;
    }
    // A list in the header covers each of its members in the query.
    let target = format!("{ECHO}?propertyIDs=2003,2001");
    scene.check(&target, "X-Property-Id: 2001,2002,2003\r\n", Sees("2001,2002,2003", &target)).await;
    scene.check(&target, "X-Property-Id: 2001,2002\r\n", Refused("property_conflict")).await;
    // Lists of any length that fits into a head are compared, and that takes no time.
    let target = format!("{ECHO}?propertyIDs={},1001", ["2002"; 5000].join(","));
    let header = format!("X-Property-Id: {},2002\r\n", ["2001"; 5000].join(","));
    let started = std::time::Instant::now();
    scene.check(&target, header, Refused("property_conflict")).await;
    assert!(started.elapsed().as_secs() < 5);
}

#[tokio::test]
async fn without_the_header_nothing_else_names_a_property_unless_switched_on() {
    let scene = scene(Protocols::Both, "").await;
    for target in ["/sandbox/echo?propertyID=1001", "/p/1001/sandbox/echo", "/sandbox/echo/1001"] {
        scene.check(target, "", Refused("property_missing")).await;
    }
    // Nor is the prefix taken off.
    scene.check("/p/1001/sandbox/echo", "X-Property-Id: 1001\r\n", Sees("1001", "/p/1001/sandbox/echo")).await;
}

#[tokio::test]
async fn the_query_names_the_property_where_that_is_switched_on() {
    let scene = scene(Protocols::Both, "identify: { query: true }").await;
    let sees = |property: &'static str, target: &'static str| (target, Sees(property, target));
    for (target, outcome) in [
        sees("1001", "/sandbox/echo?propertyID=1001"),
        sees("1002", "/sandbox/echo?a&property_ids%5B%5D=1002"),
        sees("2001,2003", "/sandbox/echo?propertyIDs=2001%2C2003"),
        ("/sandbox/echo?propertyID=4", Refused("property_unknown")),
        ("/sandbox/echo?propertyIDs=1001,1002", Refused("property_invalid")),
        ("/sandbox/echo?propertyID=zero", Refused("property_invalid")),
        ("/sandbox/echo?propertyID=", Refused("property_missing")),
        ("/p/1001/sandbox/echo", Refused("property_missing")),
    ] {
        scene.check(target, "", outcome).await;
    }
    scene.check("/sandbox/echo?propertyID=1002", "X-Property-Id: 1001\r\n", Refused("property_conflict")).await;
    scene.check("/sandbox/echo?propertyID=1002", "X-Property-Id: x\r\n", Refused("property_invalid")).await;
}

#[tokio::test]
async fn a_path_prefix_names_the_property_where_that_is_switched_on_and_is_taken_off() {
    for protocols in EITHER {
        let scene = scene(protocols, "identify: { path_prefix: true }").await;
        for (target, outcome) in [
            ("/p/1001/sandbox/echo", Sees("1001", "/sandbox/echo")),
            ("/p/1002/sandbox/echo?a=/p/7/&b", Sees("1002", "/sandbox/echo?a=/p/7/&b")),
            ("/p/1001/", Sees("1001", "/")),
            ("/p/1001/p/1002/x", Sees("1001", "/p/1002/x")),
            ("/p/1001", Refused("property_invalid")),
            ("/p/1001?a", Refused("property_invalid")),
            ("/p/1001?a/b", Refused("property_invalid")),
            ("/p//sandbox/echo", Refused("property_invalid")),
            ("/p/01/sandbox/echo", Refused("property_invalid")),
            ("/p/x/sandbox/echo", Refused("property_invalid")),
            ("/p/%31001/sandbox/echo", Refused("property_invalid")),
            ("/p/1001//sandbox/echo", Refused("path_invalid")),
            ("/p/1001/../x", Refused("path_invalid")),
            ("/p/1001/api/v1.1/access_token", Refused("path_refused")),
            ("/p/1001/sandbox/echo?propertyID=1002", Refused("property_conflict")),
            ("/p/4/sandbox/echo", Refused("property_unknown")),
            ("/sandbox/echo", Refused("property_missing")),
            ("/p", Refused("property_missing")),
        ] {
            scene.check(target, "", outcome).await;
        }
        let absolute = format!("http://{}/p/1001/x?y", scene.proxy.address);
        scene.check(&absolute, "", Sees("1001", "/x?y")).await;
        scene.check("/p/1001/sandbox/echo", "X-Property-Id: 1002\r\n", Refused("property_conflict")).await;
        scene.check("/p/2002/x", "X-Property-Id: 2001,2002\r\n", Sees("2001,2002", "/x")).await;
    }
}

#[tokio::test]
async fn a_listener_may_have_a_property_of_its_own() {
    let scene = scene(Protocols::Both, "listen: [{ address: 127.0.0.1:0, default_property: 1001 }]").await;
    let queried = "/sandbox/echo?propertyID=1002";
    scene.check(ECHO, "", Sees("1001", ECHO)).await;
    scene.check(ECHO, "X-Property-Id: 1002\r\n", Sees("1002", ECHO)).await;
    scene.check(queried, "X-Property-Id: 1002\r\n", Sees("1002", queried)).await;
    scene.check(queried, "", Refused("property_conflict")).await;
    scene.check(ECHO, "X-Property-Id:\r\n", Refused("property_invalid")).await;
    scene.check(ECHO, "X_Property_Id: 1002\r\n", Refused("property_invalid")).await;
}
