//! Which calls are made, and how often each beside the others.
//!
//! In: `GET /a=5,POST /b +1000=1`. Out: the request of any number. The order is fixed, so two runs make the same calls,
//! and mixed, so no stretch of it is all of one kind.

use crate::kit::Sentence;

/// A mix of calls.
pub(crate) struct Mix {
    calls: Vec<Call>,
    weights: u64,
}

struct Call {
    method: String,
    path: String,
    body: usize,
    weight: u64,
}

/// Bodies no larger than this: they are kept in memory.
const BODY_MOST: usize = 64 << 20;

impl Mix {
    /// What an integration does most of the day, as far as the sandbox knows it.
    pub(crate) const USUAL: &str = "/api/v1.3/getReservations?pageSize=20=5,/api/v1.3/getRooms=2,\
                                    /api/v1.3/getHotelDetails=2,POST /sandbox/upload +4096=1";

    pub(crate) fn parse(text: &str) -> Result<Self, Sentence> {
        let calls = text.split(',').map(str::trim).map(Call::parse).collect::<Result<Vec<_>, _>>()?;
        let weights = calls.iter().map(|call| call.weight).sum();
        Ok(Self { calls, weights })
    }

    /// Whether it changes nothing at the upstream, by its methods.
    pub(crate) fn is_safe(&self) -> bool {
        self.calls.iter().all(|call| matches!(call.method.as_str(), "GET" | "HEAD"))
    }

    /// The request of this number, for the property whose turn it is.
    pub(crate) fn request(&self, number: u64, properties: &[u64], headers: &str) -> Vec<u8> {
        // A multiplication by 2^64 over the golden ratio spreads numbers evenly; its upper half counts.
        let mut left = (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) % self.weights;
        let call = self.calls.iter().find(|call| {
            let is_here = left < call.weight;
            left = left.saturating_sub(call.weight);
            is_here
        });
        let Some(call) = call.or(self.calls.first()) else { return Vec::new() };
        let property = properties[(number % properties.len() as u64) as usize];
        let Call { method, path, body, .. } = call;
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nX-Property-Id: {property}\r\n{headers}");
        if *body > 0 {
            request += &format!("Content-Type: application/octet-stream\r\nContent-Length: {body}\r\n");
        } else if !matches!(method.as_str(), "GET" | "HEAD") {
            request += "Content-Length: 0\r\n";
        }
        request += "\r\n";
        let mut request = request.into_bytes();
        request.resize(request.len() + body, b'x');
        request
    }
}

impl Call {
    fn parse(text: &str) -> Result<Self, Sentence> {
        let wrong =
            || format!("--mix: {text:?} is not [METHOD ]PATH[ +BYTES]=WEIGHT, such as GET /api/v1.3/getRooms=2");
        // From the right, since a query has signs of equality too.
        let (call, weight) = text.rsplit_once('=').ok_or_else(wrong)?;
        let (call, body) = match call.split_once(" +") {
            Some((call, body)) => (call, body.trim().parse().map_err(|_| wrong())?),
            None => (call, 0),
        };
        let (method, path) = call.trim().split_once(' ').unwrap_or(("GET", call.trim()));
        let weight = weight.trim().parse().map_err(|_| wrong())?;
        let path = path.trim();
        let letters = method.bytes().all(|byte| byte.is_ascii_uppercase());
        if !letters || !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong());
        }
        if weight == 0 || body > BODY_MOST {
            return Err(format!("--mix: {text:?}: weights start at 1, and bodies end at {BODY_MOST} bytes"));
        }
        Ok(Self { method: method.to_owned(), path: path.to_owned(), body, weight })
    }
}
