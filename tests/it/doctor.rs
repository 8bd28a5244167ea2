//! `doctor`: every finding that is not in order says what to do, and the exit code says how bad it is.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use cloudbeds_auth_proxy::sandbox::{Hotel, Protocols, Sandbox, Settings, start};

use crate::harness::proxy::write_private;
use crate::harness::{Desk, Proxy, Ran, canary, cloudbeds, key};

async fn scene() -> (Sandbox, Vec<Hotel>, Desk) {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let desk = Desk::before(&cloudbeds, &hotels, "");
    desk.write_keys(&format!("\"1001\": {}\n\"1002\": {}\n", hotels[0].key, hotels[1].key));
    (cloudbeds, hotels, desk)
}

/// The findings that are not in order, as `family about level`; each of them says what to do.
fn wrong(ran: &Ran) -> Vec<String> {
    let said: serde_json::Value = serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
    let findings = said["findings"].as_array().unwrap();
    let text = |finding: &serde_json::Value, name: &str| finding[name].as_str().unwrap().to_owned();
    for finding in findings {
        assert_eq!(text(finding, "do").is_empty(), text(finding, "level") == "ok", "{finding}");
    }
    let code = findings.iter().map(|finding| match &*text(finding, "level") {
        "ok" => 0,
        "warning" => 1,
        _ => 2,
    });
    assert_eq!(ran.code, code.max(), "{ran:?}");
    let wrong = findings.iter().filter(|finding| finding["level"] != "ok");
    wrong.map(|finding| format!("{} {}", text(finding, "level"), text(finding, "found"))).collect()
}

#[tokio::test]
async fn all_in_order_is_said_in_a_table_and_by_exit_code_0() {
    let (_cloudbeds, _hotels, desk) = scene().await;
    let ran = desk.run(&["doctor"], "").await;
    ran.expect(
        0,
        &["config.yaml", "in order; requests go to https://localhost:", "mode 0600, owner ", "2 keys for 2 properties"],
    );
    ran.expect(
        0,
        &[
            "trusted roots",
            "TLSv1_3, HTTP/2; certificate trusted",
            "issued by ",
            "good until ",
            "agrees with Cloudbeds",
        ],
    );
    ran.expect(0, &["Seaside Demo Hotel: key ", ", active", "Mountain Demo Lodge", "Everything is in order."]);
    assert!(!ran.out.contains('\u{1b}'), "colours are for terminals: {}", ran.out);
    let ran = desk.run(&["doctor", "--json"], "").await;
    assert!(wrong(&ran).is_empty(), "{ran:?}");
}

#[tokio::test]
async fn offline_it_calls_nobody() {
    let (cloudbeds, _hotels, desk) = scene().await;
    desk.run(&["doctor", "--offline"], "").await.expect(0, &["not asked (--offline)"]);
    assert_eq!((cloudbeds.connections(), cloudbeds.requests().len()), (0, 0));
}

