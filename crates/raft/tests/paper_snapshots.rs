//! Section 7 of the paper and Figure 13, sentence by sentence.

mod support;

use bowline_raft::{
    AppendOutcome, Body, Effect, Index, Input, InstallSnapshot, Membership, MembershipChange, Outcome, Pause, Session,
    SnapshotHeader, Write,
};
use support::bench::*;

/// A snapshot that no leader can have made is not taken: of a later term than its sender's, without
/// voters, at the end of all indexes, or outside any session.
#[test]
fn a_malformed_snapshot_is_ignored() {
    let good = SnapshotHeader { position: position(5, 1), membership: simple(&[1, 2, 3]) };
    let future = SnapshotHeader { position: position(5, 2), ..good.clone() };
    let endless = SnapshotHeader { position: position((1 << 62) + 1, 1), ..good.clone() };
    let headless = SnapshotHeader { membership: Membership::default(), ..good.clone() };
    let mut bench = one_of_three().term(1).start();
    for (session, snapshot) in [(1, future), (1, endless), (1, headless), (0, good)] {
        let install = InstallSnapshot { session: Session(session), snapshot };
        let effects = bench.receive(N2, 1, Body::InstallSnapshot(install));
        assert!(effects.is_empty());
    }
    assert_eq!(bench.raft.commit_index(), Index(0));
}

/// A leader whose log begins after index 3, with n3 far behind.
fn compacted_leader() -> Bench {
    let mut bench = one_of_three().with(|config| config.max_retained_bytes = 0).lead_and_commit();
    for command in ["x", "y"] {
        bench.propose(command);
        bench.these_accept(&[N2]);
    }
    bench.step(Input::SnapshotStored { index: Index(3) });
    assert_eq!(bench.raft.log().base(), position(3, 1));
    bench
}

fn fetches(effects: &[Effect]) -> Vec<Session> {
    let fetch = |effect: &Effect| match effect {
        Effect::FetchSnapshot { to, session } if *to == N3 => Some(*session),
        _ => None,
    };
    effects.iter().filter_map(fetch).collect()
}

/// The leader finds out that n3 needs what is gone, by a retry or by a refusal.
fn ask_for_snapshot(bench: &mut Bench) -> Session {
    for _ in 0..4 {
        let mut effects = bench.wait(ms(50));
        let probe = appends_to(&effects, N3).last().map(|append| (*append).clone());
        effects.extend(probe.map(|probe| bench.reject(N3, &probe, position(1, 1))).unwrap_or_default());
        if let Some(session) = fetches(&effects).first() {
            return *session;
        }
    }
    panic!("the leader does not notice that its log begins too late");
}

/// Figure 13, receiver 1: reply immediately if term < currentTerm.
#[test]
fn a_snapshot_of_an_earlier_term_is_refused() {
    let mut bench = one_of_three().term(5).start();
    let effects = bench.install(N2, 4, position(9, 4), simple(&[1, 2, 3]));
    assert!(matches!(reply(&effects), AppendOutcome::Rejected { .. }));
    assert_eq!(bench.raft.commit_index(), Index(0));
}

/// Figure 13, receivers 7 and 8: discard the entire log, reset the state machine, and load the
/// snapshot's configuration.
#[test]
fn a_snapshot_replaces_log_state_and_configuration() {
    let mut bench = one_of_three().log(&[1, 1]).term(3).start();
    let members = simple(&[1, 2, 3, 4]);
    let effects = bench.install(N2, 3, position(9, 2), members.clone());
    let snapshot = SnapshotHeader { position: position(9, 2), membership: members.clone() };
    assert_eq!(writes(&effects), [&Write::Snapshot(snapshot.clone())]);
    assert!(effects.contains(&Effect::InstallSnapshot { snapshot }));
    assert_eq!(reply(&effects), AppendOutcome::Accepted { match_index: Index(9) });
    assert_eq!((bench.raft.log().last(), bench.raft.membership()), (position(9, 2), &members));
    assert_eq!((bench.raft.commit_index(), bench.raft.last_applied()), (Index(9), Index(9)));
}

