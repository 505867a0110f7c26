//! Section 6 of the paper and chapter 4 of the thesis, sentence by sentence.

mod support;

use bowline_raft::{Body, Entry, Index, Membership, MembershipChange, Outcome, Payload, Term};
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
