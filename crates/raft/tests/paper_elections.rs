//! Section 5.2, 5.4.1 and 5.6 of the paper and 4.2.3, 9.6 of the thesis, sentence by sentence.

mod support;

use std::collections::BTreeSet;

use bowline_raft::{Body, Config, HardState, RoleExplanation, Term, Time};
use support::bench::*;

/// Thesis 4.2.3: a server that hears from a leader does not grant its vote, even if it has learned
/// of the candidate's term in another way. Otherwise a late answer that carries the new term would
/// break the promise that the old leader's lease stands on (thesis 6.4.1).
#[test]
fn a_server_that_heard_a_leader_grants_no_vote_in_a_later_term_that_it_learned_of_elsewhere() {
    let mut bench = one_of_three().term(1).start();
    bench.heartbeat(N2, 1);
    bench.receive(N3, 2, Body::RequestVoteReply { granted: false });
    assert_eq!(bench.raft.term(), Term(2));
    let effects = bench.request_vote(N3, 2, position(9, 1));
    assert_eq!(vote(&effects), Some(false), "n2 may still read under its lease");
    bench.wait(ms(149));
    let effects = bench.request_vote(N3, 2, position(9, 1));
    assert_eq!(vote(&effects), Some(false));
    bench.wait(ms(1));
    let effects = bench.request_vote(N3, 2, position(9, 1));
    assert_eq!(vote(&effects), Some(true), "the promise is over");
}

/// Figure 2, followers: the election timeout starts anew when a vote is granted. A server that was
/// only asking who would vote for it gives that up, or it would stand against its own choice.
#[test]
fn a_server_that_asks_for_pre_votes_gives_up_when_it_grants_its_vote() {
    let mut bench = one_of_three().term(2).start();
    bench.time_out();
    assert_eq!(vote(&bench.request_vote(N3, 2, position(0, 0))), Some(true));
    let effects = bench.receive(N2, 2, Body::PreVoteReply { granted: true });
    assert!(sent(&effects).is_empty());
    assert_eq!((bench.raft.term(), bench.raft.voted_for()), (Term(2), Some(N3)));
}

fn is_standing(bench: &Bench, for_pre_vote: bool) -> bool {
    matches!(bench.raft.explain().role, RoleExplanation::Standing { pre_vote, .. } if pre_vote == for_pre_vote)
}

/// 5.2: when servers start up, they begin as followers.
#[test]
fn servers_start_as_followers() {
    let bench = one_of_three().restart();
    assert!(!bench.raft.is_leader() && bench.raft.leader().is_none());
    assert!(matches!(bench.raft.explain().role, RoleExplanation::Waiting { .. }));
}

/// 5.2: a server remains a follower as long as it receives valid RPCs from a leader.
#[test]
fn a_follower_that_hears_its_leader_does_not_stand() {
    let mut bench = one_of_three().term(1).start();
    for _ in 0..20 {
        bench.heartbeat(N2, 1);
        assert!(sent(&bench.wait(ms(149))).is_empty());
    }
    assert_eq!(bench.raft.leader(), Some(N2));
}

/// 9.6 of the thesis: a candidate first asks whether it could win; that changes neither its term
/// nor its vote.
#[test]
fn a_pre_vote_changes_neither_term_nor_vote() {
    let mut bench = one_of_three().term(3).start();
    let effects = bench.time_out();
    assert!(is_standing(&bench, true));
    assert!(writes(&effects).is_empty());
    let ask = Body::PreVote { last: position(0, 0) };
    assert_eq!(sent(&effects), [(N2, &ask), (N3, &ask)]);
    assert_eq!((bench.raft.term(), bench.raft.voted_for()), (Term(3), None));
}

