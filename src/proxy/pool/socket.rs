//! What an exchange needs of the stream below it, whatever version of HTTP it is in.

use std::io;
use std::os::fd::AsFd;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::https::Encrypted;

/// The stream.
pub(in crate::proxy) trait Socket: AsyncWrite + Unpin {
    /// Bytes that the system has taken for sending, since the beginning.
    fn taken(&self) -> u64;

    /// The next bytes received, at least one; `None` at the end. They are handed on as they are.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<BytesMut>>>;

    /// Asks the system to wake nobody for fewer bytes than these; 1 is for any. Only a wish.
    fn set_low_water(&self, _bytes: u32) {}
}

impl<S: AsyncRead + AsyncWrite + AsFd + Unpin> Socket for Encrypted<S> {
    fn taken(&self) -> u64 {
        self.taken()
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<BytesMut>>> {
        self.poll_piece(cx)
    }

    fn set_low_water(&self, bytes: u32) {
        self.set_low_water(bytes);
    }
}

/// A pipe, which is not encrypted.
#[cfg(test)]
impl Socket for tokio::io::DuplexStream {
    fn taken(&self) -> u64 {
        0
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<BytesMut>>> {
        let mut piece = BytesMut::with_capacity(1024);
        let polled = std::pin::pin!(tokio::io::AsyncReadExt::read_buf(self, &mut piece)).poll(cx);
        polled.map_ok(|count| (count > 0).then_some(piece))
    }
}
