//! A sandbox, and one who signs the certificates of a proxy's listener and of its callers.

use cloudbeds_auth_proxy::sandbox::{Hotel, Protocols, Sandbox};

use super::{Authority, Builder, Proxy, cloudbeds};

pub struct Certified {
    pub cloudbeds: Sandbox,
    pub hotels: Vec<Hotel>,
    pub authority: Authority,
    /// The authority's own certificate, as PEM.
    pub root: String,
}

impl Certified {
    pub async fn new() -> Self {
        let (cloudbeds, hotels) = cloudbeds(Protocols::Both).await;
        let authority = Authority::new();
        let root = authority.pem();
        Self { cloudbeds, hotels, authority, root }
    }

    /// A proxy whose listener has a certificate; `config` has the section that says so.
    pub fn proxy(&self, config: &str) -> Builder {
        Proxy::to(&self.cloudbeds, &self.hotels).config(config).listener(&self.authority)
    }
}
