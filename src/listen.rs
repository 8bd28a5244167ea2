//! The only place that binds sockets.
//!
//! In: an address and how many cores want to accept on it. Out: one listener per core, so that the kernel spreads
//! connections over the cores and no accept lock is shared; or one sentence that says why not and what to do.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::wire::gather::poll_write_gathered;

/// Connections the kernel may hold for a core that is busy; Linux caps it at net.core.somaxconn.
pub const BACKLOG: i32 = 4096;

/// Why an address cannot be listened on, in a sentence for the operator.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {reason}")]
pub struct BindError {
    address: String,
    reason: String,
    source: io::Error,
}

impl BindError {
    fn tcp(address: SocketAddr, source: io::Error) -> Self {
        let reason = match source.kind() {
            io::ErrorKind::AddrInUse => "another process is listening there; stop it or choose another port".into(),
            io::ErrorKind::PermissionDenied => "permission denied; ports below 1024 need CAP_NET_BIND_SERVICE".into(),
            io::ErrorKind::AddrNotAvailable => "this host has no such address".into(),
            _ => source.to_string(),
        };
        Self { address: address.to_string(), reason, source }
    }

    fn unix(path: &Path, source: io::Error) -> Self {
        let reason = match source.kind() {
            io::ErrorKind::AddrInUse => "another process is listening there; stop it or choose another path".into(),
            io::ErrorKind::AlreadyExists => "a file that is no socket is in the way; remove it".into(),
            io::ErrorKind::NotFound => "its directory is not there; create it".into(),
            io::ErrorKind::PermissionDenied => "permission denied; this process must own its directory".into(),
            _ => source.to_string(),
        };
        Self { address: format!("unix:{}", path.display()), reason, source }
    }

    /// Whether somebody else listens there already.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        self.source.kind() == io::ErrorKind::AddrInUse
    }
}

impl From<BindError> for io::Error {
    fn from(error: BindError) -> Self {
        Self::new(error.source.kind(), error)
    }
}

/// One bound TCP listener per core, all on the same address.
///
/// # Errors
/// When the address is taken, forbidden or not this host's.
pub fn tcp(address: SocketAddr, cores: usize) -> Result<Vec<std::net::TcpListener>, BindError> {
    // SO_REUSEPORT would let a second instance of ours share the port without a word, so the first socket asks
    // whether the port is free at all.
    let fail = |error| BindError::tcp(address, error);
    let alone = bind(address, false).map_err(fail)?;
    if cores == 1 {
        alone.listen(BACKLOG).map_err(fail)?;
        return Ok(vec![alone.into()]);
    }
    // For port 0 the others need the port that the first one was given.
    let bound = alone.local_addr().map_err(fail)?.as_socket().unwrap_or(address);
    drop(alone);
    let mut listeners = Vec::with_capacity(cores);
    for _ in 0..cores {
        let socket = bind(bound, true).map_err(fail)?;
        socket.listen(BACKLOG).map_err(fail)?;
        listeners.push(socket.into());
    }
    Ok(listeners)
}

fn bind(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for connections of the last run to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// One bound unix listener, handed to every core.
///
/// A socket file that nobody listens on any more is replaced; anything else at that path is left alone.
///
/// # Errors
/// When the path is taken or cannot be created.
pub fn unix(path: &Path, cores: usize) -> Result<(Vec<std::os::unix::net::UnixListener>, SocketFile), BindError> {
    let fail = |error| BindError::unix(path, error);
    if let Ok(found) = std::fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            return Err(fail(io::ErrorKind::AlreadyExists.into()));
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(fail(io::ErrorKind::AddrInUse.into()));
        }
        std::fs::remove_file(path).map_err(fail)?;
    }
    let listener = std::os::unix::net::UnixListener::bind(path).map_err(fail)?;
    let file = SocketFile { path: path.to_owned(), identity: identity(path) };
    // Applications run as users of their own. Who may connect is decided by the directory's permissions, as with every
    // daemon's socket; a loopback port would ask for less.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).map_err(fail)?;
    listener.set_nonblocking(true).map_err(fail)?;
    let mut listeners = Vec::with_capacity(cores);
    for _ in 1..cores {
        listeners.push(listener.try_clone().map_err(fail)?);
    }
    listeners.push(listener);
    Ok((listeners, file))
}

/// The file of a unix listener, removed with this value: but only if it is still the one that was made here, since a
/// successor may have put its own in the place while this process was draining.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: Option<(u64, u64, i64, i64)>,
}

