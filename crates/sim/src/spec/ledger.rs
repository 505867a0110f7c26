//! What the model knows of the whole cluster: the history variables of the published specification
//! (`elections`, `allLogs`) and of its set of messages what the transitions ask for.

use std::collections::BTreeMap;

use bowline_raft::{Entry, Index, NodeId, Payload, Position, Raft, Term};

use super::rule::{Checked, Rule, check};
use super::server::Terms;

/// Facts that never change once they are true.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    /// Who was elected, by term.
    leaders: BTreeMap<Term, NodeId>,
    /// What each position holds, and the term of the entry before it: by induction two logs that
    /// share a position share all before it (Log Matching).
    entries: BTreeMap<Position, (Payload, Option<Term>)>,
    /// Votes that are durable and so may have been sent, by voter and term.
    votes: BTreeMap<(NodeId, Term), NodeId>,
    /// What a leader has committed.
    committed: BTreeMap<Index, Term>,
}

impl Ledger {
    pub(super) fn leader_of(&self, term: Term) -> Option<NodeId> {
        self.leaders.get(&term).copied()
    }

    pub(super) fn elected(&mut self, term: Term, id: NodeId, log: &Terms) -> Checked {
        let leader = *self.leaders.entry(term).or_insert(id);
        check(leader == id, Rule::BecomeLeader, || format!("leads in {term}, in which {leader} was elected"))?;
        // Leader Completeness, for what was committed in earlier terms; by Log Matching the last of it
        // is enough.
        let earlier = self.committed.iter().next_back().filter(|(_, at)| **at < term);
        let earlier = earlier.or_else(|| self.committed.iter().rev().find(|(_, at)| **at < term));
        let Some((index, at)) = earlier else { return Ok(()) };
        let held = log.base.index >= *index || log.term_at(*index) == Some(*at);
        check(held, Rule::BecomeLeader, || format!("leads in {term} without the committed entry {index}@{}", at.0))
    }

    /// A leader creates an entry after one of the term `before`.
    pub(super) fn created(&mut self, entry: &Entry, before: Option<Term>) -> Checked {
        let known = self.entries.insert(entry.position(), (entry.payload.clone(), before));
        check(known.is_none(), Rule::ClientRequest, || {
            format!("creates a second entry at {}: a position names one entry for ever", entry.position())
        })
    }

    /// Whether a leader created exactly this entry, after one of the term `before` if that is known.
    pub(super) fn holds(&self, entry: &Entry, before: Option<Term>) -> bool {
        self.entries.get(&entry.position()).is_some_and(|(payload, known)| {
            *payload == entry.payload && (before.is_none() || known.is_none() || before == *known)
        })
    }

    /// A replica that was never seen before brings what it has.
    pub(super) fn adopt(&mut self, raft: &Raft) -> Checked {
        let log = raft.log();
        for entry in log.iter() {
            let before = log.term_at(entry.index.previous());
            let known = self.entries.entry(entry.position()).or_insert_with(|| (entry.payload.clone(), before));
            check(known.0 == entry.payload, Rule::Restart, || {
                format!("starts with another entry at {}", entry.position())
            })?;
        }
        for index in (log.base().index.0..=raft.commit_index().0).map(Index) {
            if let Some(term) = log.term_at(index) {
                self.commit(index, term)?;
            }
        }
        Ok(())
    }

    pub(super) fn vote_of(&self, voter: NodeId, term: Term) -> Option<NodeId> {
        self.votes.get(&(voter, term)).copied()
    }

    pub(super) fn voted(&mut self, voter: NodeId, term: Term, candidate: NodeId) -> Checked {
        let vote = *self.votes.entry((voter, term)).or_insert(candidate);
        check(vote == candidate, Rule::GrantVote, || {
            format!("votes for {candidate} in {term}, in which it has voted for {vote}")
        })
    }

    pub(super) fn committed_at(&self, index: Index) -> Option<Term> {
        self.committed.get(&index).copied()
    }

    /// State Machine Safety: what is committed stays.
    pub(super) fn commit(&mut self, index: Index, term: Term) -> Checked {
        let known = *self.committed.entry(index).or_insert(term);
        check(known == term, Rule::AdvanceCommitIndex, || {
            format!("commits {index}@{}, where {index}@{} is committed", term.0, known.0)
        })
    }
}
