//! Configurations as people write them, right and wrong, and the words they get back.

use std::ffi::OsString;
use std::path::Path;

use super::*;
use crate::yaml;

fn env(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

fn with(text: &str, pairs: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    parse(text, "config.yaml", Path::new("/etc/proxy"), env(pairs))
        .map_err(|faults| faults.iter().map(ToString::to_string).collect())
}

fn accepted(text: &str) -> Config {
    with(text, &[]).unwrap()
}

fn check_refused(text: &str, words: &str) {
    let faults = with(text, &[]).expect_err(text);
    assert!(faults.len() == 1 && faults[0].contains(words), "{text}\ngave {faults:#?}");
}

#[test]
fn a_mistake_made_ten_thousand_times_is_told_twenty_times() {
    let many = |entry: fn(usize) -> String| (0..10_000).map(entry).collect::<String>();
    let listen = format!("listen:\n{}", many(|_| "- nowhere\n".to_owned()));
    let apps = format!("apps:\n{}", many(|number| format!("  a{number}: {{ client_id: live1_a, redirect_uri: x }}\n")));
    let callers = format!("callers:\n{}", many(|number| format!("  c{number}: {{ uids: [1], methods: [x] }}\n")));
    let (unknown, twice) = (many(|number| format!("o{number}: 1\n")), many(|_| "workers: 1\n".to_owned()));
    for text in [listen, apps, callers, unknown, twice] {
        yaml::LOCATED.set(0);
        let faults = parse(&text, "config.yaml", Path::new("/"), []).unwrap_err();
        // Each place that is looked for is a reading of the text.
        assert_eq!((faults.len(), yaml::LOCATED.get()), (crate::fault::FAULTS_MAX, crate::fault::FAULTS_MAX));
    }
    let listen = (1..=1001).map(|port| format!("- 127.0.0.1:{port}\n")).collect::<String>();
    check_refused(&format!("listen:\n{listen}"), "listen: names more than 1000 addresses");
}

#[test]
fn the_example_holds_every_option_and_equals_the_defaults() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.example.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let example = parse(&text, "config.example.yaml", Path::new(""), env(&[])).unwrap();
    assert_eq!(example, load(None, env(&[])).unwrap());

    let value = yaml::document("config.example.yaml", &text).unwrap();
    for option in
        raw::options().iter().map(String::as_str).chain(["upstream.routes", "apps", "callers", "limits.weights"])
    {
        let found = option.split('.').try_fold(&value, |node, name| node.get(name));
        assert!(found.is_some(), "{option} is not in config.example.yaml");
    }
}

#[test]
fn every_fault_is_told_at_once_with_its_place() {
    let text = "\
lisen: 127.0.0.1:80
listen: [127.0.0.1:1, { adress: x, address: 'unix:/y' }, 5, nonsense, { default_property: 1 }]
upstream:
  timeouts: { connect: 5, tls: 2h }
  http2: 'yes'
drain:
  min: 40s
workers: 0
";
    assert_eq!(
        with(text, &[("CLOUDBEDS_AUTH_PROXY__KEYS__POLL", "1ms")]).unwrap_err(),
        [
            "config.yaml:1:1: lisen: unknown option `lisen` — did you mean `listen`?",
            "config.yaml:2:25: listen[1].adress: unknown option `adress` — did you mean `address`?",
            "config.yaml:2:58: listen[2]: expected an address, or `address:` and `default_property:`",
            "config.yaml:2:61: listen[3]: expected an address such as 127.0.0.1:8080, [::1]:8080, localhost:8080 or \
             unix:/run/proxy.sock",
            "config.yaml:2:71: listen[4]: `address` is missing — add it",
            "config.yaml:4:24: upstream.timeouts.connect: expected a duration such as 5s — write a number and a unit: \
             ms, s, m or h",
            "config.yaml:4:32: upstream.timeouts.tls: expected 1ms to 1h",
            "config.yaml:5:10: upstream.http2: expected true or false",
            "config.yaml:7:8: drain.min: is longer than drain.max — lower it, or raise drain.max",
            "config.yaml:8:10: workers: expected 1 to 256",
            "CLOUDBEDS_AUTH_PROXY__KEYS__POLL: keys.poll: expected 100ms to 1h",
        ]
    );
}