/// Figure 13, receiver 6: if an entry with the snapshot's last index and term exists, retain the
/// entries that follow it; and its prefix is committed.
#[test]
fn a_snapshot_of_what_the_log_holds_retains_what_follows() {
    let mut bench = one_of_three().log(&[1, 1, 1]).start();
    let effects = bench.install(N2, 1, position(2, 1), simple(&[1, 2, 3]));
    assert_eq!(bench.terms(), [1, 1, 1]);
    assert!(writes(&effects).is_empty());
    assert_eq!(bench.raft.commit_index(), Index(2));
    assert_eq!(applied(&effects), [1, 2]);
}

/// S40: a conflicting entry at the snapshot's last index does not survive.
#[test]
fn a_conflicting_entry_at_the_snapshots_end_goes() {
    let mut bench = one_of_three().log(&[1, 1, 1]).term(3).start();
    bench.install(N2, 3, position(2, 2), simple(&[1, 2, 3]));
    assert!(bench.terms().is_empty());
    assert_eq!(bench.raft.log().last(), position(2, 2));
}

/// S45: a snapshot older than what is committed changes nothing, and is no reason to go back.
#[test]
fn a_snapshot_older_than_the_commit_index_changes_nothing() {
    let mut bench = one_of_three().log(&[1, 1, 1]).applied(3).start();
    let effects = bench.install(N2, 1, position(2, 1), simple(&[1, 2]));
    assert_eq!(reply(&effects), AppendOutcome::Accepted { match_index: Index(3) });
    assert!(writes(&effects).is_empty());
    assert_eq!(bench.raft.membership(), &simple(&[1, 2, 3]));
}

/// The acknowledgement of a snapshot waits for the disk.
#[test]
fn a_snapshot_is_acknowledged_when_it_is_durable() {
    let mut bench = one_of_three().term(1).start();
    bench.manual_disk = true;
    let effects = bench.install(N2, 1, position(9, 1), simple(&[1, 2, 3]));
    assert_eq!(waits_for(&effects), [Some(bench.written)]);
    assert_eq!(bench.raft.explain().durable, Index(0));
    assert_eq!(bench.raft.last_applied(), Index(0), "nor is it installed: the machine would be ahead of the log");
    bench.sync();
    assert_eq!(bench.raft.last_applied(), Index(9));
    assert_eq!(bench.raft.explain().durable, Index(9));
}

/// What is known of a proposal that a snapshot covers: nothing.
#[test]
fn a_proposal_that_a_snapshot_covers_may_have_been_done() {
    let mut bench = one_of_three().lead_and_commit();
    bench.propose("x");
    let effects = bench.install(N2, 2, position(9, 2), simple(&[1, 2, 3]));
    assert_eq!(outcome(&effects), &Outcome::Expired);
}

/// S48: candidates take snapshots of their term's leader, too.
#[test]
fn a_candidate_takes_a_snapshot() {
    let mut bench = one_of_three().start();
    bench.stand();
    bench.install(N2, 1, position(9, 1), simple(&[1, 2, 3]));
    assert_eq!((bench.raft.leader(), bench.raft.last_applied()), (Some(N2), Index(9)));
}

/// Section 7: once a snapshot is stored, the log up to its end may go; a bounded rest stays for slow
/// followers.
#[test]
fn compaction_keeps_a_bounded_rest() {
    let mut bench = one_of_three().log(&[1; 10]).with(|config| config.max_retained_bytes = 300).term(1).start();
    bench.append(N2, 1, append(position(10, 1), vec![], 8));
    bench.step(Input::SnapshotStored { index: Index(8) });
    assert!(bench.raft.log().bytes() <= 300);
    assert!(bench.raft.log().base().index <= Index(8), "only what the snapshot holds may go");
    assert_eq!(bench.raft.log().last(), position(10, 1));
}

