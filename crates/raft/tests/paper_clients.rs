//! What clients are told (section 8 of the paper, chapter 6 of the thesis), sentence by sentence.

mod support;

use bowline_raft::{Effect, Fault, Outcome, ReadKind, Term, Time};
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

/// The other end of the same story: the entry comes back, and is done.
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