#[test]
fn a_listener_is_an_address_a_list_or_has_a_default_property() {
    let config = accepted("listen:\n  - localhost:8080\n  - { address: 'unix:run/p.sock', default_property: 1001 }\n");
    assert_eq!(config.listen[0].address.to_string(), "127.0.0.1:8080");
    assert_eq!(config.listen[1].address.to_string(), "unix:/etc/proxy/run/p.sock");
    assert_eq!(config.listen[1].default_property, "1001".parse().ok());
    check_refused("listen: []", "config.yaml:1:9: listen: expected at least one address");
    check_refused("listen: 8080", "listen: expected an address such as 127.0.0.1:8080");
    check_refused(&format!("listen: unix:/{}", "x".repeat(107)), "the socket's path is longer than 107 bytes");
    check_refused("listen: [127.0.0.1:1, 127.0.0.1:1]", "listen[1]: overlaps another listener");
    check_refused("listen: [{ address: 'unix:/x', default_property: 007 }]", "default_property is not a property id");
}

#[test]
fn a_network_listener_is_refused_unless_the_config_says_what_it_means() {
    let words = "anyone who reaches this listener may use every key";
    check_refused("listen: 0.0.0.0:8080", &format!("unauthenticated_network: \"{words}\""));
    check_refused("listen: 0.0.0.0:8080\nunauthenticated_network: yes please", &format!("write exactly \"{words}\""));
    accepted(&format!("listen: 0.0.0.0:8080\nunauthenticated_network: {words}"));
    accepted("admin: { listen: '0.0.0.0:9090' }");
}

#[test]
fn unreadable_codings_are_let_through_only_in_words() {
    let words = "answers that nobody can search for keys may pass";
    let hint = format!("policy.unreadable_codings: does not say what it means — write exactly \"{words}\"");
    for other in ["allow", "true", "''", "answers that nobody can search may pass"] {
        check_refused(&format!("policy: {{ unreadable_codings: \"{other}\" }}"), &hint);
    }
    assert!(accepted(&format!("policy: {{ unreadable_codings: {words} }}")).policy.unreadable_codings);
    assert!(!accepted("policy: { unreadable_codings: null }").policy.unreadable_codings);
    let variable = ("CLOUDBEDS_AUTH_PROXY__POLICY__UNREADABLE_CODINGS", words);
    assert!(with("workers: 1", &[variable]).unwrap().policy.unreadable_codings);
}

#[test]
fn the_admin_listener_is_never_a_proxy_listener() {
    check_refused("admin: { listen: 127.0.0.1:8080 }", "admin.listen: overlaps a proxy listener");
    check_refused("admin: { listen: '0.0.0.0:8080' }", "admin.listen: overlaps a proxy listener");
    check_refused("admin: { listen: unix:/x }", "admin.listen: expected an address");
}

#[test]
fn routes_are_sorted_longest_first_and_go_to_https_only() {
    let config = accepted("upstream: { routes: { /a/: https://a.test, /a/b/: https://b.test } }");
    let prefixes: Vec<_> = config.upstream.routes.iter().map(|route| route.prefix.as_str()).collect();
    assert_eq!(prefixes, ["/a/b/", "/a/"]);
    check_refused(
        "upstream: { routes: { /a/: http://a.test } }",
        "config.yaml:1:28: upstream.routes./a/: must start with https://",
    );
    for bad in ["a/", "/%61/", "/a/../b", "/./", "//a", "/a?b", "'/a b'"] {
        check_refused(&format!("upstream: {{ routes: {{ {bad}: https://a.test }} }}"), "expected a path prefix");
    }
    check_refused(
        "upstream: { base_url: https://a.test/api }",
        "upstream.base_url: must be scheme, host and port only",
    );
}

