//! The small HTTP/1 server under the admin routes.
//!
//! In: a listener somebody else has bound, and the signal to stop. Out: served connections, each bounded in number and
//! time, so that whoever reaches this port cannot use up memory or the descriptors of the data plane.

use std::convert::Infallible;
use std::io;
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

use super::AdminState;

/// Connections at once; further ones wait in the listen queue. A kubelet, a Prometheus and a person need a handful.
const CONNECTIONS: usize = 64;

/// For a request's head, and for an idle connection until its next one. Shorter than Prometheus' usual interval on
/// purpose: a connection made anew costs less than one kept for it.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Age at which a connection takes no further request.
const MAX_AGE: Duration = Duration::from_secs(300);

/// For the answer in flight, once a connection is to end.
const LAST_ANSWER: Duration = Duration::from_secs(10);

/// For all answers in flight, once the listener is to end.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// The largest request head in bytes; hyper's buffer must be 8 KiB at least.
const HEAD_MAX: usize = 8 * 1024;

/// Serves the admin routes until `shutdown` resolves, and then for as long as the answers in flight take, one second
/// at most.
pub async fn serve(listener: TcpListener, state: Arc<AdminState>, shutdown: impl Future<Output = ()>) {
    let mut shutdown = pin!(shutdown);
    let stop = watch::Sender::new(false);
    let room = Arc::new(Semaphore::new(CONNECTIONS));
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
                Ok((socket, _)) => {
                    let connection = connection(socket, Arc::clone(&state), stop.subscribe());
                    connections.spawn(async move {
                        connection.await;
                        drop(place);
                    });
                }
                Err(error) => wait_after(&error).await,
            },
        }
    }
    drop(listener);
    stop.send_replace(true);
    let _ = timeout(LAST_ANSWERS, async { while connections.join_next().await.is_some() {} }).await;
}

/// Out of descriptors, say: trying again at once would turn the loop into a busy one.
async fn wait_after(error: &io::Error) {
    tracing::warn!(%error, "the admin listener could not accept a connection");
    sleep(Duration::from_millis(100)).await;
}

async fn connection(socket: TcpStream, state: Arc<AdminState>, mut stop: watch::Receiver<bool>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = state.answer(request.method(), request.uri().path());
        std::future::ready(Ok::<Response<Full<Bytes>>, Infallible>(answer.map(|text| Full::new(Bytes::from(text)))))
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_MAX);
    let mut served = pin!(http.serve_connection(TokioIo::new(socket), service));
    // What goes wrong on a connection is its client's to notice.
    tokio::select! {
        _ = &mut served => return,
        () = sleep(MAX_AGE) => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
    served.as_mut().graceful_shutdown();
    let _ = timeout(LAST_ANSWER, served).await;
}
