//! What replicas have promised over the wire: votes, acknowledgements, terms. A promise must be durable before it is
//! sent (I8, I9), and a restart must find it again (I7, I18).

use std::collections::BTreeMap;

use bowline_raft::{AppendOutcome, Body, Message, NodeId, Position, Recovered, Term};

use crate::cluster::disk::Disk;
use crate::cluster::oracle::{Judged, Rule};

#[derive(Debug, Default)]
pub(crate) struct Promises {
    votes: BTreeMap<(NodeId, Term), NodeId>,
    acks: BTreeMap<(NodeId, Term), Position>,
    /// The highest term that a replica has shown.
    shown: BTreeMap<NodeId, Term>,
}

impl Promises {
    /// A message leaves a replica; `disk` is what its disk certainly holds.
    pub(crate) fn sent(&mut self, from: NodeId, to: NodeId, message: &Message, disk: &Disk) -> Judged {
        let term = message.term;
        // A request for a read index promises nothing, and its answer promises only the index.
        let question = matches!(message.body, Body::ReadIndex { .. } | Body::ReadIndexReply { .. });
        if !question {
            if disk.hard_state().term < term {
                return Err((Rule::TermNeverDecreases, format!("{from} shows {term} before it is durable")));
            }
            let shown = self.shown.entry(from).or_default();
            *shown = (*shown).max(term);
        }
        match &message.body {
            Body::RequestVoteReply { granted: true } => self.voted(from, term, to, disk),
            Body::RequestVote { .. } => self.voted(from, term, from, disk),
            Body::AppendEntriesReply(reply) => match reply.outcome {
                AppendOutcome::Accepted { match_index } => self.acknowledged(from, term, match_index, disk),
                AppendOutcome::Rejected { .. } | AppendOutcome::Damaged { .. } => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn voted(&mut self, voter: NodeId, term: Term, candidate: NodeId, disk: &Disk) -> Judged {
        let earlier = *self.votes.entry((voter, term)).or_insert(candidate);
        if earlier != candidate {
            let what = format!("{voter} votes for {earlier} and for {candidate} in {term}");
            return Err((Rule::VoteIsDurable, what));
        }
        if disk.vote_in(term) != Some(candidate) {
            return Err((
                Rule::VoteIsDurable,
                format!("{voter} sends its vote for {candidate} in {term} before it is durable"),
            ));
        }
        Ok(())
    }

    fn acknowledged(&mut self, from: NodeId, term: Term, index: bowline_raft::Index, disk: &Disk) -> Judged {
        // A later term may have replaced the entries since; then the promise no longer holds.
        if disk.hard_state().term > term || index <= disk.base().index {
            return Ok(());
        }
        match disk.term_at(index) {
            Some(held) => {
                let newest = self.acks.entry((from, term)).or_insert(Position::ORIGIN);
                *newest = (*newest).max(Position::new(index, held));
                Ok(())
            }
            None => {
                let what = format!("{from} acknowledges {index} in {term}, but its disk ends at {}", disk.last());
                Err((Rule::AcknowledgedIsDurable, what))
            }
        }
    }

    /// The disk of a replica has lost entries, and the replica knows it: it will not vote before it has them again.
    pub(crate) fn damaged(&mut self, id: NodeId) {
        self.acks.retain(|(acknowledger, _), _| *acknowledger != id);
    }

    /// The disk of a replica was restored from an old image, so its promises are forgotten; those who were promised
    /// must notice.
    pub(crate) fn rolled_back(&mut self, id: NodeId) {
        self.damaged(id);
        self.votes.retain(|(voter, _), _| *voter != id);
        self.shown.remove(&id);
    }

    /// A replica restarts with this.
    pub(crate) fn restarted(&self, id: NodeId, recovered: &Recovered, disk: &Disk) -> Judged {
        let state = recovered.hard_state;
        if let Some(shown) = self.shown.get(&id).filter(|shown| **shown > state.term) {
            return Err((Rule::TermNeverDecreases, format!("{id} has shown {shown}, but starts in {}", state.term)));
        }
        if let Some(candidate) = self.votes.get(&(id, state.term))
            && state.voted_for != Some(*candidate)
        {
            let what = format!("{id} forgot its vote for {candidate} in {}", state.term);
            return Err((Rule::RestartKeepsPromises, what));
        }
        if let Some(position) = self.acks.get(&(id, state.term))
            && position.index > disk.base().index
            && disk.term_at(position.index) != Some(position.term)
        {
            let what = format!("{id} forgot {position}, acknowledged in {}", state.term);
            return Err((Rule::RestartKeepsPromises, what));
        }
        Ok(())
    }
}