#[test]
fn paths_are_relative_to_the_file() {
    let config = accepted("keys: { file: k/keys.yaml }\nupstream: { ca_file: /ca.pem }\nlog: { output: ./x.log }");
    assert_eq!(config.keys.file, Path::new("/etc/proxy/k/keys.yaml"));
    assert_eq!(config.upstream.ca_file.as_deref(), Some(Path::new("/ca.pem")));
    assert_eq!(config.log.output, LogOutput::File("/etc/proxy/./x.log".into()));
    assert_eq!(load(None, env(&[])).unwrap().keys.file, Path::new("keys.yaml"));
}

#[test]
fn apps_keep_their_order_and_the_first_is_the_default() {
    let config = accepted(
        "apps:\n  zeta: { client_id: live1_1_a, client_secret_file: secret, requests_per_second: 5,\n    \
         redirect_uri: 'https://c.test/api_key', scopes: ['read:hotel'] }\n  \
         alpha: { client_id: live1_2_b, delivery: email, connect_url: 'https://localhost:8443/connect/' }\n",
    );
    let [zeta, alpha] = &config.apps[..] else { panic!("{:?}", config.apps) };
    assert_eq!((zeta.name.as_str(), zeta.delivery, zeta.requests_per_second), ("zeta", Delivery::Automatic, 5));
    assert_eq!(zeta.client_secret_file.as_deref(), Some(Path::new("/etc/proxy/secret")));
    assert_eq!(zeta.exchange_url.to_string(), "https://hotels.cloudbeds.com/api/v1.1/access_token");
    assert_eq!((alpha.delivery, alpha.marketplace), (Delivery::Email, false));
    let property = "1001".parse().unwrap();
    assert_eq!(zeta.connect_link(property), "https://hotels.cloudbeds.com/connect/1001#/app/live1_1_a");
    assert_eq!(alpha.connect_link(property), "https://localhost:8443/connect/1001#/app/live1_2_b");
    assert!(accepted("apps:").apps.is_empty() && accepted("onboarding:").onboarding.is_none());
}

#[test]
fn apps_that_cannot_work_are_refused() {
    for (text, words) in [
        ("apps: { a: { } }", "apps.a.client_id: expected the app's client id"),
        ("apps: { a: { client_id: 'x y' } }", "apps.a.client_id: expected the app's client id"),
        ("apps: { a: { client_id: cbat_blue } }", "apps.a.client_id: expected the app's client id"),
        ("apps: { a: { client_id: x }, b: { client_id: x } }", "apps.b.client_id: another app has it already"),
        (
            "apps: { a: { client_id: x, clientid: y } }",
            "apps.a.clientid: unknown option `clientid` — did you mean `client_id`?",
        ),
        ("apps: { a: { client_id: x, client_secret: y } }", "unknown option `client_secret`"),
        ("apps: { a: { client_id: x, delivery: post } }", "apps.a.delivery: expected `automatic` or `email`"),
        ("apps: { a: { client_id: x, requests_per_second: 0 } }", "apps.a.requests_per_second: expected 1 to 100000"),
        ("apps: { a: { client_id: x, redirect_uri: 'http://c.test' } }", "apps.a.redirect_uri: expected an address"),
        ("apps: { a: { client_id: x, exchange_url: 'http://localhost' } }", "apps.a.exchange_url: expected an address"),
        ("apps: { a: { client_id: x, marketplace: true } }", "apps.a.marketplace: wants a `redirect_uri`"),
        ("apps: { 'a b': { client_id: x } }", "expected a name of at most 64 characters"),
        ("apps: [a]", "apps: expected a mapping — write a name for each entry"),
    ] {
        check_refused(text, words);
    }
}

