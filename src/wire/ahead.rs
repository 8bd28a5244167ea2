//! A socket that reads ahead when more is coming than was asked for.
//!
//! In: a stream whose reader asks for little at a time, as rustls does: 4 KiB, which takes five system calls for one
//! full record. Out: the same bytes. A read that fills all the room it was given suggests that more is there; only then
//! is a large piece taken, into a buffer that is one core's and that a connection holds only while bytes are left in it.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::gather::poll_write_gathered;

/// How much is read ahead, in bytes: four full TLS records.
const AHEAD: usize = 64 * 1024;

thread_local! {
    /// The buffer nobody holds at the moment.
    static SPARE: RefCell<Option<Box<[u8]>>> = const { RefCell::new(None) };
}

/// The stream.
#[derive(Debug)]
pub struct ReadAhead<S> {
    inner: S,
    /// The last read filled its room.
    more: bool,
    left: Option<Left>,
}

/// Bytes that have been read and not yet asked for.
#[derive(Debug)]
struct Left {
    buffer: Box<[u8]>,
    from: usize,
    to: usize,
}

impl<S> ReadAhead<S> {
    /// Reads ahead on this stream from now on.
    pub fn new(inner: S) -> Self {
        Self { inner, more: false, left: None }
    }

    /// The stream under it; what was read ahead is not in it any more.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl Left {
    /// Hands out what fits; what is left then.
    fn hand_out(mut self, buf: &mut ReadBuf<'_>) -> Option<Self> {
        let count = buf.remaining().min(self.to - self.from);
        buf.put_slice(&self.buffer[self.from..self.from + count]);
        self.from += count;
        if self.from < self.to {
            return Some(self);
        }
        put_back(self.buffer);
        None
    }
}

fn put_back(buffer: Box<[u8]>) {
    SPARE.with_borrow_mut(|spare| *spare = Some(buffer));
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(left) = this.left.take() {
            this.left = left.hand_out(buf);
            return Poll::Ready(Ok(()));
        }
        if !this.more || buf.remaining() >= AHEAD {
            let (before, room) = (buf.filled().len(), buf.remaining());
            let polled = Pin::new(&mut this.inner).poll_read(cx, buf);
            this.more = room > 0 && buf.filled().len() - before == room;
            return polled;
        }
        let mut buffer = SPARE.with_borrow_mut(Option::take).unwrap_or_else(|| vec![0; AHEAD].into_boxed_slice());
        let mut into = ReadBuf::new(&mut buffer);
        let polled = Pin::new(&mut this.inner).poll_read(cx, &mut into);
        let to = into.filled().len();
        this.more = to == AHEAD;
        this.left = Left { buffer, from: 0, to }.hand_out(buf);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadAhead<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        poll_write_gathered(Pin::new(&mut self.inner), cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    proptest! {
        #[test]
        fn whatever_is_asked_for_the_bytes_and_the_end_are_the_same(
            sizes in prop::collection::vec(1..200_000_usize, 1..6), room in 1..70_000_usize, pipe in 1..100_000_usize,
        ) {
            let sent: Vec<u8> = (0..sizes.iter().sum()).map(|index: usize| (index % 251) as u8).collect();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let received = runtime.block_on(async {
                let (mut far, near) = tokio::io::duplex(pipe);
                let mut near = ReadAhead::new(near);
                let writing = async {
                    let mut rest = &sent[..];
                    for size in &sizes {
                        far.write_all(&rest[..*size]).await.unwrap();
                        rest = &rest[*size..];
                        tokio::task::yield_now().await;
                    }
                    drop(far);
                };
                let reading = async {
                    let (mut received, mut piece) = (Vec::new(), vec![0; room]);
                    loop {
                        match near.read(&mut piece).await.unwrap() {
                            0 => break received,
                            count => received.extend_from_slice(&piece[..count]),
                        }
                    }
                };
                tokio::join!(writing, reading).1
            });
            prop_assert_eq!(received, sent);
        }
    }
}
