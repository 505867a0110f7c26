//! Messages between members as bytes: one protobuf message with its length in front. The entries of an AppendEntries
//! follow it, each likewise with its length in front.
//!
//! Members of neighbouring versions read each other's messages. A member skips a field that it doesn't know, and
//! treats a message of an unknown kind like one that the network has lost. A payload of an unknown kind is an error:
//! it must not be taken for another. Commands are bytes here, so a member passes on even those that it doesn't know.

mod messages;

use std::collections::BTreeSet;

use bowline_raft::{
    self as raft, AppendEntries, AppendEntriesReply, AppendOutcome, Body, Found, Group, HardState, Index,
    InstallSnapshot, MAX_MEMBERS, Membership, Message, NodeId, Payload, ReadKind, Round, Session, SnapshotHeader, Term,
    Time,
};
use bytes::{Buf, Bytes, BytesMut};
use prost::Message as _;

use self::messages as pb;
use self::messages::{PeerBody, PeerMessage};
use crate::message::{NodeMessage, SnapshotChunk, SnapshotChunkReply};

/// Most entries of one message. A leader sends far fewer, since each counts for at least
/// [`ENTRY_OVERHEAD`](bowline_raft::ENTRY_OVERHEAD) bytes in the limit of a message.
const MAX_ENTRIES: u32 = 1 << 16;

/// Why bytes are not a message between members.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// They are not a protobuf message of this kind.
    #[error(transparent)]
    Message(#[from] prost::DecodeError),
    /// More bytes follow the message.
    #[error("{0} bytes follow the message")]
    Trailing(usize),
    /// The message contains more than any member sends.
    #[error("{found} {what} in a message; allowed: at most {allowed}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many.
        found: usize,
        /// How many are allowed.
        allowed: usize,
    },
    /// Something is of a kind that this program doesn't know, and must not be skipped.
    #[error("{0} is of an unknown kind: a newer member has sent it too early")]
    Unknown(&'static str),
}

/// Appends a message to `out`.
pub fn encode(message: &NodeMessage, out: &mut BytesMut) {
    encode_extended(message, &[], out);
}

/// Appends a message to `out` as a member of a later version may write it: with more fields, given as bytes, in the
/// message and in each of its entries.
pub fn encode_extended(message: &NodeMessage, extension: &[u8], out: &mut BytesMut) {
    let (term, body) = match message {
        NodeMessage::Raft(Message { term, body }) => (*term, PeerBody::from(body)),
        NodeMessage::Chunk(chunk) => (chunk.term, PeerBody::Chunk(chunk.into())),
        NodeMessage::ChunkReply(SnapshotChunkReply { term, session, received }) => {
            (*term, PeerBody::ChunkReply(pb::ChunkReply { session: session.0, received: *received }))
        }
    };
    put(&PeerMessage { term: term.0, body: Some(body) }, extension, out);
    if let NodeMessage::Raft(Message { body: Body::AppendEntries(append), .. }) = message {
        append.entries.iter().for_each(|entry| put(&pb::Entry::from(entry), extension, out));
    }
}

/// Appends a message with its length in front.
fn put(message: &impl prost::Message, extension: &[u8], out: &mut BytesMut) {
    let room = "memory grows with what is written to it";
    prost::encode_length_delimiter(message.encoded_len() + extension.len(), out).expect(room);
    message.encode(out).expect(room);
    out.extend_from_slice(extension);
}

