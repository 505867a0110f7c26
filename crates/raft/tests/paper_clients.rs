//! What clients are told (section 8 of the paper, chapter 6 of the thesis), sentence by sentence.

mod support;

use bowline_raft::{
    Body, DriftBound, Effect, Fault, Index, Input, Outcome, Payload, ReadKind, Refusal, RoleExplanation, Term, Time,
    Token,
};
use support::bench::*;

/// Figure 8: an entry that was overwritten here may still be held by another server, which may
/// lead and commit it. So the client is told "superseded: it will not take effect" only when another
/// entry is committed in its place.
#[test]
fn a_truncated_command_is_superseded_only_when_another_entry_is_committed_in_its_place() {
    let mut bench = one_of_five().lead_and_commit();
    let term = bench.raft.term().0;
    bench.propose("x");
    let effects = bench.append(N5, term + 1, append(position(1, term), entries(2, &[term + 1]), 1));
    assert_eq!(bench.terms(), [term, term + 1], "the entry is overwritten");
    assert!(outcomes(&effects).is_empty(), "n2 may still have it, lead, and commit it");
    let effects = bench.append(N5, term + 1, append(position(2, term + 1), vec![], 2));
    assert_eq!(outcome(&effects), &Outcome::Superseded);
}

/// The other way in which this may end: the entry comes back, and is done.
#[test]
fn a_truncated_command_that_comes_back_is_done() {
    let mut bench = one_of_five().lead_and_commit();
    let term = bench.raft.term().0;
    bench.propose("x");
    let x = bench.raft.log().entry(bowline_raft::Index(2)).expect("just proposed").clone();
    bench.append(N5, term + 1, append(position(1, term), entries(2, &[term + 1]), 1));
    let effects = bench.append(N2, term + 2, append(position(1, term), vec![x, entry(3, term + 2)], 3));
    assert_eq!(outcome(&effects), &Outcome::Done { position: position(2, term) });
}

/// 5.4: once an entry of a later term is committed, no future leader can hold an earlier entry after
/// it. So the client need not wait until the log is as long again.
#[test]
fn a_truncated_command_is_superseded_by_a_later_term_that_is_committed_before_its_place() {
    let mut bench = one_of_five().lead_and_commit();
    let term = bench.raft.term().0;
    bench.propose("x");
    bench.propose("y");
    let effects = bench.append(N5, term + 1, append(position(1, term), entries(2, &[term + 1]), 2));
    let both: Vec<_> = outcomes(&effects).into_iter().map(|(_, outcome)| outcome).collect();
    assert_eq!(both, [&Outcome::Superseded, &Outcome::Superseded]);
}

/// A replica that stops leaves nobody waiting: what is open ends first.
#[test]
fn every_open_request_ends_when_a_replica_halts() {
    let mut bench = one_of_three().lead_and_commit();
    let term = bench.raft.term().0;
    bench.propose("x");
    bench.read(ReadKind::Quorum);
    bench.transfer(Some(N2));
    let effects = bench.heartbeat(N3, term);
    let all: Vec<_> = outcomes(&effects).into_iter().map(|(_, outcome)| outcome).collect();
    assert_eq!(all, [&Outcome::Expired; 3]);
    let fault = Fault::TwoLeaders { other: N3, term: Term(term) };
    assert_eq!(effects.last(), Some(&Effect::Halt { fault }));
    assert!(bench.propose("y").is_empty(), "it has stopped");
    assert_eq!(bench.raft.next_deadline(), Time::NEVER);
}

/// Section 8: a client that asks another server than the leader is told who leads.
#[test]
fn a_follower_names_the_leader() {
    let mut bench = one_of_three().term(1).start();
    assert_eq!(outcome(&bench.propose("x")), &Outcome::NotLeader { leader: None });
    bench.heartbeat(N2, 1);
    assert_eq!(outcome(&bench.propose("x")), &Outcome::NotLeader { leader: Some(N2) });
    assert_eq!(outcome(&bench.transfer(None)), &Outcome::NotLeader { leader: Some(N2) });
}

