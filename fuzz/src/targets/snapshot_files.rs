//! The file of a snapshot, whole and damaged: what is loaded is what was stored, or an error.

use crate::source::Source;
use bowline_raft::{Group, Index, Membership, NodeId, Position, SnapshotHeader, Term};
use bowline_storage::{ClusterId, Identity, Options, SimDisk, Snapshots, create, open};

const NAME: &str = "snap/0000000000000005-0000000000000003.snap";

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    vec![vec![0; 8], vec![1, 1, 200, 7, 7, 7, 7], vec![2, 3, 9, 9, 9, 9]]
}

pub(crate) fn run(data: &[u8]) {
    let mut source = Source::new(data);
    let disk = SimDisk::new();
    let identity = Identity { cluster: ClusterId(1), replica: NodeId(2), incarnation: 3 };
    let options = Options { segment_bytes: 4096, reserve_bytes: 512, max_spares: 1 };
    let membership = Membership::simple(Group::of_voters([NodeId(1), NodeId(2)]));
    create(&disk, &identity, Some(membership.clone()), &options).expect("there is room");
    let opened = open(&disk, identity.cluster, identity.replica, &options).expect("it is new");
    let snapshots: &Snapshots<SimDisk> = &opened.snapshots;
    let position = Position::new(Index(5), Term(3));
    let header = SnapshotHeader { position, membership };
    if source.flag() {
        // Somebody else's bytes under that name.
        disk.put(NAME, source.rest().to_vec());
        load(snapshots, position, None);
        return;
    }
    let content: Vec<u8> = (0..usize::from(source.byte()) * 64).map(|at| (at / 7) as u8).collect();
    snapshots.store(&header, &content).expect("there is room");
    load(snapshots, position, Some(&content));
    let mut damaged = false;
    disk.damage(NAME, |bytes| {
        let before = bytes.clone();
        match source.byte() % 3 {
            0 => bytes.truncate(source.number() as usize % (before.len() + 1)),
            1 => bytes.extend_from_slice(source.rest()),
            _ => {
                while !source.is_empty() && !bytes.is_empty() {
                    let at = usize::from(source.byte()) * 256 + usize::from(source.byte());
                    let at = at % bytes.len();
                    bytes[at] ^= source.byte();
                }
            }
        }
        damaged = *bytes != before;
    });
    if damaged {
        load(snapshots, position, None);
    } else {
        load(snapshots, position, Some(&content));
    }
}

/// Every way to read it agrees: with what it holds, or that it is damaged.
fn load(snapshots: &Snapshots<SimDisk>, position: Position, expected: Option<&[u8]>) {
    assert!(snapshots.list().is_ok());
    let loaded = snapshots.load(position, 1 << 20);
    let mut pieces = Vec::new();
    let read = snapshots.open(position).and_then(|mut reader| {
        while let Some(chunk) = reader.next_chunk()? {
            pieces.extend_from_slice(&chunk);
        }
        Ok(())
    });
    let verified = snapshots.verify(position);
    match expected {
        Some(content) => {
            assert_eq!(loaded.expect("it is whole").1, content);
            read.expect("it is whole");
            assert_eq!(pieces, content);
            verified.expect("it is whole");
        }
        None => assert!(loaded.is_err() && read.is_err() && verified.is_err(), "damage was not seen"),
    }
}
