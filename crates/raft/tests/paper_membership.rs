//! Section 6 of the paper and chapter 4 of the thesis, sentence by sentence.

mod support;

use bowline_raft::{Body, Entry, Index, Membership, Payload, Term};
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
