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
