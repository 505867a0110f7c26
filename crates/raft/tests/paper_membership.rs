//! Section 6 of the paper and chapter 4 of the thesis, sentence by sentence.

mod support;

use bowline_raft::{
    Body, Effect, Entry, Index, Membership, MembershipChange, MembershipError, NodeId, Outcome, Payload, Refusal,
    RoleExplanation, Term,
};
use support::bench::*;

/// An entry that holds a configuration.
fn config_entry(index: u64, term: u64, membership: Membership) -> Entry {
    Entry { index: Index(index), term: Term(term), payload: Payload::Membership(membership) }
}

/// Thesis 4.2.2: a server that is not part of its own latest configuration still starts elections,
/// as it might be needed until C_new is committed. Without it: n1, the leader, has appended C_new
/// without itself; n2 knows only the joint configuration and needs n1's vote, which n1 must refuse
/// to the shorter log. Nobody could ever lead again.
#[test]
fn a_server_outside_its_latest_configuration_stands_until_that_is_committed() {
    let joint = Membership::joint(group(&[1, 2], &[]), group(&[2], &[]));
    let mut setup = Setup::new(N1, simple(&[1, 2])).term(1);
    setup.recovered.entries = vec![config_entry(1, 1, joint.clone()), config_entry(2, 1, joint.left())];
    let mut bench = setup.start();
    let effects = bench.time_out();
    assert_eq!(sent_to(&effects, N2), [&Body::PreVote { last: position(2, 1) }]);
    bench.receive(N2, 1, Body::PreVoteReply { granted: true });
    assert!(!bench.raft.is_leader(), "its own vote does not count");
    bench.receive(N2, 2, Body::RequestVoteReply { granted: true });
    assert!(bench.raft.is_leader());
    let effects = bench.these_accept(&[N2]);
    assert!(!bench.raft.is_leader(), "it steps down when C_new is committed");
    assert!(sent_to(&effects, N2).contains(&&Body::TimeoutNow), "and asks a member to take over");
    // From here on it knows that it is out, and disturbs nobody.
    let effects = bench.wait(ms(2000));
    assert!(sent(&effects).is_empty());
}

/// A change is done when its configuration is committed, whatever else was changed since. Here n1
/// loses its office after appending its change, and hears of the commit only together with a later
/// change by the next leader.
#[test]
fn a_change_that_is_committed_is_done_though_another_one_followed() {
    let mut bench = one_of_three().lead_and_commit();
    let effects = bench.change(MembershipChange::AddLearner(N4));
    assert!(outcomes(&effects).is_empty());
    let learners = |learners| Membership::simple(group(&[1, 2, 3], learners));
    let later = vec![config_entry(3, 2, learners(&[4, 5]))];
    let effects = bench.append(N2, 2, append(position(2, 1), later, 3));
    assert_eq!(outcome(&effects), &Outcome::Done { position: position(2, 1) });
}

/// The same as for commands: a truncated change may still come back (Figure 8), so it is only said
/// to be superseded when another entry is committed in its place.
#[test]
fn a_change_is_superseded_only_when_something_else_is_committed_in_its_place() {
    let mut bench = one_of_three().lead_and_commit();
    bench.change(MembershipChange::AddLearner(N4));
    let effects = bench.append(N2, 2, append(position(1, 1), entries(2, &[2]), 1));
    assert_eq!(bench.raft.membership(), &simple(&[1, 2, 3]), "the configuration rolls back at once");
    assert!(outcomes(&effects).is_empty(), "but the change may come back with n3");
    let effects = bench.append(N2, 2, append(position(2, 2), vec![], 2));
    assert_eq!(outcome(&effects), &Outcome::Superseded);
}

