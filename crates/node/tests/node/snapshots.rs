//! Snapshots: made when they are due, carried in pieces, installed whole, and never believed in part.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bowline_node::raft::{
    Body, Group, Index, InstallSnapshot, Membership, Message, NodeId, Position, Session, SnapshotHeader, Term,
};
use bowline_node::{NodeConfig, NodeInput, NodeMessage, NotDone, Response, SnapshotChunk, SnapshotChunkReply, Unknown};
use bytes::Bytes;

use crate::cluster::{AN_ELECTION, Cluster, n};
use crate::ledger::RECALLED;

const CHUNK: usize = 64;
const MAX_SNAPSHOT: u64 = 10_000;

fn small(config: &mut NodeConfig) {
    config.raft.max_retained_bytes = 400;
    config.snapshot_at_bytes = 800;
    config.chunk_bytes = CHUNK;
    config.max_snapshot_bytes = MAX_SNAPSHOT;
}

/// A leader, and a follower that can only be helped by a snapshot, still cut off.
fn one_left_behind(seed: u64) -> (Cluster, NodeId, NodeId) {
    let mut cluster = Cluster::configured(3, seed, small);
    let (leader, others) = cluster.elect();
    cluster.fill(leader, "early", 1);
    cluster.isolate(others[0]);
    cluster.fill(leader, "w", 30);
    let log = cluster.node(leader).raft().log();
    assert!(log.base().index > cluster.node(others[0]).raft().log().last().index, "its entries are gone");
    (cluster, leader, others[0])
}

fn chunks(cluster: &Cluster, to: NodeId) -> Vec<&SnapshotChunk> {
    let mut chunks = Vec::new();
    for (_, receiver, message) in &cluster.sent {
        if let NodeMessage::Chunk(chunk) = message
            && *receiver == to
        {
            chunks.push(chunk);
        }
    }
    chunks
}

fn replies(cluster: &Cluster, by: NodeId) -> Vec<SnapshotChunkReply> {
    let reply = |(from, _, message): &(NodeId, NodeId, NodeMessage)| match message {
        NodeMessage::ChunkReply(reply) if *from == by => Some(*reply),
        _ => None,
    };
    cluster.sent.iter().filter_map(reply).collect()
}

#[test]
fn a_snapshot_is_made_when_the_log_has_grown_and_the_log_shrinks() {
    let mut cluster = Cluster::configured(3, 1, small);
    let (leader, _) = cluster.elect();
    cluster.fill(leader, "w", 8);
    assert!(cluster.node(leader).raft().log().bytes() <= 800);
    assert_eq!(cluster.stored, [], "not before it is due");
    cluster.fill(leader, "x", 20);
    for id in cluster.ids() {
        let made: Vec<Index> =
            cluster.stored.iter().filter(|(by, _)| *by == id).map(|(_, header)| header.position.index).collect();
        assert!(made.len() >= 2 && made.is_sorted_by(|a, b| a < b), "{made:?}");
        assert!(made.len() <= 8, "not one for each entry: {made:?}");
        assert!(cluster.node(id).raft().log().bytes() <= 800 + 100);
    }
}

#[test]
fn a_replica_starts_from_its_snapshot() {
    let mut cluster = Cluster::configured(3, 1, small);
    let (leader, _) = cluster.elect();
    cluster.fill(leader, "w", 30);
    let before = cluster.lines(leader);
    cluster.crash(leader);
    cluster.start(leader);
    let recovered = cluster.lines(leader);
    assert!(!recovered.is_empty() && before.starts_with(&recovered), "what the snapshot holds is there at once");
    cluster.pass(AN_ELECTION);
    assert_eq!(cluster.lines(leader), before);
}

#[test]
fn a_snapshot_crosses_a_bad_network_in_pieces() {
    for seed in 1..=10 {
        let (mut cluster, leader, follower) = one_left_behind(seed);
        (cluster.lost, cluster.doubled, cluster.delay) = (20, 30, Duration::from_millis(10));
        cluster.cut.clear();
        cluster.pass(Duration::from_secs(20));
        (cluster.lost, cluster.doubled, cluster.delay) = (0, 0, Duration::ZERO);
        cluster.pass(AN_ELECTION);
        assert_eq!(cluster.lines(follower), cluster.lines(leader), "seed {seed}");
        assert_eq!(cluster.lines(follower).len(), 31);
        let chunks = chunks(&cluster, follower);
        assert!(chunks.iter().any(|chunk| chunk.offset > 0), "there are several pieces");
        assert!(chunks.iter().all(|chunk| chunk.data.len() <= CHUNK && !chunk.data.is_empty()));
        assert!(cluster.stored.iter().any(|(by, _)| *by == follower));
    }
}

