//! What well-behaved servers say: the bytes are the same however they are cut, and keys and tickets come in between.

use std::pin::{Pin, pin};
use std::task::{Context, Waker};
use std::time::Duration;

use proptest::prelude::*;
use rustls::client::{ClientSessionMemoryCache, ClientSessionStore};
use rustls::{HandshakeKind, ServerConnection};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::*;

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index % 251) as u8).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn both_directions_carry_the_same_bytes_however_they_are_cut_and_whenever_keys_change(
        rounds in prop::collection::vec(
            (prop::collection::vec((1..60_000_usize, any::<bool>()), 1..5), prop::collection::vec(1..60_000_usize, 1..4)),
            1..4,
        ),
        // Room for the tickets, or the server's handshake would wait for a client that reads.
        pipe in 1_000..200_000_usize,
        limit in 3..20_u64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut near, mut far) = Peers::tls13().meet(pipe).await;
            if let Encrypted::Records(records) = &mut near {
                records.writer.limit = limit;
            }
            for (down, up) in rounds {
                let sent = pattern(down.iter().map(|(size, _)| size).sum());
                let server = async {
                    let mut rest = &sent[..];
                    for (size, renews) in down {
                        if renews {
                            far.get_mut().1.refresh_traffic_keys().unwrap();
                        }
                        far.write_all(&rest[..size]).await.unwrap();
                        rest = &rest[size..];
                    }
                    far.flush().await.unwrap();
                };
                let ((), received) = tokio::join!(server, received(&mut near, sent.len()));
                assert!(received == sent, "down");
                let sent = pattern(up.iter().sum());
                let client = async {
                    let mut rest = &sent[..];
                    for size in up {
                        let (first, second) = rest[..size].split_at(size / 3);
                        let slices = [first, &[], second].map(io::IoSlice::new);
                        let count = near.write_vectored(&slices).await.unwrap();
                        near.write_all(&rest[count..size]).await.unwrap();
                        rest = &rest[size..];
                    }
                    near.flush().await.unwrap();
                };
                let mut received = vec![0; sent.len()];
                let ((), read) = tokio::join!(client, far.read_exact(&mut received));
                read.unwrap();
                assert!(received == sent, "up");
            }
            let mut nothing = [0];
            let (goodbye, end) = tokio::join!(near.shutdown(), far.read(&mut nothing));
            goodbye.unwrap();
            assert_eq!(end.unwrap(), 0);
        });
    }
}

/// So many bytes.
async fn received(near: &mut Encrypted<DuplexStream>, length: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < length {
        all.extend_from_slice(&std::future::poll_fn(|cx| near.poll_piece(cx)).await.unwrap().unwrap());
    }
    all
}

#[tokio::test]
async fn what_the_system_took_is_known_to_the_byte_and_what_waits_is_bounded() {
    let (mut near, mut far) = Peers::tls13().meet_test().await;
    let before = near.taken();
    assert_eq!(before, 0, "of the stream");
    let mut cx = Context::from_waker(Waker::noop());
    let mut written = 0;
    let data = vec![7; 300_000];
    // The pipe holds 1 MiB, and behind it waits what rustls would let wait.
    while let std::task::Poll::Ready(count) = Pin::new(&mut near).poll_write(&mut cx, &data) {
        written += count.unwrap();
        assert!(written < 2 << 20);
    }
    assert_eq!(near.taken(), 1 << 20);
    assert!((near.taken() as usize..near.taken() as usize + 80 * 1024).contains(&written), "{written}");
    let server = async {
        let mut all = 0;
        while all < written {
            let (kind, content) = far.hear().await;
            assert!(kind == ContentType::ApplicationData && content.iter().all(|byte| *byte == 7));
            all += content.len();
        }
        all
    };
    let (flushed, all) = tokio::join!(near.flush(), server);
    flushed.unwrap();
    assert_eq!((all, near.taken()), (written, written as u64 + far.heard * 22));
}

/// A ticket without extensions.
fn ticket(name: u8) -> Vec<u8> {
    let body = [&[0, 0, 14, 16, 1, 2, 3, 4, 1, name][..], &[0, 40], &[name; 40], &[0, 0]].concat();
    [&[4, 0, 0, body.len() as u8][..], &body[..]].concat()
}