/// Figure 2, candidates: increment currentTerm, vote for self, reset election timer, send
/// RequestVote to all other servers.
#[test]
fn a_candidate_increments_its_term_votes_for_itself_and_asks_all_others() {
    let mut bench = one_of_three().log(&[1, 1]).with(ask_once).start();
    let before = bench.raft.next_deadline();
    bench.time_out();
    let effects = bench.receive(N2, 1, Body::PreVoteReply { granted: true });
    assert_eq!(hard_states(&effects), [HardState { term: Term(2), voted_for: Some(N1) }]);
    let ask = Body::RequestVote { last: position(2, 1), transfer: false };
    assert_eq!(sent(&effects), [(N2, &ask), (N3, &ask)]);
    assert!(bench.raft.next_deadline() >= before.after(ms(150)), "the election timer starts anew");
}

/// Figure 2: persistent state is updated on stable storage before responding; so a candidate's
/// requests, which tell its vote, wait for its disk.
#[test]
fn a_candidate_asks_only_after_its_own_vote_is_durable() {
    let mut bench = one_of_three().start();
    bench.manual_disk = true;
    bench.time_out();
    let effects = bench.receive(N2, 0, Body::PreVoteReply { granted: true });
    assert_eq!(waits_for(&effects), [Some(bench.written), Some(bench.written)]);
}

/// 5.2: a candidate wins if it receives votes from a majority of the servers in the full cluster.
#[test]
fn a_candidate_with_a_majority_becomes_leader() {
    let mut bench = one_of_five().start();
    bench.stand();
    bench.receive(N2, 1, Body::RequestVoteReply { granted: true });
    assert!(!bench.raft.is_leader(), "two of five");
    bench.receive(N3, 1, Body::RequestVoteReply { granted: true });
    assert!(bench.raft.is_leader(), "three of five");
}

/// The own vote is a vote like any other: it counts when it is durable (S3).
#[test]
fn the_own_vote_counts_when_it_is_durable() {
    let mut bench = one_of_three().start();
    bench.manual_disk = true;
    bench.stand();
    bench.receive(N2, 1, Body::RequestVoteReply { granted: true });
    assert!(!bench.raft.is_leader());
    bench.sync();
    assert!(bench.raft.is_leader());
}

/// Figure 2, leaders: upon election, send initial AppendEntries to each server, to prevent
/// election timeouts. Here they carry the blank entry.
#[test]
fn a_new_leader_speaks_to_everyone_at_once() {
    let mut bench = one_of_five().start();
    let effects = bench.win();
    for id in [N2, N3, N4, N5] {
        let append = appends_to(&effects, id)[0];
        assert_eq!((append.prev, append.entries.len()), (position(0, 0), 1));
    }
}

/// 5.2: a candidate that hears a leader of at least its term returns to follower state.
#[test]
fn a_candidate_recognises_a_leader_of_its_term() {
    let mut bench = one_of_three().start();
    bench.stand();
    assert!(is_standing(&bench, false));
    bench.heartbeat(N3, 1);
    assert_eq!(bench.raft.leader(), Some(N3));
}

/// 5.2: if the term in the RPC is smaller than the candidate's, it rejects the RPC and continues in
/// candidate state.
#[test]
fn a_candidate_rejects_a_leader_of_an_earlier_term() {
    let mut bench = one_of_three().term(4).start();
    bench.stand();
    let effects = bench.heartbeat(N3, 4);
    assert!(matches!(reply(&effects), bowline_raft::AppendOutcome::Rejected { .. }));
    assert!(is_standing(&bench, false));
}

/// 5.1: servers retry RPCs if they do not receive a response in a timely manner; so do candidates of
/// both kinds, to those who have not answered yet.
#[test]
fn a_candidate_asks_silent_voters_again() {
    let mut bench = one_of_five().start();
    bench.time_out();
    bench.receive(N2, 0, Body::PreVoteReply { granted: true });
    let again = bench.until_deadline();
    let ask = Body::PreVote { last: position(0, 0) };
    assert_eq!(sent(&again), [(N3, &ask), (N4, &ask), (N5, &ask)]);
    bench.receive(N3, 0, Body::PreVoteReply { granted: true });
    assert!(is_standing(&bench, false));
    bench.receive(N4, 1, Body::RequestVoteReply { granted: false });
    let again = bench.until_deadline();
    let ask = Body::RequestVote { last: position(0, 0), transfer: false };
    assert_eq!(sent(&again), [(N2, &ask), (N3, &ask), (N5, &ask)]);
    assert!(writes(&again).is_empty(), "asking again changes nothing");
    assert_eq!(bench.raft.term(), Term(1));
}

