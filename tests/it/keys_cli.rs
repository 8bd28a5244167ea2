//! Keys by hand: `keys add`, `import`, `list`, `check`, `remove`, `revoke` and `connect-link`, with and without a proxy
//! that runs meanwhile. No output of any of them holds a key.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use cloudbeds_auth_proxy::sandbox::{Hotel, Protocols, Sandbox};

use crate::harness::proxy::write_private;
use crate::harness::{Desk, Proxy, cloudbeds, key};

const APPS: &str =
    "apps:\n  main: { client_id: live1_1001_main }\n  mail: { client_id: live1_1001_mail, delivery: email }";

async fn scene() -> (Sandbox, Vec<Hotel>, Desk) {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let desk = Desk::before(&cloudbeds, &hotels, APPS);
    (cloudbeds, hotels, desk)
}

/// The short fingerprint that commands show.
fn short(key: &str) -> String {
    let output =
        Command::new("sha256sum").stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn();
    let mut child = output.unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), key.as_bytes()).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout[..8].to_vec()).unwrap()
}

#[tokio::test]
async fn a_key_is_added_once_cloudbeds_has_said_whose_it_is() {
    let (_cloudbeds, hotels, desk) = scene().await;
    let ran = desk.run(&["keys", "add", "1001"], &format!("{}\n", hotels[0].key)).await;
    let name = short(&hotels[0].key);
    ran.expect(
        0,
        &["1001: Seaside Demo Hotel\n", &format!("Property 1001: the key {name} is added.\n"), "No proxy answers"],
    );
    assert_eq!(desk.keys(), format!("\"1001\": {}\n", hotels[0].key));
    assert_eq!(fs::metadata(desk.path("keys.yaml")).unwrap().permissions().mode() & 0o777, 0o600);
    // What mail programs add is taken off, and what a person wrote around the row stays.
    desk.write_keys(&format!("# by the sea\n\"1001\": {} # renewed\n", key()));
    let mail = format!("“Authorization: Bearer {}”.\r\n", hotels[0].key);
    desk.run(&["keys", "add", "1001"], &mail).await.expect(0, &["replaces the former one"]);
    assert_eq!(desk.keys(), format!("# by the sea\n\"1001\": {} # renewed\n", hotels[0].key));
    desk.run(&["keys", "add", "1001"], &mail).await.expect(0, &["was there already"]);
    desk.run(&["keys", "add", "1002", "--app", "mail", "--organization", "org-7"], &hotels[1].key)
        .await
        .expect(0, &["is added"]);
    assert!(
        desk.keys().ends_with(&format!("\"1002\": {{ key: {}, app: mail, organization: org-7 }}\n", hotels[1].key))
    );
}

#[tokio::test]
async fn nothing_is_written_unless_the_key_is_verified() {
    let (cloudbeds, hotels, desk) = scene().await;
    let before = format!("\"1001\": {}\n", key());
    desk.write_keys(&before);
    cloudbeds.revoke(&hotels[1].key);
    let (good, revoked) = (&hotels[0].key, &hotels[1].key);
    for (arguments, input, words) in [
        (
            &["keys", "add", "1003"][..],
            good.clone(),
            "the key does not belong to property 1003: it opens 1001 (Seaside Demo Hotel)",
        ),
        (
            &["keys", "add", "1001"],
            revoked.clone(),
            "nothing was written, and a former key stays: Cloudbeds rejects the key",
        ),
        (&["keys", "add", "1001"], String::new(), "nothing was entered"),
        (&["keys", "add", "1001"], "hunter2".to_owned(), "a Cloudbeds API key starts with `cbat_`"),
        (&["keys", "add", "1001"], format!("{good} {revoked}"), "two different keys"),
        (&["keys", "add", "1001"], format!("Dear partner, {good}"), "more than a key"),
        (
            &["keys", "add", "1001", "--app", "none"],
            good.clone(),
            "no such app in the configuration; there are: main, mail",
        ),
    ] {
        let ran = desk.run(arguments, &input).await;
        ran.expect(1, &[words]);
        assert!(!ran.err.contains("hunter2"));
        assert_eq!(desk.keys(), before);
    }
    cloudbeds.stop().await;
    desk.run(&["keys", "add", "1001"], good).await.expect(1, &["cannot connect to https://localhost", "--no-check"]);
    assert_eq!(desk.keys(), before);
    desk.run(&["keys", "add", "1001", "--no-check"], good).await.expect(0, &["replaces the former one"]);
    assert_eq!(desk.keys(), format!("\"1001\": {good}\n"));
}

