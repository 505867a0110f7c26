//! Section 7 of the paper and Figure 13, sentence by sentence.

mod support;

use bowline_raft::{Body, Index, InstallSnapshot, Membership, Session, SnapshotHeader};
use support::bench::*;

/// A snapshot that no leader can have made is not taken: of a later term than its sender's, without
/// voters, at the end of all indexes, or outside any session.
#[test]
fn a_malformed_snapshot_is_ignored() {
    let good = SnapshotHeader { position: position(5, 1), membership: simple(&[1, 2, 3]) };
    let future = SnapshotHeader { position: position(5, 2), ..good.clone() };
    let endless = SnapshotHeader { position: position(u64::MAX, 1), ..good.clone() };
    let headless = SnapshotHeader { membership: Membership::default(), ..good.clone() };
    let mut bench = one_of_three().term(1).start();
    for (session, snapshot) in [(1, future), (1, endless), (1, headless), (0, good)] {
        let install = InstallSnapshot { session: Session(session), snapshot };
        let effects = bench.receive(N2, 1, Body::InstallSnapshot(install));
        assert!(effects.is_empty());
    }
    assert_eq!(bench.raft.commit_index(), Index(0));
}
