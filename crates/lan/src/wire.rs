//! The JSON encoding of messages between replicas, with one `type` for each kind of message.
//!
//! Ids of replicas are numbers here. The payload of an entry is plain text if it is text, so that a
//! put takes about as many bytes on its way to a follower as from its client.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bowline_node::raft::{
    AppendEntries, AppendEntriesReply, AppendOutcome, Body, Entry, Found, Group, HardState, Index, InstallSnapshot,
    Membership, Message, NodeId, Payload, Position, ReadKind, Round, Session, SnapshotHeader, Term, Time,
};
use bowline_node::{NodeMessage, SnapshotChunk, SnapshotChunkReply};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::message::{Fields, read_fields};

/// Why a message between replicas can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The type is unknown.
    #[error("type {0:?} is not one of this program's messages")]
    UnknownType(String),
    /// A field is missing, unknown, or out of its range.
    #[error("{kind}: {problem}")]
    Field {
        /// The message's type.
        kind: String,
        /// What is wrong.
        problem: String,
    },
}

/// The greatest term or index that a message may contain. Replicas count upwards from the values that
/// they receive; this bound leaves them enough room to do so.
const MAX_ORDINAL: u64 = 1 << 62;

/// An index and a term.
type Place = (u64, u64);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ask {
    last: Place,
    term: u64,
    #[serde(default, skip_serializing_if = "is_false")]
    transfer: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Vote {
    granted: bool,
    term: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Append {
    commit: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    durable: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    entries: Vec<WireEntry>,
    prev: Place,
    round: u64,
    sent: u64,
    session: u64,
    term: u64,
}

/// An entry. Its index follows from its place in the message. An entry without payload is blank.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireEntry {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    members: Option<WireMembership>,
    term: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

/// Bytes, as text (first) unless base 64 (second) is shorter or needed.
type WireBytes = (Option<String>, Option<String>);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireGroup {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    learners: Vec<u64>,
    voters: Vec<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireMembership {
    incoming: WireGroup,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    outgoing: Option<WireGroup>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AppendReply {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    damaged: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hint: Option<Place>,
    #[serde(rename = "match", default, skip_serializing_if = "Option::is_none")]
    match_index: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rejected: Option<u64>,
    round: u64,
    sent: u64,
    session: u64,
    term: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OnlyTerm {
    term: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadIndex {
    context: u64,
    #[serde(default, skip_serializing_if = "is_false")]
    quorum: bool,
    term: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadIndexReply {
    context: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
    term: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Returned {
    found_term: u64,
    last: Place,
    start_id: u64,
    term: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    voted_for: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Remembered {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    leads: Option<Place>,
    start_id: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    missing: Option<u64>,
    term: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Install {
    last: Place,
    members: WireMembership,
    session: u64,
    term: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Chunk {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    last: Place,
    members: WireMembership,
    offset: u64,
    session: u64,
    term: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    total: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChunkReply {
    received: u64,
    session: u64,
    term: u64,
}

/// The `type` and the other fields of a message.
#[must_use]
pub fn encode(message: &NodeMessage) -> (&'static str, Fields) {
    match message {
        NodeMessage::Raft(Message { term, body }) => encode_raft(term.0, body),
        NodeMessage::Chunk(chunk) => {
            let SnapshotChunk { term, session, header, total, offset, data } = chunk;
            let (text, base64) = wire_bytes(data);
            let wire = Chunk {
                term: term.0,
                session: session.0,
                last: place(header.position),
                members: wire_membership(&header.membership),
                total: *total,
                offset: *offset,
                text,
                base64,
            };
            ("snapshot_chunk", fields(wire))
        }
        NodeMessage::ChunkReply(SnapshotChunkReply { term, session, received }) => {
            let reply = ChunkReply { term: term.0, session: session.0, received: *received };
            ("snapshot_chunk_reply", fields(reply))
        }
    }
}

fn encode_raft(term: u64, body: &Body) -> (&'static str, Fields) {
    match body {
        Body::PreVote { last } => ("pre_vote", fields(Ask { term, last: place(*last), transfer: false })),
        Body::PreVoteReply { granted } => ("pre_vote_reply", fields(Vote { term, granted: *granted })),
        Body::RequestVote { last, transfer } => {
            ("request_vote", fields(Ask { term, last: place(*last), transfer: *transfer }))
        }
        Body::RequestVoteReply { granted } => ("request_vote_reply", fields(Vote { term, granted: *granted })),
        Body::AppendEntries(append) => ("append_entries", fields(wire_append(term, append))),
        Body::AppendEntriesReply(reply) => ("append_entries_reply", fields(wire_append_reply(term, reply))),
        Body::InstallSnapshot(InstallSnapshot { session, snapshot }) => {
            let (last, members) = (place(snapshot.position), wire_membership(&snapshot.membership));
            ("install_snapshot", fields(Install { term, session: session.0, last, members }))
        }
        Body::TimeoutNow => ("timeout_now", fields(OnlyTerm { term })),
        Body::ReadIndex { context, kind } => {
            let quorum = *kind == ReadKind::Quorum;
            ("read_index", fields(ReadIndex { term, context: *context, quorum }))
        }
        Body::ReadIndexReply { context, index } => {
            let index = index.map(|index| index.0);
            ("read_index_reply", fields(ReadIndexReply { term, context: *context, index }))
        }
        Body::Returned { start_id, found: Found { hard_state, last } } => {
            let (found_term, voted_for) = (hard_state.term.0, hard_state.voted_for.map(|id| id.0));
            ("returned", fields(Returned { term, start_id: *start_id, found_term, voted_for, last: place(*last) }))
        }
        Body::Remembered { start_id, missing, leads } => {
            let (missing, leads) = (missing.map(|term| term.0), leads.map(place));
            ("remembered", fields(Remembered { term, start_id: *start_id, missing, leads }))
        }
    }
}

/// Reads a message whose fields [`encode`] wrote, and skips the envelope fields.
///
/// # Errors
/// The type is unknown, or a field is missing, unknown or invalid.
pub fn decode(kind: &str, message: &[u8]) -> Result<NodeMessage, WireError> {
    let message = decode_fields(kind, message)?;
    let (term, place) = match &message {
        NodeMessage::Raft(Message { term, body }) => match body {
            Body::PreVote { last } | Body::RequestVote { last, .. } => (*term, *last),
            Body::AppendEntries(append) => (*term, append.prev),
            _ => (*term, Position::ORIGIN),
        },
        NodeMessage::Chunk(chunk) => (chunk.term, chunk.header.position),
        NodeMessage::ChunkReply(reply) => (reply.term, Position::ORIGIN),
    };
    match [term.0, place.term.0, place.index.0].into_iter().find(|ordinal| *ordinal > MAX_ORDINAL) {
        Some(ordinal) => {
            Err(field_error(kind, &format!("{ordinal} is beyond every term and index, which end at 2^62")))
        }
        None => Ok(message),
    }
}

fn decode_fields(kind: &str, message: &[u8]) -> Result<NodeMessage, WireError> {
    let raft = |term, body| NodeMessage::Raft(Message { term: Term(term), body });
    Ok(match kind {
        "pre_vote" => {
            let Ask { term, last, .. } = read(kind, message)?;
            raft(term, Body::PreVote { last: position(last) })
        }
        "pre_vote_reply" => {
            let Vote { term, granted } = read(kind, message)?;
            raft(term, Body::PreVoteReply { granted })
        }
        "request_vote" => {
            let Ask { term, last, transfer } = read(kind, message)?;
            raft(term, Body::RequestVote { last: position(last), transfer })
        }
        "request_vote_reply" => {
            let Vote { term, granted } = read(kind, message)?;
            raft(term, Body::RequestVoteReply { granted })
        }
        "append_entries" => decode_append(read(kind, message)?)?,
        "append_entries_reply" => decode_append_reply(read(kind, message)?)?,
        "timeout_now" => {
            let OnlyTerm { term } = read(kind, message)?;
            raft(term, Body::TimeoutNow)
        }
        "read_index" => {
            let ReadIndex { term, context, quorum } = read(kind, message)?;
            let kind = if quorum { ReadKind::Quorum } else { ReadKind::Lease };
            raft(term, Body::ReadIndex { context, kind })
        }
        "read_index_reply" => {
            let ReadIndexReply { term, context, index } = read(kind, message)?;
            raft(term, Body::ReadIndexReply { context, index: index.map(Index) })
        }
        "returned" => {
            let Returned { term, start_id, found_term, voted_for, last } = read(kind, message)?;
            let hard_state = HardState { term: Term(found_term), voted_for: voted_for.map(NodeId) };
            raft(term, Body::Returned { start_id, found: Found { hard_state, last: position(last) } })
        }
        "remembered" => {
            let Remembered { term, start_id, missing, leads } = read(kind, message)?;
            raft(term, Body::Remembered { start_id, missing: missing.map(Term), leads: leads.map(position) })
        }
        "snapshot_chunk" => decode_chunk(read(kind, message)?)?,
        "snapshot_chunk_reply" => {
            let ChunkReply { term, session, received } = read(kind, message)?;
            NodeMessage::ChunkReply(SnapshotChunkReply { term: Term(term), session: Session(session), received })
        }
        _ => return Err(WireError::UnknownType(crate::message::shorten(kind))),
    })
}

fn wire_append(term: u64, append: &AppendEntries) -> Append {
    let entry = |entry: &Entry| {
        let (bytes, members) = match &entry.payload {
            Payload::Blank => (None, None),
            Payload::Command(command) => (Some(wire_bytes(command)), None),
            Payload::Membership(membership) => (None, Some(wire_membership(membership))),
        };
        let (text, base64) = bytes.unwrap_or_default();
        WireEntry { term: entry.term.0, text, base64, members }
    };
    Append {
        term,
        session: append.session.0,
        round: append.round.0,
        sent: append.sent_at.0,
        prev: place(append.prev),
        commit: append.commit_index.0,
        durable: Some(append.durable_index.0).filter(|index| *index > 0),
        entries: append.entries.iter().map(entry).collect(),
    }
}

fn decode_append(append: Append) -> Result<NodeMessage, WireError> {
    let kind = "append_entries";
    let prev = position(append.prev);
    let mut entries = Vec::with_capacity(append.entries.len());
    for entry in append.entries {
        let offset = entries.len() as u64 + 1;
        let index =
            prev.index.0.checked_add(offset).ok_or_else(|| field_error(kind, "prev: the index is too great"))?;
        let payload = match (read_bytes(kind, (entry.text, entry.base64))?, entry.members) {
            (None, None) => Payload::Blank,
            (Some(command), None) => Payload::Command(command),
            (None, Some(members)) => Payload::Membership(membership(kind, members)?),
            (Some(_), Some(_)) => return Err(field_error(kind, "entries: a command and members at once")),
        };
        entries.push(Entry { index: Index(index), term: Term(entry.term), payload });
    }
    let body = AppendEntries {
        session: Session(append.session),
        round: Round(append.round),
        sent_at: Time(append.sent),
        prev,
        entries,
        commit_index: Index(append.commit),
        durable_index: Index(append.durable.unwrap_or(0)),
    };
    Ok(NodeMessage::Raft(Message { term: Term(append.term), body: Body::AppendEntries(body) }))
}

fn wire_append_reply(term: u64, reply: &AppendEntriesReply) -> AppendReply {
    let (match_index, rejected, hint) = match reply.outcome {
        AppendOutcome::Accepted { match_index } => (Some(match_index.0), None, None),
        AppendOutcome::Rejected { prev_index, hint } | AppendOutcome::Damaged { prev_index, hint, .. } => {
            (None, Some(prev_index.0), Some(place(hint)))
        }
    };
    let damaged = match reply.outcome {
        AppendOutcome::Damaged { loss_id, .. } => Some(loss_id),
        _ => None,
    };
    AppendReply {
        term,
        session: reply.session.0,
        round: reply.round.0,
        sent: reply.sent_at.0,
        damaged,
        match_index,
        rejected,
        hint,
    }
}

fn decode_append_reply(reply: AppendReply) -> Result<NodeMessage, WireError> {
    let outcome = match (reply.match_index, reply.rejected, reply.hint) {
        (Some(index), None, None) if reply.damaged.is_none() => AppendOutcome::Accepted { match_index: Index(index) },
        (None, Some(index), Some(hint)) => {
            let (prev_index, hint) = (Index(index), position(hint));
            match reply.damaged {
                Some(loss_id) => AppendOutcome::Damaged { prev_index, hint, loss_id },
                None => AppendOutcome::Rejected { prev_index, hint },
            }
        }
        _ => {
            return Err(field_error(
                "append_entries_reply",
                "either match, or rejected and hint and perhaps damaged, must be given",
            ));
        }
    };
    let body = AppendEntriesReply {
        session: Session(reply.session),
        round: Round(reply.round),
        sent_at: Time(reply.sent),
        outcome,
    };
    Ok(NodeMessage::Raft(Message { term: Term(reply.term), body: Body::AppendEntriesReply(body) }))
}

fn decode_chunk(chunk: Chunk) -> Result<NodeMessage, WireError> {
    let kind = "snapshot_chunk";
    let header = SnapshotHeader { position: position(chunk.last), membership: membership(kind, chunk.members)? };
    Ok(NodeMessage::Chunk(SnapshotChunk {
        term: Term(chunk.term),
        session: Session(chunk.session),
        header,
        total: chunk.total,
        offset: chunk.offset,
        data: read_bytes(kind, (chunk.text, chunk.base64))?.unwrap_or_default(),
    }))
}

fn wire_bytes(bytes: &Bytes) -> WireBytes {
    match std::str::from_utf8(bytes) {
        // Base 64 bounds the growth to a third where text would need many escapes.
        Ok(text) if escaped_length(text) <= bytes.len().div_ceil(3) * 4 => (Some(text.to_owned()), None),
        _ => (None, Some(BASE64.encode(bytes))),
    }
}

/// How many bytes a text takes in a JSON string that is written in ASCII.
pub(crate) fn escaped_length(text: &str) -> usize {
    // A fast path over bytes, because nearly all text is plain ASCII.
    if text.bytes().all(|byte| matches!(byte, b' ' | b'!' | b'#'..=b'[' | b']'..=b'~')) {
        return text.len();
    }
    let length = |character: char| match character {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        ' '..='~' => 1,
        character => 6 * character.len_utf16(),
    };
    text.chars().map(length).sum()
}

fn read_bytes(kind: &str, bytes: WireBytes) -> Result<Option<Bytes>, WireError> {
    match bytes {
        (None, None) => Ok(None),
        (Some(text), None) => Ok(Some(text.into())),
        (None, Some(encoded)) => match BASE64.decode(encoded) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) => Err(field_error(kind, &format!("base64: {error}"))),
        },
        (Some(_), Some(_)) => Err(field_error(kind, "text and base64 at once")),
    }
}

fn wire_membership(membership: &Membership) -> WireMembership {
    let group = |group: &Group| WireGroup {
        voters: group.voters.iter().map(|id| id.0).collect(),
        learners: group.learners.iter().map(|id| id.0).collect(),
    };
    WireMembership { incoming: group(membership.incoming()), outgoing: membership.outgoing().map(group) }
}

fn membership(kind: &str, wire: WireMembership) -> Result<Membership, WireError> {
    let group = |wire: WireGroup| {
        let group = Group {
            voters: wire.voters.into_iter().map(NodeId).collect(),
            learners: wire.learners.into_iter().map(NodeId).collect(),
        };
        group.validate().map_err(|error| field_error(kind, &format!("members: {error}")))?;
        Ok(group)
    };
    let incoming = group(wire.incoming)?;
    Ok(match wire.outgoing {
        None => Membership::simple(incoming),
        Some(outgoing) => Membership::joint(group(outgoing)?, incoming),
    })
}

fn place(position: Position) -> Place {
    (position.index.0, position.term.0)
}

fn position((index, term): Place) -> Position {
    Position::new(Index(index), Term(term))
}

fn fields(message: impl Serialize) -> Fields {
    Fields::of(&message)
}

fn read<T: DeserializeOwned>(kind: &str, message: &[u8]) -> Result<T, WireError> {
    read_fields(message).map_err(|error| field_error(kind, &error.to_string()))
}

fn field_error(kind: &str, problem: &str) -> WireError {
    WireError::Field { kind: kind.to_owned(), problem: crate::message::shorten(problem) }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn positions() -> impl Strategy<Value = Position> {
        (any::<u32>(), any::<u32>()).prop_map(|(index, term)| Position::new(Index(index.into()), Term(term.into())))
    }

    fn memberships() -> impl Strategy<Value = Membership> {
        let groups = || {
            let ids = prop::collection::btree_set(any::<u16>().prop_map(|id| NodeId(id.into())), 1..6);
            (ids.clone(), ids)
                .prop_map(|(voters, others)| Group { learners: others.difference(&voters).copied().collect(), voters })
        };
        (groups(), prop::option::of(groups())).prop_map(|(incoming, outgoing)| match outgoing {
            None => Membership::simple(incoming),
            Some(outgoing) => Membership::joint(outgoing, incoming),
        })
    }

    fn payloads() -> impl Strategy<Value = Payload> {
        prop_oneof![
            Just(Payload::Blank),
            any::<String>().prop_map(|text| Payload::Command(text.into())),
            any::<Vec<u8>>().prop_map(|bytes| Payload::Command(bytes.into())),
            memberships().prop_map(Payload::Membership),
        ]
    }

    fn bodies() -> impl Strategy<Value = Body> {
        let appends = (any::<[u64; 5]>(), positions(), prop::collection::vec((any::<u64>(), payloads()), 0..5));
        let append = appends.prop_map(|([session, round, sent, commit, durable], prev, entries)| {
            let entry =
                |(offset, (term, payload))| Entry { index: prev.index.plus(offset + 1), term: Term(term), payload };
            Body::AppendEntries(AppendEntries {
                session: Session(session),
                round: Round(round),
                sent_at: Time(sent),
                prev,
                entries: entries.into_iter().enumerate().map(entry).collect(),
                commit_index: Index(commit),
                durable_index: Index(durable),
            })
        });
        let reply = (any::<[u64; 4]>(), prop::option::of(positions())).prop_map(|([a, b, c, d], hint)| {
            let outcome = match hint {
                None => AppendOutcome::Accepted { match_index: Index(d) },
                Some(hint) if a % 2 == 0 => AppendOutcome::Damaged { prev_index: Index(d), hint, loss_id: b },
                Some(hint) => AppendOutcome::Rejected { prev_index: Index(d), hint },
            };
            Body::AppendEntriesReply(AppendEntriesReply {
                session: Session(a),
                round: Round(b),
                sent_at: Time(c),
                outcome,
            })
        });
        prop_oneof![
            positions().prop_map(|last| Body::PreVote { last }),
            any::<bool>().prop_map(|granted| Body::PreVoteReply { granted }),
            (positions(), any::<bool>()).prop_map(|(last, transfer)| Body::RequestVote { last, transfer }),
            any::<bool>().prop_map(|granted| Body::RequestVoteReply { granted }),
            append,
            reply,
            Just(Body::TimeoutNow),
            any::<u64>().prop_map(|context| Body::ReadIndex { context, kind: ReadKind::Quorum }),
            (any::<u64>(), any::<Option<u64>>())
                .prop_map(|(context, index)| Body::ReadIndexReply { context, index: index.map(Index) }),
            (any::<[u64; 2]>(), any::<Option<u64>>(), positions()).prop_map(|([start_id, term], voted_for, last)| {
                let hard_state = HardState { term: Term(term), voted_for: voted_for.map(NodeId) };
                Body::Returned { start_id, found: Found { hard_state, last } }
            }),
            (any::<u64>(), any::<Option<u64>>(), prop::option::of(positions())).prop_map(
                |(start_id, missing, leads)| Body::Remembered { start_id, missing: missing.map(Term), leads }
            ),
        ]
    }

    fn over_the_wire(message: &NodeMessage) -> Result<NodeMessage, WireError> {
        let (kind, fields) = encode(message);
        decode(kind, fields.as_json())
    }

    proptest! {
        #[test]
        fn the_cores_messages_survive_the_wire(term in 0..=MAX_ORDINAL, body in bodies()) {
            let message = NodeMessage::Raft(Message { term: Term(term), body });
            prop_assert_eq!(over_the_wire(&message), Ok(message));
        }

        #[test]
        fn pieces_of_snapshots_survive_the_wire(
            numbers: [u64; 4],
            place in positions(),
            membership in memberships(),
            data: Vec<u8>,
        ) {
            let [term, session, total, offset] = numbers;
            let term = term.min(MAX_ORDINAL);
            let header = SnapshotHeader { position: place, membership };
            let (term, session, data) = (Term(term), Session(session), data.into());
            let chunk = NodeMessage::Chunk(SnapshotChunk { term, session, header, total, offset, data });
            // An empty piece comes back as one: no field at all.
            prop_assert_eq!(over_the_wire(&chunk), Ok(chunk));
            let reply = NodeMessage::ChunkReply(SnapshotChunkReply { term, session, received: total });
            prop_assert_eq!(over_the_wire(&reply), Ok(reply));
        }

        #[test]
        fn a_payload_grows_by_a_third_at_most(bytes: Vec<u8>, text: String) {
            for bytes in [Bytes::from(bytes), Bytes::from(text)] {
                let wire = serde_json::to_string(&wire_bytes(&bytes)).expect("text is JSON");
                prop_assert!(wire.len() <= bytes.len().div_ceil(3) * 4 + 16);
            }
        }
    }

    #[test]
    fn what_is_missing_or_unknown_is_named() {
        let error = decode("pre_vote", br#"{"term":1}"#).expect_err("no last");
        assert_eq!(error.to_string(), "pre_vote: missing field `last` at line 1 column 10");
        let error = decode("timeout_now", br#"{"term":1,"x":2}"#).expect_err("a field too many");
        assert_eq!(error.to_string(), "timeout_now: unknown field `x`, expected `term` at line 1 column 13");
        let error = decode("timeout_now", br#"{"term":-1}"#).expect_err("a negative term");
        assert!(error.to_string().starts_with("timeout_now: invalid value: integer `-1`"), "{error}");
        let error = decode("gossip", b"{}").expect_err("not ours");
        assert_eq!(error.to_string(), "type \"gossip\" is not one of this program's messages");
        let overflow = format!(
            r#"{{"term":1,"session":1,"round":0,"sent":0,"prev":[{},1],"commit":0,"entries":[{{"term":1}}]}}"#,
            u64::MAX
        );
        let error = decode("append_entries", overflow.as_bytes()).expect_err("an index beyond all");
        assert_eq!(error.to_string(), "append_entries: prev: the index is too great");
        let members =
            r#"{"term":1,"session":1,"last":[1,1],"members":{"incoming":{"voters":[]}},"total":1,"offset":0}"#;
        let error = decode("snapshot_chunk", members.as_bytes()).expect_err("nobody votes");
        assert_eq!(error.to_string(), "snapshot_chunk: members: a configuration needs at least one voter");
    }
}
