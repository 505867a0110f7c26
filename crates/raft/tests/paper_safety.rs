//! Section 5.4, Figure 3 and what a replica does when a promise is broken, sentence by sentence.

mod support;

use bowline_raft::{AppendOutcome, Body, Effect, Fault, Index, Raft, Round, Session, Term, Time};
use support::bench::*;

/// 5.4.2: only log entries from the leader's current term are committed by counting replicas.
#[test]
fn an_entry_of_an_earlier_term_is_not_committed_by_counting() {
    let mut bench = one_of_three().log(&[1, 1]).with(|config| config.max_message_entries = 1).term(3).lead();
    let probe = bench.heartbeat_to(N2);
    bench.answer(N2, &probe, accepted(2));
    assert_eq!(bench.raft.commit_index(), Index(0), "two of three have index 2, but it is of term 1");
    let why = bench.raft.explain().uncommitted.expect("the first entry is not committed");
    assert!(why.needs_entry_of_own_term);
    assert_eq!((why.index, why.held_by), (Index(1), vec![N1, N2]));
}

/// 5.4.2: once an entry of the current term is committed, all prior entries are, indirectly.
#[test]
fn an_entry_of_the_own_term_commits_all_before_it() {
    let mut bench = one_of_three().log(&[1, 1]).term(3).lead();
    let effects = bench.these_accept(&[N2]);
    assert_eq!(bench.raft.commit_index(), Index(3));
    assert_eq!(applied(&effects), [1, 2, 3]);
}

/// Figure 2, all servers: if commitIndex > lastApplied, apply in order, each entry once.
#[test]
fn entries_are_applied_in_order_each_once() {
    let mut bench = one_of_three().term(1).start();
    let mut seen = applied(&bench.append(N2, 1, append(position(0, 0), entries(1, &[1, 1, 1]), 2)));
    seen.extend(applied(&bench.append(N2, 1, append(position(0, 0), entries(1, &[1, 1, 1]), 2))));
    seen.extend(applied(&bench.append(N2, 1, append(position(3, 1), entries(4, &[1]), 4))));
    assert_eq!(seen, [1, 2, 3, 4]);
    assert_eq!(bench.raft.last_applied(), Index(4));
}

/// A restart goes on where the state machine was.
#[test]
fn a_restart_applies_nothing_twice() {
    let mut bench = one_of_three().log(&[1, 1, 1]).applied(2).start();
    assert_eq!(bench.raft.commit_index(), Index(2));
    let effects = bench.append(N2, 1, append(position(3, 1), vec![], 3));
    assert_eq!(applied(&effects), [3]);
}

/// The state machine is given no more than it may have at once, and at least one entry.
#[test]
fn what_is_being_applied_is_bounded() {
    let mut bench = one_of_three().with(|config| config.max_applying_bytes = 140).term(1).start();
    bench.manual_machine = true;
    let effects = bench.append(N2, 1, append(position(0, 0), entries(1, &[1; 6]), 6));
    assert_eq!(applied(&effects), [1, 2]);
    let effects = bench.step(bowline_raft::Input::Applied { index: Index(2) });
    assert_eq!(applied(&effects), [3, 4]);
}

/// State Machine Safety: a leader that contradicts a committed entry is not followed; the replica
/// stops and says why (law 9).
#[test]
fn a_contradiction_of_a_committed_entry_halts() {
    let mut bench = one_of_three().log(&[1, 1]).term(2).applied(2).start();
    let effects = bench.append(N2, 2, append(position(1, 1), entries(2, &[2]), 2));
    let fault = Fault::CommittedConflict { from: N2, index: Index(2) };
    assert_eq!(effects, [Effect::Halt { fault: fault.clone() }]);
    assert_eq!(bench.raft.fault(), Some(&fault));
    assert_eq!(bench.terms(), [1, 1]);
    assert!(bench.heartbeat(N2, 2).is_empty());
    assert_eq!(bench.raft.explain().fault, Some(fault));
}

/// The same where the contradiction is only in what the sender says of the entry before its own: an entry that
/// can't follow what is committed here.
#[test]
fn an_entry_that_can_not_follow_what_is_committed_halts() {
    let mut bench = one_of_three().log(&[1, 3]).term(3).applied(2).start();
    let effects = bench.append(N2, 4, append(position(2, 1), entries(3, &[2]), 2));
    let fault = Fault::CommittedConflict { from: N2, index: Index(2) };
    assert_eq!(effects.last(), Some(&Effect::Halt { fault: fault.clone() }));
    assert_eq!((bench.raft.fault(), bench.terms()), (Some(&fault), vec![1, 3]));
}

/// Election Safety: a second leader of one term is seen by the first, and by those who follow it.
#[test]
fn two_leaders_of_one_term_halt_whoever_sees_both() {
    let mut follower = one_of_three().term(1).start();
    follower.heartbeat(N2, 1);
    let mut leader = one_of_three().lead();
    for (bench, other) in [(&mut follower, N3), (&mut leader, N2)] {
        let effects = bench.heartbeat(other, 1);
        let fault = Fault::TwoLeaders { other, term: Term(1) };
        assert_eq!(effects, [Effect::Halt { fault }]);
        assert!(!bench.raft.explain().to_string().is_empty());
    }
}

