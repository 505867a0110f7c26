//! Messages between replicas as bytes: a kind, then little-endian fields.
//!
//! The layout is this project's own and belongs to [`PROTOCOL_VERSION`](super::PROTOCOL_VERSION): a
//! change of any field is a new version.

use bowline_node::raft::{
    AppendEntries, AppendEntriesReply, AppendOutcome, Body, Entry, Found, Group, HardState, Index, InstallSnapshot,
    MAX_MEMBERS, Membership, Message, NodeId, Payload, Position, ReadKind, Round, Session, SnapshotHeader, Term, Time,
};
use bowline_node::{NodeMessage, SnapshotChunk, SnapshotChunkReply};
use bytes::{BufMut, Bytes, BytesMut};

use super::wire::{Reader, WireError, put_bytes};

mod kind {
    pub(super) const PRE_VOTE: u8 = 1;
    pub(super) const PRE_VOTE_REPLY: u8 = 2;
    pub(super) const REQUEST_VOTE: u8 = 3;
    pub(super) const REQUEST_VOTE_REPLY: u8 = 4;
    pub(super) const APPEND_ENTRIES: u8 = 5;
    pub(super) const APPEND_ENTRIES_REPLY: u8 = 6;
    pub(super) const INSTALL_SNAPSHOT: u8 = 7;
    pub(super) const TIMEOUT_NOW: u8 = 8;
    pub(super) const READ_INDEX: u8 = 9;
    pub(super) const READ_INDEX_REPLY: u8 = 10;
    pub(super) const RETURNED: u8 = 11;
    pub(super) const REMEMBERED: u8 = 12;
    pub(super) const CHUNK: u8 = 20;
    pub(super) const CHUNK_REPLY: u8 = 21;
}

/// Least bytes of an entry: index, term and what it carries.
const ENTRY_MIN: usize = 8 + 8 + 1;

/// Appends a message to `out`.
pub fn encode(message: &NodeMessage, out: &mut BytesMut) {
    match message {
        NodeMessage::Raft(Message { term, body }) => encode_body(*term, body, out),
        NodeMessage::Chunk(chunk) => {
            start(kind::CHUNK, chunk.term, out);
            out.put_u64_le(chunk.session.0);
            put_header(&chunk.header, out);
            out.put_u64_le(chunk.total);
            out.put_u64_le(chunk.offset);
            put_bytes(out, &chunk.data);
        }
        NodeMessage::ChunkReply(reply) => {
            start(kind::CHUNK_REPLY, reply.term, out);
            out.put_u64_le(reply.session.0);
            out.put_u64_le(reply.received);
        }
    }
}

/// The message that these bytes are. Commands and pieces of snapshots stay parts of `bytes`.
///
/// # Errors
/// They are none.
pub fn decode(bytes: Bytes) -> Result<NodeMessage, WireError> {
    let mut reader = Reader::new(bytes);
    let message_kind = reader.u8("kind")?;
    let term = Term(reader.u64("term")?);
    let message = match message_kind {
        kind::CHUNK => NodeMessage::Chunk(SnapshotChunk {
            term,
            session: Session(reader.u64("session")?),
            header: header(&mut reader)?,
            total: reader.u64("total")?,
            offset: reader.u64("offset")?,
            data: reader.bytes("data")?,
        }),
        kind::CHUNK_REPLY => NodeMessage::ChunkReply(SnapshotChunkReply {
            term,
            session: Session(reader.u64("session")?),
            received: reader.u64("received")?,
        }),
        other => NodeMessage::Raft(Message { term, body: body(other, &mut reader)? }),
    };
    reader.end()?;
    Ok(message)
}

fn start(message_kind: u8, term: Term, out: &mut BytesMut) {
    out.put_u8(message_kind);
    out.put_u64_le(term.0);
}