/// The message in these bytes; `None` if only newer members know its kind. Commands and pieces of snapshots share the
/// memory of `bytes`.
///
/// # Errors
/// The bytes are not a message.
pub fn decode(mut bytes: Bytes) -> Result<Option<NodeMessage>, WireError> {
    let PeerMessage { term, body } = PeerMessage::decode_length_delimited(&mut bytes)?;
    let term = Term(term);
    let Some(body) = body else { return Ok(None) };
    let body = match body {
        PeerBody::PreVote(vote) => Body::PreVote { last: vote.last.into() },
        PeerBody::PreVoteReply(reply) => Body::PreVoteReply { granted: reply.granted },
        PeerBody::RequestVote(vote) => Body::RequestVote { last: vote.last.into(), transfer: vote.transfer },
        PeerBody::RequestVoteReply(reply) => Body::RequestVoteReply { granted: reply.granted },
        PeerBody::AppendEntries(append) => Body::AppendEntries(with_entries(&append, &mut bytes)?),
        PeerBody::AppendEntriesReply(reply) => {
            let Some(outcome) = reply.outcome else { return Ok(None) };
            let (session, round, sent_at) = (Session(reply.session), Round(reply.round), Time(reply.sent_at));
            Body::AppendEntriesReply(AppendEntriesReply { session, round, sent_at, outcome: outcome.into() })
        }
        PeerBody::InstallSnapshot(pb::InstallSnapshot { session, snapshot }) => {
            Body::InstallSnapshot(InstallSnapshot { session: Session(session), snapshot: snapshot.try_into()? })
        }
        PeerBody::TimeoutNow(_) => Body::TimeoutNow,
        PeerBody::ReadIndex(pb::ReadIndex { context, lease }) => {
            Body::ReadIndex { context, kind: if lease { ReadKind::Lease } else { ReadKind::Quorum } }
        }
        PeerBody::ReadIndexReply(pb::ReadIndexReply { context, index }) => {
            Body::ReadIndexReply { context, index: index.map(Index) }
        }
        PeerBody::Returned(pb::Returned { start_id, term, voted_for, last }) => {
            let hard_state = HardState { term: Term(term), voted_for: voted_for.map(NodeId) };
            Body::Returned { start_id, found: Found { hard_state, last: last.into() } }
        }
        PeerBody::Remembered(pb::Remembered { start_id, missing, leads }) => {
            Body::Remembered { start_id, missing: missing.map(Term), leads: leads.map(raft::Position::from) }
        }
        PeerBody::Chunk(pb::Chunk { session, header, total, offset, data }) => {
            let (session, header) = (Session(session), header.try_into()?);
            return whole(NodeMessage::Chunk(SnapshotChunk { term, session, header, total, offset, data }), &bytes);
        }
        PeerBody::ChunkReply(pb::ChunkReply { session, received }) => {
            let session = Session(session);
            return whole(NodeMessage::ChunkReply(SnapshotChunkReply { term, session, received }), &bytes);
        }
    };
    whole(NodeMessage::Raft(Message { term, body }), &bytes)
}

/// The message, if nothing follows it.
fn whole(message: NodeMessage, rest: &Bytes) -> Result<Option<NodeMessage>, WireError> {
    if rest.has_remaining() { Err(WireError::Trailing(rest.remaining())) } else { Ok(Some(message)) }
}

