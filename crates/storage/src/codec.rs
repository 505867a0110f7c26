//! Numbers, positions and configurations as bytes: little-endian, every length checked before use.

use std::collections::BTreeSet;

use bowline_raft::{Group, HardState, Index, Membership, NodeId, Position, SnapshotHeader, Term};

/// Greatest count that is believed: real ones stay far below it.
pub(crate) const GREATEST_COUNT: u64 = 1 << 62;

/// Bytes that can't be decoded; names the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed {0}")]
pub(crate) struct Malformed(pub(crate) &'static str);

/// Reads from the front of some bytes.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    pub(crate) fn bytes(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Malformed(what))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn u8(&mut self, what: &'static str) -> Result<u8, Malformed> {
        Ok(self.bytes(1, what)?[0])
    }

    pub(crate) fn u16(&mut self, what: &'static str) -> Result<u16, Malformed> {
        Ok(u16::from_le_bytes(self.bytes(2, what)?.try_into().expect("two bytes")))
    }

    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.bytes(4, what)?.try_into().expect("four bytes")))
    }

    pub(crate) fn u64(&mut self, what: &'static str) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.bytes(8, what)?.try_into().expect("eight bytes")))
    }

    /// The bytes that are still unread.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Checks that nothing is left over.
    pub(crate) fn end(&self, what: &'static str) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed(what)) }
    }

    /// An index, a counter or a sequence number, small enough that adding to it can't overflow.
    pub(crate) fn count(&mut self, what: &'static str) -> Result<u64, Malformed> {
        self.u64(what).and_then(|count| if count <= GREATEST_COUNT { Ok(count) } else { Err(Malformed(what)) })
    }

    fn term(&mut self) -> Result<Term, Malformed> {
        let term = Term(self.u64("term")?);
        if term <= Term::GREATEST { Ok(term) } else { Err(Malformed("term")) }
    }

    pub(crate) fn position(&mut self) -> Result<Position, Malformed> {
        let index = Index(self.count("index")?);
        Ok(Position::new(index, self.term()?))
    }

    pub(crate) fn flag(&mut self, what: &'static str) -> Result<bool, Malformed> {
        match self.u8(what)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed(what)),
        }
    }

    pub(crate) fn hard_state(&mut self) -> Result<HardState, Malformed> {
        let term = self.term()?;
        let voted = self.flag("vote")?;
        let candidate = NodeId(self.u64("vote")?);
        match (voted, candidate.0) {
            (false, 1..) => Err(Malformed("vote")),
            _ => Ok(HardState { term, voted_for: voted.then_some(candidate) }),
        }
    }

    pub(crate) fn membership(&mut self) -> Result<Membership, Malformed> {
        let joint = self.flag("membership")?;
        let incoming = self.group()?;
        Ok(if joint { Membership::joint(self.group()?, incoming) } else { Membership::simple(incoming) })
    }

    fn group(&mut self) -> Result<Group, Malformed> {
        Ok(Group { voters: self.ids()?, learners: self.ids()? })
    }

    fn ids(&mut self) -> Result<BTreeSet<NodeId>, Malformed> {
        let count = usize::from(self.u16("members")?);
        let listed = self.bytes(count * 8, "members")?;
        let ids: BTreeSet<NodeId> =
            listed.chunks_exact(8).map(|id| NodeId(u64::from_le_bytes(id.try_into().expect("eight bytes")))).collect();
        if ids.len() == count { Ok(ids) } else { Err(Malformed("members")) }
    }

    pub(crate) fn snapshot_header(&mut self) -> Result<SnapshotHeader, Malformed> {
        Ok(SnapshotHeader { position: self.position()?, membership: self.membership()? })
    }
}

/// Writes to the end of some bytes.
pub(crate) trait Put {
    fn put(&mut self, bytes: &[u8]);

    fn put_u32(&mut self, value: u32) {
        self.put(&value.to_le_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.put(&value.to_le_bytes());
    }

    fn put_position(&mut self, position: Position) {
        self.put_u64(position.index.0);
        self.put_u64(position.term.0);
    }

    fn put_hard_state(&mut self, hard_state: HardState) {
        self.put_u64(hard_state.term.0);
        self.put(&[u8::from(hard_state.voted_for.is_some())]);
        self.put_u64(hard_state.voted_for.map_or(0, |candidate| candidate.0));
    }

    fn put_membership(&mut self, membership: &Membership) {
        self.put(&[u8::from(membership.is_joint())]);
        self.put_group(membership.incoming());
        if let Some(outgoing) = membership.outgoing() {
            self.put_group(outgoing);
        }
    }

    fn put_group(&mut self, group: &Group) {
        for ids in [&group.voters, &group.learners] {
            let count = u16::try_from(ids.len()).expect("a group is far smaller (MAX_MEMBERS)");
            self.put(&count.to_le_bytes());
            ids.iter().for_each(|id| self.put_u64(id.0));
        }
    }

    fn put_snapshot_header(&mut self, header: &SnapshotHeader) {
        self.put_position(header.position);
        self.put_membership(&header.membership);
    }
}

impl Put for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}
