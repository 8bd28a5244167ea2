//! A server that has nothing better than TLS 1.2.

use super::*;

#[tokio::test]
async fn tls12_carries_the_same_bytes_and_ends_in_the_same_ways() {
    let peers = Peers::new(&rustls::version::TLS12, Resumption::default());
    for pipe in [700, 1 << 20] {
        // The second time the session is resumed.
        for _ in 0..2 {
            let (mut near, mut far) = peers.meet(pipe).await;
            assert!(matches!(near, Encrypted::Older(_)));
            let sent: Vec<u8> = (0..200_000).map(|index| (index % 251) as u8).collect();
            let mut received = vec![0; sent.len()];
            let client = async {
                near.write_all(&sent).await.unwrap();
                near.flush().await.unwrap();
            };
            let ((), read) = tokio::join!(client, far.read_exact(&mut received));
            read.unwrap();
            assert!(received == sent, "up");
            let server = async {
                far.write_all(&sent).await.unwrap();
                far.shutdown().await.unwrap();
            };
            let ((), (all, end)) = tokio::join!(server, pieces(&mut near));
            assert!(all == sent && end.is_ok(), "{end:?}");
            let (goodbye, end) = tokio::join!(near.shutdown(), far.read(&mut received));
            goodbye.unwrap();
            assert_eq!(end.unwrap(), 0);
            assert!(near.taken() > sent.len() as u64);
        }
    }
}

#[tokio::test]
async fn tls12_that_is_cut_off_or_changed_does_not_end_well() {
    let peers = Peers::new(&rustls::version::TLS12, Resumption::default());
    let (mut near, mut far) = peers.meet(1 << 20).await;
    far.write_all(b"some").await.unwrap();
    drop(far);
    let (some, end) = pieces(&mut near).await;
    assert_eq!((&some[..], end.unwrap_err().kind()), (&b"some"[..], io::ErrorKind::UnexpectedEof));

    let (mut near, mut far) = peers.meet(1 << 20).await;
    far.write_all(b"some").await.unwrap();
    far.get_mut().0.write_all(&[&[23, 3, 3, 0, 40][..], &[7; 40]].concat()).await.unwrap();
    let (some, end) = pieces(&mut near).await;
    assert_eq!((&some[..], reason(&end.unwrap_err())), (&b"some"[..], Some(&rustls::Error::DecryptError)));
    let alert = far.read(&mut [0; 9]).await.unwrap_err();
    assert_eq!(
        reason(&alert),
        Some(&rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac)),
        "{alert:?}"
    );
    assert!(near.write(b"more").await.is_err());
}
