//! Bodies of any size, up and down, in flat memory.
//!
//! | path | switches |
//! |---|---|
//! | `/sandbox/download` | `bytes=N` up to 1 TiB; `chunked=1` does not announce the length; `coding=` as in [`echo`](super::echo), up to 64 MiB |
//! | `/sandbox/upload` | any method; answers `{"success":true,"bytes":N,"crc32":"…"}` once all has arrived. `gap_ms=` pauses after every frame read; `answer_after=N` answers without reading further; `hang_after=N` stops reading and never answers |
//!
//! A download's content is a fixed pattern of printable text without a key in it: [`pattern`].

use std::iter;

use bytes::Bytes;
use flate2::Crc;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::json;

use super::body::{Body, Step, json, typed};
use super::coding;
use super::query::Pairs;

/// One frame's worth: large enough that the work per frame does not count, small enough for many at once.
const FRAME: usize = 64 * 1024;

/// The longest download.
const MOST: u64 = 1 << 40;

/// The longest coded one, which is made in memory, and the pieces it is sent in.
const MOST_CODED: u64 = 64 << 20;
const PIECE: usize = 1000;

/// The first `bytes` bytes of every download, in frames; `bytes` is cut to 1 TiB.
pub fn pattern(bytes: u64) -> impl Iterator<Item = Bytes> + Send {
    // A prime number of letters per line, so that lines do not line up with frames or windows.
    let line = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,;:!?-+*/%&\n";
    let frame: Bytes = line.iter().copied().cycle().take(FRAME).collect();
    let mut left = bytes.min(MOST);
    iter::from_fn(move || {
        let size = usize::try_from(left).unwrap_or(FRAME).min(FRAME);
        left -= size as u64;
        (size > 0).then(|| frame.slice(..size))
    })
}

pub(super) fn download(query: &Pairs) -> Response<Body> {
    let bytes = query.number("bytes").unwrap_or(0_u64).min(MOST);
    if let Some(name) = query.get("coding") {
        return coded(query, name, bytes.min(MOST_CODED));
    }
    let body = Body::script(pattern(bytes).map(Step::Data));
    let mut answer = Response::new(if query.flag("chunked") { body } else { body.length(bytes) });
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    answer
}

/// The same, coded in one piece and sent in many.
fn coded(query: &Pairs, name: &str, bytes: u64) -> Response<Body> {
    let plain: Vec<u8> = pattern(bytes).flatten().collect();
    let Some((coding, coded)) = coding::encode(name, &plain) else {
        return typed(StatusCode::BAD_REQUEST, "text/plain", "unknown coding\n");
    };
    let (length, coded) = (coded.len(), Bytes::from(coded));
    let pieces = (0..length).step_by(PIECE).map(move |at| Step::Data(coded.slice(at..length.min(at + PIECE))));
    let body = Body::script(pieces);
    let mut answer = Response::new(if query.flag("chunked") { body } else { body.length(length as u64) });
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    answer.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
    answer
}

pub(super) async fn upload<B>(query: &Pairs, mut body: B) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let gap = query.millis("gap_ms");
    let answer_after = query.number("answer_after").unwrap_or(u64::MAX);
    let hang_after = query.number("hang_after").unwrap_or(u64::MAX);
    let (mut bytes, mut crc) = (0_u64, Crc::new());
    while bytes < answer_after {
        if bytes >= hang_after {
            std::future::pending::<()>().await;
        }
        let frame = match body.frame().await {
            Some(Ok(frame)) => frame,
            // The rest will not come; whoever still listens learns that it was not all.
            Some(Err(_)) => return json(StatusCode::BAD_REQUEST, &json!({"success": false, "bytes": bytes})),
            None => break,
        };
        if let Ok(data) = frame.into_data() {
            bytes += data.len() as u64;
            crc.update(&data);
        }
        if let Some(gap) = gap {
            tokio::time::sleep(gap).await;
        }
    }
    json(StatusCode::OK, &json!({"success": true, "bytes": bytes, "crc32": format!("{:08x}", crc.sum())}))
}