/// Only the election timeout wakes a candidate: it asks nobody again before.
fn ask_once(config: &mut Config) {
    config.retry_after = ms(400);
}

/// Figure 2, candidates: if the election timeout elapses, start a new election.
#[test]
fn a_candidate_without_a_result_starts_over() {
    let mut bench = one_of_three().with(ask_once).start();
    bench.stand();
    let effects = bench.time_out();
    assert!(is_standing(&bench, true));
    assert_eq!(sent(&effects).len(), 2);
    bench.receive(N2, 1, Body::PreVoteReply { granted: true });
    assert_eq!(bench.raft.term(), Term(2));
}

/// 5.2: election timeouts are chosen randomly from a fixed interval, each time anew (S12).
#[test]
fn each_election_timeout_is_drawn_anew_from_the_interval() {
    let mut bench = one_of_three().with(ask_once).restart();
    let mut seen = BTreeSet::new();
    for _ in 0..50 {
        let before = bench.now;
        bench.time_out();
        let span = bench.now.since(before);
        assert!((ms(150)..=ms(300)).contains(&span), "{span:?}");
        seen.insert(span);
    }
    assert!(seen.len() > 45);
}

/// 5.2: each server votes for at most one candidate in a given term, first come, first served.
#[test]
fn a_server_votes_once_in_a_term() {
    let mut bench = one_of_five().term(1).start();
    let effects = bench.request_vote(N2, 2, position(0, 0));
    assert_eq!(vote(&effects), Some(true));
    assert_eq!(vote(&bench.request_vote(N3, 2, position(9, 1))), Some(false));
    let effects = bench.request_vote(N2, 2, position(0, 0));
    assert_eq!(vote(&effects), Some(true), "the same candidate may ask again");
    assert!(writes(&effects).is_empty(), "which is nothing new");
    assert_eq!(vote(&bench.request_vote(N3, 3, position(0, 0))), Some(true), "a new term, a new vote");
}

/// 5.2, Figure 2: votedFor is persistent: a restart gives no second vote (S1).
#[test]
fn a_vote_outlives_a_restart() {
    let mut bench = one_of_three().term(2).voted_for(N2).start();
    assert_eq!(vote(&bench.request_vote(N3, 2, position(9, 1))), Some(false));
    assert_eq!(vote(&bench.request_vote(N2, 2, position(0, 0))), Some(true));
}

/// Figure 2: the answer to a vote leaves when term and vote are on disk.
#[test]
fn a_vote_is_told_when_it_is_durable() {
    let mut bench = one_of_three().term(1).start();
    bench.manual_disk = true;
    let effects = bench.request_vote(N2, 2, position(0, 0));
    let last = HardState { term: Term(2), voted_for: Some(N2) };
    assert_eq!(hard_states(&effects).last(), Some(&last));
    assert_eq!(waits_for(&effects), [Some(bench.written)]);
}

/// RequestVote, receiver 1: reply false if term < currentTerm.
#[test]
fn a_request_of_an_earlier_term_is_refused_with_the_current_one() {
    let mut bench = one_of_three().term(5).start();
    let effects = bench.request_vote(N2, 4, position(9, 4));
    assert_eq!(vote(&effects), Some(false));
    assert!(matches!(&effects[0], bowline_raft::Effect::Send { message, .. } if message.term == Term(5)));
    assert_eq!(bench.raft.voted_for(), None);
}

/// RequestVote, receiver 2, and 5.4.1: the candidate's log must be at least as up-to-date: the later
/// last term wins, and of equal last terms the longer log.
#[test]
fn only_an_up_to_date_candidate_is_voted_for() {
    let cases = [((3, 2), true), ((4, 2), true), ((1, 3), true), ((2, 2), false), ((9, 1), false), ((0, 0), false)];
    for ((index, term), granted) in cases {
        let mut bench = one_of_three().log(&[1, 1, 2]).term(4).start();
        let effects = bench.request_vote(N2, 5, position(index, term));
        assert_eq!(vote(&effects), Some(granted), "last {index}@{term}");
        let mut bench = one_of_three().log(&[1, 1, 2]).term(4).start();
        let effects = bench.receive(N2, 4, Body::PreVote { last: position(index, term) });
        assert_eq!(vote(&effects), Some(granted), "pre-vote, last {index}@{term}");
    }
}

