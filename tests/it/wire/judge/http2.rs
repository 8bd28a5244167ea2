//! The judge of HTTP/2: frames and header blocks read by hand, and every rule of RFC 9113 that a client must keep.
//!
//! A broken rule of the protocol ends the connection; whatever is wrong with a request alone is noted, and it is answered.

mod form;
mod head;

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use tokio::time::{Instant, sleep_until};

use self::form::must;
use super::said::{Do, Said, said};
use super::{Arrived, Bench, Keys, show};
use crate::harness::Peer;
use crate::harness::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame,
    head_frames, raw_fields,
};
use crate::harness::hpack::Decoder;

/// The bytes of a window where a server says nothing of it (RFC 9113 6.5.2).
const WINDOW: usize = 65_535;

/// Hears one connection.
pub(super) async fn hear(mut peer: Peer, bench: &Mutex<Bench>, keys: &Keys) {
    let Some(preface) = peer.exactly(24).await else { return };
    if preface != b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..] {
        return bench.lock().unwrap().faults.push(format!("the preface: {:?}", show(&preface)));
    }
    peer.write(frame(SETTINGS, 0, 0, &[])).await;
    let mut connection = Connection::new(bench, keys);
    loop {
        let next = match connection.due.first_key_value() {
            None => peer.silent_frame().await,
            Some(((at, _), _)) => tokio::select! {
                biased;
                () = sleep_until(*at) => {
                    match connection.due.pop_first() {
                        Some((_, (.., Do::Close))) => return peer.linger().await,
                        Some((_, (.., Do::Reset))) => return peer.reset(),
                        Some((_, (stream, bytewise, act))) => speak(&mut peer, &frames(stream, act), bytewise).await,
                        None => {}
                    }
                    continue;
                }
                next = peer.silent_frame() => next,
            },
        };
        let Some(next) = next else { break };
        match connection.take(next) {
            Ok(owed) => peer.write(owed).await,
            Err(fault) => {
                bench.lock().unwrap().faults.push(fault);
                break;
            }
        }
    }
    if !peer.unread().is_empty() {
        bench.lock().unwrap().faults.push(format!("half a frame: {:?}", show(peer.unread())));
    }
    for (_, asked) in std::mem::take(&mut connection.open) {
        connection.broken_off(asked);
    }
}

async fn speak(peer: &mut Peer, bytes: &[u8], bytewise: bool) {
    for piece in bytes.chunks(if bytewise { 1 } else { bytes.len().max(1) }) {
        peer.write(piece).await;
        tokio::task::yield_now().await;
    }
}

/// A request of which more is to come.
struct Asked {
    arrived: Arrived,
    /// What it says.
    length: Option<usize>,
    /// How much of its body may come before it is told that it may be more.
    window: usize,
    /// Nothing where it has its answer already.
    answer: Option<Said>,
}

struct Connection<'a> {
    bench: &'a Mutex<Bench>,
    keys: &'a Keys,
    decoder: Decoder,
    /// Whether the client's first frame has come.
    begun: bool,
    /// Whether it has acknowledged our settings.
    settled: bool,
    /// Its last stream.
    last: u32,
    open: HashMap<u32, Asked>,
    window: usize,
    /// A head that goes on.
    head: Option<(u32, bool, Vec<u8>)>,
    /// What is to be done, and when: on which stream, whether byte by byte, and what.
    due: BTreeMap<(Instant, usize), (u32, bool, Do)>,
    planned: usize,
}

impl<'a> Connection<'a> {
    fn new(bench: &'a Mutex<Bench>, keys: &'a Keys) -> Self {
        Self {
            bench,
            keys,
            decoder: Decoder::new(),
            begun: false,
            settled: false,
            last: 0,
            open: HashMap::new(),
            window: WINDOW,
            head: None,
            due: BTreeMap::new(),
            planned: 0,
        }
    }

    /// Takes a frame; what it is owed at once.
    fn take(&mut self, next: Frame) -> Result<Vec<u8>, String> {
        form::check(&next)?;
        let Frame { kind, flags, stream, payload } = next;
        let last = flags & END_STREAM != 0;
        must(self.begun || (kind, flags) == (SETTINGS, 0), "3.4, settings come first")?;
        must(self.head.is_none() || kind == CONTINUATION, "6.10, nothing stands within a head")?;
        must(stream <= self.last || kind == HEADERS, "5.1, no frame belongs to a stream that is idle")?;
        self.begun = true;
        match kind {
            DATA => return self.data(stream, last, &payload),
            HEADERS => {
                must(!self.open.contains_key(&stream), "a promise of ours: no trailers")?;
                must(stream > self.last, "5.1.1, each stream has a number of its own, and they grow")?;
                self.last = stream;
                return self.head(stream, last, payload, flags & END_HEADERS != 0);
            }
            CONTINUATION => {
                let begun = self.head.take().filter(|(of, ..)| *of == stream);
                let (_, last, block) = begun.ok_or("RFC 9113 6.10: a CONTINUATION of nothing")?;
                return self.head(stream, last, [block, payload].concat(), flags & END_HEADERS != 0);
            }
            RST_STREAM => {
                self.due.retain(|_, (of, ..)| *of != stream);
                if let Some(asked) = self.open.remove(&stream) {
                    self.broken_off(asked);
                }
            }
            SETTINGS if flags & ACK == 0 => return Ok(frame(SETTINGS, ACK, 0, &[])),
            SETTINGS => {
                let first = !std::mem::replace(&mut self.settled, true);
                must(first, "6.5.3, one acknowledgement for each settings")?;
            }
            PING => {
                must(flags & ACK == 0, "6.7, no answer without a ping")?;
                return Ok(frame(PING, ACK, 0, &payload));
            }
            _ => {}
        }
        Ok(Vec::new())
    }