#[test]
fn onboarding_is_off_until_it_has_all_it_needs() {
    let app = "apps: { a: { client_id: x, client_secret_file: s, redirect_uri: 'https://c.test/k' } }\n";
    let config = accepted(&format!(
        "{app}onboarding: {{ listen: '0.0.0.0:8081', public_url: 'https://c.test', webhook_path_secret_file: w }}"
    ));
    let onboarding = config.onboarding.unwrap();
    assert_eq!(
        (onboarding.listen.to_string().as_str(), onboarding.public_url.as_str()),
        ("0.0.0.0:8081", "https://c.test")
    );
    assert_eq!(onboarding.webhook_path_secret_file.as_deref(), Some(Path::new("/etc/proxy/w")));
    let on = "onboarding: { listen: '127.0.0.1:8081', public_url: 'https://c.test' }";
    for (text, words) in [
        (format!("{app}onboarding: {{ public_url: 'https://c.test' }}"), "has no effect without `onboarding.listen`"),
        (format!("{app}onboarding: {{ listen: '127.0.0.1:8081' }}"), "onboarding: `public_url` is missing"),
        (format!("{app}{}", on.replace("c.test", "c.test/x")), "onboarding.public_url: expected an https address"),
        (format!("{app}{}", on.replace("8081", "8080")), "onboarding.listen: overlaps another listener"),
        (format!("{app}{}", on.replace("8081", "9090")), "onboarding.listen: overlaps another listener"),
        (on.to_owned(), "onboarding: wants an app to connect hotels to"),
        (format!("{}{on}", app.replace("client_secret_file: s, ", "")), "apps.a.client_secret_file: is missing"),
    ] {
        check_refused(&text, words);
    }
    accepted(&format!("apps: {{ a: {{ client_id: x, delivery: email }} }}\n{on}"));
}

#[test]
fn budgets_are_on_unless_they_are_turned_off() {
    let config = accepted(
        "limits: { requests_per_second: 5, weights: { 1001: 3 } }\napps:\n  a: { client_id: x, delivery: email }\n  \
                           b: { client_id: y, delivery: email, requests_per_second: 10 }",
    );
    let limits = config.limits.unwrap();
    assert_eq!((limits.requests_per_second, limits.max_wait), (5, Duration::from_secs(5)));
    assert_eq!(limits.weights, BTreeMap::from([("1001".parse().unwrap(), 3)]));
    let granted: Vec<_> = config.apps.iter().map(|app| app.requests_per_second).collect();
    assert_eq!(granted, [5, 10]);
    assert_eq!(accepted("limits: null").limits, None);
    let over = with("limits: null", &[("CLOUDBEDS_AUTH_PROXY__LIMITS__MAX_WAIT", "1s")]).unwrap();
    assert_eq!(over.limits.unwrap().max_wait, Duration::from_secs(1));
    for (text, words) in [
        (
            "limits: { requests_per_second: 0 }",
            "limits.requests_per_second: expected 1 to 100000 — write what Cloudbeds",
        ),
        ("limits: { requests_per_second: 100001 }", "limits.requests_per_second: expected 1 to 100000"),
        ("limits: { max_wait: 2h }", "limits.max_wait: expected 0s to 1h"),
        ("limits: { weights: { 007: 2 } }", "not a property id"),
        ("limits: { weights: { 1001: 0 } }", "limits.weights.1001: expected 1 to 100"),
        ("limits: { max_wiat: 1s }", "did you mean `max_wait`?"),
        ("limits: { weights: { 1001: 'x' } }", "expected a whole number"),
    ] {
        check_refused(text, words);
    }
}

#[test]
fn words_are_the_ones_we_know() {
    assert!(accepted("policy: { credential_paths: allow }").policy.credential_paths);
    check_refused("policy: { credential_paths: yes }", "expected `refuse` or `allow`");
    check_refused("log: { format: xml }", "log.format: expected `text` or `json`");
    check_refused("log: { output: stdrr }", "log.output: expected `stdout`, `stderr` or a path");
    check_refused("log: { level: 'info,hyper=loud' }", "log.level: expected a level");
    check_refused("log: { level: '' }", "log.level: expected a level");
    check_refused("log: { level: inof }", "log.level: expected a level");
    accepted(
        "log:
upstream: { routes: }",
    ); // A section whose options are all commented out.
    check_refused("log: text", "config.yaml:1:6: log: expected options, one per line");
    check_refused("workers: many", "workers: expected `auto` or a number of threads");
    check_refused("client: { max_head_size: 64KB }", "expected a size such as 64KiB");
    check_refused("client: { max_headers: -1 }", "expected a whole number");
    check_refused("- listen", "config.yaml: expected options, one per line");
}