#[test]
fn a_receiver_that_restarts_starts_over() {
    let (mut cluster, leader, follower) = one_left_behind(1);
    cluster.cut.clear();
    let half_way = |cluster: &Cluster| {
        let total = chunks(cluster, follower).last().map_or(0, |chunk| chunk.total);
        replies(cluster, follower).last().is_some_and(|reply| reply.received > 0 && reply.received < total)
    };
    while !half_way(&cluster) {
        cluster.pass(Duration::from_micros(100));
    }
    cluster.crash(follower);
    cluster.start(follower);
    let before = replies(&cluster, follower).len();
    cluster.pass(AN_ELECTION);
    assert_eq!(replies(&cluster, follower)[before].received, 0, "it knows nothing of the earlier pieces");
    assert_eq!(cluster.lines(follower), cluster.lines(leader));
}

#[test]
fn a_sender_that_restarts_starts_over() {
    let (mut cluster, leader, follower) = one_left_behind(2);
    cluster.cut.clear();
    while replies(&cluster, follower).is_empty() {
        cluster.pass(Duration::from_micros(100));
    }
    cluster.crash(leader);
    cluster.pass(AN_ELECTION);
    cluster.start(leader);
    cluster.pass(AN_ELECTION);
    assert!(cluster.ids().iter().all(|id| cluster.lines(*id).len() == 31));
}

/// Pieces of a transfer to replica 1, handed over one by one.
struct TransferTest {
    cluster: Cluster,
    header: SnapshotHeader,
}

impl TransferTest {
    fn new() -> TransferTest {
        let membership = Membership::simple(Group::of_voters([n(1), n(2), n(3)]));
        let header = SnapshotHeader { position: Position::new(Index(7), Term(1)), membership };
        let mut cluster = Cluster::configured(3, 1, small);
        // They meet.
        cluster.pass(Duration::from_millis(20));
        TransferTest { cluster, header }
    }

    /// What replica 1 answers to this piece; `None` if it is silent.
    fn piece(&mut self, session: u64, total: usize, offset: usize, data: &str) -> Option<u64> {
        self.piece_from(n(2), session, total, offset, data)
    }

    fn piece_from(&mut self, from: NodeId, session: u64, total: usize, offset: usize, data: &str) -> Option<u64> {
        let chunk = SnapshotChunk {
            term: Term(1),
            session: Session(session),
            header: self.header.clone(),
            total: total as u64,
            offset: offset as u64,
            data: Bytes::copy_from_slice(data.as_bytes()),
        };
        self.cluster.sent.clear();
        self.cluster.input(n(1), NodeInput::Receive { from, message: NodeMessage::Chunk(chunk) });
        let reply = replies(&self.cluster, n(1)).last().copied();
        assert!(reply.is_none_or(|reply| reply.session == Session(session) && reply.term == Term(1)));
        reply.map(|reply| reply.received)
    }

    /// What the state machine holds once the disk has done its work.
    fn installed(&mut self) -> Vec<String> {
        self.cluster.pass(Duration::from_millis(5));
        self.cluster.lines(n(1))
    }
}

#[test]
fn pieces_of_two_snapshots_are_never_mixed() {
    let mut transfer = TransferTest::new();
    let (a, b) = ("ledger 1\n1 a\n", "ledger 1\n1 b\n");
    assert_eq!((a.len(), b.len()), (13, 13));
    assert_eq!(transfer.piece(1, 13, 0, &a[..11]), Some(11));
    // The rest of another session, of another sender, of another length, of another place in the log.
    assert_eq!(transfer.piece(2, 13, 11, &b[11..]), Some(0));
    assert_eq!(transfer.piece(1, 13, 0, &a[..11]), Some(11));
    assert_eq!(transfer.piece_from(n(3), 1, 13, 11, &b[11..]), Some(0));
    assert_eq!(transfer.piece(1, 13, 0, &a[..11]), Some(11));
    assert_eq!(transfer.piece(1, 14, 11, &b[11..]), Some(0));
    assert_eq!(transfer.piece(1, 13, 0, &a[..11]), Some(11));
    transfer.header.position.index = Index(8);
    assert_eq!(transfer.piece(1, 13, 11, &b[11..]), Some(0));
    assert_eq!(transfer.installed(), [""; 0]);
    assert_eq!(transfer.piece(1, 13, 0, b), Some(13));
    assert_eq!(transfer.installed(), ["b"]);
}

