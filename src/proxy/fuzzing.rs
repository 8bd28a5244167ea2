//! The request path under any bytes at all.
//!
//! In: what a caller may send on one connection, or a server. Out: nothing; a broken promise is a panic. `request.rs`
//! follows requests to the bytes that Cloudbeds would get, `http2.rs` those that come over HTTP/2, `answer.rs` the
//! bytes of a server to an answer, `views.rs` compares how others read them, `strict.rs` is another reading of RFC
//! 9112 that shares no code with the proxy's own, `line.rs` stands for the sockets.

mod answer;
mod http2;
pub(crate) mod line;
mod request;
mod strict;
mod views;

pub use self::answer::answer;
pub use self::http2::{answers, http2};
pub use self::request::request;
pub use self::views::views;
