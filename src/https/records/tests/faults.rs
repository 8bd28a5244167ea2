//! What no server should say, and how a stream may end.

use rustls::AlertDescription as Alert;
use rustls::{Error, InvalidMessage, PeerMisbehaved};

use super::*;

/// A server says something against the rules: the stream breaks for that reason behind all that came before, and the server
/// hears why.
async fn check(name: &str, say: impl FnOnce(&mut Far) -> Vec<u8>, is: impl Fn(&Error) -> bool, alert: Option<Alert>) {
    let (mut near, mut far) = Peers::tls13().meet_test().await;
    far.say(ContentType::ApplicationData, b"before").await;
    let said = say(&mut far);
    far.io.write_all(&said).await.unwrap();
    far.say(ContentType::ApplicationData, b"behind").await;
    let (before, end) = pieces(&mut near).await;
    assert_eq!(before, b"before", "{name}");
    let error = end.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{name}");
    assert!(reason(&error).is_some_and(&is), "{name}: {error:?}");
    // It says the same again, and takes nothing more.
    let again = pieces(&mut near).await;
    assert!(again.0.is_empty() && reason(&again.1.unwrap_err()).is_some_and(is), "{name}");
    assert!(near.write(b"more").await.is_err(), "{name}");
    if let Some(alert) = alert {
        assert_eq!(far.hear().await, (ContentType::Alert, vec![2, alert.into()]), "{name}");
    }
    drop(near);
    assert_eq!(far.io.read(&mut [0]).await.unwrap(), 0, "{name}: and no more than that");
}

fn misbehaved(expected: PeerMisbehaved) -> impl Fn(&Error) -> bool {
    move |error| *error == Error::PeerMisbehaved(expected.clone())
}

fn invalid(expected: InvalidMessage) -> impl Fn(&Error) -> bool {
    move |error| *error == Error::InvalidMessage(expected)
}

const UNEXPECTED: Option<Alert> = Some(Alert::UnexpectedMessage);

#[tokio::test]
async fn a_record_that_looks_wrong_from_outside_ends_the_connection() {
    for kind in [0, 20, 21, 22, 24, 255] {
        let is = |error: &Error| matches!(error, Error::InappropriateMessage { .. });
        check(&format!("type {kind}"), |_| vec![kind, 3, 3, 0, 1, 1], is, UNEXPECTED).await;
    }
    for version in [[3, 1], [3, 4], [2, 0]] {
        let is = invalid(InvalidMessage::UnknownProtocolVersion);
        check("version", |_| vec![23, version[0], version[1], 0, 1, 1], is, Some(Alert::DecodeError)).await;
    }
    let too_long = |error: &Error| *error == Error::PeerSentOversizedRecord;
    check("length", |_| vec![23, 3, 3, 0x41, 0x01], too_long, Some(Alert::RecordOverflow)).await;
    for length in [0, 1, 16, 17, 0x4100] {
        let record = [&[23, 3, 3][..], &u16::to_be_bytes(length), &vec![7; usize::from(length)][..]].concat();
        let is = |error: &Error| *error == Error::DecryptError;
        check(&format!("{length} bytes of nonsense"), |_| record, is, Some(Alert::BadRecordMac)).await;
    }
}

#[tokio::test]
async fn a_byte_that_was_changed_on_the_way_is_noticed_wherever_it_is() {
    for at in [HEADER, HEADER + 1, 20, 40] {
        let changed = |far: &mut Far| {
            let mut record = far.record(ContentType::ApplicationData, &[b'x'; 30]);
            record[at] ^= 1;
            record
        };
        check(&format!("byte {at}"), changed, |error| *error == Error::DecryptError, Some(Alert::BadRecordMac)).await;
    }
    let swapped = |far: &mut Far| {
        let (first, second) =
            (far.record(ContentType::ApplicationData, b"1"), far.record(ContentType::ApplicationData, b"2"));
        [second, first].concat()
    };
    check("order", swapped, |error| *error == Error::DecryptError, Some(Alert::BadRecordMac)).await;
}

#[tokio::test]
async fn a_record_that_holds_what_it_must_not_ends_the_connection() {
    let data = ContentType::ApplicationData;
    let too_long = |error: &Error| *error == Error::PeerSentOversizedRecord;
    check("content", |far| far.record(data, &[1; 16_385]), too_long, Some(Alert::RecordOverflow)).await;
    let is = misbehaved(PeerMisbehaved::IllegalMiddleboxChangeCipherSpec);
    check("CCS", |far| far.record(ContentType::ChangeCipherSpec, &[1]), is, UNEXPECTED).await;
    let is = misbehaved(PeerMisbehaved::IllegalTlsInnerPlaintext);
    check("no type", |far| far.record(ContentType::from(0), &[]), is, UNEXPECTED).await;
    let is = |error: &Error| matches!(error, Error::InappropriateMessage { .. });
    check("heartbeat", |far| far.record(ContentType::Heartbeat, &[1]), is, UNEXPECTED).await;
    let is = misbehaved(PeerMisbehaved::TooManyEmptyFragments);
    check("nothing", |far| (0..33).flat_map(|_| far.record(data, &[])).collect(), is, UNEXPECTED).await;
}

