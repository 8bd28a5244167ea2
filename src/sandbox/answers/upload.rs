//! `postFile`: a multipart form whose file is counted, never kept.
//!
//! In: the body as it streams, 100 MB or more. Out: the vendor's file id, and, since the description has no room for it in
//! the body, what arrived in two headers: `X-Sandbox-File-Bytes` and `X-Sandbox-File-Crc32`.

use std::sync::PoisonError;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::json;

use super::{Failure, failure};
use crate::sandbox::accounts::Grant;
use crate::sandbox::body::{self, Body, json as answer_json};
use crate::sandbox::data::FILE;
use crate::sandbox::multipart::{Multipart, Part};
use crate::sandbox::routes::State;

pub(super) async fn answer<B>(state: &State, grant: &Grant, content_type: &str, mut body: B) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let parts = match Multipart::new(content_type) {
        Some(multipart) => read(multipart, &mut body).await,
        // An urlencoded form has no file in it, whatever the description says: PHP's $_FILES stays empty.
        None => Err("Parameter file is required".to_owned()),
    };
    body::read(body, 0).await;
    match parts.and_then(|parts| check(state, grant, parts)) {
        Ok((id, file)) => {
            let mut answer = answer_json(StatusCode::OK, &json!({"success": true, "data": {"fileID": id}}));
            answer.headers_mut().insert("x-sandbox-file-bytes", HeaderValue::from(file.bytes));
            if let Ok(sum) = HeaderValue::try_from(format!("{:08x}", file.crc.sum())) {
                answer.headers_mut().insert("x-sandbox-file-crc32", sum);
            }
            answer
        }
        Err(message) => failure(&message),
    }
}

async fn read<B>(mut multipart: Multipart, body: &mut B) -> Result<Vec<Part>, Failure>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let malformed = || "The form could not be read".to_owned();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(|_| malformed())?.into_data() {
            multipart.push(&data).map_err(|_| malformed())?;
        }
    }
    multipart.finish().map_err(|_| malformed())
}

fn check(state: &State, grant: &Grant, parts: Vec<Part>) -> Result<(String, Part), Failure> {
    let mut data = state.data.lock().unwrap_or_else(PoisonError::into_inner);
    data.furnish(&grant.properties);
    let property = parts.iter().find(|part| part.name == "propertyID").map(|part| String::from_utf8_lossy(&part.start));
    grant.one(&data, property.as_deref())?;
    let file = parts.into_iter().find(|part| part.name == "file" && part.filename.is_some());
    let file = file.ok_or("Parameter file is required")?;
    Ok((data.id(FILE), file))
}
