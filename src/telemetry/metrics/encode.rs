//! One scrape: the sums of all workers at one moment, and their text.
//!
//! In: the counters of all workers. Out: Prometheus' text format 0.0.4, in which counters end in `_total` (the encoder
//! adds that) and every metric says its unit.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::histogram::Durations;
use super::onboarding::{Connect, Webhook};
use super::outcome::Counts;
use super::recorder::Leak;
use super::{Gauges, Shared, budget};
use crate::property::PropertyId;
use crate::telemetry::panic;

/// How every metric's name starts, with an underscore behind it.
pub const PREFIX: &str = "cloudbeds_auth_proxy";

/// The page's media type.
pub const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// The sums.
#[derive(Debug, Default)]
pub(super) struct Scrape {
    requests: BTreeMap<Option<PropertyId>, Counts>,
    duration: Durations,
    upstream_duration: Durations,
    bytes_up: u64,
    bytes_down: u64,
    cut: u64,
    client_gone: u64,
    connections_opened: u64,
    connections_closed: u64,
    upstream_opened: u64,
    upstream_reused: u64,
    leaks: [u64; Leak::ALL.len()],
    workers: usize,
    gauges: Gauges,
    /// Of the properties with a budget's series, those that have a key.
    known: HashSet<PropertyId>,
    reloads_ok: u64,
    reloads_refused: u64,
    key_file_good: bool,
    revocation_lists_due: u64,
    connects: [(&'static str, u64); Connect::ALL.len()],
    webhooks: [(&'static str, u64); Webhook::ALL.len()],
    connects_begun: u64,
    keys_waiting: u64,
    lines_lost: u64,
    panics: u64,
    started: f64,
}

impl Scrape {
    pub(super) fn take(shared: &Shared, gauges: &Gauges, known: &dyn Fn(PropertyId) -> bool) -> Self {
        let control = &shared.control;
        let mut scrape = Self {
            workers: shared.workers,
            gauges: gauges.clone(),
            known: {
                let rows = gauges.budgets.iter().flat_map(|budget| &budget.properties);
                rows.map(|(property, ..)| *property).filter(|property| known(*property)).collect()
            },
            reloads_ok: control.reloads_ok(),
            reloads_refused: control.reloads_refused(),
            key_file_good: control.key_file_good(),
            revocation_lists_due: control.revocation_lists_due(),
            connects: shared.onboarding.connects(),
            webhooks: shared.onboarding.webhooks(),
            connects_begun: shared.onboarding.begun_count(),
            keys_waiting: shared.onboarding.waiting(),
            lines_lost: control.lines_lost(),
            panics: panic::count(),
            started: control.started(),
            ..Self::default()
        };
        let mut registry = shared.registry();
        scrape.add_properties(&mut registry, known);
        for cells in &registry.cells {
            cells.without_property.add_to(scrape.requests.entry(None).or_default());
            scrape.duration.add(&cells.duration);
            scrape.upstream_duration.add(&cells.upstream_duration);
            scrape.bytes_up += cells.bytes_up.get();
            scrape.bytes_down += cells.bytes_down.get();
            scrape.cut += cells.cut.get();
            scrape.client_gone += cells.client_gone.get();
            // Closed ones first: one that opens and closes in between must not make the difference negative.
            scrape.connections_closed += cells.connections_closed.get();
            scrape.connections_opened += cells.connections_opened.get();
            scrape.upstream_opened += cells.upstream_opened.get();
            scrape.upstream_reused += cells.upstream_reused.get();
            for (sum, leak) in scrape.leaks.iter_mut().zip(&cells.leaks) {
                *sum += leak.get();
            }
        }
        scrape
    }

    /// Adds the properties' requests, handing those without a key over to the empty property. That way both series
    /// only ever grow: a property whose key comes back starts at zero, and nothing is counted twice.
    fn add_properties(&mut self, registry: &mut super::Registry, known: &dyn Fn(PropertyId) -> bool) {
        for counted in &mut registry.properties {
            let property = counted.outcomes.property;
            let mut counts = Counts::new();
            counted.outcomes.add_to(&mut counts);
            if !known(property) {
                for (outcome, count) in &counts {
                    let before = counted.retired.insert(*outcome, *count).unwrap_or(0);
                    *registry.retired.entry(*outcome).or_default() += count - before;
                }
                continue;
            }
            let sums = self.requests.entry(Some(property)).or_default();
            for (outcome, count) in counts {
                let since = count - counted.retired.get(&outcome).copied().unwrap_or(0);
                if since > 0 {
                    *sums.entry(outcome).or_default() += since;
                }
            }
        }
        self.requests.insert(None, registry.retired.clone());
    }

    pub(super) fn text(self) -> String {
        let mut text = String::with_capacity(8192);
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register_collector(Box::new(self));
        // Writing to a String cannot fail.
        let _ = prometheus_text::encode(&mut text, &registry);
        text
    }

    fn requests(&self, mut metric: MetricEncoder<'_>) -> fmt::Result {
        for (property, counts) in &self.requests {
            let property = property.map(|property| property.to_string()).unwrap_or_default();
            for (outcome, count) in counts {
                let labels = [("property", property.as_str()), ("class", outcome.class()), ("code", outcome.code())];
                counter(&mut metric.encode_family(&labels)?, *count)?;
            }
        }
        Ok(())
    }
}

impl Scrape {
    /// The keys' standing. Only those that need somebody have a series of their own: there may be 100,000 keys.
    fn verdicts(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let words = "Number of properties whose key has this verdict.";
        let mut metric = page.descriptor("key_verdicts", words, GAUGE)?;
        for (verdict, count) in &self.gauges.verdicts {
            metric.encode_family(&[("verdict", *verdict)])?.encode_gauge(&(*count as u64))?;
        }
        let words = "Seconds without use, in whole days, of keys that are neither active nor pending.";
        let mut metric = page.descriptor("key_idle_seconds", words, GAUGE)?;
        for (property, verdict, days) in &self.gauges.troubled {
            let labels = [("property", property.to_string()), ("verdict", (*verdict).to_owned())];
            metric.encode_family(&labels)?.encode_gauge(&(days * 24 * 60 * 60))?;
        }
        Ok(())
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let page = &mut Page(&mut encoder);
        self.requests(page.counters(
            "requests",
            "Requests answered, by property, class of the status and our error code. The property is empty when it \
             has no key, the code when the answer is the upstream's.",
        )?)?;
        let ended = "Requests whose answer did not arrive whole: cut by us or the upstream, or the client went away.";
        page.family("requests_unfinished", ended, "end", [("cut", self.cut), ("client_gone", self.client_gone)])?;
        let whole = "Seconds from a request's head to the end of its answer.";
        page.histogram("request_duration_seconds", whole, &self.duration)?;
        let upstream =
            "Seconds from the end of a request to the head of the upstream's answer, or to the failure instead.";
        page.histogram("upstream_duration_seconds", upstream, &self.upstream_duration)?;
        page.counter("request_bytes", "Bytes of request bodies, apps to upstream.", self.bytes_up)?;
        page.counter("response_bytes", "Bytes of answers' bodies, upstream to apps.", self.bytes_down)?;

        let open = self.connections_opened.saturating_sub(self.connections_closed);
        page.gauge("connections_open", "Connections of apps that are open now.", open)?;
        page.counter("connections_accepted", "Connections of apps accepted.", self.connections_opened)?;
        page.counter("upstream_connections_opened", "Connections to the upstream made.", self.upstream_opened)?;
        let reused = "Requests that went out on a connection to the upstream that was there already.";
        page.counter("upstream_connections_reused", reused, self.upstream_reused)?;

        let leaks = Leak::ALL.map(|place| (place.as_str(), self.leaks[place as usize]));
        page.family("leaks_stopped", "Answers that held a key, which was not passed on.", "where", leaks)?;
        let reloads = [("ok", self.reloads_ok), ("refused", self.reloads_refused)];
        page.family("key_reloads", "Attempts to serve changed keys.", "result", reloads)?;
        let good = "1 when the keys were good when last read, 0 when an older set is being served.";
        page.gauge("key_file_good", good, u64::from(self.key_file_good))?;
        page.gauge("keys_loaded", "Number of keys being served.", self.gauges.keys_loaded as u64)?;
        page.gauge(
            "properties_loaded",
            "Number of properties the keys being served are for.",
            self.gauges.properties_loaded as u64,
        )?;
        self.verdicts(page)?;
        budget::encode(&self.gauges, &|property| self.known.contains(&property), page)?;

        let begun = "Browsers sent to Cloudbeds to connect a hotel.";
        page.counter("connects_begun", begun, self.connects_begun)?;
        page.family("connects", "Attempts to connect a hotel, by how they ended.", "outcome", self.connects)?;
        page.family("webhooks", "Webhooks of Cloudbeds, by what became of them.", "result", self.webhooks)?;
        let waiting = "Keys that onboarding has on disk and could not put into the key file yet.";
        page.gauge("keys_waiting", waiting, self.keys_waiting)?;

        let due =
            "Revocation lists that are missing or out of date; nobody with a certificate of their issuers is let in.";
        page.gauge("revocation_lists_due", due, self.revocation_lists_due)?;
        let lost = "Log lines lost, access lines and others, because they could not be written fast enough or at all.";
        page.counter("access_lines_lost", lost, self.lines_lost)?;
        page.counter("panics", "Tasks ended by a panic. Each is a bug.", self.panics)?;
        page.gauge("workers", "Data plane threads, each with connections of its own.", self.workers as u64)?;
        let started = page.descriptor("start_time_seconds", "Start of the process in seconds since 1970.", GAUGE)?;
        { started }.encode_gauge(&self.started)?;
        let mut info = page.descriptor("build_info", "Always 1; the label says which version runs.", GAUGE)?;
        info.encode_family(&[("version", env!("CARGO_PKG_VERSION"))])?.encode_gauge(&1u64)
    }
}

pub(super) const GAUGE: MetricType = MetricType::Gauge;

/// The page being written, one metric after the other.
pub(super) struct Page<'a, 'b>(&'a mut DescriptorEncoder<'b>);

impl Page<'_, '_> {
    pub(super) fn descriptor(
        &mut self,
        name: &'static str,
        help: &str,
        kind: MetricType,
    ) -> Result<MetricEncoder<'_>, fmt::Error> {
        self.0.encode_descriptor(name, help, None, kind)
    }

    /// `name` is without `_total`: the encoder adds it.
    pub(super) fn counters(&mut self, name: &'static str, help: &str) -> Result<MetricEncoder<'_>, fmt::Error> {
        self.descriptor(name, help, MetricType::Counter)
    }

    fn counter(&mut self, name: &'static str, help: &str, value: u64) -> fmt::Result {
        counter(&mut self.counters(name, help)?, value)
    }

    fn family<const N: usize>(
        &mut self,
        name: &'static str,
        help: &str,
        label: &str,
        values: [(&str, u64); N],
    ) -> fmt::Result {
        let mut metric = self.counters(name, help)?;
        for (which, value) in values {
            counter(&mut metric.encode_family(&[(label, which)])?, value)?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &'static str, help: &str, value: u64) -> fmt::Result {
        self.descriptor(name, help, GAUGE)?.encode_gauge(&value)
    }

    fn histogram(&mut self, name: &'static str, help: &str, durations: &Durations) -> fmt::Result {
        let mut metric = self.descriptor(name, help, MetricType::Histogram)?;
        metric.encode_histogram::<NoLabelSet>(durations.sum(), durations.count(), &durations.buckets(), None)
    }
}

pub(super) fn counter(metric: &mut MetricEncoder<'_>, value: u64) -> fmt::Result {
    metric.encode_counter::<NoLabelSet, u64, u64>(&value, None)
}

pub(super) fn decimal(metric: &mut MetricEncoder<'_>, value: f64) -> fmt::Result {
    metric.encode_counter::<NoLabelSet, f64, u64>(&value, None)
}
