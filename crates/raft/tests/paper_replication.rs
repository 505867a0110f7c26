//! Section 5.3 of the paper and the AppendEntries part of Figure 2, sentence by sentence.

mod support;

use bowline_raft::{Index, Session};
use support::bench::*;

/// Entries that don't follow each other, or `prev`, or have a term later than the leader's, are
/// taken from nobody, wherever in the range of numbers they are (S25).
#[test]
fn a_malformed_append_is_ignored() {
    let mut bench = one_of_three().term(3).start();
    let gap = vec![entry(1, 1), entry(3, 1)];
    let falling = vec![entry(1, 2), entry(2, 1)];
    let cases = [
        append(position(0, 0), gap, 0),
        append(position(0, 0), falling, 0),
        append(position(0, 0), entries(2, &[1]), 0),
        append(position(0, 0), entries(0, &[1]), 0),
        append(position(0, 0), entries(1, &[4]), 0),
        append(position(7, 4), vec![], 0),
        append(position(u64::MAX, 1), entries(0, &[1]), 0),
        append(position(u64::MAX, 1), vec![entry(u64::MAX, 1)], 0),
    ];
    for case in cases {
        assert!(bench.append(N2, 3, case).is_empty());
    }
    let mut no_session = append(position(0, 0), entries(1, &[1]), 0);
    no_session.session = Session(0);
    assert!(bench.append(N2, 3, no_session).is_empty());
    assert_eq!(bench.raft.log().last().index, Index(0));
}

/// A follower that refuses what it acknowledged in the same session has lost its promises. It is
/// not asked again at the speed of the network, only when a retry is due.
#[test]
fn a_follower_that_lost_what_it_acknowledged_is_not_asked_in_a_tight_loop() {
    let mut bench = one_of_three().lead_and_commit();
    bench.propose("x");
    bench.all_accept();
    let effects = bench.propose("y");
    let first = appends_to(&effects, N2)[0].clone();
    // The retry falls back to a probe at what matches; the wiped follower refuses that too.
    let effects = bench.wait(ms(60));
    let again = appends_to(&effects, N2).into_iter().find(|append| !append.entries.is_empty());
    let again = again.expect("a retry").clone();
    assert_eq!(again.prev, first.prev);
    for _ in 0..5 {
        let effects = bench.reject(N2, &again, position(0, 0));
        assert!(appends_to(&effects, N2).is_empty());
    }
}
