//! Writes and reads: answered once, with the machine's word, and never wrongly.

use std::time::Duration;

use bowline_node::raft::{AppendEntries, Body, Index, Message, Position, ReadKind, Round, Session, Time, Token};
use bowline_node::{Failure, NodeInput, NodeMessage, NotDone, Response, Unknown};

use crate::ledger::count;
use crate::world::{AN_ELECTION, World, n};

const A_MOMENT: Duration = Duration::from_millis(20);
const LEASE: ReadKind = ReadKind::Lease;
const QUORUM: ReadKind = ReadKind::Quorum;

fn done(text: &'static str) -> Response {
    Ok(text.into())
}

#[test]
fn a_write_is_answered_with_what_the_machine_says() {
    let mut world = World::new(3);
    let (leader, others) = world.elect();
    let tokens: Vec<Token> = (1..=3).map(|number| world.write(leader, &format!("w{number}"))).collect();
    assert_eq!(tokens.iter().map(|token| world.response(*token)).collect::<Vec<_>>(), [None; 3]);
    assert_eq!(world.node(leader).waiting(), 3);
    world.pass(A_MOMENT);
    for (token, text) in tokens.iter().zip(["1", "2", "3"]) {
        assert_eq!(world.response(*token), Some(&done(text)));
    }
    assert_eq!(world.node(leader).waiting(), 0);
    world.pass(A_MOMENT * 10);
    for id in others {
        assert_eq!(world.node(id).machine(), world.node(leader).machine());
    }
}

#[test]
fn a_write_is_not_answered_before_a_majority_has_it_on_disk() {
    let mut world = World::new(3);
    let (leader, others) = world.elect();
    world.disk = Duration::from_millis(10);
    let token = world.write(leader, "w");
    world.pass(Duration::from_millis(9));
    assert_eq!(world.response(token), None, "it is on its way to all disks and on none");
    world.pass(Duration::from_millis(3));
    assert_eq!(world.response(token), Some(&done("1")));
    world.pass(Duration::from_millis(200));
    world.isolate(leader);
    let alone = world.write(leader, "alone");
    world.pass(Duration::from_millis(100));
    assert_eq!(world.response(alone), None, "the own disk is no majority");
    assert!(others.iter().all(|id| world.lines(*id) == ["w"]));
}

#[test]
fn a_follower_refuses_writes_and_names_the_leader() {
    let mut world = World::new(3);
    let early = world.write(n(1), "early");
    assert_eq!(world.response(early), Some(&Err(Failure::not_leader(None))));
    let (leader, others) = world.elect();
    let token = world.write(others[0], "w");
    assert_eq!(world.response(token), Some(&Err(Failure::not_leader(Some(leader)))), "at once");
    world.pass(A_MOMENT);
    assert_eq!(world.node(others[0]).waiting(), 0);
    assert_eq!(world.lines(leader), [""; 0]);
}

#[test]
fn reads_under_the_lease_are_answered_at_once_and_by_a_quorum_after_a_round() {
    let mut world = World::new(3);
    let (leader, _) = world.elect();
    world.fill(leader, "w", 2);
    let lease = world.read(leader, LEASE);
    assert_eq!(world.response(lease), Some(&done("2")));
    let quorum = world.read(leader, QUORUM);
    assert_eq!(world.response(quorum), None);
    world.pass(A_MOMENT);
    assert_eq!(world.response(quorum), Some(&done("2")));
}

#[test]
fn a_read_waits_for_its_index_to_be_applied() {
    let mut world = World::new(3);
    let (leader, _) = world.elect();
    let write = world.write(leader, "w");
    world.pass(A_MOMENT);
    let read = world.read(leader, QUORUM);
    let next = world.write(leader, "later");
    world.pass(A_MOMENT);
    assert_eq!((world.response(write), world.response(next)), (Some(&done("1")), Some(&done("2"))));
    let Some(Ok(seen)) = world.response(read) else { panic!("{:?}", world.response(read)) };
    assert!(count(seen) >= 1);
}