    /// As much of a head as has come.
    fn head(&mut self, stream: u32, last: bool, block: Vec<u8>, whole: bool) -> Result<Vec<u8>, String> {
        if !whole {
            self.head = Some((stream, last, block));
            return Ok(Vec::new());
        }
        let Some(fields) = self.decoder.decode(&block) else {
            return Err(format!("no header block of RFC 7541: {:?}", show(&block)));
        };
        let (arrived, length, mut faults) = head::examine(&fields);
        let answer = {
            let mut bench = self.bench.lock().unwrap();
            if !arrived.is_proxys_own() {
                faults.extend(arrived.faults(self.keys));
                bench.faults.extend(faults);
            }
            bench.answer(&arrived)
        };
        let said = said(&answer, arrived.line.starts_with(b"HEAD ")).ok_or("an answer that HTTP/2 has no words for")?;
        let mut asked = Asked { arrived, length, window: WINDOW, answer: None };
        if said.early {
            self.bench.lock().unwrap().keep(std::mem::take(&mut asked.arrived));
            self.plan(stream, said);
        } else {
            asked.answer = Some(said);
        }
        if last {
            self.whole(asked, stream)?;
        } else {
            self.open.insert(stream, asked);
        }
        Ok(Vec::new())
    }

    fn data(&mut self, stream: u32, last: bool, payload: &[u8]) -> Result<Vec<u8>, String> {
        let Some(mut asked) = self.open.remove(&stream) else {
            return Err("RFC 9113 5.1: no DATA behind a request's end".to_owned());
        };
        let grants = [spend(&mut self.window, 0, payload.len())?, spend(&mut asked.window, stream, payload.len())?];
        asked.arrived.body.extend_from_slice(payload);
        if last {
            self.whole(asked, stream)?;
        } else {
            self.open.insert(stream, asked);
        }
        Ok(if last { grants[0].clone() } else { grants.concat() })
    }

    /// A request's last byte has come.
    fn whole(&mut self, asked: Asked, stream: u32) -> Result<(), String> {
        let Some(said) = asked.answer else { return Ok(()) };
        let mut arrived = asked.arrived;
        must(asked.length.is_none_or(|length| length == arrived.body.len()), "8.1.1, a body of the length it says")?;
        arrived.whole = true;
        self.bench.lock().unwrap().keep(arrived);
        self.plan(stream, said);
        Ok(())
    }

    /// Nothing more comes of a request.
    fn broken_off(&mut self, asked: Asked) {
        if asked.answer.is_some() {
            self.bench.lock().unwrap().keep(asked.arrived);
        }
    }

    fn plan(&mut self, stream: u32, said: Said) {
        let mut at = Instant::now();
        for act in said.acts {
            match act {
                Do::Pause(time) => at += time,
                act => {
                    self.planned += 1;
                    self.due.insert((at, self.planned), (stream, said.bytewise, act));
                }
            }
        }
    }
}

/// Takes so much out of a window, and what makes it as large as before when less than half is left of it.
fn spend(window: &mut usize, stream: u32, length: usize) -> Result<Vec<u8>, String> {
    *window = window.checked_sub(length).ok_or("RFC 9113 6.9.1: more than a window allows")?;
    if *window >= WINDOW / 2 {
        return Ok(Vec::new());
    }
    let more = u32::try_from(WINDOW - std::mem::replace(window, WINDOW)).unwrap_or_default();
    Ok(frame(WINDOW_UPDATE, 0, stream, &more.to_be_bytes()))
}

/// The frames of what is said on a stream.
fn frames(stream: u32, act: Do) -> Vec<u8> {
    let block =
        |fields: Vec<(Vec<u8>, Vec<u8>)>| raw_fields(fields.iter().map(|(name, value)| (&name[..], &value[..])));
    match act {
        Do::Head(fields, last) => head_frames(if last { END_STREAM } else { 0 }, stream, &block(fields)),
        Do::Data(data, last) => frame(DATA, if last { END_STREAM } else { 0 }, stream, &data),
        Do::Pause(_) | Do::Close | Do::Reset => Vec::new(),
    }
}
