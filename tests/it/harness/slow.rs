//! A way to a server that takes its time.
//!
//! In: the server's address. Out: an address that leads there; every answer arrives later by what is set now, and by up to
//! as much again as is set for the jitter. Nothing is lost, and nothing overtakes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// The way. Dropped, it leads nowhere.
pub struct Slow {
    pub address: SocketAddr,
    delay: Arc<Delay>,
    relay: JoinHandle<()>,
}

/// In milliseconds.
#[derive(Default)]
struct Delay {
    least: AtomicU64,
    jitter: AtomicU64,
    asked: AtomicU64,
}

impl Delay {
    fn now(&self) -> Duration {
        // Every number from 0 to the jitter, in an order that looks random and is the same in every run.
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        let jitter = self.jitter.load(Ordering::Relaxed);
        Duration::from_millis(self.least.load(Ordering::Relaxed) + asked.wrapping_mul(7919) % (jitter + 1))
    }
}

impl Slow {
    pub async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let delay = Arc::<Delay>::default();
        let relay = tokio::spawn({
            let delay = Arc::clone(&delay);
            async move {
                while let Ok((near, _)) = listener.accept().await {
                    let Ok(far) = TcpStream::connect(server).await else { continue };
                    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                    // Half of it each way: a report may be read too late, or its answer.
                    tokio::spawn(carry(near_in, far_out, Arc::clone(&delay)));
                    tokio::spawn(carry(far_in, near_out, Arc::clone(&delay)));
                }
            }
        });
        Self { address, delay, relay }
    }

    /// From now on an answer takes at least so many milliseconds, and up to so many more.
    pub fn takes(&self, least: u64, jitter: u64) {
        self.delay.least.store(least / 2, Ordering::Relaxed);
        self.delay.jitter.store(jitter / 2, Ordering::Relaxed);
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.relay.abort();
    }
}

async fn carry(mut from: tokio::net::tcp::OwnedReadHalf, mut to: tokio::net::tcp::OwnedWriteHalf, delay: Arc<Delay>) {
    let (sender, mut under_way) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    tokio::spawn(async move {
        while let Some((at, bytes)) = under_way.recv().await {
            sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    });
    let mut bytes = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut bytes).await {
        if sender.send((Instant::now() + delay.now(), bytes[..length].to_vec())).is_err() {
            return;
        }
    }
}