#[test]
fn the_environment_overrides_any_scalar() {
    let text = "drain: { min: nonsense }";
    let config = with(
        text,
        &[
            ("CLOUDBEDS_AUTH_PROXY_CONFIG", "elsewhere.yaml"),
            ("CLOUDBEDS_AUTH_PROXY__DRAIN__MIN", "1s"),
            ("CLOUDBEDS_AUTH_PROXY__UPSTREAM__TIMEOUTS__CONNECT", "3s"),
            ("CLOUDBEDS_AUTH_PROXY__UPSTREAM__HTTP2", "false"),
            ("CLOUDBEDS_AUTH_PROXY__UPSTREAM__CA_FILE", ""),
            ("CLOUDBEDS_AUTH_PROXY__LISTEN", "127.0.0.1:8081"),
            ("CLOUDBEDS_AUTH_PROXY__WORKERS", "3"),
        ],
    )
    .unwrap();
    assert_eq!(config.drain.min, Duration::from_secs(1));
    assert_eq!(config.upstream.timeouts.connect, Duration::from_secs(3));
    assert_eq!((config.upstream.http2, config.upstream.ca_file, config.workers), (false, None, Workers(3)));
    assert_eq!(config.listen[0].address.to_string(), "127.0.0.1:8081");
}

#[test]
fn a_variable_that_names_no_option_is_a_fault() {
    let refused = |name: &str, value: &str| with("{}", &[(name, value)]).unwrap_err().join("\n");
    assert_eq!(
        refused("CLOUDBEDS_AUTH_PROXY__DRAIN__MINN", "1s"),
        "CLOUDBEDS_AUTH_PROXY__DRAIN__MINN: names no option — did you mean CLOUDBEDS_AUTH_PROXY__DRAIN__MIN?"
    );
    assert!(refused("CLOUDBEDS_AUTH_PROXY__UPSTREAM", "x").contains("names no option"));
    assert_eq!(
        refused("CLOUDBEDS_AUTH_PROXY__DRAIN__MIN", "cbat_blue"),
        "CLOUDBEDS_AUTH_PROXY__DRAIN__MIN: drain.min: expected a duration such as 5s — write a number and a unit: ms, \
         s, m or h"
    );
}

#[test]
fn a_key_pasted_into_the_config_is_not_repeated() {
    for text in [
        "\"1001\": cbat_blue",
        "cbat_blue: 1",
        "keys: { poll: cbat_blue }",
        "log: { format: cbat_blue }",
        "listen: cbat_blue",
        "upstream: { base_url: cbat_blue, routes: { cbat_blue: cbat_blue } }",
    ] {
        let faults = with(text, &[]).unwrap_err();
        assert!(!faults.is_empty() && !format!("{faults:?}").contains("blue"), "{faults:?}");
    }
    check_refused("\"1001\": cbat_blue", "keys belong into a file of their own");
}

#[test]
fn a_missing_or_huge_file_is_one_clear_sentence() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.yaml");
    let refused = |path: &Path| load(Some(path), env(&[])).unwrap_err()[0].to_string();
    assert!(refused(&path).contains("config.yaml: is not there — check --config"));
    std::fs::write(&path, " ".repeat(1024 * 1024 + 1)).unwrap();
    assert!(refused(&path).contains("larger than 1 MiB"));
}

