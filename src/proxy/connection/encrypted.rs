//! A caller's connection with TLS.
//!
//! In: an accepted stream. Out: the same service as on a plain one, behind a handshake that has a deadline; a caller that
//! does not speak TLS is told so in plain words, since it could read no others. Whoever comes without the certificate
//! that is asked for gets an alert and no byte of an answer.

use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant as Moment;

use tokio::time::{Instant, sleep, timeout_at};

use super::{Entry, LINGER, Open, finish, http2, served};
use crate::listen::Stream;
use crate::proxy::identify::Settings;
use crate::proxy::{Arrival, Proxy};
use crate::tls::{self, Acceptor, Encrypted, Shown};
use crate::wire::gate::Limits;
use crate::wire::problem::{Code, Problem};

/// The first byte of a TLS connection: a record of the type "handshake".
const HANDSHAKE: u8 = 22;

/// Serves a connection to its end. As with a plain one, it counts as open from this call on.
pub fn serve<P>(
    stream: Stream,
    acceptor: Acceptor,
    proxy: Rc<Proxy>,
    identify: Settings,
    limits: Limits,
    open: &Rc<Open>,
    place: P,
) -> impl Future<Output = ()> + use<P> {
    let entry = open.enter(&proxy.recorder);
    async move {
        let Some((stream, shown)) = Box::pin(handshake(stream, &acceptor, &proxy, limits, &entry)).await else {
            return;
        };
        let names = tls::names(stream.get_ref().1);
        let arrival = Arrival::encrypted(identify, stream.get_ref().0.get_ref(), (&names, shown), &proxy.policy);
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            Box::pin(http2::served(stream, proxy, arrival, limits, &entry)).await;
            drop(place);
        } else {
            served(stream, proxy, arrival, limits, (entry, place)).await;
        }
    }
}

/// The encrypted connection; nothing when there is none in `head_timeout`, or soon after the process began to close.
async fn handshake(
    stream: Stream,
    acceptor: &Acceptor,
    proxy: &Proxy,
    limits: Limits,
    entry: &Entry,
) -> Option<(Encrypted<Stream>, Option<Shown>)> {
    let mut shaken = pin!(timeout_at(Instant::now() + limits.head_timeout, async {
        match stream.first_byte().await? {
            HANDSHAKE => {}
            _ => {
                finish(stream, Some(not_tls()), proxy).await;
                return None;
            }
        }
        let peer = stream.peer();
        match acceptor.accept(stream).await {
            Ok(shaken) => Some(shaken),
            Err(error) => {
                if let Some(silent) = proxy.refused_handshakes.turn(Moment::now()) {
                    let peer = peer.map(tracing::field::display);
                    tracing::warn!(peer, not_told = silent, "a TLS handshake failed: {error}");
                }
                None
            }
        }
    }));
    let mut last = pin!(None);
    std::future::poll_fn(|cx| {
        entry.listen(cx.waker());
        if let Poll::Ready(shaken) = shaken.as_mut().poll(cx) {
            return Poll::Ready(shaken.ok().flatten());
        }
        if !entry.open.closing.get() {
            return Poll::Pending;
        }
        // Whoever has come so far gets the answer that the process is ending; but not for as long as it likes.
        if last.is_none() {
            last.set(Some(sleep(LINGER)));
        }
        match last.as_mut().as_pin_mut() {
            Some(last) => last.poll(cx).map(|()| None),
            None => Poll::Pending,
        }
    })
    .await
}

fn not_tls() -> Problem {
    let detail = "This listener speaks TLS; use https:// instead of http://.";
    Problem::new(Code::RequestInvalid, "http_request_error", detail).closing()
}
