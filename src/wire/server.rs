//! The small HTTP/1 server under the routes that are not the request path: admin, onboarding.
//!
//! In: a listener somebody else has bound, a handler, and the signal to stop. Out: served connections, each bounded in
//! number and time, so that whoever reaches such a port cannot use up memory or the descriptors of the data plane. It
//! runs on the control plane's runtime and knows no route.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Who sent a request: an extension of it.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// A handler's answer. The body is whole: nothing served here is large.
pub type Answer = Response<Full<Bytes>>;

/// What differs between the listeners.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// What the log calls the listener.
    pub name: &'static str,
    /// Connections at once; further ones wait in the listen queue.
    pub connections: usize,
    /// For all answers in flight, once the listener is to end.
    pub last_answers: Duration,
}

/// For a request's head, and for an idle connection until its next one. Shorter than Prometheus' usual interval on
/// purpose: a connection made anew costs less than one kept for it.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Age at which a connection takes no further request.
const MAX_AGE: Duration = Duration::from_secs(300);

/// For the answer in flight, once a connection is to end for its age.
const LAST_ANSWER: Duration = Duration::from_secs(10);

/// The largest request head in bytes; hyper's buffer must be 8 KiB at least.
const HEAD_MAX: usize = 8 * 1024;

/// Serves `handler` until `shutdown` resolves, and then for as long as the answers in flight take, at most
/// [`Bounds::last_answers`].
pub async fn serve<H, F>(listener: TcpListener, bounds: Bounds, handler: H, shutdown: impl Future<Output = ()>)
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let mut shutdown = pin!(shutdown);
    let stop = watch::Sender::new(false);
    let room = Arc::new(Semaphore::new(bounds.connections));
    let mut connections = JoinSet::new();
    loop {
        let accepted = async {
            // Room first: a connection accepted without it would be neither served nor refused.
            let place = Arc::clone(&room).acquire_owned().await;
            (place, listener.accept().await)
        };
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            (place, accepted) = accepted => match accepted {
                Ok((socket, peer)) => {
                    let connection = connection((socket, Peer(peer)), handler.clone(), stop.subscribe());
                    connections.spawn(async move {
                        connection.await;
                        drop(place);
                    });
                }
                Err(error) => wait_after(bounds.name, &error).await,
            },
        }
    }
    drop(listener);
    stop.send_replace(true);
    let _ = timeout(bounds.last_answers, async { while connections.join_next().await.is_some() {} }).await;
}

/// Out of descriptors, say: trying again at once would turn the loop into a busy one.
async fn wait_after(name: &str, error: &io::Error) {
    tracing::warn!(%error, "the {name} listener could not accept a connection");
    sleep(Duration::from_millis(100)).await;
}

async fn connection<H, F>((socket, peer): (TcpStream, Peer), handler: H, mut stop: watch::Receiver<bool>)
where
    H: Fn(Request<Incoming>) -> F,
    F: Future<Output = Answer>,
{
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        let answer = handler(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_MAX);
    let mut served = pin!(http.serve_connection(TokioIo::new(socket), service));
    // What goes wrong on a connection is its client's to notice.
    let old = tokio::select! {
        _ = &mut served => return,
        () = sleep(MAX_AGE) => true,
        _ = stop.wait_for(|stop| *stop) => false,
    };
    served.as_mut().graceful_shutdown();
    // The listener's own end bounds the other case.
    let _ = timeout(if old { LAST_ANSWER } else { MAX_AGE }, served).await;
}