/// S51: a joint configuration that is committed while a transfer is under way is left when the
/// transfer ends, by whoever leads then; here the transfer fails, and no command ever follows.
#[test]
fn a_joint_configuration_is_left_after_a_transfer_that_failed() {
    let mut bench = one_of_three().lead_and_commit();
    bench.change(MembershipChange::Demote(N3));
    bench.transfer(Some(N3));
    bench.these_accept(&[N2]);
    assert!(bench.raft.membership().is_joint(), "it stays while the transfer is under way");
    assert_eq!(bench.raft.commit_index(), bench.raft.log().last().index);
    for _ in 0..8 {
        bench.these_accept(&[N2]);
    }
    assert_eq!(bench.raft.membership(), &Membership::simple(group(&[1, 2], &[3])));
}

fn refused(error: MembershipError) -> Outcome {
    Outcome::Refused(Refusal::Membership(error))
}

/// Five servers of which n4 and n5 are learners that have everything.
fn with_two_learners() -> Bench {
    let mut bench = Setup::new(N1, Membership::simple(group(&[1, 2, 3], &[4, 5]))).lead();
    bench.these_accept(&[N2, N3, N4, N5]);
    bench
}

fn replace(bench: &mut Bench, voters: &[u64]) -> Vec<Effect> {
    bench.change(MembershipChange::Replace(group(voters, &[])))
}

/// Section 6: a server always uses the latest configuration in its log, regardless of whether the
/// entry is committed.
#[test]
fn a_configuration_is_in_force_from_its_append_on() {
    let joint = Membership::joint(group(&[1, 2, 3], &[]), group(&[1, 2], &[3]));
    let mut follower = Setup::new(N2, simple(&[1, 2, 3])).term(1).start();
    follower.append(N1, 1, append(position(0, 0), vec![config_entry(1, 1, joint.clone())], 0));
    assert_eq!(follower.raft.membership(), &joint);
    assert!(!follower.raft.explain().membership_committed);
    let mut leader = one_of_three().lead_and_commit();
    leader.change(MembershipChange::Demote(N3));
    assert!(leader.raft.membership().is_joint());
}

/// Section 6: agreement for commitment requires separate majorities from both the old and the new
/// configurations.
#[test]
fn a_joint_configuration_commits_with_both_majorities() {
    let mut bench = with_two_learners();
    replace(&mut bench, &[1, 4, 5]);
    let first = bench.raft.log().last().index;
    bench.these_accept(&[N4, N5]);
    assert!(bench.raft.commit_index() < first, "the new majority alone does not commit");
    bench.these_accept(&[N2]);
    assert!(bench.raft.commit_index() >= first);
    let mut bench = with_two_learners();
    replace(&mut bench, &[1, 4, 5]);
    bench.these_accept(&[N2, N3]);
    assert!(bench.raft.commit_index() < first, "neither does the old one");
}

/// Section 6: and so does agreement for elections.
#[test]
fn a_joint_configuration_elects_with_both_majorities() {
    let joint = Membership::joint(group(&[1, 2, 3], &[]), group(&[1, 4, 5], &[]));
    for (votes, elected) in [(vec![N2, N3], false), (vec![N4, N5], false), (vec![N2, N4], true)] {
        let mut bench = Setup::new(N1, joint.clone()).term(1).start();
        bench.stand();
        for from in votes {
            bench.receive(from, 2, Body::RequestVoteReply { granted: true });
        }
        assert_eq!(bench.raft.is_leader(), elected);
    }
}

/// Check-quorum, leases and read confirmations follow the same rule (thesis 6.4; S57).
#[test]
fn a_joint_configuration_is_led_only_with_both_majorities() {
    let mut bench = with_two_learners();
    replace(&mut bench, &[1, 4, 5]);
    for _ in 0..7 {
        bench.these_accept(&[N4, N5]);
    }
    assert!(!bench.raft.is_leader(), "the old half has not answered");
}

/// Section 6: once the joint configuration is committed, the leader creates C_new; once that is
/// committed the change is done.
#[test]
fn a_change_of_voters_goes_through_a_joint_configuration() {
    let mut bench = with_two_learners();
    let effects = bench.change(MembershipChange::Promote(N4));
    assert!(outcomes(&effects).is_empty());
    let joint = Membership::joint(group(&[1, 2, 3], &[4, 5]), group(&[1, 2, 3, 4], &[5]));
    assert_eq!(bench.raft.membership(), &joint);
    let effects = bench.these_accept(&[N2, N3, N4]);
    assert_eq!(bench.raft.membership(), &joint.left());
    assert_eq!(outcome(&effects), &Outcome::Done { position: position(3, 1) });
}

