//! Writes and reads: answered once, with the machine's word, and never wrongly.

use std::time::Duration;

use bowline_node::raft::{AppendEntries, Body, Index, Message, Position, ReadKind, Round, Session, Time, Token};
use bowline_node::{Failure, NodeInput, NodeMessage, NotDone, Response, Unknown};

use crate::cluster::{AN_ELECTION, Cluster, n};
use crate::ledger::count;

const A_MOMENT: Duration = Duration::from_millis(20);
const LEASE: ReadKind = ReadKind::Lease;
const QUORUM: ReadKind = ReadKind::Quorum;

fn done(text: &'static str) -> Response {
    Ok(text.into())
}

#[test]
fn a_write_is_answered_with_what_the_machine_says() {
    let mut cluster = Cluster::new(3);
    let (leader, others) = cluster.elect();
    let tokens: Vec<Token> = (1..=3).map(|number| cluster.write(leader, &format!("w{number}"))).collect();
    assert_eq!(tokens.iter().map(|token| cluster.response(*token)).collect::<Vec<_>>(), [None; 3]);
    assert_eq!(cluster.node(leader).waiting(), 3);
    cluster.pass(A_MOMENT);
    for (token, text) in tokens.iter().zip(["1", "2", "3"]) {
        assert_eq!(cluster.response(*token), Some(&done(text)));
    }
    assert_eq!(cluster.node(leader).waiting(), 0);
    cluster.pass(A_MOMENT * 10);
    for id in others {
        assert_eq!(cluster.node(id).machine(), cluster.node(leader).machine());
    }
}

#[test]
fn a_write_is_not_answered_before_a_majority_has_it_on_disk() {
    let mut cluster = Cluster::new(3);
    let (leader, others) = cluster.elect();
    cluster.disk = Duration::from_millis(10);
    let token = cluster.write(leader, "w");
    cluster.pass(Duration::from_millis(9));
    assert_eq!(cluster.response(token), None, "it is on its way to all disks and on none");
    cluster.pass(Duration::from_millis(3));
    assert_eq!(cluster.response(token), Some(&done("1")));
    cluster.pass(Duration::from_millis(200));
    cluster.isolate(leader);
    let alone = cluster.write(leader, "alone");
    cluster.pass(Duration::from_millis(100));
    assert_eq!(cluster.response(alone), None, "the own disk is no majority");
    assert!(others.iter().all(|id| cluster.lines(*id) == ["w"]));
}

#[test]
fn a_follower_refuses_writes_and_names_the_leader() {
    let mut cluster = Cluster::new(3);
    let early = cluster.write(n(1), "early");
    assert_eq!(cluster.response(early), Some(&Err(Failure::not_leader(None))));
    let (leader, others) = cluster.elect();
    let token = cluster.write(others[0], "w");
    assert_eq!(cluster.response(token), Some(&Err(Failure::not_leader(Some(leader)))), "at once");
    cluster.pass(A_MOMENT);
    assert_eq!(cluster.node(others[0]).waiting(), 0);
    assert_eq!(cluster.lines(leader), [""; 0]);
}

#[test]
fn reads_under_the_lease_are_answered_at_once_and_by_a_quorum_after_a_round() {
    let mut cluster = Cluster::new(3);
    let (leader, _) = cluster.elect();
    cluster.fill(leader, "w", 2);
    let lease = cluster.read(leader, LEASE);
    assert_eq!(cluster.response(lease), Some(&done("2")));
    let quorum = cluster.read(leader, QUORUM);
    assert_eq!(cluster.response(quorum), None);
    cluster.pass(A_MOMENT);
    assert_eq!(cluster.response(quorum), Some(&done("2")));
}

#[test]
fn a_read_waits_for_its_index_to_be_applied() {
    let mut cluster = Cluster::new(3);
    let (leader, _) = cluster.elect();
    let write = cluster.write(leader, "w");
    cluster.pass(A_MOMENT);
    let read = cluster.read(leader, QUORUM);
    let next = cluster.write(leader, "later");
    cluster.pass(A_MOMENT);
    assert_eq!((cluster.response(write), cluster.response(next)), (Some(&done("1")), Some(&done("2"))));
    let Some(Ok(seen)) = cluster.response(read) else { panic!("{:?}", cluster.response(read)) };
    assert!(count(seen) >= 1);
}

