//! Records as they arrive, decrypted where they lie (RFC 8446 5.1, 5.2, 6).
//!
//! In: a buffer that begins with a record. Out: what is in it: a piece of the stream, which is that part of the buffer or,
//! where it is small, a copy; the server's goodbye; or a fault. Strict: behind the handshake every record looks like
//! application data from outside, and nothing but data, alerts and the two messages of `messages.rs` may be inside.

use std::ops::Range;

use bytes::{Buf as _, BytesMut};
use rustls::crypto::cipher::{InboundOpaqueMessage, MessageDecrypter};
use rustls::{AlertDescription, ContentType, Error, InvalidMessage, PeerMisbehaved, ProtocolVersion};

use super::fault::Fault;
use super::messages::{Asked, Messages};
use super::{EXPANSION_MAX, FATAL, FRAGMENT_MAX, HEADER, Session, WARNING, room};

/// The type and version that all records have outside (RFC 8446 5.2).
const OUTSIDE: [u8; 3] = [23, 3, 3];

/// A piece that is no longer is copied to where other small ones are: that costs less than keeping a whole buffer for it. So many
/// bytes of such pieces are joined, since servers cut the beginning of an answer into packets.
const SMALL: usize = 4 * 1024;
const JOINED_MAX: usize = 16 * 1024;

/// Records without content in a row, and warnings, that are put up with, as rustls does it.
const EMPTY_MAX: u8 = 32;
const WARNINGS_MAX: u8 = 4;

/// What was read.
pub(super) enum Got {
    /// Bytes of the stream, at least one.
    Data(BytesMut),
    /// New keys are in use, and the server wants us to take new ones too.
    AskedForUpdate,
    /// No more will come.
    Closed,
}

/// What a record is, inside.
enum Inside {
    /// A small piece of the stream, in this range of the buffer, with so many bytes of record.
    Small(Range<usize>, usize),
    Got(Got),
    Nothing,
}

/// What decrypts, and how far it is.
pub(super) struct Reader {
    decrypter: Box<dyn MessageDecrypter>,
    sequence: u64,
    messages: Messages,
    /// What was behind the piece that was given out last.
    held: Option<Result<Got, Fault>>,
    empty: u8,
    warnings: u8,
}

/// How many bytes the first record still lacks; at least one, where none is whole.
pub(super) fn missing(input: &[u8]) -> usize {
    let whole = match input {
        [_, _, _, high, low, ..] => HEADER + usize::from(u16::from_be_bytes([*high, *low])),
        _ => HEADER,
    };
    whole.saturating_sub(input.len()).max(1)
}

/// The length of the first record's content, if all of it is here. What is wrong is wrong at once: a server that speaks no
/// TLS may say no more than that.
fn whole(input: &[u8]) -> Result<Option<usize>, Fault> {
    let Some(header) = input.first_chunk::<HEADER>() else { return outside(input).map(|()| None) };
    outside(header)?;
    let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
    if length > FRAGMENT_MAX + EXPANSION_MAX {
        return Err(Error::PeerSentOversizedRecord.into());
    }
    Ok((input.len() >= HEADER + length).then_some(length))
}

/// Judges as much of a record's header as there is.
fn outside(header: &[u8]) -> Result<(), Fault> {
    let mut both = header.iter().zip(OUTSIDE);
    match both.next() {
        Some((kind, expected)) if *kind != expected => Err(inappropriate(ContentType::from(*kind))),
        _ if both.any(|(is, expected)| *is != expected) => Err(InvalidMessage::UnknownProtocolVersion.into()),
        _ => Ok(()),
    }
}

/// Whether a whole record comes next that holds little.
fn begins_small(input: &[u8]) -> bool {
    matches!(whole(input), Ok(Some(length)) if length <= SMALL)
}

fn inappropriate(got_type: ContentType) -> Fault {
    let expect_types = vec![ContentType::ApplicationData, ContentType::Handshake, ContentType::Alert];
    Error::InappropriateMessage { expect_types, got_type }.into()
}

impl Reader {
    pub(super) fn new(decrypter: Box<dyn MessageDecrypter>, sequence: u64) -> Self {
        Self { decrypter, sequence, messages: Messages::default(), held: None, empty: 0, warnings: 0 }
    }