#[test]
fn doubled_gaping_and_overlong_pieces_change_nothing() {
    let mut transfer = TransferTest::new();
    let whole = "ledger 1\n1 a\n";
    assert_eq!(transfer.piece(1, 13, 5, &whole[5..]), Some(0), "a gap");
    assert_eq!(transfer.piece(1, 13, 0, &whole[..5]), Some(5));
    assert_eq!(transfer.piece(1, 13, 0, &whole[..5]), Some(5), "doubled");
    assert_eq!(transfer.piece(1, 13, 6, &whole[6..]), Some(5), "a gap");
    assert_eq!(transfer.piece(1, 13, 5, &format!("{}and more", &whole[5..])), Some(5), "longer than announced");
    assert_eq!(transfer.piece(1, 13, 5, ""), Some(5), "empty");
    assert_eq!(transfer.installed(), [""; 0]);
    assert_eq!(transfer.piece(1, 13, 5, &whole[5..]), Some(13));
    assert_eq!(transfer.installed(), ["a"]);
    assert_eq!(transfer.piece(1, 13, 5, &whole[5..]), Some(13), "the last piece again");
    assert_eq!(transfer.piece(1, 13, 0, &whole[..5]), Some(13), "the first piece again");
    transfer.cluster.pass(Duration::from_millis(10));
    assert_eq!(transfer.cluster.stored.len(), 1, "it was installed once");
}

#[test]
fn a_snapshot_that_is_too_large_is_not_even_begun() {
    let mut transfer = TransferTest::new();
    assert_eq!(transfer.piece(1, MAX_SNAPSHOT as usize + 1, 0, "ledger 1\n"), None);
    assert_eq!(transfer.piece(2, usize::MAX, 0, "ledger 1\n"), None);
    assert_eq!(transfer.piece(3, MAX_SNAPSHOT as usize, 0, "ledger 1\n"), Some(9));
}

#[test]
fn a_snapshot_that_can_not_be_restored_is_refused_and_asked_for_again() {
    let mut transfer = TransferTest::new();
    assert_eq!(transfer.piece(1, 13, 0, "nonsense"), Some(8));
    assert_eq!(transfer.piece(1, 13, 8, "!!!!!"), None, "it is not acknowledged");
    assert_eq!(transfer.piece(1, 13, 8, "!!!!!"), Some(0), "and asked for from its start");
    assert_eq!(transfer.piece(1, 13, 0, "ledger 1\n1 a\n"), Some(13));
    assert_eq!(transfer.installed(), ["a"]);
}

#[test]
fn a_snapshot_that_was_damaged_on_its_way_is_sent_again() {
    let (mut cluster, leader, follower) = one_left_behind(1);
    let damaged = Rc::new(Cell::new(0));
    let counter = Rc::clone(&damaged);
    cluster.meddle = Box::new(move |_, _, message| {
        if let NodeMessage::Chunk(chunk) = message
            && chunk.offset == 0
            && counter.get() < 2
        {
            counter.set(counter.get() + 1);
            let mut data = chunk.data.to_vec();
            data[0] ^= 1;
            chunk.data = data.into();
        }
        true
    });
    cluster.cut.clear();
    cluster.pass(AN_ELECTION);
    assert_eq!(damaged.get(), 2);
    assert_eq!(cluster.lines(follower), cluster.lines(leader));
}

#[test]
fn an_announcement_without_a_snapshot_is_ignored() {
    let mut cluster = Cluster::configured(3, 1, small);
    let (leader, others) = cluster.elect();
    cluster.fill(leader, "w", 3);
    cluster.pass(Duration::from_millis(200));
    let own = cluster.node(leader).raft().term();
    let membership = Membership::simple(Group::of_voters([n(9)]));
    let snapshot = SnapshotHeader { position: Position::new(Index(99), own), membership };
    for (term, to) in [(own, others[0]), (own.next(), others[0]), (own.next(), leader)] {
        let body = Body::InstallSnapshot(InstallSnapshot { session: Session(1), snapshot: snapshot.clone() });
        let message = NodeMessage::Raft(Message { term, body });
        cluster.sent.clear();
        cluster.input(to, NodeInput::Receive { from: leader, message });
        assert_eq!(cluster.sent, []);
        assert_eq!((cluster.node(to).raft().term(), cluster.lines(to).len()), (own, 3));
        assert!(cluster.node(to).raft().membership().is_voter(n(1)));
    }
    cluster.fill(leader, "x", 1);
}

