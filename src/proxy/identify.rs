//! Which hotel property a request is about.
//!
//! In: a request fresh off the listener. Out: [`Identified`], or a refusal. The header decides; a query or a path that
//! names another property is a refusal, since no call for hotel A may carry hotel B. Two headers are a refusal too:
//! picking one would let a caller be two hotels at once. This file knows nothing of keys; whether the property is
//! *ours* is `credential`'s question. A request that names no property but an organisation is about all of it.

use std::borrow::Cow;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Request, Uri};
use percent_encoding::percent_decode;

use super::error::ProxyError;
use crate::property::PropertyId;
use crate::wire::field::is_twin;
pub use crate::wire::field::{X_ORGANIZATION_ID, X_PROPERTY_ID};
use crate::wire::incoming::Incoming;

/// Where else a property may be named, for applications that cannot send a header. All off by default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// The query's `propertyID` or `propertyIDs`.
    pub query: bool,
    /// A path that starts with `/p/{id}/`, which is taken off.
    pub path_prefix: bool,
    /// The property of a listener.
    pub default: Option<PropertyId>,
}

/// The properties of one request: one, or several that must share a key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Properties {
    first: PropertyId,
    /// The rest of a comma list; empty, and then without memory, for nearly every request.
    more: Vec<PropertyId>,
}

impl Properties {
    const fn one(first: PropertyId) -> Self {
        Self { first, more: Vec::new() }
    }

    /// The first one, which stands for the request in logs and metrics.
    #[must_use]
    pub fn first(&self) -> PropertyId {
        self.first
    }

    /// The others.
    #[must_use]
    pub fn more(&self) -> &[PropertyId] {
        &self.more
    }

    pub(super) fn all(&self) -> impl Iterator<Item = PropertyId> + '_ {
        std::iter::once(self.first).chain(self.more.iter().copied())
    }

    /// The first one that `known` does not have.
    fn stranger_to(&self, known: &Self) -> Option<PropertyId> {
        if known.more.is_empty() {
            return self.all().find(|id| *id != known.first);
        }
        // Two lists of thousands fit into a head; comparing each with each would stall the core.
        let mut sorted: Vec<PropertyId> = known.all().collect();
        sorted.sort_unstable();
        self.all().find(|id| sorted.binary_search(id).is_err())
    }

    /// A comma list of ids, or one id.
    fn parse(text: &[u8]) -> Option<Self> {
        if let Ok(one) = PropertyId::from_bytes(text) {
            return Some(Self::one(one));
        }
        let mut ids = text.split(|byte| *byte == b',').map(|id| PropertyId::from_bytes(id.trim_ascii()));
        let first = ids.next()?.ok()?;
        let more = ids.collect::<Result<_, _>>().ok()?;
        Some(Self { first, more })
    }
}

/// Whom a request is about.
#[derive(Debug)]
pub(super) enum Subject {
    /// One property, or several.
    Properties(Properties),
    /// An organisation as a whole.
    Organization {
        /// As its header names it.
        name: Box<str>,
        /// What the query names: those that have a key must have the organisation's.
        within: Option<Properties>,
    },
}

impl Subject {
    /// Whether it is about nothing but these. An organisation has hotels that nobody here can list.
    pub(super) fn is_within(&self, own: &std::collections::HashSet<PropertyId>) -> bool {
        match self {
            Self::Properties(named) => own.contains(&named.first()) && named.more().iter().all(|id| own.contains(id)),
            Self::Organization { .. } => false,
        }
    }

    /// The property that stands for the request in logs and metrics.
    pub(super) fn first(&self) -> Option<PropertyId> {
        if let Self::Properties(properties) = self { Some(properties.first) } else { None }
    }
}

/// A request whose property or organisation is known.
#[derive(Debug)]
pub struct Identified {
    pub(super) request: Box<Request<Incoming>>,
    pub(super) subject: Subject,
    /// Whether the query names a property.
    pub(super) in_query: bool,
    /// The path prefix that was taken off, so that a redirect can put it back.
    pub(super) prefix: Option<PropertyId>,
}

