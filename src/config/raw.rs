//! The configuration file as it is typed: every option, with its default, and nothing else.
//!
//! In: YAML. Out: [`Raw`], whose names and shapes are right. What the values mean, and whether they go together, is
//! `check`'s question. An unknown option is refused here, so a misspelt one is never silently ignored.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Error, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::units::{Size, Time};
use crate::yaml;

/// A section of the file: its options, their types and their defaults, in the order of `config.example.yaml`.
macro_rules! section {
    ($(#[$meta:meta])* $name:ident { $($field:ident: $type:ty = $default:expr,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Deserialize, Serialize)]
        #[serde(default, deny_unknown_fields, expecting = "options, one per line — indent them below the section's name")]
        pub(super) struct $name {
            $(pub(super) $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }
    };
}

const fn seconds(seconds: u64) -> Time {
    Time(Duration::from_secs(seconds))
}

section! { Raw {
    listen: Listen = Listen::One("127.0.0.1:8080".to_owned()),
    tls: Tls = Tls::default(),
    unauthenticated_network: Option<String> = None,
    callers: Callers = Callers::default(),
    admin: Admin = Admin::default(),
    keys: Keys = Keys::default(),
    apps: Apps = Apps::default(),
    onboarding: Onboarding = Onboarding::default(),
    upstream: Upstream = Upstream::default(),
    limits: Option<Limits> = Some(Limits::default()),
    shared: Shared = Shared::default(),
    identify: Identify = Identify::default(),
    policy: Policy = Policy::default(),
    client: Client = Client::default(),
    drain: Drain = Drain::default(),
    log: Log = Log::default(),
    workers: Workers = Workers::Auto,
} }
section! { Tls {
    certificate_file: Option<String> = None,
    key_file: Option<String> = None,
    client_ca_file: Option<String> = None,
    client_crl_file: Option<String> = None,
    http2: bool = true,
} }
section! { Caller {
    token_sha256: Vec<String> = Vec::new(),
    tokens_file: Option<String> = None,
    certificates: Vec<String> = Vec::new(),
    uids: Vec<u32> = Vec::new(),
    properties: Option<Vec<Id>> = None,
    methods: Option<Vec<String>> = None,
    paths: Option<Vec<String>> = None,
} }
section! { Admin {
    listen: String = "127.0.0.1:9090".to_owned(),
    token_file: Option<String> = None,
} }
section! { Keys {
    file: String = "keys.yaml".to_owned(),
    poll: Time = seconds(5),
    state_file: String = "auto".to_owned(),
    keep_alive: bool = false,
    idle_days: u64 = 20,
    expiring_days: u64 = 25,
    cool_down: CoolDown = CoolDown::default(),
} }
section! { CoolDown {
    min: Time = seconds(60),
    max: Time = seconds(60 * 60),
} }
section! { App {
    client_id: String = String::new(),
    client_secret_file: Option<String> = None,
    requests_per_second: Option<u64> = None,
    redirect_uri: Option<String> = None,
    delivery: String = "automatic".to_owned(),
    exchange_url: String = "https://hotels.cloudbeds.com/api/v1.1/access_token".to_owned(),
    connect_url: String = "https://hotels.cloudbeds.com/connect".to_owned(),
    marketplace: bool = false,
    scopes: Vec<String> = Vec::new(),
} }
section! { Onboarding {
    listen: Option<String> = None,
    public_url: Option<String> = None,
    webhook_path_secret_file: Option<String> = None,
} }
section! { Upstream {
    base_url: String = "https://api.cloudbeds.com".to_owned(),
    routes: BTreeMap<String, String> = BTreeMap::new(),
    ca_file: Option<String> = None,
    timeouts: Timeouts = Timeouts::default(),
    http2: bool = true,
    pool: Pool = Pool::default(),
} }
section! { Timeouts {
    connect: Time = seconds(5),
    tls: Time = seconds(5),
    first_byte: Time = seconds(120),
    idle: Time = seconds(60),
} }
section! { Pool {
    idle: Time = seconds(30),
    max_age: Time = seconds(600),
    unsafe_reuse: Time = seconds(1),
} }
section! { Limits {
    requests_per_second: u64 = 10,
    max_wait: Time = seconds(5),
    max_waiting: usize = 1000,
    max_waiting_per_property: usize = 200,
    weights: BTreeMap<String, u64> = BTreeMap::new(),
    announce: bool = false,
} }
section! { Shared {
    redis: Option<String> = None,
    user: Option<String> = None,
    password_file: Option<String> = None,
    ca_file: Option<String> = None,
    prefix: String = "cbap".to_owned(),
    fallback_share: Option<f64> = None,
    cut_off: Time = seconds(60 * 60),
} }
section! { Identify {
    query: bool = false,
    path_prefix: bool = false,
} }
section! { Policy {
    credential_paths: String = "refuse".to_owned(),
    unreadable_codings: Option<String> = None,
    hosts: Vec<String> = Vec::new(),
    origins: Vec<String> = Vec::new(),
} }
section! { Client {
    head_timeout: Time = seconds(10),
    idle: Time = seconds(75),
    max_head_size: Size = Size(64 * 1024),
    max_headers: usize = 100,
    max_connections: usize = 10_000,
} }
section! { Drain {
    min: Time = seconds(5),
    max: Time = seconds(30),
} }
section! { Log {
    format: String = "text".to_owned(),
    level: String = "info".to_owned(),
    output: String = "stderr".to_owned(),
    access: bool = true,
} }

/// A section whose entries have names of their own, in the order they are written: the first app is the default.
#[derive(Clone, Debug)]
pub(super) struct Named<T>(pub(super) Vec<(String, T)>);

pub(super) type Apps = Named<App>;
pub(super) type Callers = Named<Caller>;

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// The options of an entry of a [`Named`] section, for hints about a misspelt one.
pub(super) fn options_of<T: Default + Serialize>() -> Vec<String> {
    let names = |value: yaml::Value| match value {
        yaml::Value::Mapping(entries) => {
            entries.into_iter().filter_map(|(name, _)| name.as_str().map(str::to_owned)).collect()
        }
        _ => Vec::new(),
    };
    names(yaml::value_of(&T::default()))
}

/// `workers: auto`, or a number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Workers {
    Auto,
    Exactly(u64),
}

/// `listen:` as one address, or a list of addresses and of listeners.
#[derive(Clone, Debug)]
pub(super) enum Listen {
    One(String),
    Many(Vec<Listener>),
}

/// One item of a `listen:` list.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Listener {
    pub(super) address: String,
    pub(super) default_property: Option<String>,
}