/// Thesis 4.2.1: a change of learners alone moves no quorum, and needs no joint configuration.
#[test]
fn a_change_of_learners_needs_no_joint_configuration() {
    let mut bench = one_of_three().lead_and_commit();
    bench.change(MembershipChange::AddLearner(N4));
    assert_eq!(bench.raft.membership(), &Membership::simple(group(&[1, 2, 3], &[4])));
    let effects = bench.these_accept(&[N2]);
    assert_eq!(outcome(&effects), &Outcome::Done { position: position(2, 1) });
}

/// Section 6: new servers join as non-voting members: they receive entries, and are not counted.
#[test]
fn a_learner_receives_entries_and_counts_for_nothing() {
    let mut bench = with_two_learners();
    let before = bench.raft.commit_index();
    let effects = bench.propose("x");
    assert_eq!(appends_to(&effects, N4).len(), 1);
    bench.these_accept(&[N4, N5]);
    assert_eq!(bench.raft.commit_index(), before);
    let mut learner = Setup::new(N4, Membership::simple(group(&[1, 2, 3], &[4]))).term(1).start();
    assert!(sent(&learner.wait(ms(3000))).is_empty(), "it does not stand (S17)");
    assert_eq!(learner.raft.explain().role, RoleExplanation::NotAVoter);
    let effects = learner.request_vote(N2, 2, position(0, 0));
    assert_eq!(vote(&effects), Some(true), "but it votes when asked: it may have been promoted (S16)");
}

/// Thesis 4.2.1: a server is promoted only when it has caught up.
#[test]
fn a_server_that_lags_is_not_promoted() {
    let mut bench = Setup::new(N1, Membership::simple(group(&[1, 2, 3], &[4])))
        .with(|config| config.max_promotion_lag = 2)
        .lead_and_commit();
    for command in ["a", "b", "c"] {
        bench.propose(command);
    }
    bench.all_accept();
    let effects = bench.change(MembershipChange::Promote(N4));
    assert_eq!(outcome(&effects), &refused(MembershipError::NotCaughtUp(N4)));
    bench.these_accept(&[N4, N2]);
    let effects = bench.change(MembershipChange::Promote(N4));
    assert!(outcomes(&effects).is_empty());
}

/// Thesis 4.2.1: while the log is short, a server that has never answered lags by few entries. As a voter it might be
/// needed for every commit, the one that takes it back among them.
#[test]
fn a_server_that_does_not_answer_is_not_promoted() {
    let mut bench = Setup::new(N1, Membership::simple(group(&[1, 2, 3], &[4]))).lead_and_commit();
    let effects = bench.change(MembershipChange::Promote(N4));
    assert_eq!(outcome(&effects), &refused(MembershipError::NotCaughtUp(N4)), "it has never answered");
    bench.these_accept(&[N4]);
    for _ in 0..10 {
        bench.wait(ms(100));
        bench.these_accept(&[N2, N3]);
    }
    let effects = bench.change(MembershipChange::Promote(N4));
    assert_eq!(outcome(&effects), &refused(MembershipError::NotCaughtUp(N4)), "its answer is long ago");
}

/// Thesis 4.2.1, for the members that stay: in the joint configuration the new voters decide, too. If too few of them
/// answer, nothing can be committed any more, not even the change that would take it back.
#[test]
fn voters_that_do_not_answer_are_not_left_to_decide() {
    let mut bench = one_of_three().lead_and_commit();
    for _ in 0..10 {
        bench.wait(ms(100));
        bench.these_accept(&[N2]);
    }
    let effects = bench.change(MembershipChange::Remove(N2));
    assert_eq!(outcome(&effects), &refused(MembershipError::NewVotersLag), "N3 has not answered for long");
    let effects = bench.change(MembershipChange::Remove(N1));
    assert_eq!(outcome(&effects), &refused(MembershipError::NewVotersLag), "the leader counts only if it stays");
    let effects = bench.change(MembershipChange::Remove(N3));
    assert!(outcomes(&effects).is_empty(), "the one that does not answer may go");
}