/// Finds the property.
///
/// # Errors
/// When none is named, more than one, something that is no id, or two that disagree; or an organisation in two ways.
pub fn property(mut request: Box<Request<Incoming>>, settings: Settings) -> Result<Identified, ProxyError> {
    let Named { property, organization } = Named::among(request.headers());
    let mut named = header(&property)?;
    // Beside a property too: Cloudbeds may go by either, so neither may be read in two ways.
    if organization.has_twin || organization.more {
        return Err(ProxyError::OrganizationInvalid);
    }
    let prefix = if settings.path_prefix { take_prefix(&mut request)? } else { None };
    if let Some(id) = prefix {
        agree(&mut named, Properties::one(id))?;
    }
    let from_query = request.uri().query().map(in_query).transpose()?.flatten();
    if named.is_none() && !(settings.query && from_query.is_some()) {
        named = settings.default.map(Properties::one);
    }
    let in_query = from_query.is_some();
    let subject = match (named, from_query) {
        (None, from_query) if !settings.query || !in_query => {
            let name = organization_name(&request)?.ok_or(ProxyError::PropertyMissing)?;
            Subject::Organization { name, within: from_query }
        }
        (mut named, from_query) => {
            from_query.map_or(Ok(()), |from_query| agree(&mut named, from_query))?;
            Subject::Properties(named.ok_or(ProxyError::PropertyMissing)?)
        }
    };
    Ok(Identified { request, subject, in_query, prefix })
}

/// The fields that name somebody.
#[derive(Default)]
struct Named<'a> {
    property: Lines<'a>,
    organization: Lines<'a>,
}

/// The lines of one field.
#[derive(Default)]
struct Lines<'a> {
    first: Option<&'a HeaderValue>,
    /// Whether there are others.
    more: bool,
    /// Whether there is a field whose name differs by underscores alone.
    has_twin: bool,
}

impl<'a> Named<'a> {
    /// Looks at every name once: that is quicker than to look each of these up, and twins must be looked for anyway.
    fn among(headers: &'a HeaderMap) -> Self {
        let mut named = Self::default();
        let (property, organization) = (X_PROPERTY_ID, X_ORGANIZATION_ID);
        for (name, value) in headers {
            named.property.see(name.as_str(), property.as_str(), value);
            named.organization.see(name.as_str(), organization.as_str(), value);
        }
        named
    }
}

impl<'a> Lines<'a> {
    #[inline]
    fn see(&mut self, name: &str, mine: &str, value: &'a HeaderValue) {
        if name.len() != mine.len() {
            return;
        }
        if name == mine {
            self.more |= self.first.is_some();
            self.first.get_or_insert(value);
        } else {
            self.has_twin |= is_twin(name, mine);
        }
    }
}

/// The organisation.
fn organization_name(request: &Request<Incoming>) -> Result<Option<Box<str>>, ProxyError> {
    let Some(line) = request.headers().get(X_ORGANIZATION_ID) else { return Ok(None) };
    let name = line.to_str().map_err(|_| ProxyError::OrganizationInvalid)?.trim();
    Ok((!name.is_empty()).then(|| name.into()))
}

fn header(lines: &Lines<'_>) -> Result<Option<Properties>, ProxyError> {
    if lines.has_twin {
        return Err(ProxyError::PropertyTwin);
    }
    let Some(line) = lines.first else { return Ok(None) };
    if lines.more {
        return Err(ProxyError::PropertyTwice);
    }
    Properties::parse(line.as_bytes()).map(Some).ok_or(ProxyError::PropertyInvalid)
}

/// Takes `named` from a second place, or checks that it names nothing else.
fn agree(named: &mut Option<Properties>, other: Properties) -> Result<(), ProxyError> {
    let Some(known) = named else {
        *named = Some(other);
        return Ok(());
    };
    match other.stranger_to(known) {
        Some(stranger) => Err(ProxyError::PropertyConflict { named: known.first, other: stranger }),
        None => Ok(()),
    }
}

/// Takes `/p/{id}` off the path.
fn take_prefix(request: &mut Request<Incoming>) -> Result<Option<PropertyId>, ProxyError> {
    let Some(target) = request.uri().path_and_query().map(PathAndQuery::as_str) else { return Ok(None) };
    let Some(rest) = target.strip_prefix("/p/") else { return Ok(None) };
    let Some(end) = rest.find('/') else { return Err(ProxyError::PropertyInvalid) };
    let id = rest[..end].parse().map_err(|_| ProxyError::PropertyInvalid)?;
    let rest = PathAndQuery::from_maybe_shared(Bytes::copy_from_slice(&rest.as_bytes()[end..]));
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.path_and_query = Some(rest.map_err(|_| ProxyError::Path)?);
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| ProxyError::Path)?;
    Ok(Some(id))
}