/// Section 8: each leader commits a blank no-op entry at the start of its term.
#[test]
fn a_leader_starts_its_term_with_a_blank_entry() {
    let mut bench = one_of_three().log(&[1, 1]).start();
    bench.win();
    let last = bench.raft.log().iter().last().expect("an entry").clone();
    assert_eq!((last.position(), last.payload), (position(3, 2), Payload::Blank));
}

/// 5.3: the leader answers when the entry has been applied, and names its place; once.
#[test]
fn a_command_is_done_when_it_is_applied() {
    let mut bench = one_of_three().lead_and_commit();
    bench.manual_machine = true;
    bench.propose("x");
    let effects = bench.these_accept(&[N2]);
    assert_eq!(applied(&effects), [2]);
    assert!(outcomes(&effects).is_empty(), "committed, but not applied");
    let effects = bench.step(Input::Applied { index: Index(2) });
    assert_eq!(outcome(&effects), &Outcome::Done { position: position(2, 1) });
    assert!(outcomes(&bench.step(Input::Applied { index: Index(2) })).is_empty());
}

/// Thesis 6.4, step 1: no read before the leader has committed an entry of its term (S63).
#[test]
fn a_read_waits_for_the_first_commit_of_the_term() {
    let mut bench = one_of_three().log(&[1, 1]).lead();
    assert!(outcomes(&bench.read(ReadKind::Quorum)).is_empty());
    assert!(outcomes(&bench.read(ReadKind::Lease)).is_empty());
    let mut effects = bench.these_accept(&[N2]);
    effects.extend(bench.these_accept(&[N2]));
    let all: Vec<_> = outcomes(&effects).into_iter().map(|(_, outcome)| outcome.clone()).collect();
    assert_eq!(all, vec![Outcome::Readable { index: Index(3) }; 2]);
}

/// Thesis 6.4, step 3: the leader makes sure that it still leads by a round of heartbeats sent after
/// the read arrived. An answer to an earlier one confirms nothing (S64).
#[test]
fn a_quorum_read_is_confirmed_by_a_later_round_only() {
    let mut bench = one_of_three().lead_and_commit();
    let earlier = bench.heartbeat_to(N2);
    let effects = bench.read(ReadKind::Quorum);
    let later = appends_to(&effects, N2)[0].clone();
    assert!(later.round > earlier.round);
    assert!(outcomes(&bench.accept(N2, &earlier)).is_empty());
    let effects = bench.accept(N2, &later);
    assert_eq!(outcome(&effects), &Outcome::Readable { index: Index(1) });
}

/// Thesis 6.4: one round serves any number of reads: those that arrive meanwhile share the next.
#[test]
fn reads_share_their_rounds() {
    let mut bench = one_of_three().lead_and_commit();
    let effects = bench.read(ReadKind::Quorum);
    let first = appends_to(&effects, N2)[0].clone();
    for _ in 0..10 {
        assert!(sent(&bench.read(ReadKind::Quorum)).is_empty());
    }
    let effects = bench.accept(N2, &first);
    assert_eq!(outcomes(&effects).len(), 1);
    let second = appends_to(&effects, N2)[0].clone();
    assert_eq!(outcomes(&bench.accept(N2, &second)).len(), 10);
}

/// Thesis 6.4, steps 4 and 5: a read waits until the state machine has reached its index.
#[test]
fn a_read_waits_for_the_state_machine() {
    let mut bench = one_of_three().lead_and_commit();
    bench.manual_machine = true;
    bench.propose("x");
    bench.these_accept(&[N2]);
    assert!(outcomes(&bench.read(ReadKind::Lease)).is_empty());
    let effects = bench.step(Input::Applied { index: Index(2) });
    assert!(outcomes(&effects).contains(&(bench.latest(), &Outcome::Readable { index: Index(2) })));
}

/// Thesis 6.4.1: under a lease a read needs no messages; the lease is counted from the sending of what
/// a quorum answered, and is shorter than the followers' promise by the bound on drift (S67, S68).
#[test]
fn a_lease_ends_before_any_followers_promise() {
    let drift = DriftBound::new(100_000).expect("a tenth is allowed");
    let mut bench = one_of_three().with(|config| config.clock_drift = drift).lead_and_commit();
    let lease = bench.raft.config().lease_duration();
    assert!(lease < ms(123) && lease > ms(122), "150 ms * 0.9 / 1.1");
    let heartbeat = bench.heartbeat_to(N2);
    let sent_at = bench.now;
    bench.now = sent_at.after(ms(49));
    bench.accept(N2, &heartbeat);
    bench.now = Time(sent_at.after(lease).0 - 1);
    assert_eq!(outcome(&bench.read(ReadKind::Lease)), &Outcome::Readable { index: Index(1) });
    bench.now = sent_at.after(lease);
    assert!(outcomes(&bench.read(ReadKind::Lease)).is_empty());
}

