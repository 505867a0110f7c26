//! The state that a host keeps by itself, the snapshot that arrives, and the one that is sent in pieces.

mod common;

use std::io::Read;

use bowline_raft::{
    Entry, HardState, Index, Membership, NodeId, Payload, Position, Session, SnapshotHeader, Term, Write,
};
use bowline_storage::{
    Arrival, CHUNK_BYTES, KeptState, Log, OpenError, Opened, SimDisk, create, create_with_snapshot, open_with,
};
use common::{IDENTITY, founders, options};

const SEGMENT: u64 = 16 << 10;

fn made() -> SimDisk {
    let disk = SimDisk::new();
    create(&disk, &IDENTITY, Some(founders()), &options(SEGMENT)).expect("an empty disk");
    disk
}

fn start(disk: &SimDisk, states: &[KeptState]) -> Opened<SimDisk> {
    let states = states.to_vec();
    open_with(disk, IDENTITY.cluster, IDENTITY.replica, &options(SEGMENT), |_| Ok(states)).expect("it opens")
}

fn header(index: u64) -> SnapshotHeader {
    SnapshotHeader { position: Position::new(Index(index), Term(1)), membership: founders() }
}

fn kept(index: u64) -> KeptState {
    KeptState { applied: Index(index), header: Some(header(index)) }
}

fn append(log: &mut Log<SimDisk>, indexes: std::ops::RangeInclusive<u64>) {
    log.append(&Write::HardState(HardState { term: Term(1), voted_for: None })).expect("there is room");
    let entries = indexes.map(|index| Entry { index: Index(index), term: Term(1), payload: Payload::Blank });
    log.append(&Write::Append(entries.collect())).expect("there is room");
    log.sync().expect("the disk works");
}

/// A log from 11 to 20, under which is the state up to 10.
fn compacted() -> SimDisk {
    let disk = made();
    let mut opened = start(&disk, &[kept(0)]);
    append(&mut opened.log, 1..=20);
    opened.log.compact(&header(10)).expect("it is durable");
    opened.log.sync().expect("the disk works");
    drop(opened);
    disk
}

#[test]
fn a_state_that_the_log_reaches_is_gone_on_from() {
    let disk = compacted();
    // From the snapshot of a later leader. The log does not know it, and holds an entry there that was never committed.
    let mut of_another = kept(15);
    of_another.header.iter_mut().for_each(|header| header.position.term = Term(2));
    // A header from before the state's last entry says nothing of that.
    let flushed = KeptState { applied: Index(16), ..kept(15) };
    for (states, chosen, applied) in [
        (vec![kept(10)], 0, 10),
        (vec![kept(15)], 0, 15),
        // One that is too old, or from another log: a later one may fit.
        (vec![kept(9), kept(12)], 1, 12),
        (vec![kept(21), kept(20)], 1, 20),
        (vec![of_another, kept(10)], 1, 10),
        (vec![flushed], 0, 16),
    ] {
        let recovery = start(&disk, &states).recovery;
        assert_eq!((recovery.kept, recovery.suspect), (Some(chosen), None), "{states:?}");
        assert_eq!(recovery.recovered.applied, Index(applied));
        assert_eq!(recovery.recovered.snapshot, Some(header(10)), "the log is there from its base on");
        assert_eq!(recovery.recovered.entries.len(), 10);
    }
}

#[test]
fn without_a_state_that_fits_the_log_is_of_no_use_and_says_so() {
    for states in [vec![], vec![kept(9)], vec![kept(21)]] {
        let recovery = start(&compacted(), &states).recovery;
        assert_eq!(recovery.kept, None, "{states:?}");
        assert!(recovery.suspect.is_some() && recovery.recovered.entries.is_empty());
        assert_eq!(recovery.recovered.applied, Index(0));
    }
}

#[test]
fn without_a_state_a_whole_log_is_enough() {
    let disk = made();
    append(&mut start(&disk, &[kept(0)]).log, 1..=5);
    let recovery = start(&disk, &[]).recovery;
    assert_eq!((recovery.kept, recovery.suspect), (None, None));
    assert_eq!((recovery.recovered.applied, recovery.recovered.entries.len()), (Index(0), 5));
}

fn arrival(session: u64) -> Arrival {
    Arrival { from: NodeId(3), term: Term(4), session: Session(session), header: header(7), total: 100 }
}

