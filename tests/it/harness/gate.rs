//! A way to Cloudbeds that can be shut: before the connection, or behind the request.
//!
//! In: a port, and where it leads. Out: bytes passed both ways as they are, TLS and all. Shut, nothing listens. Held, what
//! Cloudbeds answers stays here until it is let go, while everything towards it passes.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The way.
pub struct Gate {
    port: u16,
    to: SocketAddr,
    open: Option<JoinHandle<()>>,
    hold: watch::Sender<bool>,
}

impl Gate {
    /// A shut one: its port is nobody's.
    pub async fn shut(to: SocketAddr) -> Self {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap().port();
        Self { port, to, open: None, hold: watch::Sender::new(false) }
    }

    /// An open one.
    pub async fn open_to(to: SocketAddr) -> Self {
        let mut gate = Self::shut(to).await;
        gate.open().await;
        gate
    }

    /// `https://localhost:PORT`.
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    pub async fn open(&mut self) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).await.unwrap();
        let (to, hold) = (self.to, self.hold.subscribe());
        self.open = Some(tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let hold = hold.clone();
                tokio::spawn(async move {
                    let Ok(far) = TcpStream::connect(to).await else { return };
                    let ((mut near_in, mut near_out), (far_in, mut far_out)) = (near.into_split(), far.into_split());
                    tokio::join!(
                        async {
                            let _ = copy(&mut near_in, &mut far_out).await;
                            let _ = far_out.shutdown().await;
                        },
                        async {
                            let _ = answers(far_in, &mut near_out, hold).await;
                            let _ = near_out.shutdown().await;
                        },
                    );
                });
            }
        }));
    }

    /// Holds what comes back from now on. TLS handshakes still pass, so requests are sent and their answers stay here.
    pub fn hold(&self) {
        self.hold.send_replace(true);
    }

    /// Lets it go.
    pub fn let_go(&self) {
        self.hold.send_replace(false);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            open.abort();
        }
    }
}

async fn answers(
    mut from: impl AsyncReadExt + Unpin,
    to: &mut (impl AsyncWriteExt + Unpin),
    mut hold: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut bytes).await?;
        if read == 0 {
            return Ok(());
        }
        // What the handshake needs begins with a record of its own kind (RFC 8446 5.1), answers with application data.
        let handshake = bytes[0] == 22 || bytes[0] == 20;
        if !handshake && hold.wait_for(|held| !held).await.is_err() {
            return Ok(());
        }
        to.write_all(&bytes[..read]).await?;
    }
}
