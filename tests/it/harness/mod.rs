//! A scene: an upstream, a proxy before it, a client, and an eye on every byte that must not hold a key.

pub mod authority;
pub mod caller;
pub mod canary;
pub mod certificate;
pub mod certified;
pub mod chromium;
pub mod client;
pub mod command;
pub mod frames;
pub mod gate;
pub mod hotel;
pub mod hpack;
pub mod leak;
pub mod line;
pub mod memory;
pub mod origin;
pub mod proxy;
pub mod pulse;
pub mod redis;
pub mod run;
pub mod slow;
pub mod strace;
pub mod upstream;
pub mod wall_clock;
pub mod wire;

pub use authority::{Authority, Identity, Speaker, TLS};
pub use caller::{Caller, in_time, soon, together, until};
pub use canary::canary;
pub use certificate::{Alpn, Certificate};
pub use certified::Certified;
pub use client::Answer;
pub use command::{Desk, Ran};
pub use frames::{Frames, Outcome};
pub use gate::Gate;
pub use hotel::{Browser, Hotels, Scene};
pub use leak::{Watch, assert_clean};
pub use line::{End, Line};
pub use memory::Memory;
pub use origin::Origin;
pub use proxy::{Builder, Proxy, key, signal_children};
pub use pulse::Pulse;
pub use redis::Redis;
pub use run::Run;
pub use slow::Slow;
pub use upstream::{HTTP1, HTTP2, Manner, Peer, Upstream};
pub use wall_clock::WallClock;
pub use wire::Wire;

use cloudbeds_auth_proxy::sandbox::{self, Hotel, Protocols, Sandbox, Settings};

/// The longest any single step of a test may take.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

/// The HTTP versions an upstream may speak; what holds for one must hold for the other.
pub const EITHER: [Protocols; 2] = [Protocols::Http1, Protocols::Http2];

/// Says that something is left out for want of a program, a right or a limit; with `CI=true` that is a failure.
pub fn skipped(why: &str) {
    assert!(!std::env::var("CI").is_ok_and(|ci| ci == "true"), "{why}");
    eprintln!("SKIPPED: {why}");
}

/// A sandbox with the two demo hotels, 1001 and 1002, speaking the given HTTP versions.
pub async fn cloudbeds(protocols: Protocols) -> (Sandbox, Vec<Hotel>) {
    let settings = Settings { protocols, ..Settings::demo() };
    let hotels = settings.hotels.clone();
    (sandbox::start(settings).await.unwrap(), hotels)
}