#[tokio::test]
async fn an_organisations_key_is_said_to_open_more_and_added_for_all_of_it() {
    let (_, mut hotels) = cloudbeds(Protocols::Both).await;
    hotels[1].key = hotels[0].key.clone();
    let settings = cloudbeds_auth_proxy::sandbox::Settings {
        hotels: hotels.clone(),
        ..cloudbeds_auth_proxy::sandbox::Settings::demo()
    };
    let cloudbeds = cloudbeds_auth_proxy::sandbox::start(settings).await.unwrap();
    let desk = Desk::before(&cloudbeds, &hotels, "");
    desk.run(&["keys", "add", "1001"], &hotels[0].key)
        .await
        .expect(0, &["The key also opens 1002 (Mountain Demo Lodge)"]);
    desk.run(&["keys", "add", "1001", "1002"], &hotels[0].key).await.expect(0, &["Property 1001 and 1002"]);
    assert_eq!(desk.keys(), format!("keys:\n  - {{ key: {}, properties: [1001, 1002] }}\n", hotels[0].key));
}

#[tokio::test]
async fn the_prompt_does_not_show_what_is_typed() {
    let (_cloudbeds, hotels, desk) = scene().await;
    // A terminal of its own, whose transcript is standard output; typed once it asks.
    let mut command = Command::new("script");
    let line = format!("{} --config config.yaml keys add 1001", env!("CARGO_BIN_EXE_cloudbeds-auth-proxy"));
    command.args(["-q", "-e", "-c", &line, "/dev/null"]).current_dir(desk.path(""));
    let ran = desk.run_typed(command, "(it is not shown): ", &format!("{}\n", hotels[0].key)).await;
    ran.expect(0, &["API key for property 1001 (it is not shown): ", "is added"]);
    assert_eq!(desk.keys(), format!("\"1001\": {}\n", hotels[0].key));
}

#[tokio::test]
async fn a_running_proxy_takes_every_change_over_at_once() {
    let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
    let proxy = Proxy::to(&cloudbeds, &hotels[..1])
        .config("keys: { file: keys.yaml, poll: 1h }")
        .config(
            &APPS
                .replace('\n', " ")
                .replace("apps:   ", "apps: { ")
                .replace("   mail", ", mail")
                .replace("email }", "email } }"),
        )
        .start()
        .await;
    let admin = proxy.admin.to_string();
    let answer = async |property: &str| proxy.get("/api/v1.3/getHotels").property(property).send().await.status;
    assert_eq!((answer("1001").await, answer("1002").await), (200.into_status(), 403.into_status()));
    let taken = format!("The proxy at {admin} has taken it over.\n");
    proxy.run(&["keys", "add", "1002", "--admin", &admin], &hotels[1].key).await.expect(0, &[&taken]);
    assert_eq!(answer("1002").await, 200);
    proxy
        .run(&["keys", "remove", "1002", "--admin", &admin], "")
        .await
        .expect(0, &["property 1002 is no longer in it", &taken]);
    assert_eq!(answer("1002").await, 403);

    // The drill, with the last key there is.
    let ran = proxy.run(&["keys", "revoke", "1001", "--yes", "--admin", &admin], "").await;
    let link = "https://hotels.cloudbeds.com/connect/1001#/app/live1_1001_main";
    ran.expect(0, &["property 1001 is no longer in it", "is refused from now on", &taken, link, "within 24 hours"]);
    assert_eq!(answer("1001").await, 403);
    assert_eq!(fs::read_to_string(proxy.path("keys.yaml")).unwrap(), "{}\n");
    proxy.run(&["keys", "add", "1001"], &hotels[0].key).await.expect(1, &["was revoked and is refused for good"]);
    // Somebody puts a backup back.
    proxy.write_keys(&format!("\"1001\": {}\n\"1002\": {}\n", hotels[0].key, hotels[1].key));
    proxy.wait_for_event("revoked keys in the key file are not used; remove them").await;
    proxy.wait_for_metric("properties_loaded", |count| count == 1.0).await;
    assert_eq!((answer("1001").await, answer("1002").await), (403.into_status(), 200.into_status()));
    proxy.run(&["keys", "remove", "1001"], "").await.expect(0, &["property 1001 is no longer in it"]);
    assert_eq!(fs::read_to_string(proxy.path("keys.yaml")).unwrap(), format!("\"1002\": {}\n", hotels[1].key));
}

