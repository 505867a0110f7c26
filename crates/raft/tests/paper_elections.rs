//! Section 5.2, 5.4.1 and 5.6 of the paper and 4.2.3, 9.6 of the thesis, sentence by sentence.

mod support;

use bowline_raft::{Body, Term};
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
