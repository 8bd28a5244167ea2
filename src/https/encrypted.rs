//! A stream to a server, encrypted in the version that it chose.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};

use super::low_water;
use super::older::Older;
use super::records::Records;

/// The stream.
#[expect(clippy::large_enum_variant, reason = "nearly all are of the large kind, and are kept in a box themselves")]
pub enum Encrypted<S> {
    /// TLS 1.3.
    Records(Records<S>),
    /// TLS 1.2, which Cloudbeds does not choose: without a thought for speed.
    Older(Box<Older<S>>),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Encrypted<S> {
    /// The next bytes, at least one, in a buffer of their own or a part of one; `None` at the end.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<BytesMut>>> {
        match self {
            Self::Records(stream) => stream.poll_piece(cx),
            Self::Older(stream) => stream.poll_piece(cx),
        }
    }

    /// How many bytes the stream below has taken for sending.
    pub fn taken(&self) -> u64 {
        match self {
            Self::Records(stream) => stream.taken(),
            Self::Older(stream) => stream.taken(),
        }
    }
}

impl<S: AsFd> Encrypted<S> {
    /// Whoever waits for more is woken for so many bytes, encrypted ones, or at the end; 1 is what there is at the beginning.
    pub fn set_low_water(&self, bytes: u32) {
        let below = match self {
            Self::Records(stream) => stream.below(),
            Self::Older(stream) => stream.below(),
        };
        low_water::set(below, bytes);
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Encrypted<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Records(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Older(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Records(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Older(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Records(stream) => stream.is_write_vectored(),
            Self::Older(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Records(stream) => Pin::new(stream).poll_flush(cx),
            Self::Older(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Records(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Older(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