/// Figure 13, section 7: a snapshot's last included configuration is that of its index, whatever came
/// later (S47).
#[test]
fn a_snapshot_carries_the_configuration_as_of_its_end() {
    let mut bench = one_of_three().lead_and_commit();
    bench.change(MembershipChange::AddLearner(N4));
    let header = bench.raft.snapshot_header(Index(1)).expect("index 1 is in the log");
    assert_eq!(header.membership, simple(&[1, 2, 3]));
    let header = bench.raft.snapshot_header(Index(2)).expect("index 2 is in the log");
    assert_eq!(header.membership, Membership::simple(group(&[1, 2, 3], &[4])));
    assert_eq!(bench.raft.snapshot_header(Index(3)), None);
}

/// Section 7: the leader sends a snapshot to a follower that needs entries it no longer has. Its
/// heartbeats go on meanwhile, and no second snapshot is asked for.
#[test]
fn a_follower_behind_the_log_is_brought_a_snapshot() {
    let mut bench = compacted_leader();
    ask_for_snapshot(&mut bench);
    let peer = bench.raft.explain().peers.pop().expect("n3");
    assert_eq!(peer.paused, Some(Pause::Snapshot));
    for _ in 0..3 {
        let heartbeat = bench.heartbeat_to(N3);
        assert!(heartbeat.entries.is_empty());
        assert!(fetches(&bench.reject(N3, &heartbeat, position(1, 1))).is_empty());
        bench.these_accept(&[N2]);
    }
}

/// After the transfer the follower's answer, in its session, opens the pipeline again.
#[test]
fn the_receivers_answer_ends_the_transfer() {
    let mut bench = compacted_leader();
    let session = ask_for_snapshot(&mut bench);
    let mut heartbeat = bench.heartbeat_to(N3);
    assert_eq!(heartbeat.session, session, "the transfer has a session of its own");
    heartbeat.prev = position(3, 1);
    bench.accept(N3, &heartbeat);
    bench.step(Input::SnapshotSent { to: N3, session, delivered: true });
    let effects = bench.propose("z");
    assert_eq!(appends_to(&effects, N3)[0].prev, position(3, 1));
}

/// S39: a transfer that fails, or whose answer is lost, is found out by the next heartbeat.
#[test]
fn a_failed_transfer_is_begun_again() {
    let mut bench = compacted_leader();
    let session = ask_for_snapshot(&mut bench);
    let stale = Session(session.0 - 1);
    bench.step(Input::SnapshotSent { to: N3, session: stale, delivered: false });
    let paused = bench.raft.explain().peers.pop().expect("n3").paused;
    assert_eq!(paused, Some(Pause::Snapshot), "another session's end means nothing");
    bench.step(Input::SnapshotSent { to: N3, session, delivered: false });
    assert_ne!(ask_for_snapshot(&mut bench), session);
}

/// S43: "A snapshot also includes the latest configuration in the log as of last included index" (7). A
/// replica that was added later and got the log from its start knows no configuration before the entry
/// that added it: a snapshot of that part would name none, and no receiver would take it.
#[test]
fn a_replica_that_knows_no_configuration_as_of_an_index_makes_no_snapshot_of_it() {
    let mut bench = Setup::new(N4, Membership::default()).term(1).start();
    let mut log = entries(1, &[1, 1]);
    let added = Membership::simple(group(&[1, 2, 3], &[4]));
    log.push(bowline_raft::Entry {
        index: Index(3),
        term: bowline_raft::Term(1),
        payload: bowline_raft::Payload::Membership(added.clone()),
    });
    bench.append(N1, 1, append(position(0, 0), log, 3));
    assert_eq!(bench.raft.commit_index(), Index(3));
    assert_eq!(bench.raft.snapshot_header(Index(2)), None);
    let header = bench.raft.snapshot_header(Index(3)).expect("from here on it knows");
    assert_eq!(header, SnapshotHeader { position: position(3, 1), membership: added });
}