#[test]
fn a_follower_reads_the_latest_state_by_asking_the_leader() {
    for kind in [LEASE, QUORUM] {
        let mut world = World::new(3);
        let (leader, others) = world.elect();
        let follower = others[0];
        // Lagging: it has not heard of the commit when it is asked.
        world.cut.insert((leader, follower));
        let write = world.write(leader, "w");
        world.pass(A_MOMENT);
        assert_eq!(world.response(write), Some(&done("1")));
        assert_eq!(world.lines(follower), [""; 0], "its own state is of the past");
        let read = world.read(follower, kind);
        assert_eq!(world.response(read), None);
        world.cut.clear();
        world.pass(A_MOMENT * 20);
        assert_eq!(world.response(read), Some(&done("1")));
    }
}

#[test]
fn a_deposed_leader_serves_no_stale_read() {
    let mut world = World::new(3);
    let (old, others) = world.elect();
    world.fill(old, "w", 1);
    world.isolate(old);
    world.pass(Duration::from_millis(160));
    let [lease, quorum] = [LEASE, QUORUM].map(|kind| world.read(old, kind));
    assert_eq!((world.response(lease), world.response(quorum)), (None, None), "the lease is over");
    world.pass(AN_ELECTION);
    let new = world.leader().unwrap();
    assert!(others.contains(&new));
    world.fill(new, "x", 1);
    for token in [lease, quorum] {
        assert_eq!(world.response(token), Some(&Err(Failure::not_leader(None))));
    }
    assert_eq!(world.lines(old), ["w0"], "its own state is of the past");
}

#[test]
fn a_write_that_another_leader_replaced_is_superseded() {
    let mut world = World::new(3);
    let (old, _) = world.elect();
    world.isolate(old);
    let token = world.write(old, "lost");
    world.pass(AN_ELECTION);
    let new = world.leader().unwrap();
    world.fill(new, "w", 1);
    assert_eq!(world.response(token), None, "nobody knows yet");
    world.cut.clear();
    world.pass(AN_ELECTION);
    assert_eq!(world.response(token), Some(&Err(NotDone::Superseded.into())));
    assert!(world.ids().iter().all(|id| world.lines(*id) == ["w0"]));
}

#[test]
fn a_write_that_outlives_its_leadership_is_still_done() {
    let mut world = World::new(3);
    let (old, others) = world.elect();
    // Its followers hear it, and it does not hear them.
    world.cut.extend(others.iter().map(|id| (*id, old)));
    let token = world.write(old, "w");
    world.pass(AN_ELECTION);
    assert_eq!(world.response(token), None);
    world.cut.clear();
    world.pass(AN_ELECTION);
    assert_eq!(world.response(token), Some(&done("1")));
}

#[test]
fn a_write_expires_at_its_deadline_and_may_still_take_effect() {
    let mut world = World::new(3);
    let (leader, others) = world.elect();
    world.cut.extend(others.iter().map(|id| (*id, leader)));
    let deadline = world.now.after(Duration::from_millis(50));
    let token = world.write_until(leader, "late", Some(deadline));
    world.pass(Duration::from_millis(49));
    assert_eq!(world.response(token), None);
    world.pass(Duration::from_millis(2));
    assert_eq!(world.response(token), Some(&Err(Unknown::Expired.into())));
    world.cut.clear();
    world.pass(AN_ELECTION);
    assert!(world.ids().iter().all(|id| world.lines(*id) == ["late"]));
}

#[test]
fn a_bound_that_is_reached_is_named() {
    let mut world = World::configured(3, 1, |config| config.raft.max_uncommitted_bytes = 200);
    let (leader, _) = world.elect();
    world.isolate(leader);
    let tokens: Vec<Token> = (0..10).map(|number| world.write(leader, &format!("w{number}"))).collect();
    let refused = Err(Failure::overloaded("max_uncommitted_bytes"));
    let count = tokens.iter().filter(|token| world.response(**token) == Some(&refused)).count();
    assert!((5..10).contains(&count), "{count}");
    assert_eq!(world.node(leader).waiting(), 10 - count);
}