#[test]
fn a_follower_reads_the_latest_state_by_asking_the_leader() {
    for kind in [LEASE, QUORUM] {
        let mut cluster = Cluster::new(3);
        let (leader, others) = cluster.elect();
        let follower = others[0];
        // Lagging: it has not heard of the commit when it is asked.
        cluster.cut.insert((leader, follower));
        let write = cluster.write(leader, "w");
        cluster.pass(A_MOMENT);
        assert_eq!(cluster.response(write), Some(&done("1")));
        assert_eq!(cluster.lines(follower), [""; 0], "its own state is of the past");
        let read = cluster.read(follower, kind);
        assert_eq!(cluster.response(read), None);
        cluster.cut.clear();
        cluster.pass(A_MOMENT * 20);
        assert_eq!(cluster.response(read), Some(&done("1")));
    }
}

#[test]
fn a_deposed_leader_serves_no_stale_read() {
    let mut cluster = Cluster::new(3);
    let (old, others) = cluster.elect();
    cluster.fill(old, "w", 1);
    cluster.isolate(old);
    cluster.pass(Duration::from_millis(160));
    let [lease, quorum] = [LEASE, QUORUM].map(|kind| cluster.read(old, kind));
    assert_eq!((cluster.response(lease), cluster.response(quorum)), (None, None), "the lease is over");
    cluster.pass(AN_ELECTION);
    let new = cluster.leader().unwrap();
    assert!(others.contains(&new));
    cluster.fill(new, "x", 1);
    for token in [lease, quorum] {
        assert_eq!(cluster.response(token), Some(&Err(Failure::not_leader(None))));
    }
    assert_eq!(cluster.lines(old), ["w0"], "its own state is of the past");
}

#[test]
fn a_write_that_another_leader_replaced_is_superseded() {
    let mut cluster = Cluster::new(3);
    let (old, _) = cluster.elect();
    cluster.isolate(old);
    let token = cluster.write(old, "lost");
    cluster.pass(AN_ELECTION);
    let new = cluster.leader().unwrap();
    cluster.fill(new, "w", 1);
    assert_eq!(cluster.response(token), None, "nobody knows yet");
    cluster.cut.clear();
    cluster.pass(AN_ELECTION);
    assert_eq!(cluster.response(token), Some(&Err(NotDone::Superseded.into())));
    assert!(cluster.ids().iter().all(|id| cluster.lines(*id) == ["w0"]));
}

#[test]
fn a_write_that_outlives_its_leadership_is_still_done() {
    let mut cluster = Cluster::new(3);
    let (old, others) = cluster.elect();
    // Its followers hear it, and it does not hear them.
    cluster.cut.extend(others.iter().map(|id| (*id, old)));
    let token = cluster.write(old, "w");
    cluster.pass(AN_ELECTION);
    assert_eq!(cluster.response(token), None);
    cluster.cut.clear();
    cluster.pass(AN_ELECTION);
    assert_eq!(cluster.response(token), Some(&done("1")));
}

#[test]
fn a_write_expires_at_its_deadline_and_may_still_take_effect() {
    let mut cluster = Cluster::new(3);
    let (leader, others) = cluster.elect();
    cluster.cut.extend(others.iter().map(|id| (*id, leader)));
    let deadline = cluster.now.after(Duration::from_millis(50));
    let token = cluster.write_until(leader, "late", Some(deadline));
    cluster.pass(Duration::from_millis(49));
    assert_eq!(cluster.response(token), None);
    cluster.pass(Duration::from_millis(2));
    assert_eq!(cluster.response(token), Some(&Err(Unknown::Expired.into())));
    cluster.cut.clear();
    cluster.pass(AN_ELECTION);
    assert!(cluster.ids().iter().all(|id| cluster.lines(*id) == ["late"]));
}

#[test]
fn a_bound_that_is_reached_is_named() {
    let mut cluster = Cluster::configured(3, 1, |config| config.raft.max_uncommitted_bytes = 200);
    let (leader, _) = cluster.elect();
    cluster.isolate(leader);
    let tokens: Vec<Token> = (0..10).map(|number| cluster.write(leader, &format!("w{number}"))).collect();
    let refused = Err(Failure::overloaded("max_uncommitted_bytes"));
    let count = tokens.iter().filter(|token| cluster.response(**token) == Some(&refused)).count();
    assert!((5..10).contains(&count), "{count}");
    assert_eq!(cluster.node(leader).waiting(), 10 - count);
}