fn encode_body(term: Term, body: &Body, out: &mut BytesMut) {
    match body {
        Body::PreVote { last } => {
            start(kind::PRE_VOTE, term, out);
            put_position(*last, out);
        }
        Body::PreVoteReply { granted } => {
            start(kind::PRE_VOTE_REPLY, term, out);
            out.put_u8((*granted).into());
        }
        Body::RequestVote { last, transfer } => {
            start(kind::REQUEST_VOTE, term, out);
            put_position(*last, out);
            out.put_u8((*transfer).into());
        }
        Body::RequestVoteReply { granted } => {
            start(kind::REQUEST_VOTE_REPLY, term, out);
            out.put_u8((*granted).into());
        }
        Body::AppendEntries(append) => {
            start(kind::APPEND_ENTRIES, term, out);
            put_append(append, out);
        }
        Body::AppendEntriesReply(reply) => {
            start(kind::APPEND_ENTRIES_REPLY, term, out);
            put_append_reply(reply, out);
        }
        Body::InstallSnapshot(install) => {
            start(kind::INSTALL_SNAPSHOT, term, out);
            out.put_u64_le(install.session.0);
            put_header(&install.snapshot, out);
        }
        Body::TimeoutNow => start(kind::TIMEOUT_NOW, term, out),
        Body::ReadIndex { context, kind: read_kind } => {
            start(kind::READ_INDEX, term, out);
            out.put_u64_le(*context);
            out.put_u8(match read_kind {
                ReadKind::Lease => 0,
                ReadKind::Quorum => 1,
            });
        }
        Body::ReadIndexReply { context, index } => {
            start(kind::READ_INDEX_REPLY, term, out);
            out.put_u64_le(*context);
            out.put_u8(index.is_some().into());
            out.put_u64_le(index.map_or(0, |index| index.0));
        }
        Body::Returned { life, found: Found { hard_state, last } } => {
            start(kind::RETURNED, term, out);
            out.put_u64_le(*life);
            out.put_u64_le(hard_state.term.0);
            out.put_u8(hard_state.voted_for.is_some().into());
            out.put_u64_le(hard_state.voted_for.map_or(0, |id| id.0));
            put_position(*last, out);
        }
        Body::Remembered { life, missing, leads } => {
            start(kind::REMEMBERED, term, out);
            out.put_u64_le(*life);
            out.put_u8(missing.is_some().into());
            out.put_u64_le(missing.map_or(0, |term| term.0));
            out.put_u8(leads.is_some().into());
            put_position(leads.unwrap_or(Position::ORIGIN), out);
        }
    }
}

fn body(message_kind: u8, reader: &mut Reader) -> Result<Body, WireError> {
    Ok(match message_kind {
        kind::PRE_VOTE => Body::PreVote { last: position(reader)? },
        kind::PRE_VOTE_REPLY => Body::PreVoteReply { granted: reader.flag("granted")? },
        kind::REQUEST_VOTE => Body::RequestVote { last: position(reader)?, transfer: reader.flag("transfer")? },
        kind::REQUEST_VOTE_REPLY => Body::RequestVoteReply { granted: reader.flag("granted")? },
        kind::APPEND_ENTRIES => Body::AppendEntries(append(reader)?),
        kind::APPEND_ENTRIES_REPLY => Body::AppendEntriesReply(append_reply(reader)?),
        kind::INSTALL_SNAPSHOT => Body::InstallSnapshot(InstallSnapshot {
            session: Session(reader.u64("session")?),
            snapshot: header(reader)?,
        }),
        kind::TIMEOUT_NOW => Body::TimeoutNow,
        kind::READ_INDEX => Body::ReadIndex {
            context: reader.u64("context")?,
            kind: if reader.flag("read kind")? { ReadKind::Quorum } else { ReadKind::Lease },
        },
        kind::READ_INDEX_REPLY => {
            let context = reader.u64("context")?;
            let known = reader.flag("index known")?;
            let index = Index(reader.u64("index")?);
            Body::ReadIndexReply { context, index: known.then_some(index) }
        }
        kind::RETURNED => {
            let (life, term) = (reader.u64("life")?, Term(reader.u64("found term")?));
            let (voted, candidate) = (reader.flag("voted")?, NodeId(reader.u64("vote")?));
            let hard_state = HardState { term, voted_for: voted.then_some(candidate) };
            Body::Returned { life, found: Found { hard_state, last: position(reader)? } }
        }
        kind::REMEMBERED => {
            let life = reader.u64("life")?;
            let (missing, term) = (reader.flag("missing")?, Term(reader.u64("missing term")?));
            let (leads, last) = (reader.flag("leads")?, position(reader)?);
            Body::Remembered { life, missing: missing.then_some(term), leads: leads.then_some(last) }
        }
        other => {
            return Err(WireError::Value { field: "kind", value: other.into(), allowed: "1 to 12, 20, 21" });
        }
    })
}

fn put_append(append: &AppendEntries, out: &mut BytesMut) {
    out.put_u64_le(append.session.0);
    out.put_u64_le(append.round.0);
    out.put_u64_le(append.sent_at.0);
    put_position(append.prev, out);
    out.put_u64_le(append.commit_index.0);
    out.put_u64_le(append.durable_index.0);
    let count = u32::try_from(append.entries.len()).expect("a message holds a bounded number of entries");
    out.put_u32_le(count);
    for entry in &append.entries {
        put_entry(entry, out);
    }
}

fn append(reader: &mut Reader) -> Result<AppendEntries, WireError> {
    let session = Session(reader.u64("session")?);
    let round = Round(reader.u64("round")?);
    let sent_at = Time(reader.u64("sent_at")?);
    let prev = position(reader)?;
    let commit_index = Index(reader.u64("commit_index")?);
    let durable_index = Index(reader.u64("durable_index")?);
    let count = reader.u32("entries")? as usize;
    if count > reader.left() / ENTRY_MIN {
        let value = count as u64;
        return Err(WireError::Value { field: "entries", value, allowed: "as many as the message has room for" });
    }
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        entries.push(entry(reader)?);
    }
    Ok(AppendEntries { session, round, sent_at, prev, entries, commit_index, durable_index })
}

