//! The protobuf messages between members.
//!
//! The number of a field is never changed or reused. Random values and identities have a fixed length; counters are
//! varints.

use bytes::Bytes;

/// A message from one member to another. The entries of an AppendEntries are not in it, but follow it.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PeerMessage {
    /// The term of the sender, or for pieces of snapshots and their answers that of the leader.
    #[prost(uint64, tag = "1")]
    pub(super) term: u64,
    #[prost(oneof = "PeerBody", tags = "2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15")]
    pub(super) body: Option<PeerBody>,
}

/// The kinds of messages.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum PeerBody {
    #[prost(message, tag = "2")]
    PreVote(VoteRequest),
    #[prost(message, tag = "3")]
    PreVoteReply(VoteReply),
    #[prost(message, tag = "4")]
    RequestVote(VoteRequest),
    #[prost(message, tag = "5")]
    RequestVoteReply(VoteReply),
    #[prost(message, tag = "6")]
    AppendEntries(AppendEntries),
    #[prost(message, tag = "7")]
    AppendEntriesReply(AppendEntriesReply),
    #[prost(message, tag = "8")]
    InstallSnapshot(InstallSnapshot),
    #[prost(message, tag = "9")]
    TimeoutNow(TimeoutNow),
    #[prost(message, tag = "10")]
    ReadIndex(ReadIndex),
    #[prost(message, tag = "11")]
    ReadIndexReply(ReadIndexReply),
    #[prost(message, tag = "12")]
    Returned(Returned),
    #[prost(message, tag = "13")]
    Remembered(Remembered),
    #[prost(message, tag = "14")]
    Chunk(Chunk),
    #[prost(message, tag = "15")]
    ChunkReply(ChunkReply),
}

/// A place in a log.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Position {
    #[prost(uint64, tag = "1")]
    pub(super) term: u64,
    #[prost(uint64, tag = "2")]
    pub(super) index: u64,
}

/// PreVote and RequestVote.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct VoteRequest {
    #[prost(message, required, tag = "1")]
    pub(super) last: Position,
    #[prost(bool, tag = "2")]
    pub(super) transfer: bool,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct VoteReply {
    #[prost(bool, tag = "1")]
    pub(super) granted: bool,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct AppendEntries {
    #[prost(fixed64, tag = "1")]
    pub(super) session: u64,
    #[prost(uint64, tag = "2")]
    pub(super) round: u64,
    #[prost(uint64, tag = "3")]
    pub(super) sent_at: u64,
    #[prost(message, required, tag = "4")]
    pub(super) prev: Position,
    #[prost(uint64, tag = "5")]
    pub(super) commit_index: u64,
    #[prost(uint64, tag = "6")]
    pub(super) durable_index: u64,
    /// How many entries follow the message.
    #[prost(uint32, tag = "7")]
    pub(super) entries: u32,
}

/// An entry of the log.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Entry {
    #[prost(uint64, tag = "1")]
    pub(super) index: u64,
    #[prost(uint64, tag = "2")]
    pub(super) term: u64,
    #[prost(oneof = "Payload", tags = "3, 4, 5")]
    pub(super) payload: Option<Payload>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Payload {
    #[prost(message, tag = "3")]
    Blank(Blank),
    #[prost(bytes = "bytes", tag = "4")]
    Command(Bytes),
    #[prost(message, tag = "5")]
    Membership(Membership),
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Blank {}

/// A configuration; a joint one if it has an outgoing group.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Membership {
    #[prost(message, required, tag = "1")]
    pub(super) incoming: Group,
    #[prost(message, optional, tag = "2")]
    pub(super) outgoing: Option<Group>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Group {
    #[prost(fixed64, repeated, tag = "1")]
    pub(super) voters: Vec<u64>,
    #[prost(fixed64, repeated, tag = "2")]
    pub(super) learners: Vec<u64>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct AppendEntriesReply {
    #[prost(fixed64, tag = "1")]
    pub(super) session: u64,
    #[prost(uint64, tag = "2")]
    pub(super) round: u64,
    #[prost(uint64, tag = "3")]
    pub(super) sent_at: u64,
    #[prost(oneof = "AppendOutcome", tags = "4, 5, 6")]
    pub(super) outcome: Option<AppendOutcome>,
}

#[derive(Clone, Copy, PartialEq, prost::Oneof)]
pub(super) enum AppendOutcome {
    /// The index up to which the logs match.
    #[prost(uint64, tag = "4")]
    Accepted(u64),
    #[prost(message, tag = "5")]
    Rejected(Rejected),
    #[prost(message, tag = "6")]
    Damaged(Damaged),
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Rejected {
    #[prost(uint64, tag = "1")]
    pub(super) prev_index: u64,
    #[prost(message, required, tag = "2")]
    pub(super) hint: Position,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Damaged {
    #[prost(uint64, tag = "1")]
    pub(super) prev_index: u64,
    #[prost(message, required, tag = "2")]
    pub(super) hint: Position,
    #[prost(fixed64, tag = "3")]
    pub(super) loss_id: u64,
}

/// The header of a snapshot.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SnapshotHeader {
    #[prost(message, required, tag = "1")]
    pub(super) position: Position,
    #[prost(message, required, tag = "2")]
    pub(super) membership: Membership,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct InstallSnapshot {
    #[prost(fixed64, tag = "1")]
    pub(super) session: u64,
    #[prost(message, required, tag = "2")]
    pub(super) snapshot: SnapshotHeader,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct TimeoutNow {}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct ReadIndex {
    #[prost(fixed64, tag = "1")]
    pub(super) context: u64,
    /// Whether a lease is enough. Without this field, a quorum confirms the read.
    #[prost(bool, tag = "2")]
    pub(super) lease: bool,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct ReadIndexReply {
    #[prost(fixed64, tag = "1")]
    pub(super) context: u64,
    #[prost(uint64, optional, tag = "2")]
    pub(super) index: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Returned {
    #[prost(fixed64, tag = "1")]
    pub(super) start_id: u64,
    #[prost(uint64, tag = "2")]
    pub(super) term: u64,
    #[prost(fixed64, optional, tag = "3")]
    pub(super) voted_for: Option<u64>,
    #[prost(message, required, tag = "4")]
    pub(super) last: Position,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Remembered {
    #[prost(fixed64, tag = "1")]
    pub(super) start_id: u64,
    #[prost(uint64, optional, tag = "2")]
    pub(super) missing: Option<u64>,
    #[prost(message, optional, tag = "3")]
    pub(super) leads: Option<Position>,
}

/// A piece of a snapshot.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Chunk {
    #[prost(fixed64, tag = "1")]
    pub(super) session: u64,
    #[prost(message, required, tag = "2")]
    pub(super) header: SnapshotHeader,
    #[prost(uint64, tag = "3")]
    pub(super) total: u64,
    #[prost(uint64, tag = "4")]
    pub(super) offset: u64,
    #[prost(bytes = "bytes", tag = "5")]
    pub(super) data: Bytes,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct ChunkReply {
    #[prost(fixed64, tag = "1")]
    pub(super) session: u64,
    #[prost(uint64, tag = "2")]
    pub(super) received: u64,
}