#[tokio::test]
async fn tickets_are_kept_however_they_are_cut_and_joined() {
    let store = Arc::new(ClientSessionMemoryCache::new(32));
    let peers = Peers::new(&rustls::version::TLS13, Resumption::store(store.clone()));
    let (mut near, mut far) = peers.meet_test().await;
    far.say(ContentType::ApplicationData, b"1").await;
    for byte in ticket(1) {
        far.say(ContentType::Handshake, &[byte]).await;
    }
    far.say(ContentType::Handshake, &[ticket(2), ticket(3), ticket(4)[..7].to_vec()].concat()).await;
    far.say(ContentType::Handshake, &[&ticket(4)[7..], &[24, 0, 0, 1]].concat()).await;
    // An update that is cut is one all the same; its keys would be none of the test's.
    far.say(ContentType::Handshake, &[0]).await;
    let record = far.record(ContentType::ApplicationData, b"2");
    far.io.write_all(&record).await.unwrap();
    let (all, end) = pieces(&mut near).await;
    assert_eq!((&all[..], reason(&end.unwrap_err())), (&b"1"[..], Some(&rustls::Error::DecryptError)));
    let kept = std::iter::from_fn(|| store.take_tls13_ticket(&localhost())).count();
    assert_eq!(kept, 4);
}

#[tokio::test]
async fn the_next_connection_resumes_the_session() {
    let peers = Peers::tls13();
    for (round, kind) in [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed].into_iter().enumerate() {
        let (mut near, mut far) = peers.meet(1 << 20).await;
        assert_eq!(far.get_ref().1.handshake_kind(), Some(kind), "{round}");
        far.write_all(b"data").await.unwrap();
        far.shutdown().await.unwrap();
        let (data, end) = pieces(&mut near).await;
        assert!(data == b"data" && end.is_ok(), "{end:?}");
    }
}

#[tokio::test]
async fn every_cipher_carries_the_stream_and_a_handshake_may_have_to_begin_again() {
    let all = rustls::crypto::ring::default_provider();
    for suite in all.cipher_suites.iter().filter(|suite| suite.tls13().is_some()) {
        for group in &all.kx_groups {
            let can = CryptoProvider { cipher_suites: vec![*suite], kx_groups: vec![*group], ..all.clone() };
            let peers = Peers::with(can, &rustls::version::TLS13, Resumption::default());
            let (mut near, mut far) = peers.meet(1 << 20).await;
            assert_eq!(far.get_ref().1.negotiated_cipher_suite(), Some(*suite));
            near.write_all(b"up").await.unwrap();
            near.flush().await.unwrap();
            let mut up = [0; 2];
            far.read_exact(&mut up).await.unwrap();
            far.write_all(&[&up[..], &pattern(40_000)].concat()).await.unwrap();
            far.shutdown().await.unwrap();
            let (down, end) = pieces(&mut near).await;
            assert!(
                down == [&b"up"[..], &pattern(40_000)[..]].concat() && end.is_ok(),
                "{suite:?}, {group:?}: {end:?}"
            );
        }
    }
}

/// Moves what the connection wants to say.
async fn pump(connection: &mut ServerConnection, io: &mut DuplexStream) {
    let mut out = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut out).unwrap();
    }
    io.write_all(&out).await.unwrap();
}

#[tokio::test]
async fn what_a_server_says_with_its_part_of_the_handshake_is_part_of_the_stream() {
    let peers = Peers::tls13();
    let (near, mut far) = duplex(1 << 20);
    let server = async {
        let mut connection = ServerConnection::new(Arc::clone(&peers.server)).unwrap();
        let mut said = false;
        let mut buffer = vec![0; 1 << 16];
        while connection.is_handshaking() || !said {
            let count = far.read(&mut buffer).await.unwrap();
            connection.read_tls(&mut &buffer[..count]).unwrap();
            connection.process_new_packets().unwrap();
            if !said {
                // Before the client has finished (RFC 8446 4.6.2 and figure 1): a whole record, and one that comes in two.
                io::Write::write_all(&mut connection.writer(), &pattern(40_000)).unwrap();
                said = true;
            }
            pump(&mut connection, &mut far).await;
        }
        connection.send_close_notify();
        pump(&mut connection, &mut far).await;
        far
    };
    let client = async {
        let (mut near, _) = shake(&peers.client, localhost(), near).await.unwrap();
        pieces(&mut near).await
    };
    let (_far, (all, end)) = tokio::join!(server, client);
    assert!(all == pattern(40_000) && end.is_ok(), "{end:?}");
}