impl From<&Body> for PeerBody {
    fn from(body: &Body) -> PeerBody {
        match body {
            Body::PreVote { last } => PeerBody::PreVote(pb::VoteRequest { last: (*last).into(), transfer: false }),
            Body::PreVoteReply { granted } => PeerBody::PreVoteReply(pb::VoteReply { granted: *granted }),
            Body::RequestVote { last, transfer } => {
                PeerBody::RequestVote(pb::VoteRequest { last: (*last).into(), transfer: *transfer })
            }
            Body::RequestVoteReply { granted } => PeerBody::RequestVoteReply(pb::VoteReply { granted: *granted }),
            Body::AppendEntries(append) => PeerBody::AppendEntries(append.into()),
            Body::AppendEntriesReply(AppendEntriesReply { session, round, sent_at, outcome }) => {
                let outcome = Some((*outcome).into());
                let (session, round, sent_at) = (session.0, round.0, sent_at.0);
                PeerBody::AppendEntriesReply(pb::AppendEntriesReply { session, round, sent_at, outcome })
            }
            Body::InstallSnapshot(InstallSnapshot { session, snapshot }) => {
                PeerBody::InstallSnapshot(pb::InstallSnapshot { session: session.0, snapshot: snapshot.into() })
            }
            Body::TimeoutNow => PeerBody::TimeoutNow(pb::TimeoutNow {}),
            Body::ReadIndex { context, kind } => {
                PeerBody::ReadIndex(pb::ReadIndex { context: *context, lease: *kind == ReadKind::Lease })
            }
            Body::ReadIndexReply { context, index } => {
                PeerBody::ReadIndexReply(pb::ReadIndexReply { context: *context, index: index.map(|index| index.0) })
            }
            Body::Returned { start_id, found: Found { hard_state, last } } => PeerBody::Returned(pb::Returned {
                start_id: *start_id,
                term: hard_state.term.0,
                voted_for: hard_state.voted_for.map(|id| id.0),
                last: (*last).into(),
            }),
            Body::Remembered { start_id, missing, leads } => PeerBody::Remembered(pb::Remembered {
                start_id: *start_id,
                missing: missing.map(|term| term.0),
                leads: leads.map(pb::Position::from),
            }),
        }
    }
}

impl From<&AppendEntries> for pb::AppendEntries {
    fn from(append: &AppendEntries) -> pb::AppendEntries {
        pb::AppendEntries {
            session: append.session.0,
            round: append.round.0,
            sent_at: append.sent_at.0,
            prev: append.prev.into(),
            commit_index: append.commit_index.0,
            durable_index: append.durable_index.0,
            entries: u32::try_from(append.entries.len()).expect("a message holds a bounded number of entries"),
        }
    }
}

/// An AppendEntries, with its entries taken from the front of `bytes`.
fn with_entries(append: &pb::AppendEntries, bytes: &mut Bytes) -> Result<AppendEntries, WireError> {
    if append.entries > MAX_ENTRIES {
        let (found, allowed) = (append.entries as usize, MAX_ENTRIES as usize);
        return Err(WireError::TooMany { what: "entries", found, allowed });
    }
    let mut entries = Vec::new();
    for _ in 0..append.entries {
        entries.push(pb::Entry::decode_length_delimited(&mut *bytes)?.try_into()?);
    }
    Ok(AppendEntries {
        session: Session(append.session),
        round: Round(append.round),
        sent_at: Time(append.sent_at),
        prev: append.prev.into(),
        entries,
        commit_index: Index(append.commit_index),
        durable_index: Index(append.durable_index),
    })
}

impl From<&raft::Entry> for pb::Entry {
    fn from(entry: &raft::Entry) -> pb::Entry {
        let payload = match &entry.payload {
            Payload::Blank => pb::Payload::Blank(pb::Blank {}),
            Payload::Command(command) => pb::Payload::Command(command.clone()),
            Payload::Membership(membership) => pb::Payload::Membership(membership.into()),
        };
        pb::Entry { index: entry.index.0, term: entry.term.0, payload: Some(payload) }
    }
}

impl TryFrom<pb::Entry> for raft::Entry {
    type Error = WireError;

    fn try_from(entry: pb::Entry) -> Result<raft::Entry, WireError> {
        let payload = match entry.payload.ok_or(WireError::Unknown("the payload of an entry"))? {
            pb::Payload::Blank(_) => Payload::Blank,
            pb::Payload::Command(command) => Payload::Command(command),
            pb::Payload::Membership(membership) => Payload::Membership(membership.try_into()?),
        };
        Ok(raft::Entry { index: Index(entry.index), term: Term(entry.term), payload })
    }
}