/// With the time, since a file system may give a number that was set free to the next file.
fn identity(path: &Path) -> Option<(u64, u64, i64, i64)> {
    let found = std::fs::symlink_metadata(path).ok()?;
    Some((found.dev(), found.ino(), found.mtime(), found.mtime_nsec()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            // One that stays behind is replaced by the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A bound listener of either kind, not yet tied to a runtime.
pub enum Bound {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// A unix socket.
    Unix(std::os::unix::net::UnixListener),
}

/// A listener that accepts on the runtime it was made in.
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A unix socket.
    Unix(UnixListener),
}

impl Bound {
    /// The TCP address, when it is one; for port 0 the port the system chose.
    #[must_use]
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// Registers with the current runtime.
    ///
    /// # Errors
    /// What the system says.
    pub fn into_listener(self) -> io::Result<Listener> {
        match self {
            Self::Tcp(listener) => TcpListener::from_std(listener).map(Listener::Tcp),
            Self::Unix(listener) => UnixListener::from_std(listener).map(Listener::Unix),
        }
    }
}

impl Listener {
    /// The next connection.
    ///
    /// # Errors
    /// What the system says; most often the process is out of file descriptors.
    pub async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Should it fail, the caller is gone already, and the next read says so.
                let _ = stream.set_nodelay(true);
                Ok(Stream::Tcp(stream))
            }
            Self::Unix(listener) => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
        }
    }
}

/// An accepted connection of either kind.
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A unix socket.
    Unix(UnixStream),
}

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Peer {
    /// An address.
    Address(SocketAddr),
    /// The user that the process ran as which connected to a unix socket.
    User(u32),
}

impl fmt::Display for Peer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(out),
            Self::User(uid) => write!(out, "uid {uid}"),
        }
    }
}

impl Stream {
    /// The address the caller reached us at; `None` for a unix socket.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// Who is at the other end, as far as the system knows.
    #[must_use]
    pub fn peer(&self) -> Option<Peer> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().ok().map(Peer::Address),
            Self::Unix(stream) => stream.peer_cred().ok().map(|peer| Peer::User(peer.uid())),
        }
    }

    /// The first byte the caller sends, which stays unread; nothing where it sends none. A unix socket is not asked.
    pub async fn first_byte(&self) -> Option<u8> {
        let Self::Tcp(stream) = self else { return None };
        let mut first = [0];
        stream.peek(&mut first).await.ok().filter(|read| *read == 1).map(|_| first[0])
    }

    /// The number of its descriptor.
    #[must_use]
    pub fn descriptor(&self) -> i32 {
        match self {
            Self::Tcp(stream) => stream.as_raw_fd(),
            Self::Unix(stream) => stream.as_raw_fd(),
        }
    }

    /// Waits until there is something to read, or the end of the stream.
    pub async fn readable(&self) {
        // An error shows again when the stream is read.
        let _ = match self {
            Self::Tcp(stream) => stream.readable().await,
            Self::Unix(stream) => stream.readable().await,
        };
    }

    /// Something to learn by that the caller has broken off, while nothing is read from the connection or written to it.
    ///
    /// # Errors
    /// When no descriptor is left for it.
    pub fn watch(&self) -> io::Result<Watch> {
        // A descriptor of its own, since whoever serves the connection has the other one.
        Ok(Watch(match self {
            Self::Tcp(stream) => Self::Tcp(TcpStream::from_std(stream.as_fd().try_clone_to_owned()?.into())?),
            Self::Unix(stream) => Self::Unix(UnixStream::from_std(stream.as_fd().try_clone_to_owned()?.into())?),
        }))
    }

    /// Makes the end of this connection a reset instead of an orderly close, so that a cut answer cannot be mistaken
    /// for a complete one where the end of the connection is the end of the message (HTTP/1.0).
    pub fn end_with_reset(&self) {
        if let Self::Tcp(stream) = self {
            // Linger 0; when the option cannot be set, the orderly close is all there is.
            let _ = stream.set_zero_linger();
        }
    }
}

/// An eye on a connection.
pub struct Watch(Stream);

impl Watch {
    /// Waits until the connection was reset, or the other side of a unix socket closed. The end of what the caller sends
    /// (TCP's FIN) is not enough: it may still wait for its answer, and one that closed its socket looks the same.
    pub async fn lost(&self) {
        // Errors are told in any case; and nearly always one can write, so only what is new wakes this up.
        let interest = Interest::WRITABLE.add(Interest::ERROR);
        let seen = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
        loop {
            let ready = match &self.0 {
                Stream::Tcp(stream) => stream.ready(interest).await,
                Stream::Unix(stream) => stream.ready(interest).await,
            };
            if ready.is_ok_and(|ready| !ready.is_error() && !ready.is_write_closed()) {
                let _ = match &self.0 {
                    Stream::Tcp(stream) => stream.try_io(Interest::WRITABLE, seen),
                    Stream::Unix(stream) => stream.try_io(Interest::WRITABLE, seen),
                };
                continue;
            }
            return;
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => poll_write_gathered(Pin::new(stream), cx, bufs),
            Self::Unix(stream) => poll_write_gathered(Pin::new(stream), cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Sockets have no buffer of their own to flush.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
