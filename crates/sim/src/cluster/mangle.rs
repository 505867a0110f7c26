//! Mangled messages that make no sense but could reach a replica, from a defective sender or from an earlier time. They
//! make no false claims as a voter or a leader. All of them must be refused or change nothing.

use bowline_node::NodeMessage;
use bowline_raft::{AppendOutcome, Body, Index, Message, Session, Term};

use crate::cluster::dice::Dice;

/// A copy of `message` with one thing wrong.
pub(crate) fn mangled(message: &NodeMessage, dice: &mut Dice) -> NodeMessage {
    let mut copy = message.clone();
    match &mut copy {
        NodeMessage::Raft(message) => mangle_raft(message, dice),
        NodeMessage::Chunk(chunk) => match dice.below(4) {
            0 => chunk.total = u64::MAX,
            1 => chunk.offset = chunk.offset.wrapping_add(1 + dice.below(100)),
            2 => chunk.term = Term(0),
            _ => {
                // A session of no transfer, so that its pieces are never announced as complete.
                chunk.session = Session(chunk.session.0 + 1_000_000);
                chunk.total += 1;
            }
        },
        NodeMessage::ChunkReply(reply) => match dice.below(3) {
            0 => reply.received = u64::MAX,
            1 => reply.session = Session(reply.session.0 + 1_000_000),
            _ => reply.received /= 2,
        },
    }
    copy
}

fn mangle_raft(message: &mut Message, dice: &mut Dice) {
    match &mut message.body {
        Body::AppendEntries(append) => match dice.below(4) {
            0 => append.session = Session(0),
            1 if append.entries.len() > 1 => {
                append.entries.remove(0);
            }
            2 if !append.entries.is_empty() => append.prev.index = append.prev.index.next(),
            // An earlier term would be a false claim: another replica may have led it.
            _ => append.session = Session(0),
        },
        Body::AppendEntriesReply(reply) => match (dice.below(3), &mut reply.outcome) {
            (0, AppendOutcome::Accepted { match_index }) => *match_index = Index(u64::MAX - 1),
            (0, AppendOutcome::Rejected { hint, .. }) => hint.index = Index(0),
            // A lower hint would be a false claim: the leader would believe that the entries above it are missing.
            (0, AppendOutcome::Damaged { .. }) => reply.session = Session(0),
            (1, _) => reply.session = Session(reply.session.0 + 1_000_000),
            _ => message.term = Term(message.term.0.saturating_sub(1 + dice.below(3))),
        },
        Body::ReadIndexReply { context, .. } => *context = dice.word(),
        Body::TimeoutNow => message.term = Term(0),
        Body::RequestVoteReply { .. } | Body::PreVoteReply { .. } => {
            message.term = Term(message.term.0.saturating_sub(1 + dice.below(3)));
        }
        Body::PreVote { last } | Body::RequestVote { last, .. } => last.index = Index(0),
        // Changing what was found or is remembered would be a false claim; an answer to another start is ignored.
        Body::Returned { start_id, .. } | Body::Remembered { start_id, .. } => *start_id = dice.word(),
        Body::InstallSnapshot(_) | Body::ReadIndex { .. } => {}
    }
}