/// 5.4.1: a refusal does not cost the vote: a later candidate with a good log has it.
#[test]
fn a_refused_candidate_does_not_use_up_the_vote() {
    let mut bench = one_of_three().log(&[1, 1]).start();
    assert_eq!(vote(&bench.request_vote(N2, 2, position(1, 1))), Some(false));
    assert_eq!(vote(&bench.request_vote(N3, 2, position(2, 1))), Some(true));
}

/// Figure 2, all servers: if an RPC request or response contains a higher term, adopt it and convert
/// to follower.
#[test]
fn every_role_adopts_a_higher_term_and_follows() {
    let follower = || one_of_three().term(1).start();
    let candidate = || {
        let mut bench = follower();
        bench.stand();
        bench
    };
    let leader = || one_of_three().term(1).lead();
    for mut bench in [follower(), candidate(), leader()] {
        let effects = bench.receive(N2, 7, Body::RequestVoteReply { granted: false });
        assert_eq!(hard_states(&effects), [HardState { term: Term(7), voted_for: None }]);
        assert!(!bench.raft.is_leader() && bench.raft.leader().is_none());
    }
}

/// S15, S18: a vote counts once, and only from a voter, and only in its term.
#[test]
fn doubled_foreign_and_late_votes_do_not_count() {
    let mut bench = Setup::new(N1, simple(&[1, 2, 3, 4, 5])).term(1).start();
    bench.stand();
    for (from, term) in [(N2, 2), (N2, 2), (bowline_raft::NodeId(9), 2), (N3, 1)] {
        bench.receive(from, term, Body::RequestVoteReply { granted: true });
        assert!(!bench.raft.is_leader());
    }
    bench.receive(N4, 2, Body::RequestVoteReply { granted: false });
    bench.receive(N4, 2, Body::RequestVoteReply { granted: true });
    assert!(!bench.raft.is_leader(), "the first answer counts");
    bench.receive(N5, 2, Body::RequestVoteReply { granted: true });
    assert!(bench.raft.is_leader());
}

/// 5.2: a candidate that can't win any more waits as a follower.
#[test]
fn a_candidate_that_is_refused_by_a_majority_gives_up() {
    let mut bench = one_of_three().start();
    bench.stand();
    bench.receive(N2, 1, Body::RequestVoteReply { granted: false });
    assert!(is_standing(&bench, false));
    bench.receive(N3, 1, Body::RequestVoteReply { granted: false });
    assert!(matches!(bench.raft.explain().role, RoleExplanation::Waiting { .. }));
    assert_eq!(bench.raft.voted_for(), Some(N1), "its vote stays its own in this term (S2)");
}

/// Section 6, last paragraph: a RequestVote within the minimum election timeout of hearing a leader
/// is ignored, without adopting its term.
#[test]
fn a_server_that_hears_a_leader_ignores_vote_requests() {
    let mut bench = one_of_three().term(1).start();
    bench.heartbeat(N2, 1);
    bench.now = bench.now.after(ms(149));
    assert!(bench.request_vote(N3, 2, position(9, 1)).is_empty());
    assert_eq!(bench.raft.term(), Term(1));
    bench.now = bench.now.after(ms(1));
    assert_eq!(vote(&bench.request_vote(N3, 2, position(9, 1))), Some(true));
}

/// The same for a leader: it hears itself, until check-quorum ends its term.
#[test]
fn a_leader_ignores_vote_requests() {
    let mut bench = one_of_three().lead();
    assert!(bench.request_vote(N3, 9, position(9, 1)).is_empty());
    assert!(bench.raft.is_leader());
}

