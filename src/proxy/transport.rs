//! What serving a connection needs of the stream it comes on.
//!
//! In: a caller's stream, plain or encrypted. Out: what is done to the socket under it: waiting without reading,
//! watching, resetting. The code of a connection is made for each kind, so a plain one pays nothing for the other.

use tokio::io::{AsyncRead, AsyncWrite};

use crate::listen::Stream;
use crate::tls::Encrypted;

/// A caller's stream.
pub trait Transport: AsyncRead + AsyncWrite + Unpin + 'static {
    /// The socket under it.
    fn socket(&self) -> &Stream;
}

impl Transport for Stream {
    fn socket(&self) -> &Stream {
        self
    }
}

impl Transport for Encrypted<Stream> {
    fn socket(&self) -> &Stream {
        self.get_ref().0.get_ref()
    }
}