#[tokio::test]
async fn what_is_wrong_with_files_is_found() {
    let (_cloudbeds, hotels, desk) = scene().await;
    let found = async || wrong(&desk.run(&["doctor", "--offline", "--json"], "").await);
    let file = desk.path("keys.yaml");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let findings = found().await;
    assert!(findings[0].starts_with("broken mode 0644: everybody can read it"), "{findings:?}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(desk.path(""), fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(found().await, ["broken mode 0777: everybody can put another file in the place of the keys"]);
    fs::set_permissions(desk.path(""), fs::Permissions::from_mode(0o700)).unwrap();

    desk.write_keys(&format!("\"1001\": {0}\n\"1002\": {0}\n", hotels[0].key));
    assert_eq!(found().await, ["warning properties 1001 and 1002 have the same key"]);
    desk.write_keys(&format!("keys:\n- {{ key: {}, properties: [1001, 1002], organization: acme }}\n", hotels[0].key));
    assert!(found().await.is_empty());
    desk.write_keys("\"1001\": blue\n");
    let findings = found().await;
    assert!(findings.len() == 1 && findings[0].starts_with("broken 1:9: 1001: not an API key"), "{findings:?}");
    desk.write_keys("{}\n");
    assert_eq!(found().await, ["warning holds no keys"]);
    let old = format!("\"1001\": {}\n\"1002\": {}\n", hotels[0].key, hotels[1].key);
    desk.write_keys(&old);
    desk.run(&["keys", "revoke", "1001", "--yes"], "").await.expect(0, &[]);
    desk.write_keys(&old);
    assert_eq!(found().await, ["warning holds revoked keys for property 1001, which are not used"]);
    fs::remove_file(&file).unwrap();
    assert_eq!(found().await, ["broken is not there"]);
}

#[tokio::test]
async fn a_configuration_with_faults_is_all_there_is_to_say() {
    let (_cloudbeds, _hotels, desk) = scene().await;
    fs::write(desk.path("config.yaml"), "lisen: 1\n").unwrap();
    let ran = desk.run(&["doctor"], "").await;
    ran.expect(2, &["broken", "config.yaml", "unknown option `lisen`", "→ did you mean `listen`?", "1 broken."]);
}

#[tokio::test]
async fn variables_ports_and_secrets_are_looked_at() {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let mut desk = Desk::before(&cloudbeds, &hotels, "apps: { main: { client_id: x, client_secret_file: secret } }");
    desk.write_keys(&format!("\"1001\": {}\n", hotels[0].key));
    let (secret, password) = (canary("a client secret"), canary("a password in a variable"));
    write_private(&desk.path("secret"), &format!("{secret}\n"));
    desk.secrets.extend([secret, password].map(str::to_owned));
    let config = fs::read_to_string(desk.path("config.yaml")).unwrap();
    fs::write(desk.path("config.yaml"), config.replacen("127.0.0.1:0", &address.to_string(), 1)).unwrap();
    let mut command = desk.command(&["doctor", "--json", "--offline"]);
    command.env("HTTPS_PROXY", format!("http://user:{password}@proxy.test:3128"));
    let ran = desk.run_command(command, "").await;
    let findings = wrong(&ran);
    assert!(ran.out.contains("HTTPS_PROXY") && ran.out.contains("secret of the app main"));
    assert_eq!(findings[0], "warning set, and not used by this program");
    assert!(findings.len() == 2 && findings[1].contains("another process is listening there"), "{findings:?}");
    fs::remove_file(desk.path("secret")).unwrap();
    let findings = wrong(&desk.run(&["doctor", "--json", "--offline"], "").await);
    assert!(findings[0].contains("apps.main.client_secret_file: is not there"), "{findings:?}");
}

#[tokio::test]
async fn a_running_proxy_is_recognised() {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let proxy = Proxy::to(&cloudbeds, &hotels).start().await;
    let config = fs::read_to_string(proxy.path("config.yaml")).unwrap();
    let admin = format!("admin: {{ listen: {} }}", proxy.admin);
    fs::write(proxy.path("config.yaml"), config.replacen("admin: { listen: 127.0.0.1:0 }", &admin, 1)).unwrap();
    proxy.run(&["doctor"], "").await.expect(0, &["a proxy runs here and is ready", "Everything is in order."]);
}

#[tokio::test]
async fn keys_that_do_not_work_are_broken_and_named_by_their_hotel() {
    let (cloudbeds, hotels, desk) = scene().await;
    cloudbeds.revoke(&hotels[1].key);
    desk.write_keys(&format!("\"1001\": {}\n\"1002\": {}\n\"1003\": {}\n", hotels[0].key, hotels[1].key, key()));
    let ran = desk.run(&["doctor", "--json"], "").await;
    let findings = wrong(&ran);
    assert!(
        findings.len() == 2
            && findings.iter().all(|finding| finding.contains(", rejected (Cloudbeds rejects the key)"))
    );
}

#[tokio::test]
async fn a_key_that_is_about_to_expire_is_a_warning_even_though_it_works() {
    let (_cloudbeds, hotels, desk) = scene().await;
    desk.used_before("1001", &hotels[0].key, 26);
    let ran = desk.run(&["doctor", "--json"], "").await;
    let findings = wrong(&ran);
    assert!(
        findings.len() == 1 && findings[0].ends_with("active, 26 days old, 26 days idle before this call"),
        "{findings:?}"
    );
    let findings = wrong(&desk.run(&["doctor", "--json", "--offline"], "").await);
    assert!(findings.len() == 1 && findings[0].ends_with("expiring, 26 days old, 26 days idle"), "{findings:?}");
}

#[tokio::test]
async fn the_step_that_fails_on_the_way_to_cloudbeds_is_named() {
    let (cloudbeds, hotels, desk) = scene().await;
    let expired = start(Settings {
        certificate: cloudbeds_auth_proxy::sandbox::Certificate::Expired,
        hotels: hotels.clone(),
        ..Settings::demo()
    });
    let expired = expired.await.unwrap();
    let config = fs::read_to_string(desk.path("config.yaml")).unwrap();
    let at =
        |base_url: &str| fs::write(desk.path("config.yaml"), config.replace(&cloudbeds.base_url(), base_url)).unwrap();
    let gone = "https://localhost:1".to_owned();
    for (base_url, words) in [
        (expired.base_url(), "broken no trusted TLS connection to"),
        (gone, "broken cannot connect to https://localhost:1"),
        ("https://cloudbeds.invalid".to_owned(), "broken cannot be resolved"),
    ] {
        fs::write(desk.path("root.pem"), expired.root_pem()).unwrap();
        at(&base_url);
        let findings = wrong(&desk.run(&["doctor", "--json"], "").await);
        assert!(findings[0].starts_with(words), "{findings:?}");
        assert_eq!(findings[1..], ["warning not tried, since Cloudbeds cannot be reached"]);
    }
}