    /// Takes records out of `input` until one says something; nothing once no whole one is left.
    pub(super) fn next(&mut self, input: &mut BytesMut, session: &mut Session) -> Result<Option<Got>, Fault> {
        if let Some(held) = self.held.take() {
            return held.map(Some);
        }
        let mut joined = BytesMut::new();
        loop {
            if !joined.is_empty() && (joined.len() > JOINED_MAX - SMALL || !begins_small(input)) {
                return Ok(Some(Got::Data(room::take_small(joined))));
            }
            let got = match self.record(input, session) {
                Ok(None) => return Ok(None),
                Ok(Some(Inside::Nothing)) => continue,
                Ok(Some(Inside::Small(range, record))) => {
                    if joined.is_empty() {
                        let more = begins_small(&input[record..]);
                        joined = room::for_small(if more { input.len().min(JOINED_MAX) } else { range.len() });
                    }
                    joined.extend_from_slice(&input[range]);
                    input.advance(record);
                    continue;
                }
                Ok(Some(Inside::Got(got))) => Ok(got),
                Err(fault) => Err(fault),
            };
            if joined.is_empty() {
                return got.map(Some);
            }
            self.held = Some(got);
            return Ok(Some(Got::Data(room::take_small(joined))));
        }
    }

    fn record(&mut self, input: &mut BytesMut, session: &mut Session) -> Result<Option<Inside>, Fault> {
        let Some(length) = whole(input)? else { return Ok(None) };
        let record = HEADER + length;
        let (kind, from, to) = self.open(&mut input[HEADER..record])?;
        let (from, to) = (HEADER + from, HEADER + to);
        self.empty = if from == to { self.empty + 1 } else { 0 };
        if self.empty > EMPTY_MAX {
            return Err(PeerMisbehaved::TooManyEmptyFragments.into());
        }
        if kind != ContentType::Handshake && self.messages.is_within() {
            return Err(PeerMisbehaved::MessageInterleavedWithHandshakeMessage.into());
        }
        let got = match kind {
            ContentType::ApplicationData if from == to => None,
            ContentType::ApplicationData => {
                self.messages.data_came();
                if to - from <= SMALL {
                    return Ok(Some(Inside::Small(from..to, record)));
                }
                let mut piece = input.split_to(record);
                piece.truncate(to);
                piece.advance(from);
                return Ok(Some(Inside::Got(Got::Data(piece))));
            }
            ContentType::Alert => self.alert(&input[from..to])?,
            ContentType::Handshake => match self.messages.take(&input[from..to], session)? {
                Asked::Nothing => None,
                Asked::Renewed { decrypter, answer } => {
                    (self.decrypter, self.sequence) = decrypter;
                    answer.then_some(Got::AskedForUpdate)
                }
            },
            other => return Err(inappropriate(other)),
        };
        input.advance(record);
        Ok(Some(got.map_or(Inside::Nothing, Inside::Got)))
    }

    /// Decrypts a record's content in its place: what it is, and where in there.
    fn open(&mut self, content: &mut [u8]) -> Result<(ContentType, usize, usize), Fault> {
        let next = self.sequence.checked_add(1).ok_or(Error::DecryptError)?;
        let (base, room) = (content.as_ptr().addr(), content.len());
        let record = InboundOpaqueMessage::new(ContentType::ApplicationData, ProtocolVersion::TLSv1_2, content);
        let inside = self.decrypter.decrypt(record, self.sequence)?;
        self.sequence = next;
        // At the beginning, as it is; nothing depends on that.
        let from = inside.payload.as_ptr().addr().wrapping_sub(base);
        match from.checked_add(inside.payload.len()) {
            Some(to) if to <= room => Ok((inside.typ, from, to)),
            _ => Err(Error::General("a record was not decrypted in its place".into()).into()),
        }
    }

    /// An alert is a record of its own. Its level says little (RFC 8446 6); that it is one of the two, rustls insists on as well.
    fn alert(&mut self, content: &[u8]) -> Result<Option<Got>, Fault> {
        let &[level, description] = content else { return Err(InvalidMessage::MessageTooShort.into()) };
        let description = AlertDescription::from(description);
        if level != WARNING && level != FATAL {
            let alert = Some(AlertDescription::IllegalParameter);
            return Err(Fault { error: Error::AlertReceived(description), alert });
        }
        match (level, description) {
            (_, AlertDescription::CloseNotify) => Ok(Some(Got::Closed)),
            // Of no use, and some servers say it before they say goodbye.
            (WARNING, AlertDescription::UserCanceled) if self.warnings < WARNINGS_MAX => {
                self.warnings += 1;
                Ok(None)
            }
            (WARNING, AlertDescription::UserCanceled) => Err(PeerMisbehaved::TooManyWarningAlertsReceived.into()),
            (_, other) => Err(Error::AlertReceived(other).into()),
        }
    }
}
