//! The label in a host's own file of the state: whose state it is, and up to where.

use bowline_raft::{NodeId, SnapshotHeader};

use crate::codec::{Put, Reader};
use crate::identity::{ClusterId, Identity};

/// First byte of a label.
const VERSION: u8 = 1;

/// Whose state this is, and the place in the log at which it was last made durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The identity in the folder that it belongs to.
    pub identity: Identity,
    /// The position and membership of the state then; `None` in a new file.
    pub header: Option<SnapshotHeader>,
    /// Bytes added by the host.
    pub note: Vec<u8>,
}

/// The bytes are no label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it has no valid label: malformed {0}")]
pub struct NoLabel(&'static str);

impl Label {
    /// Encodes the label.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let Label { identity, header, note } = self;
        let mut out = vec![VERSION];
        out.put_u64(identity.cluster.0);
        out.put_u64(identity.replica.0);
        out.put_u64(identity.incarnation);
        out.put(&[u8::from(header.is_some())]);
        if let Some(header) = header {
            out.put_snapshot_header(header);
        }
        out.put(note);
        out
    }

    /// Reads what [`Label::encode`] wrote.
    ///
    /// # Errors
    /// The bytes are no label.
    pub fn decode(bytes: &[u8]) -> Result<Label, NoLabel> {
        let mut reader = Reader::new(bytes);
        let mut read = || {
            if reader.u8("version")? != VERSION {
                return Err(crate::codec::Malformed("version"));
            }
            let (cluster, replica) = (ClusterId(reader.u64("cluster")?), NodeId(reader.u64("replica")?));
            let identity = Identity { cluster, replica, incarnation: reader.u64("incarnation")? };
            let header = if reader.flag("header")? { Some(reader.snapshot_header()?) } else { None };
            Ok(Label { identity, header, note: reader.rest().to_vec() })
        };
        read().map_err(|error| NoLabel(error.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bowline_raft::{Group, Index, Membership, Position, Term};

    #[test]
    fn a_label_is_read_again_and_a_part_of_one_is_none() {
        let identity = Identity { cluster: ClusterId(7), replica: NodeId(2), incarnation: 9 };
        let membership = Membership::simple(Group::of_voters([NodeId(1), NodeId(2)]));
        let header = SnapshotHeader { position: Position::new(Index(8), Term(3)), membership };
        for (header, note) in [(None, vec![]), (Some(header), vec![1, 2, 3])] {
            let label = Label { identity, header, note };
            let bytes = label.encode();
            assert_eq!(Label::decode(&bytes), Ok(label.clone()));
            for end in 0..bytes.len() - label.note.len() {
                assert!(Label::decode(&bytes[..end]).is_err(), "{end} bytes are taken for a label");
            }
        }
    }
}