/// A host may forbid leases, and a client may ask for a quorum.
#[test]
fn a_lease_is_used_only_where_it_may_be() {
    let mut bench = one_of_three().with(|config| config.lease_reads = false).lead_and_commit();
    assert!(outcomes(&bench.read(ReadKind::Lease)).is_empty());
    let mut bench = one_of_three().lead_and_commit();
    assert!(outcomes(&bench.read(ReadKind::Quorum)).is_empty());
}

/// S66: a transfer that has told its target to stand ends the lease for this term.
#[test]
fn a_transfer_ends_the_lease_for_the_term() {
    let mut bench = one_of_three().lead_and_commit();
    bench.transfer(Some(N2));
    assert!(outcomes(&bench.read(ReadKind::Lease)).is_empty());
    for _ in 0..8 {
        bench.all_accept();
    }
    assert!(bench.raft.is_leader());
    assert!(outcomes(&bench.read(ReadKind::Lease)).is_empty(), "the message may still arrive");
}

/// S65: reads that can't be confirmed any more end when the leadership does.
#[test]
fn waiting_reads_end_with_the_leadership() {
    let mut bench = one_of_three().lead_and_commit();
    bench.read(ReadKind::Quorum);
    bench.read(ReadKind::Quorum);
    let effects = bench.heartbeat(N3, 9);
    assert_eq!(outcomes(&effects).len(), 2);
    assert!(outcomes(&effects).iter().all(|(_, outcome)| matches!(outcome, Outcome::NotLeader { .. })));
}

/// Thesis 6.4: a follower serves a read with the leader's index, once it has applied that far.
#[test]
fn a_follower_asks_its_leader_for_the_index() {
    let mut bench = one_of_three().term(1).start();
    bench.append(N2, 1, append(position(0, 0), entries(1, &[1, 1]), 1));
    let effects = bench.read(ReadKind::Quorum);
    let [Body::ReadIndex { context, kind: ReadKind::Quorum }] = sent_to(&effects, N2)[..] else { panic!() };
    let wrong = Body::ReadIndexReply { context: context.wrapping_add(1), index: Some(Index(2)) };
    assert!(outcomes(&bench.receive(N2, 1, wrong)).is_empty(), "an answer to another question");
    let effects = bench.receive(N2, 1, Body::ReadIndexReply { context: *context, index: Some(Index(2)) });
    assert_eq!(applied(&effects), [2], "what the leader says is committed, and it is here");
    assert_eq!(outcome(&effects), &Outcome::Readable { index: Index(2) });
    let again = Body::ReadIndexReply { context: *context, index: Some(Index(2)) };
    assert!(outcomes(&bench.receive(N2, 1, again)).is_empty(), "once");
}

/// A question or an answer that is lost is asked again.
#[test]
fn a_follower_asks_again() {
    let mut bench = one_of_three().term(1).start();
    bench.heartbeat(N2, 1);
    let first = bench.read(ReadKind::Quorum);
    let again = bench.wait(ms(50));
    assert_eq!(sent_to(&first, N2), sent_to(&again, N2));
}

/// The leader's part: it confirms a follower's read like its own.
#[test]
fn a_leader_confirms_a_followers_read() {
    let mut bench = one_of_three().lead_and_commit();
    let effects = bench.receive(N3, 1, Body::ReadIndex { context: 5, kind: ReadKind::Quorum });
    let round = appends_to(&effects, N2)[0].clone();
    let effects = bench.accept(N2, &round);
    assert_eq!(sent_to(&effects, N3), [&Body::ReadIndexReply { context: 5, index: Some(Index(1)) }]);
    let mut follower = one_of_three().term(1).start();
    let effects = follower.receive(N3, 1, Body::ReadIndex { context: 5, kind: ReadKind::Quorum });
    assert_eq!(sent_to(&effects, N3), [&Body::ReadIndexReply { context: 5, index: None }]);
}