/// The same for a voter that answers and has not acknowledged anything in this term, such as one whose disk has lost
/// entries: it neither votes nor acknowledges.
#[test]
fn voters_that_only_answer_are_not_left_to_decide() {
    let mut bench = one_of_three().lead();
    bench.these_accept(&[N2]);
    let append = bench.heartbeat_to(N3);
    bench.reject(N3, &append, position(0, 0));
    let effects = bench.change(MembershipChange::Remove(N2));
    assert_eq!(outcome(&effects), &refused(MembershipError::NewVotersLag));
    bench.these_accept(&[N3]);
    let effects = bench.change(MembershipChange::Remove(N2));
    assert!(outcomes(&effects).is_empty());
}

/// The bug of 2015 (S49): no change before the leader has committed an entry of its term.
#[test]
fn no_change_before_an_entry_of_the_own_term_is_committed() {
    let mut bench = one_of_three().lead();
    let effects = bench.change(MembershipChange::Remove(N3));
    assert_eq!(outcome(&effects), &refused(MembershipError::TermNotCommitted));
}

/// Thesis 4.1: one change at a time.
#[test]
fn one_change_at_a_time() {
    let mut bench = with_two_learners();
    bench.change(MembershipChange::AddLearner(NodeId(6)));
    let effects = bench.change(MembershipChange::AddLearner(NodeId(7)));
    assert_eq!(outcome(&effects), &refused(MembershipError::ChangeUnderWay));
    bench.these_accept(&[N2, N3]);
    bench.change(MembershipChange::Remove(N3));
    let effects = bench.change(MembershipChange::AddLearner(NodeId(7)));
    assert_eq!(outcome(&effects), &refused(MembershipError::ChangeUnderWay));
}

/// A change that changes nothing is done at once, and only a leader changes anything.
#[test]
fn a_change_is_for_leaders_and_may_be_empty() {
    let mut bench = with_two_learners();
    let same = group(&[1, 2, 3], &[4, 5]);
    let effects = bench.change(MembershipChange::Replace(same));
    assert!(matches!(outcome(&effects), Outcome::Done { .. }));
    let mut follower = one_of_three().term(1).start();
    follower.heartbeat(N2, 1);
    let effects = follower.change(MembershipChange::Remove(N3));
    assert_eq!(outcome(&effects), &Outcome::NotLeader { leader: Some(N2) });
}

/// Section 6: the leader that is not part of C_new steps down once that is committed; until then it
/// does not count itself in majorities.
#[test]
fn a_leader_outside_c_new_leads_until_it_is_committed_and_does_not_count_itself() {
    let mut bench = one_of_three().lead_and_commit();
    bench.change(MembershipChange::Remove(N1));
    // The new two must both agree.
    bench.these_accept(&[N2]);
    assert!(bench.raft.membership().is_joint());
    let effects = bench.these_accept(&[N3]);
    assert_eq!(bench.raft.membership(), &simple(&[2, 3]));
    assert!(outcomes(&effects).is_empty() && bench.raft.is_leader(), "n1 and n3 are no majority of n2 and n3");
    let effects = bench.these_accept(&[N2]);
    assert!(!bench.raft.is_leader());
    assert!(matches!(outcome(&effects), Outcome::Done { .. }));
    assert!(sent(&effects).iter().any(|(_, body)| matches!(body, Body::TimeoutNow)), "it hands over (S53)");
    assert!(sent(&bench.wait(ms(3000))).is_empty(), "and is quiet");
}

