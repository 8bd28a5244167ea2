//! For how many bytes the system wakes whoever waits for a socket (`SO_RCVLOWAT` in socket(7)).
//!
//! In: a socket and a number. Out: nothing is said to be readable before so many bytes are there, unless the stream has ended
//! or broken, or room is short. What there is can be read all the same.

use std::os::fd::AsFd;

/// Sets it; 1 is what sockets begin with. Lowered, it says at once that there is something if there is. A system of which that
/// is not known wakes for every byte, as ever.
#[cfg(target_os = "linux")]
pub(super) fn set(socket: &impl AsFd, bytes: u32) {
    use std::os::fd::AsRawFd as _;
    use std::sync::LazyLock;

    static RELIED_ON: LazyLock<bool> =
        LazyLock::new(|| says_when_lowered(&rustix::system::uname().release().to_string_lossy()));

    if !*RELIED_ON {
        return;
    }
    let number = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    let socket = socket.as_fd();
    // It fails for what is no socket, and then nothing has changed.
    #[expect(unsafe_code, reason = "the one call of it, since no crate sets this option by a safe one")]
    // SAFETY: `socket` is borrowed, so it is open, and `number` outlives the call, which reads as many bytes as it has.
    let _ = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            (&raw const number).cast(),
            size_of_val(&number) as libc::socklen_t,
        )
    };
}

/// Elsewhere nobody would be woken when it is lowered.
#[cfg(not(target_os = "linux"))]
pub(super) fn set(_: &impl AsFd, _: u32) {}

/// Whether a Linux of this release signals what there is when the number is lowered: since 4.18 (03f45c883c6f, "tcp: avoid
/// extra wakeups for SO_RCVLOWAT users"). Before, whoever waits for an edge would sleep until the next byte.
fn says_when_lowered(release: &str) -> bool {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(str::parse::<u32>);
    matches!((numbers.next(), numbers.next()), (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= (4, 18))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt as _;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    /// How many bytes can be read of a socket that says, within so many milliseconds, that there are some.
    async fn read(near: &TcpStream, milliseconds: u64) -> usize {
        let reading = async {
            loop {
                near.readable().await.unwrap();
                if let Ok(count) = near.try_read(&mut [0; 2000]) {
                    return count;
                }
            }
        };
        timeout(Duration::from_millis(milliseconds), reading).await.unwrap_or(0)
    }

    const SHORT: u64 = 20;
    const LONG: u64 = 10_000;

    #[tokio::test]
    async fn nobody_is_woken_before_there_is_enough_and_then_all_there_is_can_be_read() {
        let (near, mut far) = pair().await;
        set(&near, 1000);
        far.write_all(&[0; 999]).await.unwrap();
        assert_eq!(read(&near, SHORT).await, 0);
        far.write_all(&[0; 2]).await.unwrap();
        assert_eq!(read(&near, LONG).await, 1001);
    }

    #[tokio::test]
    async fn who_waited_for_much_is_woken_when_little_will_do_and_there_is_some() {
        let (near, mut far) = pair().await;
        set(&near, 1000);
        far.write_all(&[0; 10]).await.unwrap();
        assert_eq!(read(&near, SHORT).await, 0);
        set(&near, 1);
        assert_eq!(read(&near, LONG).await, 10);
    }

    #[tokio::test]
    async fn the_end_wakes_however_little_came_before_it() {
        let (near, mut far) = pair().await;
        set(&near, 1000);
        far.write_all(&[0; 10]).await.unwrap();
        assert_eq!(read(&near, SHORT).await, 0);
        drop(far);
        assert_eq!(read(&near, LONG).await, 10);
    }

    #[test]
    fn it_is_left_alone_where_nobody_would_be_woken() {
        for (release, good) in [
            ("4.18.0-553.el8_10.x86_64", true),
            ("5.10.234-225.910.amzn2.x86_64", true),
            ("6.18.44-fc", true),
            ("10.0", true),
            ("4.17.19", false),
            ("4.14.355-276.amzn2", false),
            ("3.10.0-1160.el7", false),
            ("4.4.0", false),
            ("4", false),
            ("", false),
            ("sun", false),
        ] {
            assert_eq!(says_when_lowered(release), good, "{release}");
        }
    }
}
