//! The two clients: ours, and rustls'.
//!
//! In: a program of what the server says, and how much of it comes at a time. Out: what the client made of it.

use std::cell::RefCell;
use std::future::Future as _;
use std::io::{self, Read as _, Write as _};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::super::encrypted::Encrypted;
use super::super::super::handshake::shake;
use super::far::client;
use super::{ANSWER, End, Far, Got};

fn localhost() -> ServerName<'static> {
    ServerName::try_from("localhost").expect("a name")
}

/// Ours.
pub(super) fn ours(program: &[u8], piece: usize) -> Got {
    let far = Rc::new(RefCell::new(Far::new()));
    let line = Line { far: Rc::clone(&far), piece, paused: false };
    let mut cx = Context::from_waker(Waker::noop());
    let mut near = {
        let config = client();
        let mut shaking = pin!(shake(&config, localhost(), line));
        loop {
            if let Poll::Ready(shaken) = shaking.as_mut().poll(&mut cx) {
                break shaken.expect("a good handshake").0;
            }
        }
    };
    far.borrow_mut().say(program);
    let mut stream = Vec::new();
    let end = read(&mut near, &mut stream, &mut cx);
    // However it ended, it stays so.
    let length = stream.len();
    assert!(read(&mut near, &mut stream, &mut cx) == end && stream.len() == length, "it goes on behind its end");
    if end == End::Closed {
        say_goodbye(&mut near, &mut cx);
    }
    let heard = far.borrow_mut().heard();
    Got { stream, end, heard }
}

fn read(near: &mut Encrypted<Line>, stream: &mut Vec<u8>, cx: &mut Context<'_>) -> End {
    loop {
        match near.poll_piece(cx) {
            // The line pauses and goes on.
            Poll::Pending => {}
            Poll::Ready(Ok(Some(piece))) => {
                assert!(!piece.is_empty(), "an empty piece");
                stream.extend_from_slice(&piece);
            }
            Poll::Ready(Ok(None)) => return End::Closed,
            Poll::Ready(Err(error)) => return ending(error),
        }
    }
}

fn ending(error: io::Error) -> End {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return End::CutOff;
    }
    let error = error.into_inner().expect("a reason");
    End::Broken(*error.downcast().expect("a reason of rustls'"))
}

fn say_goodbye(near: &mut Encrypted<Line>, cx: &mut Context<'_>) {
    let written = Pin::new(&mut *near).poll_write(cx, ANSWER);
    assert!(matches!(written, Poll::Ready(Ok(count)) if count == ANSWER.len()), "{written:?}");
    let shut = Pin::new(near).poll_shutdown(cx);
    assert!(matches!(shut, Poll::Ready(Ok(()))), "{shut:?}");
}

/// rustls' own.
pub(super) fn theirs(program: &[u8]) -> Got {
    let mut far = Far::new();
    let mut near = ClientConnection::new(client(), localhost()).expect("a good configuration");
    while near.is_handshaking() {
        near.write_tls(&mut far.input).expect("memory");
        far.shake();
        receive(&mut near, &mut far);
        near.process_new_packets().expect("a good handshake");
    }
    near.write_tls(&mut far.input).expect("memory");
    far.shake();
    far.say(program);
    let mut stream = Vec::new();
    let end = loop {
        let count = receive(&mut near, &mut far);
        let judged = near.process_new_packets();
        let read = near.reader().read_to_end(&mut stream);
        match (judged, read) {
            (Err(error), _) => break End::Broken(error),
            (Ok(_), Ok(_)) => break End::Closed,
            (Ok(_), Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => break End::CutOff,
            (Ok(_), Err(error)) => assert!(error.kind() == io::ErrorKind::WouldBlock && count > 0, "{error}"),
        }
    };
    if end == End::Closed {
        near.writer().write_all(ANSWER).expect("memory");
        near.send_close_notify();
    }
    while near.wants_write() {
        near.write_tls(&mut far.input).expect("memory");
    }
    Got { stream, end, heard: far.heard() }
}

fn receive(near: &mut ClientConnection, far: &mut Far) -> usize {
    let count = near.read_tls(&mut &far.output[..]).expect("memory");
    far.output.drain(..count);
    count
}

/// What is between: it hands on so much at a time, with pauses, and ends when nothing is left.
struct Line {
    far: Rc<RefCell<Far>>,
    piece: usize,
    paused: bool,
}

impl AsyncRead for Line {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.paused = !self.paused;
        if self.paused {
            return Poll::Pending;
        }
        let output = &mut self.far.borrow_mut().output;
        let count = output.len().min(self.piece).min(buf.remaining());
        buf.put_slice(&output[..count]);
        output.drain(..count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Line {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let far = &mut self.far.borrow_mut();
        far.input.extend_from_slice(buf);
        far.shake();
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
