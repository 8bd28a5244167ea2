//! How often what arrives wakes the connection.
//!
//! In: a connection whose turn is over. Out: for how many bytes the system wakes it the next time. Servers send one TLS record
//! after the other, and a proxy that is faster than they are would sleep and wake for each. While several bodies come, and 64 MB
//! of them are read a second or more, it sleeps until there is about as much as it reads at once. Nobody waits for the last of
//! the bodies, and for anything else one to four milliseconds. gRPC has the same as an experiment (`tcp_rcv_lowat`).

use std::task::Context;
use std::time::Duration;

use tokio::time::Instant;

use super::super::socket::Socket;
use super::connection::Connection;
use crate::wire::deadline::Deadline;

/// For so many bytes it is woken.
const LOW_WATER: u32 = 64 * 1024;

/// It begins only where the server may send more than this, in bytes, which one body alone may not; so that windows do not run
/// out while nobody reads. It ends where the server may not send more than that: a part of it may be here, as a record that
/// has begun.
const MUCH: u64 = 4 * LOW_WATER as u64;
const LITTLE: u64 = 2 * LOW_WATER as u64;

/// [`LOW_WATER`] comes within that time, or it is not waited for. The runtime's timers have milliseconds and end late, so a tick
/// is one or two of them, and more where the core has other things to do.
const TICK: Duration = Duration::from_millis(1);

/// What is known of the last arrivals.
#[derive(Default)]
pub(super) struct Arrivals {
    /// Whether the connection sleeps until there is much.
    gathers: bool,
    /// How much had been received when it was last looked at, and when that was.
    seen: u64,
    since: Option<Instant>,
    timer: Deadline,
}

impl Arrivals {
    /// Looks after a connection whose turn is over.
    pub(super) fn poll<S: Socket>(&mut self, connection: &mut Connection<S>, cx: &mut Context<'_>) {
        if !self.gathers && connection.received - self.seen >= u64::from(LOW_WATER) {
            let now = Instant::now();
            let fast = self.since.is_some_and(|since| now - since <= TICK);
            self.look(connection, now);
            if fast && may_come(connection) > MUCH {
                self.gathers = true;
                connection.set_low_water(LOW_WATER);
            }
        }
        // Also when it has just begun: this is what arms the timer.
        if self.gathers && (may_come(connection) <= LITTLE || self.has_slowed(connection, cx)) {
            (self.gathers, self.since) = (false, None);
            connection.set_low_water(1);
        }
    }

    fn look<S>(&mut self, connection: &Connection<S>, now: Instant) {
        (self.seen, self.since) = (connection.received, Some(now));
    }

    /// Whether a tick has passed in which less came than is waited for. If not, it is asked again after the next one.
    fn has_slowed<S>(&mut self, connection: &Connection<S>, cx: &mut Context<'_>) -> bool {
        while let Some(since) = self.since {
            if !self.timer.passed(since + TICK, cx) {
                return false;
            }
            if connection.received - self.seen < u64::from(LOW_WATER) {
                break;
            }
            self.look(connection, Instant::now());
        }
        true
    }
}