#[test]
fn callers_are_named_with_their_tokens_and_let_a_listener_stand_on_a_network() {
    let digest = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
    let config = accepted(&format!(
        "listen: 0.0.0.0:8080\ncallers:\n  desk: {{ token_sha256: [{digest}], properties: [1001, '1002'], methods: [GET], \
         paths: [/api/] }}"
    ));
    let caller = &config.callers[0];
    assert_eq!((caller.name.as_str(), caller.tokens.len()), ("desk", 1));
    assert_eq!(caller.properties.as_ref().unwrap().len(), 2);
    let caller = |options: &str| format!("callers: {{ desk: {{ {options} }} }}");
    for (options, words) in [
        ("properties: [1]".to_owned(), "callers.desk.token_sha256: expected something the caller is known by"),
        (
            "token_sha256: [e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855]".to_owned(),
            "the digest of nothing",
        ),
        ("token_sha256: [abc]".to_owned(), "expected 64 hexadecimal digits"),
        (format!("token_sha256: [{digest}], properties: []"), "callers.desk.properties: allows nothing"),
        (format!("token_sha256: [{digest}], properties: [0]"), "expected property ids"),
        (format!("token_sha256: [{digest}], methods: [get]"), "never forwarded"),
        (format!("token_sha256: [{digest}], methods: [TRACE]"), "never forwarded"),
        (format!("token_sha256: [{digest}], paths: [api]"), "expected paths such as"),
        (format!("token_sha256: [{digest}], path: [/api]"), "did you mean `paths`?"),
    ] {
        check_refused(&caller(&options), words);
    }
    for (text, words) in [
        ("callers: { desk: { certificates: [CN=desk] } }", "no listener asks for certificates"),
        ("callers: { desk: { uids: [1000] } }", "there is no unix socket to tell them by"),
    ] {
        check_refused(text, words);
    }
    let known =
        "listen: ['unix:/run/p.sock', 10.0.0.1:443]\ntls: { certificate_file: c, key_file: k, client_ca_file: a }\n";
    let caller = |options: &str| format!("{known}callers: {{ desk: {{ {options} }} }}");
    let desk = accepted(&caller("certificates: ['CN=desk', 'spiffe://a/b', Desk.example], uids: [1000]"));
    assert_eq!((desk.callers[0].certificates.len(), &desk.callers[0].uids[..]), (3, &[1000][..]));
    check_refused(&caller("certificates: ['desk,desk']"), "expected names such as CN=front-desk");
    check_refused(&caller("uids: [65534]"), "stands for every user");
    for way in ["certificates: [CN=a]", "uids: [7]"] {
        check_refused(&format!("{known}callers: {{ a: {{ {way} }}, b: {{ {way} }} }}"), "another caller has the same");
    }
    let two = format!("callers: {{ a: {{ token_sha256: [{digest}] }}, b: {{ token_sha256: [{digest}] }} }}");
    check_refused(&two, "another caller has the same token");
}

#[test]
fn a_listener_has_a_certificate_with_its_key_or_none() {
    let config =
        accepted("listen: 10.0.0.1:443\ntls: { certificate_file: c.pem, key_file: k.pem, client_ca_file: ca.pem }");
    let tls = config.tls.unwrap();
    assert_eq!(tls.certificate_file, Path::new("/etc/proxy/c.pem"));
    assert!(tls.http2 && tls.client_ca_file.is_some());
    check_refused("listen: 10.0.0.1:443\ntls: { certificate_file: c, key_file: k }", "would offer every key");
    check_refused("tls: { certificate_file: c }", "tls.certificate_file: has no key beside it");
    check_refused("tls: { key_file: k }", "tls.key_file: has no certificate beside it");
    check_refused("tls: { client_ca_file: k }", "asks for certificates where no TLS is spoken");
    let lonely = "tls: { certificate_file: c, key_file: k, client_crl_file: l }";
    check_refused(lonely, "tls.client_crl_file: revokes certificates that nobody is asked for");
    check_refused("tls: { certificate_file: '', key_file: k }", "tls.certificate_file: expected the path of a file");
}

