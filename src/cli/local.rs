//! One plain HTTP call to a listener of this host, for the commands that ask one.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use crate::https;

/// Sends a request without a body to `address` and reads the whole answer.
///
/// # Errors
/// A sentence that says what failed.
pub(super) async fn call(address: SocketAddr, request: Request<()>) -> Result<Response<Bytes>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{address}: {error}");
    let stream = https::dial_local(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::ConnectionRefused => format!("nothing listens at {address}"),
        _ => failed(&error),
    })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    let connection = tokio::spawn(connection);
    let request = request.map(|()| Empty::<Bytes>::new());
    let answer = sender.send_request(request).await.map_err(|error| failed(&error))?;
    let (parts, body) = answer.into_parts();
    let body = body.collect().await.map_err(|error| failed(&error))?.to_bytes();
    connection.abort();
    Ok(Response::from_parts(parts, body))
}