fn put_append_reply(reply: &AppendEntriesReply, out: &mut BytesMut) {
    out.put_u64_le(reply.session.0);
    out.put_u64_le(reply.round.0);
    out.put_u64_le(reply.sent_at.0);
    match reply.outcome {
        AppendOutcome::Accepted { match_index } => {
            out.put_u8(0);
            out.put_u64_le(match_index.0);
        }
        AppendOutcome::Rejected { prev_index, hint } => {
            out.put_u8(1);
            out.put_u64_le(prev_index.0);
            put_position(hint, out);
        }
        AppendOutcome::Damaged { prev_index, hint, life } => {
            out.put_u8(2);
            out.put_u64_le(prev_index.0);
            put_position(hint, out);
            out.put_u64_le(life);
        }
    }
}

fn append_reply(reader: &mut Reader) -> Result<AppendEntriesReply, WireError> {
    let session = Session(reader.u64("session")?);
    let round = Round(reader.u64("round")?);
    let sent_at = Time(reader.u64("sent_at")?);
    let outcome = match reader.u8("outcome")? {
        0 => AppendOutcome::Accepted { match_index: Index(reader.u64("match_index")?) },
        refused @ 1..=2 => {
            let (prev_index, hint) = (Index(reader.u64("prev_index")?), position(reader)?);
            match refused {
                1 => AppendOutcome::Rejected { prev_index, hint },
                _ => AppendOutcome::Damaged { prev_index, hint, life: reader.u64("life")? },
            }
        }
        value => return Err(WireError::Value { field: "outcome", value: value.into(), allowed: "0 to 2" }),
    };
    Ok(AppendEntriesReply { session, round, sent_at, outcome })
}

fn put_entry(entry: &Entry, out: &mut BytesMut) {
    out.put_u64_le(entry.index.0);
    out.put_u64_le(entry.term.0);
    match &entry.payload {
        Payload::Blank => out.put_u8(0),
        Payload::Command(command) => {
            out.put_u8(1);
            put_bytes(out, command);
        }
        Payload::Membership(membership) => {
            out.put_u8(2);
            put_membership(membership, out);
        }
    }
}

fn entry(reader: &mut Reader) -> Result<Entry, WireError> {
    let index = Index(reader.u64("index")?);
    let term = Term(reader.u64("entry term")?);
    let payload = match reader.u8("payload")? {
        0 => Payload::Blank,
        1 => Payload::Command(reader.bytes("command")?),
        2 => Payload::Membership(membership(reader)?),
        value => return Err(WireError::Value { field: "payload", value: value.into(), allowed: "0 to 2" }),
    };
    Ok(Entry { index, term, payload })
}

fn put_position(position: Position, out: &mut BytesMut) {
    out.put_u64_le(position.term.0);
    out.put_u64_le(position.index.0);
}

fn position(reader: &mut Reader) -> Result<Position, WireError> {
    let term = Term(reader.u64("position term")?);
    Ok(Position::new(Index(reader.u64("position index")?), term))
}

fn put_header(header: &SnapshotHeader, out: &mut BytesMut) {
    put_position(header.position, out);
    put_membership(&header.membership, out);
}

fn header(reader: &mut Reader) -> Result<SnapshotHeader, WireError> {
    Ok(SnapshotHeader { position: position(reader)?, membership: membership(reader)? })
}

fn put_membership(membership: &Membership, out: &mut BytesMut) {
    out.put_u8(membership.is_joint().into());
    put_group(membership.incoming(), out);
    if let Some(outgoing) = membership.outgoing() {
        put_group(outgoing, out);
    }
}

fn membership(reader: &mut Reader) -> Result<Membership, WireError> {
    let joint = reader.flag("joint")?;
    let incoming = group(reader)?;
    Ok(if joint { Membership::joint(group(reader)?, incoming) } else { Membership::simple(incoming) })
}

fn put_group(group: &Group, out: &mut BytesMut) {
    for members in [&group.voters, &group.learners] {
        let count = u8::try_from(members.len()).expect("a group has at most MAX_MEMBERS members");
        out.put_u8(count);
        for id in members {
            out.put_u64_le(id.0);
        }
    }
}

fn group(reader: &mut Reader) -> Result<Group, WireError> {
    let mut group = Group::default();
    for members in [&mut group.voters, &mut group.learners] {
        let count = reader.u8("members")?;
        if usize::from(count) > MAX_MEMBERS {
            return Err(WireError::Value { field: "members", value: count.into(), allowed: "at most 64" });
        }
        for _ in 0..count {
            members.insert(NodeId(reader.u64("member")?));
        }
    }
    Ok(group)
}

#[cfg(test)]
mod tests;
