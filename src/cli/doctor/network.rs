//! `doctor` on the host and the way to Cloudbeds: ports, proxy variables, names, TLS, clocks.
//!
//! In: a configuration. Out: findings, and whether Cloudbeds can be reached at all. What is sent carries no key.

use std::time::{Duration, SystemTime};

use http::Request;
use http::header::HOST;

use super::{Finding, certificate, files};
use crate::address::Address;
use crate::app;
use crate::cli::keys::Desk;
use crate::cli::local::call;
use crate::cli::probe;
use crate::cloudbeds::Cloudbeds;
use crate::https::{self, DialError, Dialer, Roots};
use crate::listen;
use crate::origin::Origin;

const FAMILY: &str = "network";
const HOST_FAMILY: &str = "host";

/// A clock this wrong is worth a word; one further off makes certificates and codes look out of date.
const SKEW: Duration = Duration::from_secs(30);
const SKEW_BROKEN: Duration = Duration::from_secs(5 * 60);

/// What can be told without calling anybody.
pub(super) async fn host(desk: &Desk) -> Vec<Finding> {
    let mut findings = variables();
    findings.extend(ports(desk).await);
    findings
}

/// Variables that other programs heed and this one does not, and those it does.
fn variables() -> Vec<Finding> {
    let set = |name: &&&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let names = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy"];
    let found: Vec<_> = names.iter().filter(set).copied().collect();
    let mut findings = Vec::new();
    if !found.is_empty() {
        let advice = "requests go to Cloudbeds directly; where only a company proxy reaches it, ask for a direct way";
        findings.push(Finding::warning(HOST_FAMILY, found.join(", "), "set, and not used by this program", advice));
    }
    let found: Vec<_> = ["SSL_CERT_FILE", "SSL_CERT_DIR"].iter().filter(set).copied().collect();
    if !found.is_empty() {
        findings.push(Finding::ok(HOST_FAMILY, found.join(", "), "set; the trusted roots come from there"));
    }
    findings
}

/// Whether a proxy runs here, or could.
async fn ports(desk: &Desk) -> Vec<Finding> {
    let admin = probe::reachable(desk.config.admin.listen);
    if admin.port() != 0 {
        let request = Request::get("/readyz").header(HOST, admin.to_string()).body(());
        let answer = match request {
            Ok(request) => tokio::time::timeout(Duration::from_secs(1), call(admin, request)).await,
            Err(_) => return Vec::new(),
        };
        if let Ok(Ok(answer)) = answer {
            let about = format!("admin {admin}");
            return vec![match answer.status() {
                status if status.is_success() => Finding::ok(HOST_FAMILY, about, "a proxy runs here and is ready"),
                status => {
                    let advice = "read its log; if it is another program, choose another admin.listen";
                    Finding::warning(HOST_FAMILY, about, format!("whoever listens answers {status} to /readyz"), advice)
                }
            }];
        }
    }
    let mut findings = Vec::new();
    let listeners = desk.config.listen.iter().map(|listener| ("listen", listener.address.clone()));
    for (option, address) in listeners.chain([("admin", Address::Tcp(desk.config.admin.listen))]) {
        let about = format!("{option} {address}");
        match &address {
            Address::Tcp(address) if address.port() == 0 => {}
            Address::Tcp(address) => findings.push(match listen::tcp(*address, 1) {
                Ok(_) => Finding::ok(HOST_FAMILY, about, "free; no proxy runs here"),
                Err(error) => {
                    let advice = format!("find who listens (ss -ltnp), or choose another address for `{option}`");
                    Finding::broken(HOST_FAMILY, about, error.to_string(), advice)
                }
            }),
            Address::Unix(path) if files::is_socket(path) => {
                findings.push(Finding::ok(HOST_FAMILY, about, "a socket is there"));
            }
            Address::Unix(path) => {
                let there = path.parent().is_some_and(std::path::Path::is_dir);
                findings.push(if there {
                    Finding::ok(HOST_FAMILY, about, "free; no proxy runs here")
                } else {
                    Finding::broken(
                        HOST_FAMILY,
                        about,
                        "its directory is not there",
                        "make it, for the proxy's user alone",
                    )
                });
            }
        }
    }
    findings
}

/// The way to Cloudbeds, and whether it can be reached at `upstream.base_url`.
pub(super) async fn all(desk: &Desk) -> (Vec<Finding>, bool) {
    let (dialer, roots) = match app::dialer(&desk.config) {
        Ok(found) => found,
        Err(error) => {
            let advice = "correct upstream.ca_file, or install the system's certificates (ca-certificates)";
            return (vec![Finding::broken(FAMILY, "trusted roots", error.to_string(), advice)], false);
        }
    };
    let more = desk.config.upstream.ca_file.as_ref().map(|file| format!(", and those of {}", file.display()));
    let found = match roots {
        Roots::System(count) => format!("{count} from the system{}", more.unwrap_or_default()),
        Roots::Bundled(count) => format!("{count} compiled in, since the system has none{}", more.unwrap_or_default()),
    };
    let mut findings = vec![Finding::ok(FAMILY, "trusted roots", found)];
    let mut reachable = false;
    for (number, origin) in origins(desk).iter().enumerate() {
        let good = way(&dialer, origin, &mut findings).await;
        if good && number == 0 {
            reachable = true;
            findings.push(clock(&Cloudbeds::new(dialer.clone()), origin).await);
        }
    }
    (findings, reachable)
}