#[test]
fn a_crash_loses_what_was_not_on_disk_and_keeps_what_was_acknowledged() {
    let mut world = World::new(3);
    let (leader, others) = world.elect();
    world.fill(leader, "w", 3);
    world.disk = Duration::from_millis(50);
    let token = world.write(leader, "unwritten");
    world.pass(Duration::from_millis(20));
    for id in world.ids() {
        world.crash(id);
    }
    assert_eq!(world.response(token), None);
    world.disk = Duration::from_micros(200);
    for id in world.ids() {
        world.start(id);
        assert_eq!(world.lines(id), [""; 0], "what is committed has to be learnt again");
    }
    let (leader, _) = world.elect();
    world.fill(leader, "x", 1);
    world.pass(AN_ELECTION);
    for id in others {
        assert_eq!(world.lines(id), ["w0", "w1", "w2", "x0"]);
    }
}

#[test]
fn a_lone_replica_serves_alone() {
    let mut world = World::new(1);
    let (leader, others) = world.elect();
    assert!(others.is_empty());
    let write = world.write(leader, "w");
    assert_eq!(world.response(write), None, "its own disk comes first");
    world.pass(A_MOMENT);
    assert_eq!(world.response(write), Some(&done("1")));
    for kind in [LEASE, QUORUM] {
        let read = world.read(leader, kind);
        assert_eq!(world.response(read), Some(&done("1")));
    }
}

#[test]
fn a_replica_that_has_stopped_leaves_no_request_without_an_answer() {
    let mut world = World::new(3);
    let (leader, others) = world.elect();
    world.isolate(leader);
    world.halts_expected = true;
    let open = world.write(leader, "open");
    let append = AppendEntries {
        durable_index: Index(0),
        session: Session(1),
        round: Round(0),
        sent_at: world.now,
        prev: Position::ORIGIN,
        entries: Vec::new(),
        commit_index: Index(0),
    };
    let term = world.node(leader).raft().term();
    let message = NodeMessage::Raft(Message { term, body: Body::AppendEntries(append) });
    world.input(leader, NodeInput::Receive { from: others[0], message });
    assert!(world.node(leader).raft().fault().is_some(), "two replicas lead in one term");
    assert_eq!(world.response(open), Some(&Err(Unknown::Expired.into())));
    let later = world.write(leader, "later");
    let read = world.read(leader, LEASE);
    let transfer = world.operate(leader, |token| NodeInput::TransferLeadership { token, to: None });
    for token in [later, read, transfer] {
        assert_eq!(world.response(token), Some(&Err(Failure::not_leader(None))));
    }
    assert_eq!((world.node(leader).waiting(), world.node(leader).next_deadline()), (0, Time::NEVER));
}

/// A node that applies one entry at a time, and is told that a long backlog is committed, once nested one
/// call for each entry, until its stack was full (found by the simulator, with tiny limits).
#[test]
fn a_long_backlog_in_small_batches_needs_no_deep_stack() {
    let little_stack = std::thread::Builder::new().stack_size(256 << 10);
    let run = little_stack.spawn(|| {
        let mut world = World::configured(3, 1, |config| {
            config.raft.max_applying_bytes = 1;
            config.raft.max_message_entries = 100_000;
        });
        let (leader, others) = world.elect();
        world.isolate(others[0]);
        for number in 0..5_000 {
            world.write(leader, &format!("w{number}"));
        }
        world.pass(Duration::from_secs(3));
        world.cut.clear();
        world.pass(AN_ELECTION);
        assert_eq!(world.lines(others[0]).len(), 5_000);
    });
    run.expect("a thread can be had").join().expect("the backlog is applied");
}
