//! What an application saves that opens a connection for every call, as PHP does.
//!
//! In: the stand-in behind a line on which every flight takes 100 ms there and back. Out: how long such a call takes
//! straight to it and through the proxy, which keeps its connection. The line is a relay on loopback that holds every
//! byte back for 50 ms each way; since loopback opens TCP at once, the first bytes are held for one more flight.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant as Moment, sleep_until};

use crate::direct::Direct;
use crate::kit::client::Caller;
use crate::kit::section::Section;
use crate::kit::{Sentence, median, pace};
use crate::latency::get;
use crate::options::Peer;
use crate::peers::{How, Place};

/// There and back.
const FLIGHT: Duration = Duration::from_millis(100);

const LIMIT: Duration = Duration::from_secs(10);

pub(crate) fn measure(place: &Place<'_>) -> Result<Section, Sentence> {
    let calls = if place.options.quick { 3 } else { 20 };
    let far = relay(place.stand_in.http1)?;
    let proxy = place.start(Peer::OursH1, How { upstream: Some(far), ..How::default() })?;
    let failed = |error: std::io::Error| format!("a call over the slow line failed: {error}");
    let straight = times(calls, || {
        // TCP, TLS 1.3, one request; nothing is known of a session before.
        Direct::new(far, place.stand_in, false, LIMIT)?.connect()
    });
    let straight = straight.map_err(failed)?;
    let through = times(calls, || pace::plain(proxy.address, LIMIT)).map_err(failed)?;
    let mut section = Section::new(
        "A connection for every call, 100 ms a flight",
        &["straight ms", "through the proxy ms", "saved ms", "saved round trips"],
    );
    let saved = straight - through;
    section.row([
        format!("{straight:.0}"),
        format!("{through:.0}"),
        format!("{saved:.0}"),
        format!("{:.2}", saved / (FLIGHT.as_secs_f64() * 1000.0)),
    ]);
    Ok(section)
}

/// The median of so many calls in milliseconds, each on a connection of its own, after one that does not count.
fn times(calls: usize, connect: impl Fn() -> std::io::Result<Box<dyn Caller>>) -> std::io::Result<f64> {
    let call = || {
        let answer = connect()?.call(&get(0))?;
        if answer.status == 200 { Ok(()) } else { Err(std::io::Error::other(format!("status {}", answer.status))) }
    };
    call()?;
    let mut times = Vec::with_capacity(calls);
    for _ in 0..calls {
        let start = Instant::now();
        call()?;
        times.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(median(&times).unwrap_or(f64::NAN))
}

/// The slow line to `target`; it lasts as long as the bench.
fn relay(target: SocketAddr) -> Result<SocketAddr, Sentence> {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(async {
            let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await else { return };
            let _ = tell.send(listener.local_addr());
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let Ok(far) = TcpStream::connect(target).await else { return };
                    let _ = (near.set_nodelay(true), far.set_nodelay(true));
                    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                    tokio::join!(held(near_in, far_out, FLIGHT), held(far_in, near_out, Duration::ZERO));
                });
            }
        });
    });
    let address = told.recv_timeout(LIMIT).map_err(|_| "the slow line does not start".to_owned())?;
    address.map_err(|error| format!("the slow line does not start: {error}"))
}

/// One way: every byte arrives half a flight after it was sent, the first ones `more` later. In flight there is no
/// limit, as on a real line.
async fn held(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, mut more: Duration) {
    let (send, mut receive) = tokio::sync::mpsc::unbounded_channel::<(Moment, Vec<u8>)>();
    let reading = async move {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            let due = Moment::now() + FLIGHT / 2 + std::mem::take(&mut more);
            if send.send((due, buffer[..read].to_vec())).is_err() {
                return;
            }
        }
    };
    let writing = async move {
        while let Some((due, bytes)) = receive.recv().await {
            sleep_until(due).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(reading, writing);
}