#[tokio::test]
async fn messages_of_the_handshake_are_taken_whole_in_their_place_or_not_at_all() {
    let (data, handshake) = (ContentType::ApplicationData, ContentType::Handshake);
    let is = invalid(InvalidMessage::InvalidEmptyPayload);
    check("no fragment", |far| far.record(handshake, &[]), is, UNEXPECTED).await;
    let is = misbehaved(PeerMisbehaved::MessageInterleavedWithHandshakeMessage);
    let within = |far: &mut Far| [far.record(handshake, &[4, 0, 0, 9, 1]), far.record(data, b"x")].concat();
    check("data within", within, is, UNEXPECTED).await;
    for kind in [0, 1, 2, 8, 13, 20, 254] {
        let is = |error: &Error| matches!(error, Error::InappropriateHandshakeMessage { .. });
        check(&format!("message {kind}"), |far| far.record(handshake, &[kind, 0, 0, 1, 0]), is, UNEXPECTED).await;
    }
    let is = invalid(InvalidMessage::HandshakePayloadTooLarge);
    check("long", |far| far.record(handshake, &[4, 1, 0, 0]), is, Some(Alert::DecodeError)).await;
    let ticket = |far: &mut Far| far.record(handshake, &[4, 0, 0, 1, 0]);
    check("a bad ticket", ticket, |error| matches!(error, Error::InvalidMessage(_)), Some(Alert::DecodeError)).await;
    for update in [&[24, 0, 0, 0][..], &[24, 0, 0, 2, 0, 0], &[24, 0, 0, 1, 2]] {
        let is = invalid(InvalidMessage::InvalidKeyUpdate);
        check("an update", |far| far.record(handshake, update), is, Some(Alert::IllegalParameter)).await;
    }
    let is = misbehaved(PeerMisbehaved::KeyEpochWithPendingFragment);
    check("behind an update", |far| far.record(handshake, &[24, 0, 0, 1, 0, 4]), is, UNEXPECTED).await;
}

#[tokio::test]
async fn an_alert_is_a_record_of_its_own_and_ends_the_connection_whatever_its_level() {
    let alert = |level: u8, alert: Alert| move |far: &mut Far| far.record(ContentType::Alert, &[level, alert.into()]);
    let said = [
        (2, Alert::InternalError),
        (1, Alert::InternalError),
        (2, Alert::UnknownCA),
        // A cancellation that is final.
        (2, Alert::UserCanceled),
    ];
    for (level, said) in said {
        check("an alert", alert(level, said), |error| *error == Error::AlertReceived(said), None).await;
    }
    for (level, said) in [(0, Alert::CloseNotify), (3, Alert::UserCanceled)] {
        let is = |error: &Error| *error == Error::AlertReceived(said);
        check("a level that is none", alert(level, said), is, Some(Alert::IllegalParameter)).await;
    }
    for content in [&[][..], &[2], &[2, 80, 2, 80]] {
        let cut = |far: &mut Far| far.record(ContentType::Alert, content);
        check("no alert", cut, invalid(InvalidMessage::MessageTooShort), Some(Alert::DecodeError)).await;
    }
    let canceled = |far: &mut Far| (0..5).flat_map(|_| alert(1, Alert::UserCanceled)(far)).collect();
    check("canceled", canceled, misbehaved(PeerMisbehaved::TooManyWarningAlertsReceived), UNEXPECTED).await;
}

#[tokio::test]
async fn a_goodbye_ends_the_stream_and_nothing_else_does() {
    let (mut near, mut far) = Peers::tls13().meet_test().await;
    far.say(ContentType::ApplicationData, b"all").await;
    far.say(ContentType::Alert, &[1, Alert::UserCanceled.into()]).await;
    far.say(ContentType::Alert, &[1, Alert::CloseNotify.into()]).await;
    far.io.write_all(b"what follows is none of it").await.unwrap();
    let (all, end) = pieces(&mut near).await;
    assert!(all == b"all" && end.is_ok(), "{end:?}");
    assert!(pieces(&mut near).await.1.is_ok(), "and stays ended");
    // The other direction is open.
    near.write_all(b"thanks").await.unwrap();
    assert_eq!(far.hear().await, (ContentType::ApplicationData, b"thanks".to_vec()));

    for cut in [0, 3, HEADER, 20] {
        let (mut near, mut far) = Peers::tls13().meet_test().await;
        far.say(ContentType::ApplicationData, b"some").await;
        let record = far.record(ContentType::ApplicationData, b"more");
        far.io.write_all(&record[..cut]).await.unwrap();
        drop(far);
        let (some, end) = pieces(&mut near).await;
        assert_eq!((&some[..], end.unwrap_err().kind()), (&b"some"[..], io::ErrorKind::UnexpectedEof), "{cut}");
    }
}

#[tokio::test]
async fn a_server_that_renews_its_keys_again_and_again_is_refused() {
    let peers = Peers::tls13();
    let (mut near, mut far) = peers.meet(1 << 20).await;
    for round in 0..32 {
        far.get_mut().1.refresh_traffic_keys().unwrap();
        if round % 20 == 19 {
            // Bytes of the stream in between are work.
            far.write_all(b"data").await.unwrap();
        }
    }
    far.write_all(b"data").await.unwrap();
    far.shutdown().await.unwrap();
    let (data, end) = pieces(&mut near).await;
    assert!(data == b"datadata" && end.is_ok(), "{end:?}");

    let (mut near, mut far) = peers.meet(1 << 20).await;
    for _ in 0..33 {
        far.get_mut().1.refresh_traffic_keys().unwrap();
    }
    far.write_all(b"data").await.unwrap();
    let (data, end) = pieces(&mut near).await;
    let error = end.unwrap_err();
    assert_eq!(reason(&error), Some(&Error::PeerMisbehaved(PeerMisbehaved::TooManyKeyUpdateRequests)));
    assert!(data.is_empty());
}