/// A follower that becomes the leader confirms its own relayed reads itself.
#[test]
fn relayed_reads_survive_an_election() {
    let mut bench = one_of_three().term(1).start();
    bench.heartbeat(N2, 1);
    bench.read(ReadKind::Quorum);
    bench.wait(ms(300));
    bench.receive(N2, 1, Body::PreVoteReply { granted: true });
    bench.receive(N2, 2, Body::RequestVoteReply { granted: true });
    assert!(bench.raft.is_leader());
    let mut effects = bench.these_accept(&[N2]);
    effects.extend(bench.these_accept(&[N2]));
    assert_eq!(outcome(&effects), &Outcome::Readable { index: Index(1) });
}

/// Every bound that is reached is named (law 6).
#[test]
fn every_bound_refuses_with_its_name() {
    let overloaded = |limit| Outcome::Overloaded { limit };
    let mut bench = one_of_three().with(|config| config.max_uncommitted_bytes = 100).lead_and_commit();
    assert!(outcomes(&bench.propose(&"x".repeat(500))).is_empty(), "one command is always let in");
    assert_eq!(outcome(&bench.propose("y")), &overloaded("max_uncommitted_bytes"));
    bench.all_accept();
    assert!(outcomes(&bench.propose("z")).is_empty());
    let mut bench = one_of_three().with(|config| config.max_waiting_reads = 1).lead_and_commit();
    bench.read(ReadKind::Quorum);
    assert_eq!(outcome(&bench.read(ReadKind::Quorum)), &overloaded("max_waiting_reads"));
    let effects = bench.receive(N3, 1, Body::ReadIndex { context: 5, kind: ReadKind::Quorum });
    assert_eq!(sent_to(&effects, N3), [&Body::ReadIndexReply { context: 5, index: None }]);
    let mut follower = one_of_three().with(|config| config.max_waiting_reads = 1).term(1).start();
    follower.heartbeat(N2, 1);
    follower.read(ReadKind::Quorum);
    assert_eq!(outcome(&follower.read(ReadKind::Quorum)), &overloaded("max_waiting_reads"));
}

/// A request with a deadline is given up when it comes, and not answered again.
#[test]
fn a_request_expires_once_at_its_deadline() {
    let mut bench = one_of_three().lead_and_commit();
    let deadline = Some(bench.now.after(ms(10)));
    bench.step(Input::Propose { token: Token(70), command: "x".into(), deadline });
    bench.step(Input::Read { token: Token(71), kind: ReadKind::Quorum, deadline });
    assert!(outcomes(&bench.wait(ms(9))).is_empty());
    let effects = bench.wait(ms(1));
    assert_eq!(outcomes(&effects), [(Token(70), &Outcome::Expired), (Token(71), &Outcome::Expired)]);
    let mut effects = bench.all_accept();
    effects.extend(bench.all_accept());
    assert_eq!(bench.raft.commit_index(), Index(2), "it may still take effect");
    assert!(outcomes(&effects).is_empty());
}

/// Thesis 3.10: the target is told to stand when its log matches the leader's, which takes no new
/// commands meanwhile.
#[test]
fn a_transfer_brings_its_target_up_to_date_first() {
    let mut bench = one_of_three().lead_and_commit();
    let effects = bench.propose("x");
    let x = appends_to(&effects, N2)[0].clone();
    let effects = bench.transfer(Some(N2));
    assert!(!sent_to(&effects, N2).contains(&&Body::TimeoutNow));
    assert_eq!(outcome(&bench.propose("y")), &Outcome::Refused(Refusal::TransferUnderWay));
    assert_eq!(outcome(&bench.transfer(Some(N3))), &Outcome::Refused(Refusal::TransferUnderWay));
    let effects = bench.accept(N2, &x);
    assert!(sent_to(&effects, N2).contains(&&Body::TimeoutNow));
}