/// Thesis 4.2.3: an election that the leader itself asked for is not ignored.
#[test]
fn a_vote_request_of_a_transfer_is_heeded() {
    let mut bench = one_of_three().term(1).start();
    bench.heartbeat(N2, 1);
    let effects = bench.receive(N3, 2, Body::RequestVote { last: position(0, 0), transfer: true });
    assert_eq!(vote(&effects), Some(true));
}

/// A restart forgets when a leader was last heard: the promise is kept as if it had been just now.
#[test]
fn a_restarted_server_grants_no_vote_at_once() {
    let mut bench = one_of_three().term(1).restart();
    assert!(bench.request_vote(N3, 2, position(9, 1)).is_empty());
    bench.now = Time::ZERO.after(ms(150));
    assert_eq!(vote(&bench.request_vote(N3, 2, position(9, 1))), Some(true));
}

/// Thesis 9.6: a pre-vote is granted by those who would vote, and to any number of candidates.
#[test]
fn a_pre_vote_binds_nobody() {
    let mut bench = one_of_three().term(2).voted_for(N1).start();
    for from in [N2, N3, N2] {
        let effects = bench.receive(from, 2, Body::PreVote { last: position(0, 0) });
        assert_eq!(vote(&effects), Some(true));
        assert!(writes(&effects).is_empty());
    }
}

/// Thesis 9.6: a server that hears a leader refuses a pre-vote.
#[test]
fn a_server_that_hears_a_leader_grants_no_pre_vote() {
    let mut bench = one_of_three().term(2).start();
    bench.heartbeat(N2, 2);
    let effects = bench.receive(N3, 2, Body::PreVote { last: position(9, 2) });
    assert_eq!(vote(&effects), Some(false));
    assert!(bench.receive(N3, 5, Body::PreVote { last: position(9, 2) }).is_empty());
    assert_eq!(bench.raft.term(), Term(2), "its leader's term stays");
}

/// A leader answers a pre-vote with a heartbeat: whoever asks has missed one.
#[test]
fn a_leader_answers_a_pre_vote_with_a_heartbeat() {
    let mut bench = one_of_three().lead();
    let effects = bench.receive(N3, 1, Body::PreVote { last: position(0, 0) });
    assert_eq!(appends_to(&effects, N3).len(), 1);
    assert_eq!(sent(&effects).len(), 1);
}

/// S5: terms spread with pre-votes and their answers, in both directions.
#[test]
fn pre_votes_spread_the_higher_term() {
    let mut bench = one_of_three().log(&[1, 1]).start();
    let effects = bench.receive(N3, 8, Body::PreVote { last: position(1, 1) });
    assert_eq!((vote(&effects), bench.raft.term()), (Some(false), Term(8)));
    let mut bench = one_of_three().log(&[1, 1]).term(8).start();
    let effects = bench.receive(N3, 3, Body::PreVote { last: position(9, 3) });
    assert!(matches!(&effects[0], bowline_raft::Effect::Send { message, .. } if message.term == Term(8)));
    assert_eq!(vote(&effects), Some(false));
}

/// Thesis 6.2: a leader steps down if an election timeout elapses without a round of answers from a
/// majority.
#[test]
fn a_leader_without_a_quorum_steps_down() {
    let mut bench = one_of_five().lead_and_commit();
    let start = bench.now;
    for _ in 0..5 {
        let append = bench.heartbeat_to(N2);
        bench.accept(N2, &append);
    }
    assert!(bench.raft.is_leader());
    bench.wait(ms(300).saturating_sub(bench.now.since(start)));
    assert!(!bench.raft.is_leader(), "two of five are no quorum");
    assert_eq!(bench.raft.voted_for(), Some(N1));
}

/// Thesis 6.2: and it leads on while a majority answers.
#[test]
fn a_leader_with_a_quorum_leads_on() {
    let mut bench = one_of_five().lead_and_commit();
    for _ in 0..40 {
        for id in [N2, N3] {
            let append = bench.heartbeat_to(id);
            bench.accept(id, &append);
        }
    }
    assert!(bench.raft.is_leader());
}
