//! The records of the log and their encoding.
//!
//! A record is its kind (one byte), the length of its body (four bytes) and its body. Records live in
//! batches (`batch.rs`), whose checksums cover every byte of them.

use bowline_raft::{Entry, HardState, Index, Payload, Position, SnapshotHeader};
use bytes::Bytes;

use crate::codec::{Malformed, Put, Reader};
use crate::identity::{ClusterId, FORMAT_VERSION, Identity};
use crate::state::{State, Suspicion};

const MAGIC: &[u8; 8] = b"BOWLNLOG";
/// Bytes of a record before its body.
const PREFIX: usize = 5;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// The beginning of a segment.
    Checkpoint(Box<Checkpoint>),
    /// Term and vote.
    HardState(HardState),
    /// Removes the entries from this index on.
    Truncate(Index),
    /// Appends an entry.
    Entry(Entry),
    /// A leader's snapshot replaces the whole log.
    Snapshot(SnapshotHeader),
    /// The replica's own snapshot replaces the log up to it; later entries stay.
    Compacted(SnapshotHeader),
    /// Everything that damage may have destroyed has been fetched from the peers.
    Repaired,
    /// The peers remember entries that are missing here; none beyond this index, if that is known.
    Suspect(Option<Index>),
}

/// The beginning of a segment: everything that the segments before it say, except the entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// Whose log this is, for people with a hex viewer; for the program, the checksums say so.
    pub(crate) identity: Identity,
    /// The segment before this one and the sector at which it ends; `None` for the first of all.
    pub(crate) previous: Option<(u64, u32)>,
    pub(crate) hard_state: HardState,
    pub(crate) hard_version: u64,
    pub(crate) log_version: u64,
    pub(crate) base: Option<SnapshotHeader>,
    pub(crate) last: Position,
    pub(crate) suspicion: Option<Suspicion>,
}