/// Thesis 3.10: the target starts an election at once, without a pre-vote (S8).
#[test]
fn a_transfer_target_stands_at_once() {
    let mut bench = one_of_three().term(1).start();
    bench.heartbeat(N2, 1);
    let effects = bench.receive(N2, 1, Body::TimeoutNow);
    let ask = Body::RequestVote { last: position(0, 0), transfer: true };
    assert_eq!(sent(&effects), [(N2, &ask), (N3, &ask)]);
    let mut learner = Setup::new(N4, bowline_raft::Membership::simple(group(&[1, 2, 3], &[4]))).term(1).start();
    assert!(learner.receive(N2, 1, Body::TimeoutNow).is_empty(), "only a voter has a right to (S61)");
}

/// Thesis 3.10: a transfer that takes longer than an election timeout is given up (S60).
#[test]
fn a_transfer_ends_one_way_or_the_other() {
    let mut bench = one_of_three().lead_and_commit();
    bench.transfer(Some(N2));
    let mut effects = Vec::new();
    for _ in 0..6 {
        effects.extend(bench.these_accept(&[N3]));
    }
    assert_eq!(outcome(&effects), &Outcome::Expired);
    assert!(outcomes(&bench.propose("x")).is_empty(), "commands are taken again");
    for (winner, expected) in [(N2, true), (N3, false)] {
        let mut bench = one_of_three().lead_and_commit();
        bench.transfer(Some(N2));
        let effects = bench.heartbeat(winner, 2);
        assert_eq!(matches!(outcome(&effects), Outcome::Done { .. }), expected);
    }
}

/// A transfer that can't be is refused with the reason.
#[test]
fn an_impossible_transfer_is_refused() {
    let mut alone = Setup::new(N1, simple(&[1])).lead();
    assert_eq!(outcome(&alone.transfer(None)), &Outcome::Refused(Refusal::NoOtherVoter));
    assert!(matches!(outcome(&alone.transfer(Some(N1))), Outcome::Done { .. }));
    let mut bench = one_of_three().lead_and_commit();
    assert_eq!(outcome(&bench.transfer(Some(N5))), &Outcome::Refused(Refusal::NotAVoter(N5)));
    let effects = bench.transfer(None);
    assert_eq!(sent(&effects).len(), 1, "the most up-to-date voter is told");
}

/// S69: a single voter that restarts serves no read before it has committed in its new term.
#[test]
fn a_restarted_single_voter_reads_nothing_stale() {
    let mut bench = Setup::new(N1, simple(&[1])).log(&[1, 1]).applied(1).start();
    assert_eq!(outcome(&bench.read(ReadKind::Lease)), &Outcome::NotLeader { leader: None });
    bench.manual_disk = true;
    bench.time_out();
    bench.sync();
    assert!(bench.raft.is_leader());
    assert!(outcomes(&bench.read(ReadKind::Lease)).is_empty());
    let effects = bench.sync();
    assert_eq!(outcome(&effects), &Outcome::Readable { index: Index(3) });
}

/// What a replica says of itself answers an operator's questions.
#[test]
fn a_replica_explains_itself() {
    let mut bench = one_of_three().start();
    assert!(bench.raft.explain().to_string().contains("knows no leader, stands for election in"));
    bench.time_out();
    let RoleExplanation::Standing { pre_vote: true, granted, silent, .. } = bench.raft.explain().role else { panic!() };
    assert_eq!((granted, silent), (vec![N1], vec![N2, N3]));
    bench.win();
    bench.propose("x");
    let explanation = bench.raft.explain();
    let why = explanation.uncommitted.clone().expect("nothing is committed yet");
    assert_eq!((why.index, why.held_by, why.missing_at), (Index(1), vec![N1], vec![N2, N3]));
    let text = explanation.to_string();
    assert!(text.contains("entry 1 is not committed: on disk at n1, not at n2 n3"), "{text}");
    assert!(text.contains("n2 (voter) matches up to 0, lacks 2"), "{text}");
    assert!(text.contains("paused: one probe at a time"), "{text}");
    let mut follower = one_of_three().log(&[1]).start();
    follower.heartbeat(N2, 1);
    let text = follower.raft.explain().to_string();
    assert!(text.contains("follows n2, heard 0ns ago"), "{text}");
    assert!(text.contains("the leader can tell why"), "{text}");
}