/// How much content the server is known to have, in bytes, that it may send before it is told of a window.
fn may_come<S>(connection: &mut Connection<S>) -> u64 {
    let open = |window: i64| u64::try_from(window).unwrap_or(0);
    let streams = connection.streams.all().filter(|(_, state)| state.goes_on());
    let each = streams.map(|(_, state)| state.expected.unwrap_or(0).min(open(state.window)));
    each.sum::<u64>().min(open(connection.window))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::io;
    use std::pin::Pin;
    use std::rc::Rc;
    use std::task::Poll;

    use bytes::BytesMut;
    use http::{HeaderMap, Method};
    use tokio::io::{AsyncWrite, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::task::{LocalSet, yield_now};
    use tokio::time::sleep;

    use super::super::{Http2, STREAM_WINDOW, Stream};
    use super::*;
    use crate::origin::Origin;
    use crate::proxy::pool::Head;
    use crate::wire::body::Upload;

    const ENOUGH: u64 = LOW_WATER as u64;
    const NEVER: [u32; 0] = [];

    /// What was asked of the system, one after the other.
    type Asked = Rc<RefCell<Vec<u32>>>;

    /// A pipe that notes what is asked.
    struct Noting(DuplexStream, Asked);

    impl Socket for Noting {
        fn taken(&self) -> u64 {
            0
        }

        fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<BytesMut>>> {
            self.0.poll_piece(cx)
        }

        fn set_low_water(&self, bytes: u32) {
            self.1.borrow_mut().push(bytes);
        }
    }

    impl AsyncWrite for Noting {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.0).poll_write(cx, buf)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }

    struct Line {
        connection: Connection<Noting>,
        arrivals: Arrivals,
        asked: Asked,
    }

    impl Line {
        /// A connection on which so much of so many bodies is still to come.
        fn with(bodies: &[Option<u64>]) -> Self {
            let asked = Asked::default();
            let mut connection = Connection::new(Noting(duplex(1).0, Rc::clone(&asked)));
            for (at, expected) in bodies.iter().enumerate() {
                let place = connection.streams.add(2 * u32::try_from(at).unwrap() + 1, 0);
                connection.streams.at(place).expected = *expected;
            }
            Self { connection, arrivals: Arrivals::default(), asked }
        }

        /// So much has come, of each body as much; it was taken, and windows are as before.
        fn came(&mut self, bytes: u64) {
            self.connection.received += bytes;
            let each = bytes / self.connection.streams.open() as u64;
            for (_, state) in self.connection.streams.all() {
                state.expected = state.expected.map(|left| left.saturating_sub(each));
            }
        }

        async fn receives(&mut self, bytes: u64) {
            self.came(bytes);
            std::future::poll_fn(|cx| {
                self.arrivals.poll(&mut self.connection, cx);
                Poll::Ready(())
            })
            .await;
        }

        /// The last that comes before it is asked for something else, and after how many milliseconds that is. Nothing but its
        /// own timer gives it a turn.
        async fn receives_last(&mut self, bytes: u64) -> u128 {
            let (began, before) = (Instant::now(), self.asked().len());
            self.came(bytes);
            std::future::poll_fn(|cx| {
                self.arrivals.poll(&mut self.connection, cx);
                if self.asked().len() > before { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            began.elapsed().as_millis()
        }

        fn asked(&self) -> Vec<u32> {
            self.asked.borrow().clone()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn while_much_comes_fast_it_is_woken_for_much_and_soon_after_it_stops_for_all() {
        let mut line = Line::with(&[Some(100 * MUCH); 4]);
        for again in 1..4 {
            line.receives(ENOUGH).await;
            assert_eq!(line.asked().len(), 2 * (again - 1));
            line.receives(ENOUGH).await;
            assert_eq!(line.asked().last(), Some(&LOW_WATER));
            for _ in 0..10 {
                sleep(TICK).await;
                line.receives(ENOUGH).await;
            }
            assert_eq!(line.asked().len(), 2 * again - 1);
            let soon = line.receives_last(ENOUGH - 1).await;
            assert_eq!(line.asked(), [LOW_WATER, 1].repeat(again));
            assert!((1..=4).contains(&soon), "{soon} ms");
            sleep(10 * TICK).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_slowly_wakes_it_always() {
        let mut line = Line::with(&[Some(10 * MUCH); 4]);
        for _ in 0..10 {
            sleep(2 * TICK).await;
            line.receives(ENOUGH).await;
        }
        for _ in 0..100 {
            line.receives(ENOUGH / 100).await;
            sleep(TICK).await;
        }
        assert_eq!(line.asked(), NEVER);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_the_last_of_the_bodies() {
        let mut line = Line::with(&[Some(MUCH); 4]);
        line.receives(ENOUGH).await;
        line.receives(ENOUGH).await;
        assert_eq!(line.asked(), [LOW_WATER]);
        line.receives(4 * MUCH - 2 * ENOUGH - LITTLE - 4).await;
        assert_eq!(line.asked(), [LOW_WATER]);
        line.receives(4).await;
        assert_eq!(line.asked(), [LOW_WATER, 1]);
        line.receives(ENOUGH).await;
        assert_eq!(line.asked(), [LOW_WATER, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_waited_for_that_is_not_announced_or_may_not_come() {
        let with_windows = |bodies: usize, each: u32, all: i64| {
            let mut line = Line::with(&vec![Some(10 * MUCH); bodies]);
            line.connection.streams.all().for_each(|(_, state)| state.window = i64::from(each));
            line.connection.window = all;
            line
        };
        let alone = with_windows(1, STREAM_WINDOW, i64::MAX);
        let unread = with_windows(100, 0, i64::MAX);
        let all_unread = with_windows(100, STREAM_WINDOW, 1000);
        for mut line in [alone, unread, all_unread, Line::with(&[None; 100]), Line::with(&[Some(100); 100])] {
            for _ in 0..10 {
                line.receives(ENOUGH).await;
            }
            assert_eq!(line.asked(), NEVER);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_s_own_task_looks_after_it() {
        let (asked, (near, mut far)) = (Asked::default(), duplex(1 << 20));
        let (connection, turns) = Http2::new(Noting(near, Rc::clone(&asked)), Instant::now());
        let origin: Origin = "https://base.example".parse().unwrap();
        let target = http::uri::PathAndQuery::from_static("/");
        let head = Head { method: Method::GET, target, headers: HeaderMap::new() };
        let serving = async {
            far.write_all(b"\0\0\0\x04\0\0\0\0\0").await.unwrap();
            sleep(TICK).await;
            let start = || Stream::start(&connection, &head, Upload::absent(Instant::now()), &origin);
            let _streams = [start(), start()];
            // Status 200 and a length of seven digits, then frames by turns.
            let heads =
                [1, 3].map(|stream| [b"\0\0\x0b\x01\x04\0\0\0", &[stream][..], b"\x88\x0f\x0d\x079999999"].concat());
            let data = [1, 3].map(|stream| [b"\0\x40\0\0\0\0\0\0", &[stream][..], &[b'a'; 1 << 14]].concat());
            sleep(TICK).await;
            far.write_all(&heads.concat()).await.unwrap();
            for _ in 0..2 {
                far.write_all(&data.concat().repeat(3)).await.unwrap();
                // The clock stands still meanwhile.
                for _ in 0..10 {
                    yield_now().await;
                }
            }
            assert_eq!(*asked.borrow(), [LOW_WATER]);
            sleep(4 * TICK).await;
            assert_eq!(*asked.borrow(), [LOW_WATER, 1]);
        };
        LocalSet::new()
            .run_until(async {
                tokio::task::spawn_local(turns);
                serving.await;
            })
            .await;
    }
}