impl Checkpoint {
    pub(crate) fn new(identity: Identity, previous: Option<(u64, u32)>, state: &State) -> Checkpoint {
        Checkpoint {
            identity,
            previous,
            hard_state: state.hard_state,
            hard_version: state.hard_version,
            log_version: state.log_version,
            base: state.base.clone(),
            last: state.last(),
            suspicion: state.suspicion,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.put(MAGIC);
        out.put_u32(FORMAT_VERSION);
        out.put_u64(self.identity.cluster.0);
        out.put_u64(self.identity.replica.0);
        out.put_u64(self.identity.incarnation);
        out.put(&[u8::from(self.previous.is_some())]);
        let (segment, end) = self.previous.unwrap_or((0, 0));
        out.put_u64(segment);
        out.put_u32(end);
        out.put_hard_state(self.hard_state);
        out.put_u64(self.hard_version);
        out.put_u64(self.log_version);
        out.put_position(self.last);
        out.put(&[u8::from(self.base.is_some())]);
        if let Some(base) = &self.base {
            out.put_snapshot_header(base);
        }
        out.put(&[u8::from(self.suspicion.is_some())]);
        if let Some(Suspicion { valid_up_to, last_possible }) = self.suspicion {
            out.put_position(valid_up_to);
            out.put(&[u8::from(last_possible.is_some())]);
            out.put_u64(last_possible.map_or(0, |index| index.0));
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Checkpoint, Malformed> {
        if reader.bytes(8, "checkpoint")? != MAGIC || reader.u32("version")? != FORMAT_VERSION {
            return Err(Malformed("checkpoint"));
        }
        let cluster = ClusterId(reader.u64("cluster")?);
        let replica = bowline_raft::NodeId(reader.u64("replica")?);
        let identity = Identity { cluster, replica, incarnation: reader.u64("incarnation")? };
        let continues = reader.flag("previous")?;
        let previous = (reader.u64("previous")?, reader.u32("previous")?);
        let hard_state = reader.hard_state()?;
        let hard_version = reader.count("hard version")?;
        let log_version = reader.count("log version")?;
        let last = reader.position()?;
        let base = if reader.flag("base")? { Some(reader.snapshot_header()?) } else { None };
        let suspicion = if reader.flag("suspicion")? {
            let valid_up_to = reader.position()?;
            let known = reader.flag("last possible index")?;
            let index = Index(reader.count("last possible index")?);
            Some(Suspicion { valid_up_to, last_possible: known.then_some(index) })
        } else {
            None
        };
        let previous = continues.then_some(previous);
        Ok(Checkpoint { identity, previous, hard_state, hard_version, log_version, base, last, suspicion })
    }
}

/// Bytes of an entry's record without its payload.
pub(crate) const ENTRY_BYTES: usize = PREFIX + 8 + 8 + 1;

impl Record {
    fn kind(&self) -> u8 {
        match self {
            Record::Checkpoint(_) => 1,
            Record::HardState(_) => 2,
            Record::Truncate(_) => 3,
            Record::Entry(_) => 4,
            Record::Snapshot(_) => 5,
            Record::Compacted(_) => 6,
            Record::Repaired => 7,
            Record::Suspect(_) => 8,
        }
    }

    /// Appends the record to `out`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.put(&[self.kind(), 0, 0, 0, 0]);
        match self {
            Record::Checkpoint(checkpoint) => checkpoint.encode(out),
            Record::HardState(hard_state) => out.put_hard_state(*hard_state),
            Record::Truncate(from) => out.put_u64(from.0),
            Record::Entry(entry) => {
                out.put_position(entry.position());
                match &entry.payload {
                    Payload::Blank => out.put(&[0]),
                    Payload::Command(command) => {
                        out.put(&[1]);
                        out.put(command);
                    }
                    Payload::Membership(membership) => {
                        out.put(&[2]);
                        out.put_membership(membership);
                    }
                }
            }
            Record::Snapshot(header) | Record::Compacted(header) => out.put_snapshot_header(header),
            Record::Repaired => {}
            Record::Suspect(last_possible) => {
                out.put(&[u8::from(last_possible.is_some())]);
                out.put_u64(last_possible.unwrap_or(Index(0)).0);
            }
        }
        let body = u32::try_from(out.len() - start - PREFIX).expect("checked when it was appended");
        out[start + 1..start + PREFIX].copy_from_slice(&body.to_le_bytes());
    }

    /// How many bytes [`Record::encode`] appends.
    pub(crate) fn encoded_len(&self) -> usize {
        match self {
            Record::Entry(Entry { payload: Payload::Command(command), .. }) => ENTRY_BYTES + command.len(),
            Record::Entry(Entry { payload: Payload::Blank, .. }) => ENTRY_BYTES,
            // The others are rare and small.
            other => {
                let mut bytes = Vec::new();
                other.encode(&mut bytes);
                bytes.len()
            }
        }
    }

    /// Reads the next record.
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Record, Malformed> {
        let kind = reader.u8("record kind")?;
        let length = usize::try_from(reader.u32("record length")?).map_err(|_| Malformed("record length"))?;
        let mut body = Reader::new(reader.bytes(length, "record length")?);
        let record = match kind {
            1 => Record::Checkpoint(Box::new(Checkpoint::decode(&mut body)?)),
            2 => Record::HardState(body.hard_state()?),
            3 => Record::Truncate(Index(body.count("index")?)),
            4 => return decode_entry(body, length).map(Record::Entry),
            5 => Record::Snapshot(body.snapshot_header()?),
            6 => Record::Compacted(body.snapshot_header()?),
            7 => Record::Repaired,
            8 => {
                let known = body.flag("last possible index")?;
                let index = Index(body.count("last possible index")?);
                Record::Suspect(known.then_some(index))
            }
            _ => return Err(Malformed("record kind")),
        };
        body.end("record")?;
        Ok(record)
    }
}

fn decode_entry(mut body: Reader<'_>, length: usize) -> Result<Entry, Malformed> {
    let Position { index, term } = body.position()?;
    if index == Index(0) {
        return Err(Malformed("entry"));
    }
    let payload = match body.u8("payload")? {
        0 => Payload::Blank,
        1 => {
            let left = length - (ENTRY_BYTES - PREFIX);
            // Copied, because one entry must not keep its whole batch in memory.
            Payload::Command(Bytes::copy_from_slice(body.bytes(left, "command")?))
        }
        2 => Payload::Membership(body.membership()?),
        _ => return Err(Malformed("payload")),
    };
    body.end("entry")?;
    Ok(Entry { index, term, payload })
}

#[cfg(test)]
mod tests {
    use bowline_raft::{Group, Membership, NodeId, Term};
    use proptest::prelude::*;

    use super::*;
    use crate::batch::{self, Place};
    use crate::identity::Binding;

    fn ids() -> impl Strategy<Value = Vec<NodeId>> {
        prop::collection::vec(any::<u64>().prop_map(NodeId), 0..9)
    }

    fn groups() -> impl Strategy<Value = Group> {
        (ids(), ids()).prop_map(|(voters, learners)| Group {
            voters: voters.into_iter().collect(),
            learners: learners.into_iter().collect(),
        })
    }

    fn memberships() -> impl Strategy<Value = Membership> {
        (groups(), prop::option::of(groups())).prop_map(|(incoming, outgoing)| match outgoing {
            Some(outgoing) => Membership::joint(outgoing, incoming),
            None => Membership::simple(incoming),
        })
    }

    fn positions() -> impl Strategy<Value = Position> {
        (1..1u64 << 60, 0..1u64 << 60).prop_map(|(index, term)| Position::new(Index(index), Term(term)))
    }

    fn headers() -> impl Strategy<Value = SnapshotHeader> {
        (positions(), memberships()).prop_map(|(position, membership)| SnapshotHeader { position, membership })
    }

    fn hard_states() -> impl Strategy<Value = HardState> {
        (0..1u64 << 60, prop::option::of(any::<u64>().prop_map(NodeId)))
            .prop_map(|(term, voted_for)| HardState { term: Term(term), voted_for })
    }

    fn entries() -> impl Strategy<Value = Entry> {
        let payload = prop_oneof![
            Just(Payload::Blank),
            prop::collection::vec(any::<u8>(), 0..2000).prop_map(|bytes| Payload::Command(Bytes::from(bytes))),
            memberships().prop_map(Payload::Membership),
        ];
        (positions(), payload).prop_map(|(Position { index, term }, payload)| Entry { index, term, payload })
    }

    fn checkpoints() -> impl Strategy<Value = Checkpoint> {
        let suspicion = (positions(), prop::option::of((0..1u64 << 60).prop_map(Index)))
            .prop_map(|(valid_up_to, last_possible)| Suspicion { valid_up_to, last_possible });
        let previous = prop::option::of((any::<u64>(), any::<u32>()));
        let counts = (0..1u64 << 60, 0..1u64 << 60);
        let parts =
            (previous, hard_states(), counts, prop::option::of(headers()), positions(), prop::option::of(suspicion));
        parts.prop_map(|(previous, hard_state, (hard_version, log_version), base, last, suspicion)| {
            let identity = Identity { cluster: ClusterId(1), replica: NodeId(2), incarnation: 3 };
            Checkpoint { identity, previous, hard_state, hard_version, log_version, base, last, suspicion }
        })
    }

    fn records() -> impl Strategy<Value = Record> {
        prop_oneof![
            checkpoints().prop_map(|checkpoint| Record::Checkpoint(Box::new(checkpoint))),
            hard_states().prop_map(Record::HardState),
            positions().prop_map(|position| Record::Truncate(position.index)),
            entries().prop_map(Record::Entry),
            headers().prop_map(Record::Snapshot),
            headers().prop_map(Record::Compacted),
            Just(Record::Repaired),
            prop::option::of((0..1u64 << 60).prop_map(Index)).prop_map(Record::Suspect),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(record in records(), cut in any::<prop::sample::Index>()) {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            prop_assert_eq!(bytes.len(), record.encoded_len());
            let short = &bytes[..cut.index(bytes.len())];
            prop_assert!(Record::decode(&mut Reader::new(short)).is_err());
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(Record::decode(&mut reader), Ok(record));
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn garbage_is_read_without_panic(bytes: Vec<u8>) {
            let _ = Record::decode(&mut Reader::new(&bytes));
        }

        #[test]
        fn a_batch_is_read_where_it_was_written_and_nowhere_else(
            records in prop::collection::vec(records(), 1..12),
            start in 0u32..4,
        ) {
            let identity = Identity { cluster: ClusterId(1), replica: NodeId(2), incarnation: 3 };
            let place = Place { binding: Binding::of(&identity), segment: 5, start };
            let sectors = batch::encode(place, (7, 8), Index(9), records.iter());
            let mut bytes = vec![0; start as usize * crate::SECTOR];
            bytes.extend_from_slice(&sectors);
            let batch = batch::decode(place, &bytes).expect("it was just written");
            prop_assert_eq!((batch.log_version, batch.hard_version, batch.last_index), (7, 8, Index(9)));
            prop_assert_eq!(batch.len as usize * crate::SECTOR, sectors.len());
            prop_assert_eq!(batch.records, records);
            // At the next sector, in another segment, or in another replica's folder, it is invalid.
            bytes.splice(0..0, vec![0; crate::SECTOR]);
            let later = Place { start: start + 1, ..place };
            prop_assert!(batch::decode(later, &bytes).is_none());
            let other = Binding::of(&Identity { incarnation: 4, ..identity });
            for wrong in [Place { segment: 6, ..place }, Place { binding: other, ..place }] {
                prop_assert!(batch::decode(wrong, &bytes[crate::SECTOR..]).is_none());
            }
        }
    }
}
