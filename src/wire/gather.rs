//! Several small pieces, written by the cheaper system call.
//!
//! In: a vectored write. Out: the same bytes by a plain one, where they are few. On a socket that is send(2) instead
//! of writev(2), which takes the long way through the file layer: a microsecond for each answer, and copying a few
//! kilobytes costs a twentieth of that.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;

/// Up to so many bytes are worth copying.
const FEW: usize = 4 * 1024;

thread_local! {
    /// Where a core puts pieces together.
    static TOGETHER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// `poll_write_vectored`, or the cheaper `poll_write`.
pub(crate) fn poll_write_gathered<W: AsyncWrite>(
    writer: Pin<&mut W>,
    cx: &mut Context<'_>,
    bufs: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    let mut filled = bufs.iter().filter(|buf| !buf.is_empty());
    let (first, second) = (filled.next(), filled.next());
    match (first, second) {
        (None, _) => writer.poll_write(cx, &[]),
        (Some(only), None) => writer.poll_write(cx, only),
        _ if bufs.iter().map(|buf| buf.len()).sum::<usize>() > FEW => writer.poll_write_vectored(cx, bufs),
        _ => {
            // Taken, not borrowed: what is written to may gather too, under its encryption.
            let mut together = TOGETHER.take();
            together.clear();
            together.reserve(FEW);
            for buf in bufs {
                together.extend_from_slice(buf);
            }
            let polled = writer.poll_write(cx, &together);
            TOGETHER.set(together);
            polled
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes each write, and whether it was a vectored one.
    #[derive(Default)]
    struct Seen(Vec<(bool, Vec<u8>)>);

    impl AsyncWrite for Seen {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.0.push((false, buf.to_vec()));
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let bytes: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
            let count = bytes.len();
            self.0.push((true, bytes));
            Poll::Ready(Ok(count))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Gathers what is already being gathered.
    struct Within(Seen);

    impl AsyncWrite for Within {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            let halves = buf.split_at(buf.len() / 2);
            poll_write_gathered(Pin::new(&mut self.0), cx, &[IoSlice::new(halves.0), IoSlice::new(halves.1)])
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn a_writer_that_gathers_may_stand_on_one_that_does() {
        let mut within = Within(Seen::default());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let bufs = [IoSlice::new(b"head"), IoSlice::new(b"body")];
        let polled = poll_write_gathered(Pin::new(&mut within), &mut cx, &bufs);
        assert!(matches!(polled, Poll::Ready(Ok(8))));
        assert_eq!(within.0.0, [(false, b"headbody".to_vec())]);
    }

    fn written(pieces: &[&[u8]]) -> (bool, Vec<u8>) {
        let mut seen = Seen::default();
        let bufs: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let polled = poll_write_gathered(Pin::new(&mut seen), &mut cx, &bufs);
        let bytes = seen.0.pop().unwrap();
        assert!(matches!(polled, Poll::Ready(Ok(count)) if count == bytes.1.len()));
        bytes
    }

    #[test]
    fn few_bytes_leave_in_one_plain_write_and_many_are_not_copied() {
        assert_eq!(written(&[b"head", b"", b"body"]), (false, b"headbody".to_vec()));
        assert_eq!(written(&[b"", &[7; 100_000]]), (false, vec![7; 100_000]));
        assert_eq!(written(&[b"", b""]), (false, Vec::new()));
        let full = [&[1; FEW - 1][..], &[2]].concat();
        assert_eq!(written(&[&full[..FEW - 1], &full[FEW - 1..]]), (false, full));
        assert_eq!(written(&[&[1; FEW], &[2]]), (true, [&[1; FEW][..], &[2]].concat()));
    }
}
