//! The TCP connection under the TLS, with a fuse.
//!
//! In: an accepted connection. Out: the same bytes, and a [`Fuse`] by which a handler can end the connection in a chosen
//! way from inside hyper, which has no such door: politely, or with a TCP reset.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// How a connection is cut. Neither way sends TLS's `close_notify` or HTTP/2's `GOAWAY`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cut {
    /// TCP FIN: the peer reads an end of file.
    Fin,
    /// TCP RST: the peer reads "connection reset".
    Reset,
}

/// Blown once, it ends its connection.
#[derive(Default)]
pub(super) struct Fuse {
    reset: AtomicBool,
    blown: Notify,
}

impl Fuse {
    /// Says how the connection is to end, whenever it does.
    pub(super) fn set(&self, how: Cut) {
        self.reset.store(how == Cut::Reset, Ordering::Release);
    }

    /// Ends the connection now.
    pub(super) fn blow(&self, how: Cut) {
        self.set(how);
        self.blown.notify_one();
    }

    /// Returns once it is blown.
    pub(super) async fn blown(&self) {
        self.blown.notified().await;
    }
}

/// A TCP stream that ends the way its fuse says.
pub(super) struct Socket {
    tcp: TcpStream,
    fuse: Arc<Fuse>,
}

impl Socket {
    pub(super) fn new(tcp: TcpStream, fuse: Arc<Fuse>) -> Self {
        Self { tcp, fuse }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.fuse.reset.load(Ordering::Acquire) {
            // Closing with a linger time of zero is how a program asks for a reset. Failing that it is a FIN.
            let _ = self.tcp.set_zero_linger();
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(context, into)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}
