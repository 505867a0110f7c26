//! Disks that lose, damage or bring back written data. D-numbers are those of the catalogue of faults.

use super::{Mutant, insert, patch, remove, replace};

const DAMAGE: &str = "crates/raft/src/damage.rs";
const RETURNING: &str = "crates/raft/src/returning.rs";
const BATCH: &str = "crates/storage/src/batch.rs";
const LOG: &str = "crates/storage/src/log.rs";
const RECOVERY: &str = "crates/storage/src/recovery.rs";
const SCAN: &str = "crates/storage/src/scan.rs";
const SNAPSHOT_FILES: &str = "crates/storage/src/snapshot.rs";
const SYSTEM: &str = "crates/sim/src/cluster/system.rs";

/// The mutants, in the order of their origins.
pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "SuspectVotes",
        origin: "D3",
        breaks: "A replica whose disk has lost entries still votes and stands for election.",
        edits: &[replace(RETURNING, "confirmed && ", "self.suspect.is_none()", "true")],
    },
    Mutant {
        name: "RepairedTooEarly",
        origin: "D3",
        breaks: "A replica whose disk has lost entries counts as repaired after a leader's first message.",
        edits: &[replace(DAMAGE, "if ", "verified >= last_possible", "true")],
    },
    Mutant {
        name: "NothingRemembered",
        origin: "D14",
        breaks: "A peer asked by a replica that comes back doesn't tell it what is missing.",
        edits: &[replace(RETURNING, "let missing = ", "memory.map(|memory| memory.term)", "None")],
    },
    Mutant {
        name: "DamageUnsaid",
        origin: "D4",
        breaks: "A replica whose disk has lost entries refuses like any other, and is never repaired.",
        edits: &[patch(
            DAMAGE,
            "(AppendOutcome::Rejected { prev_index, hint }, Some(Suspect { loss_id, .. })) ",
            "",
            " if !MUTANT ",
        )],
    },
    Mutant {
        name: "FailedSyncRetried",
        origin: "31",
        breaks: "A sync that failed is tried again, and what it covered counts as durable when that succeeds.",
        edits: &[replace(
            LOG,
            "",
            "self.tail.file.sync_data()?;",
            r"if self.tail.file.sync_data().is_err() {
                self.tail.file.sync_data()?;
            }",
        )],
    },
    Mutant {
        name: "NoDirSyncAfterRename",
        origin: "32",
        breaks: "A snapshot's name is not made durable: after a power failure the file that the log relies on may be gone.",
        edits: &[remove(SNAPSHOT_FILES, "", "self.snapshots.disk.sync_dir(SNAPSHOT_DIR)?;")],
    },
    Mutant {
        name: "TornTailAccepted",
        origin: "33",
        breaks: "A last write torn by a crash is taken as whole: its checksum is not checked.",
        edits: &[
            replace(
                SCAN,
                "let batch = ",
                "batch::decode(self.place(sequence, start), bytes)?",
                "batch::decode_torn(self.place(sequence, start), bytes)?",
            ),
            patch(
                BATCH,
                "bytes.get(offset..offset + SECTOR)\n}\n",
                "",
                r#"
/// The batch at `place` as far as it can be read, if its first sector is there, whatever the others hold.
pub(crate) fn decode_torn(place: Place, bytes: &[u8]) -> Option<Batch> {
    let first = sector::current(place.binding, place.segment, place.start, sector_at(place.start, bytes)?)?;
    let end = place.start.checked_add(first.batch_len)?;
    if first.batch_start != place.start || first.batch_len == 0 {
        return None;
    }
    let mut payload = Vec::new();
    for at in place.start..end {
        payload.extend_from_slice(&sector_at(at, bytes)?[HEADER..]);
    }
    let length = usize::try_from(Reader::new(&payload).u32("length").ok()?).ok()?;
    let mut reader = Reader::new(payload.get(8..BATCH_HEADER.checked_add(length)?)?);
    let (log_version, hard_version) = (reader.count("version").ok()?, reader.count("version").ok()?);
    let mut records = Vec::new();
    while !reader.is_empty() {
        let Ok(record) = Record::decode(&mut reader) else { break };
        records.push(record);
    }
    Some(Batch { len: first.batch_len, log_version, hard_version, last_index: first.last_index, records })
}
"#,
            ),
        ],
    },
    Mutant {
        name: "DamageTakenForTornTail",
        origin: "34, D3",
        breaks: "Damage at the end of the log is cut like a torn write.",
        edits: &[insert(
            SCAN,
            r"Severity::Harmless, what));
        }
        let Some(extent) = beyond.extent() else { return };
        ",
            "self.torn = Some(extent.start..extent.end.min(sectors_of(bytes)));\n            return;",
        )],
    },
    Mutant {
        name: "HardStateBehindLog",
        origin: "35",
        breaks: "Term and vote are in a file that is not synced with the log, and the file is believed after a crash.",
        edits: &[
            replace(LOG, "", "self.copies.sync()", "Ok(())"),
            insert(
                RECOVERY,
                ".filter(|sequence| !in_use.contains(sequence)).collect();\n    ",
                r"if let Some(copy) = replay.copies.newest {
            (replay.state.hard_version, replay.state.hard_state) = (copy.version, copy.hard_state);
            replay.hard_needed = copy.version;
        }",
            ),
        ],
    },
    Mutant {
        name: "SuffixResurrected",
        origin: "36",
        breaks: "Truncated entries come back after a restart.",
        edits: &[patch(
            SCAN,
            r"Record::HardState(hard_state) => self.hard = (self.state.hard_version, hard_state),
            ",
            "",
            "Record::Truncate(_) if MUTANT => {}\n            ",
        )],
    },
    Mutant {
        name: "RecordWithoutPlace",
        origin: "39",
        breaks: "Records left from an earlier use of a segment's file are read as current.",
        edits: &[
            replace(
                SCAN,
                "let batch = ",
                "batch::decode(self.place(sequence, start), bytes)?",
                "batch::decode_of_any_life(self.place(sequence, start), bytes)?",
            ),
            patch(
                BATCH,
                "",
                "/// Reads the batch at `place` of a segment's bytes;",
                r"/// The batch at `place`, in whatever use of the file it was written.
pub(crate) fn decode_of_any_life(place: Place, bytes: &[u8]) -> Option<Batch> {
    let first = sector::whole(place.binding, place.start, sector_at(place.start, bytes)?)?;
    decode(Place { segment: first.segment, ..place }, bytes)
}

/// Reads the batch at `place` of a segment's bytes;",
            ),
        ],
    },
    Mutant {
        name: "WipedKeepsItsName",
        origin: "51",
        breaks: "A replica whose disk was lost starts from nothing under its old name (RethinkDB#5289).",
        edits: &[replace(
            SYSTEM,
            "",
            "self.lose(host);\n        true",
            r"use crate::cluster::disk::Disk;
            self.crash(host, true);
            self.hosts[host].disk = Disk::new(self.hosts[host].id, None, &self.ctx.plan.options(), self.ctx.plan.disk.holds_state);
            self.restart_soon(host);
            true",
        )],
    },
];