trait IntoStatus {
    fn into_status(self) -> http::StatusCode;
}

impl IntoStatus for u16 {
    fn into_status(self) -> http::StatusCode {
        http::StatusCode::from_u16(self).unwrap()
    }
}

#[tokio::test]
async fn a_revocation_must_be_meant() {
    let (_cloudbeds, hotels, desk) = scene().await;
    let before = format!("\"1001\": {}\n", hotels[0].key);
    desk.write_keys(&before);
    desk.run(&["keys", "revoke", "1001"], "yes\n").await.expect(1, &["nothing was done", "add --yes"]);
    desk.run(&["keys", "revoke", "1009", "--yes"], "").await.expect(1, &["no key for property 1009; nothing was done"]);
    desk.run(&["keys", "remove", "1001", "1009"], "").await.expect(1, &["no key for property 1009; nothing was done"]);
    assert_eq!(desk.keys(), before);
    assert!(!desk.path("keys.yaml.refused").exists());
}

#[tokio::test]
async fn a_list_tells_keys_apart_and_shows_none() {
    let (_cloudbeds, hotels, desk) = scene().await;
    desk.write_keys(&format!(
        "\"1002\": {{ key: {}, app: mail, organization: acme }}\n\"1001\": {}\n",
        hotels[1].key, hotels[0].key
    ));
    desk.run(&["keys", "check", "1001"], "").await.expect(0, &["Seaside Demo Hotel", "active"]);
    let (one, two) = (short(&hotels[0].key), short(&hotels[1].key));
    let table = format!(
        "property  hotel               organization  app   key       verdict  age  idle\n    \
         1001  Seaside Demo Hotel  -             main  {one}  -          -     -\n    \
         1002  -                   acme          mail  {two}  -          -     -\n"
    );
    assert_eq!(desk.run(&["keys", "list"], "").await.expect(0, &[]).out, table);
    let ran = desk.run(&["keys", "list", "--json"], "").await;
    let rows: serde_json::Value = serde_json::from_str(&ran.expect(0, &[]).out).unwrap();
    let second = serde_json::json!({
        "property": "1002", "hotel": null, "organization": "acme", "app": "mail", "key": two,
        "verdict": null, "age_days": null, "idle_days": null,
    });
    assert_eq!((rows[0]["hotel"].as_str(), &rows[1]), (Some("Seaside Demo Hotel"), &second));
}

#[tokio::test]
async fn a_list_shows_what_a_proxy_has_written_down() {
    let (_cloudbeds, hotels, desk) = scene().await;
    desk.write_keys(&format!("\"1001\": {}\n", hotels[0].key));
    desk.used_before("1001", &hotels[0].key, 22);
    let rows: serde_json::Value = serde_json::from_str(&desk.run(&["keys", "list", "--json"], "").await.out).unwrap();
    let row = &rows[0];
    assert_eq!((&row["verdict"], &row["age_days"], &row["idle_days"]), (&"idle".into(), &22.into(), &22.into()));
    desk.run(&["keys", "list"], "").await.expect(0, &["  idle     22 d  22 d\n"]);
}

#[tokio::test]
async fn a_check_asks_about_each_different_key_once() {
    let (cloudbeds, hotels, desk) = scene().await;
    let foreign =
        format!("keys:\n- {{ key: {}, properties: [1001, 1005] }}\n\"1002\": {}\n", hotels[0].key, hotels[1].key);
    desk.write_keys(&foreign);
    cloudbeds.revoke(&hotels[1].key);
    let ran = desk.run(&["keys", "check", "--all", "--json"], "").await;
    ran.expect(1, &["2 of 3 do not work or gave no answer"]);
    let rows: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    let verdicts: Vec<_> =
        rows.as_array().unwrap().iter().map(|row| (row["property"].clone(), row["verdict"].clone())).collect();
    let expected = [("1001", "active"), ("1002", "rejected"), ("1005", "foreign")];
    assert_eq!(verdicts, expected.map(|(property, verdict)| (property.into(), verdict.into())));
    assert!(rows.as_array().unwrap()[1..].iter().all(|row| !row["advice"].as_str().unwrap().is_empty()));
    assert_eq!(cloudbeds.requests().len(), 2);
    desk.run(&["keys", "check", "1001"], "").await.expect(0, &["1001", "active"]);
    desk.run(&["keys", "check", "1009"], "").await.expect(1, &["no key for property 1009"]);
    desk.run(&["keys", "check", "1002"], "").await.expect(1, &["rejected", "the hotel must connect again"]);
}