/// Every origin a request may go to, the usual one first.
fn origins(desk: &Desk) -> Vec<Origin> {
    let upstream = &desk.config.upstream;
    let mut found = vec![upstream.base_url.clone()];
    let set = desk.keys().ok();
    let own = set.iter().flat_map(|set| set.iter()).filter_map(|(_, key)| key.base_url.as_deref());
    let routes = upstream.routes.iter().map(|route| &route.base_url);
    let exchanges = desk.config.apps.iter().filter(|_| desk.config.onboarding.is_some());
    for origin in routes.chain(own).chain(exchanges.map(|app| app.exchange_url.origin())) {
        if !found.contains(origin) {
            found.push(origin.clone());
        }
    }
    found
}

/// Name, connection and certificate of one origin.
async fn way(dialer: &Dialer, origin: &Origin, findings: &mut Vec<Finding>) -> bool {
    match https::resolve(origin).await {
        Ok(addresses) => {
            let mut ips: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
            ips.dedup();
            findings.push(Finding::ok(FAMILY, origin.host(), format!("is {}", ips.join(", "))));
        }
        Err(error) => {
            let advice = "check the name servers (/etc/resolv.conf) and upstream.base_url";
            findings.push(Finding::broken(FAMILY, origin.host(), format!("cannot be resolved: {error}"), advice));
            return false;
        }
    }
    match dialer.dial_https(origin).await {
        Ok(stream) => {
            let tls = &stream.get_ref().1;
            let version = tls.protocol_version().and_then(|version| version.as_str()).unwrap_or("TLS");
            let protocol = if tls.alpn_protocol() == Some(b"h2") { "HTTP/2" } else { "HTTP/1.1" };
            let chain = tls.peer_certificates().unwrap_or_default();
            let told = chain.first().and_then(|first| certificate::told(first, SystemTime::now()));
            let words = told.as_ref().map_or("unreadable", |told| told.words.as_str());
            let found = format!("{version}, {protocol}; certificate trusted, chain of {}, {words}", chain.len());
            findings.push(match told {
                Some(told) if !told.ends_soon => Finding::ok(FAMILY, origin.to_string(), found),
                _ => {
                    let advice = "whoever runs this server must renew it; from its end on nothing gets through";
                    Finding::warning(FAMILY, origin.to_string(), found, advice)
                }
            });
            true
        }
        Err(error) => {
            let advice = match &error {
                error if error.is_certificate() => {
                    "check this host's clock; if a company proxy opens TLS, add its root with upstream.ca_file"
                }
                DialError::Tls { .. } | DialError::TlsTimeout { .. } => {
                    "something on the way breaks TLS: a firewall, a proxy, or another service on that port"
                }
                _ => "allow outgoing TCP to this host and port; a network policy or a firewall may stand between",
            };
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            findings.push(Finding::broken(FAMILY, origin.to_string(), format!("{error}{cause}"), advice));
            false
        }
    }
}

/// This host's clock against the `Date` of an answer.
async fn clock(calls: &Cloudbeds, origin: &Origin) -> Finding {
    let answer = match calls.knock(origin).await {
        Ok(answer) => answer,
        Err(error) => {
            let advice = "try again; see the status page of Cloudbeds (status.cloudbeds.com)";
            return Finding::broken(FAMILY, origin.to_string(), error.to_string(), advice);
        }
    };
    let Some(theirs) = answer.date else {
        return Finding::ok(HOST_FAMILY, "clock", "not compared: the answer has no Date");
    };
    skew(SystemTime::now(), theirs)
}

fn skew(ours: SystemTime, theirs: SystemTime) -> Finding {
    let (off, word) = match ours.duration_since(theirs) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    // A Date has whole seconds, and the answer took its time.
    let found = format!("{} s {word} Cloudbeds", off.as_secs());
    let advice = "set it by NTP (chrony, systemd-timesyncd): certificates and codes are judged by it";
    if off >= SKEW_BROKEN {
        Finding::broken(HOST_FAMILY, "clock", found, advice)
    } else if off >= SKEW {
        Finding::warning(HOST_FAMILY, "clock", found, advice)
    } else {
        Finding::ok(HOST_FAMILY, "clock", "agrees with Cloudbeds")
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn a_clock_that_is_off_is_told_by_how_much_and_which_way() {
        let theirs = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let seconds = Duration::from_secs;
        for (ours, level, words) in [
            (theirs + seconds(29), Level::Ok, "agrees with Cloudbeds"),
            (theirs - seconds(29), Level::Ok, "agrees with Cloudbeds"),
            (theirs + seconds(41), Level::Warning, "41 s ahead of Cloudbeds"),
            (theirs - seconds(41), Level::Warning, "41 s behind Cloudbeds"),
            (theirs - seconds(300), Level::Broken, "300 s behind Cloudbeds"),
        ] {
            let finding = skew(ours, theirs);
            assert_eq!((finding.level, finding.found.as_str()), (level, words));
            assert_eq!(finding.advice.is_empty(), level == Level::Ok);
        }
    }
}