#[test]
fn a_crash_loses_what_was_not_on_disk_and_keeps_what_was_acknowledged() {
    let mut cluster = Cluster::new(3);
    let (leader, others) = cluster.elect();
    cluster.fill(leader, "w", 3);
    cluster.disk = Duration::from_millis(50);
    let token = cluster.write(leader, "unwritten");
    cluster.pass(Duration::from_millis(20));
    for id in cluster.ids() {
        cluster.crash(id);
    }
    assert_eq!(cluster.response(token), None);
    cluster.disk = Duration::from_micros(200);
    for id in cluster.ids() {
        cluster.start(id);
        assert_eq!(cluster.lines(id), [""; 0], "what is committed has to be learnt again");
    }
    let (leader, _) = cluster.elect();
    cluster.fill(leader, "x", 1);
    cluster.pass(AN_ELECTION);
    for id in others {
        assert_eq!(cluster.lines(id), ["w0", "w1", "w2", "x0"]);
    }
}

#[test]
fn a_lone_replica_serves_alone() {
    let mut cluster = Cluster::new(1);
    let (leader, others) = cluster.elect();
    assert!(others.is_empty());
    let write = cluster.write(leader, "w");
    assert_eq!(cluster.response(write), None, "its own disk comes first");
    cluster.pass(A_MOMENT);
    assert_eq!(cluster.response(write), Some(&done("1")));
    for kind in [LEASE, QUORUM] {
        let read = cluster.read(leader, kind);
        assert_eq!(cluster.response(read), Some(&done("1")));
    }
}

#[test]
fn a_replica_that_has_stopped_leaves_no_request_without_an_answer() {
    let mut cluster = Cluster::new(3);
    let (leader, others) = cluster.elect();
    cluster.isolate(leader);
    cluster.halts_expected = true;
    let open = cluster.write(leader, "open");
    let append = AppendEntries {
        durable_index: Index(0),
        session: Session(1),
        round: Round(0),
        sent_at: cluster.now,
        prev: Position::ORIGIN,
        entries: Vec::new(),
        commit_index: Index(0),
    };
    let term = cluster.node(leader).raft().term();
    let message = NodeMessage::Raft(Message { term, body: Body::AppendEntries(append) });
    cluster.input(leader, NodeInput::Receive { from: others[0], message });
    assert!(cluster.node(leader).raft().fault().is_some(), "two replicas lead in one term");
    assert_eq!(cluster.response(open), Some(&Err(Unknown::Expired.into())));
    let later = cluster.write(leader, "later");
    let read = cluster.read(leader, LEASE);
    let transfer = cluster.operate(leader, |token| NodeInput::TransferLeadership { token, to: None });
    for token in [later, read, transfer] {
        assert_eq!(cluster.response(token), Some(&Err(Failure::not_leader(None))));
    }
    assert_eq!((cluster.node(leader).waiting(), cluster.node(leader).next_deadline()), (0, Time::NEVER));
}

/// A node that applies one entry at a time, and is told that a long backlog is committed, once nested one
/// call for each entry, until its stack was full (found by the simulator, with tiny limits).
#[test]
fn a_long_backlog_in_small_batches_needs_no_deep_stack() {
    let little_stack = std::thread::Builder::new().stack_size(256 << 10);
    let run = little_stack.spawn(|| {
        let mut cluster = Cluster::configured(3, 1, |config| {
            config.raft.max_applying_bytes = 1;
            config.raft.max_message_entries = 100_000;
        });
        let (leader, others) = cluster.elect();
        cluster.isolate(others[0]);
        for number in 0..5_000 {
            cluster.write(leader, &format!("w{number}"));
        }
        cluster.pass(Duration::from_secs(3));
        cluster.cut.clear();
        cluster.pass(AN_ELECTION);
        assert_eq!(cluster.lines(others[0]).len(), 5_000);
    });
    run.expect("a thread can be had").join().expect("the backlog is applied");
}
