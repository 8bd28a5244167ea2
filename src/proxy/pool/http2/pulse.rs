//! Whether the server of an HTTP/2 connection is still there.
//!
//! In: a connection on which something is waited for and nothing comes. Out: a ping (RFC 9113 6.7), and the end of the
//! connection when that is not answered. A connection of which nothing is wanted is left alone.

use std::cell::Cell;
use std::future::Future as _;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use super::connection::Connection;

/// How long nothing may have come, while something is waited for, before the server is asked; and how long it has then.
const QUIET: Duration = Duration::from_secs(15);
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether the server is still there.
pub(super) struct Pulse {
    asked: bool,
    /// Bytes received when it was last looked at.
    seen: u64,
    due: Pin<Box<Sleep>>,
    in_flight: Rc<Cell<usize>>,
}

impl Pulse {
    /// Looks after a connection, and counts what is waited for on it.
    pub(super) fn new(in_flight: &Rc<Cell<usize>>) -> Self {
        Self { asked: false, seen: 0, due: Box::pin(sleep(QUIET)), in_flight: Rc::clone(in_flight) }
    }

    /// Ready when the server is gone.
    pub(super) fn poll<S>(&mut self, connection: &mut Connection<S>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.asked && connection.pong {
                self.asked = false;
                self.due.as_mut().reset(Instant::now() + QUIET);
            }
            ready!(self.due.as_mut().poll(cx));
            // Nobody waits for a connection that has been given up to take its last words.
            if self.asked || connection.deserted && connection.streams.open() == 0 {
                return Poll::Ready(());
            }
            let quiet = std::mem::replace(&mut self.seen, connection.received) == connection.received;
            self.asked = quiet && self.in_flight.get() > 0;
            if self.asked {
                connection.ping();
            }
            self.due.as_mut().reset(Instant::now() + if self.asked { PATIENCE } else { QUIET });
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;
    use tokio::time::timeout;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    /// A connection on which so many requests wait, polled until its server is taken for dead.
    async fn until_given_up(stream: DuplexStream, waiting: usize) {
        let mut connection = Connection::new(stream);
        let mut pulse = Pulse::new(&Rc::new(Cell::new(waiting)));
        std::future::poll_fn(|cx| {
            let _ = connection.poll(cx);
            pulse.poll(&mut connection, cx)
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_answers_no_ping_while_something_is_waited_for_is_given_up() {
        let (near, _far) = tokio::io::duplex(1 << 16);
        let started = Instant::now();
        until_given_up(near, 1).await;
        assert_eq!(started.elapsed().as_secs(), (QUIET + PATIENCE).as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_of_which_nothing_is_wanted_is_left_alone() {
        let (near, _far) = tokio::io::duplex(1 << 16);
        assert!(timeout(LONG, until_given_up(near, 0)).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_answers_pings_may_take_its_time() {
        let (near, far) = tokio::io::duplex(1 << 16);
        let serving = async {
            let mut server = h2::server::handshake(far).await.unwrap();
            while server.accept().await.is_some() {}
        };
        tokio::select! {
            outcome = timeout(LONG, until_given_up(near, 1)) => assert!(outcome.is_err()),
            () = serving => panic!("the client has gone"),
        }
    }
}