#[tokio::test]
async fn an_import_is_all_or_nothing_unless_it_may_be_partial() {
    let (cloudbeds, hotels, desk) = scene().await;
    let before = format!("# ours\n\"7\": {}\n", key());
    desk.write_keys(&before);
    let (one, two) = (&hotels[0].key, &hotels[1].key);
    let csv = format!(
        "property,key,app\n1001,{one},main\n1002,\"{two}\",none\n1003,{one},\n1001,{one},\nx,{one},\n1004,hunter2,\n"
    );
    fs::write(desk.path("import.csv"), &csv).unwrap();
    let lines = [
        "line 3: property 1002: no such app in the configuration",
        "line 4: property 1003: the key does not belong to property 1003: it opens 1001",
        "line 5: property 1001 stands here a second time, after line 2",
        "line 6: not a property id",
        "line 7: property 1004: there is no key in what was entered",
    ];
    let ran = desk.run(&["keys", "import", "import.csv"], "").await;
    ran.expect(1, &lines).expect(1, &["nothing was written: 5 of 6 rows are bad"]);
    assert!(!ran.err.contains("hunter2"));
    assert_eq!((desk.keys(), cloudbeds.requests().len()), (before.clone(), 1));
    let ran = desk.run(&["keys", "import", "import.csv", "--partial", "--dry-run"], "").await;
    ran.expect(1, &["1 of 6 rows are good; nothing was written.", "5 of 6 rows were left out"]);
    assert_eq!(desk.keys(), before);
    let ran = desk.run(&["keys", "import", "import.csv", "--partial"], "").await;
    ran.expect(1, &lines).expect(1, &["Added: 1, replaced: 0, as before: 0."]);
    assert_eq!(desk.keys(), format!("{before}\"1001\": {{ key: {one}, app: main }}\n"));

    // JSON and YAML, from standard input, in one step.
    let json = format!(
        "[{{\"propertyID\": 1001, \"api_key\": \"{one}\"}}, {{\"propertyID\": \"1002\", \"api_key\": \"{two}\"}}]"
    );
    let ran = desk.run(&["keys", "import", "-", "--format", "json"], &json).await;
    ran.expect(0, &["Added: 1, replaced: 0, as before: 1."]);
    let yaml = format!("1001: {two}\n1002: {one}\n");
    desk.run(&["keys", "import", "-", "--format", "yaml", "--no-check"], &yaml)
        .await
        .expect(0, &["Added: 0, replaced: 2"]);
    let after = format!("{before}\"1001\": {{ key: {two}, app: main }}\n\"1002\": {one}\n");
    assert_eq!(desk.keys(), after);
    for (arguments, input, words) in [
        (&["keys", "import", "-"][..], "", "say it with --format"),
        (&["keys", "import", "none.csv"], "", "none.csv: cannot be read"),
        (&["keys", "import", "-", "--format", "csv"], "\n", "there are no rows in it"),
        (&["keys", "import", "-", "--format", "json"], "{\"1001\":", "not JSON at line 1"),
    ] {
        desk.run(arguments, input).await.expect(1, &[words]);
    }
    assert_eq!(desk.keys(), after);
}

#[tokio::test]
async fn a_directory_of_keys_is_written_as_one() {
    let (_cloudbeds, hotels, desk) = scene().await;
    fs::create_dir(desk.path("keys")).unwrap();
    let config = fs::read_to_string(desk.path("config.yaml")).unwrap();
    fs::write(desk.path("config.yaml"), format!("{config}keys: {{ file: keys }}\n")).unwrap();
    // The directory is empty, which the commands that read it refuse, but not those that fill it.
    desk.run(&["keys", "list"], "").await.expect(78, &["holds no keys"]);
    desk.run(&["keys", "add", "1001"], &hotels[0].key).await.expect(0, &["is added"]);
    write_private(&desk.path("keys/1002"), &hotels[1].key);
    assert_eq!(fs::read_to_string(desk.path("keys/1001")).unwrap(), format!("{}\n", hotels[0].key));
    desk.run(&["keys", "revoke", "1001", "--yes"], "").await.expect(0, &["property 1001 is no longer in it"]);
    assert!(!desk.path("keys/1001").exists() && desk.path("keys/.refused").exists());
    desk.run(&["keys", "add", "1001"], &hotels[0].key).await.expect(1, &["was revoked"]);
    desk.run(&["keys", "list"], "").await.expect(0, &["1002"]);
}