/// Every option that can be given by one scalar, as a dotted path, in alphabetical order.
pub(super) fn options() -> Vec<String> {
    fn leaves(value: &yaml::Value, path: &str, found: &mut Vec<String>) {
        match value {
            yaml::Value::Mapping(entries) => {
                for (name, value) in entries {
                    let name = name.as_str().unwrap_or_default();
                    leaves(value, &if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }, found);
                }
            }
            _ => found.push(path.to_owned()),
        }
    }
    let mut found = Vec::new();
    leaves(&yaml::value_of(&Raw::default()), "", &mut found);
    found.sort();
    found
}

impl Serialize for Workers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Exactly(number) => serializer.serialize_u64(*number),
        }
    }
}

impl Serialize for Listen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::One(address) => serializer.serialize_str(address),
            Self::Many(listeners) => listeners.serialize(serializer),
        }
    }
}

impl<T: Serialize> Serialize for Named<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, entry)| (name, entry)))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Visit<T> {
            type Value = Named<T>;
            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a mapping — write a name for each entry, and its options below it")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Named<T>, A::Error> {
                let mut named = Vec::new();
                while let Some(entry) = entries.next_entry()? {
                    named.push(entry);
                }
                Ok(Named(named))
            }
        }
        deserializer.deserialize_map(Visit(PhantomData))
    }
}

/// Deserialises by a visitor, since serde's untagged enums lose both the place and the reason of a fault.
macro_rules! visited {
    ($type:ident, $expecting:literal, $($methods:tt)*) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visit;
                impl<'de> Visitor<'de> for Visit {
                    type Value = $type;
                    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                        out.write_str($expecting)
                    }
                    $($methods)*
                }
                deserializer.deserialize_any(Visit)
            }
        }
    };
}

visited! { Workers, "`auto` or a number of threads",
    fn visit_u64<E: Error>(self, number: u64) -> Result<Workers, E> {
        Ok(Workers::Exactly(number))
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Workers, E> {
        if text == "auto" { Ok(Workers::Auto) } else { Err(E::invalid_value(Unexpected::Other("text"), &self)) }
    }
}

visited! { Listen, "an address such as 127.0.0.1:8080 or unix:/run/proxy.sock, or a list of them",
    fn visit_str<E: Error>(self, address: &str) -> Result<Listen, E> {
        Ok(Listen::One(address.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Listen, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(items)).map(Listen::Many)
    }
}

visited! { Listener, "an address, or `address:` and `default_property:`",
    fn visit_str<E: Error>(self, address: &str) -> Result<Listener, E> {
        Ok(Listener { address: address.to_owned(), default_property: None })
    }
    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<Listener, A::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Long {
            address: String,
            default_property: Option<Id>,
        }
        let long = Long::deserialize(MapAccessDeserializer::new(entries))?;
        Ok(Listener { address: long.address, default_property: long.default_property.map(|id| id.0) })
    }
}

/// A property id as text; quotes around it are optional.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub(super) struct Id(pub(super) String);

visited! { Id, "a property id",
    fn visit_u64<E: Error>(self, id: u64) -> Result<Id, E> {
        Ok(Id(id.to_string()))
    }
    fn visit_str<E: Error>(self, id: &str) -> Result<Id, E> {
        Ok(Id(id.to_owned()))
    }
}
