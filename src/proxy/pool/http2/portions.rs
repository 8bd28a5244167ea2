//! Bodies in portions, and heads with the first of them.
//!
//! In: a connection on which heads and pieces of several bodies come by turns. Out: each answer's holder is woken once for several
//! pieces, for its head when there is something behind it, and after some [`TICK`]s for whatever there is. A body of unknown
//! length is not held back, nor is its head, since nobody knows whether its next piece is a moment or a minute away, and neither is
//! an answer that has the connection to itself. The head of a failure is not, nor one that comes before its request's end.

use std::task::Context;
use std::time::Duration;

use tokio::time::Instant;

use super::connection::Connection;
use crate::wire::deadline::Deadline;

/// How long less than a portion, or a head, waits for the rest of it: until the second tick that it sees. The runtime's timers
/// have milliseconds, so that is one to four of them, and more where the core has other things to do.
const TICK: Duration = Duration::from_millis(1);

/// When what is held back is looked at.
#[derive(Default)]
pub(super) struct Portions {
    since: Option<Instant>,
    timer: Deadline,
}

impl Portions {
    /// Looks after a connection whose turn is over.
    pub(super) fn poll<S>(&mut self, connection: &mut Connection<S>, cx: &mut Context<'_>) {
        while connection.held_back {
            let since = *self.since.get_or_insert_with(Instant::now);
            if !self.timer.passed(since + TICK, cx) {
                return;
            }
            self.since = None;
            connection.streams.all().for_each(|(_, state)| state.tick());
            connection.held_back = connection.streams.all().any(|(_, state)| state.is_held_back());
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};
    use tokio::io::{AsyncWriteExt as _, DuplexStream};
    use tokio::task::LocalSet;
    use tokio::time::sleep;

    use super::super::streams::PORTION;
    use super::super::{Http2, Stream};
    use super::*;
    use crate::origin::Origin;
    use crate::proxy::pool::Head;
    use crate::wire::body::Upload;

    /// A server's first frame.
    const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// A head, which may say how much follows.
    fn head(length: Option<usize>) -> Vec<u8> {
        let mut block = b"\x88".to_vec();
        if let Some(length) = length.map(|length| length.to_string()) {
            block.extend([0x0f, 0x0d, u8::try_from(length.len()).unwrap()]);
            block.extend(length.into_bytes());
        }
        frame(1, 4, &block)
    }

    /// When each piece of a body was shown, and how long it is, where it is one of two answers; 0 is that it broke off. The server
    /// says something at once, and something a second later.
    async fn shown(now: &[Vec<u8>], later: &[Vec<u8>]) -> Vec<(u128, usize)> {
        among(2, now, later).await.1
    }

    /// The same of one among so many, and when its head was.
    async fn among(answers: usize, now: &[Vec<u8>], later: &[Vec<u8>]) -> (u128, Vec<(u128, usize)>) {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let began = Instant::now();
        let serving = async move {
            far.write_all(SETTINGS).await.unwrap();
            // Once all are asked for.
            sleep(Duration::from_millis(100)).await;
            far.write_all(&now.concat()).await.unwrap();
            sleep(Duration::from_secs(1)).await;
            far.write_all(&later.concat()).await.unwrap();
        };
        let asking = async {
            let (connection, turns) = Http2::<DuplexStream>::new(near, began);
            tokio::task::spawn_local(turns);
            sleep(Duration::from_millis(50)).await;
            let origin: Origin = "https://base.example".parse().unwrap();
            let target = http::uri::PathAndQuery::from_static("/");
            let head = Head { method: Method::GET, target, headers: HeaderMap::new() };
            let start = || Stream::start(&connection, &head, Upload::absent(began), &origin);
            let mut streams: Vec<_> = (0..answers).map(|_| start()).collect();
            let stream = &mut streams[0];
            std::future::poll_fn(|cx| stream.poll_head(&connection, cx)).await.ok().unwrap();
            let head = began.elapsed().as_millis() - 100;
            let mut pieces: Vec<(u128, usize)> = Vec::new();
            while let Some(piece) = std::future::poll_fn(|cx| stream.poll_data(cx)).await {
                let at = began.elapsed().as_millis() - 100;
                let Ok(piece) = piece else {
                    pieces.push((at, 0));
                    break;
                };
                match pieces.last_mut() {
                    Some((last, length)) if *last == at => *length += piece.len(),
                    _ => pieces.push((at, piece.len())),
                }
            }
            (head, pieces)
        };
        LocalSet::new().run_until(async { tokio::join!(asking, serving).0 }).await
    }

    const FULL: usize = 16_384;

    #[tokio::test(start_paused = true)]
    async fn little_of_a_body_is_shown_within_four_milliseconds_however_long_the_rest_takes() {
        let (first, last) = (frame(0, 0, &[b'a'; 100]), frame(0, 1, &[b'b'; 50]));
        let pieces = shown(&[head(Some(150)), first], &[last]).await;
        let [(soon, 100), (1000, 50)] = pieces[..] else { panic!("{pieces:?}") };
        assert!((1..=4).contains(&soon), "{soon} ms");
    }

    #[tokio::test(start_paused = true)]
    async fn a_portion_is_shown_at_once_and_so_is_the_end_of_a_body() {
        let portion =
            [frame(0, 0, &[b'a'; FULL]).repeat(PORTION / FULL), frame(0, 0, &[b'a'; PORTION % FULL])].concat();
        assert_eq!(shown(&[head(Some(PORTION + 1)), portion], &[frame(0, 1, b"b")]).await, [(0, PORTION), (1000, 1)]);
        assert_eq!(shown(&[head(Some(5)), frame(0, 0, b"whole")], &[frame(0, 1, b"")]).await, [(0, 5)]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_beyond_a_portion_waits_for_the_rest_of_its_own() {
        let (more, last) = (frame(0, 0, &[b'a'; FULL]).repeat(9), frame(0, 1, b"b"));
        let pieces = shown(&[head(Some(9 * FULL + 1)), more], &[last]).await;
        let beyond = 9 * FULL % PORTION;
        let [(0, portions), (soon, rest), (1000, 1)] = pieces[..] else { panic!("{pieces:?}") };
        assert_eq!((portions, rest), (9 * FULL - beyond, beyond));
        assert!((1..=4).contains(&soon), "{soon} ms");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_held_is_shown_with_the_head_of_the_last_frame_though_nothing_of_its_content_has_come() {
        let (first, last) = (frame(0, 0, &[b'a'; 100]), frame(0, 1, &[b'b'; 50]));
        let (begun, rest) = last.split_at(9);
        let pieces = shown(&[head(Some(150)), first, begun.to_vec()], &[rest.to_vec()]).await;
        assert_eq!(pieces, [(0, 100), (1000, 50)]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_held_comes_before_the_break() {
        let (held, reset) = (frame(0, 0, &[b'a'; 100]), frame(3, 0, &[0, 0, 0, 8]));
        assert_eq!(shown(&[head(Some(150)), held, reset], &[]).await, [(0, 100), (0, 0)]);
        // And when the server closes the connection.
        let (first, second) = (frame(0, 0, &[b'a'; 100]), frame(0, 0, &[b'b'; 20]));
        let pieces = shown(&[head(Some(150)), first], &[second]).await;
        let [(soon, 100), (1000, 20), (1000, 0)] = pieces[..] else { panic!("{pieces:?}") };
        assert!((1..=4).contains(&soon), "{soon} ms");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_has_the_connection_to_itself_is_not_held_back() {
        let (first, last) = (frame(0, 0, &[b'a'; 100]), frame(0, 1, &[b'b'; 50]));
        assert_eq!(among(1, &[head(Some(150)), first], &[last]).await.1, [(0, 100), (1000, 50)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_is_shown_with_what_comes_behind_it_or_within_four_milliseconds() {
        let whole = frame(0, 1, b"whole");
        assert_eq!(among(2, &[head(Some(5)), whole.clone()], &[]).await, (0, vec![(0, 5)]));
        let (soon, pieces) = among(2, &[head(Some(5))], &[whole]).await;
        assert!((1..=4).contains(&soon), "{soon} ms");
        assert_eq!(pieces, [(1000, 5)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_announces_nothing_or_has_the_connection_to_itself_is_shown_at_once() {
        let (rest, end) = ([frame(0, 0, b"more"), frame(0, 1, b"")], [frame(0, 1, b"")]);
        assert_eq!(among(2, &[head(None)], &rest).await, (0, vec![(1000, 4)]));
        assert_eq!(among(2, &[head(Some(0))], &end).await, (0, vec![]));
        assert_eq!(among(1, &[head(Some(4))], &rest).await, (0, vec![(1000, 4)]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_s_head_is_shown_at_once() {
        // `:status: 404` is number 13 of HPACK's table.
        let mut failure = head(Some(5));
        failure[9] = 0x8d;
        assert_eq!(among(2, &[failure], &[frame(0, 1, b"whole")]).await, (0, vec![(1000, 5)]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_comes_before_the_break() {
        let (head, pieces) = among(2, &[head(Some(5)), frame(3, 0, &[0, 0, 0, 8])], &[]).await;
        assert_eq!((head, pieces), (0, vec![(0, 0)]));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_of_a_body_of_unknown_length_is_held_back() {
        assert_eq!(shown(&[head(None), frame(0, 0, b"some")], &[frame(0, 1, b"more")]).await, [(0, 4), (1000, 4)]);
    }
}
