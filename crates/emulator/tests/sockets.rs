//! The two ends of each form of socket against each other, and against rude strangers.

// Helpers are tests too, which the lint does not see.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::net::UdpSocket;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use bowline_emulator::switch::{Incoming, Switch};
use bowline_lan::LanId;
use bowline_lan::message::MAX_MESSAGE_BYTES;
use bowline_lan::socket::{Received, ReplicaSocket, SocketError, SocketKind};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(10);

fn ids() -> [LanId; 2] {
    [LanId::from_value(0xA1), LanId::from_value(0xA2)]
}

fn hello(id: LanId) -> String {
    format!(r#"{{"src":"{id}","dst":"FFFF","leader":"FFFF","type":"hello"}}"#)
}

/// A switch, one connected replica, and the folder that they meet in.
fn connected(kind: SocketKind) -> (Switch, ReplicaSocket, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let mut switch = match kind {
        SocketKind::Udp => Switch::udp(&ids()).unwrap(),
        local => Switch::local(folder.path(), &ids(), local).unwrap(),
    };
    let mut replica = match switch.port() {
        Some(port) => ReplicaSocket::udp(port).unwrap(),
        None => ReplicaSocket::local(&folder.path().join("00A2"), None).unwrap(),
    };
    replica.send(hello(ids()[1]).as_bytes()).unwrap();
    assert_eq!(next(&mut switch), Some((1, hello(ids()[1]))));
    assert!(switch.is_connected(1) && !switch.is_connected(0));
    assert_eq!((switch.kind(), replica.kind()), (kind, kind));
    (switch, replica, folder)
}

fn wait(sockets: Vec<(BorrowedFd<'_>, PollFlags)>) {
    let mut polled: Vec<PollFd<'_>> =
        sockets.into_iter().map(|(socket, flags)| PollFd::from_borrowed_fd(socket, flags)).collect();
    poll(&mut polled, Some(&Timespec::try_from(PATIENCE).unwrap())).unwrap();
}

/// The next message to the switch; `None` when a replica has closed its socket.
fn next(switch: &mut Switch) -> Option<(usize, String)> {
    let mut buffer = Vec::new();
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        match switch.receive(&mut buffer) {
            Some(Incoming::Message { from, length }) => {
                let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
                return Some((from, text.trim_end().to_owned()));
            }
            Some(Incoming::Closed { .. }) => return None,
            None => wait(switch.sockets().collect()),
        }
    }
    panic!("nothing came");
}

fn heard(replica: &mut ReplicaSocket) -> Option<String> {
    match replica.receive(Some(PATIENCE), &mut Vec::new()).unwrap() {
        Received::Message(bytes) => Some(String::from_utf8(bytes.to_vec()).unwrap()),
        Received::Timeout => panic!("nothing came"),
        Received::Closed => None,
    }
}

#[test]
fn messages_keep_their_order_and_bounds_in_both_directions() {
    for kind in SocketKind::ALL {
        let (mut switch, mut replica, _folder) = connected(kind);
        for n in 0..100 {
            replica.send(format!("to the switch {n}\n").as_bytes()).unwrap();
            switch.send(1, format!("to the replica {n}").as_bytes());
        }
        for n in 0..100 {
            assert_eq!(next(&mut switch), Some((1, format!("to the switch {n}"))));
            assert_eq!(heard(&mut replica), Some(format!("to the replica {n}")));
        }
        let longest = "x".repeat(MAX_MESSAGE_BYTES);
        replica.send(longest.as_bytes()).unwrap();
        assert_eq!(next(&mut switch), Some((1, longest.clone())), "{kind}");
        switch.send(1, longest.as_bytes());
        assert_eq!(heard(&mut replica), Some(longest.clone()), "{kind}");
        replica.send(format!("{longest}x").as_bytes()).unwrap();
        assert_eq!(replica.counters().too_long, 1);
    }
}

#[test]
fn receiving_waits_as_long_as_it_may_and_no_longer() {
    for kind in SocketKind::ALL {
        let (mut switch, mut replica, _folder) = connected(kind);
        let mut buffer = Vec::new();
        let started = Instant::now();
        let wait = Duration::from_millis(30);
        let received = replica.receive(Some(wait), &mut buffer).unwrap();
        assert_eq!(received, Received::Timeout);
        assert!((wait..PATIENCE).contains(&started.elapsed()), "{kind}");
        let received = replica.receive(Some(Duration::ZERO), &mut buffer).unwrap();
        assert_eq!(received, Received::Timeout);
        switch.send(1, b"now");
        let received = replica.receive(Some(Duration::ZERO), &mut buffer).unwrap();
        assert_eq!(received, Received::Message(b"now"), "{kind}");
        let late = thread::spawn(move || {
            thread::sleep(Duration::from_millis(30));
            switch.send(1, b"later");
            switch
        });
        let received = replica.receive(None, &mut buffer).unwrap();
        assert_eq!(received, Received::Message(b"later"), "{kind}");
        late.join().unwrap();
    }
}

#[test]
fn each_side_sees_that_the_other_is_gone_and_loses_nothing_before() {
    for kind in SocketKind::ALL {
        let (mut switch, mut replica, _folder) = connected(kind);
        replica.send(b"last words").unwrap();
        if kind != SocketKind::Udp {
            // It never reads this: then the system resets the connection.
            switch.send(1, b"unread");
            drop(replica);
            assert_eq!(next(&mut switch), Some((1, "last words".to_owned())), "{kind}");
            assert_eq!(next(&mut switch), None);
            assert!(!switch.is_connected(1));
            switch.send(1, b"into the void");
            assert_eq!(switch.counters().unconnected, 1);
            (switch, replica, _) = connected(kind);
        }
        drop(switch);
        replica.send(b"is anybody there?").unwrap();
        assert_eq!(heard(&mut replica), None, "{kind}");
        assert_eq!(heard(&mut replica), None, "{kind}");
    }
}

#[test]
fn a_replica_that_does_not_read_costs_bounded_memory_and_blocks_nobody() {
    for kind in [SocketKind::Packets, SocketKind::Stream] {
        let (mut switch, mut replica, _folder) = connected(kind);
        let message = "y".repeat(10_000);
        for _ in 0..5_000 {
            switch.send(1, message.as_bytes());
        }
        let dropped = switch.counters().undelivered;
        assert!((1_000..5_000).contains(&dropped), "{kind}: {dropped} dropped");
        let reader = thread::spawn(move || {
            let count =
                (0..5_000 - dropped).take_while(|_| heard(&mut replica).is_some_and(|text| text.len() == 10_000));
            count.count() as u64
        });
        while !reader.is_finished() {
            // This is also where what had to wait is sent.
            switch.receive(&mut Vec::new());
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(reader.join().unwrap(), 5_000 - dropped, "{kind}");
    }
}

#[test]
fn a_network_that_does_not_read_costs_a_replica_bounded_memory() {
    for kind in [SocketKind::Packets, SocketKind::Stream] {
        let (_switch, mut replica, _folder) = connected(kind);
        let message = "z".repeat(10_000);
        for _ in 0..5_000 {
            replica.send(message.as_bytes()).unwrap();
        }
        assert!(replica.counters().dropped > 1_000, "{kind}");
    }
}

#[test]
fn datagrams_of_strangers_are_counted_and_ignored() {
    let (mut switch, mut replica, _folder) = connected(SocketKind::Udp);
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = switch.port().unwrap();
    let nobody = hello(LanId::from_value(7));
    let taken = hello(ids()[1]);
    for bytes in [b"garbage" as &[u8], b"", nobody.as_bytes(), taken.as_bytes()] {
        stranger.send_to(bytes, ("127.0.0.1", port)).unwrap();
    }
    replica.send(b"after them").unwrap();
    assert_eq!(next(&mut switch), Some((1, "after them".to_owned())));
    assert_eq!(switch.counters().foreign, 4);
    // Nor does a replica hear anybody but its network.
    let own = rustix::net::getsockname(replica.as_fd()).unwrap();
    let own = std::net::SocketAddr::try_from(own).unwrap();
    stranger.send_to(b"listen to me", own).unwrap();
    switch.send(1, b"from the network");
    assert_eq!(heard(&mut replica), Some("from the network".to_owned()));
}

#[test]
fn a_stream_may_be_cut_anywhere_and_too_long_lines_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let mut switch = Switch::local(folder.path(), &ids(), SocketKind::Stream).unwrap();
    let mut rude = UnixStream::connect(folder.path().join("00A1")).unwrap();
    let writer = thread::spawn(move || {
        rude.write_all(b"{\"half\":").unwrap();
        rude.flush().unwrap();
        thread::sleep(Duration::from_millis(20));
        rude.write_all(b"1}\n{}\n\n").unwrap();
        rude.write_all(&vec![b'x'; 3 * MAX_MESSAGE_BYTES]).unwrap();
        rude.write_all(b"\nend\n").unwrap();
    });
    for expected in ["{\"half\":1}", "{}", "end"] {
        assert_eq!(next(&mut switch), Some((0, expected.to_owned())));
    }
    assert_eq!(next(&mut switch), None);
    assert_eq!(switch.counters().oversized, 1);
    writer.join().unwrap();
}

#[test]
fn what_can_not_be_connected_to_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("0000");
    let message = |result: Result<ReplicaSocket, SocketError>| result.unwrap_err().to_string();
    assert!(message(ReplicaSocket::local(&path, None)).contains("No such file"));
    std::fs::write(&path, b"").unwrap();
    assert!(message(ReplicaSocket::local(&path, None)).contains("refused"));
    assert!(message(ReplicaSocket::udp(0)).contains("UDP port 0"));
    let _switch = Switch::local(folder.path(), &ids(), SocketKind::Packets).unwrap();
    let path = folder.path().join("00A1");
    let wrong = ReplicaSocket::local(&path, Some(SocketKind::Stream));
    assert!(message(wrong).contains("rong type"));
    let long = "d".repeat(100);
    let error = Switch::local(Path::new(&long), &ids(), SocketKind::Packets).unwrap_err();
    assert!(error.to_string().contains("can't use the socket file dddd"), "{error}");
}
