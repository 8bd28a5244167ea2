//! Flow control (RFC 9113 5.2 and 6.9).
//!
//! In: what has been taken of the content that came. Out: windows for the server, several in one write; and how much of a
//! request's content its own windows allow.

use super::STREAM_WINDOW;
use super::connection::Connection;
use super::streams::{Place, State};

impl<S> Connection<S> {
    /// So many bytes of the connection's window are free again.
    pub(super) fn release(&mut self, bytes: i64) {
        self.taken += bytes;
        // Half of what is left: what others hold and do not take must not keep it from those who do.
        if self.taken > 0 && self.taken >= self.window / 2 {
            let taken = std::mem::take(&mut self.taken);
            self.window += taken;
            self.output.window(0, taken);
            self.ask();
        }
    }

    /// So many bytes of a stream's body have been taken. Where the server must be told, it is told of all streams of which it
    /// would have to be soon, in one write.
    pub(super) fn took(&mut self, place: Place, bytes: usize) {
        self.release(bytes as i64);
        let state = self.streams.at(place);
        state.taken += bytes as i64;
        if state.owes_window(i64::from(STREAM_WINDOW / 2)) {
            let soon = |(_, state): &(u32, &mut State)| state.owes_window(i64::from(STREAM_WINDOW / 4));
            for (number, state) in self.streams.all().filter(soon) {
                let taken = std::mem::take(&mut state.taken);
                state.window += taken;
                self.output.window(number, taken);
            }
            self.ask();
        }
    }

    /// How much of a request's body may be sent now, in one frame.
    pub(super) fn may_send(&mut self, place: Place) -> usize {
        if self.output.is_full() {
            return 0;
        }
        let window = self.streams.at(place).send_window.min(self.send_window);
        usize::try_from(window).unwrap_or(0).min(self.allowed.frame)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;

    use super::*;

    const WINDOW: i64 = STREAM_WINDOW as i64;

    /// A connection with as many streams as there are numbers: so much has come on each, and so much is to come.
    fn after(came: &[(i64, Option<u64>)]) -> (Connection<DuplexStream>, Vec<Place>) {
        let mut connection = Connection::new(tokio::io::duplex(1).0);
        let places = came.iter().enumerate().map(|(at, (came, expected))| {
            let place = connection.streams.add(2 * u32::try_from(at).unwrap() + 1, 0);
            let state = connection.streams.at(place);
            (state.expected, state.window) = (*expected, WINDOW - came);
            place
        });
        let places = places.collect();
        (connection, places)
    }

    /// How many windows are queued when so much of one stream has been taken.
    fn told(connection: &mut Connection<DuplexStream>, place: Place, taken: i64) -> u64 {
        let before = connection.output.queued();
        connection.took(place, usize::try_from(taken).unwrap());
        // RFC 9113 6.9: nine bytes of head and four of window.
        (connection.output.queued() - before) / 13
    }

    #[test]
    fn streams_that_would_need_a_window_soon_get_it_with_one_that_needs_it_now() {
        let (mut connection, places) = after(&[(WINDOW / 2, None), (WINDOW / 4, None), (WINDOW / 4 - 1, None)]);
        assert_eq!(told(&mut connection, places[1], WINDOW / 4), 0);
        assert_eq!(told(&mut connection, places[2], WINDOW / 4 - 1), 0);
        assert_eq!(told(&mut connection, places[0], WINDOW / 2 - 1), 0);
        assert_eq!(told(&mut connection, places[0], 1), 2);
        let windows: Vec<i64> = places.iter().map(|place| connection.streams.at(*place).window).collect();
        assert_eq!(windows, [WINDOW, WINDOW, WINDOW - (WINDOW / 4 - 1)]);
    }

    #[test]
    fn no_window_is_given_that_does_for_the_rest_though_a_frame_of_it_be_padded() {
        let rest = u64::try_from(WINDOW / 2).unwrap() - 256;
        for (rest, windows) in [(rest, 0), (rest + 1, 1), (u64::MAX, 1)] {
            let (mut connection, places) = after(&[(WINDOW / 2, Some(rest))]);
            assert_eq!(told(&mut connection, places[0], WINDOW / 2), windows, "{rest}");
        }
    }
}
