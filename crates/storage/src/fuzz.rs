//! Entry point for a fuzzer: hostile bytes in place of this replica's own.

use bowline_raft::{Group, Index, Membership, NodeId};

use crate::batch::{self, BATCH_HEADER, Place};
use crate::disk::{SECTOR, SimDisk};
use crate::identity::{Binding, ClusterId, Identity};
use crate::log::Options;
use crate::sector::HEADER;
use crate::segments::segment_path;
use crate::{create, open};

/// Opens a folder with `data` in one of its files; if that succeeds, opens it again. The first
/// byte chooses the file, and whether the data is stored as it is or in a batch with valid checksums, so that the
/// code behind the checksums is tested too. Must never panic.
pub fn fuzz_recovery(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else { return };
    let identity = Identity { cluster: ClusterId(1), replica: NodeId(2), incarnation: 3 };
    let options = Options::new(4096, 512, 2);
    let disk = SimDisk::new();
    let founders = Membership::simple(Group::of_voters([NodeId(2)]));
    if create(&disk, &identity, Some(founders), &options).is_err() {
        return;
    }
    match choice % 8 {
        0 => disk.put("identity", data.to_vec()),
        1 => disk.put("hard-state", data.to_vec()),
        2 => disk.put("snap/0000000000000005-0000000000000001.snap", data.to_vec()),
        3 => disk.put(&segment_path(2), data.to_vec()),
        4 => disk.damage(&segment_path(1), |bytes| {
            let end = bytes.len().min(data.len());
            bytes[..end].copy_from_slice(&data[..end]);
        }),
        5 => disk.damage(&segment_path(1), |bytes| bytes.truncate(data.len())),
        kind => {
            // With valid checksums: records after the checkpoints, or checkpoints with some bytes changed.
            let start = if kind == 6 { 2 } else { u32::from(choice / 8 % 2) };
            let place = Place { binding: Binding::of(&identity), segment: 1, start };
            let mut payload = vec![0; BATCH_HEADER];
            if kind == 6 {
                payload.extend_from_slice(&data[..data.len().min(2048)]);
            } else {
                payload = checkpoint_payload(&disk, start);
                for change in data.chunks_exact(2) {
                    let at = usize::from(change[0]) % payload.len();
                    payload[at] ^= change[1];
                }
            }
            let sectors = batch::seal(place, Index(9), payload);
            let offset = start as usize * SECTOR;
            disk.damage(&segment_path(1), |bytes| {
                bytes.resize(bytes.len().max(offset + sectors.len()), 0);
                bytes[offset..offset + sectors.len()].copy_from_slice(&sectors);
            });
        }
    }
    if choice / 16 % 2 == 1 {
        // Without the other checkpoint, which could replace the damaged one.
        disk.damage(&segment_path(1), |bytes| bytes.iter_mut().skip(SECTOR).take(SECTOR).for_each(|byte| *byte = 0));
    }
    if let Ok(opened) = open(&disk, identity.cluster, identity.replica, &options) {
        drop(opened);
        // The repaired folder must open too.
        let again = open(&disk, identity.cluster, identity.replica, &options);
        assert!(again.is_ok(), "what was opened once opens again: {:?}", again.err());
    }
}

/// The original payload of a checkpoint of one sector.
fn checkpoint_payload(disk: &SimDisk, start: u32) -> Vec<u8> {
    let bytes = disk.content(&segment_path(1)).unwrap_or_default();
    let sector = &bytes[start as usize * SECTOR..(start as usize + 1) * SECTOR];
    let length = u32::from_le_bytes(sector[HEADER..HEADER + 4].try_into().expect("four bytes"));
    sector[HEADER..HEADER + BATCH_HEADER + length as usize].to_vec()
}