/// Section 6: when a configuration entry is truncated, the one before it is in force again (S58).
#[test]
fn a_truncated_configuration_is_rolled_back() {
    let mut bench = one_of_three().lead_and_commit();
    bench.change(MembershipChange::Demote(N3));
    bench.append(N2, 2, append(position(1, 1), entries(2, &[2]), 2));
    assert_eq!(bench.raft.membership(), &simple(&[1, 2, 3]));
}

/// Section 6: removed servers do not disrupt: those who hear a leader neither grant nor adopt terms.
#[test]
fn a_removed_server_does_not_disrupt() {
    let mut bench = Setup::new(N2, simple(&[1, 2])).term(3).start();
    bench.heartbeat(N1, 3);
    assert!(bench.request_vote(N3, 9, position(9, 3)).is_empty());
    let effects = bench.receive(N3, 3, Body::PreVote { last: position(9, 3) });
    assert_eq!(vote(&effects), Some(false));
    assert_eq!(bench.raft.term(), Term(3));
    let mut leader = Setup::new(N1, simple(&[1, 2])).lead();
    assert!(leader.receive(N3, 1, Body::PreVote { last: position(9, 1) }).is_empty());
    assert!(leader.request_vote(N3, 9, position(9, 3)).is_empty());
}

/// S52: a joint configuration whose new half does not answer can be taken back, even uncommitted.
#[test]
fn a_joint_configuration_can_be_taken_back() {
    let mut bench = with_two_learners();
    replace(&mut bench, &[1, 4, 5]);
    let change = bench.latest();
    bench.change(MembershipChange::Revert);
    let revert = bench.latest();
    assert_eq!(bench.raft.membership(), &Membership::simple(group(&[1, 2, 3], &[4, 5])));
    let effects = bench.these_accept(&[N2, N3]);
    let position = position(3, 1);
    assert_eq!(outcomes(&effects), [(change, &Outcome::Superseded), (revert, &Outcome::Done { position })]);
    let effects = bench.change(MembershipChange::Revert);
    assert_eq!(outcome(&effects), &refused(MembershipError::NothingToRevert));
}

/// S51: the next leader leaves a joint configuration that it finds in its log, once it has committed.
#[test]
fn the_next_leader_leaves_a_joint_configuration() {
    let joint = Membership::joint(group(&[1, 2, 3], &[]), group(&[1, 2], &[3]));
    let mut setup = one_of_three().term(1);
    setup.recovered.entries = vec![config_entry(1, 1, joint.clone())];
    let mut bench = setup.lead();
    assert_eq!(bench.raft.membership(), &joint);
    bench.these_accept(&[N2]);
    assert_eq!(bench.raft.membership(), &joint.left());
}

/// S28: a peer that was removed and added again starts over: what it acknowledged before does not count.
#[test]
fn a_member_that_comes_back_has_acknowledged_nothing() {
    let mut bench = with_two_learners();
    let effects = bench.propose("x");
    let old = appends_to(&effects, N4)[0].clone();
    bench.change(MembershipChange::Remove(N4));
    bench.these_accept(&[N2, N3]);
    bench.change(MembershipChange::AddLearner(N4));
    bench.accept(N4, &old);
    let peer = bench.raft.explain().peers.into_iter().find(|peer| peer.id == N4).expect("a member again");
    assert_eq!((peer.match_index, peer.answered_ago), (Index(0), None));
}

/// An entry with a configuration that nobody can have made is passed over, with the message that brings it.
#[test]
fn a_configuration_that_can_not_be_is_not_taken() {
    let mut bench = one_of_three().term(1).start();
    let crowd: Vec<u64> = (1..=65).collect();
    for impossible in [group(&[], &[4]), group(&[1, 2], &[2]), group(&crowd, &[])] {
        let before = bench.raft.membership().clone();
        let entry = config_entry(1, 1, Membership::joint(group(&[1, 2, 3], &[]), impossible));
        let effects = bench.append(N2, 1, append(position(0, 0), vec![entry], 0));
        assert_eq!((effects.len(), bench.raft.log().last().index), (0, Index(0)));
        assert_eq!(bench.raft.membership(), &before);
    }
}
