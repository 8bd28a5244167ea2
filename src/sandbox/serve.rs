//! Accepting connections and handing their requests to the routes.
//!
//! In: a bound listener. Out: nothing; it ends when told to, and takes every connection with it. No client can end it:
//! a failed handshake, a reset or a shortage of file descriptors costs one connection at most.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::Protocols;
use super::routes::{self, Connection, State};
use super::socket::{Fuse, Socket};

/// A client that has connected but does not get on with its handshake is let go.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// After an error of `accept` itself, which is most often "too many open files": without a pause the loop would spin.
const PAUSE: Duration = Duration::from_millis(50);

/// HTTP/2's window of one stream: large enough that loopback is the limit, small enough that memory stays flat.
const STREAM_WINDOW: u32 = 1 << 20;

/// The same for all streams of a connection together.
const CONNECTION_WINDOW: u32 = 1 << 22;

pub(super) async fn accept(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    protocols: Protocols,
    state: Arc<State>,
    mut stopped: watch::Receiver<()>,
) {
    let tls = TlsAcceptor::from(tls);
    let mut open = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            // Nothing is ever sent: this returns when the Sandbox is stopped or dropped.
            _ = stopped.changed() => break,
            Some(_) = open.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((tcp, _)) => {
                let number = state.recorder.connected();
                open.spawn(connection(tcp, number, tls.clone(), protocols, Arc::clone(&state)));
            }
            Err(_) => sleep(PAUSE).await,
        }
    }
    open.shutdown().await;
}

async fn connection(tcp: TcpStream, number: u64, tls: TlsAcceptor, protocols: Protocols, state: Arc<State>) {
    let mut cut = state.cut.subscribe();
    let fuse = Arc::new(Fuse::default());
    // Small answers must not wait for the acknowledgement of earlier ones. Only speed is lost if it fails.
    let _ = tcp.set_nodelay(true);
    let served = async {
        let Ok(Ok(stream)) = timeout(HANDSHAKE, tls.accept(Socket::new(tcp, Arc::clone(&fuse)))).await else { return };
        let h2 = match stream.get_ref().1.alpn_protocol() {
            Some(protocol) => protocol == b"h2",
            None => protocols == Protocols::Http2,
        };
        let service = service_fn(|request| {
            let answer = routes::answer(Arc::clone(&state), Connection { number, fuse: Arc::clone(&fuse) }, request);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        // How a connection ended is for its client to judge.
        if h2 {
            let mut http = http2::Builder::new(TokioExecutor::new());
            http.initial_stream_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
        } else {
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        }
    };
    tokio::select! {
        () = served => {}
        () = fuse.blown() => {}
        () = async {
            let _ = cut.changed().await;
            // Before the socket is dropped, which is as soon as this branch is done.
            fuse.set(*cut.borrow());
        } => {}
    }
}