/// The properties a query names, read the way Cloudbeds' PHP reads it: names are decoded, `[…]` makes a list.
fn in_query(query: &str) -> Result<Option<Properties>, ProxyError> {
    let mut named: Option<Properties> = None;
    for pair in query.as_bytes().split(|byte| *byte == b'&') {
        let (name, value) = match memchr::memchr(b'=', pair) {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &pair[pair.len()..]),
        };
        if !is_property_name(name) {
            continue;
        }
        let value = form_decoded(value);
        // An empty value names nothing; Cloudbeds ignores it too.
        if value.trim_ascii().is_empty() {
            continue;
        }
        let found = Properties::parse(&value).ok_or(ProxyError::QueryPropertyInvalid)?;
        match &mut named {
            None => named = Some(found),
            Some(all) => all.more.extend(std::iter::once(found.first).chain(found.more)),
        }
    }
    Ok(named)
}

/// A value as a form encodes it: a plus is a space.
fn form_decoded(value: &[u8]) -> Cow<'_, [u8]> {
    if !value.contains(&b'+') {
        return percent_decode(value).into();
    }
    let spaced: Vec<u8> = value.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    Cow::Owned(percent_decode(&spaced).collect())
}

/// `propertyID`, `propertyIDs`, `property_id`, `property_ids`, with or without `[…]`, in any case and encoding.
fn is_property_name(name: &[u8]) -> bool {
    // The shortest spelling has ten letters; this spares nearly every parameter the decoding.
    if name.len() < "propertyID".len() {
        return false;
    }
    let decoded = form_decoded(name);
    let start = decoded.trim_ascii_start();
    // PHP takes a bracket for an index, and a name to end at a NUL …
    let end = start.iter().position(|byte| matches!(byte, b'[' | 0)).unwrap_or(start.len());
    // … and turns dots and spaces in names into underscores.
    let mut letters = start[..end].iter().map(|byte| match byte {
        b'.' | b' ' => b'_',
        other => other.to_ascii_lowercase(),
    });
    let mut matches = |text: &str| text.bytes().all(|expected| letters.next() == Some(expected));
    if !matches("property") {
        return false;
    }
    let rest: Vec<u8> = letters.collect();
    matches!(&rest[..], b"id" | b"ids" | b"_id" | b"_ids")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(properties: &Properties) -> Vec<u64> {
        properties.all().map(PropertyId::get).collect()
    }

    #[test]
    fn a_list_is_ids_and_commas_and_nothing_else() {
        assert_eq!(Properties::parse(b"1001").as_ref().map(ids), Some(vec![1001]));
        assert_eq!(Properties::parse(b"1, 2 ,3").as_ref().map(ids), Some(vec![1, 2, 3]));
        for bad in ["", ",", "1,", "1;2", "1 2", "01", "+1", "a"] {
            assert_eq!(Properties::parse(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn a_query_names_a_property_in_every_spelling_that_cloudbeds_reads() {
        for query in [
            "propertyID=7",
            "a=b&propertyid=7",
            "property%49D=7",
            "propertyIDs=7",
            "propertyIDs[]=7",
            "propertyID%5B0%5D=7",
            "property_ids=%37",
            "property.id=7",
            "+propertyID=7&x",
            "%20propertyID=+7",
            "propertyID%00x=7",
            "propertyID=&propertyID=7",
        ] {
            assert_eq!(in_query(query).unwrap().as_ref().map(ids), Some(vec![7]), "{query}");
        }
        for query in ["", "property=7", "propertyName=7", "xpropertyID=7", "propertyID", "propertyID="] {
            assert_eq!(in_query(query).unwrap(), None, "{query}");
        }
        assert_eq!(in_query("propertyID=7&propertyIDs=8,9").unwrap().as_ref().map(ids), Some(vec![7, 8, 9]));
        assert!(matches!(in_query("propertyID=7x"), Err(ProxyError::QueryPropertyInvalid)));
    }

    #[test]
    fn two_places_must_name_the_same_property() {
        let mut named = Properties::parse(b"1,2");
        assert!(agree(&mut named, Properties::parse(b"2").unwrap()).is_ok());
        let error = agree(&mut named, Properties::parse(b"2,3").unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "the request names property 1 and property 3");
    }
}