/// A slow follower and a busy leader: the snapshot under way is one of before, whatever comes after it.
#[test]
fn a_snapshot_is_sent_to_its_end_while_new_ones_are_made() {
    for late in [None, Some(Duration::from_millis(3))] {
        let mut cluster = Cluster::with_machines(3, 5, small, late);
        let (leader, others) = cluster.elect();
        cluster.isolate(others[0]);
        cluster.fill(leader, "w", 30);
        cluster.delay = Duration::from_millis(60);
        cluster.cut.clear();
        let mut number = 0;
        while cluster.lines(others[0]).is_empty() {
            let token = cluster.write(leader, &format!("more{number}"));
            cluster.pass(Duration::from_millis(20));
            assert!(number < 3_000, "it never arrives; {:?}", cluster.response(token));
            number += 1;
        }
        let sent = chunks(&cluster, others[0]);
        let first = sent[0].header.clone();
        let whole: u64 = sent.iter().filter(|chunk| chunk.header == first).map(|chunk| chunk.data.len() as u64).sum();
        assert!(whole >= sent[0].total, "the first one was sent to its end");
        let made = |(by, header): &&(NodeId, SnapshotHeader)| *by == leader && header.position > first.position;
        assert!(cluster.stored.iter().filter(made).count() > 1, "and others were made meanwhile");
        cluster.delay = Duration::ZERO;
        cluster.pass(AN_ELECTION);
        cluster.pass(AN_ELECTION);
        assert_eq!(cluster.lines(others[0]), cluster.lines(leader));
    }
}

/// A leader that was cut off with an open write comes back, and a snapshot takes the place of its
/// log: what the state remembers decides the answer.
fn answer_after_install(heard_by_others: bool, lines: usize) -> Response {
    let mut cluster = Cluster::configured(3, 1, small);
    let (old, others) = cluster.elect();
    if heard_by_others {
        cluster.cut.extend(others.iter().map(|id| (*id, old)));
    } else {
        cluster.isolate(old);
    }
    let token = cluster.write(old, "open");
    cluster.pass(Duration::from_millis(100));
    cluster.isolate(old);
    cluster.pass(AN_ELECTION);
    let new = cluster.leader().unwrap();
    assert!(new != old && cluster.response(token).is_none());
    cluster.fill(new, "w", lines);
    assert_eq!(cluster.lines(new).contains(&"open".to_owned()), heard_by_others);
    // A leader begins a transfer when it is due, with the snapshot of that time: let it begin now.
    cluster.crash(new);
    cluster.start(new);
    cluster.pass(AN_ELECTION);
    let new = cluster.leader().unwrap();
    cluster.sent.clear();
    cluster.cut.clear();
    cluster.pass(AN_ELECTION);
    assert!(!chunks(&cluster, old).is_empty(), "it came back by a snapshot");
    assert_eq!(cluster.lines(old), cluster.lines(new));
    assert_eq!(cluster.node(old).waiting(), 0);
    cluster.response(token).expect("it has an answer").clone()
}

#[test]
fn what_became_of_a_write_is_recalled_from_a_snapshot() {
    assert_eq!(answer_after_install(true, RECALLED / 2), Ok("1".into()));
    assert_eq!(answer_after_install(false, RECALLED / 2), Err(NotDone::Superseded.into()));
    assert_eq!(answer_after_install(true, RECALLED * 2), Err(Unknown::Expired.into()), "it is too long ago to tell");
    assert_eq!(answer_after_install(false, RECALLED * 2), Err(Unknown::Expired.into()), "it is too long ago to tell");
}

#[test]
fn a_crash_between_storing_a_snapshot_and_starting_the_log_after_it_loses_nothing() {
    let (mut cluster, leader, follower) = one_left_behind(1);
    cluster.disk = Duration::from_millis(1);
    cluster.cut.clear();
    while !cluster.stored.iter().any(|(by, _)| *by == follower) {
        cluster.pass(Duration::from_micros(100));
    }
    // The disk asserts the order of the two; here it has done only the first.
    cluster.crash(follower);
    cluster.start(follower);
    let before = cluster.lines(follower);
    assert!(before.len() <= 1, "the log was not told yet: {before:?}");
    cluster.pass(AN_ELECTION);
    assert_eq!(cluster.lines(follower), cluster.lines(leader));
    cluster.crash(follower);
    cluster.start(follower);
    assert!(cluster.lines(follower).len() > 1, "now it starts from the snapshot");
}

/// Sessions are unique within a term only.
#[test]
fn an_answer_of_an_earlier_term_does_not_end_a_transfer() {
    let (mut cluster, leader, follower) = one_left_behind(1);
    // Nothing but appends gets through, so that the leader learns what the follower lacks.
    cluster.meddle = Box::new(|_, _, message| matches!(message, NodeMessage::Raft(_)));
    cluster.cut.clear();
    cluster.pass(Duration::from_millis(200));
    let chunk = (*chunks(&cluster, follower).last().expect("a transfer has begun")).clone();
    let before = chunks(&cluster, follower).len();
    let reply = SnapshotChunkReply { term: Term(chunk.term.0 - 1), session: chunk.session, received: chunk.total };
    cluster.input(leader, NodeInput::Receive { from: follower, message: NodeMessage::ChunkReply(reply) });
    cluster.pass(Duration::from_secs(2));
    let after = chunks(&cluster, follower);
    assert!(after.len() > before, "it goes on");
    assert!(after[before..].iter().all(|chunk| chunk.session == after[before - 1].session), "in the same session");
}
