//! What `cargo bench --bench side_by_side` does where things are not as they should be: on one core, with a port that
//! is taken, with a program that does not start. Its figures are not tested, and nothing is timed here.

#![allow(clippy::unwrap_used, reason = "a test may end itself")]
#![allow(missing_docs, reason = "the tests' names are their documentation")]
#![allow(dead_code, reason = "the bench's own files, of which parts are tested")]

#[path = "../benches/kit/mod.rs"]
mod kit;

#[path = "../benches/side_by_side/direct.rs"]
mod direct;
#[path = "../benches/side_by_side/equal.rs"]
mod equal;
#[path = "../benches/side_by_side/latency.rs"]
mod latency;
#[path = "../benches/side_by_side/machine.rs"]
mod machine;
#[path = "../benches/side_by_side/options.rs"]
mod options;
#[path = "../benches/side_by_side/peers.rs"]
mod peers;
#[path = "../benches/side_by_side/recipes.rs"]
mod recipes;
#[path = "../benches/side_by_side/report.rs"]
mod report;
#[path = "../benches/side_by_side/rounds.rs"]
mod rounds;
#[path = "../benches/side_by_side/soak.rs"]
mod soak;
#[path = "../benches/side_by_side/stand_in.rs"]
mod stand_in;
#[path = "../benches/side_by_side/wrk.rs"]
mod wrk;

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use clap::Parser as _;
use direct::Direct;
use kit::process::{Running, command};
use machine::{Division, Machine, counted_out};
use options::{Options, Peer, Work};
use peers::{How, Place};
use stand_in::StandIn;

#[test]
fn one_core_is_not_divided_and_four_leave_two_for_the_load() {
    let divided = |list: &str| Division::of(&counted_out(list));
    assert_eq!(divided("3"), None);
    assert_eq!(divided(""), None);
    assert_eq!(divided("0-1"), Some(Division { proxy: 0, two: None, load: vec![1] }));
    assert_eq!(divided("2,5,7"), Some(Division { proxy: 2, two: None, load: vec![5, 7] }));
    assert_eq!(divided("0-1,4-5"), Some(Division { proxy: 0, two: Some([0, 1]), load: vec![4, 5] }));
}

#[test]
fn the_soak_is_only_done_when_it_is_named() {
    let works = |words: &[&str]| Options::parse_from([&["side_by_side"], words].concat()).filled_in().works;
    assert!(!works(&[]).contains(&Work::Soak) && works(&[]).contains(&Work::Memory));
    assert!(!works(&["--quick"]).contains(&Work::Soak));
    assert_eq!(works(&["--works", "soak"]), [Work::Soak]);
}

#[test]
fn a_slope_is_that_of_the_line_through_the_samples() {
    let line = |step: u64| (0..60).map(|at| (f64::from(at), 1_000 + step * at as u64)).collect::<Vec<_>>();
    for step in [0, 1, 7] {
        let slope = soak::slope(&line(step)).unwrap();
        assert!((slope - step as f64).abs() < 1e-9, "{slope}");
    }
    assert_eq!(soak::slope(&[]), None);
    assert_eq!(soak::slope(&[(1.0, 5)]), None);
}

/// What peers are started from, with `program` for ours.
fn with_place(program: &str, test: impl FnOnce(&Place<'_>)) {
    let options = Options::parse_from(["side_by_side", "--binary", program]).filled_in();
    let machine = Machine {
        proxy: None,
        two: None,
        all: "0".to_owned(),
        cores: 1,
        load_threads: 1,
        wrk: None,
        descriptors: 1_000,
        notes: Vec::new(),
    };
    let directory = tempfile::tempdir().unwrap();
    let stand_in = StandIn::start(1).unwrap();
    peers::write(&directory.path().join("root.pem"), &stand_in.root_pem, 0o644).unwrap();
    test(&Place { options: &options, machine: &machine, stand_in: &stand_in, directory: directory.path() });
}

const OURS: &str = env!("CARGO_BIN_EXE_cloudbeds-auth-proxy");

#[test]
fn ours_does_equal_work_over_both_versions_of_http() {
    with_place(OURS, |place| {
        for peer in [Peer::OursH1, Peer::OursH2] {
            let proxy = place.start(peer, How::default()).unwrap();
            assert_eq!(equal::faults(&proxy, place.stand_in), Vec::<String>::new());
        }
    });
}

#[test]
fn a_peer_whose_port_is_taken_says_so_and_is_given_another_one() {
    with_place(OURS, |place| {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let why = place.start_at(taken.local_addr().unwrap(), Peer::OursH1, How::default()).err().unwrap();
        assert!(why.contains("ours-h1") && why.contains("another process is listening there"), "{why}");
        assert_ne!(place.start(Peer::OursH1, How::default()).unwrap().address, taken.local_addr().unwrap());
    });
}

#[test]
fn a_peer_that_does_not_start_is_told_in_a_sentence() {
    for program in ["/bin/false", "/there/is/no/such/program"] {
        with_place(program, |place| {
            let why = place.start(Peer::OursH1, How::default()).err().unwrap();
            assert!(why.starts_with("ours-h1 "), "{why}");
        });
    }
}

#[test]
fn who_listens_is_not_mistaken_for_who_should() {
    let directory = tempfile::tempdir().unwrap();
    let somebody = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = somebody.local_addr().unwrap();
    let gone = command(Path::new("/bin/false"), None);
    let mut gone = Running::start("gone", gone, &directory.path().join("out")).unwrap();
    let why = gone.wait_ready(Duration::from_secs(10), |own| own.listens(address)).unwrap_err();
    assert!(why.starts_with("gone ended by itself (exit status: 1)"), "{why}");
}

#[test]
fn the_upstream_answers_straight_calls_in_both_versions_of_http() {
    let stand_in = StandIn::start(1).unwrap();
    for (address, http2) in [(stand_in.http1, false), (stand_in.http2, true)] {
        let direct = Direct::new(address, &stand_in, http2, latency::LIMIT).unwrap();
        let mut caller = direct.connect().unwrap();
        for number in 0..3 {
            let answer = caller.call(&latency::get(number)).unwrap();
            assert_eq!((answer.status, answer.bytes, answer.kept), (200, 1024, true), "HTTP/2: {http2}");
        }
    }
}