#[test]
fn a_redis_is_named_by_a_url_without_a_password() {
    let shared =
        accepted("shared: { redis: 'rediss://cache.test:7000/1', user: proxy, password_file: p, ca_file: ca.pem }")
            .shared
            .unwrap();
    assert_eq!(
        (shared.url.to_string().as_str(), shared.url.tls, shared.url.database),
        ("rediss://cache.test:7000", true, 1)
    );
    assert_eq!((shared.user.as_deref(), shared.prefix.as_str()), (Some("proxy"), "cbap"));
    assert!(accepted("workers: 1").shared.is_none());
    let words = "shared.redis: holds a password, which belongs in a file of its own — write it to a file that only this \
                 user may read: `shared.password_file`";
    let secret = "shared:\n  redis: redis://:s3cret@cache.test";
    let faults = with(secret, &[]).unwrap_err();
    assert_eq!(faults, [format!("config.yaml:2:10: {words}")]);
    let variable =
        with("workers: 1", &[("CLOUDBEDS_AUTH_PROXY__SHARED__REDIS", "redis://a:s3cret@cache.test")]).unwrap_err();
    assert_eq!(variable, [format!("CLOUDBEDS_AUTH_PROXY__SHARED__REDIS: {words}")]);
    check_refused("shared: { redis: 'http://x' }", "shared.redis: not the URL of a Redis server");
    check_refused("shared: { redis: 'redis://x', ca_file: y }", "shared.ca_file: is of no use without TLS");
    check_refused("shared: { redis: 'redis://x', prefix: '{a}' }", "shared.prefix: expected");
    check_refused("shared: { user: proxy }", "shared.user: is of no use without `shared.redis`");
    check_refused("shared: { redis: 'redis://a@x' }", "shared.user: a user without a password is not sent to Redis");
    check_refused("limits: null\nshared: { redis: 'redis://x' }", "shared.redis: there are no budgets to share");
    let many = "replicas share at most 1000 requests a second, not 1001 (the default)";
    check_refused("limits: { requests_per_second: 1001 }\nshared: { redis: 'redis://x' }", many);
    check_refused(
        "shared: { redis: 'redis://a@x', user: b, password_file: p }",
        "shared.user: the URL names a user already",
    );
}

#[test]
fn a_rate_beyond_what_replicas_share_is_named_where_it_is_written() {
    let places = |yaml: &str| -> Vec<String> {
        let faults = with(yaml, &[]).unwrap_err();
        faults.iter().map(|fault| fault.split_once(": replicas share").unwrap().0.to_owned()).collect()
    };
    let shared = "shared: { redis: 'redis://x' }\n";
    assert_eq!(
        places(&format!("{shared}limits:\n  requests_per_second: 1001")),
        ["config.yaml:3:24: limits.requests_per_second"]
    );
    let apps =
        "apps:\n  a: { client_id: x }\n  b: { client_id: y, requests_per_second: 1001 }\n  c: { client_id: z }\n";
    assert_eq!(places(&format!("{shared}{apps}")), ["config.yaml:4:43: apps.b.requests_per_second"]);
    // That of the limits is said once, however many apps have none of their own.
    assert_eq!(
        places(&format!("{shared}{apps}limits: {{ requests_per_second: 2000 }}")),
        ["config.yaml:4:43: apps.b.requests_per_second", "config.yaml:6:32: limits.requests_per_second"]
    );
}

#[test]
fn a_share_that_cannot_work_is_refused() {
    let share = |share: &str| format!("shared: {{ redis: 'redis://x', fallback_share: {share} }}");
    let third = accepted(&share("0.3333")).shared.unwrap().fallback_share.unwrap();
    assert_eq!((third.of(10), third.parts()), (3, 3));
    let tenth = accepted(&share("0.1")).shared.unwrap().fallback_share.unwrap();
    assert_eq!((tenth.of(10), tenth.parts()), (1, 10));
    for bad in ["0", "-1", "1.01", ".nan"] {
        check_refused(&share(bad), "shared.fallback_share: expected a number above 0 and up to 1");
    }
    check_refused(&share("half"), "shared.fallback_share: expected a number such as 0.5");
    check_refused(&share("0.09"), "shared.fallback_share: leaves no whole request a second of 10 (the default)");
    let cut_off = |time: &str| format!("shared: {{ redis: 'redis://x', cut_off: {time} }}");
    assert_eq!(accepted(&cut_off("5m")).shared.unwrap().cut_off, Duration::from_secs(300));
    assert_eq!(accepted("shared: { redis: 'redis://x' }").shared.unwrap().cut_off, Duration::from_secs(3600));
    for bad in ["59s", "169h"] {
        check_refused(&cut_off(bad), "shared.cut_off: expected 1m to ");
    }
    let apps = "apps: { a: { client_id: a, delivery: email, requests_per_second: 2 } }\n";
    check_refused(
        &format!("{apps}{}", share("0.4")),
        "shared.fallback_share: leaves no whole request a second of 2 (a)",
    );
}