#[test]
fn what_has_arrived_is_there_after_a_restart_and_read_as_it_came() {
    let disk = made();
    let opened = start(&disk, &[kept(0)]);
    assert!(opened.snapshots.find_arriving().expect("the disk works").is_none());
    let mut arriving = opened.snapshots.begin_arriving(arrival(1)).expect("the disk works");
    arriving.add(&[1; 30]).expect("the disk works");
    arriving.add(&[]).expect("nothing is nothing");
    arriving.add(&[2; 20]).expect("the disk works");
    drop((arriving, opened));
    let opened = start(&disk, &[kept(0)]);
    let mut arriving = opened.snapshots.find_arriving().expect("the disk works").expect("it was kept");
    assert_eq!((arriving.arrival(), arriving.received()), (&arrival(1), 50));
    arriving.add(&[3; 50]).expect("the disk works");
    let mut all = Vec::new();
    arriving.pieces().read_to_end(&mut all).expect("it is whole");
    assert_eq!(all, [vec![1; 30], vec![2; 20], vec![3; 50]].concat());
    // Another one takes its place, and then none.
    let other = opened.snapshots.begin_arriving(arrival(2)).expect("the disk works");
    assert_eq!(other.received(), 0);
    other.remove().expect("the disk works");
    assert!(opened.snapshots.find_arriving().expect("the disk works").is_none());
}

#[test]
fn a_snapshot_is_read_from_anywhere_in_it() {
    let disk = made();
    let opened = start(&disk, &[kept(0)]);
    let data: Vec<u8> = (0..CHUNK_BYTES * 2 + 1_000).map(|at| (at % 251) as u8).collect();
    let header = SnapshotHeader { position: Position::new(Index(3), Term(1)), membership: Membership::default() };
    opened.snapshots.store(&header, &data).expect("the disk works");
    let reader = opened.snapshots.open(header.position).expect("it is whole");
    for (offset, length) in [(0, 10), (CHUNK_BYTES - 5, 10), (0, data.len()), (data.len() - 7, 7), (CHUNK_BYTES, 0)] {
        let read = reader.read_at(offset as u64, length).expect("it is there");
        assert!(read == data[offset..offset + length], "{length} bytes at {offset}");
    }
    assert!(reader.read_at(data.len() as u64 - 1, 2).is_err(), "there is no more");
    assert!(reader.read_at(u64::MAX, 1).is_err());
    let mut all = Vec::new();
    reader.into_reader().read_to_end(&mut all).expect("it is whole");
    assert!(all == data);
}

#[test]
fn a_member_may_begin_with_a_snapshot() {
    let disk = SimDisk::new();
    let make = |data: &[&[u8]]| {
        create_with_snapshot(&disk, &IDENTITY, &header(1), &options(SEGMENT), |writer| {
            for data in data {
                writer.put(data).expect("there is room");
            }
            if data.is_empty() { Err(OpenError::Options("nothing to write".to_owned())) } else { Ok(()) }
        })
    };
    let open = || open_with(&disk, IDENTITY.cluster, IDENTITY.replica, &options(SEGMENT), |_| Ok(Vec::new()));
    assert_eq!(make(&[]), Err(OpenError::Options("nothing to write".to_owned())));
    assert!(matches!(open().map(|_| ()), Err(OpenError::Missing { .. })), "an incomplete folder is not opened");
    assert_eq!(make(&[b"some ", b"data"]), Ok(()));
    assert!(matches!(make(&[b"other"]), Err(OpenError::AlreadyThere { .. })));
    let mut opened = open().expect("it is complete");
    let recovered = &opened.recovery.recovered;
    assert_eq!((recovered.hard_state.term, recovered.applied), (Term(1), Index(1)));
    assert_eq!((&recovered.snapshot, &opened.recovery.suspect), (&Some(header(1)), &None));
    let position = opened.recovery.snapshot.expect("the state begins with it");
    assert_eq!(opened.snapshots.load(position, 100).expect("it is whole").1, b"some data");
    append(&mut opened.log, 2..=5);
    drop(opened);
    // With the host's own state, the snapshot is no longer needed.
    assert_eq!(start(&disk, &[kept(1)]).recovery.kept, Some(0));
}