/// 5.1: a message of an earlier term changes nothing, whatever it says.
#[test]
fn stale_messages_change_nothing() {
    let reply = bowline_raft::AppendEntriesReply {
        session: Session(1),
        round: Round(0),
        sent_at: Time(1),
        outcome: AppendOutcome::Accepted { match_index: Index(1) },
    };
    let stale = [
        Body::PreVoteReply { granted: true },
        Body::RequestVoteReply { granted: true },
        Body::AppendEntries(append(position(0, 0), entries(1, &[1]), 1)),
        Body::AppendEntriesReply(reply),
        Body::TimeoutNow,
        Body::ReadIndexReply { context: 1, index: Some(Index(9)) },
    ];
    let mut leader = one_of_three().term(3).lead();
    let mut follower = one_of_three().log(&[1, 2]).term(4).start();
    for bench in [&mut leader, &mut follower] {
        let before = (bench.raft.term(), bench.raft.is_leader(), bench.terms(), bench.raft.commit_index());
        for body in &stale {
            let effects = bench.receive(N2, 1, body.clone());
            assert!(writes(&effects).is_empty() && applied(&effects).is_empty());
        }
        let after = (bench.raft.term(), bench.raft.is_leader(), bench.terms(), bench.raft.commit_index());
        assert_eq!(before, after);
    }
}

/// A recovered state that contradicts itself is refused, with the contradiction.
#[test]
fn a_contradictory_disk_is_refused() {
    let broken = |change: fn(&mut Setup)| {
        let mut setup = one_of_three().log(&[1, 1]);
        change(&mut setup);
        Raft::new(setup.config, setup.recovered, Time::ZERO).expect_err("it contradicts itself").to_string()
    };
    let gap = broken(|setup| setup.recovered.entries[1].index = Index(3));
    assert!(gap.contains("entry 3@1 follows 1@1"), "{gap}");
    let term = broken(|setup| setup.recovered.hard_state.term = Term(0));
    assert!(term.contains("later term"), "{term}");
    let applied = broken(|setup| setup.recovered.applied = Index(3));
    assert!(applied.contains("applied up to 3"), "{applied}");
}

/// 5.5: RPCs are idempotent: a doubled one does no harm.
#[test]
fn a_doubled_append_does_no_harm() {
    let mut bench = one_of_three().term(1).start();
    let message = append(position(0, 0), entries(1, &[1, 1]), 1);
    let first = bench.append(N2, 1, message.clone());
    let second = bench.append(N2, 1, message);
    assert_eq!(reply(&first), reply(&second));
    assert!(writes(&second).is_empty() && applied(&second).is_empty());
}

/// 5.5: a follower that was down gets what it missed once it is back.
#[test]
fn a_follower_that_comes_back_catches_up() {
    let mut leader = one_of_three().lead_and_commit();
    for command in ["a", "b", "c"] {
        leader.propose(command);
        leader.these_accept(&[N2]);
    }
    let mut back = Setup::new(N3, simple(&[1, 2, 3])).log(&[1]).restart();
    for _ in 0..4 {
        let heartbeat = leader.heartbeat_to(N3);
        let outcome = reply(&back.append(N1, 1, heartbeat.clone()));
        let effects = leader.answer(N3, &heartbeat, outcome);
        for append in appends_to(&effects, N3) {
            let outcome = reply(&back.append(N1, 1, append.clone()));
            leader.answer(N3, append, outcome);
        }
        let n2 = leader.heartbeat_to(N2);
        leader.accept(N2, &n2);
    }
    assert_eq!(back.raft.last_applied(), Index(4));
}

/// No message can leave a replica without terms to count on with: one from beyond the greatest term is
/// no replica's, and is ignored.
#[test]
fn a_term_beyond_all_counting_is_ignored() {
    let mut bench = one_of_three().term(3).start();
    for body in [
        Body::PreVote { last: position(9, 9) },
        Body::RequestVote { last: position(9, 9), transfer: true },
        Body::RequestVoteReply { granted: false },
        Body::TimeoutNow,
    ] {
        assert!(bench.receive(N2, u64::MAX, body).is_empty());
    }
    assert_eq!(bench.raft.term(), Term(3));
    bench.time_out();
    bench.receive(N2, 3, Body::PreVoteReply { granted: true });
    assert_eq!(bench.raft.term(), Term(4));
}

/// A fuzzer's find: what it had verified was longer than what was left.
#[test]
fn a_leader_that_contradicts_itself_stops_the_replica() {
    let mut bench = one_of_three().start();
    bench.append(N2, 3, append(position(0, 0), entries(1, &[1, 2]), 0));
    let effects = bench.append(N2, 3, append(position(0, 0), entries(1, &[3]), 2));
    let fault = Fault::LeaderContradictsItself { from: N2, term: Term(3), index: Index(1) };
    assert!(effects.contains(&Effect::Halt { fault }), "{effects:?}");
    // The next leader may.
    let mut bench = one_of_three().start();
    bench.append(N2, 3, append(position(0, 0), entries(1, &[1, 2]), 0));
    bench.append(N3, 4, append(position(0, 0), entries(1, &[4]), 0));
    assert_eq!(bench.terms(), [4]);
}

/// A fuzzer's find, as above: the snapshot would have taken what was verified away.
#[test]
fn a_leader_whose_snapshot_contradicts_its_entries_stops_the_replica() {
    let mut bench = one_of_three().start();
    bench.append(N2, 3, append(position(0, 0), entries(1, &[1, 2]), 0));
    let effects = bench.install(N2, 3, position(1, 2), simple(&[1, 2, 3]));
    let fault = Fault::LeaderContradictsItself { from: N2, term: Term(3), index: Index(1) };
    assert!(effects.contains(&Effect::Halt { fault }), "{effects:?}");
}