#[tokio::test]
async fn a_server_that_cannot_prove_itself_hears_why_and_the_error_is_of_rustls() {
    let peers = Peers::tls13();
    let (near, far) = duplex(1 << 20);
    let other = ServerName::try_from("other.example").unwrap();
    let (near, far) =
        tokio::join!(shake(&peers.client, other, near), TlsAcceptor::from(Arc::clone(&peers.server)).accept(far));
    let (near, far) = (near.err().unwrap(), far.err().unwrap());
    assert!(matches!(reason(&near), Some(rustls::Error::InvalidCertificate(_))), "{near:?}");
    assert!(matches!(reason(&far), Some(rustls::Error::AlertReceived(_))), "{far:?}");

    let (near, far) = duplex(1 << 20);
    drop(far);
    let error = shake(&peers.client, localhost(), near).await.err().unwrap();
    assert!(matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe), "{error:?}");

    let (near, mut far) = duplex(1 << 20);
    far.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    let error = shake(&peers.client, localhost(), near).await.err().unwrap();
    assert!(matches!(reason(&error), Some(rustls::Error::InvalidMessage(_))), "{error:?}");
}

#[tokio::test]
async fn the_same_room_is_used_again_once_nobody_holds_a_piece_and_a_connection_that_waits_holds_none() {
    let (mut near, mut far) = Peers::tls13().meet_test().await;
    let mut places = Vec::new();
    let mut kept = None;
    for round in 0..6 {
        for _ in 0..4 {
            far.say(ContentType::ApplicationData, &[round; 16_384]).await;
        }
        let mut from = None;
        for _ in 0..4 {
            let piece = std::future::poll_fn(|cx| near.poll_piece(cx)).await.unwrap().unwrap();
            assert!(piece.len() == 16_384 && piece.iter().all(|byte| *byte == round));
            from = from.or(Some(piece.as_ptr().addr()));
            if round == 3 {
                kept = Some(piece);
            }
        }
        places.push(from.unwrap());
        let Encrypted::Records(records) = &mut near else { panic!() };
        assert_eq!(records.input.capacity(), 0, "{round}");
        assert!(records.poll_piece(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(records.input.capacity(), 0, "{round}");
    }
    assert!(places[1..4].iter().all(|place| *place == places[0]), "{places:?}");
    assert!(places[4] != places[0] && places[5] == places[4], "somebody holds a piece of the other: {places:?}");
    assert!(kept.unwrap().iter().all(|byte| *byte == 3));
}

#[tokio::test]
async fn small_pieces_of_all_connections_share_a_room_and_none_that_is_held_is_written_over() {
    let mut both = [Peers::tls13().meet_test().await, Peers::tls13().meet_test().await];
    let mut next = async |round: u8| {
        let (near, far) = &mut both[usize::from(round % 2)];
        far.say(ContentType::ApplicationData, &[round; 1000]).await;
        std::future::poll_fn(|cx| near.poll_piece(cx)).await.unwrap().unwrap()
    };
    let mut held = Vec::new();
    for round in 0..100 {
        held.push(next(round).await);
    }
    for (round, piece) in (0..).zip(&held) {
        assert!(piece.len() == 1000 && piece.iter().all(|byte| *byte == round), "{round}");
    }
    let neighbours = held.windows(2).filter(|pair| pair[0].as_ptr().addr() + 1000 == pair[1].as_ptr().addr());
    assert!(neighbours.count() >= 90, "more than thirty have room behind one another");
    drop(held);
    let mut places = Vec::new();
    for round in 100..200 {
        places.push(next(round).await.as_ptr().addr());
    }
    let (first, last) = (places.iter().min().unwrap(), places.iter().max().unwrap());
    assert!(last - first < 32 * 1024, "the room is used again once nobody holds a piece");
}

#[tokio::test]
async fn whoever_waits_for_a_piece_may_sleep_until_there_is_much() {
    const SHORT: Duration = Duration::from_millis(20);
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let peers = Peers::new(version, Resumption::default()).without_tickets();
        let (mut near, mut far) = peers.meet_over((near, listener.accept().await.unwrap().0)).await;
        near.set_low_water(10_000);
        far.write_all(b"little").await.unwrap();
        far.flush().await.unwrap();
        let mut piece = pin!(std::future::poll_fn(|cx| near.poll_piece(cx)));
        assert!(timeout(SHORT, &mut piece).await.is_err(), "{version:?}");
        far.write_all(&[0; 12_000]).await.unwrap();
        far.flush().await.unwrap();
        assert!(piece.await.unwrap().unwrap().starts_with(b"little"));
    }
}
