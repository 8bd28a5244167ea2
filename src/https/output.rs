//! Ciphertext on its way to the system.
//!
//! In: records. Out: the same bytes on the stream below, in as few writes as it takes; and how many of them the system
//! has taken, to the byte. It holds little: whoever adds asks for room first.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use crate::wire::gather::poll_write_gathered;

/// How much waits before no more is taken, in bytes: what rustls allows by itself.
const LIMIT: usize = 64 * 1024;

/// Records in one write.
const SLICES: usize = 8;

/// What waits to be written.
#[derive(Default)]
pub(super) struct Output {
    records: VecDeque<Vec<u8>>,
    /// What has left of the first one.
    at: usize,
    waiting: usize,
    taken: u64,
}

impl Output {
    /// How many more bytes are taken now.
    pub(super) fn room(&self) -> usize {
        LIMIT.saturating_sub(self.waiting)
    }

    /// How many bytes the system has taken since the beginning.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Adds a record, whether there is room or not: an alert must not wait.
    pub(super) fn push(&mut self, record: Vec<u8>) {
        if !record.is_empty() {
            self.waiting += record.len();
            self.records.push_back(record);
        }
    }

    /// Writes; ready when nothing waits any more.
    pub(super) fn poll_send<S: AsyncWrite + Unpin>(
        &mut self,
        io: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while let Some(first) = self.records.front() {
            let count = if self.records.len() == 1 {
                ready!(Pin::new(&mut *io).poll_write(cx, &first[self.at..]))?
            } else {
                let mut slices = [IoSlice::new(&[]); SLICES];
                for (slice, record) in slices.iter_mut().zip(&self.records) {
                    *slice = IoSlice::new(record);
                }
                slices[0] = IoSlice::new(&first[self.at..]);
                ready!(poll_write_gathered(Pin::new(&mut *io), cx, &slices))?
            };
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.wrote(count);
        }
        Poll::Ready(Ok(()))
    }

    /// Sends what waits, and has the stream below do so.
    pub(super) fn poll_flush<S: AsyncWrite + Unpin>(
        &mut self,
        io: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_send(io, cx))?;
        Pin::new(io).poll_flush(cx)
    }

    /// Sends what waits, and ends the stream below.
    pub(super) fn poll_shutdown<S: AsyncWrite + Unpin>(
        &mut self,
        io: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_send(io, cx))?;
        match ready!(Pin::new(io).poll_shutdown(cx)) {
            // It has ended already.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            ended => Poll::Ready(ended),
        }
    }

    fn wrote(&mut self, count: usize) {
        self.taken += count as u64;
        self.waiting = self.waiting.saturating_sub(count);
        self.at += count;
        while let Some(first) = self.records.front()
            && first.len() <= self.at
        {
            self.at -= first.len();
            self.records.pop_front();
        }
    }
}