impl From<AppendOutcome> for pb::AppendOutcome {
    fn from(outcome: AppendOutcome) -> pb::AppendOutcome {
        match outcome {
            AppendOutcome::Accepted { match_index } => pb::AppendOutcome::Accepted(match_index.0),
            AppendOutcome::Rejected { prev_index, hint } => {
                pb::AppendOutcome::Rejected(pb::Rejected { prev_index: prev_index.0, hint: hint.into() })
            }
            AppendOutcome::Damaged { prev_index, hint, loss_id } => {
                pb::AppendOutcome::Damaged(pb::Damaged { prev_index: prev_index.0, hint: hint.into(), loss_id })
            }
        }
    }
}

impl From<pb::AppendOutcome> for AppendOutcome {
    fn from(outcome: pb::AppendOutcome) -> AppendOutcome {
        match outcome {
            pb::AppendOutcome::Accepted(match_index) => AppendOutcome::Accepted { match_index: Index(match_index) },
            pb::AppendOutcome::Rejected(pb::Rejected { prev_index, hint }) => {
                AppendOutcome::Rejected { prev_index: Index(prev_index), hint: hint.into() }
            }
            pb::AppendOutcome::Damaged(pb::Damaged { prev_index, hint, loss_id }) => {
                AppendOutcome::Damaged { prev_index: Index(prev_index), hint: hint.into(), loss_id }
            }
        }
    }
}

impl From<raft::Position> for pb::Position {
    fn from(position: raft::Position) -> pb::Position {
        pb::Position { term: position.term.0, index: position.index.0 }
    }
}

impl From<pb::Position> for raft::Position {
    fn from(position: pb::Position) -> raft::Position {
        raft::Position::new(Index(position.index), Term(position.term))
    }
}

impl From<&SnapshotChunk> for pb::Chunk {
    fn from(chunk: &SnapshotChunk) -> pb::Chunk {
        let SnapshotChunk { term: _, session, header, total, offset, data } = chunk;
        pb::Chunk { session: session.0, header: header.into(), total: *total, offset: *offset, data: data.clone() }
    }
}

impl From<&SnapshotHeader> for pb::SnapshotHeader {
    fn from(header: &SnapshotHeader) -> pb::SnapshotHeader {
        pb::SnapshotHeader { position: header.position.into(), membership: (&header.membership).into() }
    }
}

impl TryFrom<pb::SnapshotHeader> for SnapshotHeader {
    type Error = WireError;

    fn try_from(header: pb::SnapshotHeader) -> Result<SnapshotHeader, WireError> {
        Ok(SnapshotHeader { position: header.position.into(), membership: header.membership.try_into()? })
    }
}

impl From<&Membership> for pb::Membership {
    fn from(membership: &Membership) -> pb::Membership {
        pb::Membership { incoming: membership.incoming().into(), outgoing: membership.outgoing().map(pb::Group::from) }
    }
}

impl TryFrom<pb::Membership> for Membership {
    type Error = WireError;

    fn try_from(membership: pb::Membership) -> Result<Membership, WireError> {
        let incoming = membership.incoming.try_into()?;
        Ok(match membership.outgoing {
            Some(outgoing) => Membership::joint(outgoing.try_into()?, incoming),
            None => Membership::simple(incoming),
        })
    }
}

impl From<&Group> for pb::Group {
    fn from(group: &Group) -> pb::Group {
        let ids = |members: &BTreeSet<NodeId>| members.iter().map(|id| id.0).collect();
        pb::Group { voters: ids(&group.voters), learners: ids(&group.learners) }
    }
}

impl TryFrom<pb::Group> for Group {
    type Error = WireError;

    fn try_from(group: pb::Group) -> Result<Group, WireError> {
        let ids = |members: Vec<u64>| match members.len() {
            found if found > MAX_MEMBERS => Err(WireError::TooMany { what: "members", found, allowed: MAX_MEMBERS }),
            _ => Ok(members.into_iter().map(NodeId).collect()),
        };
        Ok(Group { voters: ids(group.voters)?, learners: ids(group.learners)? })
    }
}

#[cfg(test)]
mod tests;