#[tokio::test]
async fn a_disk_without_room_leaves_the_file_as_it_was() {
    let (_cloudbeds, hotels, desk) = scene().await;
    let before = format!("\"1001\": {}\n", key());
    desk.write_keys(&before);
    // A limit on the size of files refuses the write as a full disk does.
    let mut command = Command::new("sh");
    let line = "trap '' XFSZ; ulimit -f 0; exec \"$0\" --config config.yaml keys add 1001 --no-check";
    command.args(["-c", line, env!("CARGO_BIN_EXE_cloudbeds-auth-proxy")]).current_dir(desk.path(""));
    let ran = desk.run_command(command, &hotels[0].key).await;
    ran.expect(1, &["cannot write a file in it: File too large"]);
    let left: Vec<_> = fs::read_dir(desk.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(desk.keys() == before && left.iter().all(|name| !name.to_string_lossy().ends_with(".new")), "{left:?}");
}

#[tokio::test]
async fn a_writer_waits_for_another() {
    let (_cloudbeds, hotels, desk) = scene().await;
    let lock = fs::File::create(desk.path("keys.yaml.lock")).unwrap();
    lock.lock().unwrap();
    let mut running = Box::pin(desk.run(&["keys", "add", "1001", "--no-check"], &hotels[0].key));
    let waits = tokio::time::timeout(std::time::Duration::from_millis(300), &mut running).await;
    assert!(waits.is_err() && !desk.path("keys.yaml").exists());
    drop(lock);
    running.await.expect(0, &["is added"]);
}

#[tokio::test]
async fn the_connect_link_is_the_one_a_hotel_can_use() {
    let (cloudbeds, _hotels, desk) = scene().await;
    let link = "https://hotels.cloudbeds.com/connect/1001#/app/live1_1001_main\n";
    assert_eq!(desk.run(&["connect-link", "1001"], "").await.expect(0, &[]).out, link);
    desk.run(&["connect-link", "1001", "--app", "mail"], "").await.expect(0, &["/connect/1001#/app/live1_1001_mail\n"]);
    desk.run(&["connect-link", "1001", "--app", "none"], "").await.expect(1, &["there are: main, mail"]);
    let drawn = desk.run(&["connect-link", "1001", "--qr"], "").await.out;
    let rows: Vec<_> = drawn.lines().skip(2).collect();
    // 33 modules (version 4) and a margin of 4 on every side, two rows of modules to a line.
    assert!(drawn.starts_with(link) && rows.len() == 21, "{drawn}");
    assert!(
        rows.iter().all(|row| row.chars().count() == 41 && row.chars().all(|module| " █▀▄".contains(module))),
        "{drawn}"
    );

    // With onboarding on, a hotel that starts at Cloudbeds would come back without a state.
    let app = "client_secret_file: secret, redirect_uri: 'https://c.test/k'";
    let on = Desk::before(
        &cloudbeds,
        &[],
        &format!(
            "apps: {{ a: {{ client_id: x, {app} }}, b: {{ client_id: y, {app} }}, c: {{ client_id: z, delivery: email }} }}\n\
             onboarding: {{ listen: 127.0.0.1:8081, public_url: 'https://c.test/' }}"
        ),
    );
    for (arguments, link) in [
        (&["connect-link", "1001"][..], "https://c.test/connect/1001\n"),
        (&["connect-link", "1001", "--app", "b"], "https://c.test/connect/1001?app=b\n"),
        (&["connect-link", "1001", "--app", "c"], "https://hotels.cloudbeds.com/connect/1001#/app/z\n"),
        (&["connect-link", "1001", "--vendor"], "https://hotels.cloudbeds.com/connect/1001#/app/x\n"),
    ] {
        assert_eq!(on.run(arguments, "").await.expect(0, &[]).out, link);
    }
    let none = Desk::before(&cloudbeds, &[], "");
    none.run(&["connect-link", "1001"], "").await.expect(1, &["describes no apps"]);
}
