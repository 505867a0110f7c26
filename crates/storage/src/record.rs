//! The records of the log: what they say, and how they look as bytes.
//!
//! A record is its kind (one byte), the length of its body (four bytes) and its body. Records live in
//! batches (`batch.rs`), whose checksums cover every byte of them.

use bowline_raft::{Entry, HardState, Index, Payload, Position, SnapshotHeader};
use bytes::Bytes;

use crate::codec::{Malformed, Put, Reader};
use crate::identity::{ClusterId, FORMAT_VERSION, Identity};
use crate::state::{State, Suspicion};

const MAGIC: &[u8; 8] = b"BOWLNLOG";
/// Bytes of a record beside its body.
const PREFIX: usize = 5;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// The beginning of a segment.
    Checkpoint(Box<Checkpoint>),
    /// Term and vote.
    HardState(HardState),
    /// The entries from here on are gone.
    Truncate(Index),
    /// One more entry.
    Entry(Entry),
    /// A leader's snapshot takes the place of the whole log.
    Snapshot(SnapshotHeader),
    /// The own snapshot takes the place of the log up to it; what follows stays.
    Compacted(SnapshotHeader),
    /// What damage may have taken has been fetched from the peers.
    Repaired,
}

/// What a segment begins with: all that the segments before it say beside the entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// Whose log this is, for people with a hex viewer: the checksums are bound to it anyway.
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
        if let Some(Suspicion { valid_up_to, may_reach }) = self.suspicion {
            out.put_position(valid_up_to);
            out.put(&[u8::from(may_reach.is_some())]);
            out.put_u64(may_reach.map_or(0, |index| index.0));
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
            let known = reader.flag("reach")?;
            let index = Index(reader.count("reach")?);
            Some(Suspicion { valid_up_to, may_reach: known.then_some(index) })
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
            // A copy of its own: one entry must not keep its whole batch in memory.
            Payload::Command(Bytes::copy_from_slice(body.bytes(left, "command")?))
        }
        2 => Payload::Membership(body.membership()?),
        _ => return Err(Malformed("payload")),
    };
    body.end("entry")?;
    Ok(Entry { index, term, payload })
}
