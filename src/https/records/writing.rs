//! Our bytes as records (RFC 8446 5.1, 5.2, 5.5).
//!
//! In: slices of plaintext. Out: encrypted records, which wait to be sent. Keys are renewed before they have protected as
//! many records as they may, and where the server asked for it; a sequence number is used once, also where encryption
//! fails.

use std::io::{self, IoSlice};

use rustls::crypto::cipher::{MessageEncrypter, OutboundChunks, OutboundPlainMessage};
use rustls::{AlertDescription, ContentType, Error, ProtocolVersion};

use super::{FATAL, FRAGMENT_MAX, Output, Session, WARNING};

/// Slices that are taken at a time.
const SLICES: usize = 16;

/// The message that our next record has new keys, and that the server's may keep theirs (RFC 8446 4.6.3).
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];

/// What encrypts, and how far it is.
pub(super) struct Writer {
    encrypter: Box<dyn MessageEncrypter>,
    sequence: u64,
    /// Records that the keys of this cipher may protect.
    pub(super) limit: u64,
    /// The server asked for new keys, to be in use with the next bytes of the stream.
    asked: bool,
    /// Nothing may follow what has been said.
    closed: bool,
}

impl Writer {
    pub(super) fn new(encrypter: Box<dyn MessageEncrypter>, sequence: u64, limit: u64) -> Self {
        Self { encrypter, sequence, limit, asked: false, closed: false }
    }

    /// Takes new keys before more of the stream is encrypted.
    pub(super) fn renew_soon(&mut self) {
        self.asked = true;
    }

    /// Encrypts as much as there is room for; how much that was.
    pub(super) fn take(
        &mut self,
        bufs: &[IoSlice<'_>],
        session: &mut Session,
        output: &mut Output,
    ) -> io::Result<usize> {
        if self.closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut slices = [&[][..]; SLICES];
        let mut count = 0;
        for (slice, buf) in slices.iter_mut().zip(bufs.iter().filter(|buf| !buf.is_empty())) {
            *slice = buf;
            count += 1;
        }
        let (taken, _) = OutboundChunks::new(&slices[..count]).split_at(output.room());
        self.encrypt(taken.clone(), session, output).map_err(|error| {
            // How much of it went into records nobody knows any more.
            self.closed = true;
            io::Error::other(error)
        })?;
        Ok(taken.len())
    }

    fn encrypt(
        &mut self,
        mut rest: OutboundChunks<'_>,
        session: &mut Session,
        output: &mut Output,
    ) -> Result<(), Error> {
        while !rest.is_empty() {
            let (content, behind) = rest.split_at(FRAGMENT_MAX);
            if self.asked || self.sequence.saturating_add(1) >= self.limit {
                self.renew(session, output)?;
            }
            self.seal(ContentType::ApplicationData, content, output)?;
            rest = behind;
        }
        Ok(())
    }

    /// Says that the connection ends for this reason.
    pub(super) fn fatal(&mut self, alert: AlertDescription, output: &mut Output) {
        self.alert(FATAL, alert, output);
    }

    /// Says that no more will come, once.
    pub(super) fn goodbye(&mut self, output: &mut Output) {
        self.alert(WARNING, AlertDescription::CloseNotify, output);
    }

    /// Nothing is written any more.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    fn alert(&mut self, level: u8, alert: AlertDescription, output: &mut Output) {
        if !self.closed {
            self.closed = true;
            // Where there is no sequence number left the connection ends without a word.
            let _ = self.seal(ContentType::Alert, OutboundChunks::Single(&[level, alert.into()]), output);
        }
    }

    fn renew(&mut self, session: &mut Session, output: &mut Output) -> Result<(), Error> {
        self.seal(ContentType::Handshake, OutboundChunks::Single(&KEY_UPDATE), output)?;
        let (sequence, secrets) = session.kernel.update_tx_secret()?;
        (self.encrypter, self.sequence) = (session.encrypter(secrets)?, sequence);
        self.asked = false;
        Ok(())
    }

    fn seal(&mut self, typ: ContentType, payload: OutboundChunks<'_>, output: &mut Output) -> Result<(), Error> {
        let sequence = self.sequence;
        self.sequence = sequence.checked_add(1).ok_or(Error::EncryptError)?;
        let plain = OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_3, payload };
        output.push(self.encrypter.encrypt(plain, sequence)?.encode());
        Ok(())
    }
}
